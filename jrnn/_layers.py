"""Between the layers of a stack: directions, normalisation, residual connection, dropout.

A layer reads x_t; its output y_t, after dropout, is the x_t of the layer above. Its networks have
the outputs h_t, forwards, and g_t, backwards:

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

Whole sequences (`stack`), segments of them (`rnn_loss`) and single steps (`stack_step`) differ in
the functions that run the networks, and share `layer_by_layer`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.arrays import add_bias, at_least_float32
from jrnn.cells import UncheckedCell
from jrnn.types import LayerNormParams, LayerParams

EPSILON = 1e-5  # of (19)

# A network in one direction: (parameters, xs, state, lengths, resets, reset_state, recurrent_mask,
# mask, reverse=...) -> (state, hs)
Run = Callable[..., tuple[Any, jax.Array]]
# The networks of one layer: inputs -> last states, (18)
Read = Callable[[jax.Array], tuple[Any, jax.Array]]


class Dropout(NamedTuple):
    """(21) for some steps. Each step has a key of its own, so that segments can be drawn alone."""

    key: jax.Array
    rate: float
    steps: jax.Array  # [T] their numbers

    def of(self, layer: int, ys: jax.Array) -> jax.Array:
        """The inputs of a layer.

        Args:
            layer: its number.
            ys: `[T, ...]`, the outputs of the layer below.

        Returns:
            m_t y_t.
        """
        key = jax.random.fold_in(self.key, layer)

        def mask(t: jax.Array) -> jax.Array:
            return _dropout_mask(jax.random.fold_in(key, t), self.rate, ys.shape[1:], ys.dtype)

        return ys * jax.vmap(mask)(self.steps)  # (21)


def layer_by_layer(
    reads: Sequence[Read],
    layers: Sequence[LayerParams],
    xs: jax.Array,
    counted: jax.Array | None = None,
    dropout: Dropout | None = None,
    *,
    residual: bool = False,
) -> tuple[tuple[Any, ...], jax.Array]:
    """(18)-(21) around functions that run the networks of a layer.

    Args:
        reads: for each layer a function of its inputs that gives its last states and (18).
        layers: the parameters.
        xs: the inputs of the first layer.
        counted: bool, the steps that count; None: all.
        dropout: (21); None: none.
        residual: whether (20) adds x_t.

    Returns:
        The last states of each layer, and the outputs of the last layer.
    """
    ys, h_lasts = xs, []
    for index, (read, layer) in enumerate(zip(reads, layers, strict=True)):
        below = ys
        with jax.named_scope(f"layers[{index}]"):  # for `explain`, and in a profile
            h_last, us = read(below if index == 0 or dropout is None else dropout.of(index, below))
            ys = us.astype(layer.forward.w_hh.dtype)
            if residual or layer.norm is not None:
                ys = _outputs(layer.norm, ys, below if residual else None, counted)
        h_lasts.append(h_last)
    return tuple(h_lasts), ys


def read_both_ways(
    run: Run,
    cell: UncheckedCell,
    layer: LayerParams,
    state: Any,
    reset_state: Any,
    recurrent_mask: Any,
    xs: jax.Array,
    *,
    ends: tuple[Any, ...] = (None, None, None),
    reverse: bool = False,
) -> tuple[Any, jax.Array]:
    """The networks of a layer over a sequence.

    Args:
        run: of one network.
        cell: of the layer.
        layer: its parameters.
        state: its first states, in the form of `stack`.
        reset_state: the states that resets go back to.
        recurrent_mask: m of (23).
        xs: the inputs.
        ends: lengths, resets and mask, as in `stack`.
        reverse: the direction of a layer of one.

    Returns:
        The last states and (18), the outputs, of every direction.
    """
    lengths, resets, mask = ends
    networks = [layer.forward] if layer.backward is None else [layer.forward, layer.backward]
    D, pair, found = len(networks), is_pair(cell), []
    starts, agains = (_split_directions(h, D, pair) for h in (state, reset_state))
    masks = _split_directions(recurrent_mask, D, False)
    for i, (network, start, again, m) in enumerate(
        zip(networks, starts, agains, masks, strict=True)
    ):
        data = (xs, start, lengths, resets, again, m, mask)
        with jax.named_scope("backward" if i else "forward"):  # as in `LayerParams`
            found.append(run(network, *data, reverse=i == 1 or reverse))
    h_lasts, outputs = zip(*found, strict=True)
    if pair:
        return h_lasts if D == 2 else h_lasts[0], jnp.concatenate(outputs, -1)
    return jnp.concatenate(h_lasts, -1), jnp.concatenate(outputs, -1)


def is_pair(cell: UncheckedCell) -> bool:
    """Whether the states of two directions are a pair, and not one array.

    Args:
        cell: of the layer.

    Returns:
        True for cells of several states.
    """
    return cell.states > 1 or cell.state is not None


def _split_directions(h: Any, D: int, pair: bool) -> Sequence[Any]:
    """The states of a layer for each of D directions, each None or as one network takes it."""
    if h is None:
        return [None] * D
    if pair:
        return h if D == 2 else [h]
    return jnp.split(h, D, -1)


@partial(jax.checkpoint, prevent_cse=False)  # keep us and nothing else of its size
def _outputs(
    norm: LayerNormParams | None,
    us: jax.Array,
    below: jax.Array | None,
    counted: jax.Array | None,
) -> jax.Array:
    """(19) and (20). At a step that does not count us is 0, but x_t may be anything."""
    ys = us if norm is None else _normalised(norm, us)
    ys = ys if below is None else ys + below
    return ys if counted is None else jnp.where(counted[..., None], ys, 0)


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
        ValueError: no key, a concrete rate outside [0, 1), a shape that is no sequence, or a dtype
            that is not floating.
    """
    checks.key(key)
    checks.dropout_rate("rate", rate)
    if not isinstance(shape, Iterable):
        checks.refuse("shape", "a sequence of sizes", checks.shown(shape), f"({shape},) is one.")
    return _dropout_mask(key, rate, tuple(shape), checks.floating_dtype(dtype))


@partial(jax.jit, static_argnums=(2, 3))
def _dropout_mask(
    key: jax.Array, rate: jax.Array | float, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    return jnp.where(kept, 1 / (1 - rate), 0).astype(dtype)
