"""The contract of the public functions: what they refuse, and the sentence that says so.

Shapes and dtypes are static, so these checks run once per trace and cost a compiled program
nothing. Values (token ids, labels) can be looked at only where they are concrete. Every refusal is
a ValueError that names the argument, what was expected, what came, and the repair.

The only file that imports chex, and of chex only static assertions; it does so at the first check,
since importing chex takes longer than importing all of this package.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.arrays import are_ids

if TYPE_CHECKING:
    from jrnn.types import LayerParams, ReadoutParams, RNNParams, StackParams


def refuse(argument: str, expected: str, came: object, repair: str) -> NoReturn:
    """Raise the one kind of error there is here."""
    raise ValueError(f"{argument}: expected {expected}; got {came}. {repair}")


# --- one array -----------------------------------------------------------------------------------


def describe(x: Any) -> str:
    return f"{jnp.result_type(x)}{list(np.shape(x))}"


def array(argument: str, x: Any) -> None:
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        refuse(argument, "a JAX or NumPy array", type(x).__name__, "Convert it by jnp.asarray.")


def shape(argument: str, x: Any, shape: tuple[int | None, ...], axes: str, repair: str) -> None:
    import chex

    array(argument, x)
    try:
        chex.assert_shape(x, shape)
    except AssertionError:
        sizes = ", ".join("any" if n is None else str(n) for n in shape)
        refuse(argument, f"shape {axes} = [{sizes}]", describe(x), repair)


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _floating(argument: str, x: Any) -> None:
    if not _is_float(x):
        refuse(argument, "a floating dtype", describe(x), "Cast it by .astype(jnp.float32).")


def _same_dtype(argument: str, x: Any, reference_name: str, reference: Any) -> None:
    if jnp.result_type(x) != jnp.result_type(reference):
        refuse(
            argument,
            f"the dtype of {reference_name}, {jnp.result_type(reference)}",
            jnp.result_type(x),
            "One floating dtype runs through a call: cast either of the two by .astype.",
        )


def _concrete(x: Any) -> np.ndarray | None:
    """The values, if this process has them all; None in a trace."""
    if isinstance(x, jax.core.Tracer):
        return None
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return None
    return np.asarray(x)


def _ids_within(
    argument: str, ids: Any, size: int, what: str, counted: np.ndarray | None = None
) -> None:
    """Refuse concrete ids outside [0, size); `counted` marks the ones that matter."""
    values = _concrete(ids)
    if values is None or values.size == 0:
        return
    values = values.astype(np.int64)  # `size` need not fit into the dtype of the ids
    wrong = (values < 0) | (values >= size)
    if counted is not None:
        wrong &= counted
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        refuse(
            argument,
            f"ids from 0 to {size - 1} ({what})",
            f"{values[where]} at {list(where)}, {int(wrong.sum())} ids outside in all",
            "Encode the data with the alphabet or vocabulary that the parameters were made for.",
        )


def ids(argument: str, ids: Any, size: int, what: str) -> None:
    array(argument, ids)
    if not are_ids(ids):
        refuse(argument, "integers", describe(ids), "Ids count from 0.")
    _ids_within(argument, ids, size, f"{size} {what}")


# --- parameters and states -----------------------------------------------------------------------


def sizes(**values: Any) -> None:
    for argument, n in values.items():
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
            refuse(argument, "a positive integer", repr(n), "It is the size of an axis.")


def square(shape: Any) -> None:
    """Of a w_hh that is to be made."""
    if len(shape) != 2 or shape[0] != shape[1]:
        repair = "It is made for w_hh; w_ih takes any of jax.nn.initializers."
        refuse("shape", "[H, H]", list(shape), repair)


def number(argument: str, value: Any, above: float = -np.inf) -> None:
    if not (_is_number(value) and above < value < np.inf):
        least = "" if above == -np.inf else f" above {above}"
        refuse(
            argument,
            f"a finite number{least}",
            repr(value),
            "It is fixed for the initialiser.",
        )


def floating_dtype(dtype: Any) -> np.dtype:
    """The dtype of new parameters."""
    repair = "Leave it out for JAX's default float."
    try:
        asked = jnp.dtype(float if dtype is None else dtype)
    except TypeError:
        refuse("dtype", "a floating dtype or None", repr(dtype), repair)
    if not jnp.issubdtype(asked, jnp.floating):
        refuse("dtype", "a floating dtype or None", asked, repair)
    given = jax.dtypes.canonicalize_dtype(asked)  # float32 for float64, but in 64-bit mode
    if dtype is not None and given != asked:
        repair = "JAX has it after jax.config.update('jax_enable_x64', True)."
        refuse("dtype", f"at most {given}", asked, repair)
    return given


def rnn_params(params: "RNNParams") -> None:
    if not all(hasattr(params, name) for name in ("w_ih", "w_hh", "b_h")):
        refuse("params", "RNNParams(w_ih, w_hh, b_h)", type(params).__name__, "See jrnn.init_rnn.")
    shape("w_hh", params.w_hh, (None, None), "[H, H]", "See jrnn.init_rnn.")
    _floating("w_hh", params.w_hh)
    H = params.w_hh.shape[1]
    shape("w_hh", params.w_hh, (H, H), "[H, H]", "It maps a state to a state.")
    shape("w_ih", params.w_ih, (None, H), "[I, H]", "Use x @ w_ih: transpose an (H, I) weight.")
    _same_dtype("w_ih", params.w_ih, "w_hh", params.w_hh)
    if params.b_h is not None:
        shape("b_h", params.b_h, (H,), "[H]", "No bias is None in its place.")
        _same_dtype("b_h", params.b_h, "w_hh", params.w_hh)


def _inputs(
    argument: str,
    xs: Any,
    params: "RNNParams",
    leads: tuple[str, str],
    counted: np.ndarray | None = None,
) -> None:
    """Vectors, or ids, with one of two groups of leading axes, such as "T" and "T, B"."""
    array(argument, xs)
    I = params.w_ih.shape[0]
    vectors = " or ".join(f"[{lead}{', ' if lead else ''}I]" for lead in leads)
    ids = "integer token ids " + " or ".join(f"[{lead}]" for lead in leads)
    ranks = [lead.replace(",", "").split() for lead in leads]
    features = xs.ndim - np.array([len(axes) for axes in ranks])  # axes that are left, for each
    if are_ids(xs):
        if 0 not in features:
            repair = "cast counts to float." if 1 in features else "vectors are floats."
            refuse(argument, ids, describe(xs), f"Integers are token ids; {repair}")
        _ids_within(argument, xs, I, f"I = {I} rows of w_ih", counted)
        return
    if not _is_float(xs):
        refuse(argument, f"vectors {vectors}, or {ids}", describe(xs), "Cast it by .astype.")
    if 1 not in features:
        repair = "A single feature is an axis of size 1."
        refuse(argument, f"vectors {vectors}", describe(xs), repair)
    if xs.shape[-1] != I:
        repair = f"w_ih {list(params.w_ih.shape)} takes vectors of size I = {I}."
        refuse(argument, f"vectors {vectors} with I = {I}", describe(xs), repair)
    _same_dtype(argument, xs, "params", params.w_hh)


def _state(
    argument: str, h: Any, params: "RNNParams", batch: tuple[int, ...], directions: int = 1
) -> None:
    """[H], or [B, H] where there is a batch; of two directions 2H."""
    array(argument, h)
    H, size = params.w_hh.shape[0] * directions, "H" if directions == 1 else f"{directions}H"
    if h.shape not in ((H,), (*batch, H)):
        wanted = f"[{size}] = [{H}]" + (f" or [B, {size}] = {[*batch, H]}" if batch else "")
        repair = "[H] is shared by the batch." if batch else "One sequence has one state."
        refuse(argument, wanted, describe(h), repair)
    _floating(argument, h)
    _same_dtype(argument, h, "params", params.w_hh)


def cell_arguments(params: "RNNParams", h_tm1: Any, x_t: Any) -> None:
    rnn_params(params)
    _inputs("x_t", x_t, params, ("", "B"))
    _state("h_tm1", h_tm1, params, x_t.shape[: x_t.ndim - (not are_ids(x_t))])


def rnn_arguments(
    params: "RNNParams",
    xs: Any,
    h0: Any,
    lengths_: Any = None,
    resets: Any = None,
    reset_state: Any = None,
    recurrent_mask: Any = None,
) -> None:
    rnn_params(params)
    array("xs", xs)
    steps = xs.shape if are_ids(xs) else xs.shape[:-1]
    inside = None
    if lengths_ is not None and steps:
        lengths(lengths_, steps[0], steps[1:])
        inside = _steps_inside(lengths_, steps)
    _inputs("xs", xs, params, ("T", "T, B"), inside)
    if xs.shape[0] == 0:
        refuse("xs", "at least one step (T >= 1)", describe(xs), "Leave empty sequences out.")
    if resets is not None:
        _resets(resets, steps)
    states = {"h0": h0, "reset_state": reset_state, "recurrent_mask": recurrent_mask}
    for argument, h in states.items():
        if h is not None:
            _state(argument, h, params, steps[1:])


def lengths(lengths: Any, T: int, batch: tuple[int, ...] | None) -> None:
    """An integer, or integers of shape [] or `batch`, which is [B] of any size where it is None."""
    whole = isinstance(lengths, (int, np.integer)) and not isinstance(lengths, bool)
    if not whole:
        array("lengths", lengths)
        if not are_ids(lengths):
            repair = "They count steps: cast them by .astype(jnp.int32)."
            refuse("lengths", "integers", describe(lengths), repair)
    fits = np.ndim(lengths) <= 1 if batch is None else np.shape(lengths) in ((), batch)
    if not fits:
        wanted = "[]" if batch == () else "[] or [B]" + (f" = {list(batch)}" if batch else "")
        refuse("lengths", f"shape {wanted}", describe(lengths), "One length per sequence.")
    values = _concrete(lengths)
    if values is not None and ((values < 0) | (values > T)).any():
        wrong = values[(values < 0) | (values > T)][0]
        repair = "A length counts the steps of a sequence before its padding."
        refuse("lengths", f"integers from 0 to T = {T}", int(wrong), repair)


def _steps_inside(lengths: Any, steps: tuple[int, ...]) -> np.ndarray | None:
    values = _concrete(lengths)
    if values is None:
        return None
    return np.arange(steps[0]).reshape(-1, *(1,) * (len(steps) - 1)) < np.broadcast_to(
        values, steps[1:]
    )


def _resets(resets: Any, steps: tuple[int, ...]) -> None:
    array("resets", resets)
    if resets.dtype != jnp.bool_:
        repair = "Compare: resets = flags != 0."
        refuse("resets", "a bool dtype", describe(resets), repair)
    if resets.shape not in (steps, steps[:1]):
        wanted = f"[T] = {list(steps[:1])}" + (f" or [T, B] = {list(steps)}" if steps[1:] else "")
        repair = "True where a segment begins; [T] is shared by the batch."
        refuse("resets", f"shape {wanted}", describe(resets), repair)


# --- stacks --------------------------------------------------------------------------------------


@contextmanager
def _within(part: str) -> Iterator[None]:
    """Put the part of the parameters in front of the name of the array that is refused."""
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
                shape("forward.w_ih", layer.forward.w_ih, (below, None), "[I, H]", repair)
            first = layers[0].forward.w_hh
            _same_dtype("forward.w_hh", layer.forward.w_hh, "layers[0].forward.w_hh", first)


def _layer_params(layer: "LayerParams") -> None:
    with _within("forward"):
        rnn_params(layer.forward)
    w_ih, w_hh = layer.forward.w_ih, layer.forward.w_hh
    if layer.backward is not None:
        with _within("backward"):
            rnn_params(layer.backward)
            shape("w_ih", layer.backward.w_ih, w_ih.shape, "[I, H]", "As forwards, so backwards.")
            _same_dtype("w_hh", layer.backward.w_hh, "forward.w_hh", w_hh)
    if layer.norm is not None:
        repair = "One for every output, in both directions."
        for name in ("scale", "offset"):
            value = getattr(layer.norm, name, None)
            shape(f"norm.{name}", value, (_output_size(layer),), "[D*H]", repair)
            _same_dtype(f"norm.{name}", value, "forward.w_hh", w_hh)


def _directions(layer: "LayerParams") -> int:
    return 1 if layer.backward is None else 2


def _output_size(layer: "LayerParams") -> int:
    return _directions(layer) * int(layer.forward.w_hh.shape[0])


def stack_arguments(
    params: "StackParams", xs: Any, h0: Any, lengths: Any, resets: Any, reset_state: Any
) -> None:
    stack_params(params)
    rnn_arguments(params.layers[0].forward, xs, None, lengths, resets)
    batch = xs.shape[1 : xs.ndim - (not are_ids(xs))]
    _layer_states("h0", h0, params, batch)
    _layer_states("reset_state", reset_state, params, batch)


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
        refuse(argument, expected, came, "None in the place of a state is zeros.")
    for i, (h, layer) in enumerate(zip(states, layers, strict=True)):
        if h is not None:
            _state(f"{argument}[{i}]", h, layer.forward, batch, _directions(layer))


def residual(residual: Any, params: "StackParams", xs: Any) -> None:
    flag("residual", residual)
    if not residual:
        return
    if are_ids(xs):
        repair = "Run the first layer as a stack of its own: StackParams(params.layers[:1])."
        refuse("residual", "vectors to add to the outputs of layer 0, or False", "ids", repair)
    for i, layer in enumerate(params.layers):
        came, out = layer.forward.w_ih.shape[0], _output_size(layer)
        if came != out:
            expected = f"inputs of layer {i} as wide as its outputs, {out}, or False"
            repair = "Run layers of other widths as a stack of their own: StackParams(layers[:1])."
            refuse("residual", expected, came, repair)


def dropout_rate(argument: str, rate: Any) -> None:
    """A concrete rate; what is traced is the caller's own."""
    traced = isinstance(rate, jax.core.Tracer)
    if not traced and not (_is_number(rate) and 0 <= rate < 1):
        refuse(argument, "a number in [0, 1)", repr(rate), "It is the share that becomes 0.")


