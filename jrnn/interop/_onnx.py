"""Weights of ONNX's RNN, LSTM and GRU: (out, in), an axis of directions, two biases in one array.

The gates are i o f c of an LSTM, in jrnn i f g o, and z r h of a GRU, in jrnn r z n.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.interop._weights import (
    CLASSES,
    GATES,
    RESET_BEFORE,
    Layer,
    Params,
    Source,
    blocks,
    checked,
    entries,
    has_bias,
    network,
    of_two_biases,
    pair,
    reorder,
    two_biases,
)
from jrnn.types import LayerParams, StackParams

_GATES = {1: "h", 3: "zrn", 4: "iofg"}
_SOURCE = Source(
    "from_onnx",
    "the arrays",
    "Give the arrays of the node's inputs W, R and B, by onnx.numpy_helper.to_array.",
)
_ATTRIBUTES = (
    "activation_alpha",  # of activations that are refused
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "input_forget",
    "layout",  # of inputs and states, not of weights
    "linear_before_reset",
    "output_sequence",
)
OnnxWeights = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def from_onnx(
    W: ArrayLike,
    R: ArrayLike,
    B: ArrayLike | None = None,
    P: ArrayLike | None = None,
    **attributes: Any,
) -> Layer:
    """Convert the weights of a node `RNN`, `LSTM` or `GRU` of an ONNX graph.

    Args:
        W: `[D, G*H, I]`, where D is 2 if the direction is "bidirectional", and G is 1 for an RNN, 4
            for an LSTM and 3 for a GRU.
        R: `[D, G*H, H]`.
        B: `[D, 2*G*H]` or None.
        P: `[D, 3H]` peepholes of an LSTM, which must be zeros, or None.
        attributes: those of the node, by ONNX's names, as `onnx.helper.get_attribute_value` gives
            them. A GRU needs `linear_before_reset=1`; an activation is no part of the weights.

    Returns:
        The parameters of the forward direction, and those of the backward direction or None:
        `RNNParams`, `LSTMParams` or `GRUParams`. If the direction is "reverse", the first are to be
        run with `reverse=True`.

    Raises:
        ValueError: arrays of another shape or dtype; peepholes, `clip`, `input_forget`, other
            activations of the gates; a GRU with `linear_before_reset=0` (ONNX's default), which
            resets before the matmul.
    """
    named = {"W": W, "R": R} | ({} if B is None else {"B": B})
    arrays = entries(_SOURCE, named, named)
    G = _blocks(arrays)
    _refuse_options(G, P, attributes)

    def direction(d: int) -> Params:
        weights = [jnp.asarray(arrays[name])[d].T for name in "WR"]
        biases = jnp.split(jnp.asarray(arrays["B"])[d], 2) if "B" in arrays else []
        weights = [reorder(x, _GATES[G], GATES[G]) for x in (*weights, *biases)]
        return of_two_biases(*weights) if biases else network(*weights)

    return direction(0), direction(1) if len(arrays["W"]) == 2 else None


def to_onnx(layer: Layer | LayerParams) -> OnnxWeights:
    """Convert to the inputs W, R, B of a node `RNN`, `LSTM` or `GRU` of an ONNX graph.

    Args:
        layer: a layer of a stack, or a pair as `from_onnx` returns it: `(params, None)` for one
            direction. A stack is several nodes: `[to_onnx(layer) for layer in params.layers]`.

    Returns:
        NumPy arrays `W [D, G*H, I]`, `R [D, G*H, H]` and `B [D, 2*G*H]`, or None for the last
        without a bias. A node GRU must have the attribute `linear_before_reset=1`.

    Raises:
        ValueError: not a pair of parameters of one class, or two of different shapes; a layer with
            a norm.
    """
    if isinstance(layer, StackParams):
        repair = "Its layers are nodes: [to_onnx(layer) for layer in params.layers]."
        checks.refuse("layer", "one layer", f"a stack of {len(layer.layers)}", repair)
    networks = pair(layer, "layer")
    checks.layers("layer", [networks], CLASSES)
    directions = [params for params in networks if params is not None]
    G = min(map(checked, directions))  # one class, so one G
    for params in directions[1:]:
        repair = "The two directions of a node have the same I and H."
        for name, x, wanted in zip(("w_ih", "w_hh"), params, networks[0], strict=False):
            axes = "of the forward direction"
            checks.shape(f"{name} of the backward direction", x, wanted.shape, axes, repair)

    def stacked(arrays: list[jax.Array]) -> np.ndarray:
        return np.stack([np.array(reorder(x, GATES[G], _GATES[G]).T) for x in arrays])

    B = None
    if any(map(has_bias, directions)):
        halves = zip(*map(two_biases, directions), strict=True)
        B = np.concatenate([stacked(list(half)) for half in halves], -1)
    return stacked([p.w_ih for p in directions]), stacked([p.w_hh for p in directions]), B


def _blocks(arrays: dict[str, ArrayLike]) -> int:
    """Check the shapes, and return G."""
    checks.shape("R", arrays["R"], (None, None, None), "[D, G*H, H]", _SOURCE.repair)
    D, columns, _ = arrays["R"].shape
    if D not in (1, 2):
        checks.refuse("R", "D = 1 or 2 directions", D, _SOURCE.repair)
    G = blocks({"R[0]": arrays["R"][0]}, "R[0]", out_in=True)
    H = "H" if G == 1 else f"{G}H"
    checks.shape("W", arrays["W"], (D, columns, None), f"[D, {H}, I]", _SOURCE.repair)
    if "B" in arrays:
        checks.shape("B", arrays["B"], (D, 2 * columns), f"[D, {2 * G}H]", _SOURCE.repair)
    return G


def _refuse_options(G: int, P: Any, attributes: dict[str, Any]) -> None:
    """Refuse what makes a node another network."""
    for name in attributes:
        if name not in _ATTRIBUTES:
            repair = f"Those are {', '.join(_ATTRIBUTES)}."
            checks.refuse(name, "an attribute of ONNX's RNN, LSTM or GRU", "another name", repair)
    if P is not None and np.any(np.asarray(P)):
        repair = "The gates of jrnn.lstm do not read c: train the network without peepholes."
        checks.refuse("P", "no peepholes: None or zeros", "peepholes", repair)
    if attributes.get("clip") is not None:
        repair = "jrnn does not clip pre-activations: export the network without clip."
        checks.refuse("clip", "None", attributes["clip"], repair)
    if attributes.get("input_forget"):
        repair = "There i is 1 - f: write it as a jrnn.Cell, for jrnn.unroll."
        checks.refuse("input_forget", "0", attributes["input_forget"], repair)
    if G == 3 and not attributes.get("linear_before_reset"):
        came = attributes.get("linear_before_reset", "0, ONNX's default")
        checks.refuse("linear_before_reset", "1", came, RESET_BEFORE)
    given = [x.decode() if isinstance(x, bytes) else x for x in attributes.get("activations") or ()]
    own = ["sigmoid", "tanh"] if G == 3 else ["sigmoid", "tanh", "tanh"]
    if G > 1 and given and [x.lower() for x in given] not in (own, 2 * own):
        repair = "The gates of jrnn have these; write others as a jrnn.Cell, for jrnn.unroll."
        checks.refuse("activations", f"{own} for each direction", given, repair)
