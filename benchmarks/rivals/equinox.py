"""equinox: a module with `Embedding`, `Linear` and `lax.scan`; it has no Elman cell.

The module takes one sequence, like equinox's layers, with `vmap` over the batch. It reads ids only:
over vectors it would be the scan "hoisted".
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.cases import Group
from benchmarks.rivals import Recurrence, in_form

OF_IDS = True


class _Network(eqx.Module):
    embedding: eqx.nn.Embedding
    recurrent: eqx.nn.Linear

    def __call__(self, ids: Any, h0: Any) -> Any:
        def step(h: Any, projected: Any) -> Any:
            h = jnp.tanh(projected + self.recurrent(h))
            return h, h

        return lax.scan(step, h0, jax.vmap(self.embedding)(ids))[1]


def recurrences(group: Group) -> list[Recurrence]:
    """An Elman network as a module of the user, of ids; a Linear of equinox is (out, in)."""
    if group.cell != "rnn":
        return []
    key, (_, _, I, H) = jax.random.key(0), group.case
    network = _Network(eqx.nn.Embedding(I, H, key=key), eqx.nn.Linear(H, H, key=key))
    empty, static = eqx.partition(network, eqx.is_array)

    def own(params: Any) -> Any:
        return in_form(empty, (params.w_ih, params.w_hh.T, params.b_h))

    def states(own: Any, ids: Any, h0: Any) -> Any:
        return jax.vmap(eqx.combine(own, static), in_axes=(1, 0), out_axes=1)(ids, h0)

    return [Recurrence("equinox", states, own)]
