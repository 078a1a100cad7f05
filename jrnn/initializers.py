"""Initialisers of weights that `jax.nn.initializers` lacks, for `jrnn.init_rnn`.

    identity            w_hh = s 1                                  Le, Jaitly & Hinton 2015
    spectral_radius     w_hh = r G / rho(G),    G_ij ~ N(0, 1)      Jaeger 2001
    hidden_uniform      w_ij ~ U(-1/sqrt(H), 1/sqrt(H))             torch.nn.RNN

rho(G) is the largest absolute value of an eigenvalue of G. It comes from Gelfand's formula

    rho(G) = lim ||G^k||^(1/k)          with k = 1, 2, 4, 8, ...

which takes matmuls only, so that it runs on every device, under `jit` and under `vmap` (a TPU has
no eigenvalues of matrices that are not symmetric).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn import checks
from jrnn.arrays import Initializer, wide


def identity(scale: float = 1.0) -> Initializer:
    """A multiple of the identity: with relu and a bias of 0, a state that is kept (the IRNN).

    Le, Jaitly & Hinton, A simple way to initialize recurrent networks of rectified linear units,
    2015 (arXiv 1504.00941). They take 1, or 0.01 where only the near past counts.

    Args:
        scale: s, any finite number.

    Returns:
        `(key, shape, dtype) -> array` for a `shape` of [H, H]; the key is not used.

    Raises:
        ValueError: a scale that is not a finite number; of what is returned, a shape that is not
            [H, H] or a dtype that is not floating.
    """
    checks.number("scale", scale)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        dtype = checks.floating_dtype(dtype)
        checks.square(shape)
        return jnp.asarray(scale, dtype) * jnp.eye(shape[0], dtype=dtype)

    return init


def spectral_radius(radius: float) -> Initializer:
    """A Gaussian matrix, rescaled so that its largest eigenvalue has this absolute value.

    Jaeger, The "echo state" approach to analysing and training recurrent neural networks, GMD
    report 148, 2001. The radius of the matrix itself is exact, up to the rounding of its dtype,
    and not merely that of the law of large matrices, which dividing by sqrt(H) would give. With
    H = 1 it is `radius` or `-radius`, as the draw has the sign.

    Args:
        radius: r > 0; below 1 and with tanh, the past is forgotten at last.

    Returns:
        `(key, shape, dtype) -> array` for a `shape` of [H, H].

    Raises:
        ValueError: a radius that is not a finite number above 0; of what is returned, a shape that
            is not [H, H] or a dtype that is not floating.
    """
    checks.number("radius", radius, above=0)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        dtype = checks.floating_dtype(dtype)
        checks.square(shape)
        g = jax.random.normal(key, shape, wide(dtype))
        return (g * (jnp.asarray(radius, g.dtype) / _spectral_radius(g))).astype(dtype)

    return init


def hidden_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
    """Uniform from -1/sqrt(H) to 1/sqrt(H), H the last axis: what torch draws, of w_ih as of w_hh.

    torch.nn.RNN's documentation: "initialized from U(-sqrt(k), sqrt(k)) where k = 1/hidden_size".
    It draws its two biases likewise; that of `jrnn.init_rnn` is 0.

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


def _spectral_radius(g: jax.Array) -> jax.Array:
    """Gelfand's formula. What ||G^k||^(1/k) is off by falls as c/k, below rounding at the end."""

    def square(carry: tuple[jax.Array, jax.Array], one_over_k: jax.Array) -> Any:
        power, log_rho = carry  # G^(k/2) over its norm
        power = jnp.matmul(power, power, precision="highest")
        norm = jnp.linalg.norm(power)
        return (power / norm, log_rho + one_over_k * jnp.log(norm)), None

    norm = jnp.linalg.norm(g)
    ones_over_k = jnp.asarray(0.5 ** np.arange(1, -np.log2(np.finfo(g.dtype).eps) + 8), g.dtype)
    (_, log_rho), _ = jax.lax.scan(square, (g / norm, jnp.log(norm)), ones_over_k)
    return jnp.exp(log_rho)
