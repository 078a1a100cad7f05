"""Options, tasks and results of every program: one page of tables, with JSON and a chart.

A *task* is a function of the rivals, which yields records and lines; those worth most come first.
The page is written again after every result, so Ctrl-C or a crash loses none. A task that fails is
run again with fewer rivals, and does not stop the others.

A record is a dict of one program's values. It names its `table`, the `axis` that differs between
the lines of it, its `place` on this axis, its `program`, and its `label`, if that is more. Records
without a place are shown as they are.
"""

import argparse
import itertools
import json
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import numpy as np

from benchmarks import machine
from benchmarks.rivals import available
from jrnn.files import write_whole

Record = dict[str, Any]
Results = Generator[Record | str, None, None]
Tasks = Mapping[str, Callable[[list[str]], Iterable[Record | str]]]  # by name

# --- options -------------------------------------------------------------------------------------


def parser(
    name: str,
    doc: str | None,
    rows: Sequence[Any] = (),
    rivals: Sequence[str] = (),
    rounds: int = 1,
) -> argparse.ArgumentParser:
    """The options of every program, and of those with rows; `name` is also the default folder."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=(doc or "").split("\n\n")[0],  # None with python -OO
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.set_defaults(rivals=[])
    add = made.add_argument
    add("--out", type=Path, default=Path(f"out/{name}"), help="directory")
    add("--toy", action="store_true", help="tiny sizes: does everything run?")
    add("--minutes", type=float, help="after which no measurement begins (None: all are made)")
    if rows:
        add("--rows", nargs="+", type=type(rows[0]), choices=rows, help="of the table (None: all)")
        add("--rivals", nargs="*", choices=rivals, default=list(rivals))
        add("--rounds", type=positive, default=rounds, help="turns of every program")
        add("--devices", type=positive, help="CPU cores that become devices (None: all of them)")
    return made


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


# --- tasks ---------------------------------------------------------------------------------------


def in_order(tasks: Tasks, rivals: list[str], minutes: float | None = None) -> Results:
    """Run tasks, in the order of their worth, while there is time for one as long as the longest.

    Yields:
        Records; lines about rivals and tasks that fail or are left out.

    Raises:
        RuntimeError: a task failed without any rival; after all others.
    """
    found, lines = available(rivals)
    yield from lines
    fewer = [found, [name for name in found if name == "autodiff"], []]  # the plain scans, none
    tries = [chosen for n, chosen in enumerate(fewer) if chosen not in fewer[:n]]
    start, longest, failed = time.monotonic(), 0.0, []
    end = math.inf if minutes is None else start + 60 * minutes
    for n, (name, measure) in enumerate(tasks.items()):
        began = time.monotonic()
        if began + longest >= end:
            yield f"Left out for lack of time: {'; '.join(list(tasks)[n:])}."
            break
        left = (began - start) / 60 * (len(tasks) - n) / max(n, 1)
        more = f", about {left:.1f} minutes more" if n else ""
        say(f"{n + 1} of {len(tasks)}{more}: {name}")
        for chosen in tries:
            try:
                yield from measure(chosen)
                break
            except Exception as error:  # in compilation, memory, or the comparison
                yield f"{name}, {', '.join(['jrnn', *chosen])}: {words(error)}"
        else:
            failed.append(name)
        longest = max(longest, time.monotonic() - began)
    if failed:
        raise RuntimeError(f"{'; '.join(failed)}: lines of the page say why")


def say(line: str) -> None:
    """Print a line; a lost terminal is not an error."""
    try:
        print(line, flush=True)
    except OSError:  # Python would try again at exit, and fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def words(error: BaseException) -> str:
    """The message of an exception, in one short line."""
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


# --- the table -----------------------------------------------------------------------------------


class Cell(NamedTuple):
    """A value, and its ratio to that of jrnn's program if the column has ratios."""

    value: float | None = None
    ratio: float | None = None


class Column(NamedTuple):
    """A measured quantity, in a table followed by its ratio to that of jrnn."""

    title: str
    quantity: str
    unit: float = 1
    gradient: bool | None = None  # of this pass only; None: of a training step
    ratio: bool = True


MS, MB = "minimum_ms", "temporary_bytes"
COLUMNS = [
    *(
        Column(f"{name} {title}", quantity, unit, gradient, quantity != "error")
        for title, quantity, unit in (
            ("ms", MS, 1),
            ("MB", MB, 1e6),
            ("compile s", "compile_seconds", 1),
            ("error", "error", 1),
        )
        for name, gradient in (("forward", False), ("gradient", True))
    ),
    Column("ms over the first size", "growth", gradient=True, ratio=False),
    Column("MB over those kept", "bytes_over_kept", gradient=True, ratio=False),
    Column("median ms", "median_ms"),
    Column("minimum ms", MS),
    Column("first step s", "first_step_seconds"),
    Column("characters/s", "characters_per_second", ratio=False),
    Column("validation bits", "validation_bits", ratio=False),
]
MEAN = "geometric mean"
SCANS = ("naive", "hoisted", "hoisted x4")
LIBRARIES = ("flax", "haiku", "keras", "equinox")
OTHERS = ("best autodiff", "best JAX library", "torch")  # in short
Cells = dict[str, Cell]  # by the title of the column


