"""The formulas of every cell of the package, in NumPy and without the package.

Derivatives are functions of a_t here, in the package of the states where those determine them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Unit = dict[str, Array]


class Cell(NamedTuple):
    """The formulas of a cell, over blocks a [G, B, H] and states [S, B, H].

    a_t = [x_t w_ih] + [(m * h) w_hh] + bias, each added to the blocks that are named. h is the
    first of the states e before the step, or a function of it.
    """

    step: Callable[[Array, Array, Unit], Array]  # (a, e, unit) -> states after the step
    # (cotangents of these, a, e, unit) -> cotangents of a, of e except through a, and of unit
    adjoint: Callable[[Array, Array, Array, Unit], tuple[Array, Array, Unit]]
    x: tuple[int, ...] = (0,)
    h: tuple[int, ...] = (0,)
    biases: tuple[tuple[str, tuple[int, ...]], ...] = (("b_h", (0,)),)
    states: tuple[str, ...] = ("h",)
    unit: tuple[str, ...] = ()  # parameters [H]
    output: tuple[Callable[[Array], Array], Callable[[Array], Array]] = (  # h, and dh/d(state)
        lambda s: s,
        np.ones_like,
    )

    def named(self, form: str) -> list[str]:
        """The names of the states in a form such as "{}0" or "{}_last"."""
        return [form.format(name) for name in self.states]


def elman(phi: Callable[[Array], Array], dphi: Callable[[Array], Array]) -> Cell:
    """s = phi(a); here phi' is a function of a, in the package of the state."""
    return Cell(lambda a, e, unit: phi(a), lambda d, a, e, unit: (dphi(a) * d, 0 * e, {}))


def leaky(of_input: bool = False, learned: bool = False) -> Cell:
    """s = (1 - alpha) e + alpha phi(a), or of the input: s = (1 - alpha) e + alpha a, h = phi(s).

    A fixed alpha has no gradient; a learned one is 1 - exp(-1 / tau).
    """
    phi, dphi = (lambda a: a, np.ones_like) if of_input else (np.tanh, dtanh)

    def alpha(unit: Unit) -> Array:
        return -np.expm1(-np.exp(-unit["log_tau"])) if learned else unit["alpha"]

    def step(a: Array, e: Array, unit: Unit) -> Array:
        return (1 - alpha(unit)) * e + alpha(unit) * phi(a)

    def adjoint(d: Array, a: Array, e: Array, unit: Unit) -> tuple[Array, Array, Unit]:
        share = alpha(unit)
        d_share = ((phi(a) - e) * d)[0]
        if learned:  # dalpha / dlog_tau = -exp(-1 / tau) / tau
            rate = np.exp(-unit["log_tau"])
            d_unit = {"log_tau": -np.exp(-rate) * rate * d_share}
        else:
            d_unit = {"alpha": 0 * d_share}
        return share * dphi(a) * d, (1 - share) * d, d_unit

    found = Cell(step, adjoint, unit=("log_tau" if learned else "alpha",))
    return found._replace(states=("v",), output=(np.tanh, dtanh)) if of_input else found


def logistic(a: Array) -> Array:
    """1 / (1 + exp(-a))."""
    return 1 / (1 + np.exp(-a))


def dlogistic(a: Array) -> Array:
    """Its derivative."""
    return logistic(a) * logistic(-a)


def dtanh(a: Array) -> Array:
    """The derivative of tanh."""
    return 1 / np.cosh(a) ** 2


def _lstm(a: Array, e: Array, unit: Unit) -> Array:
    """c = f c' + i g, h = o tanh(c), in the order i f g o."""
    c = logistic(a[1]) * e[1] + logistic(a[0]) * np.tanh(a[2])
    return np.stack([logistic(a[3]) * np.tanh(c), c])


def _lstm_adjoint(d: Array, a: Array, e: Array, unit: Unit) -> tuple[Array, Array, Unit]:
    c = _lstm(a, e, unit)[1]
    dc = d[1] + d[0] * logistic(a[3]) * dtanh(c)
    blocks = [
        dc * np.tanh(a[2]) * dlogistic(a[0]),
        dc * e[1] * dlogistic(a[1]),
        dc * logistic(a[0]) * dtanh(a[2]),
        d[0] * np.tanh(c) * dlogistic(a[3]),
    ]
    return np.stack(blocks), np.stack([0 * dc, dc * logistic(a[1])]), {}


def _gru(a: Array, e: Array, unit: Unit) -> Array:
    """h = (1 - z) n + z h', n = tanh(a_n + r u), of the blocks r z n u."""
    n, z = np.tanh(a[2] + logistic(a[0]) * a[3]), logistic(a[1])
    return (1 - z) * n + z * e


def _gru_adjoint(d: Array, a: Array, e: Array, unit: Unit) -> tuple[Array, Array, Unit]:
    r, z = logistic(a[0]), logistic(a[1])
    inner = a[2] + r * a[3]
    dn = d[0] * (1 - z) * dtanh(inner)
    dz = d[0] * (e[0] - np.tanh(inner)) * dlogistic(a[1])
    return np.stack([dn * a[3] * dlogistic(a[0]), dz, dn, dn * r]), d * z, {}


TANH = elman(np.tanh, dtanh)
RELU = elman(lambda a: np.maximum(a, 0), lambda a: (a > 0).astype(a.dtype))
SIGMOID = elman(logistic, dlogistic)
IDENTITY = elman(lambda a: a, np.ones_like)
LSTM = Cell(
    _lstm,
    _lstm_adjoint,
    x=(0, 1, 2, 3),
    h=(0, 1, 2, 3),
    biases=(("b_h", (0, 1, 2, 3)),),
    states=("h", "c"),
)
GRU = Cell(
    _gru, _gru_adjoint, x=(0, 1, 2), h=(0, 1, 3), biases=(("b_h", (0, 1, 2)), ("b_hn", (3,)))
)
