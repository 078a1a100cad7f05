"""keras on JAX: `SimpleRNN` through `stateless_call`, batch-first like its layers."""

from typing import Any

import jax
import jax.numpy as jnp
import keras

import jrnn
from benchmarks.cases import Case
from benchmarks.rivals import CharacterModel, Recurrence
from jrnn.checks import refuse

if keras.backend.backend() != "jax":
    came = f"the backend {keras.backend.backend()}"
    refuse("--rivals", "keras on JAX", came, "Set KERAS_BACKEND=jax, or leave keras out.")


def _own_rnn(params: jrnn.RNNParams) -> list[Any]:
    return [jnp.asarray(params.w_ih), jnp.asarray(params.w_hh), jnp.asarray(params.b_h)]


def recurrences(case: Case) -> list[Recurrence]:
    """The recurrence in float32."""
    layer = keras.layers.SimpleRNN(case.H, return_sequences=True)
    layer.build((case.B, case.T, case.I))
    rest = [v.value for v in layer.non_trainable_variables]

    def states(own: Any, xs: Any) -> Any:
        return layer.stateless_call(own, rest, xs)[0]

    return [
        Recurrence("keras", states, _own_rnn, lambda own: jrnn.RNNParams(*own), batch_first=True)
    ]


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
