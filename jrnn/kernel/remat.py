"""The recurrence in the memory of sqrt(T) states: only those at the starts of segments are kept.

The backward pass computes the others once more (Chen et al., Training deep nets with sublinear
memory cost, 2016), not one segment after the other: the first state of every segment is known, so N
segments are computed side by side, as a batch of N*B sequences. On a CPU a step of four sequences
takes 1.7 times as long as a step of one, and more than four take time in proportion. With T / S
states kept, and N*S computed at a time, S = sqrt(T / N) makes both sqrt(T*N).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import rows
from jrnn.cells import Arrays
from jrnn.kernel import step
from jrnn.kernel.backends.xla import divisor_near
from jrnn.kernel.dispatch import OPEN, Shape, shape_of
from jrnn.kernel.types import (
    Backward,
    BackwardCarry,
    Constants,
    Cotangents,
    Inputs,
    Passes,
    Residuals,
    Spec,
    States,
    Steps,
    Weights,
)

SIDE_BY_SIDE = 4  # sequences


@dataclass(frozen=True)
class Remat:
    """Both passes, segment by segment, around those of a backend.

    Attributes:
        fixed: S and N of a call; None: by its shape.
    """

    fixed: tuple[int, int] | None = None

    def of_call(self, shape: Shape) -> "Remat":
        """With the segments of a call fixed: the backward pass reads those of the forward pass.

        In `vmap(grad)` the forward pass is one batch, and the backward pass is mapped.
        """
        return replace(self, fixed=self.sizes(shape))

    def sizes(self, shape: Shape) -> tuple[int, int]:
        """S, the steps in a segment, and N, the segments side by side."""
        if self.fixed is not None:
            return self.fixed
        T, B, *_ = shape
        N = max(SIDE_BY_SIDE // max(OPEN if B is None else B, 1), 1)
        S = divisor_near(T, math.isqrt(T // N))
        return S, min(N, T // S)

    def forward(self, passes: Passes, spec: Spec, weights: Weights, inputs: Inputs) -> States:
        """The states; those before the segments are kept, `[T / S, B, H]` each."""
        steps, start, constants = inputs
        take, (S, _) = slices_of(steps), self.sizes(shape_of(inputs))
        whole, rest = divmod(len(steps.xs), S)

        def segment(states: Arrays, n: jax.Array) -> Any:
            found = passes.forward(spec, weights, Inputs(take(n * S, S), states, constants))
            return found.last, (states, found.hs)

        last, (starts, hs) = passes.scan(segment, start, jnp.arange(whole))
        hs = lax.collapse(hs, 0, 2)
        if rest:
            starts = jax.tree.map(lambda s, s_0: jnp.concatenate([s, s_0[None]]), starts, last)
            found = passes.forward(spec, weights, Inputs(take(whole * S, rest), last, constants))
            last, hs = found.last, jnp.concatenate([hs, found.hs])
        return States(last, hs, starts)

    def backward(
        self,
        passes: Passes,
        spec: Spec,
        residuals: Residuals,
        cotangents: Cotangents,
        sums: Weights,
    ) -> Backward:
        """The gradients, N segments at a time, from the last to the first.

        The residuals are those of `forward`, without hs. The cotangents of hs are None if they are
        zero.
        """
        weights, inputs, _, starts = residuals
        (d_last, dhs), constants, take = cotangents, inputs.constants, slices_of(inputs.steps)
        S, N = self.sizes(shape_of(inputs))
        segments, rest = divmod(len(inputs.steps.xs), S)
        carry: Carry = (step.first_carry(constants, d_last), sums)
        behind: list[Any] = []

        def group(steps: int, count: int, carry: Carry, first: Any) -> tuple[Carry, Any]:
            """Back through `count` segments of `steps` steps."""
            some = rows(starts, first, count)
            call = passes, spec, weights, constants
            again = self.side_by_side(*call, take, first * S, steps, some)

            def segment(carry: Carry, given: tuple[jax.Array, Arrays, States]) -> Any:
                n, states, found = given
                own = Inputs(take(n * S, steps), states, constants)
                residuals = Residuals(weights, own, found.hs, found.kept)
                return self.one_segment(passes, spec, residuals, dhs, n * S, carry)

            each = first + jnp.arange(count), some, again
            carry, gradients = passes.scan(segment, carry, each, reverse=True)
            return carry, jax.tree.map(lambda x: lax.collapse(x, 0, 2), gradients)

        if rest:
            carry, gradients = group(rest, 1, carry, segments)
            behind = [gradients]
        if few := segments % N:
            carry, gradients = group(S, few, carry, segments - few)
            behind = [gradients, *behind]

        def nth(carry: Carry, n: jax.Array) -> Any:
            return group(S, N, carry, n * N)

        carry, gradients = passes.scan(nth, carry, jnp.arange(segments // N), reverse=True)
        gradients = jax.tree.map(lambda x: lax.collapse(x, 0, 2), gradients)
        dxs, ddata = jax.tree.map(lambda *x: jnp.concatenate(x), gradients, *behind)
        return Backward(*carry, dxs, ddata)

    def one_segment(
        self,
        passes: Passes,
        spec: Spec,
        residuals: Residuals,
        dhs: jax.Array | None,
        start: Any,
        carry: "Carry",
    ) -> tuple["Carry", Any]:
        """The carry for the segment before this one, and the gradients of the inputs of its steps.

        `start` is the first step of the segment, whose residuals these are; `dhs` has all steps, or
        is None for zero.
        """
        later, sums = carry
        hs = residuals.hs
        dhs = jnp.zeros_like(hs) if dhs is None else rows(dhs, start, len(hs))
        found = passes.backward(spec, residuals, Cotangents(later.states, dhs), sums)
        constants = jax.tree.map(jnp.add, later.constants, found.carry.constants)
        now = BackwardCarry(found.carry.states, constants)
        return (now, found.sums), (found.dxs, found.ddata)

    def side_by_side(
        self,
        passes: Passes,
        spec: Spec,
        weights: Weights,
        constants: Constants,
        take: "Take",
        start: Any,
        steps: int,
        starts: Arrays,
    ) -> States:
        """The `States` of N segments of so many steps, computed at once, with N in front.

        `start` is the first step of the first one; `starts`, the states before each, `[N, B, H]`.
        """
        N, B = starts[0].shape[:2]
        some = take(start, N * steps)
        some = jax.tree.map(lambda x: x.reshape(N, steps, *x.shape[1:]), some)
        constants = jax.tree.map(lambda x: jnp.broadcast_to(x, (N, *x.shape)), constants)
        folded = spec.batching.fold(Inputs(some, starts, constants))
        last, hs, kept = spec.batching.unfold(passes.forward(spec, weights, folded), (N, B))
        return States(last, *jax.tree.map(lambda x: x.swapaxes(0, 1), (hs, kept)))


Carry = tuple[BackwardCarry, Weights]  # of the backward loop, and the sums so far
Take = Callable[[Any, int], Steps]  # the first step and the number of steps


def slices_of(steps: Steps) -> Take:
    """A function of a first step and a number of steps that takes them from a batch.

    For one sequence, the axis B is removed before the loop over segments and added in it: with it,
    XLA copies all of xs to another layout (16,384 steps of 4 features, jaxlib 0.10.2: 262 of 367 KB
    of temporaries).
    """
    if not (isinstance(steps.xs.shape[1], int) and steps.xs.shape[1] == 1):
        return partial(rows, steps)
    alone = jax.tree.map(lambda x: x[:, 0], steps)
    return lambda start, count: jax.tree.map(lambda x: x[:, None], rows(alone, start, count))


def over_segments(
    segment: Callable[[Any, int, Any], tuple[Any, Any]], T: int, first: Any
) -> tuple[Any, Any, Any]:
    """A computation over time of which only the states between segments are kept.

    It serves the loss that is fused with the recurrence; JAX differentiates it. A segment takes
    its part of longer arrays by `start`: as inputs of the scan they would be copied, since the
    scan keeps the inputs of every step for its backward pass.

    Args:
        segment: `(start, steps, state) -> (state, outputs)`.
        T: steps.
        first: the state before them.

    Returns:
        The state after all, the outputs of the equal segments, stacked, and those of a shorter last
        one or None.
    """
    S = divisor_near(T, math.isqrt(T))
    whole, rest = divmod(T, S)
    remade = partial(jax.checkpoint, prevent_cse=False)  # a scan needs no guard against CSE

    @remade
    def nth(state: Any, n: jax.Array) -> tuple[Any, Any]:
        return segment(n * S, S, state)

    last, outputs = lax.scan(nth, first, jnp.arange(whole))
    if not rest:
        return last, outputs, None
    last, rest_outputs = remade(partial(segment, whole * S, rest))(last)
    return last, outputs, rest_outputs
