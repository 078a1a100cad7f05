"""jrnn in the form of the rivals."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp

import jrnn
from benchmarks.cases import Case, ends
from benchmarks.rivals import Recurrence
from jrnn.cells.gru import GRU
from jrnn.cells.lstm import LSTM

NETWORKS: dict[str, Callable[..., Any]] = {"rnn": jrnn.rnn, "lstm": jrnn.lstm, "gru": jrnn.gru}
GATED = {"lstm": LSTM, "gru": GRU}


def _states(network: Callable[..., Any], params: Any, xs: Any, **options: Any) -> Any:
    return network(params, xs, **options)[1]


STATES = {cell: partial(_states, network) for cell, network in NETWORKS.items()}


def recurrences(case: Case, relu: bool = False, cell: str = "rnn") -> list[Recurrence]:
    """Recurrences in float32, also with relu if a rival has only that."""
    named = [Recurrence("jrnn", STATES[cell])]
    if relu:
        states = partial(STATES[cell], activation="relu")
        named.append(Recurrence("jrnn relu", states, activation="relu"))
    return named


def recurrences_of_a_user(case: Case, cell: str) -> list[Recurrence]:
    """The same by a cell as a user writes it, without an adjoint."""
    if cell not in GATED:
        return []
    own = dataclasses.replace(GATED[cell], adjoint=None)
    return [Recurrence("jrnn, a user's cell", partial(_states, partial(jrnn.unroll, own)))]


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
