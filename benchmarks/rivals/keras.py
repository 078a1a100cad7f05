"""keras on JAX: its layers through `stateless_call`, batch-first as they are.

The gates of keras' GRU are z r h. Its bias has a second row, for the state, which is 0 here and not
learned: the common form has no b_hn.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras

import jrnn
from benchmarks.cases import CELLS, Case
from benchmarks.rivals import CharacterModel, Recurrence
from jrnn.checks import refuse

if keras.backend.backend() != "jax":
    came = f"the backend {keras.backend.backend()}"
    refuse("--rivals", "keras on JAX", came, "Set KERAS_BACKEND=jax, or leave keras out.")


class Kind(NamedTuple):
    """One of keras' layers, its gates and its bias."""

    layer: Callable[..., Any]
    order: tuple[int, ...]  # the gates of the common form in the order of keras, or back
    bias: Callable[[jax.Array], jax.Array] = lambda b: b  # b_h in the form of keras


KINDS = {
    "rnn": Kind(keras.layers.SimpleRNN, (0,)),
    "lstm": Kind(keras.layers.LSTM, (0, 1, 2, 3)),
    "gru": Kind(keras.layers.GRU, (1, 0, 2), lambda b: jnp.stack([b, jnp.zeros_like(b)])),
}


def _own_rnn(params: Any, order: tuple[int, ...] = (0,)) -> list[Any]:
    parts = (jnp.split(jnp.asarray(p), len(order), -1) for p in params[:3])
    return [jnp.concatenate([part[n] for n in order], -1) for part in parts]


def recurrences(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """The recurrence in float32."""
    kind = KINDS[cell]
    layer = kind.layer(case.H, return_sequences=True)
    layer.build((case.B, case.T, case.I))
    rest = [v.value for v in layer.non_trainable_variables]

    def states(own: Any, xs: Any) -> Any:
        return layer.stateless_call([*own[:2], kind.bias(own[2])], rest, xs)[0]

    def common(own: Any) -> Any:
        return CELLS[cell].params(*_own_rnn(own, kind.order))

    own = partial(_own_rnn, order=kind.order)
    return [Recurrence("keras", states, own, common, batch_first=True)]


def character_models(model: Any) -> dict[str, CharacterModel]:
    """The model with a `Dense`; ids are one-hot vectors."""
    vocabulary, H = model.rnn.w_ih.shape
    rnn = keras.layers.SimpleRNN(H, return_sequences=True, return_state=True)
    readout = keras.layers.Dense(vocabulary)
    rnn.build((None, None, vocabulary))
    readout.build((None, None, H))
    rest = [v.value for v in rnn.non_trainable_variables]
    readout_arrays = [jnp.asarray(model.readout.w_ho), jnp.asarray(model.readout.b_o)]

    def logits(own: Any, ids: Any, h0: Any) -> Any:
        xs = jax.nn.one_hot(ids, vocabulary)
        (hs, h_last), _ = rnn.stateless_call(own["rnn"], rest, xs, initial_state=h0)
        return readout.stateless_call(own["readout"], [], hs)[0], h_last

    def common(own: Any) -> Any:
        return jrnn.RNNParams(*own["rnn"]), jrnn.ReadoutParams(*own["readout"])

    own = {"rnn": _own_rnn(model.rnn), "readout": readout_arrays}
    return {"keras": CharacterModel(own, logits, common, batch_first=True)}
