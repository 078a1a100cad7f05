"""The tables of each part, from its records."""

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import claims
from benchmarks.report import (
    grouped,
    kernel_details,
    kernel_tables,
    number,
    scaling_tables,
    table,
    train_step_table,
)

Records = list[dict[str, Any]]
LEGEND = "Milliseconds, minimum over all calls; in brackets over jrnn's (ReLU: over its ReLU)."
OPERATIONS = (
    "Operations that the loops run per time step are counted in the program as compiled here"
)
GB = 1e9


def verdict(what: str, records: Records) -> str:
    """The number of records within their bounds, and the others by name in bold."""
    wrong = [r for r in records if not r["passed"]]
    text = f"{len(records) - len(wrong)} of {len(records)} {what} are right"
    names = "; ".join(" ".join(map(str, [*key_of(r), f"({reason(r)})"])) for r in wrong)
    return f"**{text}. WRONG: {names}**" if wrong else f"{text}."


def key_of(record: dict[str, Any]) -> list[Any]:
    """The identity of a comparison."""
    return [record[k] for k in ("kernel", "cell", "form", "case", "precision") if k in record]


def reason(record: dict[str, Any]) -> str:
    """The reason why a record did not pass."""
    if "reason" in record:
        return str(record["reason"])
    return f"{record['worst']} is off by {record['error']:.1e}, allowed {record['bound']:.1e}"


def sentence(record: dict[str, Any]) -> str:
    """A sentence for the screen, for jrnn's records only."""
    if "passed" in record:
        words = ", ".join(str(k) for k in key_of(record) if isinstance(k, str))
        return f"{words}: {'pass' if record['passed'] else 'FAIL'}"
    if record.get("program") != "jrnn":
        return ""
    where = [f"{record[k]}" for k in ("cell", "route", "dtype") if k in record]
    where += ["forward + backward" if record.get("gradient", True) else "forward"]
    at = f"{record['axis']} = {record['at']:,}" if "axis" in record else f"row {record['row']}"
    return f"{', '.join([at, *where])}: {record['minimum_ms']:.3g} ms"


def by_row(records: Records) -> Records:
    """Records in the order of the rows."""
    return sorted(records, key=lambda r: r["row"])


def by_cell(records: Records) -> Iterator[tuple[str, Records]]:
    """The records of every cell, and its name for titles, which is empty for an Elman network."""
    for (cell,), found in grouped(records, ["cell"]).items():
        yield "" if cell == "rnn" else f"{cell}: ", found


def device(records: Records) -> Iterator[str]:
    """Tables of memory, nvidia-smi and speeds."""
    for memory in [r["memory"] for r in records if r.get("memory")]:
        limit, used = memory.get("bytes_limit"), memory.get("bytes_in_use", 0)
        yield f"JAX may use {number(limit, GB)} GB of its memory ({number(used, GB)} GB in use)."
    if smi := [r for r in records if "gpu" in r]:
        yield table(list(smi[0]), [list(r.values()) for r in smi])
    if speeds := [r for r in records if "what" in r]:
        rows = [
            [r["what"], f"{r['tflops']:.3g} TFLOP/s" if "tflops" in r else f"{r['us']:.3g} us"]
            for r in speeds
        ]
        yield table(["", ""], rows)


def gradients(records: Records) -> Iterator[str]:
    """The verdict, its method, and every comparison."""
    yield verdict("comparisons", records)
    yield (
        "Every output and every cotangent is compared with NumPy in float64. Allowed is three "
        "times the largest error of nine NumPy scans in float32, one of them of the arrays as "
        "given, eight of weights and inputs moved by one unit of the last digit, and four such "
        "units of the largest element. Operands of their matmuls have the binary digits that "
        'stand in the table: 24 at "highest"; by default 24 on a CPU, 11 (TF32) on a GPU, 8 '
        "(bfloat16) on a TPU. Shown is the array that comes nearest to its bound, errors and "
        "bounds over its largest element."
    )
    header = ["cell", "form", "T, B, I, H", "precision", "digits", "array", "error", "bound", ""]
    rows = []
    for r in records:
        key = [r["cell"], r["form"], ", ".join(map(str, r["case"])), r["precision"]]
        if "reason" in r:
            rows.append([*key, "", "", "", "", f"**FAIL**: {r['reason']}"])
            continue
        passed = "pass" if r["passed"] else "**FAIL**"
        rows.append([*key, r["bits"], r["worst"], f"{r['error']:.1e}", f"{r['bound']:.1e}", passed])
    yield table(header, rows)


def recurrences(records: Records) -> Iterator[str]:
    """A table per cell, dtype, route and pass, the ratios, and the details."""
    records = by_row(records)
    yield LEGEND
    for cell, found in by_cell(records):
        for title, text in kernel_tables(found):
            yield f"### {cell}{title}\n\n{text}"
    ratios = [
        f"- {cell}{claim}" for cell, found in by_cell(records) for claim in claims.of_kernel(found)
    ]
    yield "### Ratios\n\n" + "\n".join(ratios)
    platform = records[0]["platform"]
    name = {"gpu": "kernels per step", "tpu": ""}.get(platform, "operations per step")
    said = {
        "gpu": f"{OPERATIONS}; each is a kernel launch at least.",
        "tpu": "Operations per step are not given: on a TPU they are no launches.",
    }.get(platform, f"{OPERATIONS}; on a CPU they are no launches.")
    yield f"### Details\n\n{said}"
    for cell, found in by_cell(records):
        yield (f"### {cell}details\n\n" if cell else "") + kernel_details(found, name)


def training(records: Records) -> Iterator[str]:
    """A table of characters per second, and the ratios."""
    yield train_step_table(records)
    if said := claims.of_train_step(records):
        yield "\n".join(f"- {claim}" for claim in said)


def growth(records: Records) -> Iterator[str]:
    """One table per axis."""
    yield "Forward + backward in float32. " + LEGEND.replace(" (ReLU: over its ReLU)", "")
    for title, text in scaling_tables(records):
        yield f"### {title}\n\n{text}"


def races(records: Records) -> Iterator[str]:
    """The result of the sanitizer."""
    yield "\n".join(f"- {'pass' if r['passed'] else '**FAIL**'}: {r['reason']}" for r in records)


def hopper(records: Records) -> Iterator[str]:
    """Errors, equality of two runs, and microseconds per step."""
    names = list(dict.fromkeys(name for r in records for name in r.get("us_per_step", {})))
    rows = []
    for r in records:
        key = [r["kernel"], ", ".join(map(str, r["case"]))]
        if "reason" in r:
            rows.append([*key, f"**FAIL**: {r['reason']}", "", "", *[""] * len(names)])
            continue
        passed = "pass" if r["passed"] else "**FAIL**"
        same = "yes" if r["same_twice"] else "**no**"
        times = [r["us_per_step"].get(name) for name in names]
        cells = ["" if t is None else f"{t:.2f}" for t in times]
        rows.append([*key, passed, f"{r['error']:.1e} of {r['bound']:.1e}", same, *cells])
    header = ["kernel", "T, B, H", "", "error, bound", "same twice", *(f"{n}, us" for n in names)]
    yield "Microseconds per time step, minimum over all calls; cuDNN by way of torch."
    yield table(header, rows)


TABLES: dict[str, Callable[[Records], Iterator[str]]] = {
    "device": device,
    "gradients": gradients,
    "recurrences": recurrences,
    "training": training,
    "growth": growth,
    "hopper": hopper,
    "races": races,
}
