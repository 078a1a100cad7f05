"""flax: `nnx.RNN` of its cells, time-major, split into a pure function.

flax's performance guide uses `jax.jit` on the split state, to do less in Python at every call.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from benchmarks.cases import Group
from benchmarks.rivals import Recurrence, in_form
from jrnn.interop import to_nnx

CELLS: dict[str, dict[str, Callable[..., nnx.RNNCellBase]]] = {
    "rnn": {"flax": nnx.SimpleCell},
    "lstm": {"flax": nnx.OptimizedLSTMCell, "flax LSTMCell": nnx.LSTMCell},
    "gru": {"flax": nnx.GRUCell},
}


def recurrences(group: Group) -> list[Recurrence]:
    """The recurrence in float32, by each of flax's cells that compute it."""
    return [_recurrence(group, name, make) for name, make in CELLS[group.cell].items()]


def _recurrence(group: Group, name: str, make: Any) -> Recurrence:
    _, _, I, H = group.case
    rnn = nnx.RNN(make(I, H, rngs=nnx.Rngs(0)), time_major=True, rngs=False)
    graph, empty = nnx.split(rnn)

    def states(state: Any, xs: Any) -> Any:
        zeros = jnp.zeros((*xs.shape[1:-1], H), xs.dtype)
        carry = (zeros, zeros) if group.cell == "lstm" else zeros
        return nnx.merge(graph, state)(xs, initial_carry=carry)

    def own(params: Any) -> Any:
        return in_form(empty, to_nnx(params, optimized=make is nnx.OptimizedLSTMCell))

    return Recurrence(name, states, own)
