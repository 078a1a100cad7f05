"""Options, tasks and results of every program: one page of tables, with its JSON.

A *task* is a function of the rivals, which yields records and lines; those worth most come first.
The page is written again after every result, so Ctrl-C or a crash loses none. A task that fails is
run again with fewer rivals, and does not stop the others.

A record is a dict of one program. It names its `table`, the `axis` that differs between the lines
of it, its `place` on this axis, its `program`, its `label`, if that is more, and its `values`, by
the titles of their columns. A record without values is a line of a table, or has a `text`.
"""

import argparse
import contextlib
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks.rivals import NAMES, load
from benchmarks.rivals.autodiff import SCANS
from jrnn.files import write_whole

Record = dict[str, Any]
Results = Generator[Record | str, None, None]
Tasks = Mapping[str, Callable[[list[str]], Iterable[Record | str]]]  # by name

# --- options -------------------------------------------------------------------------------------


def parser(
    name: str,
    doc: str | None,
    rows: Sequence[int] = (),
    rivals: Sequence[str] = (),
    rounds: int = 1,
) -> argparse.ArgumentParser:
    """The options of every program, and of those with rows; `name` is also the default folder."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=(doc or "").split("\n\n")[0],  # None with python -OO
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.set_defaults(program=name)
    add = made.add_argument
    add("--out", type=Path, default=Path(f"out/{name}"), help="directory")
    add("--toy", action="store_true", help="tiny sizes: does everything run?")
    add("--minutes", type=float, help="after which no measurement begins (None: all are made)")
    if rows:
        add("--rows", nargs="+", type=int, choices=rows, help="of the table (None: all)")
        add("--rounds", type=positive, default=rounds, help="turns of every program")
    if rivals:
        add("--rivals", nargs="*", choices=rivals, default=list(rivals))
    return made


def positive(text: str) -> int:
    """An integer above 0, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


# --- tasks ---------------------------------------------------------------------------------------


def in_order(tasks: Tasks, rivals: Sequence[str], minutes: float | None) -> Results:
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
    longest, failed = 0.0, []
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    for n, (name, measure) in enumerate(tasks.items()):
        began = time.monotonic()
        if began + longest >= end:
            yield f"Left out for lack of time: {'; '.join(list(tasks)[n:])}."
            break
        say(f"{n + 1} of {len(tasks)}: {name}")
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

OVER = " over jrnn"
WITHOUT_RATIO = ("error", "characters/s", "validation bits")  # the ends of such titles
LIBRARIES = tuple(name for name in NAMES if name not in ("autodiff", "torch"))
Line = dict[str, float]  # values and ratios, by the titles of their columns


def shown(records: list[Record]) -> str:
    """The text or the table of records with the same title."""
    if "text" in records[0]:
        return "\n\n".join(r["text"] for r in records)
    if "values" in records[0]:
        return compared(records)
    keys = [key for key, x in records[0].items() if key != "table" and not isinstance(x, dict)]
    return table(keys, ([number(r.get(key)) for key in keys] for r in records))


def compared(records: list[Record]) -> str:
    """The table of records with values: a line for each place and program."""
    found = lines_of(records)
    titles = dict.fromkeys(title for line in found.values() for title in line)
    header = ["over jrnn" if title.endswith(OVER) else title for title in titles]
    rows = ([*key, *(number(line.get(title)) for title in titles)] for key, line in found.items())
    return table([records[0]["axis"], "program", *header], rows)


def lines_of(records: list[Record]) -> dict[tuple[str, str], Line]:
    """The lines by place and program; with several places also the means of the ratios.

    A ratio is over the record's program `over`, jrnn if it names none, with its first backend.
    """
    first: dict[tuple[str, str, str], float] = {}
    found: dict[str, dict[str, Line]] = {}  # by place, then by program
    for r in records:
        for title, value in r["values"].items():
            first.setdefault((r["place"], r["program"], title), value)
    for r in records:
        line = found.setdefault(r["place"], {}).setdefault(r.get("label") or r["program"], {})
        for title, value in r["values"].items():
            line[title] = value
            base = first.get((r["place"], r.get("over", "jrnn"), title))
            if value and base and not title.endswith(WITHOUT_RATIO):
                line[title + OVER] = value / base
    places = list(found.values())
    for there in places:
        for best, names in _best(list(there)).items():
            there[best] = _combined([there[name] for name in names], min)
    if len(places) > 1:
        every = dict.fromkeys(name for there in places for name in there)
        means = {
            name: _combined([x[name] for x in places if name in x], geometric_mean)
            for name in every
        }
        found["geometric mean"] = {name: mean for name, mean in means.items() if mean}
    return {(place, name): line for place, there in found.items() for name, line in there.items()}


