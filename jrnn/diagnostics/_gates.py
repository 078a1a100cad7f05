"""The gates of a network over time."""

from functools import partial
from typing import Any

import jax

from jrnn import checks, kernel
from jrnn._network import spec_of, weights_of
from jrnn.arrays import ArrayLike, InputsAre
from jrnn.cells import Arrays, Named, UncheckedCell
from jrnn.cells.gru import GRU
from jrnn.cells.lstm import LSTM
from jrnn.derivation.gru import GRUGates
from jrnn.derivation.lstm import LSTMGates
from jrnn.diagnostics.basics import cell_of_one, widened
from jrnn.diagnostics.dynamics import run_forward
from jrnn.kernel.step import gates_of, recomputed_blocks
from jrnn.kernel.types import Constants, Steps
from jrnn.types import LeakyParams


def gates(
    params: Any,
    xs: ArrayLike,
    h0: Any = None,
    data: Named | None = None,
    *,
    cell: UncheckedCell | None = None,
    inputs: InputsAre | None = None,
) -> Any:
    """Compute the gates of an LSTM or a GRU at every step, or those of a cell of your own.

    The memory c of an LSTM is multiplied by f at every step: a unit with the constant f forgets
    with the time constant -1 / log(f). In a GRU z does the same to h.

    Args:
        params: `LSTMParams`, `GRUParams`, or those of a `cell` with `gates`. Half precision is
            computed in float32.
        xs: as in `jrnn.rnn`.
        h0: the first state, as in `gradient_flow`.
        data: as in `gradient_flow`.
        cell: as in `gradient_flow`.
        inputs: as in `jrnn.rnn`.

    Returns:
        `LSTMGates` of i, f, g, o, or `GRUGates` of r, z, n, each `[T, H]` or `[T, B, H]`; of a cell
        of your own the tuple that its `gates` returns.

    Raises:
        ValueError: a stack; as `jrnn.unroll`; a network without gates.
    """
    cell = cell_of_one(params, None, cell)
    of_package = cell.name == "leaky" and cell.params is LeakyParams  # its phi(a) is no gate
    if cell.gates is None or of_package:
        expected = "LSTMParams, GRUParams, or those of a cell with gates"
        repair = "An Elman or leaky network has no gates."
        checks.refuse("params", expected, type(params).__name__, repair)
    none = (None,) * 5
    xs = checks.network_arguments(cell, params, xs, h0, *none, data, reading=inputs)
    found = _gates(params, xs, h0, data, spec=spec_of(cell, params))
    if cell is LSTM:
        return LSTMGates(*found)
    return GRUGates(*found[:3]) if cell is GRU else found


@partial(jax.jit, static_argnames="spec")
def _gates(*arguments: Any, spec: kernel.Spec) -> Arrays:
    params, xs, h0, data = widened(arguments)
    run = run_forward(spec, params, xs, h0, data)
    weights, _ = weights_of(spec.cell, params)
    blocks = recomputed_blocks(spec, weights, Constants(), Steps(xs), run.before)
    return gates_of(spec.cell, blocks)
