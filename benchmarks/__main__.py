"""Reprint nearly every number of README, docs, benchmarks and examples that a CPU can measure.

    python -m benchmarks --list          # the commands, the pages that cite them, their minutes
    python -m benchmarks --only co2      # those whose command or page matches
    python -m benchmarks                 # all

The commands are in `figures.toml`. Each has its own folder in --out, with its output, and all are
in `figures.md`, which is written again after each. A command that fails does not stop the others.
Commands whose numbers are no times run two at once.
"""

import argparse
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import commands, machine, report
from jrnn.native import cpu_cores as cores

OWN_OUTPUT = "-m docs.scaling"  # a program without --out


class Figure(NamedTuple):
    """A command whose numbers are in pages."""

    command: str
    pages: list[str]
    minutes: float
    timed: bool = True  # its numbers are times: it runs alone


def figures() -> list[Figure]:
    """All of them."""
    listed = tomllib.loads((Path(__file__).parent / "figures.toml").read_text())
    return [Figure(**each) for each in listed["figure"]]


def run_all(found: list[Figure], out: Path) -> Iterator[tuple[Any, str]]:
    """How each command ended, and its output; those without times run two at once."""

    def run(numbered: tuple[int, Figure]) -> tuple[Any, str]:
        n, figure = numbered
        report.say(f"{n} of {len(found)} begins: {figure.command}")
        folder = out / f"{n:02}"
        where = "" if OWN_OUTPUT in figure.command else f" --out {shlex.quote(str(folder))}"
        *_, end = commands.run(figure.command + where, folder)
        return end, (folder / "output.txt").read_text().strip()

    with ThreadPoolExecutor(2) as pool:
        for timed, group in groupby(enumerate(found, 1), lambda numbered: numbered[1].timed):
            yield from (map if timed else pool.map)(run, group)


def results(found: list[Figure], out: Path) -> report.Results:
    """Run the commands, and yield their outputs; RuntimeError after all, if one failed."""
    yield f"{machine.processor()}, {cores()} cores; {machine.versions()}."
    failed = []
    for figure, (end, said) in zip(found, run_all(found, out), strict=True):
        failed += [] if end.said == "done" else [figure.command]
        about = f"{', '.join(figure.pages)}; {end}; {end.seconds / 60:.1f} minutes."
        yield {"table": f"`{figure.command}`", "text": f"{about}\n\n{said}"}
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(found)} commands failed: {'; '.join(failed)}")


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, 1 if a command failed, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--list", action="store_true", help="print the commands, run none")
    parser.add_argument("--only", default="", metavar="PATTERN", help="a regular expression")
    parser.add_argument("--out", type=Path, default=Path("out/figures"), help="directory")
    args = parser.parse_args(argv)
    found = [f for f in figures() if re.search(args.only, f"{f.command} {' '.join(f.pages)}")]
    if not found:
        parser.error(f"argument --only: no command or page matches {args.only!r}; see --list")
    if args.list:
        rows = [[f.command, ", ".join(f.pages), f"{f.minutes:g}"] for f in found]
        hours = sum(f.minutes / (1 if f.timed else 2) for f in found) / 60
        print(report.table(["command", "pages", "minutes"], rows))
        print(f"\n{len(found)} commands, about {hours:.1f} hours on two cores.")
        return 0
    args.program, args.out = "figures", args.out.resolve()
    return report.run(args, lambda args: results(found, args.out))


if __name__ == "__main__":
    sys.exit(main())