def _best(programs: list[str]) -> dict[str, list[str]]:
    """The programs of which the best is a line of its own."""
    scans = [name for name in programs if name in SCANS]
    libraries = [name for name in programs if name.startswith(LIBRARIES)]
    found = {"best autodiff": scans, "best JAX library": libraries}
    found["best other JAX program"] = [*scans, *libraries] if libraries else []
    return {best: members for best, members in found.items() if members}


def _combined(lines: list[Line], how: Callable[[list[float]], float]) -> Line:
    """One line of several: their smallest values and ratios, or the means of their ratios."""
    titles = dict.fromkeys(title for line in lines for title in line)
    shown = [t for t in titles if t.endswith(OVER) or (how is min and t + OVER in titles)]
    return {title: how([line[title] for line in lines if title in line]) for title in shown}


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


# --- the page ------------------------------------------------------------------------------------

LEGEND = (
    "Milliseconds are the minimum over all calls; MB are temporary bytes. Ratios are over jrnn's "
    "program (its first backend; for ReLU, its ReLU): above 1, jrnn is better."
)


def run(args: argparse.Namespace, results: Callable[[argparse.Namespace], Results]) -> int:
    """Write the page after every result; return 0, 1 with a fault, or 130 after Ctrl-C."""
    name, status = args.program, 0
    page: dict[str, Any] = {
        "title": vars(args).get("name", name),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "fault": "",
        "results": [],
    }
    try:
        with contextlib.closing(results(args)) as every:  # which ends the processes that it runs
            try:
                for found in every:
                    page["results"].append(found)
                    write(args.out, name, page)
                    say(sentence(found))
            except (RuntimeError, ValueError) as error:
                page["fault"], status = str(error), 1
            except KeyboardInterrupt:
                page["fault"], status = "interrupted: Ctrl-C, or a signal to end", 130
        write(args.out, name, page)
    except OSError as error:
        say(text(page))
        print(f"error: {error}; the page is above", file=sys.stderr)
        return 1
    say(f"\n{text(page)}\n\n{name}.md and {name}.json are in {args.out}")
    if status:
        print(f"error: {page['fault']}", file=sys.stderr)
    return status


def sentence(found: Record | str) -> str:
    """A result for the screen: a line, with the first of many values."""
    if isinstance(found, str):
        return found
    if "values" not in found:
        shown = ", ".join(number(x) for x in found.values() if not isinstance(x, dict))
        return shown.split("\n")[0]
    title, value = next(iter(found["values"].items()))
    return f"{found['table']}, {found['place']}, {found['program']}: {title} {number(value)}"


def write(out: Path, name: str, page: Mapping[str, Any]) -> None:
    """Write `name`.json and `name`.md atomically; OSError if one cannot be written."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / f"{name}.json", (json.dumps(page, indent=1) + "\n").encode())
    write_whole(out / f"{name}.md", f"{text(page)}\n".encode())


def text(page: Mapping[str, Any]) -> str:
    """The Markdown of a page, made only from its JSON."""
    lines = [f"**{page['fault']}**"] if page["fault"] else []
    lines += [found for found in page["results"] if isinstance(found, str)]
    every = [found for found in page["results"] if not isinstance(found, str)]
    legend = LEGEND if any("values" in r for r in every) else ""
    texts = [f"# {page['title']}", f"    {page['command']}", f"{page['date']}.", legend]
    texts.append("\n".join(f"- {line}" for line in lines))
    for title in dict.fromkeys(r["table"] for r in every):
        texts.append(f"## {title}\n\n{shown([r for r in every if r['table'] == title])}")
    return "\n\n".join(filter(None, texts))
