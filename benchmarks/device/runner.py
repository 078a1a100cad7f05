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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

GRACE = 1 / 20  # share of the whole time that a part may overrun before it is killed
EXIT_SECONDS = 10  # for a process that has reported its end
WORDS = 300  # characters of an error message
TAIL = 3  # lines of a crashed process's output on the page


class Part(NamedTuple):
    """A part of the benchmark."""

    name: str
    title: str
    function: str  # "module:function", a generator of one `Context`
    weight: float  # its share of the time
    needs: str = ""  # a result that an earlier part must offer, in "offers" of a record


class Context(NamedTuple):
    """The arguments of a part."""

    options: dict[str, Any]
    deadline: float  # `time.monotonic` in the part's process; before it runs, seconds

    def left(self) -> float:
        """Seconds until no new work may be started."""
        return self.deadline - time.monotonic()


@dataclass
class Result:
    """The result of a part."""

    name: str
    title: str
    state: str = "not started"  # running, done, failed, stopped, interrupted, left out
    reason: str = ""
    details: str = ""  # the traceback of a part that raised
    seconds: float = 0.0
    records: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The result as a dict for JSON."""
        return asdict(self)


class LeftOutError(Exception):
    """A part raises this if the machine lacks something that it needs."""


class GoneError(Exception):
    """The process of a part has ended without a report."""


class Ending(NamedTuple):
    """The end of a part after an exception, as strings that can be sent between processes."""

    state: str
    reason: str
    details: str


DONE = "done"


def run(
    parts: Sequence[Part],
    options: dict[str, Any],
    seconds: float,
    write: Callable[[list[Result]], None],
) -> list[Result]:
    """Run the parts.

    Args:
        parts: the parts in order, the most important one first.
        options: the options in the `Context` of each part.
        seconds: the time for all parts together, including process starts.
        write: called with all results after every change.

    Returns:
        A `Result` per part. After Ctrl-C (or a signal that the command treats the same way) the
        running part is "interrupted", and later parts are "not started".

    Raises:
        OSError: from `write`; no process is left running.
    """
    results = [Result(part.name, part.title) for part in parts]
    end = time.monotonic() + seconds
    try:
        for n, (part, result) in enumerate(zip(parts, results, strict=True)):
            offers = _offers(results)
            weights = [p.weight for p in parts[n:] if not p.needs or p.needs in offers]
            left = end - seconds * GRACE - time.monotonic()
            if part.needs and part.needs not in offers:
                result.state, result.reason = "left out", f"it needs {part.needs}"
            elif left <= 0:
                result.state, result.reason = "left out", "there was no time left for it"
            else:
                context = Context(options, left * part.weight / sum(weights))
                _run_part(part, result, context, seconds * GRACE, results, write)
            write(results)
    except KeyboardInterrupt:
        for result in results:
            if result.state == "running":
                result.state, result.reason = "interrupted", "Ctrl-C, or a signal to end"
        write(results)
    return results


def _offers(results: list[Result]) -> set[str]:
    return {o for result in results for r in result.records for o in r.get("offers", ())}


def _run_part(
    part: Part,
    result: Result,
    context: Context,
    grace: float,
    results: list[Result],
    write: Callable[[list[Result]], None],
) -> None:
    """Start the process of a part and collect its results in `result` until it ends."""
    start = time.monotonic()
    result.state = "running"
    write(results)
    spawn = multiprocessing.get_context("spawn")  # a fork would share JAX's threads and locks
    with tempfile.TemporaryDirectory() as folder:
        messages = Path(folder) / "messages"
        messages.touch()
        ours, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_work, args=(part.function, context, messages, theirs))
        process.start()
        theirs.close()
        try:
            for found in _received(ours, start + context.deadline + grace):
                result.seconds = time.monotonic() - start
                if isinstance(found, dict):
                    result.records.append(found)
                elif isinstance(found, str):
                    result.lines.append(found)
                else:
                    result.state, result.reason, result.details = found
                write(results)
            if result.state == "running":
                result.state = "done"
        except TimeoutError:
            seconds = time.monotonic() - start
            result.state = "stopped"
            result.reason = f"it did not end within {seconds:.0f} s{_tail(messages)}"
        except GoneError:
            process.join()
            result.state = "failed"
            result.reason = f"its process ended: {_how(process.exitcode)}{_tail(messages)}"
        finally:
            result.seconds = time.monotonic() - start
            if result.state in ("done", "failed", "left out"):
                process.join(EXIT_SECONDS)
            _end(process)


def _received(connection: Connection, until: float) -> Iterator[Any]:
    """Yield the messages of the part, up to `DONE`."""
    while connection.poll(max(until - time.monotonic(), 0)):
        try:
            found = connection.recv()
        except (EOFError, OSError):  # closed before or within a message
            raise GoneError from None
        if found == (DONE,):
            return
        yield found
    raise TimeoutError


def _end(process: Any) -> None:
    """Kill the process and its children, which may outlive it and keep the device's memory."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # it may not have made its process group yet
    process.join()


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit status {exitcode}"


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
    except LeftOutError as error:
        connection.send(Ending("left out", str(error), ""))
    except BaseException as error:
        connection.send(Ending("failed", words(error), traceback.format_exc()))
    connection.send((DONE,))
