"""The definition of a cell: one step in time, element by element.

    a_t = [x_t w_ih] + [(m * h_{t-1}) w_hh] + b                                    (23)

The kernel computes the pre-activation a_t, which has G blocks of H numbers each; the input feeds
some of the blocks, the state feeds some, the bias all. The cell is the rest: a function of the
blocks and of the states before the step, elementwise over `[B, H]`, and its adjoint. A cell has one
state or several. The first is the output h_t and the operand of w_hh, unless the cell computes
h_t from its states by `output`.

The step reads the blocks as they are, or functions of the blocks alone, its gates. To add a cell,
write one file here, such as `gru.py`; users write the same with `Cell`. For example:

    class GatedParams(NamedTuple):
        w_ih: jax.Array  # [I, 2H]
        w_hh: jax.Array  # [H, 2H]
        b_h: jax.Array | None  # [2H]

    def gates(blocks):
        return jax.nn.sigmoid(blocks[0]), jnp.tanh(blocks[1])

    def step(gates, before, unit, data):
        z, n = gates
        return (before[0] + z * (n - before[0]),)

    cell = jrnn.Cell("gated", step, gates=gates, x_blocks=(0, 1), h_blocks=(0, 1),
                     params=GatedParams)
    h_last, hs = jrnn.unroll(cell, params, xs)

`Cell` checks the functions when it is made; the cells of the package, which tests check, are
`UncheckedCell`s, so that importing them is fast.

The operand of w_hh is always the output m * h_{t-1}: a GRU resets after the matmul, by a block that
only the state feeds (`h_blocks`). To offer a cell in the package, add its parameters to
`jrnn/types.py` (and to `KINDS`, for files and export), a line to `jrnn/cells/kinds.py`, a module
such as `jrnn/_gru.py`, its names to `jrnn/__init__.py`, and a line to `CELLS` in
`tests/kernel/cells.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax

from jrnn import checks

Arrays = tuple[jax.Array, ...]
Named = dict[str, jax.Array]


class StepCotangents(NamedTuple):
    """The cotangents of the arguments of a step; None is zero.

    Attributes:
        blocks: one for each block: delta_t.
        before: of each state, but not through a_t.
        unit: of the parameters for each unit, by name.
        data: of the floating ones.
    """

    blocks: Arrays
    before: tuple[jax.Array | None, ...] | None = None
    unit: Named | None = None
    data: Named | None = None


@dataclass(frozen=True)
class UncheckedCell:
    """A cell whose functions are known to agree: those of the package; see `Cell`."""

    of_a_user = False  # whether its adjoint may be no number in the padding

    name: str
    # (gates, before, unit, data) -> after
    step: Callable[[Arrays, Arrays, Named, Named], Arrays]
    # (cotangents of after, gates, before, unit, data, after) -> StepCotangents
    adjoint: Callable[[Arrays, Arrays, Arrays, Named, Named, Arrays], StepCotangents] | None = None
    x_blocks: tuple[int, ...] = (0,)
    h_blocks: tuple[int, ...] = (0,)
    states: int = 1
    unit: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    output: Callable[[Arrays], jax.Array] | None = None
    adjoint_reads_blocks: bool = True
    reads_first_state: bool = True
    gates: Callable[[Arrays], Arrays] | None = None
    params: type | None = None
    state: type | None = None
    biases: tuple[tuple[str, int], ...] | None = None


@dataclass(frozen=True)
class CellOfActivation(UncheckedCell):
    """A cell of the package with an activation of the user's own."""

    of_a_user = True


@dataclass(frozen=True)
class Cell(UncheckedCell):
    """A cell of the user's own.

    Hashable, as an option of a jitted function must be: two cells are equal if they were made from
    the same functions, so make it once, outside the training loop.

    Args:
        name: for messages and files.
        step: `(gates, before, unit, data) -> after`: a tuple of the gates (without `gates` the G
            blocks of a_t), a tuple of the states before the step, and two dicts of arrays, all
            `[B, H]`, to the tuple of the states after the step. Elementwise: an element of a
            result depends on the same element of each argument.
        adjoint: `(d_after, gates, before, unit, data, after) -> StepCotangents`, the cotangents of
            the blocks and of the other arguments of the step; None: those of `jax.vjp` of the step.
        x_blocks: the blocks that x_t w_ih is added to, in the order of the columns of w_ih.
        h_blocks: the blocks that h_{t-1} w_hh is added to, in the order of the columns of w_hh.
        states: the number of states.
        unit: the names of the parameters for each unit that the step reads, fields of `params`.
        data: the names of the arrays for each step or sequence that the step reads; floats when
            the cell is checked, also -9 and 9, so cast flags by `.astype(bool)`.
        output: `states -> h_t`, elementwise; None: the first state.
        adjoint_reads_blocks: False: the adjoint reads `after`, and neither gates nor `before`.
            Nothing is recomputed for it then, and `gates` is empty.
        reads_first_state: False: step and adjoint do not read `before[0]`, as the h of an LSTM,
            which only w_hh multiplies. With a `compute_dtype` it is kept as it is rounded then.
        gates: `blocks -> gates`, elementwise: what step and adjoint read of the blocks, such as
            their sigmoids. The backward pass computes them for many steps at once. None: the
            blocks themselves.
        params: the class of the parameters, a NamedTuple with the fields `w_ih [I, X*H]` or None,
            `w_hh [H, Y*H]`, `b_h [G*H]` or None, and one `[H]` for each name in `unit`; a class
            of your own, by which functions such as `jrnn.stack` tell your cell from others.
        state: the class of the states for several of them, a NamedTuple; None: a tuple.
        biases: if the bias has several parts, their fields in `params` and the number of blocks of
            each, such as (("b_h", 3), ("b_hn", 1)); None: (("b_h", G),).

    Raises:
        ValueError: a part that is not hashable; a function that is not elementwise, changes a
            shape or a dtype, or reads a traced value; an adjoint that is not the one of the step;
            blocks that are fed by nothing; a class without the fields.
    """

    of_a_user = True
    params: type = field(kw_only=True)

    def __post_init__(self) -> None:
        checks.cell(self)
