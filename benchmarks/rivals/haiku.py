"""dm-haiku: `dynamic_unroll` of `LSTM` and of `VanillaRNN`, which has ReLU only.

`VanillaRNN` is compared with jrnn with `activation="relu"`. A tanh core, as a user of haiku would
write it, is measured too. haiku's GRU resets before the matmul, so it is another function, and left
out.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

import jrnn
from benchmarks.cases import CELLS, Case
from benchmarks.rivals import CharacterModel, Recurrence


class TanhRNN(hk.RNNCore):
    """`VanillaRNN` with tanh."""

    def __init__(self, hidden_size: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.hidden_size = hidden_size

    def __call__(self, inputs: Any, prev_state: Any) -> Any:
        from_inputs = hk.Linear(self.hidden_size)(inputs)
        from_state = hk.Linear(self.hidden_size, with_bias=False)(prev_state)
        out = jnp.tanh(from_inputs + from_state)
        return out, out

    def initial_state(self, batch_size: int | None) -> Any:
        shape = (self.hidden_size,) if batch_size is None else (batch_size, self.hidden_size)
        return jnp.zeros(shape)


def _names(core: str) -> tuple[str, str]:
    return f"{core}/linear", f"{core}/linear_1"


def _own_rnn(core: str, params: jrnn.RNNParams) -> dict[str, Any]:
    inputs, state = _names(core)
    w_ih, w_hh, b_h = map(jnp.asarray, params)
    return {inputs: {"w": w_ih, "b": b_h}, state: {"w": w_hh}}


def _common_rnn(core: str, own: Any) -> jrnn.RNNParams:
    inputs, state = _names(core)
    return jrnn.RNNParams(own[inputs]["w"], own[state]["w"], own[inputs]["b"])


def _own_lstm(params: Any) -> dict[str, Any]:
    w = jnp.concatenate([jnp.asarray(params.w_ih), jnp.asarray(params.w_hh)])
    own = {"w": _swapped(w), "b": _swapped(jnp.asarray(params.b_h)) - _forget_bias(params.b_h)}
    return {"lstm/linear": own}


def _common_lstm(I: int, own: Any) -> Any:
    """The 1 that haiku adds to b_f changes no gradient."""
    w, b = _swapped(own["lstm/linear"]["w"]), _swapped(own["lstm/linear"]["b"])
    return CELLS["lstm"].params(w[:I], w[I:], b)


def _swapped(x: jax.Array) -> jax.Array:
    """The gates i f g o in haiku's order i g f o, or back."""
    i, f, g, o = jnp.split(x, 4, -1)
    return jnp.concatenate([i, g, f, o], -1)


def _forget_bias(b: Any) -> jax.Array:
    """The 1 that haiku adds to the bias of f, its third gate."""
    return jnp.repeat(jnp.array([0.0, 0.0, 1.0, 0.0]), len(b) // 4)


def _recurrence(
    name: str, make_core: Any, own: Any, common: Any, activation: str = "tanh"
) -> Recurrence:
    def unroll(xs: Any) -> Any:
        module = make_core()
        batch = xs.shape[1] if xs.ndim == 3 else None  # None for one sequence
        return hk.dynamic_unroll(module, xs, module.initial_state(batch))[0]

    states = hk.without_apply_rng(hk.transform(unroll)).apply
    return Recurrence(name, states, own, common, activation)


def _elman(case: Case) -> list[Recurrence]:
    def of(name: str, make_core: Any, core: str, activation: str) -> Recurrence:
        maps = partial(_own_rnn, core), partial(_common_rnn, core)
        return _recurrence(name, make_core, *maps, activation)

    vanilla = partial(hk.VanillaRNN, case.H, double_bias=False)
    return [
        of("haiku relu", vanilla, "vanilla_rnn", "relu"),
        of("haiku own tanh", partial(TanhRNN, case.H), "tanh_rnn", "tanh"),
    ]


def _lstm(case: Case) -> list[Recurrence]:
    make_core = partial(hk.LSTM, case.H)
    return [_recurrence("haiku", make_core, _own_lstm, partial(_common_lstm, case.I))]


KINDS: dict[str, Callable[[Case], list[Recurrence]]]
KINDS = {"rnn": _elman, "lstm": _lstm, "gru": lambda case: []}


def recurrences(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """The recurrences in float32."""
    return KINDS[cell](case)


def character_models(model: Any) -> dict[str, CharacterModel]:
    """The tanh core with an `hk.Linear`; ids are one-hot vectors."""
    vocabulary, H = model.rnn.w_ih.shape

    def network(ids: Any, h0: Any) -> Any:
        hs, h_last = hk.dynamic_unroll(TanhRNN(H), jax.nn.one_hot(ids, vocabulary), h0)
        return hk.Linear(vocabulary, name="readout")(hs), h_last

    own = _own_rnn("tanh_rnn", model.rnn)
    own["readout"] = {"w": jnp.asarray(model.readout.w_ho), "b": jnp.asarray(model.readout.b_o)}

    def common(own: Any) -> Any:
        readout = jrnn.ReadoutParams(own["readout"]["w"], own["readout"]["b"])
        return _common_rnn("tanh_rnn", own), readout

    apply = hk.without_apply_rng(hk.transform(network)).apply
    return {"haiku own tanh": CharacterModel(own, apply, common)}
