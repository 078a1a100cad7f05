"""Central differences of the cost: the gradient without any derivation.

dJ/dtheta_i = (J(theta + h e_i) - J(theta - h e_i)) / (2 h)   + O(h^2),   h = eps max(1, |theta_i|)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.cells.elman import Activation, ActivationName, elman
from jrnn.derivation.forward import Gradients, trajectory
from jrnn.types import ReadoutParams, RNNParams


def gradients_finite_difference(
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: ActivationName | Activation = "tanh",
    epsilon: float | None = None,
) -> Gradients:
    """Compute the gradient with two evaluations of the cost per parameter; each call compiles.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.
        activation: as in `jrnn.rnn`; relu is inaccurate where a step crosses its kink.
        epsilon: the step above, relative for parameters above 1; None for the cube root of the
            machine epsilon, which balances truncation and rounding: 6e-6 in float64 (for about ten
            digits), 5e-3 in float32 (four).

    Returns:
        The `Gradients` of J = sum_t m_t J_t.

    Raises:
        ValueError: a batch, an epsilon that is not above 0, or an error of `trajectory`.
    """
    checks.one_sequence(xs)
    checks.network_of_inputs(elman(activation), rnn_params)
    H, dtype = rnn_params.w_hh.shape[0], jnp.result_type(rnn_params.w_hh)
    start = jnp.zeros(H, dtype) if h0 is None else jnp.asarray(h0)

    def cost(at: Gradients) -> jax.Array:
        f = trajectory(
            at.rnn, at.readout, xs, labels, at.h0, weights=weights, activation=activation
        )
        return f.losses.sum()

    return finite_differences(cost, Gradients(rnn_params, readout_params, start), epsilon=epsilon)


def finite_differences(
    cost: Callable[[Any], jax.Array], at: Any, *, epsilon: float | None = None
) -> Any:
    """Compute the gradient of any cost with two evaluations per parameter; each call compiles.

    Args:
        cost: a function of a pytree of arrays to a scalar, such as the loss of an LSTM.
        at: the pytree, with leaves of one floating dtype.
        epsilon: as in `gradients_finite_difference`.

    Returns:
        A pytree like `at`.

    Raises:
        ValueError: leaves that are not floating, or an epsilon that is not above 0.
    """
    theta, unravel = ravel_pytree(at)
    checks.floating("at", theta)
    step = float(jnp.finfo(theta.dtype).eps) ** (1 / 3) if epsilon is None else epsilon
    checks.number("epsilon", step, above=0)

    def difference(i: jax.Array) -> jax.Array:
        h = step * jnp.maximum(1, jnp.abs(theta[i]))
        after, before = theta.at[i].add(h), theta.at[i].add(-h)
        # Their real distance: theta_i + h is rounded.
        return (cost(unravel(after)) - cost(unravel(before))) / (after[i] - before[i])

    return unravel(lax.map(difference, jnp.arange(len(theta))))
