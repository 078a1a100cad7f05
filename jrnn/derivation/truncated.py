"""Two kinds of truncated BPTT, and their distance from the exact gradient.

    window w   the gradient of each J_t goes back through steps t, t - 1, ..., t - w + 1
    chunk C    the sequence is cut every C steps; the state crosses a cut, the gradient does not

They are different gradients: a window goes back equally far from every loss; a chunk hardly goes
back from the first losses after a cut. WildML's `bptt_truncate` is w - 1; `jrnn.training` uses
chunks. Window 1 is Brown's (2017) equation (15), the immediate derivative at every step, which his
(17) completes. With w >= T or C >= T both are exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.arrays import ArrayLike, at_least_float32
from jrnn.cells.elman import Activation, ActivationName
from jrnn.derivation import _checks
from jrnn.derivation.decompositions import deltas_by_loss, deltas_by_use
from jrnn.derivation.forward import Gradients, Trajectory, trajectory
from jrnn.derivation.recursion import assemble
from jrnn.types import ReadoutParams, RNNParams


def gradients_truncated(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    window: int | None = None,
    chunk: int | None = None,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
) -> Gradients:
    """Compute the gradient of truncated BPTT, by `window` or by `chunk`.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        window: how many steps the gradient of each loss goes back, at least 1. O(T^2 H^2).
        chunk: steps between two cuts, at least 1. O(T H^2).
        weights: m, `[T]`, `[]` or None, as in `trajectory`.
        activation: as in `jrnn.rnn`.

    Returns:
        The truncated `Gradients`; that of h_0 includes only the losses that reach it.

    Raises:
        ValueError: both or neither of window and chunk, one below 1, a batch, sizes that need more
            than 4 GB, or an error of `trajectory`.
    """
    checks.one_sequence(xs)
    _checks.window_or_chunk(window, chunk)
    f = trajectory(
        rnn_params, readout_params, xs, labels, h0, weights=weights, activation=activation
    )
    w_hh, T = jnp.asarray(rnn_params.w_hh), len(f.hs)
    if window is not None:
        deltas = _by_window(f, w_hh, min(window, T))  # any larger is the same
    elif chunk is not None:
        deltas = deltas_by_use(f, w_hh, min(chunk, T))
    return assemble(rnn_params, readout_params, f, deltas, deltas[0] @ w_hh.T)


def _by_window(f: Trajectory, w_hh: jax.Array, window: int) -> jax.Array:
    steps = jnp.arange(len(f.hs))
    back = steps[:, None] - steps[None]  # t - k
    return jnp.where((back < window)[..., None], deltas_by_loss(f, w_hh), 0).sum(0)


class GradientDistance(NamedTuple):
    """Two gradients, each as one long vector.

    Attributes:
        norm_ratio: `[]` |found| / |exact|.
        cosine: `[]` of the angle between them.
    """

    norm_ratio: jax.Array
    cosine: jax.Array


def gradient_distance(found: Gradients, exact: Gradients) -> GradientDistance:
    """Compare a gradient with the exact one; the result is (1, 1) if they are equal, zeros too.

    Args:
        found: any pytree of arrays.
        exact: a pytree of the same structure.

    Returns:
        The `GradientDistance`, over all arrays together.
    """
    (norm, unit), (exact_norm, exact_unit) = map(_norm_and_direction, (found, exact))
    ratio = jnp.where(norm == exact_norm, 1, norm / exact_norm)
    return GradientDistance(ratio, jnp.where((norm == 0) & (exact_norm == 0), 1, unit @ exact_unit))


def _norm_and_direction(tree: Gradients) -> tuple[jax.Array, jax.Array]:
    """The norm over all arrays, and all numbers divided by it; both 0 of zeros.

    The largest number is divided out first: squares of 1e-25 and of 1e25 are not in float32.
    """
    flat = jnp.concatenate([at_least_float32(x).ravel() for x in jax.tree.leaves(tree)])
    top = jnp.abs(flat).max()
    flat = flat / jnp.where(top == 0, 1, top)
    norm = jnp.sqrt(jnp.square(flat).sum())
    return top * norm, flat / jnp.where(norm == 0, 1, norm)
