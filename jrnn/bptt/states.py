"""The states, (1) and (2): all of time projected, then stepped through. Two ways of one thing.

`scanned` is a plain `lax.scan`, which JAX maps and differentiates well. `in_place` takes K steps at
a time: it projects them straight into their rows of hs, then writes each h_t over the projection
that it was computed from, so that nothing of size T*B*H exists beside hs.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jrnn.bptt.loops import empty, floats, over_time, put, row, rows, scan
from jrnn.bptt.schedule import Schedule, by_schedule
from jrnn.bptt.step import Recurrence, project_inputs
from jrnn.types import RNNParams


def scanned(
    recurrence: Recurrence, params: RNNParams, xs: jax.Array, h0: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs), for one sequence or a batch."""

    def step(
        w_hh: jax.Array, h_tm1: jax.Array, projected: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        h_t = recurrence.step(w_hh, projected, h_tm1)
        return h_t, recurrence.rounded(h_t)

    projected = project_inputs(params, xs, recurrence.matmul)
    return scan(step, False, recurrence.rounded(params.w_hh), h0, projected)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def in_place(
    recurrence: Recurrence, params: RNNParams, xs: jax.Array, h0: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs), for a batch."""
    with jax.named_scope("rnn_forward"):
        pass_ = partial(_in_place, recurrence)
        return by_schedule(pass_, recurrence.schedule, xs, (params, xs, h0))


@in_place.defjvp  # a loop that writes into a buffer is differentiated badly
def _in_place_jvp(recurrence: Recurrence, primals: Any, tangents: Any) -> Any:
    return jax.jvp(partial(scanned, recurrence), primals, tangents)


def in_place_alone(
    recurrence: Recurrence, params: RNNParams, xs: jax.Array, h0: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs), for one sequence that is not mapped."""
    h_last, hs = in_place(recurrence, params, xs[:, None], h0[None])
    return h_last[0], hs[:, 0]


@partial(jax.jit, static_argnums=(0, 1), inline=True)  # JAX traces a rule's function twice
def _in_place(
    recurrence: Recurrence, schedule: Schedule, params: RNNParams, xs: jax.Array, h0: jax.Array
) -> tuple[jax.Array, jax.Array]:
    w_hh = recurrence.rounded(params.w_hh)
    fits = recurrence.compute_dtype is None  # or hs is too narrow for the projection

    def chunk(start: Any, K: int, state: tuple[jax.Array, jax.Array]) -> Any:
        h, hs = state
        projected = project_inputs(params, rows(xs, start, K), recurrence.matmul)
        if fits:
            hs = put(hs, projected, start)

        def block(k: Any, u: int, state: tuple[jax.Array, jax.Array]) -> Any:
            h, hs = state
            here = floats(rows(hs, start + k, u)) if fits else rows(projected, k, u)
            here = schedule.read(here)
            states = []
            for j in range(u):
                h = recurrence.step(w_hh, row(here, j), h)
                states.append(recurrence.rounded(h))
            return h, put(hs, jnp.stack(states), start + k)

        return over_time(K, schedule.block, block, (h, hs))

    hs = empty((len(xs), *h0.shape), recurrence.rounded(h0))
    h_last, hs = over_time(len(xs), schedule.chunk, chunk, (h0, hs))
    return h_last, floats(hs)
