"""Parts of the kernel that are wrong in one place, each of which goes in by `kernel.Spec`.

`Loops` is a backend of its own: both passes in plain loops over chunks and steps, for any cell.
Without a fault it is right. A fault is another formula at the place where it is named.
"""

from dataclasses import dataclass, fields, replace

import jax
import jax.numpy as jnp
from cells import CELLS
from jax.custom_batching import custom_vmap

from jrnn import kernel
from jrnn.cells import StepCotangents, UncheckedCell
from jrnn.kernel.masking import Masking
from jrnn.kernel.reference import Reference
from jrnn.kernel.types import Backward, BackwardCarry, Batching, Constants, States, Weights

# --- backends ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loops:
    """Plain loops over chunks of K steps, with a fault or without."""

    fault: str = ""
    K: int = 3

    def forward(self, spec, weights, inputs):
        states, after = inputs.start, []
        for t in range(len(inputs.steps.xs)):
            e = self.entering(inputs, states, t)
            at = self.at(inputs, t)
            found = spec.cell.step(self.blocks(spec, weights, inputs, e, t), e, *at)
            valid = self.valid(inputs, t)
            states = tuple(jnp.where(valid, s, s_0) for s, s_0 in zip(found, states, strict=True))
            after.append(states)
        hs = [
            jnp.where(self.valid(inputs, t), self.output(spec, s), 0) for t, s in enumerate(after)
        ]
        kept = [jnp.stack(s) for s in zip(*after, strict=True)]
        return States(states, jnp.stack(hs), tuple(kept[spec.cell.output is None :]))

    def backward(self, spec, residuals, cotangents, sums):
        weights, inputs, hs, kept = residuals
        kept = (hs, *kept) if spec.cell.output is None else kept
        T, of_xs = len(hs), inputs.steps.xs.ndim == 3
        after = [tuple(s[t] for s in kept) for t in range(T)]
        before = [inputs.start, *after[:-1]]
        dw = jax.tree.map(lambda s: s.swapaxes(0, -1), sums)
        if not of_xs and sums.w_ih is not None:
            dw = dw._replace(w_ih=sums.w_ih)  # that of ids is not transposed
        c = tuple(jnp.zeros_like(d) for d in cotangents.last)
        c = c if self.has("cotangent of h_last dropped") else cotangents.last
        floats = floating(inputs.constants.data)
        once = jax.tree.map(jnp.zeros_like, inputs.constants._replace(data=floats))
        dxs, ddata = [jnp.zeros_like(inputs.steps.xs[0])] * T, [{}] * T
        chunks = [list(range(T))[t : t + self.K] for t in range(0, T, self.K)]
        if self.has("rest of the sequence dropped"):
            chunks = chunks[:-1]
        if not self.has("chunks in the order of time", "Jacobians in the order of time"):
            chunks = chunks[::-1]
        for steps in chunks:
            deltas = {}
            for t in steps if self.has("Jacobians in the order of time") else steps[::-1]:
                c, deltas[t], once, ddata[t] = self.back(
                    spec, weights, inputs, cotangents, before[t], after[t], c, once, t
                )
            if self.has("link cut at the border of a chunk"):
                c = tuple(jnp.zeros_like(d) for d in c)
            if self.has("link 0.1 % weak at the border of a chunk"):
                c = tuple(0.999 * d for d in c)
            if self.has("sums forgotten at the border of a chunk"):
                dw = jax.tree.map(jnp.zeros_like, dw)
            for n, t in enumerate(steps):
                h = self.operand(spec, inputs, after, t, n)
                of = deltas.get(t - 1) if self.has("deltas one step late") else deltas[t]
                dw = dw if of is None else self.weights(spec, inputs, dw, of, h, t)
                later = deltas.get(t - 1, deltas[t]) if self.has("dx one step late") else deltas[t]
                dxs[t] = self.dx(spec, weights, later, t, T)
        if self.has("dh_0 zero"):
            c = tuple(jnp.zeros_like(d) for d in c)
        if self.has("dh_0 of no step is zero") and inputs.steps.valid is not None:
            c = tuple(jnp.where(self.valid(inputs, 0), d, 0) for d in c)
        w_ih = dw.w_ih if not of_xs or dw.w_ih is None else dw.w_ih.T
        floats = floating(inputs.steps.data)
        return Backward(
            BackwardCarry(c, once),
            Weights(w_ih, dw.w_hh.T, dw.b),
            jnp.stack(dxs) if of_xs else None,
            {k: jnp.stack([d[k] for d in ddata]) for k in floats},
        )

    def has(self, *faults):
        return self.fault in faults

    # --- a step, forwards ---

    def at(self, inputs, t):
        valid = self.valid(inputs, t)
        steps = {
            k: jnp.where(valid, x[t], jnp.zeros_like(x[t])) for k, x in inputs.steps.data.items()
        }
        return inputs.constants.unit, inputs.constants.data | steps

    def valid(self, inputs, t):
        valid = inputs.steps.valid
        return jnp.ones((1, 1), bool) if valid is None else valid[t][:, None]

    def reset(self, inputs, t):
        reset = inputs.steps.reset
        return jnp.zeros((1, 1), bool) if reset is None else reset[t][:, None]

    def entering(self, inputs, states, t):
        again = inputs.constants.reset_state or tuple(jnp.zeros_like(s) for s in states)
        reset = self.reset(inputs, t)
        return tuple(jnp.where(reset, h_r, s) for h_r, s in zip(again, states, strict=True))

    def output(self, spec, states):
        return states[0] if spec.cell.output is None else spec.cell.output(states)

    def mask(self, inputs):
        m = inputs.constants.recurrent_mask
        return 1.0 if m is None else m

    def blocks(self, spec, weights, inputs, e, t, of_padding=False):
        xs = inputs.steps.xs
        x = xs[t] if xs.ndim == 3 else jnp.eye(len(weights.w_ih))[xs[t]]
        x = x if of_padding else jnp.where(self.valid(inputs, t), x, 0)
        from_x = x if weights.w_ih is None else x @ weights.w_ih
        from_h = (self.mask(inputs) * self.output(spec, e)) @ weights.w_hh
        blocks = [jnp.zeros_like(e[0])] * number_of_blocks(spec.cell)
        for of, product in ((spec.cell.x_blocks, from_x), (spec.cell.h_blocks, from_h)):
            for g, block in zip(of, jnp.split(product, len(of), -1), strict=True):
                blocks[g] = blocks[g] + block
        if weights.b is not None:
            parts = jnp.split(weights.b[None], number_of_blocks(spec.cell), -1)
            blocks = [a + b for a, b in zip(blocks, parts, strict=True)]
        return tuple(blocks)

    # --- a step, backwards ---

    def back(self, spec, weights, inputs, cotangents, before, after, c, once, t):
        """c_{t-1}, the deltas, the sums of what is given once, and the cotangents of the data."""
        cell, T, clip = spec.cell, len(cotangents.hs), spec.clip_delta or jnp.inf
        e = self.entering(inputs, before, t)
        valid, reset = self.valid(inputs, t), self.reset(inputs, t)
        dhs = cotangents.hs[t - 1 if self.has("cotangents of hs one step late") else t]
        if self.has("last cotangent of hs dropped") and t == T - 1:
            dhs = jnp.zeros_like(dhs)
        d = self.add_output(spec, c, after, dhs)
        if self.has("cotangent of h_last doubled") and t == T - 1:
            d = (d[0] + cotangents.last[0], *d[1:])
        if self.has("cut behind the step of a reset"):
            d = self.add_output(spec, [jnp.where(reset, 0, x) for x in c], after, dhs)
        if not self.has("the padding has a gradient"):
            d = tuple(jnp.where(valid, x, 0) for x in d)
        if self.has("clipped before the adjoint"):
            d = tuple(jnp.clip(x, -clip, clip) for x in d)
        of_padding = self.has("recomputation sees the padding")
        blocks = self.blocks(spec, weights, inputs, e, t, of_padding)
        unit, data = self.at(inputs, t)
        of = before if self.has("phi' of the step before") else after
        found = pull_back(cell, d, blocks, e, unit, data, of)
        deltas = d if self.has("phi' missing") else found.blocks
        if not self.has("nothing is clipped", "clipped before the adjoint"):
            deltas = tuple(jnp.clip(x, -clip, clip) for x in deltas)
        if self.has("deltas rounded to float32"):
            deltas = tuple(x.astype(jnp.float32).astype(x.dtype) for x in deltas)
        order = cell.h_blocks
        if self.has("deltas of other blocks to the steps before"):
            order = order[1:] + order[:1]
        delta = jnp.concatenate([deltas[g] for g in order], -1)
        w = weights.w_hh if self.has("w_hh not transposed") else weights.w_hh.T
        back = delta @ w
        back = 0.0 * back if self.has("link through time cut") else back
        back = 0.999 * back if self.has("link through time 0.1 % weak") else back
        m = 1.0 if self.has("the mask left out of the link") else self.mask(inputs)
        beside = found.before or (None,) * cell.states
        nothing = tuple(jnp.zeros_like(x) for x in c)
        through = self.add_output(spec, nothing, e, m * back)
        whole = tuple(x if y is None else x + y for x, y in zip(through, beside, strict=True))
        of_start, of_reset = whole, whole
        if self.has("beside the matmul nothing at dh_0") and t == 0:
            of_start = through
        if self.has("beside the matmul nothing at dh_r"):
            of_reset = through
        if self.has("dh_0 0.1 % large") and t == 0:
            of_start = tuple(1.001 * x for x in of_start)
        cut = reset & (t > 0) if self.has("dh_0 through a reset") else reset
        c = tuple(
            jnp.where(valid, jnp.where(cut, 0, x), y) for x, y in zip(of_start, c, strict=True)
        )
        return (
            c,
            deltas,
            self.given_once(once, found, inputs, of_reset, back, e, spec, t),
            {k: jnp.where(valid, x, 0) for k, x in (found.data or {}).items()},
        )

    def add_output(self, spec, c, states, dh):
        if spec.cell.output is None:
            return (c[0] + dh, *c[1:])
        more = jax.vjp(spec.cell.output, states)[1](dh)[0]
        return tuple(a + b for a, b in zip(c, more, strict=True))

    def given_once(self, once, found, inputs, of_reset, back, e, spec, t):
        """dh_r, dm and the gradients of unit and data."""
        again, mask, unit, data = once
        if again is not None and not self.has("no gradient of the reset state"):
            r = self.valid(inputs, t) & self.reset(inputs, t)
            by = 1.001 if self.has("dh_r 0.1 % large") else 1.0
            again = tuple(s + jnp.where(r, by * d, 0) for s, d in zip(again, of_reset, strict=True))
        if mask is not None and not self.has("no gradient of the mask"):
            mask = mask + back * self.output(spec, e)
        more = found.unit or {}
        if self.has("unit gradient of one step"):
            unit = {k: jnp.zeros_like(x) for k, x in unit.items()}
        if self.has("unit gradient of one sequence"):
            more = {k: d.at[1:].set(0) for k, d in more.items()}
        unit = {k: x + more[k] for k, x in unit.items()}
        data = {k: x + found.data[k] for k, x in data.items()}
        return Constants(again, mask, unit, data)

    # --- weights ---

    def operand(self, spec, inputs, after, t, n):
        """m * h_e of step t, the n-th of its chunk, in dw_hh."""
        states = after[t - 1] if t else inputs.start
        if self.has("h_0 before every chunk") and n == 0:
            states = inputs.start
        if self.has("h_t for h_{t-1} before a chunk") and n == 0:
            states = after[t]
        if self.has("h_t for h_{t-1} in dw_hh"):
            states = after[t]
        if self.has("h_{t-2} for h_{t-1} in dw_hh"):
            states = after[t - 2] if t > 1 else inputs.start
        if self.has("h_0 left out of dw_hh") and t == 0:
            states = tuple(jnp.zeros_like(s) for s in states)
        if self.has("zero for the reset state in dw_hh"):
            inputs = inputs._replace(constants=inputs.constants._replace(reset_state=None))
        if not self.has("the state before a reset in dw_hh"):
            late = self.has("a reset one step late in dw_hh")
            states = self.entering(inputs, states, t - 1 if late else t)
        return self.mask(inputs) * self.output(spec, states)

    def weights(self, spec, inputs, dw, deltas, h, t):
        """(11), (12) of one step."""
        cell, xs = spec.cell, inputs.steps.xs
        if self.has("deltas of the examples shifted"):
            deltas = tuple(jnp.roll(d, 1, 0) for d in deltas)
        of_x = jnp.concatenate([deltas[g] for g in cell.x_blocks], -1)
        order = (
            cell.h_blocks[::-1] if self.has("blocks of dw_hh in another order") else cell.h_blocks
        )
        of_h = jnp.concatenate([deltas[g] for g in order], -1)
        x = xs[t] if xs.ndim == 3 else jnp.eye(len(dw.w_ih))[xs[t]]
        x = jnp.where(self.valid(inputs, t), x, 0)
        x = jnp.roll(x, 1, 0) if self.has("x of the examples shifted") else x
        total = jnp.mean if self.has("mean over the batch for the sum") else jnp.sum
        w_ih, w_hh, b = dw
        if w_ih is not None:
            share = 0.5 if self.has("dw_ih halved") else 1.0
            w_ih = w_ih + total(x[:, :, None] * (share * of_x[:, None, :]), 0)
        outer = h[:, :, None] * of_h[:, None, :]
        if self.has("one entry of dw_hh zero"):
            outer = outer.at[:, 1, 2].set(0)
        w_hh = w_hh + total(outer, 0)
        if b is not None:
            by = 1.001 if self.has("db 0.1 % large") else 1.0
            b = b + total(by * jnp.concatenate(deltas, -1), 0)
        return Weights(w_ih, w_hh, b)

    def dx(self, spec, weights, deltas, t, T):
        order = spec.cell.x_blocks
        order = order[::-1] if self.has("blocks of dx in another order") else order
        of_x = jnp.concatenate([deltas[g] for g in order], -1)
        if self.has("dx zero at the last step") and t == T - 1:
            of_x = 0.0 * of_x
        return of_x if weights.w_ih is None else of_x @ weights.w_ih.T


