"""Measure one device, such as a GPU, in ten minutes and write one page.

    python -m benchmarks.device                               # all, on the device JAX prefers
    python -m benchmarks.device --parts gradients             # are the gradients right?
    python -m benchmarks.device --out benchmarks/results/h100 # a page to keep

The most important part runs first. Each part is a program in a process of its own, and the page is
written after every result, so Ctrl-C or a crash loses none. The remaining time is shared among the
remaining parts by their weights. A missing library costs one line of the page. By default the
rivals are those that take little time to compile.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks import commands, report
from benchmarks.rivals import NAMES
from jrnn.native import cpu_cores as cores

GRACE = 1 / 20  # share of the whole time that a part may overrun before it is killed
BUSY = 0.5  # share of the cores that other programs use


class Part(NamedTuple):
    """A part of the page."""

    name: str
    program: str
    weight: float  # its share of the time
    options: str = ""
    rivals: tuple[str, ...] = ()  # those that it knows

    def command(self, args: argparse.Namespace, seconds: float, folder: str) -> str:
        """Its command."""
        rivals = [name for name in args.asked if name in self.rivals]
        words = ["python", "-m", f"benchmarks.{self.program}", *self.options.split()]
        words += ["--out", folder, "--minutes", str(seconds / 60)]
        words += ["--toy"] if args.toy else []
        words += ["--rivals", *rivals] if self.rivals else []
        return shlex.join(words)


PARTS = [  # the weights are roughly seconds, for ten minutes in total
    Part("gradients", "gradients", 180),
    Part("recurrences", "kernel", 320, "--device --rounds 5", tuple(NAMES)),
    Part("training", "train_step", 60, rivals=("autodiff", "torch")),
]
RIVALS = ["autodiff", "flax", "keras", "torch"]


def results(args: argparse.Namespace) -> report.Results:
    """Run the parts; yield what they find, and a line when each begins and ends.

    Raises:
        RuntimeError: a part failed; after all others.
    """
    if (load := os.getloadavg()[0]) > BUSY * cores():
        yield f"**The machine was busy: load {load:.1f} on {cores()} cores. Times mean little.**"
    parts, failed = [part for part in PARTS if part.name in args.parts], []
    grace, end = 60 * args.minutes * GRACE, time.monotonic() + 60 * args.minutes
    for n, part in enumerate(parts):
        share = part.weight / sum(p.weight for p in parts[n:])
        seconds = (end - grace - time.monotonic()) * share
        if seconds <= 0:
            yield f"{part.name}: left out, there was no time left for it"
            continue
        yield f"{part.name}: begins"
        with TemporaryDirectory() as folder:
            file, taken = Path(folder, f"{part.program}.json"), {"records": 0, "lines": 0}
            command = part.command(args, seconds, folder)
            for ended in commands.run(command, Path(folder), seconds + grace):
                page = json.loads(file.read_text()) if file.exists() else {}
                for kind, count in taken.items():
                    new = page.get(kind, [])[count:]
                    taken[kind] += len(new)
                    yield from new
                if ended is not None:
                    failed += [part.name] if ended.is_bad else []
                    count = sum("table" in r for r in page.get("records", []))
                    said = f"{count} results in {ended.seconds:.0f} s"
                    yield f"{part.name}: {ended}, {said}"
    if failed:
        raise RuntimeError(f"{', '.join(failed)}: lines of the page say why")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser("device", __doc__)
    names, add = [part.name for part in PARTS], parser.add_argument
    add("--parts", nargs="+", choices=names, default=names)
    add("--rivals", nargs="+", choices=NAMES, default=RIVALS, dest="asked")
    add("--name", help="of the machine, for the page")
    parser.set_defaults(minutes=10)
    return report.parse(parser, argv)


def main(argv: list[str] | None = None) -> int:
    """Run all parts; return 0, 1 if a part failed or a result is wrong, or 130 after Ctrl-C."""
    args = parse(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C
        signal.signal(number, signal.default_int_handler)
    with contextlib.closing(results(args)) as found:  # which ends the process of a part
        return report.collect("device", args, found)


if __name__ == "__main__":
    sys.exit(main())
