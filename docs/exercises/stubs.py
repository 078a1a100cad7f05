"""The exercises of docs/exercises.md: replace each `raise` by your code.

Vectors are rows; `hs[0]` is h_1. `derivation.trajectory` gives the forward pass. `Gradients`, which
exercises 4 and 5 return, also has the gradient with respect to h_0.
"""

import jax
import jax.numpy as jnp  # noqa: F401 - for your code
import numpy as np  # noqa: F401

from jrnn import derivation  # noqa: F401
from jrnn.derivation import Gradients, LSTMGradients, SensitivityCarry, SensitivityOutput
from jrnn.types import LSTMParams, ReadoutParams, RNNParams


def softmax_jacobian(p: jax.Array) -> jax.Array:
    """Exercise 1: dp_i/do_j of p = softmax(o) at [i, j], from p [O] alone."""
    raise NotImplementedError


def logits_derivative(p: jax.Array, y: jax.Array) -> jax.Array:
    """Exercise 2: dJ/do [O] of J = - sum_k y_k log p_k, for labels y [O] of any sum."""
    raise NotImplementedError


def state_jacobian(rnn: RNNParams, hs: jax.Array, t: int) -> jax.Array:
    """Exercise 3: dh_t/dh_{t-1} [H, H] of a tanh network, out before in, t from 1."""
    raise NotImplementedError


def gradients_double_sum(
    rnn: RNNParams, readout: ReadoutParams, xs: jax.Array, labels: jax.Array
) -> Gradients:
    """Exercise 4: the gradient of the total cost in the crudest way, with h_0 = 0."""
    raise NotImplementedError


def gradients_recursion(
    rnn: RNNParams, readout: ReadoutParams, xs: jax.Array, labels: jax.Array
) -> Gradients:
    """Exercise 5: the same in one loop, whose cost grows with T, not with its square."""
    raise NotImplementedError


def states(rnn: RNNParams, xs: jax.Array, h0: jax.Array) -> jax.Array:
    """Exercise 6: hs [T, H] by a `lax.scan`, with a `jax.custom_vjp` of your own.

    The backward scan carries one cotangent [H] and does one matmul for each step.
    """
    raise NotImplementedError


def sensitivity_step(
    rnn: RNNParams,
    readout: ReadoutParams,
    carry: SensitivityCarry,
    x_t: jax.Array,
    label: jax.Array,
) -> tuple[SensitivityCarry, SensitivityOutput]:
    """Exercise 7: one step forward in time, from `derivation.sensitivity_init`."""
    raise NotImplementedError


def lstm_recursion(
    lstm: LSTMParams, readout: ReadoutParams, xs: jax.Array, labels: jax.Array
) -> LSTMGradients:
    """Exercise 8: exercise 5 for an LSTM, from `derivation.lstm_trajectory`."""
    raise NotImplementedError
