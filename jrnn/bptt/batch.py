"""A batch of sequences: (1), (2) and (9)-(13) chunk by chunk of time, as one custom rule.

The states are computed in place (`states.py`). Backward, from the last chunk of K steps to the
first: step back through the chunk, reading h_t and dhs_t where they stand, then add the chunk's
part of (11) and (12), transposed:

    dw_hh^T += [delta_t of the chunk, as H x K*B] [h_{t-1} of the chunk, as K*B x H]

The step writes delta_t as a column, because XLA:CPU has no good matmul for a left operand that has
to be transposed: a slower one in float32, none at all in bfloat16. The buffers of a chunk stay in
the cache, and below the size from which the C library returns memory to the system after every
call; K only has to be large enough for the matmuls.

A loop that writes into a buffer is differentiated badly, so this one is not: where JAX
differentiates the rule once more, it is given the plain loops of `sequence.py` in its place.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import are_ids, at_least_float32, varying_alike
from jrnn.bptt import sequence
from jrnn.bptt.inputs import (
    Inputs,
    Links,
    Marks,
    inside,
    links,
    masked,
    only_one,
    reaching_h0,
    states_entering,
)
from jrnn.bptt.loops import empty, floats, mapped_in_front, over_time, put, row, rows
from jrnn.bptt.schedule import Schedule, by_schedule
from jrnn.bptt.states import in_place, scanned
from jrnn.bptt.step import Cotangents, Recurrence
from jrnn.types import RNNParams

Gradients = tuple[RNNParams, Inputs]  # None where there is none: of ids, of the marks


class Residuals(NamedTuple):
    """What the backward pass keeps of the forward pass."""

    params: RNNParams
    inputs: Inputs
    hs: jax.Array  # phi' is a function of h_t: the only array of size T*B*H


class Given(NamedTuple):
    """What the backward pass is given beside them."""

    dhs: jax.Array
    links: Links
    dh_last: jax.Array


class Sums(NamedTuple):
    """(11) and (12) so far; in at least float32, and transposed as the matmuls leave them."""

    w_ih: jax.Array  # [H, I]; for ids [I, H]
    w_hh: jax.Array  # [H, H]
    b_h: jax.Array | None  # [H]


def run(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs) for xs `[T, B, I]` or ids `[T, B]`, and states `[B, H]`."""
    if len(inputs.h0) == 1:  # the columns of [H, K, B] would be written number by number
        h_last, hs = sequence.run(recurrence, params, only_one(inputs))
        return h_last[None], hs[:, None]
    # Under `shard_map` a replicated weight becomes a copy per device out here, so that JAX, not
    # the rule, sums its gradient over the mesh.
    return _states(recurrence, *varying_alike((params, inputs)))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(
    recurrence: Recurrence, params: RNNParams, inputs: Inputs
) -> tuple[jax.Array, jax.Array]:
    return in_place(recurrence, params, inputs)