def mean_arguments(hs: Any, lengths_: Any) -> None:
    array("hs", hs)
    if hs.ndim not in (2, 3) or hs.shape[0] == 0:
        repair = "Time leads, with at least one step."
        refuse("hs", "states [T, H] or [T, B, H]", describe(hs), repair)
    _floating("hs", hs)
    if lengths_ is not None:
        lengths(lengths_, hs.shape[0], hs.shape[1:-1])


# --- readout and loss ----------------------------------------------------------------------------


def readout_params(params: "ReadoutParams") -> None:
    if not all(hasattr(params, name) for name in ("w_ho", "b_o")):
        refuse(
            "params", "ReadoutParams(w_ho, b_o)", type(params).__name__, "See jrnn.init_readout."
        )
    shape("w_ho", params.w_ho, (None, None), "[H, O]", "See jrnn.init_readout.")
    _floating("w_ho", params.w_ho)
    if params.b_o is not None:
        shape("b_o", params.b_o, (params.w_ho.shape[1],), "[O]", "No bias is None in its place.")
        _same_dtype("b_o", params.b_o, "w_ho", params.w_ho)


def readout_arguments(params: "ReadoutParams", hs: Any) -> None:
    readout_params(params)
    array("hs", hs)
    H = params.w_ho.shape[0]
    if np.ndim(hs) == 0 or hs.shape[-1] != H:
        refuse("hs", f"states [..., H] with H = {H}", describe(hs), "The last axis is the state.")
    _floating("hs", hs)
    _same_dtype("hs", hs, "params", params.w_ho)


