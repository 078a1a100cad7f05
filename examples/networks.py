"""The networks of the examples: the choices of --cell."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jrnn


class Model(NamedTuple):
    """The trainable parameters."""

    rnn: Any  # of a class in `CELLS`; of several layers or directions `StackParams`
    readout: jrnn.ReadoutParams


class Kind(NamedTuple):
    """A choice of --cell: its functions, and the sizes of its parameters."""

    params: type
    init: Callable[..., Any]
    run: Callable[..., Any]
    blocks: int  # of the pre-activation: w_hh is [H, blocks * H]
    states: int


CELLS = {
    "rnn": Kind(jrnn.RNNParams, jrnn.init_rnn, jrnn.rnn, blocks=1, states=1),
    "gru": Kind(jrnn.GRUParams, jrnn.init_gru, jrnn.gru, blocks=3, states=1),
    "lstm": Kind(jrnn.LSTMParams, jrnn.init_lstm, jrnn.lstm, blocks=4, states=2),
}


def kernel_of(loss: Callable[..., Any], *args: Any, platform: str | None = None) -> str:
    """The kernel of the networks of a loss, on whose arguments, or their types, nothing is run.

    The bits of a run depend on it: "XLA", or the native one with its instruction set and slices.
    """
    if (platform or jax.default_backend()) != "cpu":
        return "XLA"
    backends = {call.backend for call in jrnn.explain(loss, *args, platform="cpu")}
    return " and ".join(sorted(b for b in backends if b.startswith("native"))) or "XLA"


def output_of(state: Any) -> Any:
    """h of a state; both of them, one after the other, of an LSTM that reads in both directions."""
    if isinstance(state, tuple) and not isinstance(state, jrnn.LSTMState):
        return jnp.concatenate([output_of(one) for one in state], axis=-1)
    return state.h if isinstance(state, jrnn.LSTMState) else state
