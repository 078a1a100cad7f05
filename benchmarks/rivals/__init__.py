"""The rivals: libraries and autodiff of plain scans, as their users would write them.

All start from the same parameters, in the form of the library, with axes in the order of the
library. They use only techniques from their documentation. The plain scans use those of JAX's
documentation: the projection before the loop, and `unroll`.

A rival is one file: `recurrences(case, cell)` gives its programs for a cell of `cases.CELLS`, none
for a cell that it lacks. Its package is named in `PACKAGES`.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from benchmarks.backends import label
from jrnn.checks import refuse

os.environ.setdefault("KERAS_BACKEND", "jax")  # keras reads it at import

# The choices of `--rivals`, and the package that each one needs.
PACKAGES = {
    "autodiff": "jax",
    "flax": "flax",
    "haiku": "haiku",
    "keras": "keras",
    "equinox": "equinox",
    "torch": "torch",
}


class Recurrence(NamedTuple):
    """A recurrence of one shape as a pure function of parameters in the form of a library."""

    name: str
    states: Callable[[Any, Any], Any]  # own parameters, xs -> hs
    own: Callable[[Any], Any] = lambda params: params  # from the common form of the parameters
    common: Callable[[Any], Any] = lambda own: own  # converts gradients to the common form
    activation: str = "tanh"
    ends: bool = False  # with the lengths and resets of the case
    batch_first: bool = False  # xs [B, T, I] instead of [T, B, I], hs and y likewise
    input_dtype: Any = jnp.float32  # dtype of the parameters and xs
    state_dtype: Any = jnp.float32  # of hs and y
    backend: str | None = None  # of backends.BACKENDS; None: the one that jrnn chooses, or a rival

    @property
    def label(self) -> str:
        """The name, and the backend if it is given."""
        return label(self.name, self.backend)


class CharacterModel(NamedTuple):
    """A character model as a pure function of parameters in the form of a library."""

    own: Any
    logits: Callable[[Any, Any, Any], Any]  # own parameters, ids, h0 -> (logits, h_last)
    common: Callable[[Any], Any]  # own parameters -> (RNNParams, ReadoutParams)
    batch_first: bool = False


def load(name: str) -> Any:
    """Import the module of a rival; its library must be installed."""
    try:
        importlib.import_module(PACKAGES[name])
    except ImportError as error:
        repair = (
            "Install the rivals: pip install -r benchmarks/requirements.txt; or name those that "
            "are wanted: --rivals autodiff, for example."
        )
        refuse("--rivals", f"{name} to be installed", f"{type(error).__name__}: {error}", repair)
    return importlib.import_module(f"benchmarks.rivals.{name}")


def available(names: list[str]) -> tuple[list[str], list[str]]:
    """The rivals that can run on JAX's device here, and a line for each other rival."""
    found, lines = [], []
    for name in names:
        try:
            library = load(name)
        except Exception as error:  # importing a library may fail in any way
            lines.append(f"{name} is left out: {error}")
            continue
        if name == "torch" and library.device_like_jax() is None:
            lines.append("torch is left out: the one that is installed cannot use this device.")
            continue
        found.append(name)
    return found, lines
