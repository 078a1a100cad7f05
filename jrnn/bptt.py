"""The kernel: a recurrence unrolled in time by `lax.scan`, its gradient by a hand-derived BPTT.

Forward, for t = 1 ... T, with phi and every product that has no state in it taken out of the loop:

    a_t = x_t w_ih + h_{t-1} w_hh + b_h                                             (1)
    h_t = phi(a_t)                                                                  (2)

Backward, for t = T ... 1. dhs_t is the cotangent of h_t as an output; c_t is what reaches h_t from
the steps after t, c_T the cotangent of h_last; delta_t is the cotangent of a_t:

    delta_t = phi'(h_t) * (dhs_t + c_t)         c_{t-1} = delta_t w_hh^T            (9)
    dw_hh   = sum_t h_{t-1}^T delta_t                                              (11)
    dw_ih   = sum_t x_t^T delta_t               db_h = sum_t delta_t               (12)
    dx_t    = delta_t w_ih^T                    dh_0 = c_0                         (13)

Only (9) is sequential, and it needs nothing of the forward pass but the states. So the rule that
is written by hand, `_states_from_preactivations`, turns the cotangents of the states into the
deltas and stops there. (11)-(13) say that a_t is linear in each of x_t, w_ih, w_hh and b_h: they
are the transpose of one line, `_preactivations`, outside the loop and outside the custom rule,
which leaves each of them to JAX. Three things follow that a rule returning dw_hh would lose:

- a gradient that nobody asks for (dx, or that of a frozen parameter) is never computed;
- `vmap` over sequences contracts time and batch in one matmul. JAX maps a custom rule first and
  sums afterwards, which forms the B weight gradients [B, H, H] one by one;
- under `shard_map` the gradient of a replicated weight is summed over the mesh by JAX itself.

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
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jrnn.arrays import add_bias, are_ids, at_least_float32
from jrnn.cell import Cell
from jrnn.types import RNNParams

Precision = str | None  # as `jax.default_matmul_precision` takes it
Step = Callable[[Any, jax.Array, Any], tuple[jax.Array, jax.Array]]  # weights, carry, x -> carry, y


def project_inputs(params: RNNParams, xs: jax.Array, precision: Precision = None) -> jax.Array:
    """x_t w_ih + b_h, the part of (1) that waits for no state: [..., I] or ids [...] to [..., H].

    A token id k stands for the one-hot vector e_k, and e_k w_ih is row k of w_ih. An id outside
    [0, I) stands for nothing: NaN.
    """
    if are_ids(xs):
        rows = at_least_float32(params.w_ih).at[xs]  # many steps may add to one row: in float32
        projected = rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        projected = projected.astype(params.w_ih.dtype)
    else:
        projected = jnp.matmul(xs, params.w_ih, precision=precision)
    return add_bias(projected, params.b_h)


def run(
    cell: Cell, precision: Precision, params: RNNParams, xs: jax.Array, h0: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs) of `rnn`, whose docstring describes them; `h0` is None, [H] or [B, H]."""
    with jax.named_scope("rnn_forward"):
        params_, xs_, h0_ = jax.tree.map(_value, (params, xs, h0))
        projected = project_inputs(params_, xs_, precision)
        hs = _scan_states(cell, precision, params_.w_hh, projected, _first_state(h0_, projected))
    h0 = _first_state(h0, projected)
    with jax.named_scope("rnn_weight_gradients"):  # all that is left of this line in a program
        a = _preactivations(precision, params, xs, hs, _value(h0))
    return _states_from_preactivations(cell, precision, a, h0, hs, params.w_hh)


def _first_state(h0: jax.Array | None, projected: jax.Array) -> jax.Array:
    """h_0 in the shape of one step of `projected`, and varying over the same mesh axes."""
    zeros = jnp.zeros_like(projected[0])
    return zeros if h0 is None else jnp.broadcast_to(h0, zeros.shape) + zeros


