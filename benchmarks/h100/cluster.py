"""Forward as in `one_block`, with hidden units split over a cluster of C blocks, for H > 256.

Each block sends its part of a state to the shared memory of all blocks, and waits for all parts of
the next state. Mosaic GPU's interpreter has no clusters, so this was only compiled, never tested.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from benchmarks.h100.blocks import UNITS, arrivals, call, product, shared

THREADS = 128  # per warpgroup; each signals that it has stored


def forward(xw: jax.Array, w: jax.Array, h0: jax.Array, *, C: int, Bb: int = 16) -> Any:
    """All states and the last one, as `one_block.forward`; H is a multiple of 64 C."""
    T, H, B = xw.shape
    M = H // C  # hidden units of a block
    half, single, n = jnp.bfloat16, jnp.float32, M // UNITS
    body = partial(_forward, T=T, Bb=Bb, M=M, C=C)
    outputs = [jax.ShapeDtypeStruct((T, H, B), half), jax.ShapeDtypeStruct((H, B), single)]
    scratch = [
        shared((M, H), half, Bb),
        shared((2, H, Bb), half),
        shared((2, M, Bb), xw.dtype),
        shared((M, Bb), single),
        *(arrivals(n), arrivals(n), arrivals(n)),
        plgpu.Barrier(num_arrivals=THREADS * n * C, num_barriers=2),
    ]
    arrays = (xw, w.T.astype(half), h0)
    return call(body, outputs, scratch, {"b": B // Bb}, n, arrays, cluster={"h": C})


def _forward(*refs: Any, T: int, Bb: int, M: int, C: int) -> None:
    xw, wT, h0, hs, h_last, w, h, x, s, w_there, x_there, s_there, h_there = refs
    wg = lax.axis_index("wg")
    mine = pl.ds(wg * UNITS, UNITS)  # of the block's rows
    rows = pl.ds(lax.axis_index("h") * M + wg * UNITS, UNITS)  # of all
    columns = pl.ds(lax.axis_index("b") * Bb, Bb)

    def fetch(t: Any, slot: Any) -> None:
        plgpu.copy_gmem_to_smem(xw.at[t, rows, columns], x.at[slot, mine], x_there.at[wg])

    def store(t: Any, slot: Any) -> None:
        plgpu.copy_smem_to_gmem(h.at[slot, rows], hs.at[t, rows, columns])

    def send(h_t: Any, slot: Any) -> None:
        for block in range(C):
            plgpu.async_store_smem(
                *(h_t, h.at[slot, rows], h_there.at[slot]),
                cluster_idx=jnp.int32(block),
                cluster_dim="h",
                optimized=False,
            )

    plgpu.copy_gmem_to_smem(wT.at[rows], w.at[mine], w_there.at[wg])
    plgpu.copy_gmem_to_smem(h0.at[rows, columns], s.at[mine], s_there.at[wg])
    fetch(0, 0)
    plgpu.barrier_wait(s_there.at[wg])
    send(s[mine].astype(jnp.bfloat16), 0)
    plgpu.barrier_wait(w_there.at[wg])

    def step(t: Any, nothing: Any) -> Any:
        slot = lax.rem(t, 2)
        plgpu.barrier_wait(x_there.at[wg])
        pl.when(t + 1 < T)(lambda: fetch(t + 1, 1 - slot))
        plgpu.barrier_wait(h_there.at[slot])
        plgpu.commit_smem()

        pl.when(t > 0)(lambda: store(t - 1, slot))
        h_t = jnp.tanh(product(Bb, (w.at[mine], h.at[slot])) + x[slot, mine])
        plgpu.wait_smem_to_gmem(1, wait_read_only=True)
        send(h_t.astype(jnp.bfloat16), 1 - slot)

        @pl.when(t == T - 1)
        def _() -> None:
            s[mine] = h_t

        return nothing

    lax.fori_loop(0, T, step, ())
    plgpu.barrier_wait(h_there.at[T % 2])
    plgpu.commit_smem()
    store(T - 1, T % 2)
    plgpu.copy_smem_to_gmem(s.at[mine], h_last.at[rows, columns])
    plgpu.wait_smem_to_gmem(0)
