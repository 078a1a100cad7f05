"""One sequence: the custom rule stops at (9), and (11)-(13) are the transpose of a linear line.

The rule that is written by hand, `_states_from_preactivations`, turns the cotangents of the states
into the deltas and stops there. (11)-(13) say that a_t is linear in each of x_t, w_ih, w_hh and
b_h: they are the transpose of `_preactivations`, outside the loop and outside the custom rule,
which leaves each of them to JAX. `vmap` over sequences then contracts time and batch in one matmul.

The line needs the states before it can be written down, and its value is a second copy of what the
loop computed. So the states enter as values only (`_value`: no derivative), and the value of the
line is used by nobody and compiled away. Differentiating twice is exact: `_value` hides the states
from one differentiation, not from the next.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jrnn.arrays import add_bias, are_ids
from jrnn.bptt.inputs import (
    Entry,
    Inputs,
    Marks,
    inside,
    links,
    masked,
    reaching_h0,
    states_entering,
)
from jrnn.bptt.loops import scan
from jrnn.bptt.states import alone_or_mapped
from jrnn.bptt.step import Cotangents, Recurrence, project_inputs
from jrnn.types import RNNParams

Starts = tuple[jax.Array, Entry]  # h_0, and what a state meets on its way into a step
States = Callable[..., tuple[jax.Array, jax.Array]]  # one of `states.py`


def run(
    recurrence: Recurrence, params: RNNParams, inputs: Inputs, states: States = alone_or_mapped
) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs); by `scanned` of a batch, too, where it costs more memory than `batch.run`."""
    values = jax.tree.map(_value, inputs._replace(marks=Marks()))._replace(marks=inputs.marks)
    with jax.named_scope("rnn_forward"):
        h_last, hs = states(recurrence, jax.tree.map(_value, params), values)
    with jax.named_scope("rnn_weight_gradients"):  # all that is left of this line in a program
        a = _preactivations(recurrence, params, values._replace(xs=inputs.xs), hs)
    starts = inputs.h0, inputs.entry
    return _states_from_preactivations(recurrence, a, starts, h_last, hs, inputs.marks, params.w_hh)


# `checkpoint`: keep hs itself for (11), not the copy of it that is shifted by a step.
@partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def _preactivations(
    recurrence: Recurrence, params: RNNParams, inputs: Inputs, hs: jax.Array
) -> jax.Array:
    """(1) for all t at once; its transpose is (11), (12) and the dx_t of (13)."""
    xs, _, marks, entry = inputs
    xs = xs if are_ids(xs) else inside(marks, xs)  # what stands outside need not be finite
    states = masked(entry, states_entering(inputs, hs, 0, len(hs)))

    def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
        x, w = (_rounded(recurrence, y.astype(params.w_hh.dtype)) for y in (x, w))
        return jnp.matmul(x, w, precision=recurrence.precision)

    projected = project_inputs(params.w_ih, xs, matmul)
    return add_bias(projected, params.b_h) + matmul(states, params.w_hh)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rounded(recurrence: Recurrence, x: jax.Array) -> jax.Array:
    """x with the value of a rounded operand; its derivative is that of x, which is not rounded."""
    return recurrence.rounded(x).astype(x.dtype)


@_rounded.defjvp
def _rounded_jvp(recurrence: Recurrence, primals: Any, tangents: Any) -> Any:
    return _rounded(recurrence, *primals), tangents[0]


@jax.custom_jvp
def _value(x: jax.Array) -> jax.Array:
    """x without its derivative; unlike `lax.stop_gradient`, without its first derivative only."""
    return x


@partial(_value.defjvp, symbolic_zeros=True)
def _value_jvp(primals: Any, tangents: Any) -> Any:
    (x,) = primals
    return x, SymbolicZero.from_primal_value(x)


class Residuals(NamedTuple):
    """What the backward pass (9) keeps of the forward pass."""

    starts: Starts  # for a cell whose adjoint reads h_{t-1}, and for dm
    hs: jax.Array  # phi' is a function of h_t: the only array of size T*B*H
    marks: Marks
    w_hh: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states_from_preactivations(
    recurrence: Recurrence,
    a: jax.Array,
    starts: Starts,
    h_last: jax.Array,
    hs: jax.Array,
    marks: Marks,
    w_hh: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs), known already, as functions of the pre-activations `a` and of `starts`."""
    return h_last, hs


def _states_from_preactivations_fwd(
    recurrence: Recurrence,
    a: jax.Array,
    starts: Starts,
    h_last: jax.Array,
    hs: jax.Array,
    marks: Marks,
    w_hh: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    return (h_last, hs), Residuals(starts, hs, marks, w_hh)


def _states_from_preactivations_bwd(
    recurrence: Recurrence, residuals: Residuals, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, Starts, None, None, None, None]:
    (h0, entry), hs, marks, w_hh = residuals
    dh_last, dhs = cotangents

    def step_back(
        constant: tuple[jax.Array, Entry, jax.Array], c_t: Cotangents, given_t: Any
    ) -> tuple[Cotangents, jax.Array]:
        c_tm1, delta_t = recurrence.step_back(*constant, c_t, *given_t)
        return c_tm1, recurrence.rounded(delta_t)

    with jax.named_scope("rnn_backward"):
        before = states_entering(Inputs(hs, h0, marks, entry), hs, 0, len(hs))
        constant = recurrence.rounded(w_hh.T), entry, dh_last  # transposed once, not at every step
        c_T = Cotangents(dh_last, jax.tree.map(jnp.zeros_like, entry))
        given = (dhs, links(marks), before, hs)
        (c_0, dentry), deltas = scan(step_back, True, constant, c_T, given)  # (9), (16)
    starts = reaching_h0(marks, c_0, dh_last), dentry
    return deltas.astype(w_hh.dtype), starts, None, None, None, None  # the rest are values


_states_from_preactivations.defvjp(_states_from_preactivations_fwd, _states_from_preactivations_bwd)
