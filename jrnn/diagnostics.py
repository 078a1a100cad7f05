"""Where the gradient goes: its size by lag, by step, and by direction.

The loss of step t alone reaches back through the states by the chain rule, one step per lag l:

    e_t,0   = dhs_t = dJ/do_t w_ho^T                       = dJ_t/dh_t              (8)
    e_t,l+1 = (phi'(h_{t-l}) * e_t,l) w_hh^T               = dJ_t/dh_{t-l-1}

which is one summand of (9). All t go back together, so that a lag is one matmul of [T*B, H] by
[H, H], and row k of the array holds what has arrived at h_k, e_{k+l},l: a step back is a shift by
one row. All losses together leave, in the weights that step k used,

    delta_k = phi'(h_k) * (dhs_k + delta_{k+1} w_hh^T)                              (9)
    dw_hh   = sum_k h_{k-1}^T delta_k                                              (11)

Forwards, a small change of h_{t-1} becomes J_t = dh_t/dh_{t-1} = diag(phi'(h_t)) w_hh^T, as (out,
in), times that change. The exponents of its growth are those of Q_t R_t = J_t Q_{t-1}:

    lambda_i = mean over t of log |R_t,ii|

(Benettin et al., Lyapunov characteristic exponents for smooth dynamical systems, Meccanica 15,
1980; for recurrent networks Engelken, Wolf and Abbott, Lyapunov spectra of chaotic recurrent
neural networks, Physical Review Research 5, 2023).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jrnn import checks
from jrnn.arrays import ArrayLike, InputsAre
from jrnn.cell import Activation, ActivationName, derivative
from jrnn.derivation.forward import Trajectory, trajectory
from jrnn.rnn import rnn
from jrnn.types import ReadoutParams, RNNParams


class GradientFlow(NamedTuple):
    """What `gradient_flow` measures; T steps, lags 0 to L."""

    lags: jax.Array  # [L+1] l
    percentiles: jax.Array  # [3, L+1] the 10th, 50th and 90th of ||dJ_t/dh_{t-l}|| over t and b
    uses: jax.Array  # [T] ||sum_b h_{k-1}^T delta_k||, what step k adds to dw_hh


def gradient_flow(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
    max_lag: int = 200,
    inputs: InputsAre | None = None,
) -> GradientFlow:
    """How large the gradient of one step's loss is l steps earlier, and how much each step learns.

    dJ_t/dh_{t-l} is a total derivative, by (8) and the recursion of this file; a curve that falls
    with the lag is a vanishing gradient, one that rises an exploding one. Steps of weight 0 have no
    loss of their own, and h_0 and what is before it are no steps: neither is in the percentiles.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None. Half precision is computed in
            float32.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        labels: `[T]` or `[T, B]` ids, or `[T, O]` or `[T, B, O]` floats.
        h0: None (zeros), `[H]` or `[B, H]`.
        weights: m, `[T]` or `[T, B]`, `[]` or None (ones); a part of each J_t, so 1/N for a mean.
        activation: as in `jrnn.rnn`.
        max_lag: L, or T - 1 where that is less. The work is that of L matmuls of `[T*B, H]` by
            `[H, H]`, the memory some arrays of `[T, B, H]`.
        inputs: as in `jrnn.rnn_cross_entropy`.

    Returns:
        `GradientFlow` of `lags [L+1]`, `percentiles [3, L+1]` and `uses [T]`. A percentile is NaN
        where no loss has that lag, and where a norm is NaN.

    Raises:
        ValueError: as `jrnn.rnn` and `jrnn.softmax_cross_entropy`, a readout of other states, a
            `max_lag` that is no integer >= 0.
    """
    xs = _loss_arguments(rnn_params, readout_params, xs, labels, h0, weights, inputs)
    arguments = (rnn_params, readout_params, xs, labels, h0, weights)
    derivative(activation)  # refuses an unknown one
    _integer("max_lag", max_lag, 0, np.inf, "Lag 0 is dJ_t/dh_t itself.")
    lags = min(int(max_lag), xs.shape[0] - 1) + 1
    return _gradient_flow(*arguments, activation=activation, lags=lags)


@partial(jax.jit, static_argnames=("activation", "lags"))
def _gradient_flow(*arguments: Any, activation: Any, lags: int) -> GradientFlow:
    w_hh, steps, counted = _losses(*arguments, activation=activation)

    def next_lag(carry: Any, _: None) -> tuple[Any, jax.Array]:
        e, counted = carry
        found = _percentiles(_norm(e, -1), counted)
        return (_one_step_back(e, steps.dphis, w_hh), _shift(counted)), found

    def step_back(c_t: jax.Array, step: Any) -> tuple[jax.Array, jax.Array]:
        h_tm1, dphi_t, dhs_t = step
        delta_t = dphi_t * (dhs_t + c_t)  # (9)
        H = w_hh.shape[0]
        use = h_tm1.reshape(-1, H).T @ delta_t.reshape(-1, H)  # (11), one summand
        return delta_t @ w_hh.T, _norm(use)

    _, percentiles = lax.scan(next_lag, (steps.dhs, counted), length=lags)
    backwards = (steps.h_tm1s, steps.dphis, steps.dhs)
    _, uses = lax.scan(step_back, jnp.zeros_like(steps.dhs[0]), backwards, reverse=True)
    return GradientFlow(jnp.arange(lags, dtype=jnp.int32), percentiles.T, uses)


def influence(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
) -> jax.Array:
    """How much the loss of each step depends on each state of one sequence, by (8) and (9).

    Args:
        rnn_params: as in `gradient_flow`.
        readout_params: as in `gradient_flow`.
        xs: `[T, I]` inputs or `[T]` token ids.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        weights: m, `[T]`, `[]` or None (ones).
        activation: as in `jrnn.rnn`.

    Returns:
        `[T, T]`: entry `[t, k]` is ||dJ_{t+1}/dh_{k+1}||, rows and columns counted from 0 and
        steps from 1; zero above the diagonal, where the state is later than the loss.

    Raises:
        ValueError: as `gradient_flow`, and a batch.
    """
    arguments = (rnn_params, readout_params, xs, labels, h0, weights)
    checks.one_sequence(xs)
    _loss_arguments(*arguments)
    derivative(activation)
    return _influence(*arguments, activation=activation)


@partial(jax.jit, static_argnames="activation")
def _influence(*arguments: Any, activation: Any) -> jax.Array:
    w_hh, steps, _ = _losses(*arguments, activation=activation)

    def next_lag(e: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return _one_step_back(e, steps.dphis, w_hh), _norm(e, -1)

    k = jnp.arange(steps.hs.shape[0], dtype=jnp.int32)
    _, by_lag = lax.scan(next_lag, steps.dhs, length=len(k))  # [l, k]
    lag = k[:, None] - k[None, :]  # t - k
    table = jnp.take_along_axis(by_lag, jnp.maximum(lag, 0), axis=0)
    return jnp.where(lag >= 0, table, 0)


def lyapunov_exponents(
    rnn_params: RNNParams,
    xs: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    n: int,
    warmup: int = 0,
    activation: ActivationName | Activation = "tanh",
) -> jax.Array:
    """How fast small changes of the state grow or shrink along the trajectory of one sequence.

    The loss has no part in them. Below 0, the state forgets where it came from; above 0, it is
    chaotic. The work is that of T QR decompositions of `[H, n]`; phi' is that of (9).

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None. Half precision is computed in
            float32.
        xs: `[T, I]` inputs or `[T]` token ids; several sequences by `jax.vmap`.
        h0: None (zeros) or `[H]`.
        n: the number of exponents, at most H.
        warmup: steps at the start that are left out of the mean, while the directions settle.
        activation: as in `jrnn.rnn`.

    Returns:
        `[n]`: the leading exponents, natural logarithms per step, the largest first (but for
        noise in a short mean). -inf for a direction that a step loses, as where phi' is 0; NaN
        where the states themselves leave the floating range.

    Raises:
        ValueError: as `jrnn.rnn`, a batch, n outside 1..H, warmup outside 0..T-1.
    """
    checks.one_sequence(xs)
    checks.rnn_arguments(rnn_params, xs, h0)
    derivative(activation)
    H, T = rnn_params.w_hh.shape[0], xs.shape[0]
    _integer("n", n, 1, H, f"A state of size H = {H} has {H} exponents.")
    _integer("warmup", warmup, 0, T - 1, f"Of T = {T} steps one at least is left for the mean.")
    return _lyapunov_exponents(rnn_params, xs, h0, int(warmup), n=int(n), activation=activation)


@partial(jax.jit, static_argnames=("n", "activation"))
def _lyapunov_exponents(*arguments: Any, n: int, activation: Any) -> jax.Array:
    params, xs, h0, warmup = _at_least_float32(arguments)
    _, hs = rnn(params, xs, h0, activation=activation)

    def step(q: jax.Array, dphi_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        changes = dphi_t[:, None] * (params.w_hh.T @ q)  # J_t Q_{t-1}
        q, r = jnp.linalg.qr(changes)
        left = jnp.abs(jnp.diagonal(r))
        rounding = np.finfo(left.dtype).eps * _norm(changes, 0)
        return q, jnp.log(jnp.where(left <= rounding, 0, left))  # a lost direction: -inf

    # Directions at random: unit vectors could all lie in an invariant subspace and stay there.
    first = jax.random.normal(jax.random.key(0), (hs.shape[1], n), hs.dtype)
    _, logs = lax.scan(step, jnp.linalg.qr(first)[0], derivative(activation)(hs))
    settled = (jnp.arange(len(logs), dtype=jnp.int32) >= warmup)[:, None]
    mean = jnp.mean(logs, 0, where=settled)
    return jnp.where(jnp.isfinite(hs).all(), mean, jnp.nan)


# --- what they share -----------------------------------------------------------------------------


def _losses(*arguments: Any, activation: Any) -> tuple[jax.Array, Trajectory, jax.Array]:
    """w_hh, the trajectory, and `[T]` or `[T, B]`: whether a step has a loss of its own."""
    rnn_params, *data, weights = _at_least_float32(arguments)
    steps = trajectory(rnn_params, *data, weights=weights, activation=activation)
    counted = jnp.asarray(True) if weights is None else weights.astype(bool)
    return rnn_params.w_hh, steps, jnp.broadcast_to(counted, steps.losses.shape)


def _one_step_back(e: jax.Array, dphis: jax.Array, w_hh: jax.Array) -> jax.Array:
    """e_t,l to e_t,l+1, both in the rows of the states that they have arrived at."""
    return _shift((dphis * e) @ w_hh.T)


def _shift(rows: jax.Array) -> jax.Array:
    """Row k + 1 to row k; row 1 leaves for h_0, which nobody asks for, and row T gets zeros."""
    return jnp.concatenate([rows[1:], jnp.zeros_like(rows[:1])])


def _norm(x: jax.Array, axis: int | None = None) -> jax.Array:
    """The Euclidean norm, scaled: the square of 1e-20 is zero in float32, and flows get smaller."""
    top = jnp.abs(x).max(axis, keepdims=True)
    top = jnp.where((top >= np.finfo(x.dtype).tiny) & jnp.isfinite(top), top, 1)
    return top.squeeze(axis) * jnp.sqrt(jnp.square(x / top).sum(axis))


def _percentiles(norms: jax.Array, counted: jax.Array) -> jax.Array:
    """The 10th, 50th and 90th of those that count, linear between two ranks (as NumPy's)."""
    ranked = jnp.sort(jnp.where(counted, norms, jnp.inf).ravel())  # NaN comes last
    count = counted.sum(dtype=jnp.int32)
    rank = jnp.asarray([0.1, 0.5, 0.9], norms.dtype) * (count - 1).astype(norms.dtype)
    low, high = (ranked[r.astype(jnp.int32)] for r in (jnp.floor(rank), jnp.ceil(rank)))
    between = low + jnp.where(high > low, (rank - jnp.floor(rank)) * (high - low), 0)
    lost = jnp.isnan(jnp.where(counted, norms, 0)).any() | (count == 0)
    return jnp.where(lost, jnp.nan, between)


def _at_least_float32(tree: Any) -> Any:
    halves = (jnp.bfloat16, jnp.float16)
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype in halves else x, tree)


# --- what they refuse ----------------------------------------------------------------------------


def _loss_arguments(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: Any,
    labels: Any,
    h0: Any,
    weights: Any,
    inputs: InputsAre | None = None,
) -> Any:
    """xs as they are read."""
    batch = checks.of_a_batch(labels, weights)
    xs = checks.rnn_arguments(rnn_params, xs, h0, reading=inputs, of_a_batch=batch)
    checks.objective_arguments(rnn_params, readout_params, xs, labels, weights)
    return xs


def _integer(argument: str, value: Any, least: int, most: float, repair: str) -> None:
    if not isinstance(value, (int, np.integer)) or not least <= value <= most:
        bounds = f">= {least}" if most == np.inf else f"from {least} to {most}"
        checks.refuse(argument, f"an integer {bounds}", repr(value), repair)
