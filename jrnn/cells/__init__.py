"""The definition of a cell: one step in time, element by element.

    a_t = [x_t w_ih] + [(m * h_{t-1}) w_hh] + b                                    (23)

The kernel computes the pre-activation a_t, which has G blocks of H numbers each; the input feeds
some of the blocks, the state feeds some, the bias all. The cell is the rest: a function of the
blocks and of the states before the step, elementwise over `[B, H]`, and its adjoint. A cell has one
state or several. The first is the output h_t and the operand of w_hh, unless the cell computes
h_t from its states by `output`.

To add a cell to the kernel, write one file here, such as `elman.py`. A gated cell has several
blocks; for example:

    def step(blocks, before, unit, data):
        z, n = jax.nn.sigmoid(blocks[0]), jnp.tanh(blocks[1])
        return (before[0] + z * (n - before[0]),)

    cell = Cell("gated", step, x_blocks=(0, 1), h_blocks=(0, 1))    # w_ih [I, 2H], w_hh [H, 2H]
    kernel.unroll(kernel.Spec(cell), kernel.Weights(w_ih, w_hh, b), xs)

`Cell` checks the functions when it is made; the cells of the package, which tests check, are
`UncheckedCell`s, so that importing them is fast.

The operand of w_hh is always the output m * h_{t-1}: a GRU resets after the matmul, by a block that
only the state feeds (`h_blocks`). To offer a cell to users, add its parameters to `jrnn/types.py`
(and to `KINDS`, for files and export), a module such as `jrnn/_rnn.py` with its checks in
`jrnn/checks/`, its names to `jrnn/__init__.py`, and a line to `CELLS` in `tests/kernel/cells.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax

from jrnn import checks

Arrays = tuple[jax.Array, ...]
Named = dict[str, jax.Array]


class StepCotangents(NamedTuple):
    """The cotangents of the arguments of a step; None is zero."""

    blocks: Arrays  # one for each block: delta_t
    before: tuple[jax.Array | None, ...] | None = None  # of each state, but not through a_t
    unit: Named | None = None
    data: Named | None = None  # of the floating ones


@dataclass(frozen=True)
class UncheckedCell:
    """A cell whose functions are known to agree: those of the package; see `Cell`."""

    name: str
    # (blocks, before, unit, data) -> after
    step: Callable[[Arrays, Arrays, Named, Named], Arrays]
    # (cotangents of after, blocks, before, unit, data, after) -> StepCotangents
    adjoint: Callable[[Arrays, Arrays, Arrays, Named, Named, Arrays], StepCotangents] | None = None
    x_blocks: tuple[int, ...] = (0,)
    h_blocks: tuple[int, ...] = (0,)
    states: int = 1
    unit: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    output: Callable[[Arrays], jax.Array] | None = None
    adjoint_reads_blocks: bool = True


@dataclass(frozen=True)
class Cell(UncheckedCell):
    """A cell of the user's own.

    Hashable, as an option of a jitted function must be: two cells are equal if they were made from
    the same functions, so make it once, outside the training loop.

    Args:
        name: for messages and files.
        step: `(blocks, before, unit, data) -> after`: a tuple of the G blocks of a_t, a tuple of
            the states before the step, and two dicts of arrays, all `[B, H]`, to the tuple of the
            states after the step. Elementwise: an element of a result depends on the same element
            of each argument.
        adjoint: `(d_after, blocks, before, unit, data, after) -> StepCotangents`, the cotangents
            of the arguments of the step; None: those of `jax.vjp` of the step.
        x_blocks: the blocks that x_t w_ih is added to, in the order of the columns of w_ih.
        h_blocks: the blocks that h_{t-1} w_hh is added to, in the order of the columns of w_hh.
        states: the number of states.
        unit: the names of the parameters for each unit that the step reads.
        data: the names of the arrays for each step or sequence that the step reads.
        output: `states -> h_t`, elementwise; None: the first state.
        adjoint_reads_blocks: False: the adjoint reads `after` and neither `blocks` nor `before`.
            Nothing is recomputed for it then, and `blocks` is empty.

    Raises:
        ValueError: a function that is not hashable, not elementwise or changes a shape or a dtype;
            an adjoint that is not the one of the step; blocks that are fed by nothing.
    """

    def __post_init__(self) -> None:
        checks.cell(self)
