"""Small things that the recurrence and the loss both need: ids, biases, wide floats, draws."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer

ArrayLike = jax.Array | np.ndarray  # what a user may hand in


def are_ids(x: ArrayLike) -> bool:
    """Whether an array holds token ids or labels: integers of any kind."""
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def at_least_float32(x: ArrayLike) -> jax.Array:
    """x, or a half-precision x in float32."""
    return jnp.asarray(x, _wide(jnp.result_type(x)))


def add_bias(x: jax.Array, b: ArrayLike | None) -> jax.Array:
    """x [..., H] + b [H], or x. Its transpose, a sum over all positions, is made in float32."""
    if b is None:
        return x
    wide = at_least_float32(b).reshape((1,) * (x.ndim - 1) + (-1,))
    return (at_least_float32(x) + wide).astype(x.dtype)


def mesh_axes(x: jax.Array) -> frozenset[str]:
    """The mesh axes along which x differs from device to device, inside of `jax.shard_map`."""
    return frozenset(jax.typeof(x).manual_axis_type.varying)


def draw(init: Initializer, key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Random parameters; of half precision too, for which LAPACK has no orthogonal matrix."""
    return init(key, shape, _wide(dtype)).astype(dtype)


def _wide(dtype: np.dtype) -> np.dtype:
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
