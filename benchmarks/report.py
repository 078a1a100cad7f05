"""Options, progress and results of every program: one table, with JSON and a chart.

A record is a dict of one program's values. It names its `table`, the `axis` that differs between
the lines of it, its `place` on this axis, its `program`, and its `label`, if that is more.
"""

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple, TypeVar

import numpy as np

from benchmarks import machine
from jrnn.files import write_whole

Records = list[dict[str, Any]]
Item = TypeVar("Item")

# --- options -------------------------------------------------------------------------------------


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The options of every program; `name` is the program and its default folder."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=(doc or "").split("\n\n")[0],  # None with python -OO
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--out", type=Path, default=Path(f"out/{name}"), help="directory")
    made.add_argument("--toy", action="store_true", help="tiny sizes: does everything run?")
    return made


def add_options(
    parser: argparse.ArgumentParser, rows: Sequence[Any], rivals: list[str], rounds: int
) -> None:
    """The options of the programs that have rows."""
    add = parser.add_argument
    add("--rows", nargs="+", type=type(rows[0]), choices=rows, help="of the table (None: all)")
    add("--rivals", nargs="+", choices=rivals, default=rivals)
    add("--rounds", type=positive, default=rounds, help="turns of every program")
    add("--devices", type=positive, help="CPU cores that become devices (None: all of them)")


def positive(text: str) -> int:
    """An integer above 0, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the options; `command` is what was typed."""
    args = parser.parse_args(argv)
    args.command = shlex.join([*parser.prog.split(), *(sys.argv[1:] if argv is None else argv)])
    return args


# --- progress ------------------------------------------------------------------------------------


def progress(items: Sequence[Item], name: Callable[[Item], str]) -> Iterator[Item]:
    """The items, with a bar and the time left on a terminal."""
    from tqdm import tqdm  # optional: the tables need no bar

    with tqdm(items, disable=None, leave=False) as bar:
        for item in bar:
            bar.set_description(name(item))
            yield item


def say(line: str) -> None:
    """Print a line, above the bar if there is one."""
    bars = sys.modules.get("tqdm")
    (bars.tqdm.write if bars else print)(line)
    sys.stdout.flush()


# --- the table -----------------------------------------------------------------------------------


class Column(NamedTuple):
    """A measured quantity, in a table followed by its ratio to that of jrnn."""

    title: str
    quantity: str
    unit: float = 1
    gradient: bool | None = None  # of this pass only
    ratio: bool = True


MS, MB = "minimum_ms", "temporary_bytes"
KERNEL = [
    Column(f"{name} {title}", quantity, unit, gradient, quantity != "error")
    for title, quantity, unit in (
        ("ms", MS, 1),
        ("MB", MB, 1e6),
        ("compile s", "compile_seconds", 1),
        ("error", "error", 1),
    )
    for name, gradient in (("forward", False), ("gradient", True))
]
TRAIN_STEP = [
    Column("median ms", "median_ms"),
    Column("minimum ms", MS),
    Column("first step s", "first_step_seconds"),
    Column("characters/s", "characters_per_second", ratio=False),
    Column("validation bits", "validation_bits", ratio=False),
]
SCALING = [
    Column("ms", MS),
    Column("ms over the first size", "growth", ratio=False),
    Column("MB", MB, 1e6),
    Column("MB over those kept", "bytes_over_kept", ratio=False),
    Column("compile s", "compile_seconds"),
]
MEAN = "geometric mean"
SCANS = ("naive", "hoisted", "hoisted x4")
LIBRARIES = ("flax", "haiku", "keras", "equinox")


class Cell(NamedTuple):
    """A value, and its ratio to that of jrnn's program if the column has ratios."""

    value: float | None = None
    ratio: float | None = None


Cells = dict[str, Cell]  # by the title of the column


class Table(NamedTuple):
    """Records of one table: a line for each place on its axis and program."""

    title: str
    axis: str
    records: Records
    columns: Sequence[Column]

    def cells(self) -> dict[tuple[str, str], Cells]:
        """The cells by place and program; at `MEAN` the geometric means of the ratios."""
        found: dict[tuple[str, str], Cells] = {}
        for (place,), records in grouped(self.records, ["place"]).items():
            for program, cells in _cells(records, self.columns).items():
                found[place, program] = cells
        for program in dict.fromkeys(program for _, program in found):
            lines = [cells for (_, name), cells in found.items() if name == program]
            found[MEAN, program] = {}
            for c in self.columns:
                column = [line.get(c.title, Cell()).ratio for line in lines]
                if ratios := [ratio for ratio in column if ratio]:
                    found[MEAN, program][c.title] = Cell(ratio=geometric_mean(ratios))
        return found

    def text(self) -> str:
        """Every measurement, and below them the means if there are several places."""
        found = self.cells()
        if len({place for place, _ in found}) == 2:
            found = {key: cells for key, cells in found.items() if key[0] != MEAN}
        columns = [c for c in self.columns if any(c.title in cells for cells in found.values())]
        header = [self.axis, "program"]
        rows = [[*key] for key in found]
        for c in columns:
            header += [c.title, "over jrnn"] if c.ratio else [c.title]
            for row, cells in zip(rows, found.values(), strict=True):
                value, ratio = cells.get(c.title, Cell())
                row.append(number(value, c.unit))
                if c.ratio:
                    row.append("" if ratio is None else f"{ratio:.2f}")
        return table(header, rows)


