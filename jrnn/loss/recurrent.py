"""The whole objective of a recurrent network, from inputs to the cost, in little memory.

    a_t = x_t w_ih + h_{t-1} w_hh + b_h          h_t = phi(a_t)                  (1), (2)
    o_t = h_t w_ho + b_o                         p_t = softmax(o_t)              (3), (4)
    J   = sum_t m_t J_t                          J_t = - sum_k y_tk log p_tk     (5), (6)

A loss that follows the recurrence needs the states of all T steps at once. Here the loss is
computed together with the states, segment by segment. With `remat` both passes hold one segment of
states at a time, and one block of logits.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jrnn import checks, kernel
from jrnn._unroll import spec_of, state_of, states_of, weights_of
from jrnn.arrays import ArrayLike, InputsAre, rows
from jrnn.cells import Arrays, Named, UncheckedCell
from jrnn.cells.elman import Activation, ActivationName
from jrnn.cells.kinds import cell_of
from jrnn.kernel.masking import Move
from jrnn.kernel.remat import over_segments
from jrnn.kernel.types import Inputs
from jrnn.loss.blockwise import cost
from jrnn.types import ReadoutParams


def rnn_cross_entropy(
    rnn_params: Any,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: Any = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: Any = None,
    mask: ArrayLike | None = None,
    recurrent_mask: ArrayLike | None = None,
    data: Named | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
    clip_delta: float | None = None,
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[jax.Array, Any]:
    """J of (6) for a recurrent network with a loss at every step, and its last state.

    Equals `rnn` followed by `readout_cross_entropy`, gradients included. The logits are never in
    memory at once. With `remat` neither are the states: memory grows as sqrt(T), and one more
    forward pass is computed.

    Args:
        rnn_params: `RNNParams`, `LSTMParams`, `GRUParams`, `LeakyParams`, or those of `cell`.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None, in the dtype of `rnn_params`.
        xs: `[T, I]` or `[T, B, I]`, or ids `[T]` or `[T, B]`, as in `rnn`.
        labels: `[T]` or `[T, B]` integers, the true classes; or `[T, O]` or `[T, B, O]` floats,
            each class's share, as in `readout_cross_entropy`.
        h0: the first state, as in `rnn`; of an LSTM an `LSTMState`, as in `lstm`.
        lengths: `[B]`, `[]` or None, as in `rnn`; the loss of a step in the padding is 0, even if
            it is NaN.
        resets: `[T, B]`, `[T]` or None, as in `rnn`.
        reset_state: as `h0`.
        mask: `[T, B]`, `[T]` or None: the steps that count, as in `rnn`; the loss of the others is
            0, even if it is NaN.
        recurrent_mask: `[H]`, `[B, H]` or None, as in `rnn`.
        data: the arrays that `cell` names, as in `unroll`.
        weights: m, None (ones), `[]`, or `[T]` or `[T, B]`: a bool mask or floats. Where a weight
            is 0, the loss of that step and its gradients are 0; the state is computed all the same.
        activation: as in `rnn`, of an Elman or leaky network; None: "tanh".
        cell: the `jrnn.Cell` of parameters of your own, static; None: that of the package.
        clip_delta: as in `rnn`.
        compute_dtype: as in `rnn`; the loss is computed in the dtype of the parameters from states
            that are rounded to it.
        remat: keep only about sqrt(T) states for the gradient and compute the rest once more.
        inputs: as in `rnn`; labels and weights say as well whether they are those of a batch.

    Returns:
        `(J, h_last)`: `[]` the cost in nats, in at least float32, and the state after the last
        step, as the network returns it.

    Raises:
        ValueError: what `rnn` and `readout_cross_entropy` refuse, or a readout of another size or
            dtype than the states.
    """
    cell, batch = cell_of(rnn_params, activation, cell), checks.of_a_batch(labels, weights)
    arrays = (h0, lengths, resets, reset_state, recurrent_mask, mask, data)
    read: dict[str, Any] = {"reading": inputs, "of_a_batch": batch}
    xs = checks.network_arguments(cell, rnn_params, xs, *arrays, **read)
    checks.known_steps(xs)
    checks.objective_arguments(rnn_params, readout_params, xs, labels, weights, lengths, mask)
    spec = spec_of(cell, rnn_params, compute_dtype, clip_delta, remat)
    return _rnn_cross_entropy(spec, rnn_params, readout_params, xs, labels, weights, *arrays)


@partial(jax.jit, static_argnums=0)
def _rnn_cross_entropy(
    spec: kernel.Spec,
    rnn_params: Any,
    readout_params: ReadoutParams,
    xs: jax.Array,
    labels: jax.Array,
    weights: jax.Array | None,
    h0: Any,
    lengths: jax.Array | None,
    resets: jax.Array | None,
    reset_state: Any,
    recurrent_mask: jax.Array | None,
    mask: jax.Array | None,
    data: Named | None,
) -> tuple[jax.Array, Any]:
    remat, spec = spec.remat is not None, spec._replace(remat=None)
    network, unit = weights_of(spec.cell, rnn_params)
    start, again = (states_of(spec.cell, h) for h in (h0, reset_state))
    given = (start, lengths, resets, again, recurrent_mask, mask, unit, data)
    inputs, forth, _ = kernel.in_reading_order(spec, network, xs, *given)
    labels, m = forth(labels), _counted(inputs.steps.valid, weights, forth)

    def segment(start: Any, S: int, states: Arrays) -> tuple[Arrays, jax.Array]:
        own = Inputs(rows(inputs.steps, start, S), states, inputs.constants)
        states, hs = kernel.transforms.unroll(spec, network, own)
        m_t = m if m is None or m.ndim == 0 else rows(m, start, S)
        hs, y = hs.astype(network.w_hh.dtype), rows(labels, start, S)
        return states, cost(spec.precision, readout_params, hs, y, m_t)

    if remat:
        last, totals, rest = over_segments(segment, len(labels), inputs.start)
        total = totals.sum() if rest is None else totals.sum() + rest
    else:
        last, total = segment(0, len(labels), inputs.start)
    return total, state_of(spec.cell, last)


def _counted(valid: jax.Array | None, weights: jax.Array | None, forth: Move) -> jax.Array | None:
    """The weights in the order of the kernel, and 0 where a step does not count."""
    if weights is not None and weights.ndim > 0:
        weights = forth(weights)
    if valid is None or weights is None:
        return valid if weights is None else weights
    return jnp.where(valid, weights, jnp.zeros_like(weights))
