"""jrnn, as the rivals are written."""

from functools import partial
from typing import Any

import jax.numpy as jnp

import jrnn
from benchmarks.cases import Case, ends
from benchmarks.rivals import Recurrence


def _states(params: Any, xs: Any, **options: Any) -> Any:
    return jrnn.rnn(params, xs, **options)[1]


def recurrences(case: Case, relu: bool) -> list[Recurrence]:
    """In float32; with relu where a rival has nothing else."""
    named = [Recurrence("jrnn", _states)]
    if relu:
        states = partial(_states, activation="relu")
        named.append(Recurrence("jrnn relu", states, activation="relu"))
    return named


def recurrences_bfloat16(case: Case) -> list[Recurrence]:
    """In bfloat16 by `compute_dtype`, the parameters float32; and float32, to compare with."""
    states = partial(_states, compute_dtype=jnp.bfloat16)
    return [
        Recurrence("jrnn", states, state_dtype=jnp.bfloat16),
        Recurrence("jrnn float32", _states),
    ]


def recurrences_with_ends(case: Case) -> list[Recurrence]:
    """With lengths and resets; and without, to compare with."""
    states = partial(_states, **ends(case)._asdict())
    return [Recurrence("jrnn", states, ends=True), Recurrence("jrnn without", _states)]
