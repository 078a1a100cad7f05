"""The tables of each part, from its records."""

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.report import (
    Column,
    Table,
    grouped,
    kernel_tables,
    number,
    scaling_tables,
    table,
    train_step_tables,
)

Records = list[dict[str, Any]]
LEGEND = (
    "Milliseconds are the minimum over all calls. Ratios are over jrnn's (ReLU: over its ReLU)."
)
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


def of_cells(records: Records, *more: Column) -> Iterator[tuple[str, Table]]:
    """The tables of every cell, with its name."""
    for cell, found in by_cell(by_row(records)):
        yield from ((cell, table) for table in kernel_tables(found, *more))


def recurrences(records: Records) -> Iterator[str]:
    """A table per cell, dtype and route."""
    platform = records[0]["platform"]
    name = {"gpu": "kernels per step", "tpu": ""}.get(platform, "operations per step")
    counts = [
        Column(f"{which} {name}", "operations_per_step", 1, gradient, ratio=False)
        for which, gradient in (("forward", False), ("gradient", True))
    ]
    said = {
        "gpu": f"{OPERATIONS}; each is a kernel launch at least.",
        "tpu": "Operations per step are not given: on a TPU they are no launches.",
    }.get(platform, f"{OPERATIONS}; on a CPU they are no launches.")
    yield f"{LEGEND} {said}"
    for cell, made in of_cells(records, *(counts if name else [])):
        yield f"### {cell}{made.title}\n\n{made.text()}"


def training(records: Records) -> Iterator[str]:
    """A table of characters per second."""
    yield from (made.text() for made in train_step_tables(records))


def growth(records: Records) -> Iterator[str]:
    """One table per axis."""
    yield "Forward + backward in float32. " + LEGEND.replace(" (ReLU: over its ReLU)", "")
    for made in scaling_tables(records):
        yield f"### {made.title}\n\n{made.text()}"


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
