"""equinox: a module with `Embedding`, `Linear` and `lax.scan`; it has no Elman cell.

The module takes one sequence, like equinox's layers, with `vmap` over the batch. Ids are looked up.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import jrnn
from benchmarks.cases import Case
from benchmarks.rivals import CharacterModel, Recurrence


class _Model(eqx.Module):
    embedding: eqx.nn.Embedding
    recurrent: eqx.nn.Linear
    readout: eqx.nn.Linear

    def __call__(self, ids: Any, h0: Any) -> Any:
        def step(h: Any, projected: Any) -> Any:
            h = jnp.tanh(projected + self.recurrent(h))
            return h, h

        h_last, hs = lax.scan(step, h0, jax.vmap(self.embedding)(ids))
        return jax.vmap(self.readout)(hs), h_last


def recurrences(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """No programs: a recurrence over vectors would be the scan "hoisted"."""
    return []


def character_models(model: Any) -> dict[str, CharacterModel]:
    """The character model as a module of the user."""
    vocabulary, H = model.rnn.w_ih.shape
    keys = jax.random.split(jax.random.key(0), 2)
    own = _Model(
        eqx.nn.Embedding(weight=jnp.asarray(model.rnn.w_ih)),
        eqx.nn.Linear(H, H, key=keys[0]),
        eqx.nn.Linear(H, vocabulary, key=keys[1]),
    )
    # A Linear of equinox is (out, in).
    own = eqx.tree_at(
        lambda m: (m.recurrent.weight, m.recurrent.bias, m.readout.weight, m.readout.bias),
        own,
        (model.rnn.w_hh.T, model.rnn.b_h, model.readout.w_ho.T, model.readout.b_o),
    )
    arrays, static = eqx.partition(own, eqx.is_array)

    def logits(arrays: Any, ids: Any, h0: Any) -> Any:
        batched = jax.vmap(eqx.combine(arrays, static), in_axes=(1, 0), out_axes=(1, 0))
        return batched(ids, h0)

    def common(arrays: Any) -> Any:
        rnn = (arrays.embedding.weight, arrays.recurrent.weight.T, arrays.recurrent.bias)
        readout = (arrays.readout.weight.T, arrays.readout.bias)
        return jrnn.RNNParams(*rnn), jrnn.ReadoutParams(*readout)

    return {"equinox": CharacterModel(arrays, logits, common)}
