"""Measure the gradient by lag, by step and by direction.

By the chain rule, the loss of step t has these gradients with respect to earlier states (lag l):

    e_t,0   = dhs_t = dJ/do_t w_ho^T                       = dJ_t/dh_t              (8)
    e_t,l+1 = (phi'(h_{t-l}) * e_t,l) w_hh^T               = dJ_t/dh_{t-l-1}

This is one summand of (9). All t are processed together, so each lag takes one matmul of [T*B, H]
by [H, H]. Row k of the array holds e_{k+l},l, the gradient with respect to h_k, so the next lag is
a shift by one row. The sum over all losses gives the weight gradient of step k:

    delta_k = phi'(h_k) * (dhs_k + delta_{k+1} w_hh^T)                              (9)
    dw_hh   = sum_k h_{k-1}^T delta_k                                              (11)

In the forward direction, step t multiplies a small change of h_{t-1} by the Jacobian with axes
(out, in), J_t = dh_t/dh_{t-1} = diag(phi'(h_t)) w_hh^T. With Q_t R_t = J_t Q_{t-1} (a QR
decomposition), the Lyapunov exponents are

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
from jrnn._rnn import rnn
from jrnn.arrays import ArrayLike, InputsAre
from jrnn.cells.elman import Activation, ActivationName, derivative, elman
from jrnn.derivation.forward import Trajectory, trajectory
from jrnn.types import ReadoutParams, RNNParams


class GradientFlow(NamedTuple):
    """The result of `gradient_flow` for T steps and lags 0 to L."""

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
    """Measure gradient norms by lag, and the contribution of each step to dw_hh.

    dJ_t/dh_{t-l} is a total derivative, by (8) and the recursion of this file. If the curve falls
    with the lag, gradients vanish; if it rises, they explode. The percentiles exclude losses of
    weight 0, h_0, and lags beyond the start of the sequence.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None. Half precision is computed in
            float32.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        labels: `[T]` or `[T, B]` ids, or `[T, O]` or `[T, B, O]` floats.
        h0: None (zeros), `[H]` or `[B, H]`.
        weights: m, `[T]` or `[T, B]`, `[]` or None (ones); J_t includes it, so use 1/N for a mean.
        activation: as in `jrnn.rnn`.
        max_lag: L, at most T - 1. The cost is L matmuls of `[T*B, H]` by `[H, H]` and the memory
            of some arrays `[T, B, H]`.
        inputs: as in `jrnn.rnn_cross_entropy`.

    Returns:
        `GradientFlow` of `lags [L+1]`, `percentiles [3, L+1]` and `uses [T]`. A percentile is NaN
        if no loss has that lag, or if a norm is NaN.

    Raises:
        ValueError: as `jrnn.rnn` and `jrnn.softmax_cross_entropy`; a readout for another H; a
            `max_lag` that is not an integer >= 0.
    """
    xs = _loss_arguments(rnn_params, readout_params, xs, labels, h0, weights, inputs)
    arguments = (rnn_params, readout_params, xs, labels, h0, weights)
    derivative(activation)  # refuses an unknown activation
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
    """Measure how much each loss depends on each state of one sequence, by (8) and (9).

    Args:
        rnn_params: as in `gradient_flow`.
        readout_params: as in `gradient_flow`.
        xs: `[T, I]` inputs or `[T]` token ids.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        weights: m, `[T]`, `[]` or None (ones).
        activation: as in `jrnn.rnn`.

    Returns:
        `[T, T]`: entry `[t, k]` is ||dJ_{t+1}/dh_{k+1}|| (indices count from 0, steps from 1). It
        is zero above the diagonal, where the state is later than the loss.

    Raises:
        ValueError: as `gradient_flow`; a batch.
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
    """Compute how fast small changes of the state grow or shrink along one sequence.

    The exponents do not depend on the loss. If the largest is below 0, the state forgets its past;
    above 0, it is chaotic. The cost is T QR decompositions of `[H, n]`; phi' is that of (9).

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None. Half precision is computed in
            float32.
        xs: `[T, I]` inputs or `[T]` token ids; use `jax.vmap` for several sequences.
        h0: None (zeros) or `[H]`.
        n: the number of exponents, at most H.
        warmup: the number of first steps to exclude from the mean, while the directions converge.
        activation: as in `jrnn.rnn`.

    Returns:
        `[n]`: the leading exponents, natural logarithms per step, the largest first (up to noise
        in a short mean). -inf for a direction that a step maps to 0, for example where phi' is 0;
        NaN if the states overflow.

    Raises:
        ValueError: as `jrnn.rnn`; a batch; n outside 1..H; warmup outside 0..T-1.
    """
    checks.one_sequence(xs)
    checks.network_arguments(elman("tanh"), rnn_params, xs, h0)
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

    # Random directions: unit vectors could all stay in an invariant subspace.
    first = jax.random.normal(jax.random.key(0), (hs.shape[1], n), hs.dtype)
    _, logs = lax.scan(step, jnp.linalg.qr(first)[0], derivative(activation)(hs))
    settled = (jnp.arange(len(logs), dtype=jnp.int32) >= warmup)[:, None]
    mean = jnp.mean(logs, 0, where=settled)
    return jnp.where(jnp.isfinite(hs).all(), mean, jnp.nan)


