"""The page: JSON with all results, and Markdown and a chart made from it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.device import tables
from benchmarks.report import MEAN, scaling_tables, table, train_step_tables
from benchmarks.report import chart as draw
from jrnn.files import write_whole

CHARTED = ("recurrences", "training", "growth")
BUSY = 0.5  # share of the cores that other programs use


def write(out: Path, page: dict[str, Any]) -> None:
    """Write `device.json` and `device.md` atomically.

    Args:
        out: the folder.
        page: name, command, date, whether there is a chart, and the parts from `Result.as_dict`.

    Raises:
        OSError: one cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "device.json", (json.dumps(page, indent=1) + "\n").encode())
    write_whole(out / "device.md", markdown(page).encode())


def chart(out: Path, page: dict[str, Any]) -> str:
    """Write `device.png`; return the reason if it fails, else an empty string."""
    by_name = {part["name"]: part["records"] for part in page["parts"]}
    recurrences, *others = (by_name.get(name, []) for name in CHARTED)
    if not any([recurrences, *others]):
        return "No chart: nothing that it would show was measured."
    try:
        out.mkdir(parents=True, exist_ok=True)
        title = f"{page['name']}, {page['date']}"
        made = [t._replace(title=f"{cell}{t.title}") for cell, t in tables.of_cells(recurrences)]
        made += [*train_step_tables(others[0]), *scaling_tables(others[1])]
        draw(out / "device.png", title, made)
    except Exception as error:  # matplotlib is optional; keep the results after any error
        return f"No chart: {type(error).__name__}: {error}"
    return ""


def markdown(page: dict[str, Any]) -> str:
    """The text of the page, made only from the JSON."""
    texts = [*head(page), *(text for part in page["parts"] for text in section(part))]
    return "\n\n".join(filter(None, texts)) + "\n"


def head(page: dict[str, Any]) -> Iterator[str]:
    """The machine, the command, the date, and a summary."""
    yield f"# {page['name']}"
    yield f"    {page['command']}"
    described = [r["machine"] for part in page["parts"] for r in part["records"] if "machine" in r]
    yield " ".join([f"{page['date']}.", *map(machine.sentence, described)])
    yield "\n".join(f"- {line}" for line in in_short(page["parts"]))
    rows = [
        [part["title"], state(part), f"{part['seconds']:.0f}", len(part["records"])]
        for part in page["parts"]
    ]
    yield table(["part", "", "seconds", "results"], rows)
    yield page["chart"] or "![times over jrnn's, characters per second, growth](device.png)"


def state(part: dict[str, Any]) -> str:
    """The state of a part, in bold if it is not as expected."""
    if part["state"] == "done":
        wrong = sum(not r.get("passed", True) for r in part["records"])
        return f"done, **{wrong} wrong**" if wrong else "done"
    bold = part["state"] in ("failed", "stopped", "interrupted")
    word = f"**{part['state']}**" if bold else part["state"]
    return f"{word}: {part['reason']}" if part["reason"] else word


def section(part: dict[str, Any]) -> Iterator[str]:
    """The section of a part: its failure if any, tables and lines."""
    yield f"## {part['title']}"
    if part["state"] != "done":
        yield state(part)
    if part["records"]:
        yield from tables.TABLES[part["name"]](part["records"])
    if part["lines"]:
        yield "\n".join(f"- {line}" for line in part["lines"])


def in_short(parts: list[dict[str, Any]]) -> Iterator[str]:
    """The main results in sentences."""
    found = {part["name"]: part["records"] for part in parts}
    for r in found.get("device", []):
        if "load" in r and r["load"] > BUSY * r["machine"]["cores"]:
            load = f"load {r['load']:.1f} on {r['machine']['cores']} cores"
            yield f"**The machine was busy: {load}. Times mean little.**"
    for name, what in JUDGED.items():
        if records := found.get(name):
            yield tables.verdict(what, records)
    recurrences = found.get("recurrences", [])
    made = [(cell, t) for cell, t in tables.of_cells(recurrences) if t.title == "batch, float32"]
    made += [("", t) for t in train_step_tables(found.get("training", []))]
    for cell, t in made:
        for (shape, name), cells in t.cells().items():
            ratios = [f"{what} {c.ratio:.2f}" for what, c in cells.items() if what in QUOTED]
            if ratios and shape == MEAN and name in OTHERS:
                yield f"{cell}{t.title}: {name} over jrnn: {', '.join(ratios)}"
    for cell, records in tables.by_cell(tables.by_row(recurrences)):
        if counts := [
            f"{r['program']} {r['operations_per_step']:.1f}"
            for r in records
            if r["platform"] == "gpu" and r["operations_per_step"] is not None
            if (r["row"], r["dtype"], r["route"], r["gradient"]) == (2, "float32", "batch", True)
        ]:
            said = ", ".join(counts)
            yield f"{cell}kernels per time step, forward + backward, row 2: {said}"
    for part in parts:
        if part["state"] in ("failed", "stopped", "interrupted"):
            yield f"{part['title']}: {state(part)}"


JUDGED = {
    "gradients": "comparisons with NumPy in float64",
    "hopper": "runs of one kernel per sequence",
    "races": "searches for races",
}
QUOTED = {"forward ms", "gradient ms", "gradient MB", "median ms"}
OTHERS = {"best autodiff", "best JAX library", "torch", "matmul floor"}
