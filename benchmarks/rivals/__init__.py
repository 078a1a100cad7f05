"""The rivals: libraries and autodiff of plain scans, as their users would write them.

All start from the same parameters, in the form of the library, with axes in the order of the
library. They use only techniques from their documentation. The plain scans use those of JAX's
documentation: the projection before the loop, and `unroll`.

A rival is one file, named in `NAMES`. `recurrences(group)` gives its programs for the shape and the
cell of a group, none for a cell that it lacks: a function of parameters in the form of the library,
and the map to this form.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

os.environ["KERAS_BACKEND"] = "jax"  # keras reads it at import

NAMES = ["autodiff", "flax", "haiku", "keras", "torch"]


class Recurrence(NamedTuple):
    """A recurrence of one shape as a pure function of parameters in the form of a library."""

    name: str
    states: Callable[..., Any]  # of own parameters and xs -> hs
    own: Callable[[Any], Any] = lambda params: params  # from the common form of the parameters
    kind: str = "tanh"  # of the result, of `kernel.expected`
    batch_first: bool = False  # xs [B, T, I] instead of [T, B, I], hs and y likewise
    dtype: Any = jnp.float32  # of hs and y
    backend: str | None = None  # of jrnn: native or xla; None: a rival's

    @property
    def label(self) -> str:
        """The name, and the backend if it is given."""
        return self.name if self.backend is None else f"{self.name} ({self.backend})"


def in_form(tree: Any, arrays: Any) -> Any:
    """Arrays in the form of a library, whose leaves are in the same order."""
    return jax.tree.unflatten(jax.tree.structure(tree), map(jnp.asarray, jax.tree.leaves(arrays)))


def load(name: str) -> Any:
    """Import the file of a rival, and with it the library, which must be installed."""
    return importlib.import_module(f"benchmarks.rivals.{name}")
