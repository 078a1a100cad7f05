"""Padded sequences: which of their steps count, and the mean over those.

The mean over the v steps of a sequence that count:

    y = (y_1 + ... + y_v) / v             and 0 for v = 0                          (22)
"""

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.arrays import ArrayLike, at_least_float32
from jrnn.kernel.masking import per_step, steps_inside


def sequence_mask(lengths: ArrayLike | int, T: int) -> jax.Array:
    """Which steps of right-padded sequences are no padding; for example, a mask of weights.

    Args:
        lengths: `[B]` or `[]` integers from 0 to T, or an int; traced ones are clipped to that
            range.
        T: the steps of the padded sequences.

    Returns:
        `[T, B]` or `[T]` bool: t < lengths.

    Raises:
        ValueError: lengths that are no integers, have more than one axis, or are concrete and
            outside [0, T]; a T below 1.
    """
    checks.sizes(T=T)
    checks.lengths(lengths, T, None)
    return steps_inside(lengths, T)


def counted_steps(
    lead: tuple[int, ...], lengths: ArrayLike | int | None, mask: ArrayLike | None
) -> jax.Array:
    """Which steps count, by lengths or by a mask.

    Args:
        lead: (T,) or (T, B).
        lengths: as in `jrnn.rnn`; or None.
        mask: as in `jrnn.rnn`; or None.

    Returns:
        Bool of the shape `lead`.
    """
    if mask is None:
        mask = steps_inside(jnp.broadcast_to(jnp.asarray(lengths), lead[1:]), lead[0])
    return per_step(mask, lead)


def mean_over_time(
    hs: ArrayLike, lengths: ArrayLike | int | None = None, mask: ArrayLike | None = None
) -> jax.Array:
    """The mean of the states of a sequence, (22), for a readout of the whole sequence.

    Args:
        hs: `[T, H]` or `[T, B, H]` states. The padding changes nothing, even if it is NaN.
        lengths: `[]` or `[B]` integers in [0, T], the steps that are not padding; None is all.
        mask: `[T]` or `[T, B]` bool, the steps that count, in place of `lengths`.

    Returns:
        `[H]` or `[B, H]` in the dtype of hs, summed in at least float32; 0 where no step counts.

    Raises:
        ValueError: a shape or a dtype that does not fit, or concrete lengths outside [0, T].
            Lengths outside that only the compiled program sees are clipped.
    """
    checks.mean_arguments(hs, lengths, mask)
    return _mean_over_time(hs, lengths, mask)


@jax.jit
def _mean_over_time(hs: jax.Array, lengths: jax.Array | None, mask: jax.Array | None) -> jax.Array:
    wide = at_least_float32(hs)
    if lengths is None and mask is None:
        return wide.mean(0).astype(hs.dtype)
    inside = counted_steps(hs.shape[:-1], lengths, mask)
    steps = jnp.maximum(inside.sum(0), 1).astype(wide.dtype)
    mean = jnp.where(inside[..., None], wide, 0).sum(0) / steps[..., None]  # (22)
    return mean.astype(hs.dtype)
