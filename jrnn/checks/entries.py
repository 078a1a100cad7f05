"""Checks of weights of other libraries, as entries by name."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jrnn.checks.basics import array, floating, refuse, same_dtype, shape


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


def layer_arrays(arrays: Mapping[str, Any], I: int | None, H: int | None, out_in: bool) -> None:
    """Check the shapes of w_ih, w_hh and biases, in this order; None for a free size."""
    w_ih, w_hh, *biases = arrays
    repair = "All layers have the same H; an LSTM (4 H) or a GRU (3 H) is not an Elman network."
    shape(w_hh, arrays[w_hh], (H, H), "[H, H]", repair)
    H = min(arrays[w_hh].shape)
    shape(w_hh, arrays[w_hh], (H, H), "[H, H]", repair)
    axes, sizes = ("[H, I]", (H, I)) if out_in else ("[I, H]", (I, H))
    repair = f"H is that of {w_hh}; above the first layer, I is the size of the outputs below."
    shape(w_ih, arrays[w_ih], sizes, axes, repair)
    for bias in biases:
        shape(bias, arrays[bias], (H,), "[H]", repair)


def keras_weights(weights: Any, repair: str) -> None:
    if not isinstance(weights, (list, tuple)):
        refuse("weights", "a list of arrays", type(weights).__name__, repair)
    if len(weights) not in (2, 3):
        expected = "[kernel, recurrent_kernel, bias], or the first two"
        refuse("weights", expected, f"{len(weights)} arrays", repair)


def layers(layers: Any, params_class: type) -> None:
    """Check a list of pairs (forward, backward or None)."""

    def pair(x: Any) -> bool:
        two = isinstance(x, (tuple, list)) and len(x) == 2 and isinstance(x[0], params_class)
        return two and (x[1] is None or isinstance(x[1], params_class))

    listed = isinstance(layers, (list, tuple))
    if not listed or not layers or not all(map(pair, layers)):
        expected = "a list of pairs (forward RNNParams, backward RNNParams or None)"
        came = [type(x).__name__ for x in layers] if listed else type(layers).__name__
        refuse("layers", expected, came, "A layer in one direction is [(params, None)].")
