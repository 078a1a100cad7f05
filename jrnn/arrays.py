"""Small things that several parts need: ids, biases, wide floats, draws, leaves by name."""

import json
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = jax.Array | np.ndarray  # what a user may hand in
# (key, shape, dtype) -> array, as those of `jax.nn.initializers` are.
Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]
InputsAre = Literal["ids", "features"]  # the option `inputs` of `jrnn.rnn`


def are_ids(x: ArrayLike) -> bool:
    """Whether an array holds token ids or labels: integers of any kind."""
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def reading(xs: ArrayLike) -> InputsAre:
    """How inputs were read that have passed the checks, for another call."""
    return "ids" if are_ids(xs) else "features"


def steps(xs: ArrayLike) -> tuple[int, ...]:
    """The axes in front of the features, (T,) or (T, B); ids have no features."""
    return xs.shape if are_ids(xs) else xs.shape[:-1]


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves by their paths, as `params.w_hh`; no two have one name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(".".join(path_key(_simple(key)) for key in path), leaf) for path, leaf in leaves]


def path_key(key: str | int) -> str:
    """A key or a position as a part of a path; in quotes where a path could be read otherwise."""
    text = str(key)
    return text if re.fullmatch(r"[\w/~-]+", text) else json.dumps(text)


def _simple(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)


def at_least_float32(x: ArrayLike) -> jax.Array:
    """x, or a half-precision x in float32."""
    return jnp.asarray(x, wide(jnp.result_type(x)))


def add_bias(x: jax.Array, b: ArrayLike | None) -> jax.Array:
    """x [..., H] + b [H], or x. Its transpose, a sum over all positions, is made in float32."""
    if b is None:
        return x
    wide = at_least_float32(b).reshape((1,) * (x.ndim - 1) + (-1,))
    return (at_least_float32(x) + wide).astype(x.dtype)


def matmul_precision() -> str | None:
    """Read where the user calls: JAX may trace the backward pass outside of the user's `with`."""
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined,unused-ignore]


def mesh_axes(x: jax.Array) -> frozenset[str]:
    """The mesh axes along which x differs from device to device, inside of `jax.shard_map`."""
    return frozenset(jax.typeof(x).manual_axis_type.varying)


def varying(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    """x as each device's own along these mesh axes, too; its transpose is the sum over them."""
    missing = tuple(sorted(axes - mesh_axes(x)))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def varying_alike(tree: Any) -> Any:
    """The same arrays, each varying over all the mesh axes over which one of them does."""
    axes = frozenset[str]().union(*map(mesh_axes, jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: varying(x, axes), tree)


def draw(init: Initializer, key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Random parameters; of half precision too, for which LAPACK has no orthogonal matrix."""
    return init(key, shape, wide(dtype)).astype(dtype)


def wide(dtype: np.dtype) -> np.dtype:
    """At least float32."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
