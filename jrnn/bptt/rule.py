"""The custom rule: the states forward, (9)-(13) backward, for one sequence or a batch."""

from functools import partial

import jax

from jrnn.arrays import varying_alike
from jrnn.bptt import chunks, plain
from jrnn.bptt.gradients import Gradients, Residuals
from jrnn.bptt.inputs import Inputs, only_one
from jrnn.bptt.mapped import Results, in_one_batch
from jrnn.bptt.states import in_place
from jrnn.bptt.step import Recurrence
from jrnn.types import RNNParams


def run(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    """(h_last, hs), for xs `[T, I]` or `[T, B, I]` or their ids, and states `[H]` or `[B, H]`."""
    # Under `shard_map` a replicated weight becomes a copy per device out here, so that JAX, not
    # the rule, sums its gradient over the mesh.
    return in_one_batch(_of_any_size, recurrence, *varying_alike((params, inputs)))


def _of_any_size(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    if inputs.h0.ndim == 2 and len(inputs.h0) == 1:
        h_last, hs = _states(recurrence, params, only_one(inputs))
        return h_last[None], hs[:, None]
    return _states(recurrence, params, inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    """(h_last, hs), by the rule."""
    return in_place(recurrence, params, inputs)


def _states_fwd(
    recurrence: Recurrence, params: RNNParams, inputs: Inputs
) -> tuple[Results, Residuals]:
    h_last, hs = in_place(recurrence, params, inputs)
    return (h_last, hs), Residuals(params, inputs, hs)


def _states_bwd(recurrence: Recurrence, residuals: Residuals, cotangents: Results) -> Gradients:
    alone = residuals.inputs.h0.ndim == 1  # in chunks [H, K, 1] it would write number by number
    form = plain if alone else chunks
    return form.gradients(recurrence, residuals, cotangents)


_states.defvjp(_states_fwd, _states_bwd)
