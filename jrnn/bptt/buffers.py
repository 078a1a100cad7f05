"""Arrays that a loop writes, row by row: uninitialised, in place, on every mesh axis they need."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def bits(x: jax.Array) -> jax.Array:
    """x, or the bits of a bfloat16 x.

    XLA:CPU as of jaxlib 0.10.2 has no bfloat16 arithmetic and converts the *whole* buffer that a
    loop writes to float32 and back at every step. Bits that are not called bfloat16 are left alone.
    """
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def floats(x: jax.Array) -> jax.Array:
    """The inverse of `bits`."""
    return lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def empty(shape: tuple[int, ...], like: jax.Array) -> jax.Array:
    """A buffer for values of the dtype of `like`, which vary over the mesh as it does."""
    dtype = jnp.uint16 if like.dtype == jnp.bfloat16 else like.dtype
    buffer = lax.empty(shape, dtype)  # type: ignore[no-untyped-call]
    return _varying(buffer, _mesh_axes(like))


def put(buffer: jax.Array, x: jax.Array, index: Any, axis: int = 0) -> jax.Array:
    """`x` at `index` of an axis: one row, or as many as x has if it has the rank of the buffer."""
    update = lax.dynamic_update_slice_in_dim if x.ndim == buffer.ndim else _update_index
    return update(buffer, bits(x), index, axis)


def at(x: jax.Array, index: Any) -> jax.Array:
    """Row `index`."""
    return lax.dynamic_index_in_dim(x, index, keepdims=False)


def varying_alike(tree: Any) -> Any:
    """The same arrays, each varying over all the mesh axes over which one of them does.

    Outside of `shard_map` there are none.
    """
    axes = frozenset[str]().union(*(_mesh_axes(x) for x in jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: _varying(x, axes), tree)


def _mesh_axes(x: jax.Array) -> frozenset[str]:
    return jax.typeof(x).manual_axis_type.varying


def _varying(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    missing = tuple(sorted(axes - _mesh_axes(x)))
    return lax.pcast(x, missing, to="varying") if missing else x


_update_index = lax.dynamic_update_index_in_dim
