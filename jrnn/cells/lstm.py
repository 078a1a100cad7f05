"""The long short-term memory (Hochreiter and Schmidhuber, 1997; Gers et al., 2000: forget gate).

The blocks of a_t are i f g o, and x_t and h_{t-1} feed all four. There are two states, h and c:

    i, f, o = sigmoid of their blocks        g = tanh of its block
    c_t = f * c_{t-1} + i * g                h_t = o * tanh(c_t)                   (24)

    q       = dc_t + dh_t * o * (1 - tanh(c_t)^2)
    delta_i = q * g * i * (1 - i)            delta_f = q * c_{t-1} * f * (1 - f)
    delta_g = q * i * (1 - g^2)              delta_o = dh_t * tanh(c_t) * o * (1 - o)
    dh_{t-1}: delta_t w_hh^T, which the kernel adds          dc_{t-1} = q * f      (25)

No peepholes and no projection of h, as in cuDNN.
"""

import jax
import jax.numpy as jnp

from jrnn.cells import Arrays, Named, StepCotangents, UncheckedCell
from jrnn.types import LSTMParams, LSTMState


def _gates(blocks: Arrays) -> Arrays:
    i, f, g, o = blocks
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _step(gates: Arrays, before: Arrays, unit: Named, data: Named) -> Arrays:
    """(24)."""
    i, f, g, o = gates
    c = f * before[1] + i * g
    return o * jnp.tanh(c), c


def _adjoint(
    d_after: Arrays, gates: Arrays, before: Arrays, unit: Named, data: Named, after: Arrays
) -> StepCotangents:
    """(25)."""
    (dh, dc), (i, f, g, o), tanh_c = d_after, gates, jnp.tanh(after[1])
    q = dc + dh * o * (1 - tanh_c * tanh_c)
    return StepCotangents(
        blocks=(
            q * g * i * (1 - i),
            q * before[1] * f * (1 - f),
            q * i * (1 - g * g),
            dh * tanh_c * o * (1 - o),
        ),
        before=(None, q * f),
    )


LSTM = UncheckedCell(
    name="lstm",
    gates=_gates,
    step=_step,
    adjoint=_adjoint,
    x_blocks=(0, 1, 2, 3),
    h_blocks=(0, 1, 2, 3),
    states=2,
    reads_first_state=False,
    params=LSTMParams,
    state=LSTMState,
)
