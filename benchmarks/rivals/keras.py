"""keras on JAX: its layers through `stateless_call`, batch-first as they are.

The gates of keras' GRU are z r h. Its bias has a second row, for the state, which is 0 here and not
learned: the common form has no b_hn.
"""

from typing import Any

import jax.numpy as jnp
import keras

from benchmarks.cases import Group
from benchmarks.rivals import Recurrence
from jrnn.checks import refuse

if keras.backend.backend() != "jax":
    came = f"the backend {keras.backend.backend()}"
    refuse("--rivals", "keras on JAX", came, "Set KERAS_BACKEND=jax, or leave keras out.")

# The layers, and the gates of the common form in the order of keras.
KINDS = {
    "rnn": (keras.layers.SimpleRNN, (0,)),
    "lstm": (keras.layers.LSTM, (0, 1, 2, 3)),
    "gru": (keras.layers.GRU, (1, 0, 2)),
}


def recurrences(group: Group) -> list[Recurrence]:
    """The recurrence in float32."""
    make, order = KINDS[group.cell]
    layer = make(group.case.H, return_sequences=True)
    layer.build((None, None, group.case.I))
    rest = [v.value for v in layer.non_trainable_variables]

    def own(params: Any) -> list[Any]:
        parts = (jnp.split(jnp.asarray(p), len(order), -1) for p in params[:3])
        return [jnp.concatenate([part[n] for n in order], -1) for part in parts]

    def states(own: Any, xs: Any, h0: Any = None) -> Any:
        w_ih, w_hh, b = own
        bias = jnp.stack([b, jnp.zeros_like(b)]) if group.cell == "gru" else b
        start = {} if h0 is None else {"initial_state": h0}
        return layer.stateless_call([w_ih, w_hh, bias], rest, xs, **start)[0]

    return [Recurrence("keras", states, own, batch_first=True)]


def readout(H: int, O: int) -> tuple[Any, Any]:
    """A `Dense`."""
    layer = keras.layers.Dense(O)
    layer.build((None, None, H))
    return list, lambda own, hs: layer.stateless_call(own, [], hs)[0]
