"""What the kernels share: tiles of shared memory, a barrier, a matmul, how a kernel is launched.

A warpgroup, 128 threads, is the smallest unit that Hopper's tensor cores take work from. Each one
has 64 hidden units, the rows of a matmul, and `Bb` sequences, its columns.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

UNITS = 64  # hidden units of a warpgroup
SWIZZLE_BYTES = 128  # the widest pattern that keeps rows in different banks


def shared(shape: tuple[int, ...], dtype: Any, columns: int = 0) -> Any:
    """An array in shared memory, in the tiles that the tensor cores and the copies ask for.

    Those of weights are as wide as the `columns` of what they are multiplied with.
    """
    size = jnp.dtype(dtype).itemsize
    swizzle = min(SWIZZLE_BYTES, (columns or shape[-1]) * size)
    tiles = (plgpu.TilingTransform((8, swizzle // size)), plgpu.SwizzleTransform(swizzle))
    return plgpu.SMEM(shape, dtype, transforms=tiles)


def arrivals(warpgroups: int) -> Any:
    """A barrier per warpgroup, for copies of its own."""
    return plgpu.Barrier(num_barriers=warpgroups)


def wait_for_all(barrier: Any) -> None:
    """Every warpgroup has written what the next matmul reads, and the tensor cores see it."""
    plgpu.commit_smem()
    plgpu.barrier_arrive(barrier)
    plgpu.barrier_wait(barrier)


def product(Bb: int, *pairs: tuple[Any, Any]) -> Any:
    """The sum of matmuls [64, H] [H, Bb] of arrays in shared memory, in float32."""

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
    cluster: dict[str, int] | None = None,
    interpret: Any = None,
) -> Any:
    """Launch one kernel.

    Args:
        body: of references to arrays, outputs and scratch, in this order.
        outputs: what it fills in.
        scratch: shared memory and barriers.
        grid: blocks along each named axis.
        warpgroups: of a block; their axis is "wg".
        arrays: what it reads.
        cluster: blocks that see each other's shared memory, along each named axis.
        interpret: parameters of Mosaic GPU's interpreter, to run without a GPU.

    Returns:
        The list of outputs.
    """
    options: dict[str, Any] = {} if interpret is None else {"interpret": interpret}
    if cluster:
        options |= {"cluster": tuple(cluster.values()), "cluster_names": tuple(cluster)}
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
