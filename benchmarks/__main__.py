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
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import commands
from benchmarks.machine import processor
from benchmarks.report import say, table
from jrnn.native import cpu_cores as cores

OWN_OUTPUT = "-m docs.scaling"  # a program without --out


class Figure(NamedTuple):
    """A command whose numbers are in pages."""

    command: str
    pages: list[str]
    minutes: float
    timed: bool = True  # its numbers are times: it runs alone

    def minutes_of_all(self) -> float:
        """Its part of the time of all: of the others two run at once."""
        return self.minutes / (1 if self.timed else 2)

    def run(self, folder: Path) -> tuple[Any, str]:
        """How the command ended, a `commands.End`, and its output."""
        out = "" if OWN_OUTPUT in self.command else f" --out {shlex.quote(str(folder))}"
        *_, end = commands.run(self.command + out, folder)
        return end, (folder / "output.txt").read_text().strip()


def figures() -> list[Figure]:
    """All of them."""
    listed = tomllib.loads((Path(__file__).parent / "figures.toml").read_text())
    return [Figure(**each) for each in listed["figure"]]


def run_all(found: list[Figure], out: Path) -> Iterator[tuple[Any, str]]:
    """The results of all commands, in their order; those without times run two at once."""

    def run(numbered: tuple[int, Figure]) -> tuple[Any, str]:
        n, figure = numbered
        say(f"{n} of {len(found)} begins: {figure.command}")
        return figure.run(out / f"{n:02}")

    with ThreadPoolExecutor(2) as pool:
        for timed, group in groupby(enumerate(found, 1), lambda numbered: numbered[1].timed):
            yield from (map if timed else pool.map)(run, group)


def reprint(found: list[Figure], out: Path) -> int:
    """Run the commands; return how many failed."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("jrnn", "jax"))
    head = f"{time.strftime('%Y-%m-%d')}. {processor()}, {cores()} cores; {versions}."
    texts, failed, start, done = [f"# Figures\n\n{head}"], [], time.monotonic(), 0.0
    for figure, (end, said) in zip(found, run_all(found, out), strict=True):
        failed += [figure.command] if end.state != "done" else []
        about = f"{', '.join(figure.pages)}; {end}; {end.seconds / 60:.1f} minutes."
        texts.append(f"## `{figure.command}`\n\n{about}\n\n{said}")
        (out / "figures.md").write_text("\n\n".join(texts) + "\n")
        done += figure.minutes_of_all() / sum(f.minutes_of_all() for f in found)
        left = (time.monotonic() - start) * (1 / done - 1) / 60
        say(f"\n{figure.command}\n\n{said}\n\n{about} About {left:.0f} minutes more.\n")
    for command in failed:
        print(f"FAILED: {command}")
    print(f"{len(found) - len(failed)} of {len(found)} commands ran: {out / 'figures.md'}")
    return len(failed)


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
        hours = sum(f.minutes_of_all() for f in found) / 60
        print(table(["command", "pages", "minutes"], rows))
        print(f"\n{len(found)} commands, about {hours:.1f} hours on two cores.")
        return 0
    try:
        return int(reprint(found, args.out.resolve()) > 0)
    except KeyboardInterrupt:
        print(f"\nStopped; what was measured is in {args.out / 'figures.md'}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