def tables(records: Records, columns: Sequence[Column]) -> list[Table]:
    """The tables that the records name."""
    groups = grouped(records, ["table", "axis"])
    return [Table(title, axis, found, columns) for (title, axis), found in groups.items()]


def _cells(records: Records, columns: Sequence[Column]) -> dict[str, Cells]:
    """The cells of one place by program, with the best of several programs.

    A ratio is over the record's program `over`, jrnn if it names none, with its first backend.
    """
    found: dict[str, Cells] = {}
    for c in columns:
        there = [r for r in records if c.gradient in (None, r.get("gradient"))]
        there = [r for r in there if r.get(c.quantity) is not None]
        of_program = {r["program"]: r[c.quantity] for r in reversed(there)}
        for r in there:
            value, base = r[c.quantity], of_program.get(r.get("over", "jrnn"))
            ratio = value / base if base and c.ratio else None
            found.setdefault(r.get("label") or r["program"], {})[c.title] = Cell(value, ratio)
    for best, members in _best(list(found)).items():
        found[best] = {}
        for c in columns:
            timed = [found[name].get(c.title, Cell()) for name in members]
            if timed := [cell for cell in timed if cell.ratio]:
                found[best][c.title] = min(timed, key=lambda cell: cell.ratio or 0)
    return found


def _best(programs: list[str]) -> dict[str, list[str]]:
    """The programs of which the best is a line of its own."""
    found: dict[str, list[str]] = {}
    for name in programs:
        if scan := re.match(rf"(?:{'|'.join(reversed(SCANS))})(.*)", name):
            found.setdefault(f"best autodiff{scan[1]}", []).append(name)
        if name.startswith(LIBRARIES):
            found.setdefault("best JAX library", []).append(name)
    if libraries := found.get("best JAX library"):
        found["best other JAX program"] = [*found.get("best autodiff", []), *libraries]
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Make a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def number(value: float | None, unit: float = 1) -> str:
    """Format a number with three digits; None is empty."""
    if value is None:
        return ""
    return f"{value / unit:,.0f}" if abs(value / unit) >= 1000 else f"{value / unit:.3g}"


def grouped(records: Records, keys: Sequence[str]) -> dict[Any, Records]:
    """Group records by the values of some keys, in order of appearance."""
    groups: dict[Any, Records] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


# --- files ---------------------------------------------------------------------------------------

LEGEND = (
    "Milliseconds are the minimum over all calls; MB are temporary bytes. Ratios are over jrnn's "
    "program (its first backend; for ReLU, its ReLU): above 1, jrnn is better."
)


def run(
    name: str,
    args: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Records],
    columns: Sequence[Column],
    faults_of: Callable[[Records], list[str]] = lambda records: [],
) -> int:
    """Measure, print and write; return 0, or 1 after bad input or with faults."""
    try:
        records = measure(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    made, faults = tables(records, columns), faults_of(records)
    described, date = machine.description(), time.strftime("%Y-%m-%d")
    about = f"{date}. {machine.sentence(described)} {args.rounds} rounds."
    texts = [f"# {name}", f"    {args.command}", about, LEGEND]
    texts += [f"## {t.title}\n\n{t.text()}" for t in made]
    texts += ["\n".join(f"- {fault}" for fault in faults)] if faults else []
    text = "\n\n".join(texts)
    about_it = {"command": args.command, "date": date, "machine": described}
    write(args.out, name, about_it | {"records": records, "faults": faults}, text)
    chart(args.out / f"{name}.png", args.command, made)
    print(f"\n{text}\n\n{name}.md and {name}.json are in {args.out}")
    return int(bool(faults))


def write(out: Path, name: str, result: dict[str, Any], text: str) -> None:
    """Write `name`.json and `name`.md atomically; OSError if one cannot be written."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / f"{name}.json", (json.dumps(result, indent=1) + "\n").encode())
    write_whole(out / f"{name}.md", f"{text}\n".encode())


def chart(path: Path, title: str, tables: Sequence[Table]) -> None:
    """Draw a panel for each table and pass: times over jrnn's, or times of growing sizes."""
    from matplotlib.figure import Figure  # optional: tables need no matplotlib

    panels = [
        (t, c, {key: line[c.title] for key, line in cells.items() if c.title in line})
        for t, cells in ((t, t.cells()) for t in tables)
        for c in t.columns
        if c.quantity == MS and any(c.title in line for line in cells.values())
    ]
    figure = Figure(figsize=(12, 4 * len(panels) + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(panels), squeeze=False).ravel()
    for panel, (t, c, cells) in zip(axes, panels, strict=True):
        grows = t.columns is SCALING
        places = [*dict.fromkeys(place for place, _ in cells if place != MEAN)]
        for n, name in enumerate(dict.fromkeys(name for _, name in cells)):
            found = [cells.get((place, name), Cell())[0 if grows else 1] for place in places]
            style = "ov^<>sP*XDd"[n % 11] + ("-" if grows else "")
            heights = np.array(found, float)  # None is NaN, which is not drawn
            panel.plot(range(len(places)), heights, style, color=f"C{n % 10}", label=name)
        panel.set(title=f"{t.title}: {c.title}", xlabel=t.axis, yscale="log")
        panel.set_ylabel("ms" if grows else "time over jrnn's")
        panel.set_xticks(range(len(places)), places)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
