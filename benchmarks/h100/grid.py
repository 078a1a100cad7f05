"""Forward as in `one_block`, with hidden units split over G blocks of the grid, for H > 256.

Blocks exchange the state through global memory, and a semaphore signals that all parts are there.
The kernel assumes that all G blocks run at the same time; otherwise it hangs. Mosaic GPU's
interpreter has no such semaphore, so this was only compiled, never tested.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from benchmarks.h100.blocks import UNITS, arrivals, call, product, shared, wait_for_all


def forward(xw: jax.Array, w: jax.Array, h0: jax.Array, *, G: int) -> Any:
    """All states `[T, H, B]` bfloat16, as `one_block.forward`; H is a multiple of 64 G."""
    T, H, B = xw.shape
    M = H // G  # hidden units of a block
    half, n = jnp.bfloat16, M // UNITS
    body = partial(_forward, T=T, B=B, M=M, G=G)
    scratch = [
        shared((M, H), half, B),
        shared((H, B), half),
        shared((2, M, B), jnp.float32),
        shared((M, B), half),
        plgpu.SemaphoreType.REGULAR,
        *(arrivals(n), arrivals(n), plgpu.Barrier(), plgpu.Barrier(num_arrivals=n)),
    ]
    arrays = (xw, w.T.astype(half), h0.astype(half))
    (hs,) = call(body, [jax.ShapeDtypeStruct((T, H, B), half)], scratch, {"g": G}, n, arrays)
    return hs


def _forward(*refs: Any, T: int, B: int, M: int, G: int) -> None:
    xw, wT, h0, hs, w, h, x, out, stored, w_there, x_there, h_there, step_done = refs
    wg = lax.axis_index("wg")
    mine = pl.ds(wg * UNITS, UNITS)  # of the block's rows
    rows = pl.ds(lax.axis_index("g") * M + wg * UNITS, UNITS)  # of all

    def fetch(t: Any, slot: Any) -> None:
        plgpu.copy_gmem_to_smem(xw.at[t, rows], x.at[slot, mine], x_there.at[wg])

    plgpu.copy_gmem_to_smem(wT.at[rows], w.at[mine], w_there.at[wg])
    fetch(0, 0)
    pl.when(wg == 0)(lambda: plgpu.copy_gmem_to_smem(h0, h, h_there))
    plgpu.barrier_wait(w_there.at[wg])

    def step(t: Any, nothing: Any) -> Any:
        slot = lax.rem(t, 2)
        plgpu.barrier_wait(x_there.at[wg])
        pl.when(t + 1 < T)(lambda: fetch(t + 1, 1 - slot))
        plgpu.barrier_wait(h_there)
        h_t = jnp.tanh(product(B, (w.at[mine], h)) + x[slot, mine])
        out[mine] = h_t.astype(jnp.bfloat16)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(out.at[mine], hs.at[t, rows])
        plgpu.wait_smem_to_gmem(0)
        pl.semaphore_signal(stored)
        wait_for_all(step_done)

        @pl.when((wg == 0) & (t + 1 < T))
        def _() -> None:
            pl.semaphore_wait(stored, (t + 1) * G * M // UNITS, decrement=False)
            plgpu.copy_gmem_to_smem(hs.at[t], h, h_there)

        return nothing

    lax.fori_loop(0, T, step, ())
