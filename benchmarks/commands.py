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

    state: str  # done, left out, failed, stopped
    reason: str
    seconds: float

    @property
    def is_bad(self) -> bool:
        """Whether it is not as expected."""
        return self.state in ("failed", "stopped")

    def __str__(self) -> str:
        said = f"{self.state}: {self.reason}" if self.reason else self.state
        return f"**{said}**" if self.is_bad else said


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
    said = " / ".join(line.strip() for line in last)[-300:]
    state, how = "done", ""
    if status is None:
        state, how = "stopped", f"it did not end within {limit:.0f} s"
    elif status:
        state = "left out" if "ModuleNotFoundError: " in said else "failed"
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    reason = ": ".join(filter(None, (how, said))) if how else ""
    yield End(state, reason, time.monotonic() - start)
