"""The states of an Elman network with `one_block`, with a gradient, as a user would call it.

Projection and weight gradients are XLA matmuls over all steps, with bfloat16 operands as in
`jrnn.rnn(..., compute_dtype=jnp.bfloat16)`. They need whole arrays of T*B*H elements, where jrnn
keeps only chunks of time.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import jrnn
from benchmarks.h100 import one_block


def _einsum(pattern: str, *arrays: Any) -> Any:
    arrays = tuple(a.astype(jnp.bfloat16) for a in arrays)
    return jnp.einsum(pattern, *arrays, preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def states(params: jrnn.RNNParams, xs: jax.Array, interpret: Any = None) -> jax.Array:
    """Compute hs `[T, B, H]` in bfloat16, from an initial state of zeros.

    Args:
        params: float32; H is a multiple of 64 and at most 256.
        xs: `[T, B, I]` float32; B is a multiple of 16.
        interpret: as in `blocks.call`.
    """
    return _states_fwd(params, xs, interpret)[0]


def _states_fwd(params: jrnn.RNNParams, xs: jax.Array, interpret: Any) -> Any:
    if params.b_h is None:
        raise ValueError("b_h: expected [H]; got None. This kernel adds a bias.")
    xw = (_einsum("tbi,ih->tbh", xs, params.w_ih) + params.b_h).swapaxes(1, 2)  # (1)
    hs, _ = one_block.forward(xw, params.w_hh, jnp.zeros_like(xw[0]), interpret=interpret)
    return hs.swapaxes(1, 2), (params, xs, hs)


def _states_bwd(interpret: Any, residuals: Any, dhs: jax.Array) -> Any:
    params, xs, hs = residuals
    nothing = jnp.zeros(hs.shape[1:], jnp.float32)
    deltas, _ = one_block.backward(
        dhs.swapaxes(1, 2), hs, params.w_hh, nothing, interpret=interpret
    )
    before = jnp.concatenate([jnp.zeros_like(hs[:1]), hs[:-1]])
    dparams = jrnn.RNNParams(
        w_ih=_einsum("tbi,thb->ih", xs, deltas),  # (12)
        w_hh=_einsum("tkb,thb->kh", before, deltas),  # (11)
        b_h=deltas.sum((0, 2), dtype=jnp.float32),
    )
    return dparams, _einsum("thb,ih->tbi", deltas, params.w_ih)  # (13)


states.defvjp(_states_fwd, _states_bwd)
