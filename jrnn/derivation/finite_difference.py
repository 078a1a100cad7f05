"""Central differences of the cost: the gradient without any derivation.

dJ/dtheta_i = (J(theta + eps e_i) - J(theta - eps e_i)) / (2 eps)   + O(eps^2)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.cells.elman import Activation, ActivationName
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
    """Compute the gradient with two evaluations of the cost per parameter.

    Args:
        rnn_params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None.
        xs: `[T, I]` inputs or `[T]` token ids, one sequence.
        labels: `[T]` ids or `[T, O]` floats.
        h0: None (zeros) or `[H]`.
        weights: m, `[T]`, `[]` or None, as in `trajectory`.
        activation: as in `jrnn.rnn`; relu is inaccurate where a step crosses its kink.
        epsilon: the step; None for the cube root of the machine epsilon, which balances
            truncation and rounding: 6e-6 in float64 (for about ten digits), 5e-3 in float32 (four).

    Returns:
        The `Gradients` of J = sum_t m_t J_t.

    Raises:
        ValueError: a batch, or an error of `trajectory`.
    """
    checks.one_sequence(xs)
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
    """Compute the gradient of any cost with two evaluations per parameter.

    Args:
        cost: a function of a pytree of arrays to a scalar, such as the loss of an LSTM.
        at: the pytree, with leaves of one floating dtype.
        epsilon: as in `gradients_finite_difference`.

    Returns:
        A pytree like `at`.
    """
    theta, unravel = ravel_pytree(at)
    step = float(np.finfo(theta.dtype).eps) ** (1 / 3) if epsilon is None else epsilon

    def difference(i: jax.Array) -> jax.Array:
        shift = jnp.zeros_like(theta).at[i].set(step)
        return (cost(unravel(theta + shift)) - cost(unravel(theta - shift))) / (2 * step)

    return unravel(lax.map(difference, jnp.arange(len(theta))))
