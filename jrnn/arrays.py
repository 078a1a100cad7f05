"""Shared helpers: token ids, biases, float32 accumulation, random parameters, names of leaves."""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = jax.Array | np.ndarray  # accepted from users
# (key, shape, dtype) -> array, as in `jax.nn.initializers`.
Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]
InputsAre = Literal["ids", "features"]  # the option `inputs` of `jrnn.rnn`


def are_ids(x: ArrayLike) -> bool:
    """Whether an array holds token ids or labels: integers of any kind."""
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def in_32_bits(ids: ArrayLike) -> jax.Array:
    """Ids as int32; those that do not fit stay out of range.

    JAX casts the indices of an array to 32 bits, where 2^32 + 1 would be row 1.
    """
    limits, largest = np.iinfo(ids.dtype), np.iinfo(np.int32).max
    if limits.max > largest:
        ids = jnp.clip(ids, max(limits.min, -1), largest)
    return jnp.asarray(ids, jnp.int32)


def reading(xs: ArrayLike) -> InputsAre:
    """The option `inputs` that reads checked inputs the same way in another call."""
    return "ids" if are_ids(xs) else "features"


def steps(xs: ArrayLike) -> tuple[int, ...]:
    """The axes before the features: (T,) or (T, B). Ids have no feature axis."""
    return xs.shape if are_ids(xs) else xs.shape[:-1]


def rows(tree: Any, start: Any, count: int) -> Any:
    """Rows start, ..., start + count - 1 of every array; `start` must not be negative."""
    take = partial(jax.lax.dynamic_slice_in_dim, allow_negative_indices=False)
    return jax.tree.map(lambda x: take(x, start, count), tree)


def bits(x: jax.Array) -> jax.Array:
    """x, or the bits of a bfloat16 x.

    XLA:CPU as of jaxlib 0.10.2 has no bfloat16 arithmetic and converts the *whole* buffer that a
    loop writes to float32 and back at every step: 27 times the time at T = 1024, B = 1, H = 128.
    """
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def floats(x: jax.Array) -> jax.Array:
    """The inverse of `bits`."""
    return jax.lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves with their paths, such as `params.w_hh`; every path is unique."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(".".join(path_key(_simple(key)) for key in path), leaf) for path, leaf in leaves]


def path_key(key: str | int) -> str:
    """A key or position as part of a path; quoted if it contains other characters."""
    text = str(key)
    return text if re.fullmatch(r"[\w/~-]+", text) else json.dumps(text)


def _simple(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)


def at_least_float32(x: ArrayLike) -> jax.Array:
    """x in its dtype, or in float32 if it is half precision."""
    return jnp.asarray(x, wide(jnp.result_type(x)))


def wide_floats(x: jax.Array) -> jax.Array:
    """x, in float32 if it is half precision; integers and bool as they are."""
    return at_least_float32(x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def broadcast(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`jnp.broadcast_to`, of which the transpose sums half precision in float32."""
    return jnp.broadcast_to(wide_floats(x), shape).astype(x.dtype)


def add_bias(x: jax.Array, b: ArrayLike | None) -> jax.Array:
    """x [..., H] + b [H], or x. Its transpose sums over all positions in float32."""
    if b is None:
        return x
    wide = at_least_float32(b).reshape((1,) * (x.ndim - 1) + (-1,))
    return (at_least_float32(x) + wide).astype(x.dtype)


def matmul_precision() -> str | None:
    """The setting at the call: JAX may trace the backward pass outside the user's `with`."""
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined,unused-ignore]


def mesh_axes(x: jax.Array) -> frozenset[str]:
    """The mesh axes over which x varies, inside `jax.shard_map`."""
    return frozenset(jax.typeof(x).manual_axis_type.varying)


def devices_of_this_process() -> int:
    """The number of devices that share a call in a `jax.shard_map`, as it is traced; else 1."""
    mesh = jax.sharding.get_abstract_mesh()
    devices = math.prod(mesh.shape[name] for name in mesh.manual_axes)
    return max(devices // jax.process_count(), 1)


def varying(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    """x, varying over these mesh axes too; the transpose sums over them."""
    missing = tuple(sorted(axes - mesh_axes(x)))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def varying_alike(tree: Any) -> Any:
    """The arrays, each varying over every mesh axis over which any of them varies."""
    axes = frozenset[str]().union(*map(mesh_axes, jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: varying(x, axes), tree)


def draw(init: Initializer, key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Random parameters, drawn in at least float32: LAPACK has no half-precision QR."""
    return init(key, shape, wide(dtype)).astype(dtype)


def wide(dtype: np.dtype) -> np.dtype:
    """float64 for float64, else float32."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
