"""The kinds of networks that the package knows by the class of their parameters."""

from typing import Any

from jrnn import checks
from jrnn.cells import UncheckedCell
from jrnn.cells.elman import Activation, ActivationName, elman
from jrnn.cells.gru import GRU
from jrnn.cells.lstm import LSTM
from jrnn.types import GRUParams, LeakyParams, LSTMParams, RNNParams


def cell_of(
    params: Any,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
) -> UncheckedCell:
    """The cell of a network.

    Args:
        params: its parameters. `RNNParams` mean an Elman network; `LeakyParams` may be (28) or
            (29), so they need a `cell`.
        activation: of an Elman network, as in `jrnn.rnn`; None: "tanh".
        cell: for `LeakyParams`, for parameters of another class, or for another cell with the
            parameters of the package.

    Returns:
        The cell, `cell` if it is given.

    Raises:
        ValueError: a `cell` that is none; `LeakyParams`, or parameters of an unknown class, without
            it; an activation for a cell that has its own.
    """
    if cell is not None:
        checks.a_cell(cell)
        checks.of_kind(params, cell.params)
    elif isinstance(params, RNNParams):
        return elman(activation or "tanh")
    elif isinstance(params, LeakyParams):
        learned = params.log_tau is not None
        one = f'jrnn.cells.leaky.leaky({activation or "tanh"!r}, "state", learned={learned})'
        expected = f'{one} for (28), with "input" for (29)'
        repair = "LeakyParams do not say which of the two they are, nor the activation."
        checks.refuse("cell", expected, None, repair)
    elif isinstance(params, LSTMParams):
        cell = LSTM
    elif isinstance(params, GRUParams):
        cell = GRU
    else:
        expected = "RNNParams, LSTMParams, GRUParams, or those of cell"
        own = "For a cell of your own give cell=, the jrnn.Cell."
        repair = checks.repair_of_module(params, own)
        checks.refuse("params", expected, type(params).__name__, repair)
    if activation is not None:
        expected = f"None, since the cell {cell.name} has its own"
        checks.refuse("activation", expected, activation, "It is for Elman networks.")
    return cell
