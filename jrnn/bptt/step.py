"""One step of the recurrence and its adjoint, in the precision asked for: (1), (2), (9), (15)-(17).

With a `compute_dtype` the operands of every matmul are rounded to it and the products are summed in
the dtype of the parameters; the state that is carried, the pre-activation, phi' and the cotangents
stay in the dtype of the parameters. The states are stored in `compute_dtype`, which loses nothing:
(1) and (11) would round them all the same.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.arrays import ArrayLike, add_bias, are_ids, at_least_float32
from jrnn.bptt.inputs import Entry, Links, Marks, arriving, entering, inside, masked
from jrnn.bptt.schedule import Schedule
from jrnn.cell import Cell
from jrnn.types import RNNParams

Precision = str | None  # as `jax.default_matmul_precision` takes it
Matmul = Callable[[Any, jax.Array], jax.Array]


class Cotangents(NamedTuple):
    """What is carried back through time."""

    h: jax.Array  # c_t, what the steps after t send to their e_t
    entry: Entry  # the sums over those steps


class Recurrence(NamedTuple):
    """What is static in a recurrence: hashable, as an option of a jitted function must be."""

    cell: Cell
    precision: Precision = None
    compute_dtype: np.dtype | None = None  # None: that of the parameters
    clip_delta: float | None = None  # None: the gradient as it is
    schedule: Schedule | None = None  # None: as `schedule.py` chooses for the platform

    def rounded(self, x: jax.Array) -> jax.Array:
        """An operand of a matmul."""
        return x if self.compute_dtype is None else x.astype(self.compute_dtype)

    def matmul(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """x w, in the dtype of x before its rounding; a half-precision x is summed in float32."""
        total = None if self.compute_dtype is None else x.dtype
        x, w = self.rounded(x), self.rounded(w)
        return jnp.matmul(x, w, precision=self.precision, preferred_element_type=total)

    @partial(jax.jit, static_argnums=0, inline=True)  # a block of steps is traced as one
    def step(
        self,
        params: RNNParams,
        entry: Entry,
        projected_t: jax.Array,
        marks: Marks,
        h_tm1: jax.Array,
    ) -> jax.Array:
        """s_t, of x_t w_ih and s_{t-1}."""
        e_tm1 = entering(marks, entry, h_tm1)
        from_state = self.matmul(self.operand(entry, e_tm1), params.w_hh)
        a_t = add_bias(projected_t, params.b_h) + from_state  # (1)
        return inside(marks, self.cell.step(a_t, e_tm1), h_tm1)  # (2), (15)

    def operand(self, entry: Entry, e_tm1: jax.Array) -> jax.Array:
        """m * e_{t-1}, of a state rounded as it is stored, so that (11) multiplies by the same."""
        if entry.mask is None:
            return e_tm1
        return masked(entry, self.rounded(e_tm1)).astype(e_tm1.dtype)

    @partial(jax.jit, static_argnums=0, inline=True)
    def step_back(
        self,
        w_hh_transposed: jax.Array,
        entry: Entry,
        dh_last: jax.Array,
        c_t: Cotangents,
        dhs_t: jax.Array,
        at: Links,
        e_tm1: jax.Array,
        h_t: jax.Array,
    ) -> tuple[Cotangents, jax.Array]:
        """c_{t-1} and delta_t, of the states as they were stored."""
        dtype = c_t.h.dtype
        e_tm1, h_t = e_tm1.astype(dtype), h_t.astype(dtype)
        dh_t = dhs_t.astype(dtype) + arriving(at, c_t.h, dh_last)
        delta_t, beside = self.cell.adjoint(inside(at.marks, dh_t), e_tm1, h_t)  # (9), (16)
        if self.clip_delta is not None:
            delta_t = jnp.clip(delta_t, -self.clip_delta, self.clip_delta)
        back = self.matmul(delta_t, w_hh_transposed)
        c_tm1 = masked(entry, back)
        c_tm1 = c_tm1 if beside is None else c_tm1 + beside
        dentry = c_t.entry
        if dentry.reset_state is not None and at.marks.reset is not None:  # (17)
            dh_r = jnp.where(at.marks.reset[..., None], c_tm1, 0.0)
            dentry = dentry._replace(reset_state=dentry.reset_state + dh_r)
        if dentry.mask is not None:
            dentry = dentry._replace(mask=dentry.mask + back * e_tm1)
        return Cotangents(c_tm1, dentry), delta_t


def project_inputs(w_ih: jax.Array, xs: ArrayLike, matmul: Matmul = jnp.matmul) -> jax.Array:
    """x_t w_ih, the part of (1) that waits for no state: [..., I] or ids [...] to [..., H].

    A token id k stands for the one-hot vector e_k, and e_k w_ih is row k of w_ih. An id outside
    [0, I) stands for nothing: NaN.
    """
    if not are_ids(xs):
        return matmul(xs, w_ih)
    rows = at_least_float32(w_ih).at[xs]  # many steps may add to one row: in float32
    projected = rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return projected.astype(w_ih.dtype)
