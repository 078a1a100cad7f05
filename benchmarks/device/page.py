"""The page: JSON with all results, and Markdown and a chart made from it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.device.runner import BAD
from benchmarks.report import Records

COLUMNS = {
    "recurrences": report.KERNEL,
    "training": report.TRAIN_STEP,
    "growth": report.SCALING,
}
BUSY = 0.5  # share of the cores that other programs use
OTHERS = ("best autodiff", "best JAX library", "torch")  # in short
METHOD = (
    "Every output and every cotangent is compared with NumPy in float64, which also runs with "
    "weights and inputs moved by one unit of the last digit: allowed is a multiple of what that "
    "changes. Operands of matmuls have the binary digits in the table: 24 at "
    '"highest"; by default 24 on a CPU, 11 (TF32) on a GPU, 8 (bfloat16) on a TPU. Shown is the '
    "array that comes nearest to its bound, errors and bounds over its largest element."
)


def chart(out: Path, page: dict[str, Any]) -> str:
    """Write `device.png`; return the reason if it fails, else an empty string."""
    made = [t for part in page["parts"] for t in tables(part)]
    if not made:
        return "No chart: nothing that it would show was measured."
    try:
        report.chart(out / "device.png", f"{page['name']}, {page['date']}", made)
    except Exception as error:  # matplotlib is optional; keep the results after any error
        return f"No chart: {type(error).__name__}: {error}"
    return ""


def markdown(page: dict[str, Any]) -> str:
    """The text of the page, made only from the JSON."""
    parts = page["parts"]
    states = [
        [part["title"], state(part), f"{part['seconds']:.0f}", len(part["records"])]
        for part in parts
    ]
    texts = [
        f"# {page['name']}",
        f"    {page['command']}",
        " ".join([f"{page['date']}.", *map(machine.sentence, machines(page))]),
        "\n".join(f"- {line}" for part in parts for line in in_short(part)),
        report.table(["part", "", "seconds", "results"], states),
        page["chart"] or "![times over jrnn's, characters per second, growth](device.png)",
        *(text for part in parts for text in section(part)),
    ]
    return "\n\n".join(filter(None, texts))


def machines(page: dict[str, Any]) -> Records:
    """The description of the machine; none before it is known."""
    return [r["machine"] for part in page["parts"] for r in part["records"] if "machine" in r]


def state(part: dict[str, Any]) -> str:
    """The state of a part, in bold if it is not as expected."""
    word = f"**{part['state']}**" if part["state"] in BAD else part["state"]
    if wrong := sum(not r.get("passed", True) for r in part["records"]):
        word += f", **{wrong} wrong**"
    return f"{word}: {part['reason']}" if part["reason"] else word


def tables(part: dict[str, Any]) -> list[report.Table]:
    """The tables of a part that measures."""
    name, records = part["name"], part["records"]
    if name == "recurrences":  # the rows were measured in the order of their worth
        records = sorted(records, key=lambda r: r["row"])
    return report.tables(records, COLUMNS[name]) if name in COLUMNS else []


def section(part: dict[str, Any]) -> Iterator[str]:
    """The section of a part: its failure if any, tables and lines."""
    yield f"## {part['title']}"
    if part["state"] != "done":
        yield state(part)
    records = part["records"]
    for memory in [r["memory"] for r in records if r.get("memory")]:
        said = ", ".join(f"{k} {n / 1e9:,.1f} GB" for k, n in memory.items() if "bytes" in k)
        yield f"JAX's allocator: {said}."
    if gpus := [r for r in records if "gpu" in r]:
        yield report.table(list(gpus[0]), [list(r.values()) for r in gpus])
    if judged := [r for r in records if "passed" in r]:
        yield METHOD
        yield report.table(
            ["cell", "form", "T, B, I, H", "precision", "digits", "array", "error", "bound", ""],
            map(comparison, judged),
        )
    for t in tables(part):
        yield f"### {t.title}\n\n{t.text()}"
    yield "\n".join(f"- {line}" for line in part["lines"])


def comparison(r: dict[str, Any]) -> list[str]:
    """The line of a comparison, which may have failed before it found an error."""
    found = [f"{r[k]:.1e}" if k in r else "" for k in ("error", "bound")]
    passed = "pass" if r["passed"] else f"**FAIL**: {r['reason']}"
    case = ", ".join(map(str, r["case"]))
    about = [r["cell"], r["form"], case, r["precision"], r.get("bits", ""), r.get("worst", "")]
    return [*about, *found, passed]


def in_short(part: dict[str, Any]) -> Iterator[str]:
    """The main results of a part in sentences."""
    for r in part["records"]:
        if "load" in r and r["load"] > BUSY * r["machine"]["cores"]:
            load = f"load {r['load']:.1f} on {r['machine']['cores']} cores"
            yield f"**The machine was busy: {load}. Times mean little.**"
    if speeds := [r["matmul_gflops"] for r in part["records"] if "matmul_gflops" in r]:
        yield f"A float32 matmul, of which the floor is made, runs at {max(speeds):,.0f} GFLOP/s."
    judged = [r for r in part["records"] if "passed" in r]
    if wrong := [f"{name_of(r)} ({r['reason']})" for r in judged if not r["passed"]]:
        yield f"**{len(wrong)} of {len(judged)} comparisons are WRONG: {'; '.join(wrong)}**"
    elif judged:
        yield f"{len(judged)} of {len(judged)} comparisons with NumPy in float64 are right."
    for t in tables(part):
        for (place, name), cells in t.cells().items():
            if place == report.MEAN and name in OTHERS:
                said = (f"{what} {cell.ratio:.2f}" for what, cell in cells.items())
                yield f"{t.title}, {name} over jrnn: {', '.join(said)}"
    if part["state"] in BAD:
        yield f"{part['title']}: {state(part)}"


def name_of(record: dict[str, Any]) -> str:
    """The cell, form, shape and precision of a comparison."""
    return " ".join(str(record[k]) for k in ("cell", "form", "case", "precision"))
