"""The custom rule: the states forward, (9)-(13) backward, for one sequence or a batch."""

from functools import partial

import jax

from jrnn.bptt import chunks, plain
from jrnn.bptt.gradients import Backward, Gradients, Residuals, Sums, no_sums, of_parameters
from jrnn.bptt.inputs import Inputs, Marks, reaching_h0
from jrnn.bptt.mapped import Results, in_one_batch
from jrnn.bptt.states import in_place
from jrnn.bptt.step import Recurrence
from jrnn.types import RNNParams


def run(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    """(h_last, hs), for xs `[T, I]` or `[T, B, I]` or their ids, and states `[H]` or `[B, H]`."""
    return in_one_batch(_states, recurrence, params, inputs)


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
    params, (xs, _, marks, _), _ = residuals
    c_0, sums, dxs = backward(recurrence, residuals, cotangents, no_sums(params, xs))
    dh0 = reaching_h0(marks, c_0.h, cotangents[0])
    return of_parameters(params, xs, sums), Inputs(dxs, dh0, Marks(), c_0.entry)


_states.defvjp(_states_fwd, _states_bwd)


def backward(
    recurrence: Recurrence, residuals: Residuals, cotangents: Results, sums: Sums
) -> Backward:
    """(9)-(13), of one sequence or a batch."""
    alone = residuals.inputs.h0.ndim == 1  # in chunks [H, K, 1] it would write number by number
    form = plain if alone else chunks
    return form.backward(recurrence, residuals, cotangents, sums)
