"""Arguments and results of the diagnostics: norms, half precision, one line of text, checks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn import checks
from jrnn.cells import UncheckedCell
from jrnn.cells.kinds import cell_of
from jrnn.types import StackParams


def norm(x: jax.Array, axis: int | None = None) -> jax.Array:
    """The Euclidean norm, scaled, because the square of 1e-20 underflows in float32.

    Args:
        x: an array.
        axis: of the vectors; None: all of x is one vector.

    Returns:
        x without the axis, or a scalar.
    """
    top = jnp.abs(x).max(axis, keepdims=True)
    top = jnp.where((top >= np.finfo(x.dtype).tiny) & jnp.isfinite(top), top, 1)
    return top.squeeze(axis) * jnp.sqrt(jnp.square(x / top).sum(axis))


def widened(tree: Any) -> Any:
    """The arrays, those in half precision in float32.

    Args:
        tree: a pytree of arrays.

    Returns:
        The pytree.
    """
    halves = (jnp.bfloat16, jnp.float16)
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype in halves else x, tree)


def cell_of_one(params: Any, activation: Any, cell: Any) -> UncheckedCell:
    """The cell of one network.

    Args:
        params: its parameters.
        activation: of an Elman network, or None.
        cell: of the user, or None.

    Returns:
        The cell.

    Raises:
        ValueError: a stack, or as `cell_of`.
    """
    if isinstance(params, StackParams):
        repair = "Of a stack: trajectory, fixed_points, lyapunov_exponents."
        checks.refuse("params", "the parameters of one network", "StackParams", repair)
    return cell_of(params, activation, cell)


def short(x: Any) -> str:
    """A result in one line: arrays of one axis by some values, of more by dtype and shape.

    Args:
        x: a NamedTuple; its fields may hold anything.

    Returns:
        The text.
    """
    if hasattr(x, "_fields"):
        parts = (f"{name}={short(part)}" for name, part in x._asdict().items())
        return f"{type(x).__name__}({', '.join(parts)})"
    if type(x) is tuple:
        return f"({', '.join(map(short, x))})"
    if not isinstance(x, (jax.Array, np.ndarray)):
        return repr(x)
    values = checks.concrete(x) if x.ndim < 2 else None
    if values is None:
        return f"{x.dtype}{list(x.shape)}"
    return np.array2string(values, precision=3, threshold=8, edgeitems=3, max_line_width=1000)


def integer_within(argument: str, value: Any, least: int, most: float, repair: str) -> None:
    """Check an argument.

    Args:
        argument: its name.
        value: its value.
        least: the smallest integer that is allowed.
        most: the largest, or infinity.
        repair: the end of the message.

    Raises:
        ValueError: not an integer, or one outside.
    """
    if not isinstance(value, (int, np.integer)) or not least <= value <= most:
        bounds = f">= {least}" if most == np.inf else f"from {least} to {most}"
        checks.refuse(argument, f"an integer {bounds}", repr(value), repair)
