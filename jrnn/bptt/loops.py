"""Loops over time, and the buffers that they write: uninitialised, in place."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import mesh_axes, varying

Step = Callable[[Any, jax.Array, Any], tuple[jax.Array, jax.Array]]  # weights, carry, x -> carry, y


def over_time(
    T: int, K: int, body: Callable[[Any, int, Any], Any], state: Any, reverse: bool = False
) -> Any:
    """`state = body(start, K, state)` for every K of T steps, and `body(start, rest, state)`."""
    if K >= T:
        return body(0, T, state)
    whole, rest = divmod(T, K)

    def nth(n: Any, state: Any) -> Any:
        return body((whole - 1 - n if reverse else n) * K, K, state)

    if rest and reverse:
        state = body(whole * K, rest, state)
    state = lax.fori_loop(0, whole, nth, state)
    if rest and not reverse:
        state = body(whole * K, rest, state)
    return state


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def scan(step: Step, reverse: bool, weights: Any, init: jax.Array, xs: Any) -> Any:
    """`lax.scan` of `step(weights, carry, x) -> (carry, y)`, in time linear in T in any dtype."""

    def step_in_bits(carry: jax.Array, x: Any) -> tuple[jax.Array, jax.Array]:
        carry, y = step(weights, carry, x)
        return carry, jax.tree.map(bits, y)

    carry, ys = lax.scan(step_in_bits, init, xs, reverse=reverse)
    return carry, jax.tree.map(floats, ys)


@scan.defjvp  # bits have no derivative; only differentiating twice comes here
def _scan_jvp(step: Step, reverse: bool, primals: Any, tangents: Any) -> Any:
    def plain_scan(weights: Any, init: jax.Array, xs: Any) -> Any:
        return lax.scan(partial(step, weights), init, xs, reverse=reverse)

    return jax.jvp(plain_scan, primals, tangents)


def mapped_in_front(tree: Any) -> Any:
    """The same arrays; `vmap` has its axis in front in each.

    JAX takes it to be the same axis in the results of a function and of its `custom_jvp` rule. A
    loop that writes into a buffer has it in front, a `lax.scan` behind the time.
    """
    return jax.tree.map(lambda x: lax.squeeze(lax.expand_dims(x, (0,)), (0,)), tree)


def empty(shape: tuple[int, ...], like: jax.Array) -> jax.Array:
    """A buffer for values of the dtype of `like`, which vary over the mesh as it does."""
    dtype = jnp.uint16 if like.dtype == jnp.bfloat16 else like.dtype
    buffer = lax.empty(shape, dtype)
    return varying(buffer, mesh_axes(like))


def put(buffer: jax.Array, x: jax.Array, start: Any, axis: int = 0) -> jax.Array:
    """The buffer with x from `start` of an axis on, which must not be negative."""
    update = lax.dynamic_update_slice_in_dim
    return update(buffer, bits(x), start, axis, allow_negative_indices=False)


def rows(tree: Any, start: Any, count: int) -> Any:
    """Rows start, ..., start + count - 1 of every array; `start` must not be negative."""
    take = partial(lax.dynamic_slice_in_dim, allow_negative_indices=False)
    return jax.tree.map(lambda x: take(x, start, count), tree)


def row(tree: Any, j: int) -> Any:
    """Row j of every array; `x[j]` says the same and takes ten times as long to trace."""
    return jax.tree.map(lambda x: lax.index_in_dim(x, j, keepdims=False), tree)


def bits(x: jax.Array) -> jax.Array:
    """x, or the bits of a bfloat16 x.

    XLA:CPU as of jaxlib 0.10.2 has no bfloat16 arithmetic and converts the *whole* buffer that a
    loop writes to float32 and back at every step. Bits that are not called bfloat16 are left alone.
    """
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def floats(x: jax.Array) -> jax.Array:
    """The inverse of `bits`."""
    return lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x
