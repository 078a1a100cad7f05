"""A reference recurrence in NumPy, in the dtype of its arguments, without jrnn.

In float64 it is the reference for the device. In float32, with rounded operands of matmuls, it
shows the size of ordinary rounding errors. It loops over steps with a whole batch, so it can fill a
device; the cells are in `formulas.py`. Tests compare it with `tests/kernel/oracle.py`, which
computes element by element.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.device.formulas import Array, Cell

Matmul = Callable[[Any, Any], Any]


def results(
    cell: Cell, given: Mapping[str, Array], reverse: bool = False, matmul: Matmul = np.matmul
) -> dict[str, Array]:
    """Compute outputs and gradients by name.

    Args:
        cell: the formulas.
        given: `w_ih [I, X*H]`, `w_hh [H, Y*H]`, optionally the biases; the parameters for each
            unit `[H]`; `xs [T, B, I]` or ids `[T, B]`; `recurrent_mask [B, H]`; `lengths [B]`;
            `resets [T, B]`; the cotangent `dhs [T, B, H]`; and for each state, here h, `h0`,
            `reset_h` and the cotangent `dh_last`, `[B, H]`.
        reverse: read each sequence from its own end to its start.
        matmul: the function for every product.

    Returns:
        `hs`, `h_last` of each state, and the cotangent of every float array in `given` under its
        name.
    """
    w_ih, w_hh, xs = given["w_ih"], given["w_hh"], given["xs"]
    (T, B), H = xs.shape[:2], len(w_hh)
    x, h, (phi, dphi) = list(cell.x), list(cell.h), cell.output
    unit = {name: given[name] for name in cell.unit}
    order, begins = _reading(given["lengths"], given["resets"], reverse)
    ids = np.issubdtype(xs.dtype, np.integer)
    xs, dhs = (np.take_along_axis(x, _like(order, x), 0) for x in (xs, given["dhs"]))
    projected = w_ih[xs] if ids else matmul(xs.reshape(T * B, -1), w_ih).reshape(T, B, -1)
    a = np.zeros((T, 1 + max(x + h), B, H), w_hh.dtype)
    a[:, x] += _blocks(projected, H)
    for name, of in cell.biases:
        if name in given:
            a[:, list(of)] += given[name].reshape(-1, 1, H)
    valid = np.arange(T)[:, None] < given["lengths"]
    mask, start, again, c = (
        given["recurrent_mask"],
        *(
            np.stack([given[name] for name in cell.named(form)])
            for form in ("{}0", "reset_{}", "d{}_last")
        ),
    )
    before, after = (np.zeros((T, *start.shape), w_hh.dtype) for _ in range(2))
    held = start
    for t in range(T):
        before[t] = np.where(begins[t][:, None], again, held)
        a[t, h] += _blocks(matmul(mask * phi(before[t, 0]), w_hh), H)
        held = after[t] = np.where(valid[t][:, None], cell.step(a[t], before[t], unit), held)
    hs = np.where(valid[..., None], phi(after[:, 0]), 0)

    da, d_again = np.zeros_like(a), np.zeros_like(again)
    d = {name: np.zeros_like(given[name]) for name in ("recurrent_mask", *cell.unit)}
    for t in reversed(range(T)):
        at, new = valid[t][:, None], (valid[t] & begins[t])[:, None]
        ds = c.copy()
        ds[0] += dphi(after[t, 0]) * dhs[t]
        da_t, de, d_unit = cell.adjoint(ds, a[t], before[t], unit)
        da[t] = np.where(at, da_t, 0)
        back = matmul(_joined(da[t, h]), w_hh.T)
        d["recurrent_mask"] += back * phi(before[t, 0])
        de = np.where(at, de, 0)
        de[0] += dphi(before[t, 0]) * mask * back
        d_again += np.where(new, de, 0)
        c = np.where(new, 0, np.where(at, de, c))
        for name in cell.unit:
            d[name] += np.where(at, d_unit[name], 0).sum(0)
    to_x, to_h = (_joined(da[:, of]).reshape(T * B, -1) for of in (x, h))
    d["w_hh"] = matmul((mask * phi(before[:, 0])).reshape(T * B, -1).T, to_h)
    if ids:
        d["w_ih"] = np.zeros_like(w_ih)
        np.add.at(d["w_ih"], xs.reshape(-1), to_x)
    else:
        d["w_ih"] = matmul(xs.reshape(T * B, -1).T, to_x)
        d["xs"] = _back(order, matmul(to_x, w_ih.T).reshape(xs.shape))
    for name, of in cell.biases:
        if name in given:
            d[name] = da[:, list(of)].sum((0, 2)).reshape(-1)
    of_states = {"{}_last": held, "{}0": c, "reset_{}": d_again}
    for form, arrays in of_states.items():
        d |= dict(zip(cell.named(form), arrays, strict=True))
    return {"hs": _back(order, hs), **d}


def _blocks(x: Array, H: int) -> Array:
    """[..., B, G*H] as [..., G, B, H]."""
    return np.moveaxis(x.reshape(*x.shape[:-1], -1, H), -2, -3)


def _joined(blocks: Array) -> Array:
    """The inverse of `_blocks`."""
    x = np.moveaxis(blocks, -3, -2)
    return x.reshape(*x.shape[:-2], -1)


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
        moved = _moved(cell, given, n, bits)
        found = results(cell, moved, reverse, _rounding_matmul(bits))
        for name, x in found.items():
            worst[name] = max(worst[name], float(np.abs(x - right[name]).max()))
    largest = {name: float(np.abs(x).max()) for name, x in right.items()}
    slack = 4 * 2.0 ** (1 - bits)
    return {name: (3 * worst[name] + slack * m) if m else 0.0 for name, m in largest.items()}


def _moved(cell: Cell, given: Mapping[str, Array], n: int, bits: int) -> dict[str, Array]:
    """The arrays in float32; weights and inputs are changed, except for n = 0."""
    random = np.random.default_rng(n)
    names = ["w_ih", "w_hh", "xs", *(name for name, _ in cell.biases)]
    found = {}
    for name, x in given.items():
        if x.dtype.kind == "f":
            x = x.astype(np.float32)
        if n and name in names and x.dtype.kind == "f":
            unit = np.ldexp(np.float32(1), np.frexp(x)[1] - bits)
            x = x + random.integers(-1, 2, x.shape).astype(np.float32) * unit
        found[name] = x
    return found


def _rounding_matmul(bits: int) -> Matmul:
    def rounded(x: Array) -> Array:
        fraction, exponent = np.frexp(x)
        return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)

    return np.matmul if bits == 24 else lambda a, b: np.matmul(rounded(a), rounded(b))
