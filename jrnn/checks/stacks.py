"""Checks of the arguments of a stack of layers."""

from collections.abc import Collection, Iterator, Sequence
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
    kind_of,
    refuse,
    repair_of_module,
    same_dtype,
    shape,
    shown,
    sizes,
)
from jrnn.checks.basics import key as random_key
from jrnn.checks.networks import input_size, network
from jrnn.checks.sequences import (
    ZEROS,
    counted_steps,
    lengths,
    named_states,
    network_arguments,
    not_lengths,
    state,
    step_inputs,
)

if TYPE_CHECKING:
    from jrnn.cells import UncheckedCell
    from jrnn.types import LayerParams, StackParams

Cells = Sequence["UncheckedCell"]  # of each layer

_OF_PAIRS = (
    "jrnn.interop.from_torch(state_dict, stack=True) returns a stack; any pair (forward, backward) "
    "is LayerParams(*pair, norm=None)."
)
_OF_LAYERS = f"Several LayerParams become one by StackParams(tuple(layers)). {_OF_PAIRS}"


@contextmanager
def within(part: str) -> Iterator[None]:
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


def cell_name(argument: str, cell: Any, names: Collection[str]) -> None:
    if not (cell in names if isinstance(cell, str) else hasattr(cell, "x_blocks")):
        expected = "one of " + ", ".join(f'"{name}"' for name in names) + ", or a jrnn.Cell"
        refuse(argument, expected, shown(cell), "Layers of several kinds are LayerParams.")


def for_each_layer(argument: str, value: Any, layers: int) -> tuple[Any, ...]:
    """One value for all layers, or one for each, as a tuple."""
    if not isinstance(value, (tuple, list)):
        return (value,) * layers
    if len(value) != layers:
        expected = f"one value, or a tuple of {layers}, one for each layer"
        refuse(argument, expected, f"{len(value)} of them", "Give them from the inputs up.")
    return tuple(value)


def one_direction(reverse: Any, params: "StackParams") -> None:
    flag("reverse", reverse)
    if reverse and any(layer.backward is not None for layer in params.layers):
        repair = "A layer with a backward network reads both ways."
        refuse("reverse", "False for layers of two directions", "True", repair)


def stack_of_layers(params: "StackParams") -> None:
    layers = getattr(params, "layers", None)
    if not isinstance(layers, (tuple, list)) or not layers:
        came = type(params).__name__ + ("" if layers is None else " without any")
        repair = _OF_LAYERS if type(params) in (tuple, list) else "See jrnn.init_stack."
        repair = repair_of_module(params, repair)
        refuse("params", "StackParams(layers) of at least one layer", came, repair)
    for i, layer in enumerate(layers):
        if not all(hasattr(layer, name) for name in ("forward", "backward", "norm")):
            expected, came = "LayerParams(forward, backward, norm)", type(layer).__name__
            repair = _OF_PAIRS if type(layer) in (tuple, list) else "See jrnn.init_stack."
            refuse(f"layers[{i}]", expected, came, repair)


def stack_params(cells: Cells, params: "StackParams") -> None:
    """Check that networks, whose forward parameters fit their cells, fit together."""
    layers = params.layers
    for i, (cell, layer) in enumerate(zip(cells, layers, strict=True)):
        with within(f"layers[{i}]"):
            if cell.data:
                came = f"{cell.name}, which reads {', '.join(cell.data)}"
                refuse("forward", "a cell that reads no data", came, "Run it by jrnn.unroll.")
            _layer_params(cell, layer)
            if i > 0:
                below = _output_size(layers[i - 1])
                repair = f"The outputs of layer {i - 1} are of size {below}."
                _has_w_ih("forward.w_ih", layer.forward)
                shape("forward.w_ih", layer.forward.w_ih, (below, None), "[I, H]", repair)
            first = layers[0].forward.w_hh
            same_dtype("forward.w_hh", layer.forward.w_hh, "layers[0].forward.w_hh", first)


