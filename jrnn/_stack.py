"""Layers of Elman networks, read in one direction or in both.

A layer reads x_t; its output y_t, after dropout, is the x_t of the layer above. Its states are
those of (1) and (2), forwards h_t and backwards g_t:

    u_t = [h_t, g_t]             or h_t alone                                      (18)
    n_t = scale * (u_t - mean(u_t)) / sqrt(var(u_t) + 1e-5) + offset     or u_t    (19)
    y_t = n_t + x_t              or n_t; in the padding 0                          (20)
    x_t of the next layer = m_t y_t       m_t: 0 with probability p, else 1/(1-p)  (21)

(18) is Schuster and Paliwal, Bidirectional recurrent neural networks, 1997; (19), whose mean and
variance are those of the features of one step, Ba, Kiros and Hinton, Layer normalization, 2016, on
the output of a layer and not inside the recurrence; (20) He et al., Deep residual learning for
image recognition, 2016; (21) Zaremba, Sutskever and Vinyals, Recurrent neural network
regularization, 2014. A residual connection adds x_t before dropout; only the networks read it after
dropout. JAX differentiates (18)-(21).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, orthogonal

from jrnn import checks, kernel
from jrnn._rnn import elman_spec, init_rnn, unroll_elman
from jrnn.arrays import ArrayLike, Initializer, InputsAre, add_bias, at_least_float32
from jrnn.cells.elman import Activation, ActivationName
from jrnn.lengths import counted_steps
from jrnn.types import LayerNormParams, LayerParams, StackParams

EPSILON = 1e-5  # of (19)

LayerStates = Sequence[ArrayLike | None]  # one per layer, each None, [D*H] or [B, D*H]
Run = Callable[..., tuple[jax.Array, jax.Array]]  # a network in one direction, as `rnn`


def init_stack(
    key: jax.Array,
    input_size: int,
    hidden_sizes: Sequence[int],
    *,
    bidirectional: bool = False,
    layer_norm: bool = False,
    bias: bool = True,
    w_ih_init: Initializer = lecun_normal(),  # noqa: B008
    w_hh_init: Initializer = orthogonal(),  # noqa: B008
    dtype: Any = None,
) -> StackParams:
    """Draw the parameters of a stack of Elman networks.

    Args:
        key: a JAX random key.
        input_size: I, features of an input vector or number of token ids.
        hidden_sizes: H of each layer, from the inputs up; read in both directions, a layer of
            size H has outputs of size 2H.
        bidirectional: whether each layer has a second network, which reads backwards.
        layer_norm: whether the output of each layer is normalised, with a scale (ones) and an
            offset (zeros) for every feature.
        bias: False leaves every `b_h` out (None in its place).
        w_ih_init: as in `init_rnn`.
        w_hh_init: as in `init_rnn`.
        dtype: a floating dtype; None is JAX's default float.

    Returns:
        `StackParams`, whose `layers` are one `LayerParams(forward, backward, norm)` per size.

    Raises:
        ValueError: no layer, a size below 1, an option that is not True or False, or a dtype that
            is not floating.
    """
    checks.stack_sizes(input_size, hidden_sizes)
    checks.flag("bidirectional", bidirectional)
    checks.flag("layer_norm", layer_norm)
    dtype = checks.floating_dtype(dtype)
    draw = partial(init_rnn, bias=bias, w_ih_init=w_ih_init, w_hh_init=w_hh_init, dtype=dtype)
    layers = []
    for layer_key, H in zip(jax.random.split(key, len(hidden_sizes)), hidden_sizes, strict=True):
        key_forward, key_backward = jax.random.split(layer_key)
        output_size = 2 * H if bidirectional else H
        norm = LayerNormParams(jnp.ones(output_size, dtype), jnp.zeros(output_size, dtype))
        layers.append(
            LayerParams(
                forward=draw(key_forward, input_size, H),
                backward=draw(key_backward, input_size, H) if bidirectional else None,
                norm=norm if layer_norm else None,
            )
        )
        input_size = output_size
    return StackParams(tuple(layers))


def stack(
    params: StackParams,
    xs: ArrayLike,
    h0: LayerStates | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: LayerStates | None = None,
    key: jax.Array | None = None,
    mask: ArrayLike | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
    dropout: float = 0.0,
    residual: bool = False,
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Run a stack of Elman networks over a sequence, or over a batch of sequences.

    Each layer reads the outputs of the one below, by (18)-(21), and every gradient of its
    recurrence is that of `rnn`. Lengths and resets hold in every layer and direction. A readout
    gives one answer for each step, or one for each sequence:

        h_last, hs = jrnn.stack(params, xs, None, lengths)
        jrnn.readout(readout, hs)  # [T, B, O]
        jrnn.readout(readout, h_last[-1])  # [B, O], of the last states
        jrnn.readout(readout, jrnn.mean_over_time(hs, lengths))  # [B, O]

    Args:
        params: of `init_stack`, of one floating dtype; any layer may lack a backward network or
            the norm.
        xs: `[T, I]` or `[T, B, I]` inputs in the dtype of the parameters, or `[T]` or `[T, B]`
            integers: token ids, as in `rnn`.
        h0: the states before the first step: None (zeros), or for each layer None, `[D*H]`
            (shared by the batch) or `[B, D*H]`, forwards and then backwards, as in `h_last`.
        lengths: `[B]` or `[]` integers, as in `rnn`.
        resets: `[T, B]` or `[T]` bool, as in `rnn`.
        reset_state: the states that a reset goes back to, in the form of `h0`.
        key: a JAX random key for dropout; None is evaluation, without dropout. Under `vmap`, map
            it too, or every sequence gets the same dropout.
        mask: `[T, B]` or `[T]` bool, the steps that count, as in `rnn`, in every layer.
        activation: as in `rnn`, in every layer.
        dropout: p of (21), the share of the outputs of every layer but the last that the layer
            above does not see; every step draws its own.
        residual: whether every layer adds its input to its output, (20). The inputs of every layer
            must then be vectors as wide as its output, D*H.
        compute_dtype: as in `rnn`; (19) and (20) are computed in the dtype of the parameters.
        remat: as in `rnn`, in each layer. The inputs of every layer are kept, so this saves the
            states of the last layer, and of both directions of every layer.
        inputs: as in `rnn`; `[B, D*H]` states of a layer are an argument with an axis B.

    Returns:
        `(h_last, hs)`: for each layer `[D*H]` or `[B, D*H]`, the states of (1) and (2) after the
        last step, and of the backward network after x_0, before norm and residual connection, as
        `h0` takes them; and `[T, D*H]` or `[T, B, D*H]`, y of the last layer. Dtypes as in `rnn`.

    Raises:
        ValueError: what `rnn` refuses, of any layer; parameters, states or a residual connection
            that do not fit, or a dropout outside [0, 1).
    """
    states = (h0, lengths, resets, reset_state)
    xs = checks.stack_arguments(params, xs, *states, mask, reading=inputs)
    checks.known_steps(xs)
    checks.dropout_rate("dropout", dropout)
    checks.residual(residual, params, xs)
    spec = elman_spec(params.layers[0].forward, activation, compute_dtype, remat=remat)
    key = key if dropout > 0 else None
    options = {"spec": spec, "dropout": float(dropout), "residual": bool(residual)}
    return _stack(params, xs, *states, key, mask, **options)


