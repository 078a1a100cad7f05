"""Forward and backward in bfloat16; one block of threads runs all steps of `Bb` sequences.

    h_t     = tanh(xw_t + w^T h_{t-1})                                             (1) (2)
    delta_t = (1 - h_t^2) * (dhs_t + c_t)         c_{t-1} = w delta_t              (9)

States are `[H, B]`; products are summed, and the state is carried, in float32. w_hh stays in shared
memory (H <= 256), the inputs of a step are copied during the previous step, and each step has one
barrier. Blocks do not wait for each other.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from benchmarks.h100.blocks import UNITS, arrivals, call, product, shared, wait_for_all


def forward(
    xw: jax.Array, w: jax.Array, h0: jax.Array, *, Bb: int = 16, interpret: Any = None
) -> Any:
    """Compute all states and the last one.

    Args:
        xw: `[T, H, B]` float32, x_t w_ih + b_h.
        w: `[H, H]`, as `w_hh` in `jrnn.RNNParams`; H is a multiple of 64.
        h0: `[H, B]` float32.
        Bb: sequences per block: 16 or 32, a divisor of B.
        interpret: as in `blocks.call`.

    Returns:
        `hs [T, H, B]` bfloat16 and `h_last [H, B]` float32.
    """
    T, H, B = xw.shape
    half, single, n = jnp.bfloat16, jnp.float32, H // UNITS
    body = partial(_forward, T=T, Bb=Bb)
    outputs = [jax.ShapeDtypeStruct((T, H, B), half), jax.ShapeDtypeStruct((H, B), single)]
    scratch = [
        shared((H, H), half, Bb),
        shared((2, H, Bb), half),  # the states before and after a step
        shared((2, H, Bb), xw.dtype),
        shared((H, Bb), single),
        *(arrivals(n), arrivals(n), arrivals(n), plgpu.Barrier(num_arrivals=n)),
    ]
    arrays = (xw, w.T.astype(half), h0)
    return call(body, outputs, scratch, {"b": B // Bb}, n, arrays, interpret=interpret)


def _forward(*refs: Any, T: int, Bb: int) -> None:
    xw, wT, h0, hs, h_last, w, h, x, s, w_there, x_there, s_there, step_done = refs
    wg = lax.axis_index("wg")
    rows, columns = pl.ds(wg * UNITS, UNITS), pl.ds(lax.axis_index("b") * Bb, Bb)

    def fetch(t: Any, slot: Any) -> None:
        plgpu.copy_gmem_to_smem(xw.at[t, rows, columns], x.at[slot, rows], x_there.at[wg])

    plgpu.copy_gmem_to_smem(wT.at[rows], w.at[rows], w_there.at[wg])
    plgpu.copy_gmem_to_smem(h0.at[rows, columns], s.at[rows], s_there.at[wg])
    fetch(0, 0)
    plgpu.barrier_wait(s_there.at[wg])
    h[0, rows] = s[rows].astype(h.dtype)
    plgpu.barrier_wait(w_there.at[wg])
    wait_for_all(step_done)

    def step(t: Any, nothing: Any) -> Any:
        slot = lax.rem(t, 2)
        plgpu.barrier_wait(x_there.at[wg])
        pl.when(t + 1 < T)(lambda: fetch(t + 1, 1 - slot))
        h_t = jnp.tanh(product(Bb, (w.at[rows], h.at[slot])) + x[slot, rows])
        plgpu.wait_smem_to_gmem(1, wait_read_only=True)  # the copy of h_{t-2} is done
        h[1 - slot, rows] = h_t.astype(h.dtype)

        @pl.when(t == T - 1)
        def _() -> None:
            s[rows] = h_t

        wait_for_all(step_done)
        plgpu.copy_smem_to_gmem(h.at[1 - slot, rows], hs.at[t, rows, columns])
        return nothing

    lax.fori_loop(0, T, step, ())
    plgpu.copy_smem_to_gmem(s.at[rows], h_last.at[rows, columns])
    plgpu.wait_smem_to_gmem(0)


def backward(
    dhs: jax.Array,
    hs: jax.Array,
    w: jax.Array,
    dh_last: jax.Array,
    *,
    Bb: int = 16,
    interpret: Any = None,
) -> Any:
    """Compute all delta_t and the cotangent of h0.

    Args:
        dhs: `[T, H, B]` bfloat16 or float32.
        hs: `[T, H, B]` bfloat16, from `forward`.
        w: `[H, H]`.
        dh_last: `[H, B]` float32.
        Bb: as in `forward`.
        interpret: as in `blocks.call`.

    Returns:
        `deltas [T, H, B]` bfloat16 and `dh0 [H, B]` float32.
    """
    T, H, B = hs.shape
    half, single, n = jnp.bfloat16, jnp.float32, H // UNITS
    body = partial(_backward, T=T, Bb=Bb)
    outputs = [jax.ShapeDtypeStruct((T, H, B), half), jax.ShapeDtypeStruct((H, B), single)]
    scratch = [
        shared((H, H), half, Bb),
        shared((2, H, Bb), half),
        shared((2, H, Bb), dhs.dtype),
        shared((2, H, Bb), hs.dtype),
        shared((H, Bb), single),
        *(arrivals(n), arrivals(n), arrivals(n), arrivals(n), plgpu.Barrier(num_arrivals=n)),
    ]
    arrays = (dhs, hs, w.astype(half), dh_last)
    return call(body, outputs, scratch, {"b": B // Bb}, n, arrays, interpret=interpret)


def _backward(*refs: Any, T: int, Bb: int) -> None:
    dhs, hs, w_all, dh_last, deltas, dh0, w, delta, g, h, c, *barriers = refs
    w_there, g_there, h_there, c_there, step_done = barriers
    wg = lax.axis_index("wg")
    rows, columns = pl.ds(wg * UNITS, UNITS), pl.ds(lax.axis_index("b") * Bb, Bb)

    def fetch(t: Any, slot: Any) -> None:
        plgpu.copy_gmem_to_smem(dhs.at[t, rows, columns], g.at[slot, rows], g_there.at[wg])
        plgpu.copy_gmem_to_smem(hs.at[t, rows, columns], h.at[slot, rows], h_there.at[wg])

    plgpu.copy_gmem_to_smem(w_all.at[rows], w.at[rows], w_there.at[wg])
    plgpu.copy_gmem_to_smem(dh_last.at[rows, columns], c.at[rows], c_there.at[wg])
    fetch(T - 1, 0)
    plgpu.barrier_wait(w_there.at[wg])
    plgpu.barrier_wait(c_there.at[wg])

    def step(n: Any, nothing: Any) -> Any:
        t, slot = T - 1 - n, lax.rem(n, 2)
        plgpu.barrier_wait(g_there.at[wg])
        plgpu.barrier_wait(h_there.at[wg])
        pl.when(t > 0)(lambda: fetch(t - 1, 1 - slot))
        h_t = h[slot, rows].astype(jnp.float32)
        delta_t = (1 - h_t * h_t) * (g[slot, rows].astype(jnp.float32) + c[rows])  # (9)
        plgpu.wait_smem_to_gmem(1, wait_read_only=True)  # the copy of delta_{t+2} is done
        delta[slot, rows] = delta_t.astype(delta.dtype)
        wait_for_all(step_done)
        plgpu.copy_smem_to_gmem(delta.at[slot, rows], deltas.at[t, rows, columns])
        c[rows] = product(Bb, (w.at[rows], delta.at[slot]))
        return nothing

    lax.fori_loop(0, T, step, ())
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(c.at[rows], dh0.at[rows, columns])
    plgpu.wait_smem_to_gmem(0)
