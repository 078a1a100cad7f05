"""The arguments and results of the parts of the kernel.

Steps are in the order in which they are read: a sequence that is read in reverse has been reversed,
and its padding comes last. A single sequence has no axis B until `transforms` makes it a batch of
one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax import lax

from jrnn.cells import Arrays, Named, UncheckedCell
from jrnn.kernel.masking import Masking

Precision = str | None  # as `jax.default_matmul_precision` takes it


class Weights(NamedTuple):
    """The parameters of any cell; also their gradients."""

    w_ih: jax.Array | None  # [I, X*H] for X blocks fed by the input; None: xs are added as they are
    w_hh: jax.Array  # [H, Y*H] for Y blocks fed by the state
    b: jax.Array | None  # [G*H]


class Steps(NamedTuple):
    """The arrays given for every step, `[T, B, ...]`; or those of one step, `[B, ...]`."""

    xs: Any  # [T, B, I]; ids [T, B]; without w_ih [T, B, X*H]. In a step: X blocks [B, H]
    valid: jax.Array | None = None  # [T, B] bool, v_t: True at real steps; None: all are real
    reset: jax.Array | None = None  # [T, B] bool, r_t: a segment begins; None: no resets
    data: Named = {}  # noqa: RUF012  [T, B, H] the data of the cell for each step


class Constants(NamedTuple):
    """The arrays given once for each sequence; also the sums of their cotangents over the steps."""

    reset_state: Arrays | None = None  # [B, H] for each state, h_r; None: zeros
    recurrent_mask: jax.Array | None = None  # [B, H], m; None: ones
    unit: Named = {}  # noqa: RUF012  [B, H] the cell's parameters for each unit
    data: Named = {}  # noqa: RUF012  [B, H] the data of the cell for each sequence


class Inputs(NamedTuple):
    """All arrays of a call but the weights; also their gradients, None where there is none."""

    steps: Steps
    start: Arrays  # [B, H] for each state: before the first step
    constants: Constants = Constants()


class States(NamedTuple):
    """The result of a forward pass."""

    last: Arrays  # [B, H] for each state: after the last step
    hs: jax.Array  # [T, B, H] the outputs; 0 in the padding
    kept: Arrays = ()  # [T, B, H] each, see `step.stored`; under `remat`: [T/S, B, H]


class Cotangents(NamedTuple):
    """The cotangents of the results of a forward pass."""

    last: Arrays
    hs: Any  # [T, B, H]; under `remat` None for zero


class Residuals(NamedTuple):
    """The arrays of the forward pass that the backward pass needs.

    Weights and inputs; hs; the states that hs does not replace: further states, and the first one
    if the cell has an `output`, or if hs is rounded and the adjoint needs it unrounded (see
    `step.hs_is_first_state`). The gates are kept where that is faster (see `dispatch.keeps_gates`),
    and computed again elsewhere. Under `remat` hs is not kept, and `kept` is every state at the
    starts of the segments (see `remat.py`).
    """

    weights: Weights
    inputs: Inputs
    hs: Any  # [T, B, H]; None under `remat`
    kept: Arrays  # as in `States`


class BackwardSteps(NamedTuple):
    """The arrays that the backward pass reads at every step, `[T, B, ...]`; or those of one."""

    dhs: jax.Array  # the cotangents of the outputs
    at: Steps  # without xs
    valid_next: jax.Array | None  # v_{t+1}
    reset_next: jax.Array | None  # r_{t+1}
    after: Arrays  # the states after the step, as they are kept
    gates: Arrays  # what the adjoint reads of the blocks, if it is kept


class BackwardCarry(NamedTuple):
    """The carry of the backward loop."""

    states: Arrays  # d_{t+1}, the cotangents that step t + 1 sends back; at the end c_0
    constants: Constants  # the sums over the steps after t, in at least float32


class Backward(NamedTuple):
    """The result of a backward pass."""

    carry: BackwardCarry  # before the first step
    sums: Weights  # over the steps so far, in at least float32
    dxs: jax.Array | None  # None for ids
    ddata: Named


@dataclass(frozen=True)
class Batching:
    """How N sequences, or N batches, with the same weights become one batch."""

    def fold(self, inputs: Inputs) -> Inputs:
        """Arrays `[N, T, ...]` or `[N, T, B, ...]` to `[T, N, ...]` or `[T, N*B, ...]`.

        Args:
            inputs: with an axis N in front of every array.

        Returns:
            The `Inputs` of one batch.
        """
        axes = inputs.start[0].ndim - 1  # N, or N and B

        def steps(x: jax.Array) -> jax.Array:
            return lax.collapse(x.swapaxes(0, 1), 1, 1 + axes)

        def sequences(x: jax.Array) -> jax.Array:
            return lax.collapse(x, 0, axes)

        rest = jax.tree.map(sequences, (inputs.start, inputs.constants))
        return Inputs(jax.tree.map(steps, inputs.steps), *rest)

    def unfold(self, states: States, lead: tuple[int, ...]) -> States:
        """The inverse, of results.

        Args:
            states: of the one batch.
            lead: (N,) or (N, B).

        Returns:
            `last` as `[*lead, H]`, all else as `[T, *lead, ...]`.
        """
        last = jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), states.last)
        hs, kept = jax.tree.map(
            lambda x: x.reshape(len(x), *lead, *x.shape[2:]), (states.hs, states.kept)
        )
        return States(last, hs, kept)


class Spec(NamedTuple):
    """The static part of a call: hashable, as an option of a jitted function must be.

    The last three fields are parts of the kernel that can be replaced. Tests plant faults by them.
    `dispatch` chooses the backend if it is None.
    """

    cell: UncheckedCell
    precision: Precision = None
    compute_dtype: np.dtype | None = None  # of matmul operands; None: that of the parameters
    clip_delta: float | None = None
    remat: Any = None  # a `remat.Remat`; None: keep all states
    devices: int = 1  # of this process that a call is split over: they share its cores
    no_native: str | None = None  # why not: for other machines, or mapped by JAX
    wants_dx: bool = True  # `transforms` knows it; if not, dxs may be anything
    keep_gates: bool = False  # `transforms` decides it for the forward pass of a gradient
    backend: "Backend | None" = None
    masking: Masking = Masking()
    batching: Batching = Batching()


class Backend(Protocol):
    """A way to compute both passes.

    The backward pass may run on another backend than the forward pass, so all backends of a call
    keep the same residuals: those of `step.stored`, with the gates if `spec.keep_gates`.
    """

    def forward(self, spec: Spec, weights: Weights, inputs: Inputs) -> States:
        """The states, (23) and (15).

        Args:
            spec: the static part of the call.
            weights: the parameters.
            inputs: the arrays of a batch; finite before a sequence without a step.

        Returns:
            The `States`.
        """

    def backward(
        self, spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights
    ) -> Backward:
        """The gradients, (9)-(13) with (16) and (17).

        Args:
            spec: the static part of the call.
            residuals: of the forward pass.
            cotangents: of its results.
            sums: of the weight gradients so far, to which those of this call are added.

        Returns:
            The `Backward`.
        """


class Passes(NamedTuple):
    """Both passes of a backend, and the scan that is used around them."""

    forward: Callable[[Spec, Weights, Inputs], States]
    backward: Callable[[Spec, Residuals, Cotangents, Weights], Backward]
    scan: Callable[..., tuple[Any, Any]]
