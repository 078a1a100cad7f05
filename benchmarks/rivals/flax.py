"""flax: `nnx.RNN` of `nnx.SimpleCell`, time-major, split into a pure function.

flax's performance guide uses `jax.jit` on the split state, to do less in Python at every call.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import jrnn
from benchmarks.cases import Case
from benchmarks.rivals import CharacterModel, Recurrence


def _rnn(I: int, H: int, return_carry: bool = False) -> nnx.RNN:
    cell = nnx.SimpleCell(I, H, rngs=nnx.Rngs(0))
    return nnx.RNN(cell, time_major=True, return_carry=return_carry, rngs=False)


def _set_rnn(state: Any, params: jrnn.RNNParams) -> None:
    state["cell"]["dense_i"]["kernel"].set_value(jnp.asarray(params.w_ih))
    state["cell"]["dense_h"]["kernel"].set_value(jnp.asarray(params.w_hh))
    state["cell"]["dense_i"]["bias"].set_value(jnp.asarray(params.b_h))


def _get_rnn(state: Any) -> jrnn.RNNParams:
    cell = state["cell"]
    kernels = (cell["dense_i"]["kernel"], cell["dense_h"]["kernel"], cell["dense_i"]["bias"])
    return jrnn.RNNParams(*(kernel.get_value() for kernel in kernels))


def recurrences(case: Case) -> list[Recurrence]:
    """The recurrence in float32."""
    graph, empty = nnx.split(_rnn(case.I, case.H))

    def states(state: Any, xs: Any) -> Any:
        h0 = jnp.zeros((*xs.shape[1:-1], case.H), xs.dtype)
        return nnx.merge(graph, state)(xs, initial_carry=h0)

    def own(params: jrnn.RNNParams) -> Any:
        state = jax.tree.map(jnp.copy, empty)
        _set_rnn(state, params)
        return state

    return [Recurrence("flax", states, own, _get_rnn)]


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
