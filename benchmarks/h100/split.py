"""Forward like `one_block.forward`, in nearly float32, which tensor cores do not support.

An operand is a sum of P bfloat16 parts; each holds the next 8 bits. Only the products of parts i
and j with i + j < P are computed. P = 2 gives 16 bits with three products, P = 3 the 24 bits of
float32 with six.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from benchmarks.h100.blocks import UNITS, arrivals, call, product, shared, wait_for_all


def parts_of(x: Any, P: int, rounded: Callable[[Any], Any]) -> list[Any]:
    """P bfloat16 arrays whose sum is x, up to a small rest."""
    parts = []
    for _ in range(P):
        part = rounded(x)
        parts.append(part.astype(jnp.bfloat16))
        x = x - part
    return parts


def rounded_by_mosaic(x: Any) -> Any:
    """x rounded to bfloat16, as float32."""
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def rounded_by_xla(x: Any) -> Any:
    """The same between kernels, where XLA:GPU removes the conversions and subtracts x from x."""
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def forward(
    xw: jax.Array,
    w: jax.Array,
    h0: jax.Array,
    *,
    P: int,
    Bb: int = 16,
    interpret: Any = None,
) -> Any:
    """Compute all states and the last one.

    Args:
        xw: `[T, H, B]` float32.
        w: `[H, H]`; H is at most 192 for P = 2 and 128 for P = 3, to fit into shared memory.
        h0: `[H, B]` float32.
        P: the number of parts of an operand.
        Bb: as in `one_block.forward`.
        interpret: as in `blocks.call`.

    Returns:
        `hs [T, H, B]` and `h_last [H, B]`, float32.
    """
    T, H, B = xw.shape
    half, single, n = jnp.bfloat16, jnp.float32, H // UNITS
    body = partial(_forward, T=T, Bb=Bb, P=P)
    outputs = [jax.ShapeDtypeStruct((T, H, B), single), jax.ShapeDtypeStruct((H, B), single)]
    scratch = [
        shared((P, H, H), half, Bb),
        shared((2, P, H, Bb), half),
        shared((2, H, Bb), single),
        shared((2, H, Bb), single),
        plgpu.Barrier(num_arrivals=P, num_barriers=n),
        *(arrivals(n), arrivals(n), plgpu.Barrier(num_arrivals=n)),
    ]
    arrays = (xw, jnp.stack(parts_of(w.T, P, rounded_by_xla)), h0)
    return call(body, outputs, scratch, {"b": B // Bb}, n, arrays, interpret=interpret)


def _forward(*refs: Any, T: int, Bb: int, P: int) -> None:
    xw, wT, h0, hs, h_last, w, h, x, s, w_there, x_there, s_there, step_done = refs
    wg = lax.axis_index("wg")
    rows, columns = pl.ds(wg * UNITS, UNITS), pl.ds(lax.axis_index("b") * Bb, Bb)

    def fetch(t: Any, slot: Any) -> None:
        plgpu.copy_gmem_to_smem(xw.at[t, rows, columns], x.at[slot, rows], x_there.at[wg])

    def put(h_t: Any, slot: Any) -> None:
        for p, part in enumerate(parts_of(h_t, P, rounded_by_mosaic)):
            h[slot, p, rows] = part

    for p in range(P):
        plgpu.copy_gmem_to_smem(wT.at[p, rows], w.at[p, rows], w_there.at[wg])
    plgpu.copy_gmem_to_smem(h0.at[rows, columns], s.at[0, rows], s_there.at[wg])
    fetch(0, 0)
    plgpu.barrier_wait(s_there.at[wg])
    put(s[0, rows], 0)
    plgpu.barrier_wait(w_there.at[wg])
    wait_for_all(step_done)

    def step(t: Any, nothing: Any) -> Any:
        slot = lax.rem(t, 2)
        plgpu.barrier_wait(x_there.at[wg])
        pl.when(t + 1 < T)(lambda: fetch(t + 1, 1 - slot))
        pairs = [(w.at[i, rows], h.at[slot, j]) for i in range(P) for j in range(P - i)]
        h_t = jnp.tanh(product(Bb, *pairs) + x[slot, rows])
        plgpu.wait_smem_to_gmem(1, wait_read_only=True)  # the copy of h_{t-2} is done
        put(h_t, 1 - slot)
        s[1 - slot, rows] = h_t
        wait_for_all(step_done)
        plgpu.copy_smem_to_gmem(s.at[1 - slot, rows], hs.at[t, rows, columns])
        return nothing

    lax.fori_loop(0, T, step, ())
    plgpu.copy_smem_to_gmem(s.at[T % 2, rows], h_last.at[rows, columns])
    plgpu.wait_smem_to_gmem(0)
