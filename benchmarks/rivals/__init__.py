"""The rivals: libraries and autodiff of plain scans, as their users would write them.

All start from the same parameters, in the form of the library, with axes in the order of the
library. They use only techniques from their documentation. The plain scans use those of JAX's
documentation: the projection before the loop, and `unroll`.

A rival is one file, named in `NAMES`. `recurrences(group)` gives its programs for the shape and the
cell of a group, none for a cell that it lacks: a function of parameters in the form of the library,
and the map to this form. The linear layer of a character model is the same for all.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.cases import Case, Group
from jrnn.checks import refuse

os.environ.setdefault("KERAS_BACKEND", "jax")  # keras reads it at import

NAMES = ["autodiff", "flax", "haiku", "keras", "equinox", "torch"]  # the choices of `--rivals`


class Recurrence(NamedTuple):
    """A recurrence of one shape as a pure function of parameters in the form of a library."""

    name: str
    states: Callable[..., Any]  # of own parameters, xs and, for an Elman network, h0 -> hs
    own: Callable[[Any], Any] = lambda params: params  # from the common form of the parameters
    kind: str = "tanh"  # of the result, of `kernel.expected`
    batch_first: bool = False  # xs [B, T, I] instead of [T, B, I], hs and y likewise
    input_dtype: Any = jnp.float32  # dtype of the parameters and xs
    state_dtype: Any = jnp.float32  # of hs and y
    backend: str | None = None  # of jrnn_itself.BACKENDS; None: a rival's

    @property
    def label(self) -> str:
        """The name, and the backend if it is given."""
        return self.name if self.backend is None else f"{self.name} ({self.backend})"


def in_form(tree: Any, arrays: Any) -> Any:
    """Arrays in the form of a library, whose leaves are in the same order."""
    return jax.tree.unflatten(jax.tree.structure(tree), map(jnp.asarray, jax.tree.leaves(arrays)))


class CharacterModel(NamedTuple):
    """A character model as a pure function of parameters in the form of a library."""

    own: Any
    logits: Callable[[Any, Any, Any], Any]  # own parameters, ids, h0 -> (logits, h_last)
    common: Callable[[Any], Any]  # own parameters -> (RNNParams, ReadoutParams)
    batch_first: bool


def character_models(name: str, model: Any) -> dict[str, CharacterModel]:
    """The tanh networks of a rival, each with a linear layer, by name.

    Ids are looked up in w_ih by a rival that says `OF_IDS`, else they are one-hot vectors.
    """
    library = load(name)
    V, H = model.rnn.w_ih.shape

    def of(one: Recurrence) -> CharacterModel:
        def own(model: Any) -> Any:
            return one.own(model[0]), model[1]

        def logits(own: Any, ids: Any, h0: Any) -> Any:
            xs = ids if getattr(library, "OF_IDS", False) else jax.nn.one_hot(ids, V)
            hs = one.states(own[0], xs, h0)
            logits = hs @ own[1].w_ho + own[1].b_o
            return logits, hs[:, -1] if one.batch_first else hs[-1]

        # `own` only reorders the parameters, so its transpose is its inverse.
        given, back = jax.vjp(own, tuple(jax.tree.map(jnp.asarray, tuple(model))))
        return CharacterModel(given, logits, lambda learned: back(learned)[0], one.batch_first)

    found = library.recurrences(Group(name, Case(1, 1, V, H)))
    return {one.name: of(one) for one in found if one.kind == "tanh"}


def load(name: str) -> Any:
    """Import the file of a rival, and with it the library, which must be installed."""
    try:
        return importlib.import_module(f"benchmarks.rivals.{name}")
    except ImportError as error:
        repair = (
            "Install the rivals: pip install -r benchmarks/requirements.txt; or name those that "
            "are wanted: --rivals autodiff, for example."
        )
        refuse("--rivals", f"{name} to be installed", f"{type(error).__name__}: {error}", repair)


def available(names: list[str]) -> tuple[list[str], list[str]]:
    """The rivals that can run here, and a line for each other rival."""
    found, lines = [], []
    for name in names:
        try:
            load(name)
            found.append(name)
        except Exception as error:  # importing a library may fail in any way
            lines.append(f"{name} is left out: {error}")
    return found, lines
