"""Run a command in a process and a folder of its own.

It may fail in any way: end with an error, be killed for its memory, crash with a device's driver,
or hang. The files that it wrote so far are kept, and the reason is known.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TICK = 0.5  # seconds between two looks at a process


class End(NamedTuple):
    """How a command ended."""

    said: str  # done, left out, failed or stopped, and why
    is_bad: bool
    seconds: float

    def __str__(self) -> str:
        return f"**{self.said}**" if self.is_bad else self.said


def run(command: str, folder: Path, limit: float | None = None) -> Iterator[End | None]:
    """Run a command from the root of the repository; yield None while it runs, then its `End`.

    `output.txt` and `errors.txt` of the folder have its output. After so many seconds it and its
    children are killed; without a limit it shares the Ctrl-C of the terminal.
    """
    # `env` reads the variables before the command.
    argv = ["env", *(sys.executable if w == "python" else w for w in shlex.split(command))]
    folder.mkdir(parents=True, exist_ok=True)
    start, group = time.monotonic(), None if limit is None else 0
    with (folder / "output.txt").open("w") as out, (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(argv, stdout=out, stderr=errors, cwd=ROOT, process_group=group)
    try:
        while process.poll() is None and (limit is None or time.monotonic() < start + limit):
            yield None
            time.sleep(TICK)
        status = process.poll()
    finally:
        with contextlib.suppress(ProcessLookupError):  # its children may outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
    last = (folder / "errors.txt").read_text(errors="replace").strip().split("\n")[-3:]
    why = " / ".join(line.strip() for line in last)[-300:]
    is_missing = bool(status) and "ModuleNotFoundError: " in why
    if status is None:
        said = f"stopped: it did not end within {limit:.0f} s"
    elif status:
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        said = f"{'left out' if is_missing else 'failed'}: {how}"
    else:
        said, why = "done", ""
    is_bad = status != 0 and not is_missing
    yield End(": ".join(filter(None, (said, why))), is_bad, time.monotonic() - start)
