"""Where sequences end and segments begin: lengths and resets as one mark per step.

Sequences are padded on the right: step t of a sequence of n steps is inside of it if t < n. A
segment begins at t if resets[t], whichever way it is read. Read in reverse, from the end of each
sequence to its start, the first step of a segment is read last: the state is reset before the step
that is read next, x_{t-1}.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jrnn import checks
from jrnn.arrays import ArrayLike, varying_alike
from jrnn.bptt import Marks


def sequence_mask(lengths: ArrayLike | int, T: int) -> jax.Array:
    """Which steps of right-padded sequences are inside of them; a mask of weights, for example.

    Args:
        lengths: `[B]` or `[]` integers from 0 to T, or an int; traced ones beyond that range mean
            its ends.
        T: the steps of the padded sequences.

    Returns:
        `[T, B]` or `[T]` bool: t < lengths.

    Raises:
        ValueError: lengths that are no integers, of more than one axis, or concrete and outside of
            [0, T]; a T below 1.
    """
    checks.sizes(T=T)
    checks.lengths(lengths, T, None)
    lengths = jnp.asarray(lengths)
    return jnp.arange(T).reshape(-1, *(1,) * lengths.ndim) < lengths[None]


def marks_in_order(
    shape: tuple[int, ...],
    lengths: ArrayLike | int | None,
    resets: ArrayLike | None,
    reverse: bool,
) -> Marks:
    """The marks of the kernel, in the order in which steps are read.

    Args:
        shape: (T,) or (T, B).
        lengths: as in `jrnn.rnn`.
        resets: as in `jrnn.rnn`.
        reverse: as in `jrnn.rnn`.

    Returns:
        `bptt.Marks` of bool arrays of this shape, or of None.

    Raises:
        ValueError: lengths that `sequence_mask` refuses.
    """
    valid = None
    if lengths is not None:
        lengths = jnp.broadcast_to(jnp.asarray(lengths), shape[1:])
        valid = sequence_mask(lengths, shape[0])
    if resets is None:
        return Marks(valid)
    resets = jnp.asarray(resets)
    resets = jnp.broadcast_to(
        resets.reshape(resets.shape + (1,) * (len(shape) - resets.ndim)), shape
    )
    if not reverse:
        return Marks(valid, resets)
    before_first = jnp.zeros_like(resets[:1])  # nothing is reset before the step that is read first
    return Marks(valid, jnp.concatenate([before_first, in_reverse(resets, lengths)[:-1]]))


def in_reverse(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Each sequence from its own end to its start; what comes after it stays in its place.

    Args:
        x: `[T, ...]` or `[T, B, ...]`.
        lengths: `[]` or `[B]` integers, or None.

    Returns:
        An array like x. Twice is x itself.
    """
    if lengths is None:
        return x[::-1]
    x, lengths = varying_alike((x, lengths))
    steps = jnp.arange(len(x)).reshape(-1, *(1,) * lengths.ndim)
    ends = jnp.clip(lengths.astype(steps.dtype), 0, len(x))[None]
    of = jnp.where(steps < ends, ends - 1 - steps, steps)  # [T] or [T, B]
    of = of.reshape(of.shape + (1,) * (x.ndim - of.ndim))

    def turned(x: jax.Array) -> jax.Array:
        mode = "promise_in_bounds"
        return jnp.take_along_axis(x, of, 0, mode, wrap_negative_indices=False)

    # The y whose turn is x; it is the turn of x. Every derivative of a solution, forwards and
    # backwards, is the same move, where the transpose of a gather would be a scatter.
    return lax.custom_linear_solve(turned, x, lambda turned, x: turned(x), symmetric=True)
