"""Sample text, or any sequence of tokens, from a trained network, while it is read.

`jrnn.generate` continues any sequence and returns the result; it is compiled for each length.
`jrnn.sampling.generate` yields tokens in blocks of a fixed number of steps. So a sample can be
shown while it grows, and a new length of the prompt or of the sample compiles nothing. Equal keys
give the same tokens in both.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jrnn import checks, kernel
from jrnn._generate import BLOCK, chooser, free_run
from jrnn._stack import as_stack
from jrnn._stack_step import filled_states, step_layers
from jrnn._tokens import Options, token_options
from jrnn._tokens import sample_token as sample_token
from jrnn.types import ReadoutParams, StackParams

Specs = tuple[kernel.Spec, ...]  # of each layer


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
    activation: Any = None,
    cell: Any = None,
) -> Iterator[np.ndarray]:
    """Continue a prompt with one or several samples; tokens are yielded as they are drawn.

    Args:
        rnn_params: parameters of a network over token ids, `w_ih [O, ...]`: `RNNParams`,
            `LSTMParams`, `GRUParams`, those of `cell`, or a `StackParams` of
            layers without a backward network.
        readout_params: `w_ho [H, O]`. A token with a bias of -inf is never drawn.
        key: a JAX random key. Equal keys give equal samples.
        prompt: `[P]` token ids, P >= 1, read from a state of zeros; not part of the output.
        length: number of tokens per sample.
        num_samples: number of samples.
        temperature: as in `sample_token`; at least 0.
        top_k: as in `sample_token`; at least 1.
        top_p: as in `sample_token`; above 0, at most 1.
        activation: as in `jrnn.generate`.
        cell: as in `jrnn.generate`.

    Returns:
        An iterator over `[num_samples, n]` int32 tokens, n <= 32; the n add up to `length`.

    Raises:
        ValueError: no key, or several; an empty prompt, ids outside [0, O), an option outside its
            range, parameters that are not finite; from the iterator, a state that overflows.
    """
    checks.key(key)
    prompt = np.asarray(prompt)
    params, cells, specs = as_stack(rnn_params, activation, cell)
    checks.sampler_arguments(cells, params, readout_params, prompt, length, num_samples)
    checks.finite_parameters(rnn_params=rnn_params, readout_params=readout_params)
    checks.sampling_options(temperature, top_k, top_p)
    options = token_options(readout_params.w_ho.shape[1], temperature, top_k, top_p)
    states = filled_states(specs, params, None, ())
    for start in range(0, len(prompt) - 1, BLOCK):
        ids = prompt[start : min(start + BLOCK, len(prompt) - 1)]
        block = np.zeros(BLOCK, np.int32)
        block[: len(ids)] = ids
        states = _read_block(params, states, block, len(ids), specs=specs)
    carry = states, jnp.asarray(prompt[-1], jnp.int32)
    carry = jax.tree.map(lambda s: jnp.broadcast_to(s, (num_samples, *s.shape)), carry)
    draw = partial(_draw_block, params, readout_params, options, specs=specs)
    return _blocks(draw, carry, key, length)


def _blocks(draw: Any, carry: Any, key: jax.Array, length: int) -> Iterator[np.ndarray]:
    for start in range(0, length, BLOCK):
        carry, tokens = draw(carry, jax.random.fold_in(key, start))
        block = np.asarray(tokens).T[:, : length - start]
        checks.drawn(block, start)
        yield block


@partial(jax.jit, static_argnames="specs")
def _read_block(
    params: StackParams, states: Any, ids: jax.Array, count: jax.Array, *, specs: Specs
) -> Any:
    """The states after the first `count` ids of a block."""

    def read(i: jax.Array, states: Any) -> Any:
        return step_layers(specs, params, states, ids[i])[0]

    return lax.fori_loop(0, count, read, states)


@partial(jax.jit, static_argnames="specs")
def _draw_block(
    params: StackParams,
    readout_params: ReadoutParams,
    options: Options,
    carry: Any,
    key: jax.Array,
    *,
    specs: Specs,
) -> tuple[Any, jax.Array]:
    """Read and draw a block of tokens: returns the states with the last token, and `[BLOCK, B]`."""
    step, keys = partial(step_layers, specs, params), jax.random.split(key, BLOCK)
    states, token = carry
    return free_run(readout_params, step, chooser(None, options), states, token, keys)
