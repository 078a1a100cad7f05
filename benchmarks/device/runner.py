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
    function: str  # "module:function", of a `Context`, which yields records (dicts) and lines
    weight: float  # its share of the time


class Context(NamedTuple):
    """The arguments of a part."""

    options: dict[str, Any]
    deadline: float  # `time.monotonic` in the part's process; before it runs, seconds

    def left(self) -> float:
        """Seconds until no new work may be started."""
        return self.deadline - time.monotonic()


class End(NamedTuple):
    """How a part ended."""

    state: str  # done, left out, or one of `BAD`
    reason: str = ""
    details: str = ""  # a traceback


Result = dict[str, Any]  # of a part, for JSON: see `run`


def run(
    parts: Sequence[Part],
    options: dict[str, Any],
    seconds: float,
    write: Callable[[list[Result], Result, Any], None],
) -> list[Result]:
    """Run the parts, in the order of their worth, in so many seconds with all starts of processes.

    `write` is called after every change: with all results, that of the part, and the new record,
    line or `End`. A result has the name and title of its part, records, lines,
    seconds, and the fields of its `End`, before which its state is "not started" or "running".
    Ctrl-C, or a signal that the command treats the same way, interrupts the running part.

    Raises:
        OSError: from `write`; no process is left running.
    """
    results: list[Result] = [
        {"name": part.name, "title": part.title, **End("not started")._asdict()}
        | {"seconds": 0.0, "records": [], "lines": []}
        for part in parts
    ]
    grace, end = seconds * GRACE, time.monotonic() + seconds

    def change(result: Result, found: Any, start: float) -> None:
        if isinstance(found, End):
            result |= found._asdict()
        else:
            result["lines" if isinstance(found, str) else "records"].append(found)
        result["seconds"] = time.monotonic() - start
        write(results, result, found)

    for n, (part, result) in enumerate(zip(parts, results, strict=True)):
        start = time.monotonic()
        share = part.weight / sum(p.weight for p in parts[n:])
        context = Context(options, (end - grace - start) * share)
        try:
            change(result, End("running"), start)
            with contextlib.closing(_found(part.function, context, grace)) as everything:
                for found in everything:
                    change(result, found, start)
        except KeyboardInterrupt:
            change(result, End("interrupted", "Ctrl-C, or a signal to end"), start)
            break
    return results


def _found(function: str, context: Context, grace: float) -> Generator[Any, None, None]:
    """Start the process of a part and yield what it finds, and its `End`."""
    if context.deadline <= 0:
        yield End("left out", "there was no time left for it")
        return
    start = time.monotonic()
    spawn = multiprocessing.get_context("spawn")  # a fork would share JAX's threads and locks
    with tempfile.NamedTemporaryFile() as messages:
        ours, theirs = spawn.Pipe(duplex=False)
        arguments = (function, context, messages.name, theirs)
        process: Any = spawn.Process(target=_work, args=arguments)
        process.start()
        theirs.close()
        try:
            while ours.poll(max(start + context.deadline + grace - time.monotonic(), 0)):
                found = ours.recv()
                if isinstance(found, End):
                    process.join(EXIT_SECONDS)
                yield found
                if isinstance(found, End):
                    return
            seconds = time.monotonic() - start
            yield End("stopped", f"it did not end within {seconds:.0f} s{_tail(messages.name)}")
        except (EOFError, OSError):  # closed before or within a message
            process.join()
            code = process.exitcode
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            yield End("failed", f"its process ended: {how}{_tail(messages.name)}")
        finally:
            with contextlib.suppress(ProcessLookupError):  # its children may outlive it
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # it may not have made its process group yet
            process.join()


def _tail(messages: str) -> str:
    lines = Path(messages).read_text(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()][-TAIL:]
    return f"; its last words: {' / '.join(said)[-WORDS:]}" if said else ""


def words(error: BaseException) -> str:
    """The message of an exception, in one short line."""
    said = " ".join(str(error).split())[:WORDS]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _work(function: str, context: Context, messages: str, connection: Connection) -> None:
    """Run one part in its own process, and send its results."""
    os.setpgid(0, 0)  # the runner handles Ctrl-C; killing this group kills the children
    written = os.open(messages, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):  # messages of libraries, XLA and a driver before a crash
        os.dup2(written, stream)
    context = context._replace(deadline=time.monotonic() + context.deadline)
    module, name = function.split(":")
    end = End("done")
    try:
        for found in getattr(importlib.import_module(module), name)(context):
            connection.send(found)
    except ModuleNotFoundError as error:
        end = End("left out", f"it needs {error.name}, which is not installed")
    except BaseException as error:
        end = End("failed", words(error), traceback.format_exc())
    connection.send(end)
