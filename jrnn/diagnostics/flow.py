"""Measure the gradient by lag and by step.

The state s_t of a network is h_t, of an LSTM (h_t, c_t). By the chain rule, the loss of step t has
these gradients with respect to earlier states (lag l):

    e_t,0   = dJ_t/ds_t:  dhs_t = dJ/do_t w_ho^T for h_t (8), 0 for c_t
    e_t,l+1 = e_t,l ds_{t-l}/ds_{t-l-1}                      = dJ_t/ds_{t-l-1}

For an Elman network the second is (phi'(h_{t-l}) * e_t,l) w_hh^T, one summand of (9); for any cell
it is the vector-Jacobian product of one step. All t are processed together, so each lag takes one
matmul of [T*B, Y*H] by [Y*H, H]. Row k of the array holds e_{k+l},l, the gradient with respect to
s_k, so the next lag is a shift by one row. The sum over all losses gives the weight gradient of
step k, of which delta_k has the blocks that h_{k-1} feeds:

    ds_k  = dJ_k/ds_k + ds_{k+1} ds_{k+1}/ds_k
    dw_hh = sum_k h_{k-1}^T delta_k                                                (11)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jrnn import checks, kernel
from jrnn._network import spec_of
from jrnn.arrays import ArrayLike, InputsAre
from jrnn.cells import Arrays, Named, UncheckedCell
from jrnn.cells.elman import Activation, ActivationName
from jrnn.derivation.forward import errors
from jrnn.diagnostics.basics import cell_of_one, integer_within, norm, short, widened
from jrnn.diagnostics.dynamics import Run, run_forward
from jrnn.types import ReadoutParams


class GradientFlow(NamedTuple):
    """The result of `gradient_flow` for T steps and lags 0 to L.

    Attributes:
        lags: `[L+1]` l.
        percentiles: `[3, L+1]` the 10th, 50th and 90th of ||dJ_t/ds_{t-l}|| over t and b.
        uses: `[T]` ||sum_b h_{k-1}^T delta_k||, what step k adds to dw_hh.
        counts: `[L+1]` the number of losses behind the percentiles; fewer reach a longer lag.
    """

    lags: jax.Array
    percentiles: jax.Array
    uses: jax.Array
    counts: jax.Array

    def __repr__(self) -> str:
        """One line."""
        return short(self)


def gradient_flow(
    rnn_params: Any,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: Any = None,
    data: Named | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
    max_lag: int = 200,
    inputs: InputsAre | None = None,
) -> GradientFlow:
    """Measure gradient norms by lag, and the contribution of each step to dw_hh.

    dJ_t/ds_{t-l} is a total derivative, by the recursion of this file, with respect to the whole
    state: h, of an LSTM h and c together. If the curve falls with the lag, gradients vanish; if it
    rises, they explode. The percentiles exclude losses of weight 0, s_0, and lags beyond the start
    of the sequence.

    Args:
        rnn_params: `RNNParams`, `LSTMParams`, `GRUParams`, or those of `cell`;
            `w_ih` may be None. Half precision is computed in float32.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        labels: `[T]` or `[T, B]` ids, or `[T, O]` or `[T, B, O]` floats. Labels `[B]` of whole
            sequences become `jnp.broadcast_to(labels, (T, B))`.
        h0: the first state, as in `jrnn.rnn_cross_entropy`: None (zeros), `[H]`, `[B, H]`, or an
            `LSTMState` of these.
        data: the arrays that `cell` names, as in `jrnn.unroll`.
        weights: m, `[T]` or `[T, B]`, `[]` or None (ones); J_t includes it, so use 1/N for a mean.
            `jnp.arange(T)[:, None] == lengths - 1` counts the ends of sequences alone.
        activation: as in `jrnn.rnn_cross_entropy`.
        cell: as in `jrnn.rnn_cross_entropy`.
        max_lag: L, at most T - 1. The cost is L matmuls of `[T*B, Y*H]` by `[Y*H, H]` for Y blocks
            of w_hh, and the memory of some arrays `[T, B, Y*H]`.
        inputs: as in `jrnn.rnn_cross_entropy`.

    Returns:
        `GradientFlow` of `lags [L+1]`, `percentiles [3, L+1]`, `uses [T]` and `counts [L+1]`. A
        percentile is NaN if no loss has that lag, or if a norm is NaN.

    Raises:
        ValueError: a stack; as `jrnn.rnn_cross_entropy`; a `max_lag` that is not an integer >= 0.
    """
    cell = cell_of_one(rnn_params, activation, cell)
    xs = _loss_arguments(cell, rnn_params, readout_params, xs, labels, h0, data, weights, inputs)
    integer_within("max_lag", max_lag, 0, np.inf, "Lag 0 is dJ_t/ds_t itself.")
    lags = min(int(max_lag), xs.shape[0] - 1) + 1
    spec, arrays = spec_of(cell, rnn_params), (rnn_params, readout_params, xs, labels)
    return _gradient_flow(*arrays, h0, data, weights, spec=spec, lags=lags)


@partial(jax.jit, static_argnames=("spec", "lags"))
def _gradient_flow(*arguments: Any, spec: kernel.Spec, lags: int) -> GradientFlow:
    run, e, counted = _losses(spec, *arguments)
    one_step_back = _one_step_back(run, counted.shape)

    def next_lag(carry: Any, _: None) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        e, counted = carry
        found = _percentiles(_norm_of_states(e), counted), counted.sum(dtype=jnp.int32)
        return (one_step_back(e), _shift(counted)), found

    def step_back(later: Arrays, step: Any) -> tuple[Arrays, jax.Array]:
        at, before, e_k = step
        _, vjp = jax.vjp(partial(run.step, at=at), run.w_hh, before)
        use, back = vjp(jax.tree.map(jnp.add, e_k, later))  # (11), one summand
        return back, norm(use)

    _, (percentiles, counts) = lax.scan(next_lag, (e, counted), length=lags)
    nothing = jax.tree.map(lambda e_k: jnp.zeros_like(e_k[0]), e)
    _, uses = lax.scan(step_back, nothing, (run.at, run.before, e), reverse=True)
    return GradientFlow(jnp.arange(lags, dtype=jnp.int32), percentiles.T, uses, counts)


def influence(
    rnn_params: Any,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: Any = None,
    data: Named | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
) -> jax.Array:
    """Measure how much each loss depends on each state of one sequence.

    Args:
        rnn_params: as in `gradient_flow`.
        readout_params: as in `gradient_flow`.
        xs: `[T, I]` inputs or `[T]` token ids.
        labels: `[T]` ids or `[T, O]` floats.
        h0: the first state, as in `gradient_flow`.
        data: as in `gradient_flow`.
        weights: m, `[T]`, `[]` or None (ones).
        activation: as in `gradient_flow`.
        cell: as in `gradient_flow`.

    Returns:
        `[T, T]`: entry `[t, k]` is ||dJ_{t+1}/ds_{k+1}|| (indices count from 0, steps from 1). It
        is zero above the diagonal, where the state is later than the loss.

    Raises:
        ValueError: as `gradient_flow`; a batch.
    """
    cell = cell_of_one(rnn_params, activation, cell)
    checks.one_sequence(xs)
    _loss_arguments(cell, rnn_params, readout_params, xs, labels, h0, data, weights)
    spec = spec_of(cell, rnn_params)
    return _influence(rnn_params, readout_params, xs, labels, h0, data, weights, spec=spec)


@partial(jax.jit, static_argnames="spec")
def _influence(*arguments: Any, spec: kernel.Spec) -> jax.Array:
    run, e, counted = _losses(spec, *arguments)
    one_step_back = _one_step_back(run, counted.shape)

    def next_lag(e: Arrays, _: None) -> tuple[Arrays, jax.Array]:
        return one_step_back(e), _norm_of_states(e)

    k = jnp.arange(len(counted), dtype=jnp.int32)
    _, by_lag = lax.scan(next_lag, e, length=len(k))  # [l, k]
    lag = k[:, None] - k[None, :]  # t - k
    table = jnp.take_along_axis(by_lag, jnp.maximum(lag, 0), axis=0)
    return jnp.where(lag >= 0, table, 0)


# --- shared --------------------------------------------------------------------------------------


def _losses(spec: kernel.Spec, *arguments: Any) -> tuple[Run, Arrays, jax.Array]:
    """The run, e_t,0 of every state, and a mask `[T]` or `[T, B]` of the steps with a loss."""
    params, readout, xs, labels, h0, data, weights = widened(arguments)
    run = run_forward(spec, params, xs, h0, data)
    hs, vjp = jax.vjp(partial(kernel.output, spec.cell), run.after)
    losses, _, dhs = errors(readout, hs, labels, weights)
    e = vjp(dhs)[0]
    if weights is None:
        return run, e, jnp.ones(losses.shape, bool)
    counted = jnp.broadcast_to(weights.astype(bool), losses.shape)
    at, before, e = _without_padding((run.at, run.before, e), counted)
    return Run(run.step, run.w_hh, at, before, run.after), e, counted


def _without_padding(tree: Any, counted: jax.Array) -> Any:
    """Zeros after the last loss of each sequence: what padding holds, also NaN, has no part."""
    used = lax.cummax(counted.astype(jnp.int32), reverse=True) > 0

    def cut(x: jax.Array) -> jax.Array:
        return jnp.where(used[..., None], x, 0) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cut, tree)


def _one_step_back(run: Run, lead: tuple[int, ...]) -> Callable[[Arrays], Arrays]:
    """The function that computes e_t,l+1 from e_t,l; row k belongs to s_k in both."""

    def rows(tree: Any) -> Any:  # one axis for all t and b
        return jax.tree.map(lambda x: lax.collapse(x, 0, len(lead)), tree)

    _, vjp = jax.vjp(partial(run.step, run.w_hh, at=rows(run.at)), rows(run.before))

    def back(e: Arrays) -> Arrays:
        (found,) = vjp(rows(e))
        return jax.tree.map(lambda x: _shift(x.reshape(*lead, x.shape[-1])), found)

    return back


def _shift(rows: jax.Array) -> jax.Array:
    """Move row k + 1 to row k, drop row 1 (it belongs to s_0), and fill row T with zeros."""
    return jnp.concatenate([rows[1:], jnp.zeros_like(rows[:1])])


def _norm_of_states(e: Arrays) -> jax.Array:
    return norm(e[0] if len(e) == 1 else jnp.concatenate(e, -1), -1)


def _percentiles(norms: jax.Array, counted: jax.Array) -> jax.Array:
    """The 10th, 50th and 90th percentile of the counted norms, interpolated as in NumPy."""
    ranked = jnp.sort(jnp.where(counted, norms, jnp.inf).ravel())  # NaN comes last
    count = counted.sum(dtype=jnp.int32)
    rank = jnp.asarray([0.1, 0.5, 0.9], norms.dtype) * (count - 1).astype(norms.dtype)
    low, high = (ranked[r.astype(jnp.int32)] for r in (jnp.floor(rank), jnp.ceil(rank)))
    between = low + jnp.where(high > low, (rank - jnp.floor(rank)) * (high - low), 0)
    lost = jnp.isnan(jnp.where(counted, norms, 0)).any() | (count == 0)
    return jnp.where(lost, jnp.nan, between)


def _loss_arguments(
    cell: UncheckedCell,
    rnn_params: Any,
    readout_params: ReadoutParams,
    xs: Any,
    labels: Any,
    h0: Any,
    data: Any,
    weights: Any,
    inputs: InputsAre | None = None,
) -> Any:
    """Check the arguments of a loss; return xs as ids or features."""
    batch = checks.of_a_batch(labels, weights)
    arrays = (rnn_params, xs, h0, *(None,) * 5, data)
    xs = checks.network_arguments(cell, *arrays, reading=inputs, of_a_batch=batch)
    checks.objective_arguments(rnn_params, readout_params, xs, labels, weights)
    return xs