def _layer_params(cell: "UncheckedCell", layer: "LayerParams") -> None:
    w_ih, w_hh = layer.forward.w_ih, layer.forward.w_hh
    if layer.backward is not None:
        with within("backward"):
            network(cell, layer.backward)
            if w_ih is not None:
                _has_w_ih("w_ih", layer.backward)
                repair = "Both directions have one shape."
                shape("w_ih", layer.backward.w_ih, w_ih.shape, "[I, H]", repair)
            elif layer.backward.w_ih is not None:
                came = describe(layer.backward.w_ih)
                refuse("w_ih", "None, as forward.w_ih", came, "Both read the same.")
            shape("w_hh", layer.backward.w_hh, w_hh.shape, "[H, ..]", "Both have one shape.")
            same_dtype("w_hh", layer.backward.w_hh, "forward.w_hh", w_hh)
    if layer.norm is not None:
        repair = "One for every output, in both directions."
        for name in ("scale", "offset"):
            value = getattr(layer.norm, name, None)
            shape(f"norm.{name}", value, (_output_size(layer),), "[D*H]", repair)
            same_dtype(f"norm.{name}", value, "forward.w_hh", w_hh)


def _has_w_ih(argument: str, params: Any) -> None:
    if params.w_ih is None:
        repair = "Only networks of the first layer can do without it."
        refuse(argument, "[I, H]", "None", repair)


def _directions(layer: "LayerParams") -> int:
    return 1 if layer.backward is None else 2


def _output_size(layer: "LayerParams") -> int:
    return _directions(layer) * int(layer.forward.w_hh.shape[0])


def stack_arguments(
    cells: Cells,
    params: "StackParams",
    xs: Any,
    h0: Any = None,
    lengths: Any = None,
    resets: Any = None,
    reset_state: Any = None,
    mask: Any = None,
    recurrent_mask: Any = None,
    *,
    of_a_batch: bool = False,
    **options: Any,
) -> Any:
    """Check the arguments; return xs as ids or features, in the dtype of the parameters.

    `of_a_batch`: whether an argument that is not passed here has a batch axis. `options`: of
    `network_arguments`, for the first layer.
    """
    stack_params(cells, params)
    states = jax.tree.leaves((h0, reset_state, recurrent_mask))
    of_a_batch |= any(np.ndim(h) > 1 for h in states)
    data = (None, lengths, resets, None, None, mask)
    first = cells[0], params.layers[0].forward
    xs = network_arguments(*first, xs, *data, of_a_batch=of_a_batch, **options)
    batch = steps(xs)[1:]
    not_lengths("h0", h0)
    layer_states("h0", h0, cells, params, batch)
    layer_states("reset_state", reset_state, cells, params, batch)
    layer_states("recurrent_mask", recurrent_mask, None, params, batch)
    return xs


def stack_step_arguments(
    cells: Cells,
    params: "StackParams",
    states: Any,
    x_t: Any,
    *,
    reading: Any = None,
    alone: bool = False,
) -> Any:
    """Check the arguments of one step; return x_t as ids or features; `alone` as `layer_states`."""
    stack_params(cells, params)
    forwards(params, "Read backwards, a step needs all inputs after it: see jrnn.stack.")
    first = params.layers[0].forward
    batch = any(np.ndim(h) > 1 for h in jax.tree.leaves(states))
    x_t = step_inputs(cells[0], first, x_t, reading, batch)
    layer_states("states", states, cells, params, steps(x_t), alone=alone)
    return x_t


def forwards(params: "StackParams", reason: str) -> None:
    """Refuse layers that read backwards."""
    for i, layer in enumerate(params.layers):
        if layer.backward is not None:
            refuse(f"layers[{i}].backward", "None", "a network that reads backwards", reason)


