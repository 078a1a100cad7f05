"""jrnn in the form of the rivals."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp

import jrnn
from benchmarks.cases import Case, ends
from benchmarks.rivals import Recurrence
from jrnn import kernel
from jrnn.cells.gru import GRU
from jrnn.cells.lstm import LSTM

CELLS = {"lstm": LSTM, "gru": GRU}


def _elman(params: Any, xs: Any, **options: Any) -> Any:
    return jrnn.rnn(params, xs, **options)[1]


def _unroll(cell: Any, params: Any, xs: Any, compute_dtype: Any = None, **ends: Any) -> Any:
    b = params.b_h
    if len(params) == 4:
        b = jnp.concatenate([b, jnp.zeros_like(b[: len(params.w_hh)])])
    spec = kernel.Spec(cell, compute_dtype=compute_dtype and jnp.dtype(compute_dtype))
    return kernel.unroll(spec, kernel.Weights(params.w_ih, params.w_hh, b), xs, **ends)[1]


STATES: dict[str, Callable[..., Any]] = {
    "rnn": _elman,
    "lstm": partial(_unroll, LSTM),
    "gru": partial(_unroll, GRU),
}


def recurrences(case: Case, relu: bool = False, cell: str = "rnn") -> list[Recurrence]:
    """Recurrences in float32, also with relu if a rival has only that."""
    named = [Recurrence("jrnn", STATES[cell])]
    if relu:
        states = partial(_elman, activation="relu")
        named.append(Recurrence("jrnn relu", states, activation="relu"))
    return named


def recurrences_of_a_user(case: Case, cell: str) -> list[Recurrence]:
    """The same by a cell as a user writes it, without an adjoint."""
    if cell not in CELLS:
        return []
    own = dataclasses.replace(CELLS[cell], adjoint=None)
    return [Recurrence("jrnn, a user's cell", partial(_unroll, own))]


def recurrences_bfloat16(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """bfloat16 through `compute_dtype` with float32 parameters, and float32 to compare."""
    states = partial(STATES[cell], compute_dtype=jnp.bfloat16)
    return [
        Recurrence("jrnn", states, state_dtype=jnp.bfloat16),
        Recurrence("jrnn float32", STATES[cell]),
    ]


def recurrences_with_ends(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """With lengths and resets, and without them to compare."""
    states = partial(STATES[cell], **ends(case)._asdict())
    return [Recurrence("jrnn", states, ends=True), Recurrence("jrnn without", STATES[cell])]
