"""The command line of the other examples: numbers, exit status, and a hint if a package is missing.

A number is an integer in int32 or a float in float32.
"""

import contextlib
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any, get_args

try:  # all packages of a run, before it begins
    from char_model.settings import NotNegative, Positive, PositiveFloat
except ImportError as error:
    sys.exit(f"error: {error}")


def _number(kind: Any) -> Callable[[str], Any]:
    """A type for argparse, of the annotation of a setting."""
    number, bounds = get_args(kind)

    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if (value := number(text)) in bounds:
                return value
        raise ArgumentTypeError(f"expected {bounds}; got {text!r}")

    return parse


positive, not_negative, positive_float = map(_number, (Positive, NotNegative, PositiveFloat))


def exit_status(work: Callable[[], str], interrupted: str) -> int:
    """Run a program and print the report that it returns.

    Args:
        work: the program.
        interrupted: the state of its results after Ctrl-C.

    Returns:
        0, 1 after bad input or an OSError, or 130 after Ctrl-C.
    """
    try:
        report = work()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return 130
    print(report)
    return 0