def _states_fwd(
    recurrence: Recurrence, params: RNNParams, inputs: Inputs
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    h_last, hs = in_place(recurrence, params, inputs)
    return (h_last, hs), Residuals(params, inputs, hs)


def _states_bwd(
    recurrence: Recurrence, residuals: Residuals, cotangents: tuple[jax.Array, jax.Array]
) -> Gradients:
    return _backward(recurrence, residuals, cotangents)


_states.defvjp(_states_fwd, _states_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _backward(
    recurrence: Recurrence, residuals: Residuals, cotangents: tuple[jax.Array, jax.Array]
) -> Gradients:
    pass_ = partial(_scheduled_backward, recurrence)
    xs, h0 = residuals.inputs[:2]
    return by_schedule(pass_, recurrence.schedule, xs, h0, (residuals, cotangents))


@partial(jax.jit, static_argnums=(0, 1), inline=True)
def _scheduled_backward(
    recurrence: Recurrence,
    schedule: Schedule,
    residuals: Residuals,
    cotangents: tuple[jax.Array, jax.Array],
) -> Gradients:
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
            x, states = _operands(residuals, start, K)
            sums = _add_weight_gradients(recurrence, sums, deltas, x, states)
            if dxs is not None:
                dxs = put(dxs, _input_gradients(recurrence, deltas, params.w_ih), start)
        return c, sums, dxs

    dxs = None if are_ids(xs) else empty(xs.shape, xs)
    c_T = Cotangents(dh_last, jax.tree.map(jnp.zeros_like, entry))
    state = (c_T, _no_sums(params, xs), dxs)
    (c_0, dentry), sums, dxs = over_time(len(xs), schedule.backward, chunk, state, reverse=True)
    dh0 = reaching_h0(marks, c_0, dh_last)
    sums = lax.optimization_barrier(sums)  # or XLA transposes the factors instead of the sums
    dparams = RNNParams(sums.w_ih if are_ids(xs) else sums.w_ih.T, sums.w_hh.T, sums.b_h)
    dparams = jax.tree.map(lambda d: d.astype(params.w_hh.dtype), dparams)
    return dparams, Inputs(dxs if dxs is None else floats(dxs), dh0, Marks(), dentry)


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


def _operands(residuals: Residuals, start: Any, K: int) -> tuple[jax.Array, jax.Array]:
    """x_t and m * e_{t-1} of K steps; what stands outside of a sequence need not be finite."""
    _, inputs, hs = residuals
    xs, marks = rows((inputs.xs, inputs.marks), start, K)
    states = masked(inputs.entry, states_entering(inputs, hs, start, K))
    return xs if are_ids(xs) else inside(marks, xs), states


def _no_sums(params: RNNParams, xs: jax.Array) -> Sums:
    like = RNNParams(params.w_ih if are_ids(xs) else params.w_ih.T, params.w_hh, params.b_h)
    return Sums(*jax.tree.map(lambda p: jnp.zeros_like(at_least_float32(p)), like))


def _add_weight_gradients(
    recurrence: Recurrence, sums: Sums, deltas: jax.Array, xs: jax.Array, states: jax.Array
) -> Sums:
    """(11), (12) of a chunk: deltas [H, K, B], xs [K, B, I] or ids [K, B], m * e_{t-1} [K, B, H]"""
    H, total = len(deltas), sums.w_hh.dtype
    matmul = partial(jnp.matmul, precision=recurrence.precision, preferred_element_type=total)
    deltas = deltas.reshape(H, -1)
    if are_ids(xs):
        rows = sums.w_ih.at[xs.reshape(-1)]
        w_ih = rows.add(deltas.T.astype(total), mode="drop", wrap_negative_indices=False)
    else:
        w_ih = sums.w_ih + matmul(deltas, recurrence.rounded(xs).reshape(-1, xs.shape[-1]))
    w_hh = sums.w_hh + matmul(deltas, states.reshape(-1, H))
    return Sums(w_ih, w_hh, None if sums.b_h is None else sums.b_h + deltas.sum(1, dtype=total))


def _input_gradients(recurrence: Recurrence, deltas: jax.Array, w_ih: jax.Array) -> jax.Array:
    """The dx_t of (13) for a chunk, [K, B, I]."""
    total = None if recurrence.compute_dtype is None else w_ih.dtype
    return lax.dot_general(
        deltas,
        recurrence.rounded(w_ih),
        (((0,), (1,)), ((), ())),
        precision=recurrence.precision,
        preferred_element_type=total,
    )


@_backward.defjvp
def _backward_jvp(recurrence: Recurrence, primals: Any, tangents: Any) -> Any:
    def gradients(residuals: Residuals, cotangents: tuple[jax.Array, jax.Array]) -> Gradients:
        params, inputs, _ = residuals  # not hs: the derivative goes to what it was computed from
        run = partial(sequence.run, recurrence, states=scanned)
        _, vjp = jax.vjp(run, params, inputs)
        dparams, (dxs, dh0, _, dentry) = vjp(cotangents)
        dxs = None if are_ids(inputs.xs) else dxs
        return mapped_in_front((dparams, Inputs(dxs, dh0, Marks(), dentry)))

    return jax.jvp(gradients, primals, tangents)
