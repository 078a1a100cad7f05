"""The shortcut that Wolf (2016) "leaves to you": one reverse loop that carries the error.

    delta_t = phi'(h_t) * (dhs_t + delta_{t+1} w_hh^T)                              (9)

The posts that Wolf cites name its carry: `dhnext` in Karpathy's min-char-rnn is delta_{t+1} w_hh^T;
`delta_t` in WildML's tutorial is delta_t; the sum of the e's in "RNN Maths" (e^{t=2f3} + e^{t=2f2},
the errors of h_2 from the losses of steps 3 and 2) is dhs_t + dhnext. Chavan (2026), "Phase 1",
steps 6 and 7, has the recursion for dL/dh_i with a loss at the last step only; he stops before
dW_hh, which is (11) below.
"""

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.cells.elman import Activation, ActivationName
from jrnn.derivation.forward import Gradients, Trajectory, readout_gradients, trajectory
from jrnn.types import ReadoutParams, RNNParams


def gradients_recursion(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
) -> Gradients:
    """The gradient by (9) as a readable loop, O(T H^2); `jrnn.rnn` computes the same faster.

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
    w_hh_transposed = jnp.asarray(rnn_params.w_hh).T
    dhnext = jnp.zeros_like(f.hs[0])
    deltas: list[jax.Array] = []
    for t in reversed(range(len(f.hs))):
        delta_t = f.dphis[t] * (f.dhs[t] + dhnext)  # (9)
        dhnext = delta_t @ w_hh_transposed
        deltas.insert(0, delta_t)
    return assemble(rnn_params, readout_params, f, jnp.stack(deltas), dhnext)


def assemble(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    f: Trajectory,
    deltas: jax.Array,
    dh_0: jax.Array,
) -> Gradients:
    """Compute the gradients from the deltas, by (10)-(13).

    Args:
        rnn_params: `RNNParams`; `b_h` may be None.
        readout_params: `ReadoutParams`; `b_o` may be None.
        f: the `Trajectory` of one sequence.
        deltas: `[T, H]` delta_t.
        dh_0: `[H]` the cotangent of h_0.

    Returns:
        The `Gradients`.
    """
    return Gradients(
        RNNParams(
            w_ih=f.xs.T @ deltas,  # (12)
            w_hh=f.h_tm1s.T @ deltas,  # (11)
            b_h=None if rnn_params.b_h is None else deltas.sum(0),  # (12)
        ),
        readout_gradients(readout_params, f.hs, f.dlogits),  # (10)
        dh_0,
    )
