"""The gradient with respect to the logits: dJ/dp dp/do, which simplifies to p - y.

    J = - sum_k y_k log p_k                      p = softmax(o)                 (4) (5)

    dJ/dp_k = - y_k / p_k
    dp_i/do_j = p_i (1 - p_i)  for i = j,        - p_i p_j  for i != j
    dJ/do_j = sum_i dJ/dp_i dp_i/do_j = p_j sum_k y_k - y_j                         (7)

Chavan (2026), "Phase 1", steps 1-3, derives them case by case; Brown (2017), (8)-(11), by index
notation. The result sums to 0 over the classes if the labels sum to 1. With one true class it is at
most 0 there and at least 0 elsewhere, and it grows with the confidence in a wrong class.
"""

import jax
import jax.numpy as jnp


def cross_entropy_derivative(p: jax.Array, y: jax.Array) -> jax.Array:
    """Compute dJ/dp, the derivative of the loss with respect to the probabilities.

    Args:
        p: `[O]` probabilities.
        y: `[O]` labels.

    Returns:
        `[O]`: -y_k / p_k, and 0 where y_k = 0.
    """
    return jnp.where(y == 0, 0, -y / p)


def softmax_jacobian(p: jax.Array) -> jax.Array:
    """Compute dp/do, the Jacobian of the softmax, from its output.

    Args:
        p: `[O]` probabilities.

    Returns:
        `[O, O]`, entry (i, j) is dp_i/do_j: p_i (1 - p_i) on the diagonal, -p_i p_j elsewhere.
    """
    diagonal = jnp.diag(p * (1 - p))
    off_diagonal = -jnp.outer(p, p)
    return jnp.where(jnp.eye(len(p), dtype=bool), diagonal, off_diagonal)


def logits_derivative(p: jax.Array, y: jax.Array) -> jax.Array:
    """Compute dJ/do by the chain rule; the product simplifies to p sum(y) - y.

    Args:
        p: `[O]` probabilities.
        y: `[O]` labels.

    Returns:
        `[O]`: dJ/dp dp/do; NaN where the probability of a true class underflows to 0, unlike
            p sum(y) - y.
    """
    return cross_entropy_derivative(p, y) @ softmax_jacobian(p)
