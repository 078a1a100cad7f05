"""The whole objective of a recurrent network, from inputs to the cost, in little memory.

    a_t = x_t w_ih + h_{t-1} w_hh + b_h          h_t = phi(a_t)                  (1), (2)
    o_t = h_t w_ho + b_o                         p_t = softmax(o_t)              (3), (4)
    J   = sum_t m_t J_t                          J_t = - sum_k y_tk log p_tk     (5), (6)

The states of all T steps are needed at once only because the loss stands after the recurrence. Here
it is computed segment by segment of time with the states, so that with `remat` neither pass ever
holds more than a segment of states, and no pass holds more than a block of logits.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn import bptt, checks
from jrnn.arrays import ArrayLike, InputsAre, steps
from jrnn.bptt.loops import rows
from jrnn.bptt.schedule import divisor_near
from jrnn.cell import Activation, ActivationName
from jrnn.lengths import marks_in_order
from jrnn.readout_loss import cost
from jrnn.rnn import recurrence
from jrnn.types import ReadoutParams, RNNParams

# (start, length, h before) -> (h after, outputs)
Segment = Callable[[Any, int, jax.Array], tuple[jax.Array, Any]]


def rnn_cross_entropy(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[jax.Array, jax.Array]:
    """J of (6) for a recurrent network with a loss at every step, and its last state.

    The same as `rnn` and `readout_cross_entropy` one after the other, gradients included. The
    logits never exist whole; with `remat` neither do the states: memory grows as sqrt(T), for one
    more forward pass.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None, in the dtype of `rnn_params`.
        xs: `[T, I]` or `[T, B, I]`, or ids `[T]` or `[T, B]`, as in `rnn`.
        labels: `[T]` or `[T, B]` integers, the true classes; or `[T, O]` or `[T, B, O]` floats,
            each class's share, as in `readout_cross_entropy`.
        h0: None (zeros), `[H]` or `[B, H]`, as in `rnn`.
        lengths: `[B]`, `[]` or None, as in `rnn`; the loss of a step in the padding is 0, whatever
            stands there.
        resets: `[T, B]`, `[T]` or None, as in `rnn`.
        reset_state: as `h0`.
        weights: m, None (ones), `[]`, or `[T]` or `[T, B]`: a bool mask or floats. Where a weight
            is 0, the loss of that step and its gradients are 0; the state goes on.
        activation: as in `rnn`.
        compute_dtype: as in `rnn`; the loss is computed in the dtype of the parameters from states
            that are rounded to it.
        remat: keep only about sqrt(T) states for the gradient and compute the rest once more.
        inputs: as in `rnn`; labels and weights say as well whether they are those of a batch.

    Returns:
        `(J, h_last)`: `[]` the cost in nats, in at least float32, and `[H]` or `[B, H]`, the state
        after the last step.

    Raises:
        ValueError: what `rnn` and `readout_cross_entropy` refuse, or a readout of another size or
            dtype than the states.
    """
    batch, states = checks.of_a_batch(labels, weights), (h0, lengths, resets, reset_state)
    xs = checks.rnn_arguments(rnn_params, xs, *states, reading=inputs, of_a_batch=batch)
    checks.known_steps(xs)
    checks.objective_arguments(rnn_params, readout_params, xs, labels, weights, lengths)
    checks.flag("remat", remat)
    options = recurrence(activation, compute_dtype, rnn_params)
    arguments = (xs, labels, weights, h0, lengths, resets, reset_state)
    return _rnn_cross_entropy(options, bool(remat), rnn_params, readout_params, *arguments)


@partial(jax.jit, static_argnums=(0, 1))
def _rnn_cross_entropy(
    recurrence: bptt.Recurrence,
    remat: bool,
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: jax.Array,
    labels: jax.Array,
    weights: jax.Array | None,
    h0: jax.Array | None,
    lengths: jax.Array | None,
    resets: jax.Array | None,
    reset_state: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    T, dtype = len(xs), rnn_params.w_hh.dtype
    marks = marks_in_order(steps(xs), lengths, resets, reverse=False)
    xs, h0, marks, entry = bptt.whole(rnn_params, xs, h0, marks, bptt.Entry(reset_state))
    weights = _inside(marks.valid, weights)
    per_step = weights is not None and weights.ndim > 0

    def segment(start: Any, S: int, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        def part(x: Any) -> Any:
            return rows(x, start, S)

        m = part(weights) if per_step else weights
        h, hs = bptt.run(recurrence, rnn_params, bptt.Inputs(part(xs), h, part(marks), entry))
        precision = recurrence.precision
        return h, cost(precision, readout_params, hs.astype(dtype), part(labels), m)

    if not remat:
        h_last, total = segment(0, T, h0)
        return total, h_last
    h_last, totals, rest = _over_segments(segment, T, h0)
    return totals.sum() if rest is None else totals.sum() + rest, h_last


def _inside(valid: jax.Array | None, weights: jax.Array | None) -> jax.Array | None:
    """The weights, and 0 in the padding."""
    if valid is None or weights is None:
        return valid if weights is None else weights
    return jnp.where(valid, weights, jnp.zeros_like(weights))


def _over_segments(segment: Segment, T: int, h0: jax.Array) -> tuple[jax.Array, Any, Any]:
    """The state after all segments, the outputs of the equal ones, stacked, and of a shorter last.

    A segment takes what it needs of longer arrays by `start`: as inputs of the scan they would be
    copied, since the scan keeps the inputs of every step for its backward pass.
    """
    S = divisor_near(T, math.isqrt(T))
    whole, rest = divmod(T, S)
    remade = partial(jax.checkpoint, prevent_cse=False)  # a scan needs no guard against CSE

    @remade
    def nth(h: jax.Array, n: jax.Array) -> tuple[jax.Array, Any]:
        return segment(n * S, S, h)

    h, outputs = lax.scan(nth, h0, jnp.arange(whole))
    if not rest:
        return h, outputs, None
    h, last = remade(partial(segment, whole * S, rest))(h)
    return h, outputs, last
