"""The cells that the kernel is tested with; most do something that the Elman cell does not do.

leaky     a learned parameter for each unit; an adjoint that reads the recomputed blocks
rate      an output that is not the state
gated     three blocks, of which x feeds two and h two, in another order; no adjoint of its own
zoneout   data, for each step or each sequence, bool or with a gradient
lstm      two states, four blocks
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrnn.cells import Cell, StepCotangents


class Params(NamedTuple):
    w_ih: Any
    w_hh: Any
    b_h: Any
    alpha: Any = None


def _leaky(blocks, before, unit, data):
    """(28)."""
    alpha = unit["alpha"]
    return ((1 - alpha) * before[0] + alpha * jnp.tanh(blocks[0]),)


def _leaky_adjoint(d_after, blocks, before, unit, data, after):
    (d,), alpha, phi = d_after, unit["alpha"], jnp.tanh(blocks[0])
    d_alpha = {"alpha": (phi - before[0]) * d}
    return StepCotangents((alpha * (1 - phi * phi) * d,), ((1 - alpha) * d,), d_alpha)


def _rate(blocks, before, unit, data):
    """(29), of v."""
    alpha = unit["alpha"]
    return ((1 - alpha) * before[0] + alpha * blocks[0],)


def _rate_adjoint(d_after, blocks, before, unit, data, after):
    (d,), alpha = d_after, unit["alpha"]
    return StepCotangents((alpha * d,), ((1 - alpha) * d,), {"alpha": (blocks[0] - before[0]) * d})


def _rate_output(states):
    return jnp.tanh(states[0])


def _gated(blocks, before, unit, data):
    """The minimal gated unit (Zhou et al., 2016), which forgets after the matmul."""
    f = jax.nn.sigmoid(blocks[0])
    return ((1 - f) * before[0] + f * jnp.tanh(blocks[1] + f * blocks[2]),)


def _zoneout(blocks, before, unit, data):
    """Krueger et al., 2017: z of the state stays, 1 - z of it is new."""
    z = data["z"].astype(before[0].dtype)
    return (z * before[0] + (1 - z) * jnp.tanh(blocks[0]),)


def _zoneout_adjoint(d_after, blocks, before, unit, data, after):
    (d,), phi = d_after, jnp.tanh(blocks[0])
    z = data["z"].astype(d.dtype)
    d_data = {"z": (before[0] - phi) * d} if data["z"].dtype == d.dtype else None
    return StepCotangents(((1 - z) * (1 - phi * phi) * d,), (z * d,), None, d_data)


def _lstm(blocks, before, unit, data):
    """(24), of h and c."""
    i, f, o = (jax.nn.sigmoid(blocks[n]) for n in (0, 1, 3))
    c = f * before[1] + i * jnp.tanh(blocks[2])
    return o * jnp.tanh(c), c


def _lstm_adjoint(d_after, blocks, before, unit, data, after):
    """(25)."""
    (dh, dc), e, g, tanh_c = d_after, before[1], jnp.tanh(blocks[2]), jnp.tanh(after[1])
    i, f, o = (jax.nn.sigmoid(blocks[n]) for n in (0, 1, 3))
    q = dc + dh * o * (1 - tanh_c**2)
    deltas = q * g * i * (1 - i), q * e * f * (1 - f), q * i * (1 - g**2), dh * tanh_c * o * (1 - o)
    return StepCotangents(deltas, (None, q * f))


Cell = partial(Cell, params=Params)
CELLS = {
    "leaky": Cell("leaky", _leaky, _leaky_adjoint, unit=("alpha",)),
    "rate": Cell("rate", _rate, _rate_adjoint, unit=("alpha",), output=_rate_output),
    "gated": Cell("gated", _gated, x_blocks=(1, 0), h_blocks=(0, 2)),
    "zoneout": Cell("zoneout", _zoneout, _zoneout_adjoint, data=("z",)),
    "lstm": Cell("lstm", _lstm, _lstm_adjoint, (0, 1, 2, 3), (0, 1, 2, 3), states=2),
}