class Table(NamedTuple):
    """Records of one table: a line for each place on its axis and program."""

    title: str
    axis: str
    records: list[Record]

    def cells(self) -> dict[tuple[str, str], Cells]:
        """The cells by place and program; at `MEAN` the geometric means of the ratios."""
        found: dict[tuple[str, str], Cells] = {}
        for (place,), records in grouped(self.records, ["place"]).items():
            lines = _programs(records)
            for best, members in _best(list(lines)).items():
                columns = _with_ratios([lines[name] for name in members])
                lines[best] = {t: min(cells, key=lambda c: c[1]) for t, cells in columns.items()}
            found |= {(place, name): cells for name, cells in lines.items()}
        for name in dict.fromkeys(name for _, name in found):
            columns = _with_ratios([cells for (_, other), cells in found.items() if other == name])
            means = {t: geometric_mean(c[1] for c in cells) for t, cells in columns.items()}
            found[MEAN, name] = {title: Cell(ratio=mean) for title, mean in means.items()}
        return found

    def text(self) -> str:
        """Every measurement, and below them the means if there are several places."""
        found = self.cells()
        if len({place for place, _ in found}) == 2:
            found = {key: cells for key, cells in found.items() if key[0] != MEAN}
        columns = [c for c in COLUMNS if any(c.title in cells for cells in found.values())]
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


def tables(records: list[Record]) -> list[Table]:
    """The tables that the records name."""
    groups = grouped([r for r in records if "place" in r], ["table", "axis"])
    return [Table(title, axis, found) for (title, axis), found in groups.items()]


def _programs(records: list[Record]) -> dict[str, Cells]:
    """The cells of one place by program.

    A ratio is over the record's program `over`, jrnn if it names none, with its first backend.
    """
    found: dict[str, Cells] = {}
    for c in COLUMNS:
        there = [r for r in records if c.gradient == r.get("gradient")]
        there = [r for r in there if r.get(c.quantity) is not None]
        first = {r["program"]: r[c.quantity] for r in reversed(there)}
        for r in there:
            base = first.get(r.get("over", "jrnn")) if c.ratio else None
            cell = Cell(r[c.quantity], r[c.quantity] / base if base else None)
            found.setdefault(r.get("label") or r["program"], {})[c.title] = cell
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


def _with_ratios(lines: list[Cells]) -> dict[str, list[Any]]:
    """The cells of several lines that have a ratio, by column."""
    titles = dict.fromkeys(title for cells in lines for title in cells)
    columns = {t: [cells[t] for cells in lines if t in cells and cells[t].ratio] for t in titles}
    return {title: cells for title, cells in columns.items() if cells}


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Make a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def number(value: Any, unit: float = 1) -> str:
    """Format a number with three digits; None is empty, and words stay as they are."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value / unit:,.0f}" if abs(value / unit) >= 1000 else f"{value / unit:.3g}"


def grouped(records: list[Record], keys: Sequence[str]) -> dict[Any, list[Record]]:
    """Group records by the values of some keys, in order of appearance."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


# --- the page ------------------------------------------------------------------------------------

LEGEND = (
    "Milliseconds are the minimum over all calls; MB are temporary bytes. Ratios are over jrnn's "
    "program (its first backend; for ReLU, its ReLU): above 1, jrnn is better."
)


