"""The kernel: a recurrence unrolled in time, its gradient by a hand-derived BPTT.

Forward, for t = 1 ... T. The products that do not depend on the state are taken out of the loop:

    a_t = x_t w_ih + h_{t-1} w_hh + b_h                                             (1)
    h_t = phi(a_t)                                                                  (2)

Backward, for t = T ... 1. dhs_t is the cotangent of h_t as an output, c_t that of h_t from the
steps after t, c_T that of h_last; delta_t is the cotangent of a_t:

    delta_t = phi'(h_t) * (dhs_t + c_t)         c_{t-1} = delta_t w_hh^T            (9)
    dw_hh   = sum_t h_{t-1}^T delta_t                                              (11)
    dw_ih   = sum_t x_t^T delta_t               db_h = sum_t delta_t               (12)
    dx_t    = delta_t w_ih^T                    dh_0 = c_0                         (13)

This is the Elman cell; `step.py` and `weight_gradients.py` have the same for any cell. Only (9) is
sequential, and it needs nothing of the forward pass but the states; (11)-(13) are matmuls over many
steps at once.

| thought | file |
|---|---|
| a cell: blocks, states, step, adjoint (23); one file for each cell | `jrnn/cells/` |
| one step and its adjoint: projection, recurrent mask, clipping, rounding | `step.py` |
| dw_hh, dw_ih, db, dx of many steps, and why dw is transposed (11)-(13) | `weight_gradients.py` |
| the residuals (`Residuals`), and the blocks that are recomputed | `types.py`, `step.py` |
| lengths, resets, h_0, reverse, `mask` (15)-(17) | `masking.py` |
| both passes as plain scans: the definition; some gradients of one sequence | `reference.py` |
| both passes as XLA computes them fast: chunks, schedule, buffers | `backends/xla.py` |
| both passes by a library in C++, on a CPU: its arguments and results | `backends/native.py` |
| which backend computes a call | `dispatch.py` |
| the custom rule, `vmap`, second derivatives | `transforms.py` |
| a primitive, whose program is chosen when it is lowered | `jrnn/primitives.py` |
| the passes in a traced program, for `jrnn.explain` | `passes.py` |
| `remat`: only sqrt(T) states are kept | `remat.py` |
| the arrays and options that these parts hand to each other | `types.py` |

Axes as in `jrnn/types.py`; also K the steps of a chunk, G the blocks of a_t, X and Y the blocks
that the input and the state feed.

A call goes down: `unroll` -> `transforms` -> `dispatch` -> a backend -> `step` -> a cell.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jrnn.arrays import ArrayLike, broadcast, steps, varying_alike
from jrnn.cells import Arrays, Named
from jrnn.kernel import step
from jrnn.kernel import transforms as transforms
from jrnn.kernel.masking import Move, counted_first, per_step, reverse_steps, step_flags
from jrnn.kernel.remat import Remat as Remat
from jrnn.kernel.step import output as output
from jrnn.kernel.types import Constants, Inputs, Steps
from jrnn.kernel.types import Spec as Spec
from jrnn.kernel.types import Weights as Weights

GivenStates = tuple[ArrayLike | None, ...] | None  # each [H], [B, H] or None: zeros
Run = Callable[[Spec, Weights, Inputs], tuple[Arrays, jax.Array]]


def unroll(
    spec: Spec,
    weights: Weights,
    xs: ArrayLike,
    start: GivenStates = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: GivenStates = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    unit: Named | None = None,
    data: Named | None = None,
    *,
    reverse: bool = False,
    run: Run = transforms.unroll,
) -> tuple[Arrays, jax.Array]:
    """Any cell over a sequence or a batch of sequences.

    Args:
        spec: the static part of the call.
        weights: the parameters of the matmuls.
        xs: `[T, I]`, `[T, B, I]`, ids `[T]`, `[T, B]`; without w_ih `[T, X*H]`, `[T, B, X*H]`.
        start: the states before the first step.
        lengths: `[]`, `[B]` or None, as in `jrnn.rnn`.
        resets: `[T]`, `[T, B]` or None, as in `jrnn.rnn`.
        reset_state: as `start`.
        recurrent_mask: `[H]`, `[B, H]` or None, as in `jrnn.rnn`.
        mask: `[T]`, `[T, B]` or None, as in `jrnn.rnn`.
        unit: the parameters of the cell for each unit, `[H]`, by name.
        data: further arrays that the cell reads, by name: for each step `[T, H]` or `[T, B, H]`,
            as `xs` has a batch or not; for each sequence `[H]` or `[B, H]`.
        reverse: as in `jrnn.rnn`.
        run: `transforms.unroll`; or `reference.unroll_by_scan`.

    Returns:
        The last states, `[H]` or `[B, H]` each, and the outputs `[T, H]` or `[T, B, H]`.
    """
    given = (start, lengths, resets, reset_state, recurrent_mask, mask, unit, data)
    inputs, _, back = in_reading_order(spec, weights, xs, *given, reverse=reverse)
    last, hs = run(spec, weights, inputs)
    return last, back(hs)


def one_step(
    spec: Spec,
    weights: Weights,
    x_t: ArrayLike,
    states: GivenStates,
    unit: Named | None = None,
    data: Named | None = None,
) -> Arrays:
    """One step (23) without lengths and resets, differentiated by JAX in either mode.

    Args:
        spec: the static part of the call.
        weights: the parameters of the matmuls.
        x_t: `[I]`, `[B, I]`, ids `[]`, `[B]`; without w_ih `[X*H]`, `[B, X*H]`.
        states: before the step, each None, `[H]` or `[B, H]`.
        unit: the parameters of the cell for each unit, `[H]`, by name.
        data: further arrays that the cell reads, by name: `[H]` or `[B, H]`.

    Returns:
        The states after the step, `[H]` or `[B, H]` each.
    """
    inputs, *_ = in_reading_order(
        spec, weights, jnp.asarray(x_t)[None], states, unit=unit, data=data
    )
    projected = step.project_inputs(spec, weights.w_ih, inputs.steps.xs[0])
    at = Steps(step.blocks_of(projected, weights.w_hh.shape[0]))
    return step.step_forward(spec, weights, inputs.constants, at, inputs.start)[0]


def in_reading_order(
    spec: Spec,
    weights: Weights,
    xs: ArrayLike,
    start: GivenStates = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: GivenStates = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    unit: Named | None = None,
    data: Named | None = None,
    *,
    reverse: bool = False,
) -> tuple[Inputs, Move, Move]:
    """The arguments of `unroll` as the kernel takes them.

    Args:
        spec: as in `unroll`, like all the others.

    Returns:
        The `Inputs`; the move of an array `[T, ...]` or `[T, B, ...]` into the order in which the
        kernel reads, and the move back.
    """
    lead, H, dtype = steps(xs), weights.w_hh.shape[0], weights.w_hh.dtype
    resets, mask = (None if x is None else per_step(x, lead) for x in (resets, mask))
    forth: Move = _stay
    back: Move = _stay
    if mask is not None:
        forth, back, lengths, resets = counted_first(mask, resets)
    ends = None if lengths is None else jnp.broadcast_to(jnp.asarray(lengths), lead[1:])
    if reverse:
        turn = partial(reverse_steps, lengths=ends)
        forth, back = _then(forth, turn), _then(turn, back)

    def per_sequence(h: Any) -> jax.Array:
        h = jnp.zeros((), dtype) if h is None else jnp.asarray(h)
        return broadcast(h, (*lead[1:], H))

    def states(given: GivenStates) -> Arrays:
        return tuple(map(per_sequence, given or (None,) * spec.cell.states))

    of_steps = {k: x for k, x in (data or {}).items() if x.ndim == len(lead) + 1}
    constants = Constants(
        None if all(h is None for h in reset_state or ()) else states(reset_state),
        None if recurrent_mask is None else per_sequence(recurrent_mask),
        {k: per_sequence(x) for k, x in (unit or {}).items()},
        {k: per_sequence(x) for k, x in (data or {}).items() if k not in of_steps},
    )
    flags = step_flags(lead, ends, resets, reverse)
    given = Steps(forth(jnp.asarray(xs)), *flags, jax.tree.map(forth, of_steps))
    _, inputs = varying_alike((weights, Inputs(given, states(start), constants)))
    return inputs, forth, back


def _stay(x: jax.Array) -> jax.Array:
    return x


def _then(first: Move, second: Move) -> Move:
    return lambda x: second(first(x))
