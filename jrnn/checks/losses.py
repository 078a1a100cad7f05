"""Checks of the arguments of a readout, of a loss, and of `rnn_cross_entropy`."""

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
    parameters,
    refuse,
    same_dtype,
    shape,
)
from jrnn.checks.sequences import steps_counted, steps_inside

if TYPE_CHECKING:
    from jrnn.types import ReadoutParams


def readout_params(params: "ReadoutParams") -> None:
    if not all(hasattr(params, name) for name in ("w_ho", "b_o")):
        refuse(
            "params", "ReadoutParams(w_ho, b_o)", type(params).__name__, "See jrnn.init_readout."
        )
    shape("w_ho", params.w_ho, (None, None), "[H, O]", "See jrnn.init_readout.")
    parameters("w_ho", params.w_ho)
    if params.b_o is not None:
        shape("b_o", params.b_o, (params.w_ho.shape[1],), "[O]", "Use None for no bias.")
        same_dtype("b_o", params.b_o, "w_ho", params.w_ho)


def readout_arguments(params: "ReadoutParams", hs: Any) -> None:
    readout_params(params)
    array("hs", hs)
    H = params.w_ho.shape[0]
    if np.ndim(hs) == 0 or hs.shape[-1] != H:
        refuse("hs", f"states [..., H] with H = {H}", describe(hs), "The last axis is the state.")
    floating("hs", hs)
    same_dtype("hs", hs, "params", params.w_ho)


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
) -> None:
    readout_arguments(params, hs)
    _labels_of_positions(params, hs.shape[:-1], labels, weights)


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
    _labels_and_weights(logits, "hs", labels, weights, inside)


def objective_arguments(
    rnn: Any,
    readout: "ReadoutParams",
    xs: Any,
    labels: Any,
    weights: Any,
    lengths: Any = None,
    mask: Any = None,
) -> None:
    """Check the arguments of `rnn_cross_entropy` that `rnn_arguments` does not check."""
    readout_params(readout)
    H = rnn.w_hh.shape[0]
    shape("w_ho", readout.w_ho, (H, None), "[H, O]", f"w_hh makes states of size H = {H}.")
    same_dtype("w_ho", readout.w_ho, "rnn_params", rnn.w_hh)
    lead = steps(xs)
    inside = None if lengths is None else steps_inside(lengths, lead)
    inside = inside if mask is None else steps_counted(mask, lead)
    _labels_of_positions(readout, lead, labels, weights, inside)


def of_a_batch(labels: Any, weights: Any) -> bool:
    """Whether labels or weights have a batch axis."""
    array("labels", labels)
    return np.ndim(weights) > 1 or labels.ndim > (1 if are_ids(labels) else 2)


def _labels_and_weights(
    logits: Any, source: str, labels: Any, weights: Any, inside: np.ndarray | None = None
) -> None:
    """Compare with the shape and dtype of logits; messages name the argument `source`."""
    array("labels", labels)
    if weights is not None:
        _weights(weights, logits, source)
    if are_ids(labels):
        _label_ids(labels, logits, weights, inside)
    else:
        repair = "Float labels give every class its share; ids are integers [...]."
        shape("labels", labels, logits.shape, "[..., O]", repair)
        floating("labels", labels)
        same_dtype("labels", labels, source, logits)


def _weights(weights: Any, logits: Any, source: str) -> None:
    array("weights", weights)
    positions = logits.shape[:-1]
    if weights.shape not in ((), positions):
        repair = "One weight per position, or one for all."
        refuse("weights", f"shape {list(positions)} or []", describe(weights), repair)
    if weights.dtype == jnp.bool_:
        return
    if not is_float(weights):
        repair = "A mask is bool, a weight is a float: cast it by .astype."
        refuse("weights", "a bool or floating dtype", describe(weights), repair)
    same_dtype("weights", weights, source, logits)


def _label_ids(labels: Any, logits: Any, weights: Any, inside: np.ndarray | None) -> None:
    """Check ids with a weight other than 0; traced weights are not checked."""
    *positions, O = logits.shape
    if labels.shape != tuple(positions):
        one_hot = labels.shape == logits.shape
        repair = "cast one-hot labels to float." if one_hot else "one per position."
        repair = f"Integer labels are ids; {repair}"
        refuse("labels", f"ids of shape {positions}", describe(labels), repair)
    known = np.ones(()) if weights is None else concrete(weights)
    if known is not None and concrete(labels) is not None:
        counted = np.broadcast_to(known != 0, positions) & (True if inside is None else inside)
        ids_within("labels", labels, O, f"O = {O} classes", counted)
