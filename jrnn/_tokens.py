"""Draw a token from logits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn import checks
from jrnn.arrays import ArrayLike, at_least_float32


def sample_token(
    key: jax.Array,
    logits: ArrayLike,
    temperature: jax.Array | float = 1.0,
    top_k: jax.Array | int | None = None,
    top_p: jax.Array | float | None = None,
) -> jax.Array:
    """Draw a token from softmax(logits / temperature), optionally from the likeliest tokens only.

    It sorts the logits, whatever the options: for tens of thousands of tokens this takes most of
    the time.

    Args:
        key: a JAX random key.
        logits: `[..., O]`.
        temperature: 0, or any number below the smallest normal float32 (1.2e-38), takes the
            likeliest token; 1 does not change the distribution; inf makes all tokens equally
            likely, except those with a logit of -inf.
        top_k: keep the k likeliest tokens (Fan, Lewis and Dauphin, Hierarchical Neural Story
            Generation, 2018); None keeps all.
        top_p: keep the smallest set of likeliest tokens whose probability, after temperature and
            top_k, reaches p (Holtzman et al., The Curious Case of Neural Text Degeneration, 2020);
            None keeps all.

    Returns:
        `[...]` int32 tokens. A token with a logit of -inf is never drawn. The result is -1 if the
        logits are not a distribution: one is NaN or +inf, or all are -inf.

    Raises:
        ValueError: no key, or several; logits without classes, concrete logits that are not a
            distribution, or a concrete option outside its range.
    """
    checks.key(key)
    checks.logits(logits)
    checks.distribution(logits)
    checks.sampling_options(temperature, top_k, top_p)
    return token_of(key, logits, *token_options(logits.shape[-1], temperature, top_k, top_p))


Options = tuple[jax.Array, jax.Array, jax.Array]  # temperature, top_k, top_p


def token_options(O: int, temperature: Any, top_k: Any, top_p: Any) -> Options:
    """Options as arrays, so that new values compile nothing.

    Args:
        O: tokens.
        temperature: as in `sample_token`.
        top_k: as in `sample_token`.
        top_p: as in `sample_token`.

    Returns:
        Arrays `[]`; O and inf stand for None.
    """
    top_p = jnp.inf if top_p is None else top_p
    return (
        jnp.asarray(temperature, jnp.float32),
        _at_most(O, top_k),
        jnp.asarray(top_p, jnp.float32),
    )


def _at_most(O: int, top_k: Any) -> jax.Array:
    """top_k, or O if it is None or larger. O may not fit into its dtype, nor it into 32 bits."""
    if not isinstance(top_k, jax.core.Tracer):
        return jnp.asarray(O if top_k is None else min(np.asarray(top_k).item(), O), jnp.int32)
    if top_k.dtype.itemsize < 4:
        top_k = top_k.astype(jnp.int32)
    return jnp.minimum(top_k, O).astype(jnp.int32)


def token_of(
    key: jax.Array, logits: ArrayLike, temperature: jax.Array, top_k: jax.Array, top_p: jax.Array
) -> jax.Array:
    """`sample_token` without checks.

    Args:
        key: a JAX random key.
        logits: `[..., O]`.
        temperature: `[]`, of `token_options`.
        top_k: `[]`.
        top_p: `[]`.

    Returns:
        `[...]` int32 tokens.
    """
    greedy = temperature < np.finfo(np.float32).tiny  # XLA may flush smaller numbers to 0
    wide = at_least_float32(logits)
    largest = wide.max(-1, keepdims=True)  # not finite if the logits are not a distribution
    order = jnp.argsort(-wide, -1)  # stable: the first of equal logits ranks first
    ranked = _over_temperature(wide, jnp.where(greedy, 1, temperature))
    ranked = jnp.take_along_axis(ranked, order, -1)
    kept = jnp.where(greedy, 1, top_k)
    ranked = jnp.where(jnp.arange(ranked.shape[-1], dtype=jnp.int32) < kept, ranked, -jnp.inf)
    p = jax.nn.softmax(ranked, -1)
    mass_before = jnp.cumsum(p, -1) - p  # probability of all tokens that rank before
    # The sum of many may round to 1 before the last of them.
    ranked = jnp.where((mass_before < top_p) | (top_p >= 1), ranked, -jnp.inf)
    rank = jax.random.categorical(key, ranked)[..., None]
    token = jnp.where(jnp.isfinite(largest), jnp.take_along_axis(order, rank, -1), -1)
    return token.squeeze(-1).astype(jnp.int32)


def _over_temperature(logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """(logits - largest logit) / temperature, in float32, without intermediate overflow.

    The difference of two halves is finite. XLA divides by multiplying with the inverse, so
    numerator and denominator are scaled such that the inverse is a normal number too.
    """
    dtype, top = logits.dtype, logits.max(-1, keepdims=True)
    scale = jnp.where(temperature > 1, 2.0**-64, 2.0**64).astype(jnp.float32)
    halves = logits / 2 - top / 2
    scaled = halves * (2 * scale).astype(dtype) / (scale * temperature).astype(dtype)
    return jnp.where(halves == -jnp.inf, -jnp.inf, scaled).astype(jnp.float32)  # -inf / inf
