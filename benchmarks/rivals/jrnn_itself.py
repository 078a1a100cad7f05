"""jrnn in the form of the rivals."""

from functools import partial
from typing import Any

import jax.numpy as jnp

import jrnn
from benchmarks.cases import Case, ends
from benchmarks.rivals import Recurrence


def _states(params: Any, xs: Any, **options: Any) -> Any:
    return jrnn.rnn(params, xs, **options)[1]


def recurrences(case: Case, relu: bool) -> list[Recurrence]:
    """Recurrences in float32, also with relu if a rival has only that."""
    named = [Recurrence("jrnn", _states)]
    if relu:
        states = partial(_states, activation="relu")
        named.append(Recurrence("jrnn relu", states, activation="relu"))
    return named


def recurrences_bfloat16(case: Case) -> list[Recurrence]:
    """bfloat16 through `compute_dtype` with float32 parameters, and float32 to compare."""
    states = partial(_states, compute_dtype=jnp.bfloat16)
    return [
        Recurrence("jrnn", states, state_dtype=jnp.bfloat16),
        Recurrence("jrnn float32", _states),
    ]


def recurrences_with_ends(case: Case) -> list[Recurrence]:
    """With lengths and resets, and without them to compare."""
    states = partial(_states, **ends(case)._asdict())
    return [Recurrence("jrnn", states, ends=True), Recurrence("jrnn without", _states)]
