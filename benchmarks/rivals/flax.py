"""flax: `nnx.RNN` of its cells, time-major, split into a pure function.

flax's performance guide uses `jax.jit` on the split state, to do less in Python at every call.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import jrnn
from benchmarks.cases import CELLS, Case
from benchmarks.rivals import CharacterModel, Recurrence


class Kind(NamedTuple):
    """One of flax's cells, and its modules that hold the weights; several: one for each gate."""

    name: str
    make: Callable[..., nnx.RNNCellBase]
    inputs: tuple[str, ...] = ("dense_i",)  # the kernels of w_ih
    state: tuple[str, ...] = ("dense_h",)  # the kernels of w_hh
    biases: tuple[str, ...] = ("dense_i",)
    states: int = 1

    def leaves(self, state: Any) -> list[list[Any]]:
        """The variables of w_ih, w_hh and b_h in the state of an `nnx.RNN`."""
        kinds = (self.inputs, "kernel"), (self.state, "kernel"), (self.biases, "bias")
        return [[state["cell"][module][kind] for module in modules] for modules, kind in kinds]


GATES = ("hi", "hf", "hg", "ho")
KINDS = {
    "rnn": [Kind("flax", nnx.SimpleCell)],
    "lstm": [
        Kind("flax", nnx.OptimizedLSTMCell, biases=("dense_h",), states=2),
        Kind("flax LSTMCell", nnx.LSTMCell, ("ii", "if_", "ig", "io"), GATES, GATES, 2),
    ],
    "gru": [Kind("flax", nnx.GRUCell)],
}
SIMPLE = KINDS["rnn"][0]


def _rnn(I: int, H: int, kind: Kind = SIMPLE, return_carry: bool = False) -> nnx.RNN:
    cell = kind.make(I, H, rngs=nnx.Rngs(0))
    return nnx.RNN(cell, time_major=True, return_carry=return_carry, rngs=False)


def _set_rnn(state: Any, params: Any, kind: Kind = SIMPLE) -> None:
    for leaves, array in zip(kind.leaves(state), params[:3], strict=True):
        for leaf, part in zip(leaves, jnp.split(jnp.asarray(array), len(leaves), -1), strict=True):
            leaf.set_value(part)


def _get_rnn(state: Any, kind: Kind = SIMPLE, cell: str = "rnn") -> Any:
    parts = ([leaf.get_value() for leaf in leaves] for leaves in kind.leaves(state))
    return CELLS[cell].params(*(jnp.concatenate(part, -1) for part in parts))


def recurrences(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """The recurrence in float32, by each of flax's cells that compute it."""
    return [_recurrence(case, cell, kind) for kind in KINDS[cell]]


def _recurrence(case: Case, cell: str, kind: Kind) -> Recurrence:
    graph, empty = nnx.split(_rnn(case.I, case.H, kind))

    def states(state: Any, xs: Any) -> Any:
        zeros = jnp.zeros((*xs.shape[1:-1], case.H), xs.dtype)
        carry = zeros if kind.states == 1 else (zeros,) * kind.states
        return nnx.merge(graph, state)(xs, initial_carry=carry)

    def own(params: Any) -> Any:
        state = jax.tree.map(jnp.copy, empty)
        _set_rnn(state, params, kind)
        return state

    return Recurrence(kind.name, states, own, lambda state: _get_rnn(state, kind, cell))


class _Model(nnx.Module):
    def __init__(self, vocabulary: int, H: int) -> None:
        self.rnn = _rnn(vocabulary, H, return_carry=True)
        self.readout = nnx.Linear(H, vocabulary, rngs=nnx.Rngs(0))

    def __call__(self, ids: Any, h0: Any) -> Any:
        xs = jax.nn.one_hot(ids, self.readout.out_features)
        h_last, hs = self.rnn(xs, initial_carry=h0)
        return self.readout(hs), h_last


def character_models(model: Any) -> dict[str, CharacterModel]:
    """The model with an `nnx.Linear`; ids are one-hot vectors."""
    vocabulary, H = model.rnn.w_ih.shape
    graph, own = nnx.split(_Model(vocabulary, H))
    _set_rnn(own["rnn"], model.rnn)
    own["readout"]["kernel"].set_value(jnp.asarray(model.readout.w_ho))
    own["readout"]["bias"].set_value(jnp.asarray(model.readout.b_o))

    def logits(state: Any, ids: Any, h0: Any) -> Any:
        return nnx.merge(graph, state)(ids, h0)

    def common(state: Any) -> Any:
        kernel, bias = state["readout"]["kernel"], state["readout"]["bias"]
        return _get_rnn(state["rnn"]), jrnn.ReadoutParams(kernel.get_value(), bias.get_value())

    return {"flax": CharacterModel(own, logits, common)}
