"""Programs of their own: examples at toy size, several processes and what they cost; and code."""

import csv
import os
import random
import re
import resource
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]


def table(n):
    """A text that a toy network learns something of."""
    return "".join(f"{i} times {k} is {i * k}.\n" for i in range(n) for k in range(n))


TEXT = table(30)  # of the fixture `text_file`
TOY = ["--hidden-size=16", "--length=16", "--batch-size=4", "--eval-every=10"]


def run_example(name, *options):
    """What an example prints, and the seconds of processor time that it takes, of all cores.

    Unlike the time on a clock, that hardly depends on what else the machine does.
    """
    before = _seconds_of_children()
    command = [sys.executable, f"examples/{name}.py", *map(str, options)]
    printed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return printed.stdout, _seconds_of_children() - before


def in_this_process(main, capsys, *argv):
    """What `main` of an example returns, and what it prints."""
    return main([str(a) for a in argv]), *capsys.readouterr()


def rows_of(out):
    """The metrics that a run of the character model wrote."""
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def in_a_new_process(code):
    """What it prints; as users have it, the package is compiled once, by the first process."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.split()


def _seconds_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def unboxed(error):
    """The text of an error of the command line, which has a frame and lines of 80 columns."""
    return " ".join(re.sub(r"[^ -~]|-{3,}|[|+]", " ", error).split())


def free_port():
    """A port below those that the system gives away, so that none gets it meanwhile."""
    while True:
        port = random.randint(10_000, 30_000)
        with socket.socket() as s, suppress(OSError):
            s.bind(("localhost", port))
            return port


STARTED = []  # processes of a test, which do not outlive it


class Process(subprocess.Popen):
    """What it prints goes to files: a pipe that nobody reads would be full and stop it."""

    def __init__(self, command, **more):
        self.printed = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        out, err = self.printed
        super().__init__(command, cwd=ROOT, stdout=out, stderr=err, **more)
        STARTED.append(self)

    def finish(self):
        """(exit status, stdout, stderr), once it has ended."""
        try:
            self.wait(timeout=600)
        finally:
            self.kill()
        texts = []
        for file in self.printed:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return self.returncode, *texts


def end_all():
    """Kill what a test has left behind, as one that failed does."""
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()


def start(*options, x64=False):
    """One process of the character model."""
    command = [sys.executable, "-u", "examples/char_lm.py", *map(str, options)]
    return Process(command, env=os.environ | {"JAX_ENABLE_X64": str(int(x64))})


def start_two(*options, each=((), ()), **more):
    """Two processes of one run, with two devices each."""
    port = free_port()
    return [
        start(
            f"--coordinator=localhost:{port}",
            "--processes=2",
            f"--process={i}",
            *options,
            *own,
            **more,
        )
        for i, own in enumerate(each)
    ]


def finish(*processes):
    """(exit status, stdout, stderr) of each."""
    return [process.finish() for process in processes]
