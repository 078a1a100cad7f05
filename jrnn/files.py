"""Files that are whole or not there, errors that name them, and paths that are the same to C++."""

import contextlib
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from jrnn import checks


@contextlib.contextmanager
def naming(path: str | PathLike[str], doing: str = "") -> Iterator[None]:
    """Name a file in the OSErrors of what is done to it: of a read or a write they do not.

    Args:
        path: the file, or the directory of one without a name.
        doing: what is added to the reason.

    Raises:
        OSError: of the same number; the message names the file.
    """
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error}{doing}"
        raise OSError(error.errno, reason, str(path)) from error


def write_whole(path: str | PathLike[str], content: bytes) -> None:
    """Write a file; an older one at `path` stays until all of the new one is on the disk.

    Args:
        path: the file. Of a symbolic link, the file that it names is replaced.
        content: all of it.

    Raises:
        OSError: it cannot be written; the message names the file. An older one is as it was, and
            nothing is left beside it.
    """
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(f"{target.name}.unfinished")
    with naming(path, f", writing {len(content):,} bytes"):
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)


def check_utf8(argument: str, path: str | PathLike[str]) -> None:
    """Refuse a path that is not UTF-8: libraries in C++ take it for another, or for none.

    Args:
        argument: what the message calls it.
        path: a file or directory; it counts as the absolute path that it is.

    Raises:
        ValueError: its bytes in the file system are no UTF-8, or mean other characters there.
    """
    absolute = os.path.realpath(path)
    try:
        if absolute.encode() == os.fsencode(absolute):
            return
    except UnicodeEncodeError:  # bytes that are no characters; characters that have no bytes
        pass
    repair = "Take one of ASCII characters, or a locale of UTF-8, such as LC_ALL=C.UTF-8."
    checks.refuse(argument, "a path in UTF-8", ascii(absolute), repair)