def layer_states(
    argument: str,
    states: Any,
    cells: Cells | None,
    params: "StackParams",
    batch: tuple[int, ...],
    *,
    alone: bool = False,
) -> None:
    """Check the states of layers; without cells one array for each.

    `alone`: there is one network, which is no stack, and one state.
    """
    layers = params.layers
    if states is None:
        return
    if alone and cells is not None:
        _several(argument, states, cells[0], layers[0], batch)
        return
    if cells is not None and _of_torch(states) and cells[0].states == 2:
        kind = f"jrnn.{getattr(cells[0].state, '__name__', 'tuple')}"
        repair = f"tuple(map({kind}, *{argument})) is one."
        if _directions(layers[0]) == 2:
            repair = f"With s = list(map({kind}, *{argument})), tuple(zip(s[::2], s[1::2])) is one."
        expected = f"None or a tuple of {len(layers)} states, one for each layer"
        refuse(argument, expected, "(h_n, c_n) of all layers, as torch has them", repair)
    if not isinstance(states, (tuple, list)) or len(states) != len(layers):
        are, repair = "states", ZEROS
        if argument == "recurrent_mask":
            size, widths = "(B, H)" if batch else "(H,)", tuple(map(_output_size, layers))
            masks = f"jrnn.dropout_mask(k, rate, {size}) for k, H in zip(keys, {widths})"
            are, repair = "masks", f"None masks nothing; tuple({masks}) has the form."
        expected = f"None or a tuple of {len(layers)} {are}, one for each layer"
        is_tuple = isinstance(states, (tuple, list))
        came = f"{len(states)} of them" if is_tuple else kind_of(states)
        one_array = not is_tuple and np.shape(states)[:1] == (len(layers),)
        refuse(argument, expected, came, f"tuple({argument}) is one." if one_array else repair)
    for i, (h, layer) in enumerate(zip(states, layers, strict=True)):
        name, D = f"{argument}[{i}]", _directions(layer)
        several = cells is not None and (cells[i].states > 1 or cells[i].state is not None)
        if h is None:
            continue
        if cells is None or not several:
            if D == 2 and type(h) in (tuple, list):
                expected = "one array with the states forwards and backwards side by side"
                repair = f"jnp.concatenate({name}, -1) is one; None is for zeros."
                refuse(name, expected, type(h).__name__, repair)
            state(name, h, layer.forward, batch, D)
        elif D == 1:
            _several(name, h, cells[i], layer, batch)
        else:
            if type(h) not in (tuple, list) or len(h) != 2:
                expected = "a pair of states, forwards and backwards"
                refuse(name, expected, kind_of(h), "Either may be None: zeros.")
            for j, own in enumerate(h):
                _several(f"{name}[{j}]", own, cells[i], layer, batch)


def _of_torch(states: Any) -> bool:
    """Whether states are (h_n, c_n), each [layers, B, H]."""
    pair = isinstance(states, (tuple, list)) and len(states) == 2
    return pair and all(getattr(x, "ndim", 0) == 3 for x in states)


def _several(
    argument: str, h: Any, cell: "UncheckedCell", layer: "LayerParams", batch: tuple[int, ...]
) -> None:
    for name, x in named_states(argument, h, cell).items():
        if x is not None:
            state(name, x, layer.forward, batch)


def residual(residual: Any, cells: Cells, params: "StackParams", xs: Any) -> None:
    flag("residual", residual)
    if not residual:
        return
    if are_ids(xs):
        repair = "Run the first layer as a stack of its own: StackParams(params.layers[:1])."
        refuse("residual", "vectors to add to the outputs of layer 0, or False", "ids", repair)
    for i, (cell, layer) in enumerate(zip(cells, params.layers, strict=True)):
        came, out = input_size(cell, layer.forward), _output_size(layer)
        if came != out:
            expected = f"inputs of layer {i} as wide as its outputs, {out}, or False"
            repair = "Run layers of other widths as a stack of their own: StackParams(layers[:1])."
            refuse("residual", expected, came, repair)


def dropout_rate(argument: str, rate: Any) -> None:
    """Check a concrete rate; a traced one is not checked."""
    traced = isinstance(rate, jax.core.Tracer)
    if not traced and not (is_number(rate) and 0 <= rate < 1):
        refuse(argument, "a number in [0, 1)", shown(rate), "It is the share that becomes 0.")


def dropout_between(dropout: Any, key: Any, params: "StackParams") -> None:
    """Check a dropout and its key; refuse one that drops nothing, since it is between layers."""
    if isinstance(dropout, jax.core.Tracer):
        repair = (
            "Bind it by functools.partial; or run each layer as a stack of its own, and multiply "
            "its inputs by a jrnn.dropout_mask."
        )
        refuse("dropout", "a constant number", "a traced one", repair)
    dropout_rate("dropout", dropout)
    if dropout == 0 or key is None:
        return
    random_key(key)
    if len(params.layers) == 1:
        repair = (
            "Multiply xs or hs by a jrnn.dropout_mask, or pass one as recurrent_mask=; "
            "without a key nothing is dropped."
        )
        refuse("dropout", "0 for one layer, since it is between layers", shown(dropout), repair)


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
