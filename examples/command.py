"""The command line of the other examples: numbers for argparse, and a hint if a package is missing.

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
