"""Options, tasks and results of every program: one page of tables, with its JSON.

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
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.rivals import NAMES, load
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
        add("--rounds", type=positive, default=rounds, help="turns of every program")
    if rivals:
        add("--rivals", nargs="*", choices=rivals, default=list(rivals))
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
    found: list[str] = []
    for name in rivals:
        try:
            load(name)
            found.append(name)
        except Exception as error:  # importing a library may fail in any way
            yield f"{name} is left out: {words(error)} (benchmarks/requirements.txt has it)"
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
    gradient: bool | None = None  # of this pass only; None: of a training step
    ratio: bool = True


MS, BYTES = "minimum_ms", "temporary_bytes"
QUANTITIES = {"ms": MS, "MB": BYTES, "compile s": "compile_seconds", "error": "error"}
COLUMNS = [
    *(
        Column(f"{name} {title}", quantity, gradient, quantity != "error")
        for title, quantity in QUANTITIES.items()
        for name, gradient in (("forward", False), ("gradient", True))
    ),
    Column("median ms", "median_ms"),
    Column("minimum ms", MS),
    Column("first step s", "first_step_seconds"),
    Column("characters/s", "characters_per_second", ratio=False),
    Column("validation bits", "validation_bits", ratio=False),
]
LIBRARIES = tuple(name for name in NAMES if name not in ("autodiff", "torch"))
Cells = dict[str, Cell]  # by the title of the column


def plain(records: list[Record]) -> str:
    """The table of records without places: what each has."""
    shown = [key for key, x in records[0].items() if key != "table" and not isinstance(x, dict)]
    return table(shown, ([number(r.get(key)) for key in shown] for r in records))


def compared(records: list[Record]) -> str:
    """The table of records with places: a line for each place and program."""
    found = cells(records)
    header, rows = [records[0]["axis"], "program"], [[*key] for key in found]
    for c in COLUMNS:
        if not any(c.title in line for line in found.values()):
            continue
        header += [c.title, "over jrnn"] if c.ratio else [c.title]
        for row, line in zip(rows, found.values(), strict=True):
            value, ratio = line.get(c.title, Cell())
            row.append(number(value))
            if c.ratio:
                row.append("" if ratio is None else f"{ratio:.2f}")
    return table(header, rows)


def cells(records: list[Record]) -> dict[tuple[str, str], Cells]:
    """The cells by place and program; with several places also the means of the ratios."""
    found: dict[tuple[str, str], Cells] = {}
    places = grouped(records, "place")
    for place, there in places.items():
        lines = _programs(there)
        for best, members in _best(list(lines)).items():
            lines[best] = _combined([lines[name] for name in members], _smallest)
        found |= {(place, name): cells for name, cells in lines.items()}
    for name in dict.fromkeys(name for _, name in found) if len(places) > 1 else ():
        lines_of = [found[place, name] for place in places if (place, name) in found]
        found["geometric mean", name] = _combined(lines_of, _mean)
    return found


def _programs(records: list[Record]) -> dict[str, Cells]:
    """The cells of one place by program.

    A ratio is over the record's program `over`, jrnn if it names none, with its first backend.
    """
    found: dict[str, Cells] = {}
    for c in COLUMNS:
        unit = 1e6 if c.quantity == BYTES else 1
        there = [r for r in records if c.gradient == r.get("gradient")]
        there = [r for r in there if r.get(c.quantity) is not None]
        first = {r["program"]: r[c.quantity] for r in reversed(there)}
        for r in there:
            base = first.get(r.get("over", "jrnn")) if c.ratio else None
            cell = Cell(r[c.quantity] / unit, r[c.quantity] / base if base else None)
            found.setdefault(r.get("label") or r["program"], {})[c.title] = cell
    return found


def _best(programs: list[str]) -> dict[str, list[str]]:
    """The programs of which the best is a line of its own."""
    found: dict[str, list[str]] = {}
    for name in programs:
        if scan := re.match(r"(?:naive|hoisted x4|hoisted)(.*)", name):
            found.setdefault(f"best autodiff{scan[1]}", []).append(name)
        if name.startswith(LIBRARIES):
            found.setdefault("best JAX library", []).append(name)
    if libraries := found.get("best JAX library"):
        found["best other JAX program"] = [*found.get("best autodiff", []), *libraries]
    return found


def _combined(lines: list[Cells], how: Callable[[list[Any]], Cell]) -> Cells:
    """One line of several, from the cells that have a ratio."""
    columns: dict[str, list[Cell]] = {}
    for title, cell in (item for line in lines for item in line.items()):
        if cell.ratio:
            columns.setdefault(title, []).append(cell)
    return {title: how(found) for title, found in columns.items()}


def _smallest(found: list[Any]) -> Cell:
    return min(found, key=lambda cell: cell.ratio)


def _mean(found: list[Any]) -> Cell:
    return Cell(ratio=geometric_mean(cell.ratio for cell in found))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Make a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def number(value: Any) -> str:
    """Format a number with three digits; None is empty, and words stay as they are."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def grouped(records: list[Record], key: str) -> dict[str, list[Record]]:
    """Group records by their values of a key, in order of appearance."""
    values = dict.fromkeys(r[key] for r in records)
    return {value: [r for r in records if r[key] == value] for value in values}


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
    page |= {"rounds": vars(args).get("rounds"), "faults": [], "lines": [], "records": []}
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
    lines = [*(f"**{fault}**" for fault in page["faults"]), *page["lines"]]
    placed = any("place" in r for r in page["records"])
    texts = [f"# {page['title']}", f"    {page['command']}", " ".join(about)]
    texts += [LEGEND if placed else "", "\n".join(f"- {line}" for line in lines)]
    for title, records in grouped([r for r in page["records"] if "table" in r], "table").items():
        made = compared(records) if "place" in records[0] else plain(records)
        texts.append(f"## {title}\n\n{made}")
    return "\n\n".join(filter(None, texts))
