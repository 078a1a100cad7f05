"""The cells that the kernel is tested with: those of the package, and three of a user's own.

leaky     (28): fixed or learned leaks, equal time steps or others
rate      (29), the same: the output is not the state
mgu       three blocks, of which x feeds two and h two, in another order; no adjoint of its own
coupled   gates, two states and three blocks
zoneout   data, for each step or each sequence, bool or with a gradient
"""

from dataclasses import fields
from functools import cache, partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrnn.cells import StepCotangents, UncheckedCell
from jrnn.cells.elman import elman
from jrnn.cells.gru import GRU
from jrnn.cells.leaky import leaky
from jrnn.cells.lstm import LSTM


class Params(NamedTuple):
    w_ih: Any
    w_hh: Any
    b_h: Any
    alpha: Any = None


def _mgu(blocks, before, unit, data):
    """The minimal gated unit (Zhou et al., 2016), which forgets after the matmul."""
    f = jax.nn.sigmoid(blocks[0])
    return ((1 - f) * before[0] + f * jnp.tanh(blocks[1] + f * blocks[2]),)


def _coupled_gates(blocks):
    f, g, o = blocks
    return jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _coupled(gates, before, unit, data):
    """An LSTM whose input gate is 1 - f (Greff et al., 2017)."""
    f, g, o = gates
    c = g + f * (before[1] - g)
    return o * jnp.tanh(c), c


def _coupled_adjoint(d_after, gates, before, unit, data, after):
    (dh, dc), (f, g, o), tanh_c = d_after, gates, jnp.tanh(after[1])
    q = dc + dh * o * (1 - tanh_c * tanh_c)
    deltas = q * (before[1] - g) * f * (1 - f), q * (1 - f) * (1 - g * g), dh * tanh_c * o * (1 - o)
    return StepCotangents(deltas, (None, q * f))


def _zoneout(blocks, before, unit, data):
    """Krueger et al., 2017: z of the state stays, 1 - z of it is new."""
    z = data["z"].astype(before[0].dtype)
    return (z * before[0] + (1 - z) * jnp.tanh(blocks[0]),)


def _zoneout_adjoint(d_after, blocks, before, unit, data, after):
    (d,), phi = d_after, jnp.tanh(blocks[0])
    z = data["z"].astype(d.dtype)
    d_data = {"z": (before[0] - phi) * d} if data["z"].dtype == d.dtype else None
    return StepCotangents(((1 - z) * (1 - phi * phi) * d,), (z * d,), None, d_data)


# A test checks them: here each would be checked, by what compiles, wherever this is imported.
Cell = partial(UncheckedCell, params=Params)
CELLS = {
    "lstm": LSTM,
    "gru": GRU,
    "mgu": Cell("mgu", _mgu, x_blocks=(1, 0), h_blocks=(0, 2)),
    "coupled": Cell(
        "coupled", _coupled, _coupled_adjoint, (0, 1, 2), (0, 1, 2), 2, gates=_coupled_gates
    ),
    "zoneout": Cell("zoneout", _zoneout, _zoneout_adjoint, data=("z",)),
}
LEAKS = {
    "leaky": ("tanh", "state"),
    "leaky sigmoid": ("sigmoid", "state"),
    "rate": ("tanh", "input"),
    "rate sigmoid": ("sigmoid", "input"),
}
NAMES = ["tanh", "lstm", "gru", "leaky", "rate", "mgu", "coupled", "zoneout"]
OF_THE_PACKAGE = {"lstm": LSTM, "gru": GRU} | {
    " ".join((name, "learned" * learned, "unequal" * unequal)): leaky(
        *LEAKS[name], learned, unequal
    )
    for name, learned, unequal in product(LEAKS, (False, True), (False, True))
}


def cell_of(name, learned=False, dt=None, by_hand=True, **_):
    """A cell; of other options of a case it depends on none.

    Args:
        name: in `CELLS`, in `LEAKS`, or an activation, which is that of an Elman cell.
        learned: whether the leak is.
        dt: None: equal time steps.
        by_hand: False: its adjoint is that of `jax.vjp`.

    Returns:
        The cell.
    """
    if name in LEAKS:
        cell = leaky(*LEAKS[name], learned, dt is not None)
    else:
        cell = CELLS[name] if name in CELLS else elman(name)
    return cell if by_hand else without_adjoint(cell)


@cache  # jit compiles once for each cell
def without_adjoint(cell):
    return UncheckedCell(**parts_of(cell) | {"adjoint": None, "adjoint_reads_blocks": True})


def parts_of(cell):
    return {field.name: getattr(cell, field.name) for field in fields(cell)}