def logits(logits: Any) -> None:
    array("logits", logits)
    _floating("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        refuse("logits", "[..., O] with O >= 1", describe(logits), "The last axis is the classes.")


def cross_entropy_arguments(logits_: Any, labels: Any, weights: Any) -> None:
    logits(logits_)
    _labels_and_weights(logits_, "logits", labels, weights)


def readout_cross_entropy_arguments(
    params: "ReadoutParams", hs: Any, labels: Any, weights: Any, inside: np.ndarray | None = None
) -> None:
    readout_arguments(params, hs)
    positions, O = hs.shape[:-1], params.w_ho.shape[1]
    if O == 0:
        repair = "There is no class to choose."
        refuse("w_ho", "[H, O] with O >= 1", describe(params.w_ho), repair)
    logits = jax.ShapeDtypeStruct((*positions, O), hs.dtype)
    _labels_and_weights(logits, "hs", labels, weights, inside)


def objective_arguments(
    rnn: "RNNParams",
    readout: "ReadoutParams",
    xs: Any,
    labels: Any,
    weights: Any,
    lengths: Any = None,
) -> None:
    """What comes after the states of `rnn_arguments`."""
    readout_params(readout)
    H = rnn.w_hh.shape[0]
    shape("w_ho", readout.w_ho, (H, None), "[H, O]", f"w_hh makes states of size H = {H}.")
    _same_dtype("w_ho", readout.w_ho, "rnn_params", rnn.w_hh)
    lead = xs.shape if are_ids(xs) else xs.shape[:-1]
    states = jax.ShapeDtypeStruct((*lead, H), rnn.w_hh.dtype)
    inside = None if lengths is None else _steps_inside(lengths, lead)
    readout_cross_entropy_arguments(readout, states, labels, weights, inside)


def _labels_and_weights(
    logits: Any, source: str, labels: Any, weights: Any, inside: np.ndarray | None = None
) -> None:
    """Against the shape and dtype of logits, of which the user gave the `source`."""
    array("labels", labels)
    if weights is not None:
        _weights(weights, logits, source)
    if are_ids(labels):
        _label_ids(labels, logits, weights, inside)
    else:
        repair = "Float labels give every class its share; ids are integers [...]."
        shape("labels", labels, logits.shape, "[..., O]", repair)
        _floating("labels", labels)
        _same_dtype("labels", labels, source, logits)


def _weights(weights: Any, logits: Any, source: str) -> None:
    array("weights", weights)
    positions = logits.shape[:-1]
    if weights.shape not in ((), positions):
        repair = "One weight per position, or one for all."
        refuse("weights", f"shape {list(positions)} or []", describe(weights), repair)
    if weights.dtype == jnp.bool_:
        return
    if not _is_float(weights):
        repair = "A mask is bool, a weight is a float: cast it by .astype."
        refuse("weights", "a bool or floating dtype", describe(weights), repair)
    _same_dtype("weights", weights, source, logits)


def _label_ids(labels: Any, logits: Any, weights: Any, inside: np.ndarray | None) -> None:
    """Ids where the weight is not 0; where it is known only to the compiled program, any."""
    *positions, O = logits.shape
    if labels.shape != tuple(positions):
        one_hot = labels.shape == logits.shape
        repair = "cast one-hot labels to float." if one_hot else "one per position."
        repair = f"Integer labels are ids; {repair}"
        refuse("labels", f"ids of shape {positions}", describe(labels), repair)
    known = np.ones(()) if weights is None else _concrete(weights)
    if known is not None:
        counted = np.broadcast_to(known != 0, positions) & (True if inside is None else inside)
        _ids_within("labels", labels, O, f"O = {O} classes", counted)


# --- several devices -----------------------------------------------------------------------------


def batch_mesh(mesh: Any, axis: str) -> None:
    auto = (jax.sharding.AxisType.Auto,)
    names, types = getattr(mesh, "axis_names", None), getattr(mesh, "axis_types", None)
    if (names, types) != ((axis,), auto):
        repair = "Make it by jrnn.parallel.batch_mesh()."
        refuse("mesh", f"a mesh of one axis, {axis!r}, of type Auto", repr(mesh), repair)


def divided(argument: str, arrays: Any, specs: Any, mesh: Any) -> None:
    """Every array has the axes that its PartitionSpec splits, of a size that the mesh divides."""
    n, specs = mesh.size, jax.tree.leaves(jax.tree.broadcast(specs, arrays))
    for x, spec in zip(jax.tree.leaves(arrays), specs, strict=True):
        for axis in (i for i, name in enumerate(spec) if name is not None):
            if np.ndim(x) <= axis:
                repair = "batch_spec says which axis of which array is the batch."
                refuse(argument, f"the batch on axis {axis} of every array", describe(x), repair)
            if np.shape(x)[axis] % n:
                expected = f"a batch, axis {axis}, that {n} devices divide"
                repair = "Take another batch size or other devices: jrnn.parallel.batch_mesh(n)."
                refuse(argument, expected, describe(x), repair)


def loss_of_the_whole_batch(loss: Any, axes: Collection[str]) -> None:
    if axes:
        repair = "Return jrnn.parallel.mean(total, count) of the part that is there."
        came = "one that differs from device to device"
        refuse("loss_fn", "the loss of the whole batch", came, repair)


# --- weights of other libraries ------------------------------------------------------------------


def mapping(argument: str, x: Any, repair: str) -> None:
    if not isinstance(x, Mapping):
        refuse(argument, "a mapping of names to arrays", type(x).__name__, repair)


def entries(
    argument: str,
    found: Mapping[str, Any],
    needed: Collection[str],
    optional: Collection[str],
    repair: str,
) -> None:
    for name in needed:
        if name not in found:
            came = f"only {', '.join(found)}" if found else "an empty one"
            refuse(name, f"it in {argument}", came, repair)
    for name, x in found.items():
        if name not in needed and name not in optional:
            expected = f"nothing in {argument} but {', '.join((*needed, *optional))}"
            refuse(name, expected, f"one of shape {list(np.shape(x))}", repair)


def one_dtype(arrays: Mapping[str, Any]) -> None:
    """Of named arrays, a floating one."""
    for name, x in arrays.items():
        _floating(name, x)
        first = next(iter(arrays))
        _same_dtype(name, x, first, arrays[first])


def layer_arrays(arrays: Mapping[str, Any], I: int | None, H: int | None, out_in: bool) -> None:
    """In the order w_ih, w_hh, biases; None for a size that is free; (out, in) or (in, out)."""
    w_ih, w_hh, *biases = arrays
    repair = "H is one for all layers; the 4 H of an LSTM or 3 H of a GRU are no Elman network."
    shape(w_hh, arrays[w_hh], (H, H), "[H, H]", repair)
    H = min(arrays[w_hh].shape)
    shape(w_hh, arrays[w_hh], (H, H), "[H, H]", repair)
    axes, sizes = ("[H, I]", (H, I)) if out_in else ("[I, H]", (I, H))
    repair = f"H is that of {w_hh}; I, on top of a layer, the size of its outputs."
    shape(w_ih, arrays[w_ih], sizes, axes, repair)
    for bias in biases:
        shape(bias, arrays[bias], (H,), "[H]", repair)


def keras_weights(weights: Any, repair: str) -> None:
    if not isinstance(weights, (list, tuple)):
        refuse("weights", "a list of arrays", type(weights).__name__, repair)
    if len(weights) not in (2, 3):
        expected = "[kernel, recurrent_kernel, bias], or the first two"
        refuse("weights", expected, f"{len(weights)} arrays", repair)


def layers(layers: Any, params_class: type) -> None:
    """A list of (forward, backward or None)."""

    def pair(x: Any) -> bool:
        two = isinstance(x, (tuple, list)) and len(x) == 2 and isinstance(x[0], params_class)
        return two and (x[1] is None or isinstance(x[1], params_class))

    listed = isinstance(layers, (list, tuple))
    if not listed or not layers or not all(map(pair, layers)):
        expected = "a list of pairs (forward RNNParams, backward RNNParams or None)"
        came = [type(x).__name__ for x in layers] if listed else type(layers).__name__
        refuse("layers", expected, came, "A layer in one direction is [(params, None)].")


# --- options -------------------------------------------------------------------------------------


def activation(value: Any, activation_class: type, names: Collection[str]) -> None:
    if isinstance(value, activation_class) or (isinstance(value, str) and value in names):
        return
    expected = "one of " + ", ".join(f'"{name}"' for name in names) + ", or a jrnn.Activation"
    repair = "A function of your own is jrnn.Activation(fn, derivative_from_output)."
    refuse("activation", expected, repr(value), repair)


def compute_dtype(dtype: Any, params: "RNNParams") -> np.dtype | None:
    """The dtype of matmul operands; None where it is that of the parameters."""
    own = jnp.result_type(params.w_hh)
    expected = f"a floating dtype narrower than that of the parameters, {own}, or None"
    repair = "For mixed precision: parameters in float32, compute_dtype=jnp.bfloat16."
    try:
        asked = own if dtype is None else jnp.dtype(dtype)
    except TypeError:
        refuse("compute_dtype", expected, repr(dtype), repair)
    if asked == own:
        return None
    if not jnp.issubdtype(asked, jnp.floating) or asked.itemsize >= own.itemsize:
        refuse("compute_dtype", expected, asked, repair)
    return asked


def flag(argument: str, value: Any) -> None:
    if not isinstance(value, (bool, np.bool_)):
        refuse(argument, "True or False", repr(value), "It is fixed when the call is compiled.")


def positive_or_none(argument: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not _is_number(value) or not 0 < value < np.inf:
        refuse(argument, "a positive number or None", repr(value), "None leaves it out.")
    return float(value)


def activation_derivative(
    fn: Callable[[jax.Array], jax.Array], derivative_from_output: Callable[[jax.Array], jax.Array]
) -> None:
    """Compare phi'(phi(a)) with autodiff in float64, on a grid that leaves out relu's kink at 0."""
    repair = (
        "tanh, for example, is Activation(jnp.tanh, lambda h: 1 - h**2). "
        "A function whose derivative its output does not determine cannot be used."
    )
    import chex

    try:
        hash((fn, derivative_from_output))
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
                a = jnp.arange(-60, 60).astype(dtype) / 20 + 0.0125
                h = fn(a)
                given = derivative_from_output(h)
                chex.assert_trees_all_equal_shapes_and_dtypes(a, h, given)
            true = jax.vmap(jax.grad(fn))(a)
            at, found, expected = (np.asarray(x) for x in (a, given, true))
    except Exception as error:
        refuse(
            "fn, derivative_from_output",
            "two hashable functions of an array to one of its shape and dtype, elementwise",
            f"{type(error).__name__}: {str(error).splitlines()[0].rstrip('.')}",
            f"Write both with jnp; {repair}",
        )
    difference = np.abs(found - expected) / (1 + np.abs(expected))
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    if not difference[worst] <= 1e-6:
        place = f"{expected[worst]:.6g} at a = {at[worst]:.4g}"
        right = f"phi' as a function of h = phi(a), so {place}"
        refuse("derivative_from_output", right, f"{found[worst]:.6g}", repair)


def generate_arguments(
    rnn: "RNNParams", readout: "ReadoutParams", prompt: Any, length: int, num_samples: int
) -> None:
    rnn_params(rnn)
    readout_params(readout)
    O = readout.w_ho.shape[1]
    if (rnn.w_ih.shape[0], rnn.w_hh.shape[0]) != (O, readout.w_ho.shape[0]):
        refuse(
            "readout_params",
            f"w_ho [H, O] = [{rnn.w_hh.shape[0]}, {rnn.w_ih.shape[0]}], a logit for every input id",
            list(readout.w_ho.shape),
            "Tokens that come out go in again.",
        )
    shape("prompt", prompt, (None,), "[P]", "Encode one text; num_samples draws several.")
    if not are_ids(prompt) or prompt.size == 0:
        refuse("prompt", "at least one integer id", describe(prompt), "Start with a newline, say.")
    _ids_within("prompt", prompt, O, f"O = {O} tokens")
    sizes(length=length, num_samples=num_samples)


def sampling_options(temperature: Any, top_k: Any, top_p: Any) -> None:
    """Concrete options; what is traced is the caller's own."""
    traced = [isinstance(x, jax.core.Tracer) for x in (temperature, top_k, top_p)]
    if not traced[0] and not (_is_number(temperature) and 0 <= temperature < np.inf):
        refuse("temperature", "a number >= 0", temperature, "0 is greedy, 1 the model's own.")
    whole = top_k is None or traced[1] or (_is_number(top_k) and top_k == np.floor(top_k) >= 1)
    if not whole:
        refuse("top_k", "an integer >= 1 or None", top_k, "1 is greedy.")
    share = top_p is None or traced[2] or (_is_number(top_p) and 0 < top_p <= 1)
    if not share:
        refuse("top_p", "a number in (0, 1] or None", top_p, "1 keeps every token.")


def _is_number(x: Any) -> bool:
    return np.ndim(x) == 0 and isinstance(np.asarray(x).item(), (int, float))
