"""The gated recurrent unit (Cho et al., 2014), which resets after the matmul, as in cuDNN.

The blocks of a_t are r z n u. x_t feeds r z n, and h_{t-1} feeds r z u: the reset gate multiplies
h_{t-1} w_hn + b_hn, the block u, and not x_t w_in.

    r, z = sigmoid of their blocks           n = tanh(a_n + r * a_u)
    h_t  = n + z * (h_{t-1} - n)                                                   (26)

    delta_n = dh_t * (1 - z) * (1 - n^2)     delta_r = delta_n * a_u * r * (1 - r)
    delta_z = dh_t * (h_{t-1} - n) * z * (1 - z)             delta_u = delta_n * r
    dh_{t-1}: dh_t * z, and delta_t w_hh^T, which the kernel adds                  (27)

Cho et al. reset before the matmul, (r * h_{t-1}) w_hn. That takes a second matmul at every step,
after the first, in both passes. torch, flax, equinox and keras (by default) do as here.
"""

import jax
import jax.numpy as jnp

from jrnn.cells import Arrays, Named, StepCotangents, UncheckedCell
from jrnn.types import GRUParams


def _gates(blocks: Arrays) -> Arrays:
    """r, z, n, and the block u, which the adjoint reads."""
    r, z, n, u = blocks
    r = jax.nn.sigmoid(r)
    return r, jax.nn.sigmoid(z), jnp.tanh(n + r * u), u


def _step(gates: Arrays, before: Arrays, unit: Named, data: Named) -> Arrays:
    """(26)."""
    _, z, n, _ = gates
    return (n + z * (before[0] - n),)


def _adjoint(
    d_after: Arrays, gates: Arrays, before: Arrays, unit: Named, data: Named, after: Arrays
) -> StepCotangents:
    """(27)."""
    (dh,), (r, z, n, u) = d_after, gates
    delta_n = dh * (1 - z) * (1 - n * n)
    delta_z = dh * (before[0] - n) * z * (1 - z)
    return StepCotangents(
        blocks=(delta_n * u * r * (1 - r), delta_z, delta_n, delta_n * r), before=(dh * z,)
    )


GRU = UncheckedCell(
    name="gru",
    gates=_gates,
    step=_step,
    adjoint=_adjoint,
    x_blocks=(0, 1, 2),
    h_blocks=(0, 1, 3),
    params=GRUParams,
    biases=(("b_h", 3), ("b_hn", 1)),
)