@partial(jax.jit, static_argnames=("spec", "dropout", "residual"))
def _stack(
    params: StackParams, xs: jax.Array, *data: Any, spec: kernel.Spec, **options: Any
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    h_lasts, ys = layer_by_layer(partial(unroll_elman, spec), params, xs, *data, **options)
    return h_lasts, ys if spec.compute_dtype is None else ys.astype(spec.compute_dtype)


def layer_by_layer(
    run: Run,
    params: StackParams,
    xs: jax.Array,
    h0: LayerStates | None = None,
    lengths: jax.Array | None = None,
    resets: jax.Array | None = None,
    reset_state: LayerStates | None = None,
    key: jax.Array | None = None,
    mask: jax.Array | None = None,
    *,
    dropout: float = 0.0,
    residual: bool = False,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """The `(h_last, hs)` of `stack` around `run`, which is `rnn` or an equal function.

    Args:
        run: a network in one direction, called as `rnn`.
        params: as in `stack`, and so the rest, which has passed the checks.
        xs: the inputs.
        h0: the first states.
        lengths: steps of each sequence.
        resets: where segments begin.
        reset_state: the states that resets go back to.
        key: for dropout.
        mask: the steps that count.
        dropout: p of (21).
        residual: whether (20) adds x_t.

    Returns:
        The last states of each layer, and the outputs of the last layer.
    """
    ys, h_lasts, none = xs, [], (None,) * len(params.layers)
    layers = zip(params.layers, h0 or none, reset_state or none, strict=True)
    for index, (layer, start, again) in enumerate(layers):
        below, xs = ys, ys
        if index > 0 and key is not None:
            mask_key = jax.random.fold_in(key, index)
            xs = below * _dropout_mask(mask_key, dropout, below.shape, below.dtype)  # (21)
        h_last, us = _read(run, layer, xs, start, lengths, resets, again, mask)
        ys = us.astype(h_last.dtype)
        if residual or layer.norm is not None:
            ys = _outputs(layer.norm, ys, below if residual else None, lengths, mask)
        h_lasts.append(h_last)
    return tuple(h_lasts), ys


def _read(
    run: Run,
    layer: LayerParams,
    xs: jax.Array,
    h0: ArrayLike | None,
    lengths: jax.Array | None,
    resets: jax.Array | None,
    reset_state: ArrayLike | None,
    mask: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """The last states and (18), the states, of every direction."""
    networks = [layer.forward] if layer.backward is None else [layer.forward, layer.backward]
    D, runs = len(networks), []
    starts, agains = ([None] * D if h is None else jnp.split(h, D, -1) for h in (h0, reset_state))
    for i, network in enumerate(networks):
        data = (xs, starts[i], lengths, resets, agains[i], None, mask)
        runs.append(run(network, *data, reverse=i == 1))
    h_lasts, states = zip(*runs, strict=True)
    return jnp.concatenate(h_lasts, -1), jnp.concatenate(states, -1)


@partial(jax.checkpoint, prevent_cse=False)  # keep us and nothing else of its size
def _outputs(
    norm: LayerNormParams | None,
    us: jax.Array,
    below: jax.Array | None,
    lengths: jax.Array | None,
    mask: jax.Array | None,
) -> jax.Array:
    """(19) and (20). At a step that does not count us is 0, but x_t may be anything."""
    ys = us if norm is None else _normalised(norm, us)
    ys = ys if below is None else ys + below
    if lengths is None and mask is None:
        return ys
    return jnp.where(counted_steps(us.shape[:-1], lengths, mask)[..., None], ys, 0)


def _normalised(norm: LayerNormParams, us: jax.Array) -> jax.Array:
    """(19), inside in at least float32."""
    wide = at_least_float32(us)
    centred = wide - wide.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    scale = at_least_float32(norm.scale).reshape((1,) * (us.ndim - 1) + (-1,))
    n = scale * centred * jax.lax.rsqrt(variance + EPSILON)
    return add_bias(n, norm.offset).astype(us.dtype)


def dropout_mask(
    key: jax.Array, rate: jax.Array | float, shape: Sequence[int], dtype: Any = None
) -> jax.Array:
    """A random mask m of (21). Its mean is 1, so evaluation needs no scaling.

    Args:
        key: a JAX random key.
        rate: p in [0, 1), the share of zeros.
        shape: of the mask.
        dtype: a floating dtype, that of the array to multiply; None is JAX's default float.

    Returns:
        `shape` of 0, with probability p, and 1/(1-p).

    Raises:
        ValueError: a concrete rate outside [0, 1), or a dtype that is not floating.
    """
    checks.dropout_rate("rate", rate)
    return _dropout_mask(key, rate, tuple(shape), checks.floating_dtype(dtype))


@partial(jax.jit, static_argnums=(2, 3))
def _dropout_mask(
    key: jax.Array, rate: jax.Array | float, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    return jnp.where(kept, 1 / (1 - rate), 0).astype(dtype)
