"""keras on JAX: its layers through `stateless_call`, batch-first as they are.

The bias of keras' GRU has a second row, for the state, which is 0 here and not learned: the common
form has no b_hn.
"""

from typing import Any

import jax.numpy as jnp
import keras

from benchmarks.cases import Group
from benchmarks.rivals import Recurrence
from jrnn.interop import to_keras

LAYERS = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


def recurrences(group: Group) -> list[Recurrence]:
    """The recurrence in float32."""
    layer = LAYERS[group.cell](group.case.H, return_sequences=True)
    layer.build((None, None, group.case.I))
    rest = [v.value for v in layer.non_trainable_variables]

    def own(params: Any) -> list[Any]:
        w_ih, w_hh, bias = to_keras(params)
        return [w_ih, w_hh, bias[0] if group.cell == "gru" else bias]

    def states(own: Any, xs: Any) -> Any:
        w_ih, w_hh, b = own
        bias = jnp.stack([b, jnp.zeros_like(b)]) if group.cell == "gru" else b
        return layer.stateless_call([w_ih, w_hh, bias], rest, xs)[0]

    return [Recurrence("keras", states, own, batch_first=True)]
