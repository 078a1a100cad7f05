"""jrnn in the form of the rivals: the native kernel, XLA's loops, a user's cell.

The native kernel and XLA are the same call, compiled with `jrnn_native` on and off, so that one
process can time them in turn.
"""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import jrnn
from benchmarks.cases import Group, ends
from benchmarks.rivals import Recurrence
from jrnn import native
from jrnn.cells.gru import GRU
from jrnn.cells.lstm import LSTM
from jrnn.checks import refuse

BACKENDS = ["native", "xla"]
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
    full = plain = Recurrence("jrnn", network, kind="remat" if is_remat else "tanh")
    if group.route == "ends":
        full = full._replace(states=partial(network, **ends(group.case)), kind="ends")
    if is_remat:
        full = full._replace(states=partial(network, remat=True))
    if group.dtype == "bfloat16":
        rounded = partial(full.states, compute_dtype=jnp.bfloat16)
        full = full._replace(states=rounded, state_dtype=jnp.bfloat16)
    if full is not plain:
        return [full, plain._replace(name="jrnn without")]
    if group.cell not in GATED or not group.has_libraries:
        return [plain]
    cell = dataclasses.replace(GATED[group.cell], adjoint=None)
    return [plain, Recurrence("jrnn, a user's cell", partial(states, partial(jrnn.unroll, cell)))]


# For a rival that has only relu.
RELU = Recurrence("jrnn relu", partial(states, jrnn.rnn, activation="relu"), kind="relu")


def using(backend: str | None) -> AbstractContextManager[Any]:
    """Compile for this backend inside the block; None changes nothing."""
    return nullcontext() if backend is None else native.turned(backend == "native")


def wanted(named: list[str] | None) -> list[str]:
    """The backends to measure, without repeats; None: both where the native kernel may run."""
    if named is None:
        return BACKENDS if native.enabled() and jax.default_backend() == "cpu" else ["xla"]
    if "native" in named and not native.available():
        repair = "Leave --backends out, or name xla."
        refuse("--backends", "a native kernel that can run here", native.why_not(), repair)
    return list(dict.fromkeys(named))


def computing(one: Recurrence, args: Any, backends: list[str]) -> list[str | None]:
    """The backends, of those given, that compute a recurrence; [None] if it is not jrnn's."""
    if not one.name.startswith("jrnn"):
        return [None]
    with using("native"):
        passes = jrnn.explain(one.states, *args)
    is_native = any(one.backend.startswith("native") for one in passes)
    return [backend for backend in backends if backend == "xla" or is_native]
