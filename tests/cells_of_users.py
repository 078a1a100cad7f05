"""A cell of a user's own: two blocks, a parameter for each unit, no adjoint by hand."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jrnn


class GatedParams(NamedTuple):
    w_ih: Any
    w_hh: Any
    b_h: Any
    tau: Any


def _gates(blocks):
    return jax.nn.sigmoid(blocks[0]), jnp.tanh(blocks[1])


def _step(gates, before, unit, data):
    z, n = gates
    return (n + z * unit["tau"] * (before[0] - n),)


GATED = jrnn.Cell(
    "gated",
    _step,
    gates=_gates,
    x_blocks=(0, 1),
    h_blocks=(1, 0),
    unit=("tau",),
    params=GatedParams,
)
