"""Weight initialisers for `jrnn.init_rnn` that `jax.nn.initializers` does not have.

    identity            w_hh = s 1                                  Le, Jaitly & Hinton 2015
    spectral_radius     w_hh = r G / rho(G),    G_ij ~ N(0, 1)      Jaeger 2001
    hidden_uniform      w_ij ~ U(-1/sqrt(H), 1/sqrt(H))             torch.nn.RNN, LSTM, GRU
    chrono              b_f = log u, b_i = -log u, u ~ U(1, n - 1)  Tallec & Ollivier 2018

rho(G) is the largest absolute value of an eigenvalue of G. Gelfand's formula gives it,

    rho(G) = lim ||G^k||^(1/k)          with k = 1, 2, 4, 8, ...

It needs only matmuls, so it runs on every device, under `jit` and under `vmap`. (A TPU cannot
compute eigenvalues of non-symmetric matrices.)
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jrnn import checks
from jrnn.arrays import Initializer, wide


def identity(scale: float = 1.0) -> Initializer:
    """A multiple of the identity (IRNN): with relu and a bias of 0 the state persists.

    Le, Jaitly & Hinton, A simple way to initialize recurrent networks of rectified linear units,
    2015 (arXiv 1504.00941). They use 1, or 0.01 if only the recent past matters.

    Args:
        scale: s, any finite number.

    Returns:
        `(key, shape, dtype) -> array` for a `shape` of [H, H]; the key is not used.

    Raises:
        ValueError: a scale that is not a finite number; from the returned function, a shape that is
            not [H, H] or a dtype that is not floating.
    """
    checks.number("scale", scale)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        dtype = checks.floating_dtype(dtype)
        checks.square(shape)
        return jnp.asarray(scale, dtype) * jnp.eye(shape[0], dtype=dtype)

    return init


def spectral_radius(radius: float) -> Initializer:
    """A Gaussian matrix, scaled so that the absolute value of its largest eigenvalue is `radius`.

    Jaeger, The "echo state" approach to analysing and training recurrent neural networks, GMD
    report 148, 2001. The spectral radius of each matrix is exact up to rounding; dividing by
    sqrt(H) would be right only in the limit of large H. With H = 1 the result is `radius` or
    `-radius`, with the sign of the draw.

    Args:
        radius: r > 0. With r < 1 and tanh the network eventually forgets the past.

    Returns:
        `(key, shape, dtype) -> array` for a `shape` of [H, H].

    Raises:
        ValueError: a radius that is not a finite number above 0; from the returned function, a
            shape that is not [H, H] or a dtype that is not floating.
    """
    checks.number("radius", radius, above=0)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        dtype = checks.floating_dtype(dtype)
        checks.square(shape)
        g = jax.random.normal(key, shape, wide(dtype))
        return (g * (jnp.asarray(radius, g.dtype) / _spectral_radius(g))).astype(dtype)

    return init


def hidden_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
    """Uniform from -1/sqrt(H) to 1/sqrt(H), with H the last axis: torch's w_ih and w_hh.

    torch.nn.RNN's documentation: "initialized from U(-sqrt(k), sqrt(k)) where k = 1/hidden_size".
    Its two biases are drawn in the same way; the bias of `jrnn.init_rnn` is 0.

    Args:
        key: a JAX random key.
        shape: `[..., H]`.
        dtype: a floating dtype; None is JAX's default float.

    Returns:
        The array.

    Raises:
        ValueError: a shape without an axis, or a dtype that is not floating.
    """
    dtype = checks.floating_dtype(dtype)
    if not shape:
        checks.refuse("shape", "[..., H]", list(shape), "The last axis is the state.")
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def chrono(longest: float, cell: Literal["lstm", "gru"] = "lstm") -> Initializer:
    """Biases of gates with which the units remember for 2 to `longest` steps.

    Tallec and Ollivier, Can recurrent neural networks warp time?, 2018 (arXiv 1804.11188). A gate
    that keeps a share f of the memory in each step forgets in 1 / (1 - f) steps. With f =
    sigmoid(b), and b = log u, these are 1 + u steps.

        params = jrnn.init_lstm(key, I, H)
        params = params._replace(b_h=jrnn.initializers.chrono(400)(key, (4 * H,)))

    Args:
        longest: the longest memory in steps, above 2: about T, or the longest dependency.
        cell: "lstm": b_f = log u and b_i = -log u. "gru": b_z = log u. All others are 0.

    Returns:
        `(key, shape, dtype) -> array` for `b_h`: a `shape` of [4H] or, for a GRU, [3H].

    Raises:
        ValueError: `longest` is not a finite number above 2, or another cell; from the returned
            function, another shape or a dtype that is not floating.
    """
    checks.number("longest", longest, above=2)
    if cell not in ("lstm", "gru"):
        checks.refuse("cell", '"lstm" or "gru"', repr(cell), "An Elman network has no gates.")
    gates = 4 if cell == "lstm" else 3

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        dtype = checks.floating_dtype(dtype)
        if len(shape) != 1 or shape[0] % gates:
            repair = "It is made for b_h, of all gates."
            checks.refuse("shape", f"[{gates}H]", list(shape), repair)
        H = shape[0] // gates
        u = jax.random.uniform(key, (H,), wide(dtype), 1, longest - 1)
        zero, b = jnp.zeros_like(u), jnp.log(u)
        blocks = [-b, b, zero, zero] if cell == "lstm" else [zero, b, zero]
        return jnp.concatenate(blocks).astype(dtype)

    return init


def _spectral_radius(g: jax.Array) -> jax.Array:
    """Gelfand's formula. The error of ||G^k||^(1/k) falls as c/k, finally below rounding."""

    def square(carry: tuple[jax.Array, jax.Array], one_over_k: jax.Array) -> Any:
        power, log_rho = carry  # G^(k/2) divided by its norm
        power = jnp.matmul(power, power, precision="highest")
        norm = jnp.linalg.norm(power)
        return (power / norm, log_rho + one_over_k * jnp.log(norm)), None

    norm = jnp.linalg.norm(g)
    ones_over_k = jnp.asarray(0.5 ** np.arange(1, -np.log2(np.finfo(g.dtype).eps) + 8), g.dtype)
    (_, log_rho), _ = jax.lax.scan(square, (g / norm, jnp.log(norm)), ones_over_k)
    return jnp.exp(log_rho)