def _scan_states(
    cell: Cell, precision: Precision, w_hh: jax.Array, projected: jax.Array, h0: jax.Array
) -> jax.Array:
    def step(
        w_hh: jax.Array, h_tm1: jax.Array, projected_t: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        a_t = projected_t + jnp.matmul(h_tm1, w_hh, precision=precision)  # (1)
        h_t = cell.step(a_t, h_tm1)  # (2)
        return h_t, h_t

    return _scan(step, False, w_hh, h0, projected)[1]


# `checkpoint`: keep hs itself for (11), not the copy of it that is shifted by a step.
@partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def _preactivations(
    precision: Precision, params: RNNParams, xs: jax.Array, hs: jax.Array, h0: jax.Array
) -> jax.Array:
    """(1) for all t at once; its transpose is (11), (12) and the dx_t of (13)."""
    recurrent = jnp.matmul(_previous(hs, h0), params.w_hh, precision=precision)
    return project_inputs(params, xs, precision) + recurrent


def _previous(hs: jax.Array, h0: jax.Array) -> jax.Array:
    """h_{t-1} for every t: [h_0, ..., h_{T-1}]."""
    return jnp.concatenate([h0[None], hs[:-1]])


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _scan(step: Step, reverse: bool, weights: Any, init: jax.Array, xs: Any) -> Any:
    """`lax.scan` of `step(weights, carry, x) -> (carry, y)`, in time linear in T also in bfloat16.

    XLA:CPU as of jaxlib 0.10.2 has no bfloat16 arithmetic and converts the *whole* stack of outputs
    to float32 and back at every step. Bits that are not called bfloat16 are left alone.
    """
    if init.dtype != jnp.bfloat16:
        return _plain_scan(step, reverse, weights, init, xs)

    def step_in_bits(carry: jax.Array, x: Any) -> tuple[jax.Array, jax.Array]:
        carry, y = step(weights, carry, x)
        return carry, lax.bitcast_convert_type(y, jnp.uint16)

    carry, ys = lax.scan(step_in_bits, init, xs, reverse=reverse)
    return carry, lax.bitcast_convert_type(ys, jnp.bfloat16)


@_scan.defjvp  # bits have no derivative; only differentiating twice comes here
def _scan_jvp(step: Step, reverse: bool, primals: Any, tangents: Any) -> Any:
    return jax.jvp(partial(_plain_scan, step, reverse), primals, tangents)


def _plain_scan(step: Step, reverse: bool, weights: Any, init: jax.Array, xs: Any) -> Any:
    return lax.scan(partial(step, weights), init, xs, reverse=reverse)


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

    h0: jax.Array  # h_{t-1} at t = 1, for a cell whose adjoint reads it
    hs: jax.Array  # phi' is a function of h_t: the only array of size T*B*H
    w_hh: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _states_from_preactivations(
    cell: Cell,
    precision: Precision,
    a: jax.Array,
    h0: jax.Array,
    hs: jax.Array,
    w_hh: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs), known already, as functions of the pre-activations `a` and of `h0`."""
    return hs[-1], hs


def _states_from_preactivations_fwd(
    cell: Cell,
    precision: Precision,
    a: jax.Array,
    h0: jax.Array,
    hs: jax.Array,
    w_hh: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    return (hs[-1], hs), Residuals(h0, hs, w_hh)


def _states_from_preactivations_bwd(
    cell: Cell, precision: Precision, residuals: Residuals, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None, None]:
    h0, hs, w_hh = residuals
    dh_last, dhs = cotangents

    def step_back(
        w_hh_transposed: jax.Array,
        c_t: jax.Array,
        outputs_t: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array]:
        dhs_t, h_tm1, h_t = outputs_t
        delta_t, beside = cell.adjoint(dhs_t + c_t, h_tm1, h_t)  # (9)
        c_tm1 = jnp.matmul(delta_t, w_hh_transposed, precision=precision)
        return c_tm1 if beside is None else c_tm1 + beside, delta_t

    with jax.named_scope("rnn_backward"):
        outputs = (dhs, _previous(hs, h0), hs)
        w_hh_transposed = w_hh.T  # once, not at every step
        dh0, deltas = _scan(step_back, True, w_hh_transposed, dh_last, outputs)  # (9), (13)
    return deltas, dh0, None, None  # hs and w_hh enter as values


_states_from_preactivations.defvjp(_states_from_preactivations_fwd, _states_from_preactivations_bwd)
