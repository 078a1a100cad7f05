"""Checks of the arguments of a stack of layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jrnn.arrays import are_ids, steps
from jrnn.checks.basics import (
    array,
    describe,
    flag,
    floating,
    is_number,
    refuse,
    same_dtype,
    shape,
    shown,
    sizes,
)
from jrnn.checks.sequences import (
    counted_steps,
    input_size,
    lengths,
    rnn_arguments,
    rnn_params,
    state,
)

if TYPE_CHECKING:
    from jrnn.types import LayerParams, RNNParams, StackParams


@contextmanager
def _within(part: str) -> Iterator[None]:
    """Prefix the name of the refused array with this part of the parameters."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{part}.{error}") from None


def stack_sizes(input_size: Any, hidden_sizes: Any) -> None:
    sizes(input_size=input_size)
    if not isinstance(hidden_sizes, Sequence) or not hidden_sizes:
        repair = "(128, 64) is two layers."
        refuse("hidden_sizes", "a sequence of sizes, one per layer", repr(hidden_sizes), repair)
    sizes(**{f"hidden_sizes[{i}]": n for i, n in enumerate(hidden_sizes)})


def stack_params(params: "StackParams") -> None:
    layers = getattr(params, "layers", ())
    if not isinstance(layers, (tuple, list)) or not layers:
        came = f"{type(params).__name__} without any"
        refuse("params", "StackParams(layers) of at least one layer", came, "See jrnn.init_stack.")
    for i, layer in enumerate(layers):
        if not all(hasattr(layer, name) for name in ("forward", "backward", "norm")):
            expected, came = "LayerParams(forward, backward, norm)", type(layer).__name__
            refuse(f"layers[{i}]", expected, came, "See jrnn.init_stack.")
        with _within(f"layers[{i}]"):
            _layer_params(layer)
            if i > 0:
                below = _output_size(layers[i - 1])
                repair = f"The outputs of layer {i - 1} are of size {below}."
                _has_w_ih("forward.w_ih", layer.forward)
                shape("forward.w_ih", layer.forward.w_ih, (below, None), "[I, H]", repair)
            first = layers[0].forward.w_hh
            same_dtype("forward.w_hh", layer.forward.w_hh, "layers[0].forward.w_hh", first)


def _layer_params(layer: "LayerParams") -> None:
    with _within("forward"):
        rnn_params(layer.forward)
    w_ih, w_hh = layer.forward.w_ih, layer.forward.w_hh
    if layer.backward is not None:
        with _within("backward"):
            rnn_params(layer.backward)
            if w_ih is not None:
                _has_w_ih("w_ih", layer.backward)
                repair = "Both directions have one shape."
                shape("w_ih", layer.backward.w_ih, w_ih.shape, "[I, H]", repair)
            elif layer.backward.w_ih is not None:
                refuse(
                    "w_ih",
                    "None, as forward.w_ih",
                    describe(layer.backward.w_ih),
                    "Both read the same.",
                )
            same_dtype("w_hh", layer.backward.w_hh, "forward.w_hh", w_hh)
    if layer.norm is not None:
        repair = "One for every output, in both directions."
        for name in ("scale", "offset"):
            value = getattr(layer.norm, name, None)
            shape(f"norm.{name}", value, (_output_size(layer),), "[D*H]", repair)
            same_dtype(f"norm.{name}", value, "forward.w_hh", w_hh)


def _has_w_ih(argument: str, params: "RNNParams") -> None:
    if params.w_ih is None:
        repair = "Only networks of the first layer can do without it."
        refuse(argument, "[I, H]", "None", repair)


def _directions(layer: "LayerParams") -> int:
    return 1 if layer.backward is None else 2


def _output_size(layer: "LayerParams") -> int:
    return _directions(layer) * int(layer.forward.w_hh.shape[0])


def stack_arguments(
    params: "StackParams",
    xs: Any,
    h0: Any = None,
    lengths: Any = None,
    resets: Any = None,
    reset_state: Any = None,
    mask: Any = None,
    *,
    reading: Any = None,
) -> Any:
    """Check the arguments; return xs as ids or features."""
    stack_params(params)
    states = jax.tree.leaves((h0, reset_state))
    of_a_batch = any(np.ndim(h) > 1 for h in states)
    first = params.layers[0].forward
    data = (None, lengths, resets, None, None, mask)
    xs = rnn_arguments(first, xs, *data, reading=reading, of_a_batch=of_a_batch)
    batch = steps(xs)[1:]
    _layer_states("h0", h0, params, batch)
    _layer_states("reset_state", reset_state, params, batch)
    return xs


def _layer_states(
    argument: str, states: Any, params: "StackParams", batch: tuple[int, ...]
) -> None:
    layers = params.layers
    if states is None:
        return
    if not isinstance(states, (tuple, list)) or len(states) != len(layers):
        expected = f"None or a tuple of {len(layers)} states, one for each layer"
        is_tuple = isinstance(states, (tuple, list))
        came = f"{len(states)} of them" if is_tuple else type(states).__name__
        refuse(argument, expected, came, "None stands for a state of zeros.")
    for i, (h, layer) in enumerate(zip(states, layers, strict=True)):
        if h is not None:
            state(f"{argument}[{i}]", h, layer.forward, batch, _directions(layer))


def residual(residual: Any, params: "StackParams", xs: Any) -> None:
    flag("residual", residual)
    if not residual:
        return
    if are_ids(xs):
        repair = "Run the first layer as a stack of its own: StackParams(params.layers[:1])."
        refuse("residual", "vectors to add to the outputs of layer 0, or False", "ids", repair)
    for i, layer in enumerate(params.layers):
        came, out = input_size(layer.forward), _output_size(layer)
        if came != out:
            expected = f"inputs of layer {i} as wide as its outputs, {out}, or False"
            repair = "Run layers of other widths as a stack of their own: StackParams(layers[:1])."
            refuse("residual", expected, came, repair)


def dropout_rate(argument: str, rate: Any) -> None:
    """Check a concrete rate; a traced one is not checked."""
    traced = isinstance(rate, jax.core.Tracer)
    if not traced and not (is_number(rate) and 0 <= rate < 1):
        refuse(argument, "a number in [0, 1)", shown(rate), "It is the share that becomes 0.")


def mean_arguments(hs: Any, lengths_: Any, mask: Any = None) -> None:
    array("hs", hs)
    if hs.ndim not in (2, 3) or hs.shape[0] == 0:
        repair = "Time leads, with at least one step."
        refuse("hs", "states [T, H] or [T, B, H]", describe(hs), repair)
    floating("hs", hs)
    if lengths_ is not None:
        lengths(lengths_, hs.shape[0], hs.shape[1:-1])
    if mask is not None:
        counted_steps(mask, hs.shape[:-1], lengths_)
