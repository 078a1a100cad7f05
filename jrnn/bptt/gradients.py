"""(11)-(13), what follows from the deltas of some steps or of all of them.

    dw_hh^T += [delta_t of the steps, as H x N] [m * e_{t-1} of the steps, as N x H]
    dw_ih^T += [delta_t of the steps, as H x N] [x_t of the steps, as N x I]
    dx_t     = delta_t w_ih^T

Transposed, and of deltas that stand as columns, because XLA:CPU has no good matmul for a left
operand that has to be transposed: a slower one in float32, none at all in bfloat16.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import are_ids, at_least_float32
from jrnn.bptt.inputs import Inputs, inside, masked, states_entering
from jrnn.bptt.loops import rows
from jrnn.bptt.step import Cotangents, Recurrence
from jrnn.types import RNNParams

Gradients = tuple[RNNParams, Inputs]  # None where there is none: of ids, of the marks


class Residuals(NamedTuple):
    """What the backward pass keeps of the forward pass."""

    params: RNNParams
    inputs: Inputs
    hs: jax.Array  # phi' is a function of h_t: the only array of size T*B*H


class Sums(NamedTuple):
    """(11) and (12) so far; in at least float32, and transposed as the matmuls leave them."""

    w_ih: jax.Array  # [H, I]; for ids [I, H]
    w_hh: jax.Array  # [H, H]
    b_h: jax.Array | None  # [H]


# Of some steps: what reaches the first of them, the sums with theirs, and their dx_t.
Backward = tuple[Cotangents, Sums, jax.Array | None]


def no_sums(params: RNNParams, xs: jax.Array) -> Sums:
    """Zeros."""
    like = RNNParams(params.w_ih if are_ids(xs) else params.w_ih.T, params.w_hh, params.b_h)
    return Sums(*jax.tree.map(lambda p: jnp.zeros_like(at_least_float32(p)), like))


def operands(residuals: Residuals, start: Any, K: int) -> tuple[jax.Array, jax.Array]:
    """x_t and m * e_{t-1} of K steps; what stands outside of a sequence need not be finite."""
    _, inputs, hs = residuals
    xs, marks = rows((inputs.xs, inputs.marks), start, K)
    states = masked(inputs.entry, states_entering(inputs, hs, start, K))
    return xs if are_ids(xs) else inside(marks, xs), states


def add_weight_gradients(
    recurrence: Recurrence, sums: Sums, deltas: jax.Array, xs: jax.Array, states: jax.Array
) -> Sums:
    """(11), (12) of K steps: deltas [H, K, ...], and by rows [K, ...] x_t or ids, m * e_{t-1}."""
    H, total = len(deltas), sums.w_hh.dtype
    matmul = partial(jnp.matmul, precision=recurrence.precision, preferred_element_type=total)
    deltas = deltas.reshape(H, -1)
    if are_ids(xs):
        of_tokens = sums.w_ih.at[xs.reshape(-1)]
        add = partial(of_tokens.add, mode="drop", wrap_negative_indices=False)
        w_ih = add(deltas.T.astype(total))
    else:
        w_ih = sums.w_ih + matmul(deltas, recurrence.rounded(xs).reshape(-1, xs.shape[-1]))
    w_hh = sums.w_hh + matmul(deltas, states.reshape(-1, H))
    return Sums(w_ih, w_hh, None if sums.b_h is None else sums.b_h + deltas.sum(1, dtype=total))


def input_gradients(recurrence: Recurrence, deltas: jax.Array, w_ih: jax.Array) -> jax.Array:
    """The dx_t of (13), [K, ..., I], of deltas [H, K, ...]."""
    total = None if recurrence.compute_dtype is None else w_ih.dtype
    return lax.dot_general(
        deltas,
        recurrence.rounded(w_ih),
        (((0,), (1,)), ((), ())),
        precision=recurrence.precision,
        preferred_element_type=total,
    )


def of_parameters(params: RNNParams, xs: jax.Array, sums: Sums) -> RNNParams:
    """The sums over all steps, as the parameters stand."""
    sums = lax.optimization_barrier(sums)  # or XLA transposes the factors instead of the sums
    dparams = RNNParams(sums.w_ih if are_ids(xs) else sums.w_ih.T, sums.w_hh.T, sums.b_h)
    return jax.tree.map(lambda d, p: d.astype(p.dtype), dparams, params)