def number_of_blocks(cell):
    return 1 + max(*cell.x_blocks, *cell.h_blocks)


def floating(data):
    return {k: x for k, x in data.items() if jnp.issubdtype(x.dtype, jnp.floating)}


def pull_back(cell, d_after, blocks, before, unit, data, after):
    """The adjoint of a step; that of JAX where the cell has none."""
    if cell.adjoint is not None:
        return cell.adjoint(d_after, blocks, before, unit, data, after)
    step = lambda blocks, before, unit, floats: cell.step(blocks, before, unit, data | floats)
    return StepCotangents(*jax.vjp(step, blocks, before, unit, floating(data))[1](d_after))


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


# The backend's faults of an Elman network, without lengths and resets.
ELMAN = (
    "w_hh not transposed",
    "phi' missing",
    "phi' of the step before",
    "link through time cut",
    "link through time 0.1 % weak",
    "Jacobians in the order of time",
    "cotangent of h_last dropped",
    "cotangent of h_last doubled",
    "cotangents of hs one step late",
    "last cotangent of hs dropped",
    "mean over the batch for the sum",
    "deltas rounded to float32",
    "deltas one step late",
    "deltas of the examples shifted",
    "dh_0 zero",
    "dh_0 0.1 % large",
    "db 0.1 % large",
    "one entry of dw_hh zero",
    "dw_ih halved",
    "dx zero at the last step",
    "dx one step late",
    "link cut at the border of a chunk",
    "link 0.1 % weak at the border of a chunk",
    "chunks in the order of time",
    "rest of the sequence dropped",
    "sums forgotten at the border of a chunk",
    "x of the examples shifted",
    "h_0 before every chunk",
    "h_t for h_{t-1} before a chunk",
    "h_t for h_{t-1} in dw_hh",
    "h_0 left out of dw_hh",
    "h_{t-2} for h_{t-1} in dw_hh",
)
# With lengths, resets, reset states, a recurrent mask and clipping.
SEQUENCES = (
    "cut behind the step of a reset",
    "the padding has a gradient",
    "no gradient of the reset state",
    "dh_r 0.1 % large",
    "no gradient of the mask",
    "the mask left out of the link",
    "nothing is clipped",
    "the state before a reset in dw_hh",
    "zero for the reset state in dw_hh",
    "a reset one step late in dw_hh",
    "dh_0 through a reset",
    "dh_0 of no step is zero",
)
# Of cells with several blocks, several states or parameters for each unit: the fault by the cell.
BLOCKS_AND_STATES = {
    "deltas of other blocks to the steps before": "lstm",
    "blocks of dw_hh in another order": "gated",
    "blocks of dx in another order": "gated",
    "beside the matmul nothing at dh_0": "lstm",
    "beside the matmul nothing at dh_r": "leaky",
    "clipped before the adjoint": "lstm",
    "recomputation sees the padding": "leaky",
    "unit gradient of one step": "rate",
    "unit gradient of one sequence": "leaky",
}


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


