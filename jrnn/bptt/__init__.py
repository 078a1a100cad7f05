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

Only (9) is sequential, and it needs nothing of the forward pass but the states; (11)-(13) are
matmuls over many steps at once. There are two forms of that, with one step and one adjoint
(`step.py`), because JAX maps a custom rule first and sums its results afterwards:

- `batch.py`, for `[T, B, I]`: the rule returns all of (9)-(13), chunk by chunk of time, so that
  nothing of size T*B*H exists beside the states and their cotangent. Mapped over sequences, it
  would form one [H, H] gradient for each of them.
- `sequence.py`, for `[T, I]`: the rule stops at (9); (11)-(13) are the transpose of one linear line
  outside of it, which JAX maps as well as a matmul of one's own. It keeps all deltas for that.

The rank is static and `vmap` hides an axis from it: whoever maps one sequence over a batch gets the
second form, whoever passes the batch the first. `segments.py` is the same recurrence in less
memory.
"""

import jax
import jax.numpy as jnp

from jrnn.arrays import are_ids, varying_alike
from jrnn.bptt import batch, segments, sequence
from jrnn.bptt.schedule import Schedule as Schedule
from jrnn.bptt.step import Precision as Precision
from jrnn.bptt.step import Recurrence as Recurrence
from jrnn.bptt.step import project_inputs as project_inputs
from jrnn.types import RNNParams


def run(
    recurrence: Recurrence,
    params: RNNParams,
    xs: jax.Array,
    h0: jax.Array | None,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """(h_last, hs) of `rnn`, whose docstring describes them; `h0` is None, [H] or [B, H]."""
    h0 = first_state(params, xs, h0)
    form = segments if remat else batch if h0.ndim == 2 else sequence
    return form.run(recurrence, params, xs, h0)


def first_state(params: RNNParams, xs: jax.Array, h0: jax.Array | None) -> jax.Array:
    """h_0 in the shape of one step, varying over every mesh axis that h_1 varies over."""
    shape = (*(xs.shape[1:] if are_ids(xs) else xs.shape[1:-1]), params.w_hh.shape[0])
    h0 = jnp.zeros((), params.w_hh.dtype) if h0 is None else h0
    h0 = h0.reshape((1,) * (len(shape) - h0.ndim) + h0.shape)
    _, _, h0 = varying_alike((params, xs, jnp.broadcast_to(h0, shape)))
    return h0
