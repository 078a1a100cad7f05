"""Run a network freely: each of its outputs, or a draw from it, is its next input."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn import checks, kernel
from jrnn._network import run_network
from jrnn._stack import as_stack, run_layers
from jrnn._stack_step import filled_states, step_layers
from jrnn._tokens import token_of, token_options
from jrnn.arrays import ArrayLike, are_ids, in_32_bits, steps, varying_alike
from jrnn.loss.softmax import readout
from jrnn.types import ReadoutParams, StackParams

BLOCK = 32  # keys are split for so many steps at a time, as `sampling.generate` draws them
Draw = Callable[[jax.Array | None, jax.Array], jax.Array]  # (key, outputs) -> the next inputs


def generate(
    rnn_params: Any,
    readout_params: ReadoutParams,
    prefix: ArrayLike,
    length: int,
    states: Any = None,
    known: ArrayLike | None = None,
    key: jax.Array | None = None,
    *,
    draw: Draw | None = None,
    temperature: jax.Array | float = 1.0,
    top_k: jax.Array | int | None = None,
    top_p: jax.Array | float | None = None,
    activation: Any = None,
    cell: Any = None,
    residual: bool = False,
) -> tuple[Any, jax.Array]:
    """Continue a sequence: the outputs of a network, or draws from them, are its next inputs.

    The network reads the prefix as it is given. Then, `length` times, its last output o_t makes
    the next input:

        vectors     o_t itself, or draw(key_t, o_t)
        token ids   a draw from softmax(o_t / temperature), as `sampling.sample_token`

    In each step the network reads [x_t, known_t], where inputs are known in advance. It equals the
    network over the prefix and all of the continuation, step by step, and is differentiated by JAX
    (tokens and random draws excepted). To go further, take the last result as the prefix:

        states, xs = jrnn.generate(params, readout, prefix, 100)
        states, more = jrnn.generate(params, readout, xs[-1:], 100, states)

    Args:
        rnn_params: `RNNParams`, `LSTMParams`, `GRUParams`, those of `cell`, or a
            `StackParams` of layers without a backward network.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None. For ids a logit for each; for vectors
            without a `draw` O = D.
        prefix: `[P, D]` or `[P, B, D]` vectors in the dtype of the parameters, or `[P]` or `[P, B]`
            token ids; P >= 1.
        length: number of new steps, static.
        states: the states before the prefix, as the network or the stack takes them; None: zeros.
        known: `[L, K]`, shared by the batch, or `[L, B, K]` inputs that are known in advance, from
            the first step of the prefix on: the network reads vectors of size D + K. L is at least
            P + length - 1: the last new step is not read. None for ids.
        key: a JAX random key; None if nothing is random. Equal keys give equal draws.
        draw: `(key, outputs [O] or [B, O]) -> next inputs`, which are cast to the dtype of xs;
            static: it is compiled again for another function, so define it once. The key is None
            if `key` is.
        temperature: as in `sampling.sample_token`, of ids; 0 takes the likeliest and needs no key.
        top_k: as in `sampling.sample_token`, of ids.
        top_p: as in `sampling.sample_token`, of ids.
        activation: as in `rnn`, of an Elman network; None: "tanh". As in `stack`.
        cell: the `jrnn.Cell` of parameters of your own; None: that of the package. As in `stack`.
        residual: as in `stack`.

    Returns:
        `(states, xs)`: the states after all that was read, which is all but the last of xs; and the
        new steps, `[length, D]` or `[length, B, D]`, or int32 ids `[length]` or `[length, B]`. From
        logits that are no distribution the token is -1.

    Raises:
        ValueError: an empty prefix; a prefix longer than the known inputs, or known inputs that end
            too early; sizes or dtypes that do not fit together; ids outside [0, O); random tokens
            without a key, or several keys; an option outside its range; a layer with a backward
            network.
    """
    params, cells, specs = as_stack(rnn_params, activation, cell)
    alone = not isinstance(rnn_params, StackParams)
    given = (prefix, length, states, known)
    checks.generate_arguments(cells, params, readout_params, *given, alone=alone)
    states = (states,) if alone else states
    checks.residual(residual, cells, params, prefix)
    ids, options = are_ids(prefix), None
    if ids and draw is None:
        checks.sampling_options(temperature, top_k, top_p)
        checks.key_of_tokens(key, temperature)
        options = token_options(readout_params.w_ho.shape[1], temperature, top_k, top_p)
    else:
        checks.no_sampling_options(temperature, top_k, top_p)
    if key is not None:
        checks.key(key)
    checks.drawn_inputs(draw, key, readout_params, prefix)
    batch = steps(prefix)[1:]
    found, xs = _generate(
        *(params, readout_params, filled_states(specs, params, states, batch)),
        *(in_32_bits(prefix) if ids else prefix, known, key, options),
        specs=specs,
        length=int(length),
        draw=draw,
        residual=bool(residual),
    )
    return found[0] if alone else found, xs


@partial(jax.jit, static_argnames=("specs", "length", "draw", "residual"))
def _generate(
    params: StackParams,
    readout_params: ReadoutParams,
    states: Any,
    prefix: jax.Array,
    known: jax.Array | None,
    key: jax.Array | None,
    options: Any,
    *,
    specs: tuple[kernel.Spec, ...],
    length: int,
    draw: Draw | None,
    residual: bool,
) -> tuple[Any, jax.Array]:
    given = (params, readout_params, states, prefix, known, key, options)
    # As the carry of the scan, which draws with the key and the options.
    params, readout_params, states, prefix, known, key, options = varying_alike(given)
    P, lead = len(prefix), prefix.shape[1:-1]
    if known is not None:
        known = known.reshape(len(known), *(1,) * (prefix.ndim - known.ndim), *known.shape[1:])
        known = jnp.broadcast_to(known, (len(known), *lead, known.shape[-1]))
    if P > 1:
        read = prefix[:-1] if known is None else _with(prefix[:-1], known[: P - 1])
        runs = [partial(run_network, spec) for spec in specs]
        states, _ = run_layers(runs, specs, params, read, states, residual=residual)
    if known is not None:
        known = known[P - 1 : P - 1 + length]
    step = partial(step_layers, specs, params, residual=residual)
    choose = chooser(draw, options)
    keys = None if key is None else _keys(key, length)
    call = (readout_params, step, choose, states, prefix[-1])
    (states, _), xs = free_run(*call, keys, known, length)
    return states, xs


def chooser(draw: Draw | None, options: Any) -> Draw:
    """The function from outputs to the next inputs.

    Args:
        draw: as in `generate`.
        options: of `token_options`, for ids; None for vectors.

    Returns:
        `(key, outputs) -> next inputs`.
    """
    if draw is not None:
        return draw
    if options is None:
        return lambda key, outputs: outputs
    return lambda key, logits: token_of(jax.random.key(0) if key is None else key, logits, *options)


def free_run(
    readout_params: ReadoutParams,
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array]],
    choose: Draw,
    states: Any,
    x: jax.Array,
    keys: jax.Array | None,
    known: jax.Array | None = None,
    length: int | None = None,
) -> tuple[tuple[Any, jax.Array], jax.Array]:
    """Read an input, and choose the next one from the output, again and again.

    Args:
        readout_params: of the outputs.
        step: `(states, x_t) -> (states, y_t)`.
        choose: `(key, outputs) -> next inputs`.
        states: before the first step.
        x: the first input, without the known part.
        keys: one for each step; or None.
        known: the known part of each input; or None.
        length: the number of steps; None: that of the keys.

    Returns:
        The states and the last choice, which is not read; and all choices.
    """

    def next_step(carry: Any, given: Any) -> Any:
        (states, x), (key, also) = carry, given
        states, y = step(states, x if also is None else _with(x, also))
        found = choose(key, readout(readout_params, y))
        x = in_32_bits(found) if are_ids(x) else found.astype(x.dtype)  # no weak type
        return (states, x), x

    return lax.scan(next_step, (states, x), (keys, known), length)


def _with(xs: jax.Array, known: jax.Array) -> jax.Array:
    return jnp.concatenate([xs, known], -1)


def _keys(key: jax.Array, length: int) -> jax.Array:
    """A key for each step; the same for the first steps of another length."""
    starts = jnp.arange(0, length, BLOCK)
    blocks = jax.vmap(lambda start: jax.random.split(jax.random.fold_in(key, start), BLOCK))(starts)
    return blocks.reshape(-1, *blocks.shape[2:])[:length]
