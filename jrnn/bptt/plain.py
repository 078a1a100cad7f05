"""The backward pass by a plain `lax.scan`, which JAX maps and differentiates well.

(9) for all steps, then (11)-(13) for all steps at once: all deltas exist beside the states. It
serves one sequence, the gradients of each of several, and whoever differentiates `chunks.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import are_ids
from jrnn.bptt.gradients import (
    Backward,
    Residuals,
    Sums,
    add_weight_gradients,
    input_gradients,
    operands,
)
from jrnn.bptt.inputs import Entry, links, states_entering
from jrnn.bptt.loops import scan
from jrnn.bptt.mapped import Results
from jrnn.bptt.step import Cotangents, Recurrence


def backward(
    recurrence: Recurrence, residuals: Residuals, cotangents: Results, sums: Sums
) -> Backward:
    """(9)-(13), of one sequence or a batch."""
    params, inputs, hs = residuals
    marks, entry = inputs.marks, inputs.entry
    dh_last, dhs = cotangents

    def step_back(
        constant: tuple[jax.Array, Entry, jax.Array], c_t: Cotangents, given_t: Any
    ) -> tuple[Cotangents, jax.Array]:
        c_tm1, delta_t = recurrence.step_back(*constant, c_t, *given_t)
        return c_tm1, recurrence.rounded(delta_t)

    with jax.named_scope("rnn_backward"):
        before = states_entering(inputs, hs, 0, len(hs))
        constant = recurrence.rounded(params.w_hh.T), entry, dh_last
        c_T = Cotangents(dh_last, jax.tree.map(jnp.zeros_like, entry))
        given = dhs, links(marks), before, hs
        c_0, deltas = scan(step_back, True, constant, c_T, given)
    with jax.named_scope("rnn_weight_gradients"):
        deltas = lax.optimization_barrier(jnp.moveaxis(deltas, -1, 0))
        x, states = operands(residuals, 0, len(hs))
        sums = add_weight_gradients(recurrence, sums, deltas, x, states)
        dxs = None if are_ids(x) else input_gradients(recurrence, deltas, params.w_ih)
    return c_0, sums, dxs
