"""Which program computes a call, and why."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jrnn import checks
from jrnn.kernel.backends.xla import XLA
from jrnn.kernel.dispatch import Direction, Shape, choose
from jrnn.kernel.passes import Pass, devices_of, passes_in
from jrnn.kernel.reference import Reference
from jrnn.kernel.types import Backend, Spec
from jrnn.primitives import PLATFORMS

# The scopes of `_layers.py`. A loss that is fused with a stack runs forward networks only.
LAYER = re.compile(r"layers\[(\d+)\](?:/(forward|backward))?")


class Explanation(NamedTuple):
    """How one pass of one recurrence is computed.

    Attributes:
        cell: its name, such as "lstm".
        direction: of the pass, "forward" or "backward".
        shape: T, B, I (0 for ids), H and the dtype of the parameters.
        platform: "cpu", "cuda", "rocm" or "tpu".
        backend: the program.
        reason: why it was chosen.
        network: its place in the `StackParams`, such as "layers[1].backward"; "" for a network
            alone.
        compute_dtype: of the matmul operands; None: that of the parameters.
    """

    cell: str
    direction: str
    shape: Shape
    platform: str
    backend: str
    reason: str
    network: str = ""
    compute_dtype: np.dtype | None = None

    def __str__(self) -> str:
        """One line."""
        name = f"{self.network} ({self.cell})" if self.network else self.cell
        given = self.shape._asdict()
        if self.compute_dtype is not None:
            given["compute_dtype"] = self.compute_dtype
        sizes = ", ".join(f"{axis} = {n}" for axis, n in given.items())
        call = f"{name}, {self.direction} pass on {self.platform}, {sizes}"
        return f"{call}: {self.backend}; {self.reason}"


def explain(
    fn: Callable[..., Any], *args: Any, platform: str | None = None, **kwargs: Any
) -> tuple[Explanation, ...]:
    """Say which backend computes the recurrences of a call, and why. Nothing is run.

        print(*jrnn.explain(jrnn.rnn, params, xs), sep="\\n")

    Args:
        fn: a network such as `jrnn.rnn`, or a function that calls one: a loss, its gradient, a
            training step.
        args: its arguments, arrays or `jax.ShapeDtypeStruct`; all else in them is an option.
        platform: "cpu", "cuda", "rocm" or "tpu"; None: the platform that JAX prefers here.
        kwargs: its keyword arguments.

    Returns:
        One `Explanation` for each pass of each recurrence, in the order of the program: of a stack,
        for each layer and direction. If `fn` is not a gradient, the backward passes are those of
        its gradient. It is the program of `jax.jit`; one of `jax.export` has no native code.

    Raises:
        ValueError: an unknown platform; `fn` is no function, refuses its arguments, or has no
            recurrence.
    """
    if not callable(fn):
        came, repair = type(fn).__name__, "jrnn.explain(jrnn.rnn, params, xs), for example."
        checks.refuse("fn", "a function", came, repair)
    platform = jax.default_backend() if platform is None else platform
    platform = {"gpu": "cuda"}.get(platform, platform)
    if platform not in PLATFORMS:
        checks.refuse(
            "platform", f"one of {', '.join(PLATFORMS)}, or None", platform, "None: here."
        )
    leaves, tree = jax.tree.flatten((args, kwargs))
    arrays = {n: x for n, x in enumerate(leaves) if _is_array(x)}

    def of_arrays(*given: Any) -> Any:
        at = dict(zip(arrays, given, strict=True))
        args, kwargs = jax.tree.unflatten(tree, [at.get(n, x) for n, x in enumerate(leaves)])
        return fn(*args, **kwargs)

    traced = jax.make_jaxpr(of_arrays)(*arrays.values())
    shardings = [getattr(x, "sharding", None) for x in arrays.values()]
    devices = max([devices_of(traced), *(s.num_devices for s in shardings if s is not None)])
    found: list[Explanation] = []
    for one in passes_in(traced, devices):
        explanation = _explanation(one, platform)
        if one.spec is not None or explanation not in found:
            found.append(explanation)
    if not found:
        repair = "XLA computes the functions of jrnn.derivation, and what jax.export has written."
        checks.refuse("fn", "a function that calls a network of jrnn", "one without", repair)
    return tuple(found)


def _is_array(x: Any) -> bool:
    """Whether an argument is an array or its type; an option is none."""
    return hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, (type, np.generic))


def _network(scopes: str) -> str:
    """The place of a network in its stack, from the scopes around its call; "" without a stack."""
    found = LAYER.findall(scopes)
    return "layers[{}].{}".format(found[-1][0], found[-1][1] or "forward") if found else ""


def _explanation(one: Pass, platform: str) -> Explanation:
    cell, direction, shape, rounded, scopes, spec = one
    backend: Backend = Reference()
    reason, of_segment = "JAX differentiates a gradient once more", ""
    if spec is not None:
        if spec.remat is not None:
            shape, of_segment = _segment(spec, shape, platform, direction)
        backend, reason = choose(spec, shape, platform, direction)
    call = cell, direction, shape, platform, _name(backend, direction), reason + of_segment
    return Explanation(*call, _network(scopes), rounded)


def _segment(spec: Spec, shape: Shape, platform: str, direction: Direction) -> tuple[Shape, str]:
    """The shape of a segment under `remat`, and a sentence of it."""
    S, N = spec.remat.sizes(shape)
    shape = shape._replace(T=S)
    text = f"; one of the segments of {S} steps (remat)"
    if direction == "backward":
        together = shape if shape.B is None else shape._replace(B=N * shape.B)
        again = choose(spec, together, platform, "forward").backend
        text += f", computed again {N} at a time: {_name(again, 'forward')}"
    return shape, text


def _name(backend: Backend, direction: Direction) -> str:
    """A backend in the words of users."""
    if isinstance(backend, XLA):
        steps = getattr(backend.schedule, f"{direction}_chunk")
        return f"XLA, chunks of {steps} steps" if steps > 1 else "XLA, step by step"
    return "XLA, a plain scan" if isinstance(backend, Reference) else str(backend)
