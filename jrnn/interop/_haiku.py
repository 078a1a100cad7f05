"""Weights of haiku: (in, out); gates i g f o, and 1 is added to f; its GRU is another network."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.interop._weights import (
    GATES,
    RESET_BEFORE,
    Params,
    Source,
    checked,
    entries,
    in_out,
    leaves,
    network,
    reorder,
    with_biases,
)
from jrnn.types import LSTMParams

_SOURCE = Source(
    "from_haiku",
    "params",
    "Give the parameters that hk.transform made, and the path of the network as module.",
)
_NO_GRU = "haiku's GRU resets the state before the matmul, which is another network."
_LSTM = "igfo"


def from_haiku(params: Mapping[str, Any], module: str | None = None) -> Params:
    """Convert the parameters of a `VanillaRNN`, which has relu, or of an `LSTM` of haiku.

    Args:
        params: those of a `VanillaRNN`, `{"vanilla_rnn/linear": {"w": [I, H], "b": [H]},
            "vanilla_rnn/linear_1": {"w": [H, H], "b": [H]}}`, the last `b` only with `double_bias`;
            or those of an `LSTM`, `{"lstm/linear": {"w": [I+H, 4H], "b": [4H]}}`. Other modules are
            ignored.
        module: the path of the network, such as `my_net/lstm`; None: `vanilla_rnn` or `lstm`.

    Returns:
        `RNNParams` or `LSTMParams`. haiku adds 1 to the forget gate's pre-activation, so `b_h` has
        1 more there.

    Raises:
        ValueError: an entry that is missing, unknown, or of another shape or dtype; a `GRU`, which
            resets before the matmul.
    """
    found = leaves(_SOURCE, params)
    module = _outermost(found) if module is None else module
    own = {path: x for path, x in found.items() if path.startswith(f"{module}/")}
    if f"{module}/w_h" in own:
        checks.refuse(module, "a VanillaRNN or an LSTM", "a GRU", RESET_BEFORE)
    w_x, b_x, w_h, b_h = (f"{module}/linear{n}/{name}" for n in ("", "_1") for name in "wb")
    if w_h not in own and not re.fullmatch(r"(.*/)?vanilla_rnn(_\d+)?", module):
        arrays = entries(_SOURCE, own, [w_x, b_x])
        w, b = arrays.values()
        checks.shape(w_x, w, (None, None), "[I+H, 4H]", _SOURCE.repair)
        H = w.shape[1] // 4
        named = {f"{w_x}[:-H]": w[:-H], f"{w_x}[-H:]": w[-H:], b_x: b}
        w_ih, w_hh, b = (reorder(x, _LSTM, GATES[4]) for x in in_out(named, 4, H=H))
        return network(w_ih, w_hh, _forget(b, 1))
    arrays = entries(_SOURCE, own, [w_x, w_h, b_x], [b_h])
    w_ih, w_hh, *biases = in_out(arrays, 1)
    return network(w_ih, w_hh, sum(biases[1:], biases[0]))


def to_haiku(params: Params, module: str | None = None) -> dict[str, dict[str, jax.Array]]:
    """Convert to the parameters of a `VanillaRNN` with two biases, or of an `LSTM` of haiku.

    Args:
        params: `RNNParams` or `LSTMParams`; a bias of None becomes zeros.
        module: the path of the network; None: `vanilla_rnn` or `lstm`.

    Returns:
        As in `from_haiku`. The second bias of a `VanillaRNN` is 0; that of an `LSTM` has 1 less at
        the forget gate.

    Raises:
        ValueError: parameters of another class, `GRUParams` included, or that do not fit together.
    """
    if checked(params) == 3:
        checks.refuse("params", "RNNParams or LSTMParams", "GRUParams", _NO_GRU)
    w_ih, w_hh, b_h = with_biases(params)
    if isinstance(params, LSTMParams):
        w, b = jnp.concatenate([w_ih, w_hh]), _forget(b_h, -1)
        named = {"w": reorder(w, GATES[4], _LSTM), "b": reorder(b, GATES[4], _LSTM)}
        return {f"{module or 'lstm'}/linear": named}
    module = module or "vanilla_rnn"
    return {
        f"{module}/linear": {"w": w_ih, "b": b_h},
        f"{module}/linear_1": {"w": w_hh, "b": jnp.zeros_like(b_h)},
    }


def _outermost(found: Mapping[str, Any]) -> str:
    """The path of the only network that is outermost and has haiku's own name."""
    known = ("vanilla_rnn", "lstm", "gru")
    there = [name for name in known if any(path.startswith(f"{name}/") for path in found)]
    if len(there) != 1:
        came = f"None, with {', '.join(found)}" if found else "None, with empty params"
        expected = "the path of the network, or one of vanilla_rnn and lstm in params"
        checks.refuse("module", expected, came, _SOURCE.repair)
    return there[0]


def _forget(b_h: jax.Array, by: float) -> jax.Array:
    """A bias with `by` added at the forget gate."""
    H = len(b_h) // 4
    return b_h.at[H : 2 * H].add(by)
