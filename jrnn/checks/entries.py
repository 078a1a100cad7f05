"""Checks of weights of other libraries, as entries by name."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jrnn.checks.basics import (
    array,
    describe,
    floating,
    refuse,
    repair_of_module,
    same_dtype,
    shape,
)
from jrnn.checks.networks import times

_KINDS = {1: "an Elman network", 3: "a GRU", 4: "an LSTM"}  # by the blocks of w_hh


def mapping(argument: str, x: Any, repair: str) -> None:
    if not isinstance(x, Mapping):
        refuse(argument, "a mapping of names to arrays", type(x).__name__, repair)


def entries(
    argument: str,
    found: Mapping[str, Any],
    needed: Collection[str],
    optional: Collection[str],
    repair: str,
) -> None:
    for name in needed:
        if name not in found:
            came = f"only {', '.join(found)}" if found else "an empty one"
            refuse(name, f"it in {argument}", came, repair)
    for name, x in found.items():
        if name not in needed and name not in optional:
            expected = f"nothing in {argument} but {', '.join((*needed, *optional))}"
            refuse(name, expected, f"one of shape {list(np.shape(x))}", repair)


def one_dtype(arrays: Mapping[str, Any]) -> None:
    """All arrays must have the same floating dtype."""
    for name, x in arrays.items():
        array(name, x)
        floating(name, x)
        first = next(iter(arrays))
        same_dtype(name, x, first, arrays[first])


def blocks(w_hh: str, x: Any, known: Collection[int], out_in: bool) -> int:
    """Return G, the number of blocks of a w_hh [H, G*H], or [G*H, H] with `out_in`."""
    array(w_hh, x)
    H, columns = x.shape[:: -1 if out_in else 1] if x.ndim == 2 else (0, 0)
    if not H or columns not in [G * H for G in known]:
        kinds = [f"{_axes('H', G, out_in)} ({_KINDS[G]})" for G in known]
        expected = f"shape {', '.join(kinds[:-1])} or {kinds[-1]}"
        refuse(w_hh, expected, describe(x), "It maps a state to the gates.")
    return columns // H


def layer_arrays(
    arrays: Mapping[str, Any], G: int, I: int | None, H: int | None, out_in: bool
) -> None:
    """Check the shapes of w_ih, w_hh and biases, in this order; None for a free size."""
    w_ih, w_hh, *biases = arrays
    H = min(np.shape(arrays[w_hh]), default=None) if H is None else H
    columns = None if H is None else G * H

    def weight(name: str, axis: str, size: int | None, repair: str) -> None:
        sizes = (columns, size) if out_in else (size, columns)
        shape(name, arrays[name], sizes, _axes(axis, G, out_in), repair)

    weight(w_hh, "H", H, "All layers and gates are of the same kind and have the same H.")
    repair = f"H is that of {w_hh}; above the first layer, I is the size of the outputs below."
    weight(w_ih, "I", I, repair)
    for bias in biases:
        shape(bias, arrays[bias], (columns,), f"[{times(G)}]", repair)


def layers(argument: str, layers: Any, known: tuple[type, ...]) -> None:
    """Check a list of pairs (forward, backward or None), all parameters of one class."""

    def pair(x: Any, kind: type) -> bool:
        two = isinstance(x, (tuple, list)) and len(x) == 2 and isinstance(x[0], kind)
        return two and (x[1] is None or isinstance(x[1], kind))

    listed = isinstance(layers, (list, tuple)) and not isinstance(layers, known)
    if not listed or not layers or not any(all(pair(x, k) for x in layers) for k in known):
        names = ", all ".join(k.__name__ for k in known)
        expected = f"pairs (forward parameters, backward parameters or None), all {names}"
        came = [_shown(x) for x in layers] if listed else type(layers).__name__
        repair = "A layer in one direction is (params, None)."
        refuse(argument, expected, came, repair_of_module(layers, repair))


def _shown(x: Any) -> str:
    pair = type(x) in (tuple, list)
    return f"({', '.join(type(y).__name__ for y in x)})" if pair else type(x).__name__


def _axes(axis: str, G: int, out_in: bool) -> str:
    return f"[{times(G)}, {axis}]" if out_in else f"[{axis}, {times(G)}]"
