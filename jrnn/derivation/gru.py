"""The GRU, in the order of the sources: Jacobians, the double sum, the recursion.

Jacobians have the axes (out, in), and diag makes a matrix of a row. The blocks of a_t and of
delta_t are in the order r z n u; x_t feeds r z n, h_{t-1} feeds r z u, and w_hh^T has the rows of
r z u.

    a_t  = [x_t w_ih] + [h_{t-1} w_hh] + b                                         (23)
    r, z = sigmoid of their blocks           n = tanh(a_n + r * a_u)
    h_t  = n + z * (h_{t-1} - n)                                                   (26)

    dh_t/da_n = diag((1 - z) (1 - n^2))      dh_t/da_u = dh_t/da_n diag(r)
    dh_t/da_r = dh_t/da_n diag(a_u r (1 - r))
    dh_t/da_z = diag((h_{t-1} - n) z (1 - z))
    dh_t/dh_{t-1} = diag(z) + [dh_t/da_r  dh_t/da_z  dh_t/da_u] w_hh^T

    delta_n = dh_t * (1 - z) * (1 - n^2)     delta_r = delta_n * a_u * r * (1 - r)
    delta_z = dh_t * (h_{t-1} - n) * z * (1 - z)             delta_u = delta_n * r
    dh_t    = dhs_t + [delta_r delta_z delta_u]_{t+1} w_hh^T + dh_{t+1} * z_{t+1}  (27)

`docs/gates.md` derives them. In the sources there is no gated cell.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import ArrayLike, add_bias
from jrnn.cells.gru import GRU
from jrnn.derivation import _checks
from jrnn.derivation.forward import errors, one_hot_inputs, readout_gradients
from jrnn.derivation.jacobians import diagonals, product
from jrnn.types import GRUParams, ReadoutParams


class GRUGates(NamedTuple):
    """The gates of a GRU at every step.

    Attributes:
        r: `[T, H]` or `[T, B, H]` reset gate, in (0, 1).
        z: `[T, H]` or `[T, B, H]` update gate, in (0, 1); at 1 the state stays as it is.
        n: `[T, H]` or `[T, B, H]` candidate, in (-1, 1).
    """

    r: jax.Array
    z: jax.Array
    n: jax.Array


class GRUGradients(NamedTuple):
    """dJ/d of everything that is learned.

    Attributes:
        params: by the parameters of the network.
        readout: by those of the readout.
        state: `[H]` of h_0, for a state of None too: the gradient at zeros.
    """

    params: GRUParams
    readout: ReadoutParams
    state: jax.Array


class GRUTrajectory(NamedTuple):
    """The results of a forward pass that the derivatives need, one row per step.

    Attributes:
        xs: `[T, I]` x_t; token ids as the one-hot vectors that they stand for.
        h_tm1s: `[T, H]` h_{t-1}.
        gates: `[T, H]` each.
        us: `[T, H]` a_u = h_{t-1} w_hn + b_hn, which r multiplies.
        hs: `[T, H]` h_t.
        losses: `[T]` m_t J_t.
        dlogits: `[T, O]` dJ/do_t, (7).
        dhs: `[T, H]` m_t dJ_t/dh_t, by the loss of step t alone, (8).
    """

    xs: jax.Array
    h_tm1s: jax.Array
    gates: GRUGates
    us: jax.Array
    hs: jax.Array
    losses: jax.Array
    dlogits: jax.Array
    dhs: jax.Array


def gru_trajectory(
    params: GRUParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
) -> GRUTrajectory:
    """Run a GRU (23), (26) and its loss over one sequence.

    Args:
        params: `w_ih [I, 3H]`, `w_hh [H, 3H]`, `b_h [3H]` or None, `b_hn [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.

    Returns:
        The `GRUTrajectory`.

    Raises:
        ValueError: a batch; parameters without `w_ih`; an error of `jrnn.gru` or of
            `jrnn.softmax_cross_entropy`.
    """
    arguments = (params, readout_params, xs, labels, h0, weights)
    _checks.loss_of_one_sequence(GRU, *arguments, named="h0")
    xs, w_hh = one_hot_inputs(params, xs), jnp.asarray(params.w_hh)
    h_0 = jnp.zeros_like(w_hh[:, 0]) if h0 is None else jnp.asarray(h0)
    hs, r, z, n, us = _steps(params, xs, h_0)
    h_tm1s = jnp.concatenate([h_0[None], hs[:-1]])
    return GRUTrajectory(
        xs, h_tm1s, GRUGates(r, z, n), us, hs, *errors(readout_params, hs, labels, weights)
    )


@jax.jit
def _steps(params: GRUParams, xs: jax.Array, h_0: jax.Array) -> tuple[jax.Array, ...]:
    def step(h_tm1: jax.Array, x_t: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        x_r, x_z, x_n = jnp.split(add_bias(x_t @ params.w_ih, params.b_h), 3)
        h_r, h_z, h_n = jnp.split(h_tm1 @ params.w_hh, 3)
        r, z, u = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z), add_bias(h_n, params.b_hn)
        n = jnp.tanh(x_n + r * u)
        h_t = n + z * (h_tm1 - n)  # (26)
        return h_t, (h_t, r, z, n, u)

    return lax.scan(step, h_0, xs)[1]


def gru_jacobians(params: GRUParams, run: GRUTrajectory, t: int) -> tuple[jax.Array, jax.Array]:
    """Compute dh_t/dh_{t-1} and dh_t/da_t, whose columns are r z n u.

    The first has the summand diag(z): where z is 1, the gradient passes unchanged.

    Args:
        params: `GRUParams` with `w_hh [H, 3H]`.
        run: the `GRUTrajectory` of one sequence.
        t: 1, ..., T, as in the equations.

    Returns:
        `[H, H]` and `[H, 4H]`; entry (i, j) is the derivative of h_ti.

    Raises:
        ValueError: t outside 1..T, or states that do not fit.
    """
    _checks.gated_states(run.hs, params.w_hh)
    _checks.step_within("t", t, 1, len(run.hs), "T")
    (r, z, n), u, h_tm1 = (gate[t - 1] for gate in run.gates), run.us[t - 1], run.h_tm1s[t - 1]
    dh_dn = (1 - z) * (1 - n**2)
    dh_da = diagonals(dh_dn * u * r * (1 - r), (h_tm1 - n) * z * (1 - z), dh_dn, dh_dn * r)
    return jnp.diag(z) + _of_the_state(dh_da) @ jnp.asarray(params.w_hh).T, dh_da


def _of_the_input(da: jax.Array) -> jax.Array:
    """The columns r z n of [..., 4H], which x_t feeds."""
    return jnp.split(da, (da.shape[-1] // 4 * 3,), axis=-1)[0]


def _of_the_state(da: jax.Array) -> jax.Array:
    """The columns r z u of [..., 4H], which h_{t-1} feeds."""
    r, z, _, u = jnp.split(da, 4, axis=-1)
    return jnp.concatenate([r, z, u], axis=-1)


def gru_double_sum(
    params: GRUParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
) -> GRUGradients:
    """The gradient of a GRU as a sum over losses t and uses k: O(T^3 H^3), for short sequences.

        dJ/dW = sum_t sum_{k <= t}  dJ_t/dh_t  dh_t/dh_k  dh_k/da_k  da_k/dW

    Args:
        params: `w_ih [I, 3H]`, `w_hh [H, 3H]`, `b_h [3H]` or None, `b_hn [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.

    Returns:
        The `GRUGradients` of J = sum_t m_t J_t.

    Raises:
        ValueError: as `gru_trajectory`.
    """
    run = gru_trajectory(params, readout_params, xs, labels, h0, weights=weights)
    T, H = run.hs.shape
    J, dh_da = zip(*(gru_jacobians(params, run, t) for t in range(1, T + 1)), strict=True)
    dw_ih, dw_hh = (jnp.zeros((n, 3 * H), run.hs.dtype) for n in (run.xs.shape[1], H))
    db, dh_0 = jnp.zeros(4 * H, run.hs.dtype), jnp.zeros(H, run.hs.dtype)
    for t in range(1, T + 1):
        for k in range(1, t + 1):
            da_k = run.dhs[t - 1] @ product(J, t, k) @ dh_da[k - 1]
            dw_ih += jnp.outer(run.xs[k - 1], _of_the_input(da_k))
            dw_hh += jnp.outer(run.h_tm1s[k - 1], _of_the_state(da_k))
            db += da_k
        dh_0 += run.dhs[t - 1] @ product(J, t, 0)
    return _pack(params, readout_params, run, dw_ih, dw_hh, db, dh_0)


def gru_recursion(
    params: GRUParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
) -> GRUGradients:
    """The gradient of a GRU by (27) as a readable loop, O(T H^2); `jrnn.gru` is faster.

    Args:
        params: `w_ih [I, 3H]`, `w_hh [H, 3H]`, `b_h [3H]` or None, `b_hn [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.

    Returns:
        The `GRUGradients` of J = sum_t m_t J_t.

    Raises:
        ValueError: as `gru_trajectory`.
    """
    run = gru_trajectory(params, readout_params, xs, labels, h0, weights=weights)
    w_hh_transposed = jnp.asarray(params.w_hh).T
    dh_next = jnp.zeros_like(run.hs[0])
    deltas: list[jax.Array] = []
    for t in reversed(range(len(run.hs))):
        (r, z, n), u = (gate[t] for gate in run.gates), run.us[t]
        dh = run.dhs[t] + dh_next
        delta_n = dh * (1 - z) * (1 - n**2)
        delta_r = delta_n * u * r * (1 - r)
        delta_z = dh * (run.h_tm1s[t] - n) * z * (1 - z)
        delta_u = delta_n * r
        dh_next = jnp.concatenate([delta_r, delta_z, delta_u]) @ w_hh_transposed + dh * z  # (27)
        deltas.insert(0, jnp.concatenate([delta_r, delta_z, delta_n, delta_u]))
    delta = jnp.stack(deltas)
    dw_ih = run.xs.T @ _of_the_input(delta)  # (12)
    dw_hh = run.h_tm1s.T @ _of_the_state(delta)  # (11)
    return _pack(params, readout_params, run, dw_ih, dw_hh, delta.sum(0), dh_next)


def _pack(
    params: GRUParams,
    readout_params: ReadoutParams,
    run: GRUTrajectory,
    dw_ih: jax.Array,
    dw_hh: jax.Array,
    db: jax.Array,
    dh_0: jax.Array,
) -> GRUGradients:
    """Split db [4H], and add the readout."""
    db_h, db_hn = jnp.split(db, (len(db) // 4 * 3,))
    return GRUGradients(
        GRUParams(
            w_ih=dw_ih,
            w_hh=dw_hh,
            b_h=None if params.b_h is None else db_h,
            b_hn=None if params.b_hn is None else db_hn,
        ),
        readout_gradients(readout_params, run.hs, run.dlogits),
        dh_0,
    )
