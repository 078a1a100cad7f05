"""Parts that the examples share: settings that are options, errors, and files of results."""

import json
import os
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, Union

import numpy as np
from streams import guarded

try:  # all packages of a program, before it begins
    import matplotlib as matplotlib
    import tqdm as tqdm
    import tyro
except ImportError as error:
    hint = "pip install -e '.[examples]', in the clone of jrnn, brings it"
    sys.exit(f"error: {error.name} is missing: {hint}")

FLOAT32 = np.finfo(np.float32)


def refuse(argument: str, expected: str, came: object, repair: str) -> NoReturn:
    """Raise the ValueError of bad input."""
    raise ValueError(f"{argument}: expected {expected}; got {came}. {repair}")


# --- settings ------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Bounds:
    """The bounds of a number, in the annotation of its field."""

    kind: type
    least: Any
    most: Any

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, (int, self.kind)) and self.least <= value <= self.most

    def __repr__(self) -> str:
        if self.kind is int:
            return f"an integer from {self.least} to {self.most:,}"
        return f"a number from {self.least:.3g} to {self.most:.3g}"


Positive = Annotated[int, Bounds(int, 1, 2**31 - 1)]
NotNegative = Annotated[int, Bounds(int, 0, 2**31 - 1)]
NotNegativeFloat = Annotated[float, Bounds(float, 0.0, float(FLOAT32.max))]
PositiveFloat = Annotated[float, Bounds(float, float(FLOAT32.tiny), float(FLOAT32.max))]
Share = Annotated[float, Bounds(float, float(FLOAT32.tiny), 1.0)]


@dataclass(frozen=True)
class Checked:
    """Settings that are within the bounds and choices of their annotations.

    They are the options of a command line, and the comment or the string after a field is its help.
    """

    def __post_init__(self) -> None:
        """Refuse those that are not."""
        for name, kind in typing.get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            several = typing.get_origin(kind) is tuple
            for one in value if several else [value]:
                _check(option(name), typing.get_args(kind)[0] if several else kind, one)

    @classmethod
    def parse(cls, argv: Sequence[str] | None = None) -> Self:
        """Parse a command line, by default that of the process; if it is wrong, exit with 2."""
        config = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
        return tyro.cli(cls, args=argv, config=config)


def option(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def _check(name: str, kind: Any, value: Any) -> None:
    """Refuse a value outside the bounds and choices of its annotation, if that has any."""
    known: list[Any] = []
    for one in typing.get_args(kind) if typing.get_origin(kind) is Union else [kind]:
        known += getattr(one, "__metadata__", [])  # the bounds of a number
        known += [typing.get_args(one)] if typing.get_origin(one) is Literal else []
    if known and value is not None and not any(value in one for one in known):
        words = (", ".join(map(repr, k)) if isinstance(k, tuple) else str(k) for k in known)
        refuse(name, " or ".join(words), repr(value), "See --help.")


# --- results -------------------------------------------------------------------------------------


def exit_status(work: Callable[[], str], interrupted: str) -> int:
    """Run a program and print the report that it returns.

    Results are in files, so text that cannot be written is dropped: a closed pipe, a full disk.

    Args:
        work: the program.
        interrupted: the state of its results after Ctrl-C.

    Returns:
        0, 1 after bad input or an OSError, or 130 after Ctrl-C.
    """
    with guarded("stderr", spare=True), guarded("stdout", spare=True):
        try:
            print(work())
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"interrupted: {interrupted}", file=sys.stderr)
            return 130
    return 0


def mean_and_error(values: Any) -> tuple[float, float]:
    """The mean over seeds, and its standard error (NaN for one seed)."""
    values = np.asarray(values)
    n = len(values)
    return values.mean(), values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Make a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_results(stem: Path, result: Any, table: str | None = None) -> None:
    """Write the results, and a table if there is one; a failure leaves the files of earlier runs.

    Args:
        stem: the path of both files, without a suffix.
        result: for the JSON; a value that it has no form for is written as text.
        table: in Markdown, or None.

    Raises:
        OSError: one of them cannot be written; the message names it.
    """
    text = json.dumps(result, indent=1, default=str)
    write_whole(stem.with_suffix(".json"), f"{text}\n".encode())
    if table is not None:
        write_whole(stem.with_suffix(".md"), f"{table}\n".encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file next to its place and move it there: an older one stays after a failure.

    Raises:
        OSError: it cannot be written; the message names the file.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        reason = f"{error.strerror}, writing {len(content):,} bytes"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)
