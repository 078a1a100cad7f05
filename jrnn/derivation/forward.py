"""Forward passes as plain scans, and the errors at every step that each derivation starts from.

    h_t = phi(x_t w_ih + h_{t-1} w_hh + b_h)                                    (1) (2)
    dJ/do_t = m_t (p_t sum_k y_tk - y_t)                                            (7)
    dhs_t   = dJ/do_t w_ho^T        = m_t dJ_t/dh_t, the loss of step t alone       (8)

In the sources, (1) and (2) are z_t, h_t (Wolf, 2016), z_t, s_t (Brown, 2017), and h_t (Chavan,
2026, "Chain Rule and Backpropagation"); (7) is p_t - labels_t, y^_t - y_t (Brown's (11)), Z - 1_m.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn._network import run_network, spec_of
from jrnn.arrays import ArrayLike, InputsAre, are_ids, reading
from jrnn.cells import UncheckedCell
from jrnn.cells.elman import Activation, ActivationName, derivative, elman
from jrnn.cells.gru import GRU
from jrnn.cells.lstm import LSTM
from jrnn.kernel.reference import unroll_by_scan
from jrnn.loss.softmax import readout, softmax_cross_entropy
from jrnn.types import GRUParams, LSTMParams, LSTMState, ReadoutParams, RNNParams


def rnn_scan(
    params: RNNParams,
    xs: ArrayLike,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: ArrayLike | None = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
    reverse: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`jrnn.rnn` by a plain scan, (1), (2) and (15), step by step; differentiated by JAX.

    It is the baseline of the hand-derived gradient. Use it for forward mode (`jax.jvp`,
    `jax.jacfwd`, `jax.linearize`), which a `custom_vjp` does not support.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        h0: None (zeros), `[H]` (shared by the batch) or `[B, H]`.
        lengths: `[B]`, `[]` or None, as in `jrnn.rnn`.
        resets: `[T, B]`, `[T]` or None, as in `jrnn.rnn`.
        reset_state: as `h0`.
        recurrent_mask: `[H]`, `[B, H]` or None, as in `jrnn.rnn`.
        mask: `[T, B]`, `[T]` or None, as in `jrnn.rnn`.
        activation: as in `jrnn.rnn`.
        reverse: as in `jrnn.rnn`.
        inputs: as in `jrnn.rnn`.

    Returns:
        `(h_last, hs)`: `[H]` or `[B, H]`, and `[T, H]` or `[T, B, H]`.

    Raises:
        ValueError: as `jrnn.rnn`.
    """
    data = (h0, lengths, resets, reset_state, recurrent_mask, mask)
    return _scan(elman(activation), params, xs, *data, reverse=reverse, inputs=inputs, named="h0")


