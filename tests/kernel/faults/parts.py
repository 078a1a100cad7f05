"""Maskings, segments and batchings, each wrong in one place."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jrnn import kernel
from jrnn.kernel.masking import Masking
from jrnn.kernel.reference import Reference
from jrnn.kernel.types import Batching

# --- masking -------------------------------------------------------------------------------------


class StatesCrossResets(Masking):
    def enter(self, reset_state, reset, states):
        return states


class ZeroForTheResetState(Masking):
    def enter(self, reset_state, reset, states):
        return Masking.enter(self, None, reset, states)


class TheFirstStateAloneIsReset(Masking):
    def enter(self, reset_state, reset, states):
        return (*Masking.enter(self, reset_state, reset, states)[:1], *states[1:])


class ThePaddingMovesTheStates(Masking):
    def hold(self, valid, after, before):
        return after


class ThePaddingMovesTheSecondState(Masking):
    def hold(self, valid, after, before):
        return (*Masking.hold(self, valid, after, before)[:1], *after[1:])


class TheStatesAreZeroInThePadding(Masking):
    def hold(self, valid, after, before):
        return tuple(self.inside(valid, s) for s in after)


class ThePaddingIsSeen(Masking):
    def inside(self, valid, x):
        return x


class CotangentsCrossResets(Masking):
    def cotangents(self, valid_next, reset_next, d_next, d_last):
        _, d_reset = Masking.cotangents(self, valid_next, reset_next, d_next, d_last)
        return self.hold(valid_next, d_next, d_last), d_reset


class CotangentsOfTheSecondStateCrossResets(Masking):
    def cotangents(self, valid_next, reset_next, d_next, d_last):
        c, d_reset = Masking.cotangents(self, valid_next, reset_next, d_next, d_last)
        return (c[0], *self.hold(valid_next, d_next, d_last)[1:]), d_reset


class CotangentsOfTheLastStatesAreLost(Masking):
    def cotangents(self, valid_next, reset_next, d_next, d_last):
        nothing = tuple(jnp.zeros_like(d) for d in d_last)
        return Masking.cotangents(self, valid_next, reset_next, d_next, nothing)


class NoGradientOfTheResetState(Masking):
    def cotangents(self, valid_next, reset_next, d_next, d_last):
        c, d_reset = Masking.cotangents(self, valid_next, reset_next, d_next, d_last)
        return c, d_reset and tuple(jnp.zeros_like(d) for d in d_reset)


class TheResetStateGetsWhatPassesTheOtherSteps(Masking):
    def cotangents(self, valid_next, reset_next, d_next, d_last):
        c, _ = Masking.cotangents(self, valid_next, reset_next, d_next, d_last)
        if reset_next is None:
            return c, None
        return c, tuple(self.inside(~reset_next, d) for d in d_next)


TWO_STATES = (
    TheFirstStateAloneIsReset,
    ThePaddingMovesTheSecondState,
    CotangentsOfTheSecondStateCrossResets,
)
ANY_STATES = (
    StatesCrossResets,
    ZeroForTheResetState,
    ThePaddingMovesTheStates,
    TheStatesAreZeroInThePadding,
    ThePaddingIsSeen,
    CotangentsCrossResets,
    CotangentsOfTheLastStatesAreLost,
    NoGradientOfTheResetState,
    TheResetStateGetsWhatPassesTheOtherSteps,
)
MASKING = [("tanh", fault) for fault in ANY_STATES] + [("lstm", fault) for fault in TWO_STATES]


# --- remat: segments of 2 steps, 2 side by side, then one, and a rest -----------------------------


@dataclass(frozen=True)
class Segments(kernel.Remat):
    def sizes(self, shape):
        return 2, 2


class FromTheStatesAfterTheSegments(Segments):
    def side_by_side(self, passes, spec, weights, constants, take, start, steps, starts):
        starts = tuple(jnp.roll(s, -1, 0) for s in starts)
        call = passes, spec, weights, constants, take
        return Segments.side_by_side(self, *call, start, steps, starts)


class TheSameStatesBeforeEverySegment(Segments):
    def side_by_side(self, passes, spec, weights, constants, take, start, steps, starts):
        starts = tuple(jnp.broadcast_to(s[:1], s.shape) for s in starts)
        call = passes, spec, weights, constants, take
        return Segments.side_by_side(self, *call, start, steps, starts)


class SegmentsInAnotherOrder(Segments):
    def side_by_side(self, *arguments):
        return jax.tree.map(lambda x: x[::-1], Segments.side_by_side(self, *arguments))


class StepsOfTheFirstSegments(Segments):
    def side_by_side(self, passes, spec, weights, constants, take, start, steps, starts):
        call = passes, spec, weights, constants, take
        return Segments.side_by_side(self, *call, 0, steps, starts)


class LinkCutBetweenSegments(Segments):
    def one_segment(self, passes, spec, residuals, dhs, start, carry):
        later, sums = carry
        cut = later._replace(states=tuple(jnp.zeros_like(d) for d in later.states))
        return Segments.one_segment(self, passes, spec, residuals, dhs, start, (cut, sums))


class SumsForgottenBetweenSegments(Segments):
    def one_segment(self, passes, spec, residuals, dhs, start, carry):
        later, sums = carry
        none = later, jax.tree.map(jnp.zeros_like, sums)
        return Segments.one_segment(self, passes, spec, residuals, dhs, start, none)


class ConstantsForgottenBetweenSegments(Segments):
    def one_segment(self, passes, spec, residuals, dhs, start, carry):
        later, sums = carry
        later = later._replace(constants=jax.tree.map(jnp.zeros_like, later.constants))
        return Segments.one_segment(self, passes, spec, residuals, dhs, start, (later, sums))


class CotangentsOfTheFirstSteps(Segments):
    def one_segment(self, passes, spec, residuals, dhs, start, carry):
        return Segments.one_segment(self, passes, spec, residuals, dhs, 0, carry)


REMAT = (
    FromTheStatesAfterTheSegments,
    TheSameStatesBeforeEverySegment,
    SegmentsInAnotherOrder,
    StepsOfTheFirstSegments,
    LinkCutBetweenSegments,
    SumsForgottenBetweenSegments,
    ConstantsForgottenBetweenSegments,
    CotangentsOfTheFirstSteps,
)


# --- batching ------------------------------------------------------------------------------------


class StepsForSequences(Batching):
    def fold(self, inputs):
        """[N, T, B, ...] read as [T, N, B, ...]."""
        right = Batching.fold(self, inputs)
        mixed = jax.tree.map(lambda x, y: x.reshape(y.shape), inputs.steps, right.steps)
        return right._replace(steps=mixed)


class StatesOfOthers(Batching):
    def fold(self, inputs):
        """Sequences of the same place beside each other, not those of the same batch."""
        right = Batching.fold(self, inputs)
        return right._replace(
            start=tuple(s.swapaxes(0, 1).reshape(-1, s.shape[-1]) for s in inputs.start)
        )


class ResultsOfOthers(Batching):
    def unfold(self, states, lead):
        """[N*B] read as [B, N]."""
        right = Batching.unfold(self, states, lead)
        hs = states.hs.reshape(len(states.hs), *lead[::-1], -1).swapaxes(1, len(lead))
        return right._replace(hs=hs)


BATCHING = (StepsForSequences, StatesOfOthers, ResultsOfOthers)


@dataclass(frozen=True)
class SummedOverExamples(Reference):
    """Its batching rule does what JAX does with a custom rule: it sums over the mapped axis."""

    def backward(self, spec, residuals, cotangents, sums):
        """The gradients of the weights are those of all examples together."""

        @custom_vmap
        def run(*arrays):
            return Reference().backward(spec, *arrays)

        @run.def_vmap
        def rule(size, mapped, *arrays):
            axes = jax.tree.map(lambda is_mapped: 0 if is_mapped else None, mapped)
            found = jax.vmap(lambda *a: Reference().backward(spec, *a), axes)(*arrays)
            together = jax.tree.map(lambda d: jnp.broadcast_to(d.sum(0), d.shape), found.sums)
            return found._replace(sums=together), jax.tree.map(lambda _: True, found)

        return run(residuals, cotangents, sums)
