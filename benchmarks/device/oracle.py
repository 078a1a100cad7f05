"""A reference recurrence in NumPy, in the dtype of its arguments, without jrnn.

In float64 it is the reference for the device. In float32, with rounded operands of matmuls, it
shows the size of ordinary rounding errors. It loops over steps with a whole batch, so it can fill a
device. Tests compare it with `tests/oracle.py`, which computes element by element.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Matmul = Callable[[Any, Any], Any]


class Cell(NamedTuple):
    """Two formulas of a cell with a_t = x_t w_ih + (m * e) w_hh + b_h and previous state e."""

    step: Callable[[Array, Array], Array]  # (a, e) -> s
    adjoint: Callable[
        [Array, Array, Array], tuple[Any, Any]
    ]  # (ds, a, e) -> da, and de except through a


def elman(phi: Callable[[Array], Array], dphi: Callable[[Array], Array]) -> Cell:
    """s = phi(a); here phi' is a function of a, in the package of the state."""
    return Cell(lambda a, e: phi(a), lambda ds, a, e: (ds * dphi(a), 0 * e))


def logistic(a: Array) -> Array:
    """1 / (1 + exp(-a))."""
    return 1 / (1 + np.exp(-a))


TANH = elman(np.tanh, lambda a: 1 / np.cosh(a) ** 2)
RELU = elman(lambda a: np.maximum(a, 0), lambda a: (a > 0).astype(a.dtype))
SIGMOID = elman(logistic, lambda a: logistic(a) * logistic(-a))
IDENTITY = elman(lambda a: a, np.ones_like)


def results(
    cell: Cell, given: Mapping[str, Array], reverse: bool = False, matmul: Matmul = np.matmul
) -> dict[str, Array]:
    """Compute outputs and gradients by name.

    Args:
        cell: the formulas.
        given: `w_ih [I, H]`, `w_hh [H, H]`, optionally `b_h [H]`; `xs [T, B, I]` or ids `[T, B]`;
            `h0`, `reset_state`, `recurrent_mask` `[B, H]`; `lengths [B]`; `resets [T, B]`; and the
            cotangents `dh_last [B, H]` and `dhs [T, B, H]`.
        reverse: read each sequence from its own end to its start.
        matmul: the function for every product.

    Returns:
        `h_last`, `hs`, and the cotangent of every float array in `given` under its name.
    """
    w_ih, w_hh, xs = given["w_ih"], given["w_hh"], given["xs"]
    T, B = xs.shape[:2]
    order, begins = _reading(given["lengths"], given["resets"], reverse)
    ids = np.issubdtype(xs.dtype, np.integer)
    xs, dhs = (np.take_along_axis(x, _like(order, x), 0) for x in (xs, given["dhs"]))
    projected = w_ih[xs] if ids else matmul(xs.reshape(T * B, -1), w_ih).reshape(T, B, -1)
    projected = projected + given["b_h"] if "b_h" in given else projected
    valid = np.arange(T)[:, None] < given["lengths"]
    mask, held = given["recurrent_mask"], given["h0"]
    before, a, s = (np.zeros_like(dhs) for _ in range(3))
    for t in range(T):
        before[t] = np.where(begins[t][:, None], given["reset_state"], held)
        a[t] = projected[t] + matmul(mask * before[t], w_hh)
        held = s[t] = np.where(valid[t][:, None], cell.step(a[t], before[t]), held)
    hs = np.where(valid[..., None], s, 0)

    da, c = np.zeros_like(dhs), given["dh_last"]
    d = {name: np.zeros_like(given["h0"]) for name in ("reset_state", "recurrent_mask")}
    for t in reversed(range(T)):
        at, new = valid[t][:, None], (valid[t] & begins[t])[:, None]
        da_t, de = cell.adjoint(dhs[t] + c, a[t], before[t])
        da[t] = np.where(at, da_t, 0)
        back = matmul(da[t], w_hh.T)
        d["recurrent_mask"] += back * before[t]
        de = np.where(at, de, 0) + back * mask
        d["reset_state"] += np.where(new, de, 0)
        c = np.where(new, 0, np.where(at, de, c))
    flat = da.reshape(T * B, -1)
    d["w_hh"] = matmul((mask * before).reshape(T * B, -1).T, flat)
    if ids:
        d["w_ih"] = np.zeros_like(w_ih)
        np.add.at(d["w_ih"], xs.reshape(-1), flat)
    else:
        d["w_ih"] = matmul(xs.reshape(T * B, -1).T, flat)
        d["xs"] = _back(order, matmul(flat, w_ih.T).reshape(xs.shape))
    if "b_h" in given:
        d["b_h"] = flat.sum(0)
    return {"h_last": held, "hs": _back(order, hs), "h0": c, **d}


def _reading(lengths: Array, resets: Array, reverse: bool) -> tuple[Array, Array]:
    """The step that is read at each position [T, B], and whether a segment begins there."""
    T = len(resets)
    places = np.arange(T)[:, None] + 0 * lengths
    if not reverse:
        return places, resets
    order = np.where(places < lengths, lengths - 1 - places, places)
    # In reverse, a segment that begins at step t ends before step t - 1.
    after = np.concatenate([resets[1:], np.zeros_like(resets[:1])])
    begins = np.take_along_axis(after, order, 0)
    begins[0] = False  # h0 is before the first position
    return order, begins


def _like(order: Array, x: Array) -> Array:
    return order if x.ndim == 2 else order[..., None]


def _back(order: Array, x: Array) -> Array:
    """Put x back into the order of the inputs."""
    turned = np.empty_like(x)
    np.put_along_axis(turned, _like(order, x), x, 0)
    return turned


# --- bounds of rounding errors -------------------------------------------------------------------

SCANS = 9


def bounds(
    cell: Cell, given: Mapping[str, Array], right: Mapping[str, Array], reverse: bool, bits: int
) -> dict[str, float]:
    """The bound of the error of each result.

    It is three times the largest error of nine float32 scans compared with float64. Their matmuls
    round operands to `bits` bits: one scan uses the arrays as given, eight use weights and inputs
    changed by -1, 0 or +1 unit of the last of these bits. Four such units, relative to the largest
    element, are added for results where all nine happen to be exact. Zeros must be zeros.
    """
    worst = dict.fromkeys(right, 0.0)
    for n in range(SCANS):
        found = results(cell, _moved(given, n, bits), reverse, _rounding_matmul(bits))
        for name, x in found.items():
            worst[name] = max(worst[name], float(np.abs(x - right[name]).max()))
    largest = {name: float(np.abs(x).max()) for name, x in right.items()}
    slack = 4 * 2.0 ** (1 - bits)
    return {name: (3 * worst[name] + slack * m) if m else 0.0 for name, m in largest.items()}


def _moved(given: Mapping[str, Array], n: int, bits: int) -> dict[str, Array]:
    """The arrays in float32; weights and inputs are changed, except for n = 0."""
    random = np.random.default_rng(n)
    found = {}
    for name, x in given.items():
        if x.dtype.kind == "f":
            x = x.astype(np.float32)
        if n and name in ("w_ih", "w_hh", "b_h", "xs") and x.dtype.kind == "f":
            unit = np.ldexp(np.float32(1), np.frexp(x)[1] - bits)
            x = x + random.integers(-1, 2, x.shape).astype(np.float32) * unit
        found[name] = x
    return found


def _rounding_matmul(bits: int) -> Matmul:
    def rounded(x: Array) -> Array:
        fraction, exponent = np.frexp(x)
        return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)

    return np.matmul if bits == 24 else lambda a, b: np.matmul(rounded(a), rounded(b))
