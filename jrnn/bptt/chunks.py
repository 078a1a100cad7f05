"""The backward pass of a batch, chunk by chunk of time.

From the last chunk of K steps to the first: step back through the chunk, reading h_t and dhs_t
where they stand, then add the chunk's part of (11) and (12). The buffers of a chunk stay in the
cache, and below the size from which the C library returns memory to the system after every call;
nothing of size T*B*H exists beside the states and their cotangent. K only has to be large enough
for the matmuls.

A loop that writes into a buffer is differentiated badly, so this one is not: where JAX
differentiates the rule once more, it is given the plain loops of `plain.py` in its place.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import are_ids
from jrnn.bptt import plain
from jrnn.bptt.gradients import (
    Backward,
    Residuals,
    Sums,
    add_weight_gradients,
    input_gradients,
    operands,
)
from jrnn.bptt.inputs import Links, links, states_entering
from jrnn.bptt.loops import empty, floats, mapped_in_front, over_time, put, row, rows
from jrnn.bptt.mapped import Results
from jrnn.bptt.schedule import Schedule, by_schedule
from jrnn.bptt.step import Cotangents, Recurrence


class Given(NamedTuple):
    """What the backward pass is given beside the residuals."""

    dhs: jax.Array
    links: Links
    dh_last: jax.Array


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def backward(
    recurrence: Recurrence, residuals: Residuals, cotangents: Results, sums: Sums
) -> Backward:
    """(9)-(13), of a batch."""
    pass_ = partial(_scheduled, recurrence)
    xs, h0 = residuals.inputs[:2]
    return by_schedule(pass_, recurrence.schedule, xs, h0, (residuals, cotangents, sums))


@backward.defjvp
def _backward_jvp(recurrence: Recurrence, primals: Any, tangents: Any) -> Any:
    def plainly(residuals: Residuals, cotangents: Results, sums: Sums) -> Backward:
        return mapped_in_front(plain.backward(recurrence, residuals, cotangents, sums))

    return jax.jvp(plainly, primals, tangents)


@partial(jax.jit, static_argnums=(0, 1), inline=True)
def _scheduled(
    recurrence: Recurrence,
    schedule: Schedule,
    residuals: Residuals,
    cotangents: Results,
    sums: Sums,
) -> Backward:
    params, (xs, _, marks, entry), _ = residuals
    dh_last, dhs = cotangents
    given = Given(dhs, links(marks), dh_last)
    w_hh_transposed = recurrence.rounded(params.w_hh.T)  # once, not at every step

    def chunk(start: Any, K: int, state: tuple[Cotangents, Sums, jax.Array | None]) -> Any:
        c, sums, dxs = state
        with jax.named_scope("rnn_backward"):
            arguments = (recurrence, schedule, w_hh_transposed, residuals, given)
            c, deltas = _step_back(*arguments, start, K, c)
        with jax.named_scope("rnn_weight_gradients"):
            x, states = operands(residuals, start, K)
            sums = add_weight_gradients(recurrence, sums, deltas, x, states)
            if dxs is not None:
                dxs = put(dxs, input_gradients(recurrence, deltas, params.w_ih), start)
        return c, sums, dxs

    dxs = None if are_ids(xs) else empty(xs.shape, xs)
    c_T = Cotangents(dh_last, jax.tree.map(jnp.zeros_like, entry))
    state = c_T, sums, dxs
    c_0, sums, dxs = over_time(len(xs), schedule.backward, chunk, state, reverse=True)
    return c_0, sums, dxs if dxs is None else floats(dxs)


def _step_back(
    recurrence: Recurrence,
    schedule: Schedule,
    w_hh_transposed: jax.Array,
    residuals: Residuals,
    given: Given,
    start: Any,
    K: int,
    c: Cotangents,
) -> tuple[Cotangents, jax.Array]:
    """(9) from step start + K - 1 to step start: c before them, and the deltas [H, K, B]."""
    _, inputs, hs = residuals
    constant = w_hh_transposed, inputs.entry, given.dh_last

    def block(k: Any, u: int, state: tuple[Cotangents, jax.Array]) -> Any:
        c, deltas = state
        t = start + k
        dhs, at, h = schedule.read(rows((given.dhs, given.links, hs), t, u))
        before = states_entering(inputs, hs, t, u)  # compiled away for a cell that reads none
        found = []
        for j in reversed(range(u)):
            given_t = row((dhs, at, before, h), j)
            c, delta_t = recurrence.step_back(*constant, c, *given_t)
            found.append(recurrence.rounded(delta_t).T)
        # In the order they are computed in, then turned around: a TPU writes them as it goes.
        return c, put(deltas, lax.rev(jnp.stack(found, 1), (1,)), k, axis=1)

    B, H = c.h.shape
    state = (c, empty((H, K, B), recurrence.rounded(c.h)))
    c, deltas = over_time(K, schedule.block, block, state, reverse=True)
    return c, lax.optimization_barrier(floats(deltas))  # or a single step is transposed again
