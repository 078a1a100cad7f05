"""Sample text, or any sequence of tokens, from a trained network.

Sampling needs only the hidden state after the prompt and its logits. Both loops below run blocks of
a fixed number of steps, so a new length of the prompt or of the sample compiles nothing, and the
sample can be shown while it grows.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jrnn import checks
from jrnn._unroll import output_of, step_checked, zero_state
from jrnn.arrays import ArrayLike, at_least_float32
from jrnn.cells import UncheckedCell
from jrnn.cells.elman import Activation, ActivationName
from jrnn.cells.kinds import cell_of
from jrnn.loss.softmax import readout
from jrnn.types import ReadoutParams

BLOCK = 32  # steps per call of a compiled loop


def sample_token(
    key: jax.Array,
    logits: ArrayLike,
    temperature: jax.Array | float = 1.0,
    top_k: jax.Array | int | None = None,
    top_p: jax.Array | float | None = None,
) -> jax.Array:
    """Draw a token from softmax(logits / temperature), optionally from the likeliest tokens only.

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
        ValueError: logits without classes, concrete logits that are not a distribution, or a
            concrete option outside its range.
    """
    checks.logits(logits)
    checks.distribution(logits)
    checks.sampling_options(temperature, top_k, top_p)
    return _sample_token(key, logits, *_options(logits.shape[-1], temperature, top_k, top_p))


Options = tuple[jax.Array, jax.Array, jax.Array]  # temperature, top_k, top_p


def _options(O: int, temperature: Any, top_k: Any, top_p: Any) -> Options:
    """Options as arrays, so that new values compile nothing; O and inf stand for None."""
    top_k = O if top_k is None else jnp.minimum(top_k, O)
    top_p = jnp.inf if top_p is None else top_p
    return (
        jnp.asarray(temperature, jnp.float32),
        jnp.asarray(top_k, jnp.int32),
        jnp.asarray(top_p, jnp.float32),
    )


def _sample_token(
    key: jax.Array, logits: ArrayLike, temperature: jax.Array, top_k: jax.Array, top_p: jax.Array
) -> jax.Array:
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
    ranked = jnp.where(mass_before < top_p, ranked, -jnp.inf)
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


def generate(
    rnn_params: Any,
    readout_params: ReadoutParams,
    key: jax.Array,
    prompt: Any,
    length: int,
    *,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
) -> Iterator[np.ndarray]:
    """Continue a prompt with one or several samples; tokens are yielded as they are drawn.

    Args:
        rnn_params: parameters of a network over token ids, `w_ih [O, ...]`: `RNNParams`,
            `LSTMParams`, `GRUParams`, `LeakyParams`, or those of `cell`.
        readout_params: `w_ho [H, O]`. A token with a bias of -inf is never drawn.
        key: a JAX random key. Equal keys give equal samples.
        prompt: `[P]` token ids, P >= 1, read from a state of zeros; not part of the output.
        length: number of tokens per sample.
        num_samples: number of samples.
        temperature: as in `sample_token`; at least 0.
        top_k: as in `sample_token`; at least 1.
        top_p: as in `sample_token`; above 0, at most 1.
        activation: as in `jrnn.rnn_cross_entropy`.
        cell: as in `jrnn.rnn_cross_entropy`; one that reads no `data`.

    Returns:
        An iterator over `[num_samples, n]` int32 tokens, n <= 32; the n add up to `length`.

    Raises:
        ValueError: an empty prompt, ids outside [0, O), an option outside its range, parameters
            that are not finite; from the iterator, a state that overflows.
    """
    prompt, cell = np.asarray(prompt), cell_of(rnn_params, activation, cell)
    checks.generate_arguments(cell, rnn_params, readout_params, prompt, length, num_samples)
    checks.finite_parameters(rnn_params=rnn_params, readout_params=readout_params)
    checks.sampling_options(temperature, top_k, top_p)
    options = _options(readout_params.w_ho.shape[1], temperature, top_k, top_p)
    draw = partial(_draw_block, rnn_params, readout_params, options, cell=cell)
    state = _read_prompt(cell, rnn_params, prompt)
    state = jax.tree.map(lambda s: jnp.broadcast_to(s, (num_samples, *s.shape)), state)
    return _generate_blocks(draw, state, key, length)


def _read_prompt(cell: UncheckedCell, params: Any, prompt: np.ndarray) -> Any:
    """The state after a prompt `[P]`, arrays `[H]`."""
    state = zero_state(cell, params)
    for start in range(0, len(prompt), BLOCK):
        ids = prompt[start : start + BLOCK]
        block = np.zeros(BLOCK, np.int32)
        block[: len(ids)] = ids
        state = _read_block(params, state, block, len(ids), cell=cell)
    return state


def _generate_blocks(
    draw: Callable[[Any, jax.Array], tuple[Any, jax.Array]],
    state: Any,
    key: jax.Array,
    length: int,
) -> Iterator[np.ndarray]:
    for start in range(0, length, BLOCK):
        state, tokens = draw(state, jax.random.fold_in(key, start))
        block = np.asarray(tokens).T[:, : length - start]
        checks.drawn(block, start)
        yield block


@partial(jax.jit, static_argnames="cell")
def _read_block(
    params: Any, state: Any, ids: jax.Array, count: jax.Array, *, cell: UncheckedCell
) -> Any:
    """The state after the first `count` ids of a block."""
    return lax.fori_loop(0, count, lambda i, s: step_checked(cell, params, s, ids[i]), state)


@partial(jax.jit, static_argnames="cell")
def _draw_block(
    rnn_params: Any,
    readout_params: ReadoutParams,
    options: Options,
    state: Any,
    key: jax.Array,
    *,
    cell: UncheckedCell,
) -> tuple[Any, jax.Array]:
    """Draw a block of tokens and read each: returns the state and `[BLOCK, B]` tokens."""

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        tokens = _sample_token(key, readout(readout_params, output_of(cell, state)), *options)
        return step_checked(cell, rnn_params, state, tokens), tokens

    return lax.scan(step, state, jax.random.split(key, BLOCK))
