"""Options, progress and results of every program: one table, with JSON and a chart."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from benchmarks import machine
from benchmarks.rivals import label, own

Records = list[dict[str, Any]]
Item = TypeVar("Item")

# --- options -------------------------------------------------------------------------------------


def parser(doc: str | None, name: str, rivals: list[str], rounds: int) -> argparse.ArgumentParser:
    """The options of every program; `name` is the program and its default folder."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=(doc or "").split("\n\n")[0],  # None with python -OO
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--rows", nargs="+", metavar="ROW", help="rows of the table (None: all)")
    if rivals:
        made.add_argument("--rivals", nargs="+", choices=rivals, default=rivals)
    made.add_argument("--rounds", type=positive, default=rounds, help="turns of every program")
    made.add_argument("--out", type=Path, default=Path(f"out/{name}"), help="directory")
    made.add_argument(
        "--devices", type=positive, help="CPU cores that become devices (None: all of them)"
    )
    made.add_argument("--toy", action="store_true", help="tiny sizes: does everything run?")
    return made


def positive(text: str) -> int:
    """An integer above 0, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def parse(
    parser: argparse.ArgumentParser, argv: list[str] | None, rows: list[Any], toy_rows: list[Any]
) -> argparse.Namespace:
    """Parse the options; `rows` become the keys of existing rows."""
    args = parser.parse_args(argv)
    there = {str(row): row for row in (toy_rows if args.toy else rows)}
    unknown = [row for row in args.rows or [] if row not in there]
    if unknown:
        parser.error(f"argument --rows: {', '.join(unknown)} (choose from {', '.join(there)})")
    args.all_rows = args.rows is None
    args.rows = [there[row] for row in args.rows or there]
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


# --- ratios --------------------------------------------------------------------------------------


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
SCANS = ("hoisted x4", "hoisted", "naive")
LIBRARIES = ("flax", "haiku", "keras", "equinox")


class Cell(NamedTuple):
    """A value, and its ratio to that of jrnn's program."""

    value: float | None = None
    ratio: float | None = None


Cells = dict[str, Cell]  # by the title of the column


class Table(NamedTuple):
    """Records of one table: a line for each shape and program."""

    title: str
    records: Records
    columns: Sequence[Column]
    place: Callable[[dict[str, Any]], str]  # the shape of a record
    first: str  # the header of the shapes

    def cells(self) -> dict[tuple[str, str], Cells]:
        """The cells by shape and program; at `MEAN` the geometric means of the ratios."""
        shapes: dict[str, Records] = {}
        for r in self.records:
            shapes.setdefault(self.place(r), []).append(r)
        found = {
            (shape, name): cells
            for shape, records in shapes.items()
            for name, cells in _cells(records, self.columns).items()
        }
        for program in dict.fromkeys(name for _, name in found):
            rows = [cells for (_, name), cells in found.items() if name == program]
            found[MEAN, program] = {
                c.title: Cell(None, geometric_mean(ratios))
                for c in self.columns
                if (ratios := [ratio for cells in rows if (ratio := _ratio(cells, c))])
            }
        return found

    def text(self) -> str:
        """Every measurement, and below them the means of several shapes."""
        found = self.cells()
        if len({shape for shape, _ in found}) == 2:
            found = {key: cells for key, cells in found.items() if key[0] != MEAN}
        columns = [c for c in self.columns if any(c.title in cells for cells in found.values())]
        header = [self.first, "program"]
        for c in columns:
            header += [c.title, "over jrnn"] if c.ratio else [c.title]
        rows = []
        for key, cells in found.items():
            rows.append([*key])
            for c in columns:
                value, ratio = cells.get(c.title, Cell())
                rows[-1] += [number(value, c.unit)]
                rows[-1] += ["" if ratio is None else f"{ratio:.2f}"] if c.ratio else []
        return table(header, rows)


def _cells(records: Records, columns: Sequence[Column]) -> dict[str, Cells]:
    """The cells of one shape by program; jrnn's program is that of its first backend."""
    found: dict[str, Cells] = {}
    for c in columns:
        there = [r for r in records if c.gradient in (None, r.get("gradient"))]
        there = [r for r in there if r.get(c.quantity) is not None]
        base: dict[str, float] = {}
        for r in there:
            base.setdefault(r["program"], r[c.quantity])
        if c.quantity == MS and there and "floor_ms" in there[0]:
            floor = {"program": "matmul floor", "activation": "tanh", MS: there[0]["floor_ms"]}
            there.append(floor)
        for r in there:
            value, by = r[c.quantity], base.get(own(r["activation"]))
            cell = Cell(value, value / by if by else None)
            found.setdefault(label(r["program"], r.get("backend")), {})[c.title] = cell
    for best, members in _best(list(found)).items():
        found[best] = {}
        for c in columns:
            timed = [found[name][c.title] for name in members if _ratio(found[name], c)]
            if timed:
                found[best][c.title] = min(timed, key=lambda cell: cell.ratio or 0)
    return found


