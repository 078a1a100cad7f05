"""The kernel: a recurrence unrolled in time, its gradient by a hand-derived BPTT.

Forward, for t = 1 ... T, with phi and every product that has no state in it taken out of the loop:

    a_t = x_t w_ih + h_{t-1} w_hh + b_h                                             (1)
    h_t = phi(a_t)                                                                  (2)

Backward, for t = T ... 1. dhs_t is the cotangent of h_t as an output; c_t is what reaches h_t from
the steps after t, c_T the cotangent of h_last; delta_t is the cotangent of a_t:

    delta_t = phi'(h_t) * (dhs_t + c_t)         c_{t-1} = delta_t w_hh^T            (9)
    dw_hh   = sum_t h_{t-1}^T delta_t                                              (11)
    dw_ih   = sum_t x_t^T delta_t               db_h = sum_t delta_t               (12)
    dx_t    = delta_t w_ih^T                    dh_0 = c_0                         (13)

With lengths (v_t: step t is inside of its sequence), resets (r_t: a new segment begins at t, from
the reset state h_r) and a mask m of the states:

    e_{t-1} = h_r if r_t else s_{t-1}           s_t in place of h_t
    s_t     = phi(x_t w_ih + (m * e_{t-1}) w_hh + b_h) if v_t else s_{t-1}
    hs_t    = s_t if v_t else 0                 h_last = s_T                       (15)
    delta_t = phi'(s_t) * (dhs_t + c_t) if v_t else 0
    c_{t-1} = c_t if not v_t, 0 if r_t, else m * (delta_t w_hh^T)                  (16)
    dh_r    = sum of m * (delta_t w_hh^T) over t with v_t and r_t
    dw_hh   = sum_t (m * e_{t-1})^T delta_t     dm = sum_t e_{t-1} * (delta_t w_hh^T)
    dh_0    = c_0                                                                  (17)

Only (9) is sequential, and it needs nothing of the forward pass but the states; (11)-(13) are
matmuls over many steps at once. The custom rule (`rule.py`) computes the states in place
(`states.py`), and backward takes one of two forms, with one step and one adjoint (`step.py`):

- `chunks.py`, for a batch: (9)-(13) chunk by chunk of time, so that nothing of size T*B*H exists
  beside the states and their cotangent. A loop that writes into buffers is fast, and JAX maps and
  differentiates it badly.
- `plain.py`, for one sequence: (9) by a `lax.scan`, (11)-(13) over all steps at once. It keeps all
  deltas; JAX maps it well, for a gradient of each sequence, and differentiates it well.

Whoever maps one sequence over a batch gets the batch (`mapped.py`). `segments.py` is a rule of its
own around the same two forms, which keeps sqrt(T) states.
"""

import jax
import jax.numpy as jnp

from jrnn.arrays import ArrayLike, steps, varying_alike
from jrnn.bptt import rule, segments
from jrnn.bptt.inputs import Entry as Entry
from jrnn.bptt.inputs import Inputs as Inputs
from jrnn.bptt.inputs import Marks as Marks
from jrnn.bptt.schedule import Schedule as Schedule
from jrnn.bptt.step import Precision as Precision
from jrnn.bptt.step import Recurrence as Recurrence
from jrnn.bptt.step import project_inputs as project_inputs
from jrnn.types import RNNParams


def run(
    recurrence: Recurrence, params: RNNParams, inputs: Inputs, remat: bool = False
) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs) of `rnn`, whose docstring describes them, of inputs that are `whole`."""
    form = segments if remat else rule
    return form.run(recurrence, params, inputs)


def whole(
    params: RNNParams,
    xs: jax.Array,
    h0: ArrayLike | None = None,
    marks: Marks = Marks(),  # noqa: B008
    entry: Entry = Entry(),  # noqa: B008
) -> Inputs:
    """The states in the shape of one step, varying over every mesh axis that h_1 varies over."""
    shape = (*steps(xs)[1:], params.w_hh.shape[0])
    start = jnp.zeros((), params.w_hh.dtype) if h0 is None else jnp.asarray(h0)

    def in_shape(h: jax.Array) -> jax.Array:
        return jnp.broadcast_to(h.reshape((1,) * (len(shape) - h.ndim) + h.shape), shape)

    states = jax.tree.map(in_shape, (start, entry))
    _, _, _, (start, entry) = varying_alike((params, xs, marks, states))
    return Inputs(xs, start, marks, entry)
