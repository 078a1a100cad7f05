"""jrnn's programs by the backend that computes them: the native kernel, or XLA.

Both are the same call, compiled with `jrnn_native` on and off, so that one process can time them in
turn.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax

import jrnn
from jrnn import native
from jrnn.checks import refuse

BACKENDS = ["native", "xla"]


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


def computing(function: Any, args: Any, backends: list[str]) -> list[str | None]:
    """The backends, of those given, that compute a call; [None] if it does not call jrnn."""
    with using("native"):
        passes = jrnn.explain(function, *args)
    if not passes:
        return [None]
    is_native = any(one.backend.startswith("native") for one in passes)
    return [backend for backend in backends if backend == "xla" or is_native]


def own(activation: str) -> str:
    """The name of jrnn's program with which a program of this activation is compared."""
    return "jrnn relu" if activation == "relu" else "jrnn"


def label(program: str, backend: str | None) -> str:
    """A program and its backend."""
    return program if backend is None else f"{program} ({backend})"