MASKING = {
    StatesCrossResets: "tanh",
    ZeroForTheResetState: "tanh",
    TheFirstStateAloneIsReset: "lstm",
    ThePaddingMovesTheStates: "tanh",
    ThePaddingMovesTheSecondState: "lstm",
    TheStatesAreZeroInThePadding: "tanh",
    ThePaddingIsSeen: "tanh",
    CotangentsCrossResets: "tanh",
    CotangentsOfTheSecondStateCrossResets: "lstm",
    CotangentsOfTheLastStatesAreLost: "tanh",
    NoGradientOfTheResetState: "tanh",
    TheResetStateGetsWhatPassesTheOtherSteps: "tanh",
}


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


# --- cells ---------------------------------------------------------------------------------------


def _elman(adjoint):
    def wrong(d_after, blocks, before, unit, data, after):
        return StepCotangents((adjoint(after[0]) * d_after[0],))

    step = lambda blocks, before, unit, data: (jnp.tanh(blocks[0]),)
    return UncheckedCell("elman", step, wrong, adjoint_reads_blocks=False)


def _wrong(name, change):
    """A cell with another adjoint: `change(found, d_after, blocks, before, unit, data, after)`."""
    cell = unchecked(CELLS[name])

    def adjoint(*given):
        return change(cell.adjoint(*given), *given)

    return replace(cell, adjoint=adjoint)


