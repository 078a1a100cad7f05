"""dm-haiku: `dynamic_unroll` of `LSTM` and of `VanillaRNN`, which has ReLU only.

`VanillaRNN` is compared with jrnn with `activation="relu"`. A tanh core, as a user of haiku would
write it, is measured too. haiku's GRU resets before the matmul, so it is another function, and left
out.
"""

from functools import partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from benchmarks.cases import Case
from benchmarks.rivals import Recurrence, filled


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


def _elman(params: Any) -> dict[str, Any]:
    w_ih, w_hh, b_h = params
    return {"linear w": w_ih, "linear_1 w": w_hh, "linear b": b_h}


def _lstm(params: Any) -> dict[str, Any]:
    """One matrix for inputs and states, gates i g f o; haiku adds 1 to the bias of f."""
    w, b = (
        jnp.concatenate([i, g, f, o], -1)
        for i, f, g, o in (
            jnp.split(p, 4, -1) for p in (jnp.concatenate(params[:2]), jnp.asarray(params.b_h))
        )
    )
    return {"linear w": w, "linear b": b - jnp.repeat(jnp.array([0.0, 0.0, 1.0, 0.0]), len(b) // 4)}


KINDS: dict[str, list[tuple[str, Any, Any, str]]] = {  # name, core, arrays, activation
    "rnn": [
        ("haiku relu", partial(hk.VanillaRNN, double_bias=False), _elman, "relu"),
        ("haiku own tanh", TanhRNN, _elman, "tanh"),
    ],
    "lstm": [("haiku", hk.LSTM, _lstm, "tanh")],
    "gru": [],
}


def recurrences(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """The recurrences in float32."""
    return [_recurrence(case, *kind) for kind in KINDS[cell]]


def _recurrence(case: Case, name: str, core: Any, arrays: Any, activation: str) -> Recurrence:
    def unroll(xs: Any, h0: Any = None) -> Any:
        module = core(case.H)
        batch = xs.shape[1] if xs.ndim == 3 else None  # None for one sequence
        return hk.dynamic_unroll(module, xs, module.initial_state(batch) if h0 is None else h0)[0]

    init, apply = hk.without_apply_rng(hk.transform(unroll))
    empty = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 1, case.I)))
    return Recurrence(name, apply, lambda params: filled(empty, arrays(params)), activation)


def readout(H: int, O: int) -> tuple[Any, Any]:
    """An `hk.Linear`."""
    apply = hk.without_apply_rng(hk.transform(lambda hs: hk.Linear(O)(hs))).apply
    return lambda params: {"linear": {"w": params.w_ho, "b": params.b_o}}, apply
