"""The double sum, summed over one index: by loss, or by use. Equal totals, different terms.

    delta_{t,k} = dJ_t/da_k, for the loss of step t only; 0 for k > t

    by loss   dJ_t/dw_hh = sum_k h_{k-1}^T delta_{t,k}          all paths from one loss
    by use    h_{k-1}^T delta_k,  delta_k = sum_t delta_{t,k}   all losses through one use

Wolf (2016) quotes a post that writes both as dJ^{t=2}/dw, and calls the second reading
"categorically false". It is the second decomposition; "delaying" the errors means using it. By
loss, step t needs only its own label: dJ_3/dw_ih does not depend on labels 1 and 2.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.cells.elman import Activation, ActivationName
from jrnn.derivation import _checks
from jrnn.derivation.forward import Gradients, Trajectory, trajectory
from jrnn.types import ReadoutParams, RNNParams


def deltas_by_loss(f: Trajectory, w_hh: jax.Array) -> jax.Array:
    """Compute delta_{t,k} for every t and k.

    Args:
        f: the `Trajectory` of one sequence.
        w_hh: `[H, H]`.

    Returns:
        `[T, T, H]`, entry [t, k] is dJ_{t+1}/da_{k+1}; 0 above the diagonal.
    """
    T, H = f.hs.shape
    _checks.affordable("deltas by loss", T * T * H * f.hs.dtype.itemsize)
    return _deltas_by_loss(f, w_hh)


@jax.jit
def _deltas_by_loss(f: Trajectory, w_hh: jax.Array) -> jax.Array:
    def step_back(e: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        e = e.at[k].add(f.dhs[k])  # [T, H]: dJ_t/dh_k for every t >= k, (8)
        deltas = e * f.dphis[k][None]
        return deltas @ w_hh.T, deltas

    zeros = jnp.zeros_like(f.hs)
    steps = jnp.arange(len(f.hs))
    return lax.scan(step_back, zeros, steps, reverse=True)[1].swapaxes(0, 1)


@partial(jax.jit, static_argnames="chunk")
def deltas_by_use(f: Trajectory, w_hh: jax.Array, chunk: int) -> jax.Array:
    """Compute delta_k of all losses, by (9), which is cut after every `chunk` steps.

    Args:
        f: the `Trajectory` of one sequence.
        w_hh: `[H, H]`.
        chunk: steps between two cuts; T for none.

    Returns:
        `[T, H]`.
    """

    def step_back(
        c: jax.Array, row: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        dhs_k, dphi_k, cut_after = row
        delta_k = dphi_k * (dhs_k + jnp.where(cut_after, 0, c))  # (9), except at a cut
        return delta_k @ w_hh.T, delta_k

    cut_after = (jnp.arange(len(f.hs)) + 1) % chunk == 0
    rows = (f.dhs, f.dphis, cut_after)
    return lax.scan(step_back, jnp.zeros_like(f.hs[0]), rows, reverse=True)[1]


def gradients_per_step(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
) -> Gradients:
    """Gradients by loss: dJ_t/dW for every t, over all paths from one loss. O(T^2 H^2).

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.
        activation: as in `jrnn.rnn`.

    Returns:
        `Gradients` with a leading axis T in every array; the sum over it is the gradient.

    Raises:
        ValueError: a batch, sizes that need more than 4 GB, or an error of `trajectory`.
    """
    checks.one_sequence(xs)
    f = trajectory(
        rnn_params, readout_params, xs, labels, h0, weights=weights, activation=activation
    )
    T, H = f.hs.shape
    _checks.affordable("gradients per step", T * H * (H + f.xs.shape[1]) * f.hs.dtype.itemsize)
    deltas = deltas_by_loss(f, jnp.asarray(rnn_params.w_hh))
    return _pack(
        rnn_params,
        readout_params,
        dw_ih=jnp.einsum("ki,tkj->tij", f.xs, deltas),
        dw_hh=jnp.einsum("ki,tkj->tij", f.h_tm1s, deltas),
        db_h=deltas.sum(1),
        f=f,
        dh_0=deltas[:, 0] @ jnp.asarray(rnn_params.w_hh).T,
    )


def gradients_per_use(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
) -> Gradients:
    """Gradients by use: x_k^T delta_k and h_{k-1}^T delta_k for every k, of all losses.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`; only the first step uses it.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.
        activation: as in `jrnn.rnn`.

    Returns:
        `Gradients` with a leading axis T in every array; the sum over it is the gradient.

    Raises:
        ValueError: a batch, sizes that need more than 4 GB, or an error of `trajectory`.
    """
    checks.one_sequence(xs)
    f = trajectory(
        rnn_params, readout_params, xs, labels, h0, weights=weights, activation=activation
    )
    T, H = f.hs.shape
    _checks.affordable("gradients per use", T * H * (H + f.xs.shape[1]) * f.hs.dtype.itemsize)
    w_hh = jnp.asarray(rnn_params.w_hh)
    deltas = deltas_by_use(f, w_hh, T)
    return _pack(
        rnn_params,
        readout_params,
        dw_ih=jnp.einsum("ki,kj->kij", f.xs, deltas),
        dw_hh=jnp.einsum("ki,kj->kij", f.h_tm1s, deltas),
        db_h=deltas,
        f=f,
        dh_0=jnp.zeros_like(f.hs).at[0].set(deltas[0] @ w_hh.T),
    )


def _pack(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    *,
    dw_ih: jax.Array,
    dw_hh: jax.Array,
    db_h: jax.Array,
    f: Trajectory,
    dh_0: jax.Array,
) -> Gradients:
    """Add the readout, whose terms are equal in both: each use belongs to one loss."""
    dw_ho = jnp.einsum("ti,tj->tij", f.hs, f.dlogits)  # (10)
    return Gradients(
        RNNParams(dw_ih, dw_hh, None if rnn_params.b_h is None else db_h),
        ReadoutParams(dw_ho, None if readout_params.b_o is None else f.dlogits),
        dh_0,
    )
