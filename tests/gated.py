"""Steps of networks as tests define them, of one sequence: (params, states, x) -> states.

They are written for JAX to differentiate and share no code with the package. `b` is one more
pre-activation, of every block.
"""

import jax.numpy as jnp
from cases import H


def sigmoid(a):
    return 1 / (1 + jnp.exp(-a))


def plus(a, b):
    """a + b, where b may be None."""
    return a if b is None else a + b


def lstm_gates(params, states, x, b=0.0):
    """i f g o of Gers et al. (2000)."""
    a = plus(x @ params.w_ih + states[0] @ params.w_hh + b, params.b_h)
    i, f, g, o = (a[n * H : (n + 1) * H] for n in range(4))
    return sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)


def lstm_step(params, states, x, b=0.0):
    i, f, g, o = lstm_gates(params, states, x, b)
    c = f * states[1] + i * g
    return o * jnp.tanh(c), c


def gru_gates(params, states, x, b=0.0):
    """r z n as in the documentation of cuDNN; of b the blocks are r z n u."""
    b = jnp.broadcast_to(b, 4 * H)
    x, s = plus(x @ params.w_ih + b[: 3 * H], params.b_h), states[0] @ params.w_hh
    u = plus(s[2 * H :] + b[3 * H :], params.b_hn)
    r, z = sigmoid(x[:H] + s[:H]), sigmoid(x[H : 2 * H] + s[H : 2 * H])
    return r, z, jnp.tanh(x[2 * H :] + r * u)


def gru_step(params, states, x, b=0.0):
    _, z, n = gru_gates(params, states, x, b)
    return ((1 - z) * n + z * states[0],)
