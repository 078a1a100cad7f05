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
from benchmarks.rivals import Recurrence, in_form
from jrnn.interop import to_haiku


def _tanh(hidden_size: int) -> Any:
    """A core of the user: `VanillaRNN` with tanh."""
    of_inputs, of_state = hk.Linear(hidden_size), hk.Linear(hidden_size, with_bias=False)

    def core(inputs: Any, state: Any) -> Any:
        out = jnp.tanh(of_inputs(inputs) + of_state(state))
        return out, out

    return core


def _elman(params: Any) -> dict[str, Any]:
    return {"linear": {"w": params.w_ih, "b": params.b_h}, "linear_1": {"w": params.w_hh}}


KINDS: dict[str, list[tuple[str, Any, Any, str]]] = {  # name, core, arrays, activation
    "rnn": [
        ("haiku relu", partial(hk.VanillaRNN, double_bias=False), _elman, "relu"),
        ("haiku own tanh", _tanh, _elman, "tanh"),
    ],
    "lstm": [("haiku", hk.LSTM, to_haiku, "tanh")],
    "gru": [],
}


def recurrences(group: Group) -> list[Recurrence]:
    """The recurrences in float32."""
    return [_recurrence(group.case, *kind) for kind in KINDS[group.cell]]


def _recurrence(case: Case, name: str, core: Any, arrays: Any, activation: str) -> Recurrence:
    def unroll(xs: Any) -> Any:
        zeros = jnp.zeros((*xs.shape[1:-1], case.H))
        start = hk.LSTMState(zeros, zeros) if core is hk.LSTM else zeros
        return hk.dynamic_unroll(core(case.H), xs, start)[0]

    init, apply = hk.without_apply_rng(hk.transform(unroll))
    empty = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 1, case.I)))
    return Recurrence(name, apply, lambda params: in_form(empty, arrays(params)), activation)