def run(
    name: str,
    args: argparse.Namespace,
    tasks_of: Callable[[argparse.Namespace], Tasks],
    faults_of: Callable[[list[Record]], list[str]] = lambda records: [],
) -> int:
    """Run tasks and write the page; return 0, 1 for bad input or faults, 130 after Ctrl-C."""
    try:
        tasks = tasks_of(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    described = [{"machine": machine.description()}]
    results = in_order(tasks, args.rivals, args.minutes)
    return collect(name, args, itertools.chain(described, results), faults_of)


def collect(
    name: str,
    args: argparse.Namespace,
    results: Iterable[Record | str],
    faults_of: Callable[[list[Record]], list[str]] = lambda records: [],
) -> int:
    """Write the page after every result; return 0, 1 with faults, or 130 after Ctrl-C."""
    page = {"title": vars(args).get("name") or name, "command": args.command}
    page |= {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    page |= {"rounds": vars(args).get("rounds"), "chart": ""}
    page |= {"faults": [], "lines": [], "records": []}
    interrupted = False
    try:
        try:
            for found in results:
                page["lines" if isinstance(found, str) else "records"].append(found)
                write(args.out, name, page)
                if line := sentence(found):
                    say(line)
        except RuntimeError as error:
            page["faults"].append(str(error))
        except KeyboardInterrupt:
            interrupted = True
            page["faults"].append("interrupted: Ctrl-C, or a signal to end")
        page["faults"] += faults_of([r for r in page["records"] if "table" in r])
        page["chart"] = chart(args.out / f"{name}.png", args.command, page["records"])
        write(args.out, name, page)
    except OSError as error:
        say(text(page))
        print(f"error: {error}; the page is above", file=sys.stderr)
        return 1
    say(f"\n{text(page)}\n\n{name}.md and {name}.json are in {args.out}")
    print("".join(f"error: {fault}\n" for fault in page["faults"]), end="", file=sys.stderr)
    return 130 if interrupted else int(bool(page["faults"]))


def sentence(found: Record | str) -> str:
    """A result for the screen; of the measured programs jrnn's alone."""
    if isinstance(found, str):
        return found
    if "machine" in found:
        return machine.sentence(found["machine"])
    if "place" not in found:
        return ", ".join(number(x) for x in found.values() if not isinstance(x, dict))
    if found["program"] != "jrnn" or MS not in found:
        return ""
    what = "" if found.get("gradient", True) else ", forward"
    ms = f"{found.get('label', 'jrnn')} {found[MS]:.3g} ms"
    return f"{found['table']}, {found['place']}{what}: {ms}"


def write(out: Path, name: str, page: Mapping[str, Any]) -> None:
    """Write `name`.json and `name`.md atomically; OSError if one cannot be written."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / f"{name}.json", (json.dumps(page, indent=1) + "\n").encode())
    write_whole(out / f"{name}.md", f"{text(page)}\n".encode())


def text(page: Mapping[str, Any]) -> str:
    """The Markdown of a page, made only from its JSON."""
    machines = [machine.sentence(r["machine"]) for r in page["records"] if "machine" in r]
    about = [f"{page['date']}.", *machines[:1]]
    about += [f"{page['rounds']} rounds."] if page["rounds"] else []
    made = tables(page["records"])
    lines = [*(f"**{fault}**" for fault in page["faults"]), *in_short(made), *page["lines"]]
    texts = [f"# {page['title']}", f"    {page['command']}", " ".join(about)]
    texts += [LEGEND if made else "", "\n".join(f"- {line}" for line in lines), page["chart"]]
    plain = [r for r in page["records"] if "table" in r and "place" not in r]
    for (title,), records in grouped(plain, ["table"]).items():
        shown = [key for key, x in records[0].items() if key != "table" and not isinstance(x, dict)]
        rows = [[number(r.get(key)) for key in shown] for r in records]
        texts.append(f"## {title}\n\n{table(shown, rows)}")
    texts += [f"## {t.title}\n\n{t.text()}" for t in made]
    return "\n\n".join(filter(None, texts))


def in_short(tables: list[Table]) -> Iterator[str]:
    """The main results in sentences."""
    records = [r for t in tables for r in t.records]
    if speeds := [r["matmul_gflops"] for r in records if "matmul_gflops" in r]:
        yield f"A float32 matmul, of which the floor is made, runs at {max(speeds):,.0f} GFLOP/s."
    for t in tables:
        for (place, name), cells in t.cells().items():
            if place == MEAN and name in OTHERS:
                said = (f"{what} {cell.ratio:.2f}" for what, cell in cells.items())
                yield f"{t.title}, {name} over jrnn: {', '.join(said)}"


def chart(path: Path, title: str, records: list[Record]) -> str:
    """Draw a panel for each table and pass; return the line of the page for it."""
    panels = [
        (t, c, {key: line[c.title] for key, line in cells.items() if c.title in line})
        for t, cells in ((t, t.cells()) for t in tables(records))
        for c in COLUMNS
        if c.quantity == MS and any(c.title in line for line in cells.values())
    ]
    if not panels:
        return ""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:  # the tables need no matplotlib
        return f"No chart: {words(error)}"
    figure = Figure(figsize=(12, 4 * len(panels) + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(panels), squeeze=False).ravel()
    for panel, (t, c, cells) in zip(axes, panels, strict=True):
        grows = "growth" in t.records[0]  # times of growing sizes; else times over jrnn's
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
    figure.savefig(path, dpi=120)
    return f"![times over jrnn's, and of growing sizes]({path.name})"
