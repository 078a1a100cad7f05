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
import json
import os
import shlex
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

    def command(self, args: argparse.Namespace, seconds: float, folder: str) -> str:
        """Its command."""
        options = self.options.format(rivals=" ".join(args.rivals)) + " --toy" * args.toy
        common = f"--out {shlex.quote(folder)} --minutes {seconds / 60}"
        return f"python -m benchmarks.{self.program} {common} {options}"


PARTS = [  # the weights are roughly seconds, for ten minutes in total
    Part("gradients", "gradients", 180),
    Part("recurrences", "kernel", 320, "--device --rounds 5 --rivals {rivals}"),
    Part("training", "train_step", 60, "--rivals {rivals}"),
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
            file, taken = Path(folder, f"{part.program}.json"), 0
            command = part.command(args, seconds, folder)
            for ended in commands.run(command, Path(folder), seconds + grace):
                found = json.loads(file.read_text())["results"] if file.exists() else []
                yield from found[taken:]
                taken = len(found)
                if ended is not None:
                    failed += [part.name] if ended.is_bad else []
                    yield f"{part.name}: {ended}, {ended.seconds:.0f} s"
    if failed:
        raise RuntimeError(f"{', '.join(failed)}: lines of the page say why")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser("device", __doc__)
    names, add = [part.name for part in PARTS], parser.add_argument
    add("--parts", nargs="+", choices=names, default=names)
    add("--rivals", nargs="+", choices=NAMES, default=RIVALS)
    add("--name", default="device", help="of the machine, for the page")
    parser.set_defaults(minutes=10)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(report.run(parse(), results))
