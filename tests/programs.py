"""Examples as programs of their own, and what they cost on whichever machine runs them."""

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_example(name, *options):
    """What an example prints, and the seconds of processor time that it takes, of all cores.

    Unlike the time on a clock, that hardly depends on what else the machine does.
    """
    before = _seconds_of_children()
    command = [sys.executable, f"examples/{name}.py", *map(str, options)]
    printed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return printed.stdout, _seconds_of_children() - before


def _seconds_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
