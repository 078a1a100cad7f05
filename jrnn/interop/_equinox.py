"""Weights of equinox: (out, in), gates in the order of jrnn, and the bias b_hn by itself."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.interop._weights import (
    Params,
    Source,
    blocks,
    checked,
    entries,
    has_bias,
    in_out,
    leaves,
    network,
    with_biases,
)
from jrnn.types import GRUParams

_SOURCE = Source(
    "from_equinox",
    "cell",
    "Give an eqx.nn.LSTMCell or eqx.nn.GRUCell alone, or its arrays by name.",
)
_SETTINGS = ("input_size", "hidden_size", "use_bias")


def from_equinox(cell: Any) -> Params:
    """Convert the weights of an `LSTMCell` or a `GRUCell` of equinox.

    Args:
        cell: the module, or a mapping of its fields: `weight_ih [G*H, I]`, `weight_hh [G*H, H]`
            and, unless `use_bias=False`, `bias [G*H]` and, of a `GRUCell`, `bias_n [H]`, where G is
            4 for an LSTM and 3 for a GRU.

    Returns:
        `LSTMParams` or `GRUParams`.

    Raises:
        ValueError: an entry that is missing, unknown, or of another shape or dtype.
    """
    fields = cell if isinstance(cell, Mapping) else getattr(cell, "__dict__", cell)
    found = leaves(_SOURCE, fields)
    found = {name: x for name, x in found.items() if name not in _SETTINGS and x is not None}
    G = blocks(found, "weight_hh", (4, 3), out_in=True)
    names = ["weight_ih", "weight_hh", *(["bias"] if found.keys() & {"bias", "bias_n"} else [])]
    further = ["bias_n"] if G == 3 and "bias" in names else []
    arrays = entries(_SOURCE, found, [*names, *further])
    weights = in_out({name: arrays[name] for name in names}, G, out_in=True)
    if not further:
        return network(*weights)
    checks.shape("bias_n", arrays["bias_n"], weights[1].shape[:1], "[H]", _SOURCE.repair)
    return network(*weights)._replace(b_hn=jnp.asarray(arrays["bias_n"]))


def to_equinox(params: Params) -> dict[str, jax.Array]:
    """Convert to the arrays of an `LSTMCell` or a `GRUCell` of equinox, for `eqx.tree_at`.

    Args:
        params: `LSTMParams` or `GRUParams`; without biases for `use_bias=False`.

    Returns:
        Arrays by name, as in `from_equinox`.

    Raises:
        ValueError: parameters of another class, `RNNParams` included, or that do not fit together.
    """
    if checked(params) == 1:
        expected, repair = "LSTMParams or GRUParams", "equinox has no Elman cell."
        checks.refuse("params", expected, type(params).__name__, repair)
    arrays = {"weight_ih": params.w_ih.T, "weight_hh": params.w_hh.T}
    if has_bias(params):
        params = with_biases(params)
        arrays["bias"] = params.b_h
        if isinstance(params, GRUParams):
            arrays["bias_n"] = params.b_hn
    return arrays
