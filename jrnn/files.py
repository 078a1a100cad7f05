"""Atomic writes, OSErrors that name the file, and a check of paths for C++ libraries."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from jrnn import checks


@contextlib.contextmanager
def naming(path: str | PathLike[str], doing: str = "") -> Iterator[None]:
    """Add a path to OSErrors: those of a read or a write do not name the file.

    Args:
        path: the file, or the directory of an unnamed file.
        doing: text that is added to the reason.

    Raises:
        OSError: with the same errno; the message names the file.
    """
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error}{doing}"
        raise OSError(error.errno, reason, str(path)) from error


def write_whole(path: str | PathLike[str], content: bytes) -> None:
    """Write a file atomically: an older one at `path` stays until the new one is on the disk.

    Args:
        path: the file. For a symbolic link, its target is replaced.
        content: the content of the file.

    Raises:
        OSError: it cannot be written; the message names the file. An older file is unchanged, and
            no temporary file is left. (A process that is killed leaves `*.unfinished` next to it.)
    """
    target = Path(os.path.realpath(path))
    # A name of its own: another process may write the same file. At most 229 of 255 bytes.
    unfinished = target.with_name(f"{target.name[:50]}.{secrets.token_hex(8)}.unfinished")
    with naming(path, f", writing {len(content):,} bytes"):
        if target.exists() and not (target.is_file() or target.is_dir()):  # such as /dev/null
            raise OSError(errno.EINVAL, "expected a regular file; got a device, a pipe or a socket")
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)


def check_utf8(argument: str, path: str | PathLike[str]) -> None:
    """Refuse a path that is not UTF-8: C++ libraries would use another path or fail.

    Args:
        argument: the name of the path in the message.
        path: a file or directory; its absolute path is checked.

    Raises:
        ValueError: its bytes in the file system are not UTF-8, or decode to other characters.
    """
    absolute = os.path.realpath(path)
    try:
        if absolute.encode() == os.fsencode(absolute):
            return
    except UnicodeEncodeError:  # undecodable bytes or unencodable characters
        pass
    repair = "Use ASCII characters only, or a UTF-8 locale such as LC_ALL=C.UTF-8."
    checks.refuse(argument, "a path in UTF-8", ascii(absolute), repair)
