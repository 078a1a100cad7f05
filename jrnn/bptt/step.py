"""One step of the recurrence and its adjoint, in the precision asked for: (1), (2) and (9).

With a `compute_dtype` the operands of every matmul are rounded to it and the products are summed in
the dtype of the parameters; the state that is carried, the pre-activation, phi' and the cotangents
stay in the dtype of the parameters. The states are stored in `compute_dtype`, which loses nothing:
(1) and (11) would round them all the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.arrays import ArrayLike, add_bias, are_ids, at_least_float32
from jrnn.bptt.schedule import Schedule
from jrnn.cell import Cell
from jrnn.types import RNNParams

Precision = str | None  # as `jax.default_matmul_precision` takes it
Matmul = Callable[[Any, jax.Array], jax.Array]


class Recurrence(NamedTuple):
    """What is static in a recurrence: hashable, as an option of a jitted function must be."""

    cell: Cell
    precision: Precision = None
    compute_dtype: np.dtype | None = None  # None: that of the parameters
    schedule: Schedule | None = None  # None: as `schedule.py` chooses for the platform

    def rounded(self, x: jax.Array) -> jax.Array:
        """An operand of a matmul."""
        return x if self.compute_dtype is None else x.astype(self.compute_dtype)

    def matmul(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """x w, in the dtype of x before its rounding; a half-precision x is summed in float32."""
        total = None if self.compute_dtype is None else x.dtype
        x, w = self.rounded(x), self.rounded(w)
        return jnp.matmul(x, w, precision=self.precision, preferred_element_type=total)

    def step(self, w_hh: jax.Array, projected_t: jax.Array, h_tm1: jax.Array) -> jax.Array:
        """h_t, of x_t w_ih + b_h and h_{t-1}."""
        a_t = projected_t + self.matmul(h_tm1, w_hh)  # (1)
        return self.cell.step(a_t, h_tm1)  # (2)

    def step_back(
        self, w_hh_transposed: jax.Array, dh_t: jax.Array, h_tm1: jax.Array, h_t: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(c_{t-1}, delta_t), of dh_t = dhs_t + c_t and the stored states."""
        h_tm1, h_t = h_tm1.astype(dh_t.dtype), h_t.astype(dh_t.dtype)
        delta_t, beside = self.cell.adjoint(dh_t, h_tm1, h_t)  # (9)
        c_tm1 = self.matmul(delta_t, w_hh_transposed)
        return c_tm1 if beside is None else c_tm1 + beside, delta_t


def project_inputs(params: RNNParams, xs: ArrayLike, matmul: Matmul = jnp.matmul) -> jax.Array:
    """x_t w_ih + b_h, the part of (1) that waits for no state: [..., I] or ids [...] to [..., H].

    A token id k stands for the one-hot vector e_k, and e_k w_ih is row k of w_ih. An id outside
    [0, I) stands for nothing: NaN.
    """
    if are_ids(xs):
        rows = at_least_float32(params.w_ih).at[xs]  # many steps may add to one row: in float32
        projected = rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        projected = projected.astype(params.w_ih.dtype)
    else:
        projected = matmul(xs, params.w_ih)
    return add_bias(projected, params.b_h)
