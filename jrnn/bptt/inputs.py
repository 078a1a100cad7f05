"""What a call brings beside its parameters, and how a state enters a step: the front of (15).

What is None costs nothing: without lengths, resets and a mask the functions here are identities.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrnn.arrays import ArrayLike
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
    """In the order in which it is read. The marks are those of sequences that end once."""

    xs: Any  # [T, I] or [T, B, I], or ids [T] or [T, B], whose cotangent is None
    h0: jax.Array  # [H] or [B, H]
    marks: Marks = Marks()
    entry: Entry = Entry()


def batch_of_one(inputs: Inputs) -> Inputs:
    """One sequence as a batch `[T, 1, ...]`."""
    xs, h0, marks, entry = inputs
    xs, marks = jax.tree.map(lambda x: x[:, None], (xs, marks))
    h0, entry = jax.tree.map(lambda h: h[None], (h0, entry))
    return Inputs(xs, h0, marks, entry)


def only_one(inputs: Inputs) -> Inputs:
    """The inverse of `batch_of_one`."""
    xs, h0, marks, entry = inputs
    xs, marks = jax.tree.map(lambda x: x[:, 0], (xs, marks))
    h0, entry = jax.tree.map(lambda h: h[0], (h0, entry))
    return Inputs(xs, h0, marks, entry)


def inside(marks: Marks, x: jax.Array, outside: Any = 0.0) -> jax.Array:
    """x [..., n], and where a step is outside of its sequence what stands there."""
    return x if marks.valid is None else jnp.where(marks.valid[..., None], x, outside)


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
    """e_{t-1} of K steps from `start` on, in the dtype of hs; right for steps inside.

    hs has zeros outside, where h_0 is still held if the sequence begins later on.
    """
    h0 = inputs.h0.astype(hs.dtype)[None]

    def held(t: Any, count: int) -> jax.Array:
        return inside(rows(inputs.marks, t, count), rows(hs, t, count), h0)

    h_tm1s = jnp.where(start == 0, h0, held(jnp.maximum(start - 1, 0), 1))
    if K > 1:
        h_tm1s = jnp.concatenate([h_tm1s, held(start, K - 1)])
    return entering(rows(inputs.marks, start, K), inputs.entry, h_tm1s)


def _alike(x: ArrayLike, like: jax.Array) -> jax.Array:
    """x with the rank and the dtype of an array that has an axis of time in front, or not."""
    return jnp.asarray(x).reshape((1,) * (like.ndim - x.ndim) + x.shape).astype(like.dtype)