def unchecked(cell):
    """As the package's own are, since `Cell` refuses a wrong adjoint."""
    return UncheckedCell(**{field.name: getattr(cell, field.name) for field in fields(cell)})


def _lstm_without_o(found, d, blocks, before, unit, data, after):
    """q without the output gate."""
    right = d[0] * jax.nn.sigmoid(blocks[3]) * (1 - jnp.tanh(after[1]) ** 2)
    wrong = d[0] * (1 - jnp.tanh(after[1]) ** 2)
    scale = (d[1] + wrong) / (d[1] + right)
    i, f, g, o = found.blocks
    return StepCotangents((i * scale, f * scale, g * scale, o), (None, found.before[1] * scale))


def _lstm_c_after(found, d, blocks, before, unit, data, after):
    """c_t for c_{t-1} in the delta of the forget gate."""
    i, _, g, o = found.blocks
    gate = jax.nn.sigmoid(blocks[1])
    return found._replace(blocks=(i, found.before[1] * after[1] * (1 - gate), g, o))


def _lstm_order(found, *given):
    i, f, g, o = found.blocks
    return found._replace(blocks=(i, g, f, o))


CELL_FAULTS = {
    "phi' of tanh as 1 - h": ("tanh", _elman(lambda h: 1 - h)),
    "phi' of another activation": ("tanh", _elman(lambda h: h * (1 - h))),
    "the output gate left out of dc": ("lstm", _wrong("lstm", _lstm_without_o)),
    "c_t for c_{t-1} in delta_f": ("lstm", _wrong("lstm", _lstm_c_after)),
    "delta_f and delta_g exchanged": ("lstm", _wrong("lstm", _lstm_order)),
    "nothing beside the matmul to c": (
        "lstm",
        _wrong("lstm", lambda found, *_: found._replace(before=None)),
    ),
    "no gradient of the leak": (
        "leaky",
        _wrong("leaky", lambda found, *_: found._replace(unit=None)),
    ),
    "the leak's gradient from the state after": (
        "leaky",
        _wrong(
            "leaky",
            lambda found, d, blocks, before, unit, data, after: found._replace(
                unit={"alpha": (jnp.tanh(blocks[0]) - after[0]) * d[0]}
            ),
        ),
    ),
    "the output of a rate network without phi'": (
        "rate",
        replace(
            unchecked(CELLS["rate"]),
            output=lambda states: (
                states[0] + jax.lax.stop_gradient(jnp.tanh(states[0]) - states[0])
            ),
        ),
    ),
    "no gradient of the data": (
        "zoneout",
        _wrong("zoneout", lambda found, *_: found._replace(data=None)),
    ),
}