def _ratio(cells: Cells, column: Column) -> float | None:
    return cells.get(column.title, Cell()).ratio if column.ratio else None


def _best(programs: list[str]) -> dict[str, list[str]]:
    """The programs of which the best is a line of its own."""
    found: dict[str, list[str]] = {}
    for name in programs:
        scan = next((scan for scan in SCANS if name.startswith(scan)), "")
        library = name.split()[0] in LIBRARIES
        if scan:
            found.setdefault(f"best autodiff{name.removeprefix(scan)}", []).append(name)
        if library:
            found.setdefault("best JAX library", []).append(name)
    if "best JAX library" in found:
        scans = [scan for scan in SCANS if scan in programs]
        found["best other JAX program"] = [*scans, *found["best JAX library"]]
    return found


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


# --- tables --------------------------------------------------------------------------------------


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


def kernel_tables(records: Records) -> list[Table]:
    """A table for each route and dtype."""

    def place(r: dict[str, Any]) -> str:
        return ", ".join(map(str, r["case"]))

    groups = grouped(records, ("dtype", "route"))
    return [
        Table(f"{route}, {dtype}", found, KERNEL, place, "T, B, I, H")
        for (dtype, route), found in groups.items()
    ]


def train_step_tables(records: Records) -> list[Table]:
    """One table, if anything was measured."""
    sizes = "length", "batch_size", "hidden_size"
    place = lambda r: ", ".join(str(r[size]) for size in sizes)  # noqa: E731
    return [Table("training step", records, TRAIN_STEP, place, "T, B, H")] if records else []


def scaling_tables(records: Records) -> list[Table]:
    """A table for each axis and its fixed sizes."""
    return [
        Table(f"{axis}: {row}", found, SCALING, lambda r: f"{r['at']:,}", axis)
        for (axis, row), found in grouped(records, ("axis", "row")).items()
    ]


# --- files ---------------------------------------------------------------------------------------

LEGEND = (
    "Milliseconds are the minimum over all calls; MB are temporary bytes. Ratios are over jrnn's "
    "program (its first backend; for ReLU, its ReLU): above 1, jrnn is better."
)


def run(
    name: str,
    args: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Records],
    tables_of: Callable[[Records], list[Table]],
    faults_of: Callable[[Records], list[str]] = lambda records: [],
) -> int:
    """Measure, print and write; return 0, or 1 after bad input or with faults."""
    try:
        records = measure(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tables, faults = tables_of(records), faults_of(records)
    parts = [LEGEND, *(f"## {t.title}\n\n{t.text()}" for t in tables)]
    parts += ["\n".join(f"- {fault}" for fault in faults)] if faults else []
    chart(args.out / f"{name}.png", args.command, tables)
    write(args, name, {"records": records, "faults": faults}, parts)
    return int(bool(faults))


def write(args: argparse.Namespace, name: str, result: dict[str, Any], parts: list[str]) -> None:
    """Write `name`.json and `name`.md, and print the latter."""
    described, date = machine.description(), time.strftime("%Y-%m-%d")
    about = f"{date}. {machine.sentence(described)} {args.rounds} rounds."
    result = {"command": args.command, "date": date, "machine": described} | result
    text = "\n\n".join([f"# {name}", f"    {args.command}", about, *parts])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / f"{name}.md").write_text(text + "\n")
    print(f"\n{text}\n\n{name}.md and {name}.json are in {args.out}")


def chart(path: Path, title: str, tables: Sequence[Table]) -> None:
    """Draw a panel for each table and pass: times over jrnn's, or times of growing sizes."""
    from matplotlib.figure import Figure  # optional: tables need no matplotlib

    made = [(t, t.cells()) for t in tables]
    panels = [
        (t, c, {key: cells[c.title] for key, cells in found.items() if c.title in cells})
        for t, found in made
        for c in t.columns
        if c.quantity == MS and any(c.title in cells for cells in found.values())
    ]
    figure = Figure(figsize=(12, 4 * len(panels) + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(panels), squeeze=False).ravel()
    for panel, (t, c, cells) in zip(axes, panels, strict=True):
        grows = t.columns is SCALING
        shapes = [*dict.fromkeys(shape for shape, _ in cells if shape != MEAN)]
        for n, name in enumerate(dict.fromkeys(name for _, name in cells)):
            there = [cells.get((shape, name), Cell())[0 if grows else 1] for shape in shapes]
            style = "ov^<>sP*XDd"[n % 11] + ("-" if grows else "")
            heights = [np.nan if value is None else value for value in there]
            panel.plot(range(len(shapes)), heights, style, color=f"C{n % 10}", label=name)
        panel.set(title=f"{t.title}: {c.title}", xlabel=t.first, yscale="log")
        panel.set_ylabel("ms" if grows else "time over jrnn's")
        panel.set_xticks(range(len(shapes)), shapes)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
