"""The rivals: each library, and autodiff of plain scans, as its users would write it.

All start from the same parameters, in the library's own form, and get the axes in the order that
the library asks for. None gets a trick that its documentation does not show; the plain scans get
those that a reader of JAX's documentation knows: the projection out of the loop, `unroll`.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

import jrnn
from jrnn.checks import refuse

os.environ.setdefault("KERAS_BACKEND", "jax")  # keras reads it when it is imported

# What `--rivals` chooses among, and the package that each one needs.
PACKAGES = {
    "autodiff": "jax",
    "flax": "flax",
    "haiku": "haiku",
    "keras": "keras",
    "equinox": "equinox",
    "torch": "torch",
}


class Recurrence(NamedTuple):
    """A recurrence of one shape as a pure function of parameters in a library's own form."""

    name: str
    states: Callable[[Any, Any], Any]  # own parameters, xs -> hs
    own: Callable[[jrnn.RNNParams], Any] = lambda params: params
    common: Callable[[Any], jrnn.RNNParams] = lambda own: own  # the way back, for gradients
    activation: str = "tanh"
    ends: bool = False  # with the lengths and resets of the case
    batch_first: bool = False  # xs [B, T, I] instead of [T, B, I], hs and y likewise
    input_dtype: Any = jnp.float32  # of the parameters and of xs
    state_dtype: Any = jnp.float32  # of hs and y


class CharacterModel(NamedTuple):
    """A character model as a pure function of parameters in a library's own form."""

    own: Any
    logits: Callable[[Any, Any, Any], Any]  # own parameters, ids, h0 -> (logits, h_last)
    common: Callable[[Any], Any]  # own parameters -> (RNNParams, ReadoutParams)
    batch_first: bool = False


def load(name: str) -> Any:
    """The module of a rival, whose library must be there."""
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
    """Those of the rivals that can run on JAX's device here, and a line for each other one."""
    found, lines = [], []
    for name in names:
        try:
            library = load(name)
        except Exception as error:  # an installed library may fail in any way when it is imported
            lines.append(f"{name} is left out: {error}")
            continue
        if name == "torch" and library.device_like_jax() is None:
            lines.append("torch is left out: the one that is installed cannot use this device.")
            continue
        found.append(name)
    return found, lines
