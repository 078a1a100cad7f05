"""The cells of the oracle, of one sequence: blocks and states are lists of [H]. Only NumPy.

Derivatives of activations are functions of the pre-activation here, of the state in the package.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ACTIVATIONS = {
    "tanh": (np.tanh, lambda a: 1 / np.cosh(a) ** 2),
    "relu": (lambda a: np.where(a > 0, a, 0.0), lambda a: np.where(a > 0, 1.0, 0.0)),
    "sigmoid": (
        lambda a: 1 / (1 + np.exp(-a)),
        lambda a: np.exp(-a) / (1 + np.exp(-a)) ** 2,
    ),
    "identity": (lambda a: a, np.ones_like),
}


class Cell(NamedTuple):
    """A step, and its adjoint derived by hand: what it is, not how the package computes it."""

    step: Callable  # (blocks, states, unit, data) -> states
    # (cotangents of the states after, blocks, states before, unit, data)
    adjoint: Callable  # -> cotangents of blocks, of states before, of unit, of data
    x: tuple[int, ...] = (0,)
    h: tuple[int, ...] = (0,)
    states: int = 1
    output: tuple[Callable, Callable] | None = None  # h of the first state, and its derivative


def elman(activation):
    phi, dphi = ACTIVATIONS[activation]
    return Cell(
        lambda a, s, unit, data: [phi(a[0])],
        lambda d, a, s, unit, data: ([dphi(a[0]) * d[0]], [np.zeros_like(d[0])], {}, {}),
    )


def _alpha(unit, data):
    """alpha of a step, and its derivative by dt and by log tau; the leak that is fixed has none."""
    dt = data.get("dt", 1.0)
    if "log_tau" in unit:
        tau = np.exp(unit["log_tau"])
        e = np.exp(-dt / tau)
        return 1 - e, e / tau, -e * dt / tau
    rest = 1 - unit["alpha"]
    with np.errstate(divide="ignore", invalid="ignore"):
        by_dt = np.where(rest == 0, 0.0, -(rest**dt) * np.log(rest))
    return 1 - rest**dt, by_dt, 0.0


def _leak(new):
    """(28) and (29): `new` is what the state leaks to, and its derivative."""

    def step(a, s, unit, data):
        alpha, _, _ = _alpha(unit, data)
        return [(1 - alpha) * s[0] + alpha * new[0](a[0])]

    def adjoint(d, a, s, unit, data):
        (d,), (alpha, by_dt, by_log_tau) = d, _alpha(unit, data)
        d_alpha = (new[0](a[0]) - s[0]) * d
        d_unit = dict.fromkeys(unit, d_alpha * by_log_tau)
        d_data = dict.fromkeys(data, d_alpha * by_dt)
        return [alpha * new[1](a[0]) * d], [(1 - alpha) * d], d_unit, d_data

    return Cell(step, adjoint)


def _gru(a, s, unit, data):
    sigmoid = ACTIVATIONS["sigmoid"][0]
    z = sigmoid(a[1])
    return [(1 - z) * np.tanh(a[2] + sigmoid(a[0]) * a[3]) + z * s[0]]


def _gru_adjoint(d, a, s, unit, data):
    (sigmoid, dsigmoid), (d,) = ACTIVATIONS["sigmoid"], d
    r, z = sigmoid(a[0]), sigmoid(a[1])
    inner = a[2] + r * a[3]
    d_inner = d * (1 - z) / np.cosh(inner) ** 2
    d_r, d_z = d_inner * a[3], d * (s[0] - np.tanh(inner))
    blocks = [d_r * dsigmoid(a[0]), d_z * dsigmoid(a[1]), d_inner, d_inner * r]
    return blocks, [z * d], {}, {}


def _mgu(a, s, unit, data):
    f = ACTIVATIONS["sigmoid"][0](a[0])
    return [(1 - f) * s[0] + f * np.tanh(a[1] + f * a[2])]


def _mgu_adjoint(d, a, s, unit, data):
    (sigmoid, dsigmoid), (d,) = ACTIVATIONS["sigmoid"], d
    f, inner = sigmoid(a[0]), a[1] + sigmoid(a[0]) * a[2]
    dn = f * d / np.cosh(inner) ** 2
    df = (np.tanh(inner) - s[0]) * d + a[2] * dn
    return [df * dsigmoid(a[0]), dn, f * dn], [(1 - f) * d], {}, {}


def _zoneout_adjoint(d, a, s, unit, data):
    (d,), z = d, data["z"]
    phi, dphi = np.tanh(a[0]), 1 / np.cosh(a[0]) ** 2
    return [(1 - z) * dphi * d], [z * d], {}, {"z": (s[0] - phi) * d}


def _lstm(a, s, unit, data):
    sigmoid = ACTIVATIONS["sigmoid"][0]
    c = sigmoid(a[1]) * s[1] + sigmoid(a[0]) * np.tanh(a[2])
    return [sigmoid(a[3]) * np.tanh(c), c]


def _lstm_adjoint(d, a, s, unit, data):
    sigmoid, dsigmoid = ACTIVATIONS["sigmoid"]
    _, c = _lstm(a, s, unit, data)
    q = d[1] + d[0] * sigmoid(a[3]) / np.cosh(c) ** 2
    blocks = [
        q * np.tanh(a[2]) * dsigmoid(a[0]),
        q * s[1] * dsigmoid(a[1]),
        q * sigmoid(a[0]) / np.cosh(a[2]) ** 2,
        d[0] * np.tanh(c) * dsigmoid(a[3]),
    ]
    return blocks, [np.zeros_like(q), q * sigmoid(a[1])], {}, {}


def _coupled(a, s, unit, data):
    sigmoid = ACTIVATIONS["sigmoid"][0]
    c = sigmoid(a[0]) * s[1] + (1 - sigmoid(a[0])) * np.tanh(a[1])
    return [sigmoid(a[2]) * np.tanh(c), c]


def _coupled_adjoint(d, a, s, unit, data):
    sigmoid, dsigmoid = ACTIVATIONS["sigmoid"]
    c = _coupled(a, s, unit, data)[1]
    q = d[1] + d[0] * sigmoid(a[2]) / np.cosh(c) ** 2
    blocks = [
        q * (s[1] - np.tanh(a[1])) * dsigmoid(a[0]),
        q * (1 - sigmoid(a[0])) / np.cosh(a[1]) ** 2,
        d[0] * np.tanh(c) * dsigmoid(a[2]),
    ]
    return blocks, [np.zeros_like(q), q * sigmoid(a[0])], {}, {}


CELLS = {
    "lstm": Cell(_lstm, _lstm_adjoint, x=(0, 1, 2, 3), h=(0, 1, 2, 3), states=2),
    "gru": Cell(_gru, _gru_adjoint, x=(0, 1, 2), h=(0, 1, 3)),
    "leaky": _leak(ACTIVATIONS["tanh"]),
    "leaky sigmoid": _leak(ACTIVATIONS["sigmoid"]),
    "rate": _leak(ACTIVATIONS["identity"])._replace(output=ACTIVATIONS["tanh"]),
    "rate sigmoid": _leak(ACTIVATIONS["identity"])._replace(output=ACTIVATIONS["sigmoid"]),
    "mgu": Cell(_mgu, _mgu_adjoint, x=(1, 0), h=(0, 2)),
    "coupled": Cell(_coupled, _coupled_adjoint, x=(0, 1, 2), h=(0, 1, 2), states=2),
    "zoneout": Cell(
        lambda a, s, unit, data: [data["z"] * s[0] + (1 - data["z"]) * np.tanh(a[0])],
        _zoneout_adjoint,
    ),
}
