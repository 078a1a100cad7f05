"""The most direct form: a sum over every loss and every use of every weight.

    dJ/dW = sum_t sum_{k <= t}  dJ_t/dh_t  dh_t/dh_k  dh_k/da_k  da_k/dW

Wolf (2016), "Algebraic Derivatives"; Brown (2017), (21) and (24); the notebook's last formula. The
last factor is the *immediate* derivative, with h_{k-1} held fixed: x_k for w_ih, h_{k-1} for w_hh,
1 for b_h. k counts from 1, because h_0 does not depend on a weight. In the notebook k exceeds t,
which is right only if dh_t/dh_k is 0 there.
"""

import jax.numpy as jnp

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.cells.elman import Activation, ActivationName
from jrnn.derivation.forward import Gradients, trajectory
from jrnn.derivation.jacobians import product, state_jacobian
from jrnn.types import ReadoutParams, RNNParams


def gradients_double_sum(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
) -> Gradients:
    """The gradient as a double sum over losses and uses: O(T^3 H^3), for short sequences.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.
        activation: as in `jrnn.rnn`.

    Returns:
        The `Gradients` of J = sum_t m_t J_t.

    Raises:
        ValueError: a batch, or an error of `trajectory`.
    """
    checks.one_sequence(xs)
    f = trajectory(
        rnn_params, readout_params, xs, labels, h0, weights=weights, activation=activation
    )
    T, H = f.hs.shape
    dw_ih, dw_hh = jnp.zeros((f.xs.shape[1], H), f.hs.dtype), jnp.zeros((H, H), f.hs.dtype)
    db_h, dh_0 = jnp.zeros(H, f.hs.dtype), jnp.zeros(H, f.hs.dtype)
    dw_ho, db_o = jnp.zeros_like(readout_params.w_ho), jnp.zeros_like(f.dlogits[0])
    J = [state_jacobian(rnn_params, f.hs, t, activation=activation) for t in range(1, T + 1)]
    for t in range(1, T + 1):
        dh_t = f.dhs[t - 1]  # dJ_t/dh_t, (8)
        for k in range(1, t + 1):
            da_k = (dh_t @ product(J, t, k)) * f.dphis[k - 1]  # dJ_t/dh_t dh_t/dh_k dh_k/da_k
            dw_ih += jnp.outer(f.xs[k - 1], da_k)
            dw_hh += jnp.outer(f.h_tm1s[k - 1], da_k)
            db_h += da_k
        dh_0 += dh_t @ product(J, t, 0)
        dw_ho += jnp.outer(f.hs[t - 1], f.dlogits[t - 1])  # only o_t uses w_ho at t, (10)
        db_o += f.dlogits[t - 1]
    return Gradients(
        RNNParams(dw_ih, dw_hh, None if rnn_params.b_h is None else db_h),
        ReadoutParams(dw_ho, None if readout_params.b_o is None else db_o),
        dh_0,
    )
