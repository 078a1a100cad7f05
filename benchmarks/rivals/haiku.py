"""dm-haiku: `dynamic_unroll` of `LSTM` and of `VanillaRNN`, which has ReLU only.

`VanillaRNN` is compared with jrnn with `activation="relu"`. haiku's GRU resets before the matmul,
so it is another function, and left out.
"""

from functools import partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

import jrnn
from benchmarks.cases import Group
from benchmarks.rivals import Recurrence, in_form
from benchmarks.rivals.jrnn_itself import states
from jrnn.interop import to_haiku


def recurrences(group: Group) -> list[Recurrence]:
    """The recurrence in float32, and jrnn's with ReLU."""
    if group.cell == "gru":
        return []
    _, _, I, H = group.case
    is_lstm = group.cell == "lstm"
    core = hk.LSTM if is_lstm else partial(hk.VanillaRNN, double_bias=False)

    def unroll(xs: Any) -> Any:
        zeros = jnp.zeros((*xs.shape[1:-1], H))
        return hk.dynamic_unroll(core(H), xs, hk.LSTMState(zeros, zeros) if is_lstm else zeros)[0]

    def own(params: Any) -> Any:
        if is_lstm:
            return in_form(empty, to_haiku(params))
        linear, linear_1 = {"w": params.w_ih, "b": params.b_h}, {"w": params.w_hh}
        return in_form(empty, {"linear": linear, "linear_1": linear_1})

    init, apply = hk.without_apply_rng(hk.transform(unroll))
    empty = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 1, I)))
    if is_lstm:
        return [Recurrence("haiku", apply, own)]
    relu = Recurrence("jrnn relu", partial(states, jrnn.rnn, activation="relu"), kind="relu")
    return [relu, Recurrence("haiku relu", apply, own, kind="relu")]
