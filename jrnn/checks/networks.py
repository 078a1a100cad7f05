"""Checks of the parameters of a network: their class, shapes, dtype and leak."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jrnn.checks.basics import concrete, parameters, refuse, same_dtype, shape
from jrnn.checks.cells import a_cell
from jrnn.types import (
    GRUParams,
    LayerParams,
    LeakyParams,
    LSTMParams,
    ReadoutParams,
    RNNParams,
    StackParams,
)

if TYPE_CHECKING:
    from jrnn.cells import UncheckedCell

FUNCTIONS = {
    RNNParams: "rnn",
    LSTMParams: "lstm",
    GRUParams: "gru",
    LeakyParams: "leaky",
    StackParams: "stack",
    ReadoutParams: "readout",
}


def of_kind(params: Any, kind: type | None) -> None:
    """Refuse parameters of another class: a network never passes for another."""
    if kind is None or not isinstance(params, kind):
        expected = "those of a cell" if kind is None else with_fields(kind)
        repair = f"See jrnn.init_{FUNCTIONS.get(kind, 'cell')}."  # type: ignore[arg-type]
        if type(params) in FUNCTIONS or hasattr(params, "w_hh"):
            run = FUNCTIONS.get(type(params))
            repair = (
                f"jrnn.{run} runs these." if run else "jrnn.unroll runs these, with their cell."
            )
        elif isinstance(params, LayerParams):
            repair = "jrnn.stack runs these as StackParams((layer,))."
        elif isinstance(params, tuple):
            repair = "Pass the parameters of the network alone, one of its parts."
        refuse("params", expected, type(params).__name__, repair)


def with_fields(kind: Any) -> str:
    return f"{kind.__name__}({', '.join(kind._fields)})"


def network(cell: "UncheckedCell", params: Any) -> None:
    """Check the class, the shapes and the dtype of the parameters of a network."""
    a_cell(cell)
    of_kind(params, cell.params)
    X, Y = len(cell.x_blocks), len(cell.h_blocks)
    shape("w_hh", params.w_hh, (None, None), f"[H, {times(Y)}]", "It maps a state to a_t.")
    parameters("w_hh", params.w_hh)
    H = params.w_hh.shape[0]
    if H == 0 or (params.w_ih is not None and 0 in np.shape(params.w_ih)):
        name = "w_ih" if H else "w_hh"
        came = f"shape {[*np.shape(getattr(params, name))]}"
        refuse(name, "axes of at least 1", came, "Without inputs w_ih is None.")
    repair = "It maps a state to a state." if Y == 1 else "It maps a state to the blocks of a_t."
    shape("w_hh", params.w_hh, (H, Y * H), f"[H, {times(Y)}]", repair)
    if params.w_ih is not None:
        repair = f"Use x @ w_ih: transpose an ({times(X)}, I) weight."
        shape("w_ih", params.w_ih, (None, X * H), f"[I, {times(X)}]", repair)
        same_dtype("w_ih", params.w_ih, "w_hh", params.w_hh)
    for name, blocks in bias_parts(cell):
        b = getattr(params, name)
        if b is not None:
            shape(name, b, (blocks * H,), f"[{times(blocks)}]", "Use None for no bias.")
            same_dtype(name, b, "w_hh", params.w_hh)
    for name in cell.unit:
        if getattr(params, name) is None:
            repair = "A leaky cell with learned=True reads log_tau, one with learned=False alpha."
            refuse(name, f"what the cell {cell.name} reads", "None", repair)
        shape(name, getattr(params, name), (H,), "[H]", "One for each unit.")
        same_dtype(name, getattr(params, name), "w_hh", params.w_hh)
    if isinstance(params, LeakyParams) and params.alpha is not None:
        alpha = concrete(params.alpha)
        if alpha is not None:
            share(alpha.astype(np.float64), learned=False)


def share(alpha: np.ndarray, learned: bool) -> None:
    """Refuse an alpha outside its range."""
    allowed = (alpha > 0) & ((alpha < 1) if learned else (alpha <= 1))
    if not allowed.all():
        expected = f"numbers in (0, {'1)' if learned else '1]'}"
        repair = "It is the share of the new state in a step: dt / tau, for example."
        refuse("alpha", expected, float(alpha[~allowed][0]), repair)


def bias_parts(cell: "UncheckedCell") -> tuple[tuple[str, int], ...]:
    """The fields of the bias, and the number of blocks of each."""
    G = 1 + max((*cell.x_blocks, *cell.h_blocks))
    return (("b_h", G),) if cell.biases is None else cell.biases


def times(blocks: int) -> str:
    return "H" if blocks == 1 else f"{blocks}H"


def network_of_inputs(cell: "UncheckedCell", params: Any) -> None:
    """For functions that need a w_ih."""
    network(cell, params)
    if params.w_ih is None:
        repair = "This function is for networks that map their inputs; see jrnn.init_rnn."
        refuse("params", f"{type(params).__name__} with w_ih", "w_ih = None", repair)


def input_size(cell: "UncheckedCell", params: Any) -> int:
    """I; without w_ih the inputs are as wide as the blocks that they feed."""
    if params.w_ih is None:
        return len(cell.x_blocks) * int(params.w_hh.shape[0])
    return int(params.w_ih.shape[0])
