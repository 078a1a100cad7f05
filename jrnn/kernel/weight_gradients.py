"""The gradients of many steps at once, and those of a whole call in the form of its arguments.

    dw_hh   = sum_t (m * h_e)^T delta_t    dw_ih = sum_t x_t^T delta_t         (11) (12)
    db      = sum_t delta_t                dx_t = delta_t w_ih^T               (12) (13)

Each weight gets the blocks of delta_t that it feeds. Loops of XLA add to transposed sums: dw^T +=
delta^T x, over N = K*B rows. They write delta^T, [G*H, N], step by step, and x is [N, I], so no
large operand is transposed. XLA:CPU multiplies a transposed left operand at 160 to 180 instead of
250 GFLOP/s in float32, and widens it to float32 if it is bfloat16 (Intel, AVX-512, jaxlib 0.10.2).
No loop over steps carries a matrix [H, H]; a loop over chunks does.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import are_ids, at_least_float32, in_32_bits
from jrnn.cells import Named
from jrnn.kernel.step import number_of_blocks, rounded
from jrnn.kernel.types import Backward, Inputs, Spec, Steps, Weights


def no_sums(weights: Weights) -> Weights:
    """Zeros for the sums of a call, in at least float32."""
    return jax.tree.map(lambda p: jnp.zeros_like(at_least_float32(p)), weights)


def transposed(xs: jax.Array, sums: Weights) -> Weights:
    """The sums of a call as `add_weight_gradients` has them; dw_ih of ids is not transposed."""
    w_ih, w_hh, b = sums
    return Weights(w_ih if w_ih is None or are_ids(xs) else w_ih.T, w_hh.T, b)


def transposed_back(xs: jax.Array, sums: Weights) -> Weights:
    """The sums of `add_weight_gradients` in the layout of the parameters."""
    w_ih, w_hh, b = sums
    return Weights(w_ih if w_ih is None or are_ids(xs) else _apart(w_ih).T, _apart(w_hh).T, b)


def _apart(w: jax.Array) -> jax.Array:
    # Without the barrier XLA transposes the factors: 1.25 of the time at T = 1024, B = 1, H = 128
    # (AMD EPYC, jaxlib 0.10.2). Flat, w keeps its layout: in a map of few steps that version stores
    # the products transposed otherwise, and aborts.
    return lax.optimization_barrier(w.ravel()).reshape(w.shape)


def add_weight_gradients(
    spec: Spec, sums: Weights, deltas: jax.Array, xs: jax.Array, h: jax.Array
) -> Weights:
    """(11), (12) of K steps, to transposed sums.

    deltas [G*H, K*B], x_t or ids [K, B, ...], m * h_e [K, B, H].
    """
    H, total = h.shape[-1], sums.w_hh.dtype
    product = partial(jnp.matmul, precision=spec.precision, preferred_element_type=total)
    of_x, of_h = (_rows_of(deltas, of, H) for of in (spec.cell.x_blocks, spec.cell.h_blocks))
    w_ih = sums.w_ih
    if w_ih is not None and are_ids(xs):
        of_ids = w_ih.at[in_32_bits(xs).reshape(-1)]
        w_ih = of_ids.add(of_x.T.astype(total), mode="drop", wrap_negative_indices=False)
    elif w_ih is not None:
        w_ih = w_ih + product(of_x, rounded(spec, xs).reshape(-1, xs.shape[-1]))
    w_hh = sums.w_hh + product(of_h, rounded(spec, h).reshape(-1, H))
    b = None if sums.b is None else sums.b + deltas.sum(1, dtype=total)
    return Weights(w_ih, w_hh, b)


def input_gradients(spec: Spec, w_ih: jax.Array | None, deltas: jax.Array) -> jax.Array:
    """The dx_t of (13), [K*B, I], from deltas [G*H, K*B]; without w_ih the deltas themselves."""
    H = len(deltas) // number_of_blocks(spec.cell)
    of_x = _rows_of(deltas, spec.cell.x_blocks, H)
    if w_ih is None:
        return of_x.T
    return lax.dot_general(
        of_x,
        rounded(spec, w_ih),
        (((0,), (1,)), ((), ())),
        precision=spec.precision,
        preferred_element_type=None if spec.compute_dtype is None else w_ih.dtype,
    )


def _rows_of(deltas: jax.Array, blocks: tuple[int, ...], H: int) -> jax.Array:
    """The rows of some blocks of [G*H, K*B]."""
    if blocks == tuple(range(len(deltas) // H)):
        return deltas
    return jnp.concatenate([lax.slice_in_dim(deltas, g * H, (g + 1) * H) for g in blocks])


def gradients(weights: Weights, inputs: Inputs, found: Backward) -> tuple[Weights, Inputs]:
    """The gradients of a whole call, in the dtypes of its arguments."""
    d_steps = Steps(found.dxs, data=_for_each(inputs.steps.data, found.ddata))
    constants = found.carry.constants
    constants = constants._replace(data=_for_each(inputs.constants.data, constants.data))
    d_inputs = Inputs(d_steps, found.carry.states, constants)
    d_inputs = jax.tree.map(
        lambda d, x: None if d is None else d.astype(x.dtype),
        d_inputs,
        inputs._replace(steps=inputs.steps._replace(valid=None, reset=None)),
        is_leaf=lambda d: d is None,
    )
    return jax.tree.map(lambda d, p: d.astype(p.dtype), found.sums, weights), d_inputs


def _for_each(data: Named, found: Named) -> Any:
    """A gradient for each array; None for those that are not floating."""
    return {name: found.get(name) for name in data}
