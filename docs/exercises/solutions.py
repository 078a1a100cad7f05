"""The solutions: the functions of `jrnn.derivation`, and `states`, a small `jrnn.rnn`."""

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.derivation import gradients_double_sum as gradients_double_sum
from jrnn.derivation import gradients_recursion as gradients_recursion
from jrnn.derivation import logits_derivative as logits_derivative
from jrnn.derivation import lstm_recursion as lstm_recursion
from jrnn.derivation import sensitivity_step as sensitivity_step
from jrnn.derivation import softmax_jacobian as softmax_jacobian
from jrnn.derivation import state_jacobian as state_jacobian
from jrnn.types import RNNParams


@jax.custom_vjp
def states(rnn: RNNParams, xs: jax.Array, h0: jax.Array) -> jax.Array:
    """Exercise 6: hs [T, H], with the gradient derived by hand."""

    def step(h: jax.Array, projected: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(projected + h @ rnn.w_hh)  # (1), (2)
        return h, h

    return lax.scan(step, h0, xs @ rnn.w_ih + rnn.b_h[None])[1]


def _forward(rnn, xs, h0):
    hs = states(rnn, xs, h0)
    return hs, (rnn, xs, h0, hs)


def _backward(kept, dhs):
    rnn, xs, h0, hs = kept

    def step_back(dh, row):
        dhs_t, h_t = row
        delta_t = (1 - h_t**2) * (dhs_t + dh)  # (9)
        return delta_t @ rnn.w_hh.T, delta_t

    dh_0, deltas = lax.scan(step_back, jnp.zeros_like(h0), (dhs, hs), reverse=True)
    h_tm1s = jnp.concatenate([h0[None], hs[:-1]])
    weights = RNNParams(xs.T @ deltas, h_tm1s.T @ deltas, deltas.sum(0))  # (11), (12)
    return weights, deltas @ rnn.w_ih.T, dh_0  # (13)


states.defvjp(_forward, _backward)
