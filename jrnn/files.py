"""Files that are whole or not there: written beside their place, then renamed into it."""

import os
from os import PathLike
from pathlib import Path


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
    try:
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:  # of a write the system does not say to which file
        raise OSError(error.errno, error.strerror, str(path)) from error
