"""The networks of the examples: --cell rnn, gru or lstm."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

import jrnn


class Kind(NamedTuple):
    """A choice of --cell: the parameters of its network, and their sizes."""

    params: type
    init: Callable[..., Any]
    blocks: int  # of the pre-activation: w_hh is [H, blocks * H]
    states: int


CELLS = {
    "rnn": Kind(jrnn.RNNParams, jrnn.init_rnn, blocks=1, states=1),
    "gru": Kind(jrnn.GRUParams, jrnn.init_gru, blocks=3, states=1),
    "lstm": Kind(jrnn.LSTMParams, jrnn.init_lstm, blocks=4, states=2),
}


def cell_name(params: Any) -> str:
    """The choice of --cell that has parameters of this class."""
    return next(name for name, kind in CELLS.items() if isinstance(params, kind.params))


def zero_state(params: Any, batch_size: int, sharding: NamedSharding | None = None) -> Any:
    """The state before the first step: `[B, H]`, or an `LSTMState` of two of these."""
    states = CELLS[cell_name(params)].states
    h = [jnp.zeros((batch_size, len(params.w_hh)), device=sharding) for _ in range(states)]
    return h[0] if states == 1 else jrnn.LSTMState(*h)


def kernel_of(loss: Callable[..., Any], *args: Any, platform: str | None = None) -> str:
    """The kernel of the networks of a loss, for the record of a run: its bits depend on it.

    It is "XLA", or the native kernel with its instruction set and the slices of a batch. Nothing is
    run; `args` may be types of arrays.
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
