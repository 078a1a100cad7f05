"""The recurrence in the memory of sqrt(T) states: only those at the borders of segments are kept.

The backward pass goes through the segments from the last to the first and computes the states of
each once more, which is one forward pass in all (Chen et al., Training deep nets with sublinear
memory cost, 2016).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.bptt import rule
from jrnn.bptt.inputs import Inputs
from jrnn.bptt.loops import rows
from jrnn.bptt.schedule import divisor_near
from jrnn.bptt.step import Recurrence
from jrnn.types import RNNParams

# (start, length, h before) -> (h after, outputs)
Segment = Callable[[Any, int, jax.Array], tuple[jax.Array, Any]]


def run(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs), of which the gradient keeps the states between segments alone."""
    xs, h0, marks, entry = inputs

    def segment(start: Any, S: int, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        part_xs, part_marks = rows((xs, marks), start, S)
        return rule.run(recurrence, params, Inputs(part_xs, h, part_marks, entry))

    h_last, hs, rest = over_segments(segment, len(xs), h0)
    hs = lax.collapse(hs, 0, 2)
    return h_last, hs if rest is None else jnp.concatenate([hs, rest])


def over_segments(segment: Segment, T: int, h0: jax.Array) -> tuple[jax.Array, Any, Any]:
    """The state after all segments, the outputs of the equal ones, stacked, and of a shorter last.

    A segment takes what it needs of longer arrays by `start`: as inputs of the scan they would be
    copied, since the scan keeps the inputs of every step for its backward pass.
    """
    S = divisor_near(T, math.isqrt(T))
    whole, rest = divmod(T, S)
    remade = partial(jax.checkpoint, prevent_cse=False)  # a scan needs no guard against CSE

    @remade
    def nth(h: jax.Array, n: jax.Array) -> tuple[jax.Array, Any]:
        return segment(n * S, S, h)

    h, outputs = lax.scan(nth, h0, jnp.arange(whole))
    if not rest:
        return h, outputs, None
    h, last = remade(partial(segment, whole * S, rest))(h)
    return h, outputs, last
