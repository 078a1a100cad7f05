"""The directory of a run: its lock, and the files of finished and unfinished runs.

    model.safetensors   the last state                  best.safetensors   the best row's state
    metrics.csv         a row per evaluation            curve.png          a plot of the rows
    checkpoints         for --resume

The files directly in `--out` belong to one finished run. A run works in the folder `unfinished`,
with the same names, and moves its files to `--out` when it finishes.
"""

import fcntl
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import IO

import jax
from command import refuse

from jrnn.checkpoint import Checkpoint
from jrnn.parallel import together

MODEL, BEST, METRICS, CURVE = "model.safetensors", "best.safetensors", "metrics.csv", "curve.png"
FILES, CHECKPOINTS, UNFINISHED = (MODEL, BEST, METRICS, CURVE), "checkpoints", "unfinished"


class RunDirectory:
    """`--out`, locked against other runs; process 0 does it all, others may have other disks."""

    def __init__(self, out: Path, *, resume: bool, overwrite: bool) -> None:
        """Store the options; nothing is read or written yet."""
        self.out, self.unfinished = out, out / UNFINISHED
        self.checkpoints = self.unfinished / CHECKPOINTS
        self._resume, self._overwrite = resume, overwrite
        self._lock: IO[str] | None = None

    def __enter__(self) -> "RunDirectory":
        """Lock the directory; refuse one with a running or unfinished run."""
        try:
            together(self._open)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self.out).close()  # fail now, not after the training
        if jax.process_index() > 0:
            return
        self._lock = _lock(self.out)
        step = last_step(self.checkpoints)
        begun = step is not None or any((self.unfinished / name).exists() for name in FILES)
        if begun and not (self._resume or self._overwrite):
            repair = "Take --resume to go on with it, --overwrite to replace it, or another --out."
            came = f"one at step {step or 0:,} in {self.unfinished}"
            refuse("--out", "a directory without an unfinished run", came, repair)

    def __exit__(self, *exception: object) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()

    @property
    def resumable(self) -> Path:
        """The checkpoints for `--resume`: of the unfinished run, or else of the finished one."""
        finished = self.out / CHECKPOINTS
        only_finished = finished.exists() and not self.checkpoints.exists()
        return finished if only_finished else self.checkpoints

    def begin(self, resumed: Checkpoint | None) -> None:
        """Create the folder of the run, with copies of the checkpoints of a finished run."""
        together(lambda: self._begin(resumed) if jax.process_index() == 0 else None)

    def _begin(self, resumed: Checkpoint | None) -> None:
        if not self._resume:
            _remove(self.unfinished)
        elif last_step(self.checkpoints) is None:
            if (self.unfinished / MODEL).exists():
                repair = "Take --overwrite to begin anew, or another --out."
                refuse("--resume", f"a checkpoint in {self.checkpoints}", "a model alone", repair)
            if resumed is not None:
                self._copy_finished()
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def _copy_finished(self) -> None:
        copy = self.out / f"{UNFINISHED}.copy"
        _remove(copy)
        without = shutil.ignore_patterns("*.refused")
        shutil.copytree(self.out / CHECKPOINTS, copy / CHECKPOINTS, ignore=without)
        _remove(self.unfinished)
        os.replace(copy, self.unfinished)  # atomically

    def end(self, *, finished: bool) -> Path:
        """Move the files of a finished run to their places; return the folder of the files."""
        old = self.out / CHECKPOINTS
        if not finished:
            if self._overwrite:
                for name in FILES:
                    (self.out / name).unlink(missing_ok=True)
                _remove(old)
            return self.unfinished
        for name in FILES:
            os.replace(self.unfinished / name, self.out / name)
        if old.exists():
            os.replace(old, self.unfinished / "replaced")
        if self.checkpoints.exists():  # last: until then --resume repeats all of this
            os.replace(self.checkpoints, old)
        _remove(self.unfinished)
        return self.out


def find_model(out: Path, name: str) -> Path:
    """Find the model file for sampling; print a note if a later run has not finished."""
    unfinished = out / UNFINISHED
    begun = [unfinished / name, unfinished / BEST]  # until its end a run has only the best model
    found = [path for path in (out / name, *begun) if path.exists()]
    if not found:
        refuse("--out", f"a directory with a {name}", out, "Train a model first.")
    if found[0] == out / name and len(found) > 1:
        note = f"{found[0]} is read; a later run, that has not finished, is in {unfinished}"
        print(note, file=sys.stderr)
    return found[0]


def last_step(checkpoints: Path) -> int | None:
    """The step of the last checkpoint in a directory."""
    steps = [int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()]
    return max(steps, default=None)


def _lock(out: Path) -> IO[str]:
    """Lock a directory until this process ends, for whatever reason."""
    file = (out / ".lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        came, expected = f"{out}, of {file.read()}", "a directory that no other run writes to"
        file.close()
        refuse("--out", expected, came, "Take another one, or wait; --sample may read it.")
    except OSError as error:
        reason = f"{out} cannot be locked ({error.strerror})"
        print(f"{reason}: see that no other run writes to it", file=sys.stderr)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