# --- shared --------------------------------------------------------------------------------------


def _losses(*arguments: Any, activation: Any) -> tuple[jax.Array, Trajectory, jax.Array]:
    """w_hh, the trajectory, and a mask `[T]` or `[T, B]` of the steps with a loss."""
    rnn_params, *data, weights = _at_least_float32(arguments)
    steps = trajectory(rnn_params, *data, weights=weights, activation=activation)
    counted = jnp.asarray(True) if weights is None else weights.astype(bool)
    return rnn_params.w_hh, steps, jnp.broadcast_to(counted, steps.losses.shape)


def _one_step_back(e: jax.Array, dphis: jax.Array, w_hh: jax.Array) -> jax.Array:
    """e_t,l+1 from e_t,l; row k belongs to h_k in both."""
    return _shift((dphis * e) @ w_hh.T)


def _shift(rows: jax.Array) -> jax.Array:
    """Move row k + 1 to row k, drop row 1 (it belongs to h_0), and fill row T with zeros."""
    return jnp.concatenate([rows[1:], jnp.zeros_like(rows[:1])])


def _norm(x: jax.Array, axis: int | None = None) -> jax.Array:
    """The Euclidean norm, scaled, because the square of 1e-20 underflows in float32."""
    top = jnp.abs(x).max(axis, keepdims=True)
    top = jnp.where((top >= np.finfo(x.dtype).tiny) & jnp.isfinite(top), top, 1)
    return top.squeeze(axis) * jnp.sqrt(jnp.square(x / top).sum(axis))


def _percentiles(norms: jax.Array, counted: jax.Array) -> jax.Array:
    """The 10th, 50th and 90th percentile of the counted norms, interpolated as in NumPy."""
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


# --- argument checks -----------------------------------------------------------------------------


def _loss_arguments(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: Any,
    labels: Any,
    h0: Any,
    weights: Any,
    inputs: InputsAre | None = None,
) -> Any:
    """Check the arguments of a loss; return xs as ids or features."""
    batch = checks.of_a_batch(labels, weights)
    checks.network_of_inputs(elman("tanh"), rnn_params)
    elman_arguments = elman("tanh"), rnn_params, xs, h0
    xs = checks.network_arguments(*elman_arguments, reading=inputs, of_a_batch=batch)
    checks.objective_arguments(rnn_params, readout_params, xs, labels, weights)
    return xs


def _integer(argument: str, value: Any, least: int, most: float, repair: str) -> None:
    if not isinstance(value, (int, np.integer)) or not least <= value <= most:
        bounds = f">= {least}" if most == np.inf else f"from {least} to {most}"
        checks.refuse(argument, f"an integer {bounds}", repr(value), repair)
