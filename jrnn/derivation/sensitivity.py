"""Forward in time: carry the derivative of the state with respect to every parameter.

    S_t = dh_t/dtheta = diag(phi'(h_t)) (da_t/dtheta + w_hh^T S_{t-1})

The first term is the immediate derivative (h_{t-1} held fixed), the second the part through earlier
steps. This is Brown (2017), (17), read as a recursion, and real-time recurrent learning (Williams
and Zipser, A learning algorithm for continually running fully recurrent neural networks, 1989). One
forward pass stores no states: the memory is that of S_t, O(H^3) for w_hh, for any T, and the time
is O(H^4) per step.

The result is exact while theta is fixed. If theta is updated within the sequence, S_t belongs to
the earlier parameters, and the gradient is approximate; the error grows with the size of the
update.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jrnn import checks
from jrnn._rnn import rnn_cell
from jrnn.arrays import ArrayLike, are_ids
from jrnn.cells.elman import Activation, ActivationName, derivative, elman
from jrnn.derivation import _checks
from jrnn.derivation.forward import Gradients
from jrnn.loss.softmax import readout, softmax_cross_entropy
from jrnn.types import ReadoutParams, RNNParams


class SensitivityCarry(NamedTuple):
    """The carry of real-time recurrent learning.

    Attributes:
        h: `[H]` h_t.
        dh: S_t: dh_t/dw_ih `[H, I, H]`, dh_t/dw_hh `[H, H, H]`, dh_t/db_h `[H, H]`.
        dh_dh0: `[H, H]` dh_t/dh_0.
        total: sum of dJ_t/dtheta so far.
    """

    h: jax.Array
    dh: RNNParams
    dh_dh0: jax.Array
    total: Gradients


class SensitivityOutput(NamedTuple):
    """The loss and the gradient of one step.

    Attributes:
        loss: `[]` m_t J_t.
        gradients: dJ_t/dtheta.
    """

    loss: jax.Array
    gradients: Gradients


def sensitivity_init(
    rnn_params: RNNParams, readout_params: ReadoutParams, h0: ArrayLike | None = None
) -> SensitivityCarry:
    """Make the carry before the first step: S_0 = 0, except dh_0/dh_0 = 1.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        h0: None (zeros) or `[H]`.

    Returns:
        The `SensitivityCarry`.

    Raises:
        ValueError: parameters that do not fit, or sizes that need more than 4 GB.
    """
    checks.network_of_inputs(elman("tanh"), rnn_params)
    checks.readout_params(readout_params)
    I, H = rnn_params.w_ih.shape
    dtype = jnp.result_type(rnn_params.w_hh)
    _checks.affordable("sensitivities", H * H * (H + I) * dtype.itemsize)
    h = jnp.zeros(H, dtype) if h0 is None else jnp.asarray(h0)
    rnn_params, readout_params = jax.tree.map(jnp.asarray, (rnn_params, readout_params))
    return SensitivityCarry(
        h=h,
        dh=jax.tree.map(lambda p: jnp.zeros((H, *p.shape), dtype), rnn_params),
        dh_dh0=jnp.eye(H, dtype=dtype),
        total=jax.tree.map(jnp.zeros_like, Gradients(rnn_params, readout_params, h)),
    )


def sensitivity_step(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    carry: SensitivityCarry,
    x_t: ArrayLike,
    y_t: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
) -> tuple[SensitivityCarry, SensitivityOutput]:
    """Process x_t and compute the gradient of J_t, without later inputs (see the top of this file).

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        carry: the carry of the previous step, or of `sensitivity_init`.
        x_t: `[I]` input or `[]` token id.
        y_t: `[]` id or `[O]` floats.
        weight: m_t, `[]` or None (1).
        activation: as in `jrnn.rnn`.

    Returns:
        `(carry, SensitivityOutput)`; `carry.total` is the running sum.

    Raises:
        ValueError: a shape or a dtype that does not fit.
    """
    checks.one_step(x_t)
    h_t = rnn_cell(rnn_params, carry.h, x_t, activation=activation)
    dphi = jnp.diag(derivative(activation)(h_t))  # (out, in)
    J_t = dphi @ jnp.asarray(rnn_params.w_hh).T
    x_t = jnp.asarray(x_t)
    if are_ids(x_t):
        x_t = jax.nn.one_hot(x_t, rnn_params.w_ih.shape[0], dtype=h_t.dtype)
    immediate = RNNParams(
        w_ih=jnp.einsum("a,ib->iab", x_t, dphi),
        w_hh=jnp.einsum("a,ib->iab", carry.h, dphi),
        b_h=None if rnn_params.b_h is None else dphi,
    )
    dh = jax.tree.map(lambda now, before: now + _apply(J_t, before), immediate, carry.dh)
    dh_dh0 = J_t @ carry.dh_dh0

    def loss_t(readout_params: ReadoutParams, h_t: jax.Array) -> jax.Array:
        return softmax_cross_entropy(readout(readout_params, h_t), y_t, weight)

    loss, (dreadout, dh_t) = jax.value_and_grad(loss_t, (0, 1))(readout_params, h_t)  # (7), (8)
    gradients = Gradients(jax.tree.map(partial(_apply, dh_t), dh), dreadout, dh_t @ dh_dh0)
    total = jax.tree.map(jnp.add, carry.total, gradients)
    return SensitivityCarry(h_t, dh, dh_dh0, total), SensitivityOutput(loss, gradients)


def _apply(left: jax.Array, sensitivity: jax.Array) -> jax.Array:
    """Contract the last axis of `left` with the state axis of S."""
    return jnp.tensordot(left, sensitivity, 1)


def gradients_sensitivity(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
) -> Gradients:
    """The gradient by real-time recurrent learning: O(H^4) per step, memory independent of T.

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
        ValueError: a batch, sizes that need more than 4 GB, or an error of `jrnn.rnn` or
            `jrnn.softmax_cross_entropy`.
    """
    checks.one_sequence(xs)
    checks.network_of_inputs(elman(activation), rnn_params)
    checks.network_arguments(elman(activation), rnn_params, xs, h0)
    checks.objective_arguments(rnn_params, readout_params, xs, labels, weights)
    xs, labels = jnp.asarray(xs), jnp.asarray(labels)
    if weights is None:
        weights = jnp.ones((), jnp.result_type(rnn_params.w_hh))
    weights = jnp.broadcast_to(weights, xs.shape[:1])
    first = sensitivity_init(rnn_params, readout_params, h0)
    rows = xs, labels, weights
    return _all_steps(rnn_params, readout_params, first, rows, activation=activation).total


@partial(jax.jit, static_argnames="activation")
def _all_steps(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    first: SensitivityCarry,
    rows: tuple[jax.Array, jax.Array, jax.Array],
    *,
    activation: ActivationName | Activation,
) -> SensitivityCarry:
    def step(
        carry: SensitivityCarry, row: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[SensitivityCarry, None]:
        carry, _ = sensitivity_step(rnn_params, readout_params, carry, *row, activation=activation)
        return carry, None

    return lax.scan(step, first, rows)[0]
