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

from benchmarks.cases import Case, Group
from benchmarks.rivals import Recurrence, filled


def _tanh(hidden_size: int) -> Any:
    """A core of the user: `VanillaRNN` with tanh."""
    of_inputs, of_state = hk.Linear(hidden_size), hk.Linear(hidden_size, with_bias=False)

    def core(inputs: Any, state: Any) -> Any:
        out = jnp.tanh(of_inputs(inputs) + of_state(state))
        return out, out

    return core


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
        ("haiku own tanh", _tanh, _elman, "tanh"),
    ],
    "lstm": [("haiku", hk.LSTM, _lstm, "tanh")],
    "gru": [],
}


def recurrences(group: Group) -> list[Recurrence]:
    """The recurrences in float32."""
    return [_recurrence(group.case, *kind) for kind in KINDS[group.cell]]


def _recurrence(case: Case, name: str, core: Any, arrays: Any, activation: str) -> Recurrence:
    def unroll(xs: Any, h0: Any = None) -> Any:
        zeros = jnp.zeros((*xs.shape[1:-1], case.H))
        start = hk.LSTMState(zeros, zeros) if core is hk.LSTM else zeros if h0 is None else h0
        return hk.dynamic_unroll(core(case.H), xs, start)[0]

    init, apply = hk.without_apply_rng(hk.transform(unroll))
    empty = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 1, case.I)))
    return Recurrence(name, apply, lambda params: filled(empty, arrays(params)), activation)


def readout(H: int, O: int) -> tuple[Any, Any]:
    """An `hk.Linear`."""
    apply = hk.without_apply_rng(hk.transform(lambda hs: hk.Linear(O)(hs))).apply
    return lambda params: {"linear": {"w": params.w_ho, "b": params.b_o}}, apply
