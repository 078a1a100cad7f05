"""The LSTM, in the order of the sources: Jacobians, the double sum, the recursion.

The state is s_t = (h_t, c_t), one row of 2H numbers. Jacobians have the axes (out, in), w_hh^T has
4H rows, and diag makes a matrix of a row. Blocks and gates are in the order i f g o.

    a_t     = x_t w_ih + h_{t-1} w_hh + b_h                                        (23)
    i, f, o = sigmoid of their blocks        g = tanh of its block
    c_t     = f * c_{t-1} + i * g            h_t = o * tanh(c_t)                   (24)

    dc_t/da_t     = [diag(g i (1 - i))  diag(c_{t-1} f (1 - f))  diag(i (1 - g^2))  0]
    dh_t/da_t     = diag(o (1 - tanh(c_t)^2)) dc_t/da_t + [0  0  0  diag(tanh(c_t) o (1 - o))]
    ds_t/dh_{t-1} = ds_t/da_t w_hh^T         dc_t/dc_{t-1} = diag(f)
                                             dh_t/dc_{t-1} = diag(o (1 - tanh(c_t)^2) f)

    q       = dc_t + dh_t * o * (1 - tanh(c_t)^2)
    delta_i = q * g * i * (1 - i)            delta_f = q * c_{t-1} * f * (1 - f)
    delta_g = q * i * (1 - g^2)              delta_o = dh_t * tanh(c_t) * o * (1 - o)
    dh_t    = dhs_t + delta_{t+1} w_hh^T     dc_t = q_{t+1} * f_{t+1}              (25)

`docs/gates.md` derives them. In the sources there is no gated cell.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import ArrayLike, add_bias
from jrnn.cells.lstm import LSTM
from jrnn.derivation import _checks
from jrnn.derivation.forward import errors, one_hot_inputs, readout_gradients
from jrnn.derivation.jacobians import diagonals, product
from jrnn.types import LSTMParams, LSTMState, ReadoutParams

Pair = tuple[jax.Array, jax.Array]  # h and c


class LSTMGates(NamedTuple):
    """The gates of an LSTM at every step.

    Attributes:
        i: `[T, H]` or `[T, B, H]` input gate, in (0, 1).
        f: `[T, H]` or `[T, B, H]` forget gate, in (0, 1).
        g: `[T, H]` or `[T, B, H]` candidate, in (-1, 1).
        o: `[T, H]` or `[T, B, H]` output gate, in (0, 1).
    """

    i: jax.Array
    f: jax.Array
    g: jax.Array
    o: jax.Array


class LSTMGradients(NamedTuple):
    """dJ/d of everything that is learned.

    Attributes:
        params: by the parameters of the network.
        readout: by those of the readout.
        state: of h_0 and c_0, `[H]` each; for a state of None too: the gradient at zeros.
    """

    params: LSTMParams
    readout: ReadoutParams
    state: LSTMState


class LSTMTrajectory(NamedTuple):
    """The results of a forward pass that the derivatives need, one row per step.

    Attributes:
        xs: `[T, I]` x_t; token ids as the one-hot vectors that they stand for.
        h_tm1s: `[T, H]` h_{t-1}.
        c_tm1s: `[T, H]` c_{t-1}.
        gates: `[T, H]` each.
        hs: `[T, H]` h_t.
        cs: `[T, H]` c_t.
        losses: `[T]` m_t J_t.
        dlogits: `[T, O]` dJ/do_t, (7).
        dhs: `[T, H]` m_t dJ_t/dh_t, by the loss of step t alone, (8).
    """

    xs: jax.Array
    h_tm1s: jax.Array
    c_tm1s: jax.Array
    gates: LSTMGates
    hs: jax.Array
    cs: jax.Array
    losses: jax.Array
    dlogits: jax.Array
    dhs: jax.Array


def lstm_trajectory(
    params: LSTMParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    state: LSTMState | None = None,
    *,
    weights: ArrayLike | None = None,
) -> LSTMTrajectory:
    """Run an LSTM (23), (24) and its loss over one sequence.

    Args:
        params: `w_ih [I, 4H]`, `w_hh [H, 4H]`, `b_h [4H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        state: None, or `LSTMState` of h_0 and c_0, None (zeros) or `[H]` each.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.

    Returns:
        The `LSTMTrajectory`.

    Raises:
        ValueError: a batch; parameters without `w_ih`; an error of `jrnn.lstm` or of
            `jrnn.softmax_cross_entropy`.
    """
    arguments = (params, readout_params, xs, labels, state, weights)
    _checks.loss_of_one_sequence(LSTM, *arguments, named="state")
    xs, w_hh = one_hot_inputs(params, xs), jnp.asarray(params.w_hh)
    given = (None, None) if state is None else state
    h_0, c_0 = (jnp.zeros_like(w_hh[:, 0]) if s is None else jnp.asarray(s) for s in given)
    (hs, cs), gates = _steps(params, xs, (h_0, c_0))
    h_tm1s, c_tm1s = (jnp.concatenate([s_0[None], s[:-1]]) for s_0, s in ((h_0, hs), (c_0, cs)))
    return LSTMTrajectory(
        xs, h_tm1s, c_tm1s, gates, hs, cs, *errors(readout_params, hs, labels, weights)
    )


@jax.jit
def _steps(params: LSTMParams, xs: jax.Array, first: Pair) -> tuple[Pair, LSTMGates]:
    def step(before: Pair, x_t: jax.Array) -> tuple[Pair, tuple[Pair, LSTMGates]]:
        h_tm1, c_tm1 = before
        a_t = add_bias(x_t @ params.w_ih, params.b_h) + h_tm1 @ params.w_hh  # (23)
        i, f, g, o = jnp.split(a_t, 4)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c_t = f * c_tm1 + i * g
        after = o * jnp.tanh(c_t), c_t  # (24)
        return after, (after, LSTMGates(i, f, g, o))

    return lax.scan(step, first, xs)[1]


def lstm_jacobians(params: LSTMParams, run: LSTMTrajectory, t: int) -> tuple[jax.Array, jax.Array]:
    """Compute ds_t/ds_{t-1} and ds_t/da_t, with the rows h and c and the columns h and c.

    The lower right quarter of ds_t/ds_{t-1} is diag(f): if the other three were 0, c would keep
    f_t f_{t-1} ... of its gradient, without w_hh in the product.

    Args:
        params: `LSTMParams` with `w_hh [H, 4H]`.
        run: the `LSTMTrajectory` of one sequence.
        t: 1, ..., T, as in the equations.

    Returns:
        `[2H, 2H]` and `[2H, 4H]`; entry (i, j) is the derivative of s_ti.

    Raises:
        ValueError: t outside 1..T, or states that do not fit.
    """
    _checks.gated_states(run.hs, params.w_hh)
    _checks.step_within("t", t, 1, len(run.hs), "T")
    (i, f, g, o), c_tm1 = (gate[t - 1] for gate in run.gates), run.c_tm1s[t - 1]
    tanh_c = jnp.tanh(run.cs[t - 1])
    zero, dh_dc = jnp.zeros_like(f), o * (1 - tanh_c**2)
    dc_da = diagonals(g * i * (1 - i), c_tm1 * f * (1 - f), i * (1 - g**2), zero)
    dh_da = jnp.diag(dh_dc) @ dc_da + diagonals(zero, zero, zero, tanh_c * o * (1 - o))
    ds_da = jnp.concatenate([dh_da, dc_da])
    ds_dh_tm1 = ds_da @ jnp.asarray(params.w_hh).T
    ds_dc_tm1 = jnp.concatenate([jnp.diag(dh_dc * f), jnp.diag(f)])
    return jnp.concatenate([ds_dh_tm1, ds_dc_tm1], axis=1), ds_da


def lstm_double_sum(
    params: LSTMParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    state: LSTMState | None = None,
    *,
    weights: ArrayLike | None = None,
) -> LSTMGradients:
    """The gradient of an LSTM as a sum over losses t and uses k: O(T^3 H^3), for short sequences.

        dJ/dW = sum_t sum_{k <= t}  dJ_t/ds_t  ds_t/ds_k  ds_k/da_k  da_k/dW

    Args:
        params: `w_ih [I, 4H]`, `w_hh [H, 4H]`, `b_h [4H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        state: as in `lstm_trajectory`.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.

    Returns:
        The `LSTMGradients` of J = sum_t m_t J_t.

    Raises:
        ValueError: as `lstm_trajectory`.
    """
    run = lstm_trajectory(params, readout_params, xs, labels, state, weights=weights)
    T, H = run.hs.shape
    J, ds_da = zip(*(lstm_jacobians(params, run, t) for t in range(1, T + 1)), strict=True)
    dw_ih, dw_hh, db_h = (jnp.zeros((n, 4 * H), run.hs.dtype) for n in (run.xs.shape[1], H, 1))
    ds_0 = jnp.zeros(2 * H, run.hs.dtype)
    for t in range(1, T + 1):
        dJ_ds = jnp.concatenate([run.dhs[t - 1], jnp.zeros(H, run.hs.dtype)])  # the loss reads h_t
        for k in range(1, t + 1):
            da_k = dJ_ds @ product(J, t, k) @ ds_da[k - 1]
            dw_ih += jnp.outer(run.xs[k - 1], da_k)
            dw_hh += jnp.outer(run.h_tm1s[k - 1], da_k)
            db_h += da_k[None]
        ds_0 += dJ_ds @ product(J, t, 0)
    return LSTMGradients(
        LSTMParams(dw_ih, dw_hh, None if params.b_h is None else db_h[0]),
        readout_gradients(readout_params, run.hs, run.dlogits),
        LSTMState(*jnp.split(ds_0, 2)),
    )


def lstm_recursion(
    params: LSTMParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    state: LSTMState | None = None,
    *,
    weights: ArrayLike | None = None,
) -> LSTMGradients:
    """The gradient of an LSTM by (25) as a readable loop, O(T H^2); `jrnn.lstm` is faster.

    Args:
        params: `w_ih [I, 4H]`, `w_hh [H, 4H]`, `b_h [4H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        state: as in `lstm_trajectory`.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.

    Returns:
        The `LSTMGradients` of J = sum_t m_t J_t.

    Raises:
        ValueError: as `lstm_trajectory`.
    """
    run = lstm_trajectory(params, readout_params, xs, labels, state, weights=weights)
    w_hh_transposed = jnp.asarray(params.w_hh).T
    dh_next = dc_next = jnp.zeros_like(run.hs[0])
    deltas: list[jax.Array] = []
    for t in reversed(range(len(run.hs))):
        (i, f, g, o), tanh_c = (gate[t] for gate in run.gates), jnp.tanh(run.cs[t])
        dh = run.dhs[t] + dh_next
        q = dc_next + dh * o * (1 - tanh_c**2)
        delta_i = q * g * i * (1 - i)
        delta_f = q * run.c_tm1s[t] * f * (1 - f)
        delta_g = q * i * (1 - g**2)
        delta_o = dh * tanh_c * o * (1 - o)
        delta_t = jnp.concatenate([delta_i, delta_f, delta_g, delta_o])
        dh_next, dc_next = delta_t @ w_hh_transposed, q * f  # (25)
        deltas.insert(0, delta_t)
    delta = jnp.stack(deltas)
    return LSTMGradients(
        LSTMParams(
            w_ih=run.xs.T @ delta,  # (12)
            w_hh=run.h_tm1s.T @ delta,  # (11)
            b_h=None if params.b_h is None else delta.sum(0),  # (12)
        ),
        readout_gradients(readout_params, run.hs, run.dlogits),
        LSTMState(dh_next, dc_next),
    )
