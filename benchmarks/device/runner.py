"""Run parts one after the other, each in a separate process, within a time limit.

A part may fail in any way: raise, be killed for its memory, crash with the device's driver, or
hang. Its results so far are kept, with the reason of the failure, and the next part starts with a
fresh device. The remaining time is shared among the remaining parts by their weights, so unused
time goes to later parts.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

GRACE = 1 / 20  # share of the whole time that a part may overrun before it is killed
EXIT_SECONDS = 10  # for a process that has reported its end
WORDS = 300  # characters of an error message
TAIL = 3  # lines of a crashed process's output on the page
BAD = ("failed", "stopped", "interrupted")


class Part(NamedTuple):
    """A part of the benchmark."""

    name: str
    title: str
    function: str  # "module:function", a generator of one `Context`
    weight: float  # its share of the time


class Context(NamedTuple):
    """The arguments of a part."""

    options: dict[str, Any]
    deadline: float  # `time.monotonic` in the part's process; before it runs, seconds

    def left(self) -> float:
        """Seconds until no new work may be started."""
        return self.deadline - time.monotonic()


Result = dict[str, Any]  # of a part, for JSON: see `run`


def run(
    parts: Sequence[Part],
    options: dict[str, Any],
    seconds: float,
    write: Callable[[list[Result]], None],
) -> list[Result]:
    """Run the parts, in the order of their worth, in so many seconds with all starts of processes.

    `write` is called with all results after every change. A result has the name and title of its
    part, records (dicts), lines (sentences), seconds, and a state: not started, running, done, left
    out or one of `BAD`, with a reason and details. Ctrl-C, or a signal that the command treats the
    same way, interrupts the running part.

    Raises:
        OSError: from `write`; no process is left running.
    """
    results: list[Result] = [
        {"name": part.name, "title": part.title, "state": "not started", "reason": ""}
        | {"details": "", "seconds": 0.0, "records": [], "lines": []}
        for part in parts
    ]
    grace, end = seconds * GRACE, time.monotonic() + seconds
    try:
        for n, (part, result) in enumerate(zip(parts, results, strict=True)):
            left = end - grace - time.monotonic()
            context = Context(options, left * part.weight / sum(p.weight for p in parts[n:]))
            if left <= 0:
                result |= {"state": "left out", "reason": "there was no time left for it"}
            else:
                _run_part(part.function, context, grace, result, partial(write, results))
            write(results)
    except KeyboardInterrupt:
        for result in results:
            if result["state"] == "running":
                result |= {"state": "interrupted", "reason": "Ctrl-C, or a signal to end"}
        write(results)
    return results


def _run_part(
    function: str, context: Context, grace: float, result: Result, write: Callable[[], None]
) -> None:
    start, result["state"] = time.monotonic(), "running"
    write()
    with contextlib.closing(_found(function, context, grace)) as everything:
        for found in everything:
            if isinstance(found, tuple):
                result |= dict(zip(("state", "reason", "details"), found, strict=True))
            else:
                result["lines" if isinstance(found, str) else "records"].append(found)
            result["seconds"] = time.monotonic() - start
            write()
    result["seconds"] = time.monotonic() - start
    if result["state"] == "running":
        result["state"] = "done"


def _found(function: str, context: Context, grace: float) -> Generator[Any, None, None]:
    """Start the process of a part and yield what it finds, and how it ends if it ends badly."""
    start = time.monotonic()
    spawn = multiprocessing.get_context("spawn")  # a fork would share JAX's threads and locks
    with tempfile.TemporaryDirectory() as folder:
        messages = Path(folder) / "messages"
        messages.touch()
        ours, theirs = spawn.Pipe(duplex=False)
        process: Any = spawn.Process(target=_work, args=(function, context, messages, theirs))
        process.start()
        theirs.close()
        try:
            while ours.poll(max(start + context.deadline + grace - time.monotonic(), 0)):
                found = ours.recv()
                if found is None:  # the end
                    process.join(EXIT_SECONDS)
                    return
                yield found
            seconds = time.monotonic() - start
            yield "stopped", f"it did not end within {seconds:.0f} s{_tail(messages)}", ""
        except (EOFError, OSError):  # closed before or within a message
            process.join()
            code = process.exitcode
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            yield "failed", f"its process ended: {how}{_tail(messages)}", ""
        finally:
            with contextlib.suppress(ProcessLookupError):  # its children may outlive it
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # it may not have made its process group yet
            process.join()


def _tail(messages: Path) -> str:
    lines = messages.read_text(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()][-TAIL:]
    return f"; its last words: {' / '.join(said)[-WORDS:]}" if said else ""


def words(error: BaseException) -> str:
    """The message of an exception, in one short line."""
    said = " ".join(str(error).split())[:WORDS]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


# --- in the part's own process -------------------------------------------------------------------


def _work(function: str, context: Context, messages: Path, connection: Connection) -> None:
    """Run one part and send its results."""
    os.setpgid(0, 0)  # the runner handles Ctrl-C; killing this group kills the children
    written = os.open(messages, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):  # messages of libraries, XLA and a driver before a crash
        os.dup2(written, stream)
    context = context._replace(deadline=time.monotonic() + context.deadline)
    module, name = function.split(":")
    try:
        for found in getattr(importlib.import_module(module), name)(context):
            connection.send(found)
    except ModuleNotFoundError as error:
        connection.send(("left out", f"it needs {error.name}, which is not installed", ""))
    except BaseException as error:
        connection.send(("failed", words(error), traceback.format_exc()))
    connection.send(None)
