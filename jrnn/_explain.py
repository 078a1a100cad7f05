"""Which program computes a call, and why."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jrnn import checks
from jrnn.kernel.dispatch import Direction, Shape, choose, shape_of
from jrnn.kernel.transforms import PLATFORMS, calls_in
from jrnn.kernel.types import Spec

# The scopes of `_layers.py`. A loss that is fused with a stack runs forward networks only.
LAYER = re.compile(r"layers\[(\d+)\](?:/(forward|backward))?")


class Explanation(NamedTuple):
    """How one pass of one recurrence is computed.

    Attributes:
        cell: its name, such as "lstm".
        direction: of the pass, "forward" or "backward".
        shape: T, B, I (0 for ids), H and dtype.
        platform: "cpu", "cuda", "rocm" or "tpu".
        backend: the program.
        reason: why it was chosen.
        network: its place in the `StackParams`, such as "layers[1].backward"; "" for a network
            alone.
    """

    cell: str
    direction: str
    shape: Shape
    platform: str
    backend: str
    reason: str
    network: str = ""

    def __str__(self) -> str:
        """One line."""
        name = f"{self.network} ({self.cell})" if self.network else self.cell
        sizes = ", ".join(f"{axis} = {n}" for axis, n in self.shape._asdict().items())
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
        args: its arguments, arrays or `jax.ShapeDtypeStruct`.
        platform: "cpu", "cuda", "rocm" or "tpu"; None: the platform that JAX prefers here.
        kwargs: its keyword arguments.

    Returns:
        One `Explanation` for each pass of each recurrence, in the order of the program: of a stack,
        for each layer and direction. If `fn` is not a gradient, the backward passes are those of
        its gradient.

    Raises:
        ValueError: an unknown platform, or `fn` refuses its arguments.
    """
    platform = jax.default_backend() if platform is None else platform
    platform = {"gpu": "cuda"}.get(platform, platform)
    if platform not in PLATFORMS:
        checks.refuse(
            "platform", f"one of {', '.join(PLATFORMS)}, or None", platform, "None: here."
        )
    directions: dict[str, tuple[Direction, ...]]
    directions = {"rnn_forward": ("forward",), "rnn_backward": ("backward",)}
    return tuple(
        _explanation(spec, shape_of(inputs), platform, direction, _network(scopes))
        for name, scopes, spec, inputs in calls_in(jax.make_jaxpr(fn)(*args, **kwargs))
        for direction in directions.get(name, ("forward", "backward"))
    )


def _network(scopes: str) -> str:
    """The place of a network in its stack, from the scopes around its call; "" without a stack."""
    found = LAYER.findall(scopes)
    return "layers[{}].{}".format(found[-1][0], found[-1][1] or "forward") if found else ""


def _explanation(
    spec: Spec, shape: Shape, platform: str, direction: Direction, network: str
) -> Explanation:
    if spec.remat is not None:
        S, _ = spec.remat.sizes(shape)
        shape = shape._replace(T=S)
    backend, reason = choose(spec, shape, platform, direction)
    if spec.remat is not None:
        reason += f"; one of the segments of {shape.T} steps (remat)"
    return Explanation(spec.cell.name, direction, shape, platform, str(backend), reason, network)
