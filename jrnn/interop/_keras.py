"""Weights of keras: (in, out), no names; gates i f g o of an LSTM, z r n of a GRU."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.interop._weights import (
    GATES,
    RESET_BEFORE,
    Params,
    Source,
    blocks,
    checked,
    entries,
    has_bias,
    in_out,
    network,
    of_two_biases,
    reorder,
    two_biases,
)

_SOURCE = Source(
    "from_keras",
    "weights",
    "Give layer.get_weights() of a SimpleRNN, LSTM or GRU; convert the two of a Bidirectional "
    "separately.",
)
_GATES = {1: "h", 3: "zrn", 4: "ifgo"}


def from_keras(weights: Sequence[Any]) -> Params:
    """Convert the weights of a `SimpleRNN`, `LSTM` or `GRU` of keras.

    Args:
        weights: `[kernel [I, G*H], recurrent_kernel [H, G*H], bias]`, or the first two with
            `use_bias=False`, where G is 1 for a `SimpleRNN`, 4 for an `LSTM` and 3 for a `GRU`. The
            bias is `[H]`, `[4H]` or, of a `GRU`, `[2, 3H]`. A `GRU` without a bias must have
            `reset_after=True`, as by default: its weights do not show that.

    Returns:
        `RNNParams`, `LSTMParams` or `GRUParams`.

    Raises:
        ValueError: another number of weights; weights of another shape or dtype; those of a `GRU`
            with `reset_after=False`, which resets before the matmul.
    """
    if not isinstance(weights, (list, tuple)):
        checks.refuse("weights", "a list of arrays", type(weights).__name__, _SOURCE.repair)
    if len(weights) not in (2, 3):
        expected = "[kernel, recurrent_kernel, bias], or the first two"
        checks.refuse("weights", expected, f"{len(weights)} arrays", _SOURCE.repair)
    named = dict(zip(("kernel", "recurrent_kernel", "bias"), weights, strict=False))
    arrays = entries(_SOURCE, named, named)
    G = blocks(arrays, "recurrent_kernel", out_in=False)
    bias = arrays.pop("bias") if G == 3 and "bias" in arrays else None
    weights = [reorder(x, _GATES[G], GATES[G]) for x in in_out(arrays, G)]
    if bias is None:
        return network(*weights)
    H = len(weights[1])
    if bias.shape == (3 * H,):
        expected = f"shape [2, 3H] = [2, {3 * H}]"
        checks.refuse("bias", expected, "[3H], that of reset_after=False", RESET_BEFORE)
    checks.shape("bias", bias, (2, 3 * H), "[2, 3H]", _SOURCE.repair)
    return of_two_biases(*weights, *reorder(jnp.asarray(bias), _GATES[G], GATES[G]))


def to_keras(params: Params) -> list[jax.Array]:
    """Convert to the weights of a `SimpleRNN`, `LSTM` or `GRU` of keras, for `layer.set_weights`.

    Args:
        params: `RNNParams`, `LSTMParams` or `GRUParams`; without biases for `use_bias=False`.

    Returns:
        `[kernel, recurrent_kernel, bias]`, or the first two; see `from_keras`. Those of a GRU are
        for `reset_after=True`; the second row of its bias is 0, except `b_hn`.

    Raises:
        ValueError: parameters of another class, or that do not fit together.
    """
    G = checked(params)
    weights = [params.w_ih, params.w_hh]
    if has_bias(params):
        weights.append(jnp.stack(two_biases(params)) if G == 3 else params.b_h)
    return [reorder(x, GATES[G], _GATES[G]) for x in weights]
