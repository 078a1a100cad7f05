"""The states, (1), (2) and (15): projected, then stepped through. Two ways of one thing.

`scanned` is a plain `lax.scan`, which JAX maps and differentiates well. `in_place` takes K steps at
a time and writes each state straight into hs, so that nothing of size T*B*H exists beside it; one
by one, over the projection that it was computed from.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.bptt.inputs import Entry, Inputs, Marks, batch_of_one, inputs_inside, inside
from jrnn.bptt.loops import empty, floats, mapped_in_front, over_time, put, row, rows, scan
from jrnn.bptt.mapped import Results, in_one_batch
from jrnn.bptt.schedule import Schedule, by_schedule
from jrnn.bptt.step import Recurrence, project_inputs
from jrnn.types import RNNParams

State = tuple[jax.Array, jax.Array]  # h, hs so far


def scanned(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    """(h_last, hs), for one sequence or a batch."""

    def step(
        weights: tuple[RNNParams, Entry], h_tm1: jax.Array, given: tuple[jax.Array, Marks]
    ) -> tuple[jax.Array, jax.Array]:
        projected, marks = given
        h_t = recurrence.step(*weights, projected, marks, h_tm1)
        return h_t, recurrence.rounded(inside(marks, h_t))

    weights = params._replace(w_hh=recurrence.rounded(params.w_hh)), inputs.entry
    xs = inputs_inside(inputs.marks, inputs.xs)
    projected = project_inputs(params.w_ih, xs, recurrence.matmul)
    return scan(step, False, weights, inputs.h0, (projected, inputs.marks))


def in_place(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    """(h_last, hs), for one sequence or a batch."""
    return in_one_batch(_alone_or_batch, recurrence, params, inputs)


def _alone_or_batch(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    if inputs.h0.ndim == 2:
        return _of_batch(recurrence, params, inputs)
    h_last, hs = _of_batch(recurrence, params, batch_of_one(inputs))
    return h_last[0], hs[:, 0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_batch(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    with jax.named_scope("rnn_forward"):
        pass_ = partial(_in_place, recurrence)
        xs, h0 = inputs[:2]
        return by_schedule(pass_, recurrence.schedule, xs, h0, (params, inputs))


@_of_batch.defjvp  # a loop that writes into a buffer is differentiated badly
def _of_batch_jvp(recurrence: Recurrence, primals: Any, tangents: Any) -> Any:
    return jax.jvp(lambda *args: mapped_in_front(scanned(recurrence, *args)), primals, tangents)


@partial(jax.jit, static_argnums=(0, 1), inline=True)  # JAX traces a rule's function twice
def _in_place(
    recurrence: Recurrence, schedule: Schedule, params: RNNParams, inputs: Inputs
) -> Results:
    xs, h0, marks, entry = inputs
    weights = params._replace(w_hh=recurrence.rounded(params.w_hh))
    step = partial(recurrence.step, weights, entry)
    fits = recurrence.compute_dtype is None  # or hs is too narrow for the projection

    def output(h: jax.Array, marks_t: Marks) -> jax.Array:
        return recurrence.rounded(inside(marks_t, h))

    def chunk(start: Any, K: int, state: State) -> State:
        projected = project_inputs(params.w_ih, rows(xs, start, K), recurrence.matmul)
        if schedule.block == 1 and fits and K > 2:  # a loop of one step is none to XLA
            return over_projection(start, K, projected, state)

        def block(k: Any, u: int, state: State) -> State:
            h, hs = state
            given = schedule.read((rows(projected, k, u), rows(marks, start + k, u)))
            outputs = []
            for j in range(u):
                projected_t, marks_t = row(given, j)
                h = step(projected_t, marks_t, h)
                outputs.append(output(h, marks_t))
            return h, put(hs, jnp.stack(outputs), start + k)

        return over_time(K, schedule.block, block, state)

    def over_projection(start: Any, K: int, projected: jax.Array, state: State) -> State:
        """The rows of hs hold the projection first. Each step stores the state before its own.

        Stored at once, a state would go two ways, and where phi is cheap XLA computes it for each,
        reads the projection twice for that, and copies all of hs to write in between.
        """
        h, hs = state
        hs = put(hs, projected, start)
        h = step(row(projected, 0), row(rows(marks, start, 1), 0), h)

        def store(hs: jax.Array, h: jax.Array, t: Any) -> jax.Array:
            return put(hs, output(h, row(rows(marks, t, 1), 0))[None], t)

        def following(k: Any, state: State) -> State:
            h, hs = state
            t = start + k
            hs = store(hs, h, t - 1)
            projected_t, marks_t = row((floats(rows(hs, t, 1)), rows(marks, t, 1)), 0)
            return step(projected_t, marks_t, h), hs

        h, hs = lax.fori_loop(1, K, following, (h, hs))
        return h, store(hs, h, start + K - 1)

    hs = empty((len(xs), *h0.shape), recurrence.rounded(h0))
    h_last, hs = over_time(len(xs), schedule.forward, chunk, (h0, hs))
    return h_last, floats(hs)
