"""Checks of the arguments of a readout, of a loss, and of `rnn_cross_entropy`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.arrays import are_ids, steps
from jrnn.checks.basics import (
    array,
    concrete,
    describe,
    floating,
    ids_within,
    is_float,
    is_number,
    not_explicit,
    parameters,
    refuse,
    same_dtype,
    shape,
    shown,
)
from jrnn.checks.sequences import steps_counted, steps_inside

if TYPE_CHECKING:
    from jrnn.types import ReadoutParams

TRANSPOSED = "It looks transposed: pass w_ho.T"


def readout_params(params: "ReadoutParams") -> None:
    if not all(hasattr(params, name) for name in ("w_ho", "b_o")):
        refuse(
            "params", "ReadoutParams(w_ho, b_o)", type(params).__name__, "See jrnn.init_readout."
        )
    shape("w_ho", params.w_ho, (None, None), "[H, O]", "See jrnn.init_readout.")
    parameters("w_ho", params.w_ho)
    if params.b_o is not None:
        H, O = params.w_ho.shape
        if H != O and np.shape(params.b_o) == (H,):
            expected = f"shape [H, O] = [any, {H}], with O that of b_o"
            refuse("w_ho", expected, describe(params.w_ho), f"{TRANSPOSED}, or give a b_o [{O}].")
        shape("b_o", params.b_o, (params.w_ho.shape[1],), "[O]", "Use None for no bias.")
        same_dtype("b_o", params.b_o, "w_ho", params.w_ho)


def readout_arguments(params: "ReadoutParams", hs: Any) -> Any:
    """Check the arguments; return hs in the dtype of the parameters, if it is half precision."""
    readout_params(params)
    array("hs", hs)
    H, O = params.w_ho.shape
    if np.ndim(hs) == 0 or hs.shape[-1] != H:
        repair = "The last axis is the state."
        if np.ndim(hs) > 0 and hs.shape[-1] == O:
            repair = f"w_ho is [H, O] = [{H}, {O}]. {TRANSPOSED}."
        refuse("hs", f"states [..., H] with H = {H}", describe(hs), repair)
    floating("hs", hs)
    own = jnp.result_type(params.w_ho)
    if hs.dtype.itemsize <= 2 < own.itemsize:
        return jnp.asarray(hs).astype(own)
    same_dtype("hs", hs, "params", params.w_ho)
    return hs


def logits(logits: Any) -> None:
    array("logits", logits)
    floating("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        refuse("logits", "[..., O] with O >= 1", describe(logits), "The last axis is the classes.")


def cross_entropy_arguments(logits_: Any, labels: Any, weights: Any) -> None:
    logits(logits_)
    _labels_and_weights(logits_, "logits", labels, weights)


def readout_cross_entropy_arguments(
    params: "ReadoutParams", hs: Any, labels: Any, weights: Any
) -> Any:
    """Check the arguments; return hs as `readout_arguments`."""
    hs = readout_arguments(params, hs)
    not_explicit("hs", hs)
    _labels_of_positions(params, hs.shape[:-1], labels, weights)
    return hs


def _labels_of_positions(
    params: "ReadoutParams",
    positions: tuple[int, ...],
    labels: Any,
    weights: Any,
    inside: np.ndarray | None = None,
) -> None:
    O = params.w_ho.shape[1]
    if O == 0:
        repair = "There is no class to choose."
        refuse("w_ho", "[H, O] with O >= 1", describe(params.w_ho), repair)
    logits = jax.ShapeDtypeStruct((*positions, O), jnp.result_type(params.w_ho))
    _labels_and_weights(logits, "params", labels, weights, inside)


def objective_arguments(
    rnn: Any,
    readout: "ReadoutParams",
    xs: Any,
    labels: Any,
    weights: Any,
    lengths: Any = None,
    mask: Any = None,
) -> None:
    """Check the arguments of `rnn_cross_entropy` that the network does not check."""
    readout_of(rnn.w_hh, readout)
    lead = steps(xs)
    inside = None if lengths is None else steps_inside(lengths, lead)
    inside = inside if mask is None else steps_counted(mask, lead)
    _labels_of_positions(readout, lead, labels, weights, inside)


def readout_of(w_hh: Any, readout: "ReadoutParams") -> None:
    readout_params(readout)
    H = w_hh.shape[0]
    shape("w_ho", readout.w_ho, (H, None), "[H, O]", f"w_hh makes states of size H = {H}.")
    same_dtype("w_ho", readout.w_ho, "rnn_params", w_hh)


def objective_of(
    loss: Any, rnn: Any, readout: "ReadoutParams", xs: Any, targets: Any, weights: Any
) -> None:
    """The same of `rnn_loss`, for any other loss."""
    readout_of(rnn.w_hh, readout)
    lead = steps(xs)
    array("targets", targets)
    if targets.shape[: len(lead)] != lead:
        repair = "Every step has its target; those that do not count may be NaN."
        refuse("targets", f"shape {[*lead, '...']}", describe(targets), repair)
    if is_float(targets):
        same_dtype("targets", targets, "rnn_params", readout.w_ho)
    outputs = jax.ShapeDtypeStruct((*lead, readout.w_ho.shape[1]), readout.w_ho.dtype)
    losses = jax.eval_shape(loss, outputs, jax.ShapeDtypeStruct(targets.shape, targets.dtype))
    if getattr(losses, "shape", ())[: len(lead)] != lead:
        came = describe(losses) if hasattr(losses, "shape") else type(losses).__name__
        repair = "rnn_loss sums them; the loss must not."
        refuse("loss", f"losses of shape {[*lead, '...']}", came, repair)
    _weights(weights, [lead, losses.shape], readout.w_ho, "rnn_params")


def of_a_batch(labels: Any, weights: Any, named: str = "labels") -> bool:
    """Whether labels or weights have a batch axis."""
    array(named, labels)
    ids = are_ids(labels)
    return np.ndim(weights) > (1 if ids else 2) or labels.ndim > (1 if ids else 2)


def regression_arguments(
    predictions: Any, targets: Any, weights: Any, *, outputs: int = 1, shared: bool = False
) -> None:
    """Check the arguments of a loss with so many outputs for each target.

    `shared`: whether all outputs may predict one target.
    """
    array("predictions", predictions)
    floating("predictions", predictions)
    wanted = predictions.shape
    if outputs > 1:
        if not wanted or wanted[-1] == 0 or wanted[-1] % outputs:
            repair = "The means come first, then the logarithms of the standard deviations."
            refuse("predictions", "[..., 2D] with D >= 1", describe(predictions), repair)
        wanted = (*wanted[:-1], wanted[-1] // outputs)
    array("targets", targets)
    shapes = [wanted, (*wanted[:-1], 1)] if shared and wanted else [wanted]
    if targets.shape not in shapes:
        repair = "One for each prediction; a single output is an axis of size 1."
        either = " or ".join(str(list(shape)) for shape in shapes)
        refuse("targets", f"shape {either}", describe(targets), repair)
    if not is_float(targets):
        refuse("targets", "a floating dtype", describe(targets), "Cast counts by .astype.")
    same_dtype("targets", targets, "predictions", predictions)
    _weights(weights, [wanted[:-1], wanted], predictions, "predictions")


def quantiles(quantile: Any, predictions: Any) -> tuple[float, ...]:
    """The quantiles as a tuple, of one or one for each output."""
    expected = "a number between 0 and 1, or a sequence of one for each output"
    if isinstance(quantile, jax.core.Tracer):
        refuse("quantile", expected, "a traced array", "It is fixed when the call is compiled.")
    several = np.ndim(quantile) == 1
    found = np.asarray(quantile).tolist() if several else [quantile]
    for q in found:
        if not (is_number(q) and 0 < q < 1):
            refuse("quantile", expected, shown(q), "0.5 is the median.")
    O = predictions.shape[-1] if predictions.ndim else 1
    if len(found) not in (1, O):
        came = f"{len(found)} for {O} outputs"
        refuse("quantile", expected, came, "A readout has one output for each quantile.")
    return tuple(map(float, found))


def _labels_and_weights(
    logits: Any, source: str, labels: Any, weights: Any, inside: np.ndarray | None = None
) -> None:
    """Compare with the shape and dtype of logits; messages name the argument `source`."""
    array("labels", labels)
    _weights(weights, [logits.shape[:-1]], logits, source)
    if are_ids(labels):
        _label_ids(labels, logits, weights, inside)
    else:
        repair = "Float labels give every class its share; ids are integers [...]."
        repair += _of_sequences(labels, logits.shape, logits.shape[:-1])
        shape("labels", labels, logits.shape, "[..., O]", repair)
        floating("labels", labels)
        same_dtype("labels", labels, source, logits)


def _of_sequences(labels: Any, wanted: Sequence[int], positions: Sequence[int]) -> str:
    """The repair of labels [B] or [B, O] where [T, B] or [T, B, O] are wanted, or nothing."""
    if len(positions) != 2 or labels.shape != tuple(wanted[1:]):
        return ""
    T, B = positions
    return (
        " If they are one for each sequence, at its end, give "
        f"labels=jnp.broadcast_to(labels, {tuple(wanted)}) and "
        f"weights=jnp.arange({T})[:, None] == lengths[None] - 1; without padding lengths is "
        f"jnp.full({B}, {T})."
    )


def _weights(weights: Any, shapes: list[tuple[int, ...]], like: Any, source: str) -> None:
    """Check weights of one of these shapes, or []; the dtype is that of the argument `source`."""
    if weights is None:
        return
    array("weights", weights)
    if weights.shape not in ((), *shapes):
        repair = "One weight per position, or one for all."
        wanted = ", ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        refuse("weights", f"shape {wanted} or []", describe(weights), repair)
    if weights.dtype == jnp.bool_:
        return
    if not is_float(weights):
        repair = "A mask is bool, a weight is a float: cast it by .astype."
        refuse("weights", "a bool or floating dtype", describe(weights), repair)
    same_dtype("weights", weights, source, like)


def _label_ids(labels: Any, logits: Any, weights: Any, inside: np.ndarray | None) -> None:
    """Check ids with a weight other than 0; traced weights are not checked."""
    *positions, O = logits.shape
    if labels.shape != tuple(positions):
        one_hot = labels.shape == logits.shape
        repair = "cast one-hot labels to float." if one_hot else "one per position."
        repair = f"Integer labels are ids; {repair}{_of_sequences(labels, positions, positions)}"
        refuse("labels", f"ids of shape {positions}", describe(labels), repair)
    known = np.ones(()) if weights is None else concrete(weights)
    if known is not None and concrete(labels) is not None:
        counted = np.broadcast_to(known != 0, positions) & (True if inside is None else inside)
        ids_within("labels", labels, O, f"O = {O} classes", counted)
