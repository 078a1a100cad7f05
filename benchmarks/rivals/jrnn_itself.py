"""jrnn in the form of the rivals: the native kernel, XLA's loops, a user's cell.

The native kernel and XLA are the same call, compiled with `jrnn_native` on and off, so that one
process can time them in turn.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import jrnn
from benchmarks.cases import Group, ends
from benchmarks.rivals import Recurrence
from jrnn.cells.gru import GRU
from jrnn.cells.lstm import LSTM

GATED = {"lstm": LSTM, "gru": GRU}


def states(network: Any, params: Any, xs: Any, **options: Any) -> Any:
    """hs of a network."""
    return network(params, xs, **options)[1]


def last(network: Any, params: Any, xs: Any, **options: Any) -> Any:
    """h_last of a network, as the states of one step."""
    return jax.tree.leaves(network(params, xs, **options)[0])[0][None]


def recurrences(group: Group) -> list[Recurrence]:
    """The package's network, and a second one.

    With an option of the route or the dtype, the second is without it. Where libraries are
    measured, it is a gated cell as a user writes it, without an adjoint.
    """
    is_remat = group.route == "remat"
    network = partial(last if is_remat else states, getattr(jrnn, group.cell))
    plain = Recurrence("jrnn", network, kind="remat" if is_remat else "tanh")
    without = plain._replace(name="jrnn without")
    if is_remat:
        return [plain._replace(states=partial(network, remat=True)), without]
    if group.route == "ends":
        ended = partial(network, **ends(group.case))
        return [plain._replace(states=ended, kind="ends"), without]
    if group.dtype == "bfloat16":
        rounded = partial(network, compute_dtype=jnp.bfloat16)
        return [plain._replace(states=rounded, dtype=jnp.bfloat16), without]
    if group.cell not in GATED or not group.has_libraries:
        return [plain]
    cell = dataclasses.replace(GATED[group.cell], adjoint=None)
    return [plain, Recurrence("jrnn, a user's cell", partial(states, partial(jrnn.unroll, cell)))]


def backends(one: Recurrence, args: Any) -> list[str | None]:
    """The backends that compute a recurrence on these arguments; [None] if it is not jrnn's."""
    if not one.name.startswith("jrnn"):
        return [None]
    passes = jrnn.explain(one.states, *args)
    return ["native", "xla"] if any(p.backend.startswith("native") for p in passes) else ["xla"]
