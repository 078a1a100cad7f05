"""What a call brings beside its parameters, and how a state enters a step: the front of (15).

What is None costs nothing: without lengths, resets and a mask the functions here are identities.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import ArrayLike, are_ids
from jrnn.bptt.loops import rows


class Marks(NamedTuple):
    """Of the steps of a sequence [T], of a batch [T, B], or of one step [] or [B]; bool."""

    valid: jax.Array | None = None  # v_t, the step is inside of its sequence; None: every one is
    reset: jax.Array | None = None  # r_t, a segment begins with it; None: with none


class Entry(NamedTuple):
    """What a state meets on its way into a step, [H] or [B, H]; or the cotangents of that."""

    reset_state: ArrayLike | None = None  # h_r; None: zeros
    mask: ArrayLike | None = None  # m; None: ones


class Inputs(NamedTuple):
    """In the order in which it is read: what is outside of a sequence comes after it."""

    xs: Any  # [T, I] or [T, B, I], or ids [T] or [T, B], whose cotangent is None
    h0: jax.Array  # [H] or [B, H]
    marks: Marks = Marks()
    entry: Entry = Entry()


def batch_of_one(inputs: Inputs) -> Inputs:
    """One sequence as a batch `[T, 1, ...]`."""
    return _at(inputs, None)


def as_one_batch(inputs: Inputs) -> Inputs:
    """The batch `[T, N, ...]` of N sequences, or `[T, N * B, ...]` of N batches, N in front."""
    axes = inputs.h0.ndim - 1  # that become one

    def steps(x: jax.Array) -> jax.Array:
        return lax.collapse(x.swapaxes(0, 1), 1, 1 + axes)

    xs, h0, marks, entry = inputs
    xs, marks = jax.tree.map(steps, (xs, marks))
    h0, entry = jax.tree.map(lambda h: lax.collapse(h, 0, axes), (h0, entry))
    return Inputs(xs, h0, marks, entry)


def only_one(inputs: Inputs) -> Inputs:
    """The inverse of `batch_of_one`."""
    return _at(inputs, 0)


def _at(inputs: Inputs, b: int | None) -> Inputs:
    """Indexed by b on the axis of the batch."""
    xs, h0, marks, entry = inputs
    xs, marks = jax.tree.map(lambda x: x[:, b], (xs, marks))
    h0, entry = jax.tree.map(lambda h: h[b], (h0, entry))
    return Inputs(xs, h0, marks, entry)


def inside(marks: Marks, x: jax.Array, outside: Any = 0.0) -> jax.Array:
    """x [..., n], and where a step is outside of its sequence what stands there."""
    return x if marks.valid is None else jnp.where(marks.valid[..., None], x, outside)


def inputs_inside(marks: Marks, xs: jax.Array) -> jax.Array:
    """x_t or ids, and 0 outside: where JAX differentiates, NaN * 0 would be NaN."""
    return inside(marks, xs[..., None], 0)[..., 0] if are_ids(xs) else inside(marks, xs)


def entering(marks: Marks, entry: Entry, h_tm1: jax.Array) -> jax.Array:
    """e_{t-1}: h_{t-1}, or the reset state where a segment begins."""
    if marks.reset is None:
        return h_tm1
    start: Any = 0.0 if entry.reset_state is None else _alike(entry.reset_state, h_tm1)
    return jnp.where(marks.reset[..., None], start, h_tm1)


def masked(entry: Entry, e_tm1: jax.Array) -> jax.Array:
    """m * e_{t-1}, what w_hh is multiplied by."""
    return e_tm1 if entry.mask is None else _alike(entry.mask, e_tm1) * e_tm1


def states_entering(inputs: Inputs, hs: jax.Array, start: Any, K: int) -> jax.Array:
    """e_{t-1} of K steps from `start` on, in the dtype of hs; right for steps inside."""
    before = rows(hs, jnp.maximum(start - 1, 0), 1)
    h_tm1s = jnp.where(start == 0, inputs.h0.astype(hs.dtype)[None], before)
    if K > 1:
        h_tm1s = jnp.concatenate([h_tm1s, rows(hs, start, K - 1)])
    return entering(rows(inputs.marks, start, K), inputs.entry, h_tm1s)


class Links(NamedTuple):
    """The marks as the backward pass meets them; [T], [T, B], or of one step."""

    marks: Marks
    cut: jax.Array | None  # r_{t+1}: nothing of the next step reaches this one
    last: jax.Array | None  # the sequence ends with this step: dh_last reaches it


def links(marks: Marks) -> Links:
    """With them (16) holds no cotangent in the padding: c_t is 0 there."""
    valid, reset = marks
    cut = None if reset is None else _next(reset)
    return Links(marks, cut, None if valid is None else valid & ~_next(valid))


def _next(x: jax.Array) -> jax.Array:
    return jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])


def arriving(at: Links, c_t: jax.Array, dh_last: jax.Array) -> jax.Array:
    """What reaches h_t from after step t, where c_t is what step t + 1 sends to its e_t."""
    if at.cut is not None:
        c_t = jnp.where(at.cut[..., None], 0.0, c_t)
    return c_t if at.last is None else jnp.where(at.last[..., None], dh_last, c_t)


def reaching_h0(marks: Marks, c_0: jax.Array, dh_last: jax.Array) -> jax.Array:
    """dh_0, of what the first step sends to its e_0."""
    if marks.reset is not None:
        c_0 = jnp.where(marks.reset[0][..., None], 0.0, c_0)
    return c_0 if marks.valid is None else jnp.where(marks.valid[0][..., None], c_0, dh_last)


def _alike(x: ArrayLike, like: jax.Array) -> jax.Array:
    """x with the rank and the dtype of an array that has an axis of time in front, or not."""
    return jnp.asarray(x).reshape((1,) * (like.ndim - x.ndim) + x.shape).astype(like.dtype)
