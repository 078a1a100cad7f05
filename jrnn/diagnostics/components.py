"""Principal components of the states: the directions in which a network moves most.

The directions are the right singular vectors of the states minus their mean; the variances are the
squared singular values, divided by the number of states (Pearson, On lines and planes of closest
fit to systems of points in space, 1901).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.diagnostics.basics import integer_within, short, widened


class PrincipalComponents(NamedTuple):
    """The result of `principal_components` for n components of N state variables.

    Attributes:
        mean: `[N]` of the states.
        directions: `[N, n]` orthonormal columns; the largest entry of each is positive.
        variances: `[n]` of the states along the directions, the largest first.
        total: `[]` the variance of the states in all N directions.
    """

    mean: jax.Array
    directions: jax.Array
    variances: jax.Array
    total: jax.Array

    def __repr__(self) -> str:
        """One line."""
        return short(self)


def principal_components(
    states: Any, n: int | None = None, *, mask: ArrayLike | None = None
) -> PrincipalComponents:
    """Compute the principal components of states.

    Args:
        states: `[T, H]`, `[T, B, H]` or any `[..., H]`, outputs hs or states of `trajectory`; an
            `LSTMState` or a tuple of arrays is one state of all their variables, N in all. Half
            precision is computed in float32.
        n: the number of components; None: min(N, number of states).
        mask: `[...]` bool, the states that count; None: all. For padded sequences it is
            `jrnn.sequence_mask(lengths, T)`.

    Returns:
        `PrincipalComponents`, with the variance divided by the number of states (as `jnp.var`).

    Raises:
        ValueError: states without leading axes or with different ones, a mask of another shape, n
            outside its range.
    """
    checks.states_alike(states, mask)
    flat = widened(flat_states(states))
    most = min(flat.shape[-1], flat.size // flat.shape[-1])
    n = most if n is None else n
    integer_within("n", n, 1, most, "There are as many as state variables, or states if fewer.")
    return _principal_components(flat, mask, n=int(n))


@partial(jax.jit, static_argnames="n")
def _principal_components(
    flat: jax.Array, mask: jax.Array | None, *, n: int
) -> PrincipalComponents:
    rows = flat.reshape(-1, flat.shape[-1])
    counted = jnp.ones((len(rows), 1), bool) if mask is None else mask.reshape(-1, 1)
    mean = rows.mean(0, where=counted)
    centred = jnp.where(counted, rows - mean[None], 0)
    # The triangle of the QR decomposition has the same singular values and right vectors.
    _, scales, directions = jnp.linalg.svd(jnp.linalg.qr(centred, mode="r"), full_matrices=False)
    signs = jnp.sign(jnp.take_along_axis(directions, jnp.abs(directions).argmax(1)[:, None], 1))
    variances = jnp.square(scales) / counted.sum(dtype=scales.dtype)
    return PrincipalComponents(mean, (directions * signs)[:n].T, variances[:n], variances.sum())


def project(components: PrincipalComponents, states: Any) -> jax.Array:
    """Compute the coordinates of states along principal components.

    Args:
        components: the result of `principal_components`.
        states: `[..., H]` or a tuple of arrays, with the variables that the components have.

    Returns:
        `[..., n]`: (states - mean) @ directions.

    Raises:
        ValueError: not `PrincipalComponents`; states with different leading axes, or of another
            number of variables.
    """
    checks.result_of("components", components, PrincipalComponents, "principal_components")
    checks.states_of_components(states, components.mean.shape[0])
    flat = widened(flat_states(states)).astype(components.mean.dtype)
    mean = components.mean.reshape((1,) * (flat.ndim - 1) + (-1,))
    return (flat - mean) @ components.directions


def flat_states(states: Any) -> jax.Array:
    """All state variables in one array.

    Args:
        states: an array `[..., H]`, or a pytree of them with equal leading axes.

    Returns:
        `[..., N]`.
    """
    return jnp.concatenate([jnp.asarray(x) for x in jax.tree.leaves(states)], -1)
