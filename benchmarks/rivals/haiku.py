"""dm-haiku: `dynamic_unroll` of `VanillaRNN`, which has ReLU only.

It is compared with jrnn with `activation="relu"`. A tanh core, as a user of haiku would write it,
is measured too.
"""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

import jrnn
from benchmarks.cases import Case
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


def _recurrence(case: Case, name: str, make_core: Any, core: str, activation: str) -> Recurrence:
    def unroll(xs: Any) -> Any:
        module = make_core()
        batch = xs.shape[1] if xs.ndim == 3 else None  # None for one sequence
        return hk.dynamic_unroll(module, xs, module.initial_state(batch))[0]

    return Recurrence(
        name,
        hk.without_apply_rng(hk.transform(unroll)).apply,
        lambda params: _own_rnn(core, params),
        lambda own: _common_rnn(core, own),
        activation,
    )


def recurrences(case: Case) -> list[Recurrence]:
    """The recurrences in float32."""
    return [
        _recurrence(
            case,
            "haiku relu",
            lambda: hk.VanillaRNN(case.H, double_bias=False),
            "vanilla_rnn",
            "relu",
        ),
        _recurrence(case, "haiku own tanh", lambda: TanhRNN(case.H), "tanh_rnn", "tanh"),
    ]


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
