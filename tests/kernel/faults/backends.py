"""A backend that is wrong in one place.

It holds all its faults: another formula each, at the place where it is named. Which one acts is
data, as with the cells, so one program is compiled for all faults; without one it is right.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from cells import parts_of
from jax import lax

from faults.names import FAULTS
from jrnn.cells import StepCotangents, UncheckedCell
from jrnn.kernel.reference import Reference
from jrnn.kernel.types import Backward, BackwardCarry, Constants, Weights


def with_number(cell):
    """The cell, which does not read `data["fault"]`, the number of the fault of the backend."""
    return UncheckedCell(**parts_of(cell) | {"data": (*cell.data, "fault")})


@dataclass(frozen=True)
class Loops(Reference):
    """The backward pass step by step, in chunks of K steps that share a sum."""

    K: int = 3

    def backward(self, spec, residuals, cotangents, sums):
        return Pass(spec, residuals, cotangents, self.K).run(sums)


class Pass:
    """A backward pass of `Loops`."""

    def __init__(self, spec, residuals, cotangents, K):
        self.spec, self.cell, self.K = spec, spec.cell, K
        self.weights, self.inputs, hs, kept = residuals
        self.last, self.dhs = cotangents
        self.start, self.constants = self.inputs.start, self.inputs.constants
        self.after = (hs, *kept) if self.cell.output is None else kept
        self.before = tuple(
            jnp.concatenate([s_0[None], s[:-1]])
            for s_0, s in zip(self.start, self.after, strict=True)
        )
        T, B, H = hs.shape
        self.t, self.H, self.are_ids = jnp.arange(T), H, self.inputs.steps.xs.ndim == 2
        steps, no = self.inputs.steps, jnp.zeros((T, B), bool)
        self.valid = (~no if steps.valid is None else steps.valid)[..., None]
        self.reset = (no if steps.reset is None else steps.reset)[..., None]
        m = self.constants.recurrent_mask
        self.mask = jnp.ones((B, H)) if m is None else m
        self.clip = jnp.inf if spec.clip_delta is None else spec.clip_delta
        self.number = self.constants.data["fault"][0, 0]

    def has(self, fault):
        return self.number == 1 + FAULTS.index(fault)

    def pick(self, fault, wrong, right):
        """What is wrong with the fault, else what is right."""
        has = self.has(fault)
        return jax.tree.map(lambda x, y: jnp.where(has, x, y), wrong, right)

    def run(self, sums):
        """All gradients."""
        T, K = len(self.t), self.K
        order = self.t[::-1]
        chunks = jnp.array([t for n in range(0, T, K) for t in reversed(range(T)[n : n + K])])
        order = self.pick("chunks in the order of time", chunks, order)
        order = self.pick("Jacobians in the order of time", self.t, order)
        c = self.pick("cotangent of h_last dropped", zeros(self.last), self.last)
        once = self.constants._replace(data=floating(self.constants.data))
        (c, once), (deltas, ddata) = lax.scan(self.step, (c, zeros(once)), order)
        deltas, ddata = jax.tree.map(lambda x: jnp.zeros_like(x).at[order].set(x), (deltas, ddata))
        c = self.pick("dh_0 zero", zeros(c), c)
        dw, dxs = self.weight_gradients(sums, deltas)
        return Backward(BackwardCarry(c, once), dw, dxs, ddata)

    # --- a step ---

    def step(self, carry, t):
        """c_{t-1}, the sums of what is given once; the deltas and the cotangents of the data."""
        c, once = carry
        now = self.back(c, once, t)
        dropped = self.has("rest of the sequence dropped") & (t >= len(self.t) // self.K * self.K)
        carry, found = jax.tree.map(
            lambda x, y: jnp.where(dropped, x, y), (carry, zeros(now[1])), now
        )
        c, border = carry[0], t % self.K == 0
        by = self.pick("link cut at the border of a chunk", 0.0, 1.0)
        by = self.pick("link 0.1 % weak at the border of a chunk", 0.999, by)
        return (tuple(jnp.where(border, by * d, d) for d in c), carry[1]), found

    def back(self, c, once, t):
        at = lambda tree: jax.tree.map(lambda x: x[t], tree)
        before, after, valid, reset = at((self.before, self.after, self.valid, self.reset))
        e, data = self.entering(before, reset), self.data_of(t)
        blocks = self.blocks(e, t, valid)
        d = self.of_outputs(c, after, t, reset)
        inside = tuple(jnp.where(valid, x, 0) for x in d)
        d = self.pick("the padding has a gradient", d, inside)
        clipped = tuple(jnp.clip(x, -self.clip, self.clip) for x in d)
        d = self.pick("clipped before the adjoint", clipped, d)
        of = self.pick("phi' of the step before", before, after)
        found = pull_back(self.cell, d, blocks, e, self.constants.unit, data, of)
        deltas = self.pick("phi' missing", (d[0],) * len(blocks), found.blocks)
        clipped = tuple(jnp.clip(x, -self.clip, self.clip) for x in deltas)
        unclipped = self.has("nothing is clipped") | self.has("clipped before the adjoint")
        deltas = tuple(jnp.where(unclipped, x, y) for x, y in zip(deltas, clipped, strict=True))
        rounded = tuple(x.astype(jnp.float32).astype(x.dtype) for x in deltas)
        deltas = self.pick("deltas rounded to float32", rounded, deltas)
        back = self.through_matmul(deltas)
        of_start, of_reset = self.to_states_before(found.before, back, e, t)
        cut = reset & ~(self.has("dh_0 through a reset") & (t == 0))
        arriving = zip(of_start, c, strict=True)
        c = tuple(jnp.where(valid, jnp.where(cut, 0, x), y) for x, y in arriving)
        once = self.given_once(once, found, of_reset, back, e, t)
        d_data = {k: jnp.where(valid, found.data[k], 0) for k in floating(self.inputs.steps.data)}
        return (c, once), (deltas, d_data)

    def entering(self, states, reset):
        again = self.constants.reset_state or zeros(states)
        return tuple(jnp.where(reset, h_r, s) for h_r, s in zip(again, states, strict=True))

    def data_of(self, t):
        valid = self.valid[t]
        steps = self.inputs.steps.data
        inside = {k: jnp.where(valid, x[t], jnp.zeros_like(x[t])) for k, x in steps.items()}
        return self.constants.data | inside

    def xs_of(self, w_ih):
        """The inputs, also of the padding."""
        xs = self.inputs.steps.xs
        return jnp.eye(len(w_ih))[xs] if self.are_ids else xs

    def blocks(self, e, t, valid):
        w_ih, w_hh, b = self.weights
        x = self.xs_of(w_ih)[t]
        x = self.pick("recomputation sees the padding", x, jnp.where(valid, x, 0))
        from_x = x if w_ih is None else x @ w_ih
        from_h = (self.mask * self.output(e)) @ w_hh
        G = number_of_blocks(self.cell)
        blocks = [jnp.zeros_like(e[0])] * G
        for of, product in ((self.cell.x_blocks, from_x), (self.cell.h_blocks, from_h)):
            for g, block in zip(of, jnp.split(product, len(of), -1), strict=True):
                blocks[g] = blocks[g] + block
        if b is not None:
            b = self.pick("recomputation without the bias", jnp.zeros_like(b), b)
            blocks = [a + b for a, b in zip(blocks, jnp.split(b[None], G, -1), strict=True)]
        return tuple(blocks)

    def of_outputs(self, c, after, t, reset):
        """The cotangents of the states after the step, as later steps and the output send them."""
        dhs = self.pick("cotangents of hs one step late", self.dhs[t - 1], self.dhs[t])
        last = t == len(self.t) - 1
        lost = self.has("last cotangent of hs dropped") & last
        doubled = self.has("cotangent of h_last doubled") & last
        cut = self.has("cut behind the step of a reset") & reset
        c = tuple(jnp.where(cut, 0, d) for d in c)
        d = self.add_output(c, after, jnp.where(lost, 0, dhs))
        return (d[0] + jnp.where(doubled, self.last[0], 0), *d[1:])

    def through_matmul(self, deltas):
        """delta_t w_hh^T."""
        order, w = self.cell.h_blocks, self.weights.w_hh
        of = lambda order: jnp.concatenate([deltas[g] for g in order], -1)
        other = of(order[1:] + order[:1])
        delta = self.pick("deltas of other blocks to the steps before", other, of(order))
        squares = jnp.split(w, len(order), -1)
        wrong = jnp.concatenate(squares)
        back = delta @ self.pick("w_hh not transposed", wrong, w.T)
        back = self.pick("link through time cut", 0.0 * back, back)
        return self.pick("link through time 0.1 % weak", 0.999 * back, back)

    def to_states_before(self, beside, back, e, t):
        """The cotangents of the states that enter the step, as dh_0 gets them, and as dh_r."""
        m = self.pick("the mask left out of the link", jnp.ones_like(back), self.mask)
        through = self.add_output(zeros(e), e, m * back)
        beside = tuple(
            jnp.zeros_like(x) if y is None else y
            for x, y in zip(through, beside or (None,) * len(through), strict=True)
        )
        beside = self.pick("beside the matmul nothing", zeros(beside), beside)
        masked = tuple(self.mask * d for d in beside)
        beside = self.pick("beside the matmul the mask", masked, beside)
        clipped = tuple(jnp.clip(d, -self.clip, self.clip) for d in beside)
        beside = self.pick("beside the matmul clipped", clipped, beside)
        whole = tuple(x + y for x, y in zip(through, beside, strict=True))
        of_reset = self.pick("beside the matmul nothing at dh_r", through, whole)
        first = t == 0
        lost = self.has("beside the matmul nothing at dh_0") & first
        of_start = tuple(jnp.where(lost, x, y) for x, y in zip(through, whole, strict=True))
        large = jnp.where(self.has("dh_0 0.1 % large") & first, 1.001, 1.0)
        return tuple(large * d for d in of_start), of_reset

    def add_output(self, c, states, dh):
        if self.cell.output is None:
            return (c[0] + dh, *c[1:])
        more = jax.vjp(self.cell.output, states)[1](dh)[0]
        return tuple(a + b for a, b in zip(c, more, strict=True))

    def output(self, states):
        return states[0] if self.cell.output is None else self.cell.output(states)

    def given_once(self, once, found, of_reset, back, e, t):
        """dh_r, dm and the gradients of unit and data."""
        again, mask, unit, data = once
        if again is not None:
            by = self.pick("dh_r 0.1 % large", 1.001, 1.0)
            by = self.pick("no gradient of the reset state", 0.0, by)
            r = self.valid[t] & self.reset[t]
            again = tuple(s + jnp.where(r, by * d, 0) for s, d in zip(again, of_reset, strict=True))
        if mask is not None:
            more = back * self.output(e)
            more = self.pick("gradient of the mask from the masked state", self.mask * more, more)
            mask = self.pick("no gradient of the mask", mask, mask + more)
        more = found.unit or {}
        unit = self.pick("unit gradient of one step", zeros(unit), unit)
        first = {k: d.at[1:].set(0) for k, d in more.items()}
        more = self.pick("unit gradient of one sequence", first, more)
        unit = {k: x + more[k] if k in more else x for k, x in unit.items()}
        data = {k: x + found.data[k] for k, x in data.items()}
        return Constants(again, mask, unit, data)

    # --- all steps ---

    def operand(self):
        """m * h_e of every step, in dw_hh."""
        t, start = self.t[:, None, None], tuple(s[None] for s in self.start)
        where = lambda at, of, states: tuple(
            jnp.where(at, x, y) for x, y in zip(of, states, strict=True)
        )
        first = t % self.K == 0
        earlier = tuple(
            jnp.concatenate([s_0, s[:-1]]) for s_0, s in zip(start, self.before, strict=True)
        )
        states = self.before
        states = where(self.has("h_0 before every chunk") & first, start, states)
        states = where(self.has("h_t for h_{t-1} before a chunk") & first, self.after, states)
        states = self.pick("h_t for h_{t-1} in dw_hh", self.after, states)
        states = self.pick("h_{t-2} for h_{t-1} in dw_hh", earlier, states)
        states = where(self.has("h_0 left out of dw_hh") & (t == 0), zeros(start), states)
        late = jnp.roll(self.reset, 1, 0)
        reset = self.pick("a reset one step late in dw_hh", late, self.reset)
        reset = reset & ~self.has("the state before a reset in dw_hh")
        again = self.constants.reset_state or zeros(self.start)
        again = self.pick("zero for the reset state in dw_hh", zeros(again), again)
        h = self.output(where(reset, tuple(s[None] for s in again), states))
        return self.pick("the mask left out of dw_hh", h, self.mask[None] * h)

    def weight_gradients(self, sums, deltas):
        """(11)-(13); deltas [T, B, H] of each block."""
        x_blocks, h_blocks, T = self.cell.x_blocks, self.cell.h_blocks, len(self.t)
        t, K = self.t[:, None, None], self.K
        of = lambda deltas, blocks: jnp.concatenate([deltas[g] for g in blocks], -1)
        late = tuple(jnp.where(t % K > 0, jnp.roll(d, 1, 0), 0) for d in deltas)
        used = self.pick("deltas one step late", late, deltas)
        shifted = tuple(jnp.roll(d, 1, 1) for d in used)
        used = self.pick("deltas of the examples shifted", shifted, used)
        first_chunk = tuple(jnp.where(t < K, d, 0) for d in used)
        used = self.pick("sums forgotten at the border of a chunk", first_chunk, used)
        mean = tuple(d / d.shape[1] for d in used)
        used = self.pick("mean over the batch for the sum", mean, used)
        of_h = self.pick(
            "blocks of dw_hh in another order", of(used, h_blocks[::-1]), of(used, h_blocks)
        )
        if len(x_blocks) == len(h_blocks):
            fault = "dw_hh from the blocks that x feeds"
            of_h = self.pick(fault, of(used, x_blocks), of_h)
        w_hh = jnp.einsum("tbh,tbk->hk", self.operand(), of_h)
        w_hh = self.pick("one entry of dw_hh zero", w_hh.at[2, 1].set(0), w_hh)
        w_ih = sums.w_ih
        if w_ih is not None:
            x = jnp.where(self.valid, self.xs_of(self.weights.w_ih), 0)
            x = self.pick("x of the examples shifted", jnp.roll(x, 1, 1), x)
            w_ih = jnp.einsum("tbi,tbk->ik", x, of(used, x_blocks))
            w_ih = self.pick("dw_ih halved", 0.5 * w_ih, w_ih)
        b = sums.b
        if b is not None:
            sums_of = [d.sum((0, 1)) for d in used]
            b = jnp.concatenate(sums_of)
            b = self.pick("db 0.1 % large", 1.001 * b, b)
            wrong = jnp.concatenate([*sums_of[:-1], sums_of[max(len(sums_of) - 2, 0)]])
            b = self.pick("db of a block from the block before it", wrong, b)
        if self.are_ids:
            return Weights(w_ih, w_hh, b), None
        late = tuple(jnp.where(t % K > 0, jnp.roll(d, 1, 0), d) for d in deltas)
        deltas = self.pick("dx one step late", late, deltas)
        dx = self.pick(
            "blocks of dx in another order", of(deltas, x_blocks[::-1]), of(deltas, x_blocks)
        )
        dx = jnp.where(self.has("dx zero at the last step") & (t == T - 1), 0, dx)
        dx = dx if self.weights.w_ih is None else dx @ self.weights.w_ih.T
        return Weights(w_ih, w_hh, b), dx


def zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def number_of_blocks(cell):
    return 1 + max(*cell.x_blocks, *cell.h_blocks)


def floating(data):
    return {k: x for k, x in data.items() if jnp.issubdtype(x.dtype, jnp.floating)}


def pull_back(cell, d_after, blocks, before, unit, data, after):
    """The adjoint of a step; that of JAX where the cell has none."""
    gates_of = (lambda blocks: blocks) if cell.gates is None else cell.gates
    if cell.adjoint is not None:
        return cell.adjoint(d_after, gates_of(blocks), before, unit, data, after)

    def step(blocks, before, unit, floats):
        return cell.step(gates_of(blocks), before, unit, data | floats)

    return StepCotangents(*jax.vjp(step, blocks, before, unit, floating(data))[1](d_after))
