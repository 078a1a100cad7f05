"""Shared parts of the kernels: tiles of shared memory, a barrier, a matmul, the launch.

A warpgroup (128 threads) is the smallest unit that can use Hopper's tensor cores. Each one has 64
hidden units (rows of a matmul) and `Bb` sequences (columns).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

UNITS = 64  # hidden units per warpgroup
SWIZZLE_BYTES = 128  # the widest swizzle, which keeps rows in different banks


def shared(shape: tuple[int, ...], dtype: Any, columns: int = 0) -> Any:
    """An array in shared memory, in the tiles that tensor cores and copies need.

    For weights, `columns` is the number of columns of the other operand.
    """
    size = jnp.dtype(dtype).itemsize
    swizzle = min(SWIZZLE_BYTES, (columns or shape[-1]) * size)
    tiles = (plgpu.TilingTransform((8, swizzle // size)), plgpu.SwizzleTransform(swizzle))
    return plgpu.SMEM(shape, dtype, transforms=tiles)


def arrivals(warpgroups: int) -> Any:
    """A barrier per warpgroup, for its own copies."""
    return plgpu.Barrier(num_barriers=warpgroups)


def wait_for_all(barrier: Any) -> None:
    """Wait until all warpgroups have written the operands of the next matmul."""
    plgpu.commit_smem()
    plgpu.barrier_arrive(barrier)
    plgpu.barrier_wait(barrier)


def product(Bb: int, *pairs: tuple[Any, Any]) -> Any:
    """The sum of matmuls [64, H] by [H, Bb] of arrays in shared memory, in float32."""

    def add_up(total: Any) -> Any:
        for a, b in pairs:
            plgpu.wgmma(total, a, b)
        return total[...]

    accumulator = plgpu.ACC((UNITS, Bb), jnp.float32)  # type: ignore[attr-defined,unused-ignore]
    return pl.run_scoped(add_up, accumulator)


def call(
    body: Callable[..., None],
    outputs: Sequence[jax.ShapeDtypeStruct],
    scratch: Sequence[Any],
    grid: dict[str, int],
    warpgroups: int,
    arrays: Sequence[jax.Array],
    *,
    interpret: Any = None,
) -> Any:
    """Launch one kernel.

    Args:
        body: a function of references to arrays, outputs and scratch, in this order.
        outputs: shapes and dtypes of the outputs.
        scratch: shared memory and barriers.
        grid: blocks along each named axis.
        warpgroups: warpgroups per block; their axis is "wg".
        arrays: the inputs.
        interpret: parameters of Mosaic GPU's interpreter, for a run without a GPU.

    Returns:
        The list of outputs.
    """
    options: dict[str, Any] = {} if interpret is None else {"interpret": interpret}
    kernel = plgpu.kernel(
        body,
        out_type=list(outputs),
        scratch_types=list(scratch),
        grid=tuple(grid.values()),
        grid_names=tuple(grid),
        num_threads=warpgroups,
        thread_name="wg",
        compiler_params=plgpu.CompilerParams(approx_math=False),
        **options,
    )
    return kernel(*arrays)
