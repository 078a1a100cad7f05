"""flax: `nnx.RNN` of its cells, time-major, split into a pure function.

flax's performance guide uses `jax.jit` on the split state, to do less in Python at every call.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from benchmarks.cases import Group
from benchmarks.rivals import Recurrence, filled

CELLS: dict[str, dict[str, Callable[..., nnx.RNNCellBase]]] = {
    "rnn": {"flax": nnx.SimpleCell},
    "lstm": {"flax": nnx.OptimizedLSTMCell, "flax LSTMCell": nnx.LSTMCell},
    "gru": {"flax": nnx.GRUCell},
}


def _arrays(make: Any, params: Any) -> dict[str, Any]:
    """The weights by module and kind; `LSTMCell` has a module for each gate."""
    w_ih, w_hh, b_h = params[:3]
    if make is not nnx.LSTMCell:
        biased = "dense_h" if make is nnx.OptimizedLSTMCell else "dense_i"
        return {"dense_i kernel": w_ih, "dense_h kernel": w_hh, f"{biased} bias": b_h}
    found: dict[str, Any] = {}
    gates = zip(("i", "f_", "g", "o"), *(jnp.split(p, 4, -1) for p in params[:3]), strict=True)
    for gate, w_i, w_h, b in gates:
        state = f"h{gate[0]}"
        found |= {f"i{gate} kernel": w_i, f"{state} kernel": w_h, f"{state} bias": b}
    return found


def recurrences(group: Group) -> list[Recurrence]:
    """The recurrence in float32, by each of flax's cells that compute it."""
    return [_recurrence(group, name, make) for name, make in CELLS[group.cell].items()]


def _recurrence(group: Group, name: str, make: Any) -> Recurrence:
    _, _, I, H = group.case
    rnn = nnx.RNN(make(I, H, rngs=nnx.Rngs(0)), time_major=True, rngs=False)
    graph, empty = nnx.split(rnn)

    def states(state: Any, xs: Any, h0: Any = None) -> Any:
        zeros = jnp.zeros((*xs.shape[1:-1], H), xs.dtype)
        carry = (zeros, zeros) if group.cell == "lstm" else zeros if h0 is None else h0
        return nnx.merge(graph, state)(xs, initial_carry=carry)

    return Recurrence(name, states, lambda params: filled(empty, _arrays(make, params)))


def readout(H: int, O: int) -> tuple[Any, Any]:
    """An `nnx.Linear`."""
    graph, empty = nnx.split(nnx.Linear(H, O, rngs=nnx.Rngs(0)))
    own = partial(filled, empty)
    return (
        lambda params: own({"kernel": params.w_ho, "bias": params.b_o}),
        lambda state, hs: nnx.merge(graph, state)(hs),
    )
