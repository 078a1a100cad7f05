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
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import commands, report
from benchmarks.rivals import NAMES
from jrnn.native import cpu_cores as cores

GRACE = 1 / 20  # share of the whole time that a part may overrun before it is killed
BUSY = 0.5  # share of the cores that other programs use

# The parts: the command, and its share of the time, which is about its seconds of ten minutes.
PARTS = {
    "gradients": ("python -m benchmarks.gradients", 180),
    "recurrences": ("python -m benchmarks.kernel --device --rounds 5 --rivals {rivals}", 320),
    "training": ("python -m benchmarks.train_step --rivals {rivals}", 60),
}


def results(args: argparse.Namespace) -> report.Results:
    """Run the parts, and yield what they find; RuntimeError after all, if one failed."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C
        signal.signal(number, signal.default_int_handler)
    if (load := os.getloadavg()[0]) > BUSY * cores():
        yield f"**The machine was busy: load {load:.1f} on {cores()} cores. Times mean little.**"
    parts = [name for name in PARTS if name in args.parts]
    grace, end, failed = 60 * args.minutes * GRACE, time.monotonic() + 60 * args.minutes, []
    for n, name in enumerate(parts):
        command, weight = PARTS[name]
        share = weight / sum(PARTS[other][1] for other in parts[n:])
        seconds = (end - grace - time.monotonic()) * share
        if seconds <= 0:
            yield f"{name}: left out, there was no time left for it"
            continue
        yield f"{name}: begins"
        command = command.format(rivals=" ".join(args.rivals)) + " --toy" * args.toy
        ended = yield from run(f"{command} --minutes {seconds / 60}", seconds + grace)
        failed += [name] if ended.is_bad else []
        yield f"{name}: {ended}, {ended.seconds:.0f} s"
    if failed:
        raise RuntimeError(f"{', '.join(failed)}: lines of the page say why")


def run(command: str, limit: float) -> Generator[report.Record | str, None, Any]:
    """Run a command, and yield what it finds when it finds it; return how it ended."""
    taken = 0
    with TemporaryDirectory() as folder:
        words = f"{command} --out {shlex.quote(folder)}"
        for ended in commands.run(words, Path(folder), limit):
            pages = [json.loads(page.read_text()) for page in Path(folder).glob("*.json")]
            found = pages[0]["results"] if pages else []
            yield from found[taken:]
            taken = len(found)
            if ended is not None:
                return ended


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser("device", __doc__)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--rivals", nargs="+", choices=NAMES, default=["autodiff", "flax", "keras", "torch"])
    add("--name", default="device", help="of the machine, for the page")
    parser.set_defaults(minutes=10)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(report.run(parse(), results))
