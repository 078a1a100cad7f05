"""Jacobians of one state with respect to an earlier one.

    dh_t/dh_{t-1} = diag(phi'(h_t)) w_hh^T                              (out, in)
    dh_t/dh_k     = J_t J_{t-1} ... J_{k+1}         with J_r = dh_r/dh_{r-1}; the identity at t = k

Chavan (2026), "Phase 1", step 5, derives the first for tanh; the second is the factor dh_t/dh_k of
Wolf (2016), of Brown (2017), (19)-(20), and of the notebook, "the term responsible for the
vanishing gradient problem" (Brown).

The cotangent of h_{t-1} is dh_t J_t (a row times the Jacobian) or J_t^T dh_t (the transposed
Jacobian times a column), Chavan's approaches 1 and 2. Both equal (phi'(h_t) * dh_t) w_hh^T, the
step of (9), which needs no Jacobian.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jrnn.cells.elman import Activation, ActivationName, derivative
from jrnn.derivation import _checks
from jrnn.types import RNNParams


def state_jacobian(
    rnn_params: RNNParams,
    hs: jax.Array,
    t: int,
    *,
    activation: ActivationName | Activation = "tanh",
) -> jax.Array:
    """Compute dh_t/dh_{t-1}.

    Args:
        rnn_params: `RNNParams` with `w_hh [H, H]`.
        hs: `[T, H]` states; `hs[0]` is h_1.
        t: 1, ..., T, as in the equations.
        activation: as in `jrnn.rnn`.

    Returns:
        `[H, H]`, entry (i, j) is dh_ti/dh_{t-1,j}.

    Raises:
        ValueError: t outside 1..T, or states that do not fit.
    """
    _checks.states("hs", hs, rnn_params)
    _checks.step_within("t", t, 1, len(hs), "T")
    dphi = derivative(activation)(jnp.asarray(hs)[t - 1])
    return jnp.diag(dphi) @ jnp.asarray(rnn_params.w_hh).T


def state_jacobian_product(
    rnn_params: RNNParams,
    hs: jax.Array,
    t: int,
    k: int,
    *,
    activation: ActivationName | Activation = "tanh",
) -> jax.Array:
    """Compute dh_t/dh_k = J_t J_{t-1} ... J_{k+1}, in O((t - k) H^3).

    Args:
        rnn_params: `RNNParams` with `w_hh [H, H]`.
        hs: `[T, H]` states; `hs[0]` is h_1.
        t: 0, ..., T, as in the equations.
        k: 0, ..., t.
        activation: as in `jrnn.rnn`.

    Returns:
        `[H, H]`, entry (i, j) is dh_ti/dh_kj; the identity for k = t.

    Raises:
        ValueError: t outside 0..T, k outside 0..t, or states that do not fit.
    """
    _checks.states("hs", hs, rnn_params)
    _checks.step_within("t", t, 0, len(hs), "T")
    _checks.step_within("k", k, 0, t, "t")
    result = jnp.eye(rnn_params.w_hh.shape[0], dtype=hs.dtype)
    for r in range(k + 1, t + 1):
        result = state_jacobian(rnn_params, hs, r, activation=activation) @ result
    return result


def product(jacobians: Sequence[jax.Array], t: int, k: int) -> jax.Array:
    """The product J_t J_{t-1} ... J_{k+1} of given Jacobians.

    Args:
        jacobians: J_1, ..., J_T, each `[S, S]` for a state of S numbers.
        t: 0, ..., T.
        k: 0, ..., t.

    Returns:
        `[S, S]`; the identity for k = t.
    """
    result = jnp.eye(len(jacobians[0]), dtype=jacobians[0].dtype)
    for J_r in jacobians[k:t]:
        result = J_r @ result
    return result


def diagonals(*rows: jax.Array) -> jax.Array:
    """Diagonal matrices next to each other.

    Args:
        rows: `[H]` each, of any number n.

    Returns:
        `[H, n*H]`.
    """
    return jnp.concatenate([jnp.diag(row) for row in rows], axis=1)