def lstm_scan(
    params: LSTMParams,
    xs: ArrayLike,
    state: LSTMState | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: LSTMState | None = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    reverse: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[LSTMState, jax.Array]:
    """`jrnn.lstm` by a plain scan, (24) and (15), step by step; differentiated by JAX.

    Args:
        params: as in `jrnn.lstm`, and so the rest.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        state: None, or `LSTMState` of None, `[H]` or `[B, H]` each.
        lengths: `[B]`, `[]` or None.
        resets: `[T, B]`, `[T]` or None.
        reset_state: as `state`.
        recurrent_mask: `[H]`, `[B, H]` or None.
        mask: `[T, B]`, `[T]` or None.
        reverse: the direction.
        inputs: how integers are read.

    Returns:
        `(LSTMState, hs)`: `[H]` or `[B, H]` each, and `[T, H]` or `[T, B, H]`.

    Raises:
        ValueError: as `jrnn.lstm`.
    """
    data = (state, lengths, resets, reset_state, recurrent_mask, mask)
    return _scan(LSTM, params, xs, *data, reverse=reverse, inputs=inputs, named="state")


def gru_scan(
    params: GRUParams,
    xs: ArrayLike,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: ArrayLike | None = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    reverse: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`jrnn.gru` by a plain scan, (26) and (15), step by step; differentiated by JAX.

    Args:
        params: as in `jrnn.gru`, and so the rest.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        h0: None (zeros), `[H]` or `[B, H]`.
        lengths: `[B]`, `[]` or None.
        resets: `[T, B]`, `[T]` or None.
        reset_state: as `h0`.
        recurrent_mask: `[H]`, `[B, H]` or None.
        mask: `[T, B]`, `[T]` or None.
        reverse: the direction.
        inputs: how integers are read.

    Returns:
        `(h_last, hs)`: `[H]` or `[B, H]`, and `[T, H]` or `[T, B, H]`.

    Raises:
        ValueError: as `jrnn.gru`.
    """
    data = (h0, lengths, resets, reset_state, recurrent_mask, mask)
    return _scan(GRU, params, xs, *data, reverse=reverse, inputs=inputs, named="h0")


def _scan(
    cell: UncheckedCell,
    params: Any,
    xs: ArrayLike,
    *data: Any,
    reverse: bool,
    inputs: Any,
    named: str,
) -> Any:
    xs = checks.network_arguments(cell, params, xs, *data, reading=inputs, named=named)
    checks.flag("reverse", reverse)
    return _run(params, xs, *data, spec=spec_of(cell, params), reverse=bool(reverse))


_run = jax.jit(
    lambda *arrays, spec, reverse: run_network(spec, *arrays, reverse=reverse, run=unroll_by_scan),
    static_argnames=("spec", "reverse"),
)


class Gradients(NamedTuple):
    """dJ/d of everything that is learned.

    Attributes:
        rnn: by the parameters of the network.
        readout: by those of the readout.
        h0: `[H]`, for an h_0 of None too: the gradient at zeros.
    """

    rnn: RNNParams
    readout: ReadoutParams
    h0: jax.Array


class Trajectory(NamedTuple):
    """The results of a forward pass that the derivatives need, one row per step.

    Attributes:
        xs: `[T, I]` x_t; token ids as the one-hot vectors that they stand for.
        h_tm1s: `[T, H]` h_{t-1}.
        hs: `[T, H]` h_t.
        dphis: `[T, H]` phi'(h_t).
        losses: `[T]` m_t J_t.
        dlogits: `[T, O]` dJ/do_t, (7).
        dhs: `[T, H]` m_t dJ_t/dh_t, by the loss of step t alone, (8).
    """

    xs: jax.Array
    h_tm1s: jax.Array
    hs: jax.Array
    dphis: jax.Array
    losses: jax.Array
    dlogits: jax.Array
    dhs: jax.Array


def trajectory(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
    inputs: InputsAre | None = None,
) -> Trajectory:
    """Run the network and its loss forward; every derivation of this package starts here.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids; with a batch `[T, B, I]` or `[T, B]`.
        labels: `[T]` ids or `[T, O]` floats; with a batch `[T, B]` or `[T, B, O]`.
        h0: None (zeros), `[H]`, or with a batch `[B, H]`.
        weights: m, `[T]` (`[T, B]`), `[]` or None: ones (None) are the total cost, 1/T is the mean,
            and zeros before the last step leave the loss at the last step only.
        activation: as in `jrnn.rnn`.
        inputs: as in `jrnn.rnn_cross_entropy`.

    Returns:
        The `Trajectory`; with a batch every row has the batch axis in second place.

    Raises:
        ValueError: as `jrnn.rnn` and `jrnn.softmax_cross_entropy`.
    """
    batch = checks.of_a_batch(labels, weights)
    cell = elman(activation)
    checks.network_of_inputs(cell, rnn_params)
    read: dict[str, Any] = {"reading": inputs, "of_a_batch": batch}
    xs = checks.network_arguments(cell, rnn_params, xs, h0, **read)
    _, hs = rnn_scan(rnn_params, xs, h0, activation=activation, inputs=reading(xs))
    first = jnp.zeros_like(hs[0]) if h0 is None else jnp.broadcast_to(h0, hs[0].shape)
    return Trajectory(
        one_hot_inputs(rnn_params, xs),
        jnp.concatenate([first[None], hs[:-1]]),
        hs,
        derivative(activation)(hs),
        *errors(readout_params, hs, labels, weights),
    )


def one_hot_inputs(params: Any, xs: ArrayLike) -> jax.Array:
    """The inputs as vectors.

    Args:
        params: of any network, with `w_ih`.
        xs: `[..., I]` inputs or `[...]` token ids.

    Returns:
        `[..., I]`; token ids as the one-hot vectors that they stand for.
    """
    if not are_ids(xs):
        return jnp.asarray(xs)
    return jax.nn.one_hot(xs, params.w_ih.shape[0], dtype=jnp.result_type(params.w_ih))


def errors(
    readout_params: ReadoutParams, hs: jax.Array, labels: ArrayLike, weights: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The losses and their derivatives (7), (8).

    Args:
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        hs: `[..., H]` states.
        labels: `[...]` ids or `[..., O]` floats.
        weights: m, `[...]`, `[]` or None.

    Returns:
        m_t J_t `[...]`, dJ/do_t `[..., O]`, and dhs_t `[..., H]`.
    """
    logits = readout(readout_params, hs)
    losses, vjp = jax.vjp(lambda o: softmax_cross_entropy(o, labels, weights), logits)
    (dlogits,) = vjp(jnp.ones_like(losses))
    return losses, dlogits, dlogits @ jnp.asarray(readout_params.w_ho).T


def readout_gradients(
    readout_params: ReadoutParams, hs: jax.Array, dlogits: jax.Array
) -> ReadoutParams:
    """The gradients of the readout (10), which only the losses of each step itself enter.

    Args:
        readout_params: `ReadoutParams`; `b_o` may be None.
        hs: `[T, H]` states.
        dlogits: `[T, O]` dJ/do_t.

    Returns:
        The `ReadoutParams`.
    """
    return ReadoutParams(
        w_ho=hs.T @ dlogits, b_o=None if readout_params.b_o is None else dlogits.sum(0)
    )
