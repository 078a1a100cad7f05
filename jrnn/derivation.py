"""The forward pass as a plain scan, without a gradient of its own.

It is the baseline that the hand-derived gradient is compared with, and the way to everything that
a `custom_vjp` has not: `jax.jvp`, `jax.jacfwd`, `jax.linearize`, `jax.hessian`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jrnn import checks
from jrnn.bptt import project_inputs
from jrnn.cell import Activation, ActivationName, elman
from jrnn.types import RNNParams


def rnn_scan(
    params: RNNParams,
    xs: jax.Array,
    h0: jax.Array | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
) -> tuple[jax.Array, jax.Array]:
    """`jrnn.rnn` as (1) and (2) stand, one step after the other; differentiated by JAX.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        h0: None (zeros), `[H]` (shared by the batch) or `[B, H]`.
        activation: as in `jrnn.rnn`.

    Returns:
        `(h_last, hs)`: `[H]` or `[B, H]`, and `[T, H]` or `[T, B, H]`.

    Raises:
        ValueError: as `jrnn.rnn`.
    """
    checks.rnn_arguments(params, xs, h0)
    cell = elman(activation)

    def step(h_tm1: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        h_t = cell.step(project_inputs(params, x_t) + h_tm1 @ params.w_hh, h_tm1)  # (1), (2)
        return h_t, h_t

    xs = jnp.asarray(xs)
    zeros = jnp.zeros_like(project_inputs(params, xs[0]))
    first = zeros if h0 is None else jnp.broadcast_to(h0, zeros.shape) + zeros
    return lax.scan(step, first, xs)
