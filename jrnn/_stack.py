"""Stacks: layers of networks of any kind, read in one direction or in both.

The equations (18)-(21) between the layers are in `_layers.py`. Every recurrence is that of its
network alone.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, orthogonal

from jrnn import checks, kernel
from jrnn._gru import init_gru
from jrnn._layers import Dropout, Run, layer_by_layer, read_both_ways
from jrnn._leaky import init_leaky
from jrnn._lstm import init_lstm
from jrnn._network import run_network, spec_of
from jrnn._rnn import init_rnn
from jrnn._unroll import init_cell
from jrnn.arrays import ArrayLike, Initializer, InputsAre, steps
from jrnn.cells import UncheckedCell
from jrnn.cells.elman import Activation, ActivationName
from jrnn.cells.kinds import cell_of
from jrnn.lengths import counted_steps
from jrnn.types import LayerNormParams, LayerParams, StackParams

LayerStates = Sequence[Any]  # one for each layer, see `stack`
INITIALISERS: dict[str, Callable[..., Any]] = {
    "rnn": init_rnn,
    "lstm": init_lstm,
    "gru": init_gru,
    "leaky": init_leaky,
}
OneActivation = ActivationName | Activation | None
CellName = Literal["rnn", "lstm", "gru", "leaky"]


def init_stack(
    key: jax.Array,
    input_size: int,
    hidden_sizes: Sequence[int],
    *,
    cell: CellName | UncheckedCell = "rnn",
    bidirectional: bool = False,
    layer_norm: bool = False,
    bias: bool = True,
    w_ih_init: Initializer = lecun_normal(),  # noqa: B008
    w_hh_init: Initializer = orthogonal(),  # noqa: B008
    dtype: Any = None,
    **options: Any,
) -> StackParams:
    """Draw the parameters of a stack of networks of one kind.

    For layers of several kinds, put a `StackParams` together from `LayerParams` of your own.

    Args:
        key: a JAX random key.
        input_size: I, features of an input vector or number of token ids.
        hidden_sizes: H of each layer, from the inputs up; read in both directions, a layer of
            size H has outputs of size 2H.
        cell: the kind of every layer: "rnn", "lstm", "gru", "leaky", or a `jrnn.Cell`.
        bidirectional: whether each layer has a second network, which reads backwards.
        layer_norm: whether the output of each layer is normalised, with a scale (ones) and an
            offset (zeros) for every feature.
        bias: False leaves every bias out (None in its place).
        w_ih_init: as in `init_rnn`.
        w_hh_init: as in `init_rnn`.
        dtype: a floating dtype; None is JAX's default float.
        options: further options of `init_lstm` (`forget_bias`), `init_leaky` (`alpha`, ...) or
            `init_cell`, for every layer.

    Returns:
        `StackParams`, whose `layers` are one `LayerParams(forward, backward, norm)` per size.

    Raises:
        ValueError: no layer, a size below 1, an option that is not True or False, a dtype that is
            not floating, an unknown cell, or an option that its initialiser does not have.
    """
    checks.key(key)
    checks.stack_sizes(input_size, hidden_sizes)
    checks.flag("bidirectional", bidirectional)
    checks.flag("layer_norm", layer_norm)
    dtype = checks.floating_dtype(dtype)
    checks.cell_name("cell", cell, INITIALISERS)
    init = INITIALISERS[cell] if isinstance(cell, str) else partial(init_cell, cell)
    repair = "Dropout and what else belongs to a call is an option of jrnn.stack."
    checks.options_of("init_stack", init, options, repair)
    options |= {"bias": bias, "w_ih_init": w_ih_init, "w_hh_init": w_hh_init, "dtype": dtype}
    draw = partial(init, **options)
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


def options_of_calls(
    params: StackParams,
    init: Mapping[str, Any],
    options: Mapping[str, Any] | None,
    dropout: Any,
    key: jax.Array,
) -> dict[str, Any]:
    """The options of `stack` for a module, whose parameters run by the cell of theirs.

    Args:
        params: of `init_stack`.
        init: the options of `init_stack`.
        options: those of `stack`; a cell among them goes before that of `init`.
        dropout: the dropout of the module.
        key: any key.

    Returns:
        The options of `stack`.

    Raises:
        ValueError: what `stack` would refuse in training: dropout, an option that it does not have,
            or the value of one; leaky layers without a cell, which alone says how they leak.
    """
    checks.dropout_between(dropout, key, params)
    cell, options = init.get("cell", "rnn"), dict(options or {})
    repair = "Arrays such as lengths are arguments of every call; dropout is one of the module."
    checks.options_of("options", stack, options, repair, without=("dropout",))
    if not isinstance(cell, str):
        options = {"cell": cell} | options
    elif cell == "leaky" and options.get("cell") is None:
        learned = bool(init.get("learned", False))
        one = f'jrnn.cells.leaky.leaky("tanh", "state", learned={learned})'
        repair = f'Give options={{"cell": {one}}}, or leak "input".'
        checks.refuse("options", "the cell of leaky layers", "none", repair)
    of_layers = options.keys() - {"residual", "reverse", "inputs"}
    specs_of(params, **{name: options[name] for name in of_layers})
    checks.one_direction(options.get("reverse", False), params)
    checks.flag("residual", options.get("residual", False))
    return options


def stack(
    params: StackParams,
    xs: ArrayLike,
    h0: LayerStates | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: LayerStates | None = None,
    key: jax.Array | None = None,
    mask: ArrayLike | None = None,
    recurrent_mask: Sequence[ArrayLike | None] | None = None,
    *,
    activation: OneActivation | Sequence[OneActivation] = None,
    cell: UncheckedCell | Sequence[UncheckedCell | None] | None = None,
    dropout: float = 0.0,
    residual: bool = False,
    reverse: bool = False,
    clip_delta: float | Sequence[float | None] | None = None,
    compute_dtype: Any = None,
    remat: bool | Sequence[bool] = False,
    inputs: InputsAre | None = None,
) -> tuple[tuple[Any, ...], jax.Array]:
    """Run a stack of networks over a sequence, or over a batch of sequences.

    Each layer reads the outputs of the one below, by (18)-(21), and every gradient of its
    recurrence is that of its network alone (`rnn`, `lstm`, `gru`, `leaky`, `unroll`). Layers may be
    of different kinds. Lengths and resets hold in every layer and direction. A readout gives one
    answer for each step, or one for each sequence:

        h_last, hs = jrnn.stack(params, xs, None, lengths)
        jrnn.readout(readout, hs)  # [T, B, O]
        jrnn.readout(readout, h_last[-1])  # [B, O], of the last states
        jrnn.readout(readout, jrnn.mean_over_time(hs, lengths))  # [B, O]

    The last states of an LSTM are `h_last[-1].h`, of one in both directions
    `jnp.concatenate([state.h for state in h_last[-1]], -1)`.

    `activation`, `cell`, `clip_delta`, `compute_dtype` and `remat` are one value for all layers, or
    a tuple of one for each.

    Args:
        params: of `init_stack`, of one floating dtype; any layer may lack a backward network or
            the norm.
        xs: `[T, I]` or `[T, B, I]` inputs in the dtype of the parameters or in `compute_dtype`, or
            `[T]` or `[T, B]` integers: token ids, as in `rnn`.
        h0: the states before the first step: None (zeros), or for each layer None or its state. A
            network of one state has `[D*H]` (shared by the batch) or `[B, D*H]`, forwards and then
            backwards. An LSTM has an `LSTMState` as in `lstm`, and in a layer of two directions a
            pair of them, either None or an `LSTMState`. As in `h_last`.
        lengths: `[B]` or `[]` integers, as in `rnn`.
        resets: `[T, B]` or `[T]` bool, as in `rnn`.
        reset_state: the states that a reset goes back to, in the form of `h0`.
        key: a JAX random key for dropout; None is evaluation, without dropout. Under `vmap`, map
            it too, or every sequence gets the same dropout.
        mask: `[T, B]` or `[T]` bool, the steps that count, as in `rnn`, in every layer.
        recurrent_mask: None, or for each layer None, `[D*H]` or `[B, D*H]`, as in `rnn`.
        activation: as in `rnn`, of Elman layers; None: "tanh". A leaky layer has that of its cell.
        cell: the `jrnn.Cell` of layers with `LeakyParams` or parameters of your own, static;
            None: that of the package.
        dropout: p of (21), the share of the outputs of every layer but the last that the layer
            above does not see; every step draws its own, with a key of its own.
        residual: whether every layer adds its input to its output, (20). The inputs of every layer
            must then be vectors as wide as its output, D*H.
        reverse: as in `rnn`, in every layer; for layers without a backward network.
        clip_delta: as in `rnn`.
        compute_dtype: as in `rnn`; (19) and (20) are computed in the dtype of the parameters.
        remat: as in `rnn`, in each layer. The inputs of every layer are kept, so this saves the
            states of the last layer, and of both directions of every layer.
        inputs: as in `rnn`; `[B, D*H]` states of a layer are an argument with an axis B.

    Returns:
        `(h_last, hs)`: the states of each layer after the last step, and of its backward network
        after x_0, before norm and residual connection, in the form of `h0`; and `[T, D*H]` or
        `[T, B, D*H]`, y of the last layer. Dtypes as in `rnn`.

    Raises:
        ValueError: what `rnn` refuses, of any layer; parameters, states or a residual connection
            that do not fit; a dropout outside [0, 1), or of one layer with a key.
    """
    cells, specs = specs_of(params, activation, cell, clip_delta, compute_dtype, remat)
    arrays = (h0, lengths, resets, reset_state)
    read: dict[str, Any] = {"reading": inputs, "compute_dtype": specs[0].compute_dtype}
    xs = checks.stack_arguments(cells, params, xs, *arrays, mask, recurrent_mask, **read)
    checks.for_the_kernel(xs)
    checks.dropout_between(dropout, key, params)
    checks.residual(residual, cells, params, xs)
    checks.one_direction(reverse, params)
    key = key if dropout > 0 else None
    options = {"dropout": float(dropout), "residual": bool(residual), "reverse": bool(reverse)}
    return _stack(params, xs, *arrays, key, mask, recurrent_mask, specs=specs, **options)


def specs_of(
    params: StackParams,
    activation: Any = None,
    cell: Any = None,
    clip_delta: Any = None,
    compute_dtype: Any = None,
    remat: Any = False,
) -> tuple[tuple[UncheckedCell, ...], tuple[kernel.Spec, ...]]:
    """The cell and the static part of the call of each layer.

    Args:
        params: as in `stack`, like all the others.
        activation: one or one for each layer.
        cell: one or one for each layer.
        clip_delta: one or one for each layer.
        compute_dtype: one or one for each layer.
        remat: one or one for each layer.

    Returns:
        A tuple of cells, and one of `kernel.Spec`s.

    Raises:
        ValueError: parameters that are no stack, an option that a layer refuses, or a tuple of
            another length.
    """
    checks.stack_of_layers(params)
    n = len(params.layers)
    given = {
        "activation": activation,
        "cell": cell,
        "compute_dtype": compute_dtype,
        "clip_delta": clip_delta,
        "remat": remat,
    }
    activations, cells, *rest = (checks.for_each_layer(k, x, n) for k, x in given.items())
    found, specs = [], []
    for i, layer in enumerate(params.layers):
        with checks.within(f"layers[{i}].forward"):
            found.append(cell_of(layer.forward, activations[i], cells[i]))
            checks.network(found[i], layer.forward)
        specs.append(spec_of(found[i], layer.forward, *(options[i] for options in rest)))
    return tuple(found), tuple(specs)


def as_stack(
    params: Any,
    activation: Any = None,
    cell: Any = None,
    clip_delta: Any = None,
    compute_dtype: Any = None,
) -> tuple[StackParams, tuple[UncheckedCell, ...], tuple[kernel.Spec, ...]]:
    """Any network as a stack: a network that is no stack is a stack of one layer.

    Args:
        params: a `StackParams`, or the parameters of one network.
        activation: as in `stack`, like the rest.
        cell: one or one for each layer.
        clip_delta: one or one for each layer.
        compute_dtype: one or one for each layer.

    Returns:
        The stack, and the cell and the static part of the call of each layer.

    Raises:
        ValueError: as `specs_of`.
    """
    if isinstance(params, StackParams) or type(params) in (tuple, list):  # which specs_of refuses
        return params, *specs_of(params, activation, cell, clip_delta, compute_dtype)
    cell = cell_of(params, activation, cell)
    checks.network(cell, params)
    alone = StackParams((LayerParams(params, None, None),))
    return alone, (cell,), (spec_of(cell, params, compute_dtype, clip_delta),)


@partial(jax.jit, static_argnames=("specs", "dropout", "residual", "reverse"))
def _stack(
    params: StackParams,
    xs: jax.Array,
    *data: Any,
    specs: tuple[kernel.Spec, ...],
    **options: Any,
) -> tuple[tuple[Any, ...], jax.Array]:
    runs = [partial(run_network, spec) for spec in specs]
    h_lasts, ys = run_layers(runs, specs, params, xs, *data, **options)
    rounded = specs[-1].compute_dtype
    return h_lasts, ys if rounded is None else ys.astype(rounded)


def run_layers(
    runs: Sequence[Run],
    specs: Sequence[kernel.Spec],
    params: StackParams,
    xs: jax.Array,
    h0: LayerStates | None = None,
    lengths: jax.Array | None = None,
    resets: jax.Array | None = None,
    reset_state: LayerStates | None = None,
    key: jax.Array | None = None,
    mask: jax.Array | None = None,
    recurrent_mask: Sequence[Any] | None = None,
    *,
    dropout: float = 0.0,
    residual: bool = False,
    reverse: bool = False,
) -> tuple[tuple[Any, ...], jax.Array]:
    """The `(h_last, hs)` of `stack` around functions that run one network.

    Args:
        runs: for each layer `_network.run_network` or an equal function, without its spec.
        specs: of each layer.
        params: as in `stack`, and so the rest, which has passed the checks.
        xs: the inputs.
        h0: the first states.
        lengths: steps of each sequence.
        resets: where segments begin.
        reset_state: the states that resets go back to.
        key: for dropout.
        mask: the steps that count.
        recurrent_mask: m of (23) of each layer.
        dropout: p of (21).
        residual: whether (20) adds x_t.
        reverse: the direction of layers of one.

    Returns:
        The last states of each layer, and the outputs of the last layer.
    """
    none, ends = (None,) * len(params.layers), (lengths, resets, mask)
    of_layers = (h0 or none, reset_state or none, recurrent_mask or none)
    reads = [
        partial(read_both_ways, run, spec.cell, layer, *states, ends=ends, reverse=reverse)
        for run, spec, layer, *states in zip(runs, specs, params.layers, *of_layers, strict=True)
    ]
    counted = None
    if lengths is not None or mask is not None:
        counted = counted_steps(steps(xs), lengths, mask)
    drop = None if key is None else Dropout(key, dropout, jnp.arange(len(xs)))
    return layer_by_layer(reads, params.layers, xs, counted, drop, residual=residual)
