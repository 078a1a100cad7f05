"""Standard output and error that may fail without the loss of a run."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

NAMES = {"stdout": "standard output", "stderr": "standard error"}


class Stream:
    """A stream whose OSErrors name it; a `spare` stream drops text that cannot be written."""

    def __init__(self, stream: TextIO, name: str, spare: bool) -> None:
        """Wrap a stream; all methods except writing are those of the stream."""
        self._stream, self._name, self._spare = stream, name, spare
        self.error: OSError | None = None  # the last error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write buffered text."""
        self._attempt(self._stream.flush)

    def leave(self) -> None:
        """Flush, and drop text that cannot be written: Python would fail to write it at exit."""
        try:
            self.flush()
        finally:
            try:
                self._stream.flush()
            except OSError:
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), self._stream.fileno())

    def _attempt(self, do: Callable[[], object]) -> None:
        try:
            do()
        except OSError as error:
            self.error = OSError(error.errno, error.strerror, self._name)
            if not self._spare:
                raise self.error from error


@contextlib.contextmanager
def guarded(which: str, spare: bool) -> Iterator[Stream]:
    """Write to "stdout" or "stderr" through a `Stream`, which is flushed at the end."""
    own = getattr(sys, which)
    stream = Stream(own, NAMES[which], spare)
    setattr(sys, which, cast(TextIO, stream))
    try:
        yield stream
    finally:
        setattr(sys, which, own)
        stream.leave()
