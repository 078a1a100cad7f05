"""How a batch goes through time: the choices that change how fast it is, and no result.

What a step costs differs. A GPU launches a kernel for every operation: steps written out in one
block share those that read and write. A TPU wants the rows of a block in one piece, which costs a
GPU next to nothing. XLA:CPU gains nothing from blocks. Its matmuls are at full speed from about 512
rows on; in a small batch a chunk of that many steps would make the columns of [H, K, B] too long to
write one by one. Forward, it loses more by writing and reading the product of a chunk than such a
matmul gains, where a step is large enough for one of its own, needs few inputs, and both weights
stay in the cache of a core.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.export import is_symbolic_dim

from jrnn.arrays import are_ids

OPEN = 32  # what to take for B where `jax.export` leaves it open: every result is the same


class Schedule(NamedTuple):
    """The schedule of both passes."""

    forward: int  # steps that share a matmul of the inputs
    backward: int  # steps that share a matmul of the weight gradients
    block: int = 1  # steps written out in one iteration of a loop

    def read(self, block: Any) -> Any:
        """The rows of a block of several steps, as arrays that stand in memory before the first."""
        return lax.optimization_barrier(block) if self.block > 1 else block


def by_schedule(
    pass_: Callable[..., Any], schedule: Schedule | None, xs: jax.Array, h0: jax.Array, args: Any
) -> Any:
    """`pass_(schedule, *args)`, by the schedule of the platform that it is compiled for."""
    if schedule is not None:
        return pass_(schedule, *args)
    T, H, I = len(xs), h0.shape[1], 0 if are_ids(xs) else xs.shape[-1]
    B = batch_size(h0)
    cpu = Schedule(
        divisor_near(T, _steps_per_projection(B, I, H)), divisor_near(T, min(512 // B, 128))
    )
    chunk = divisor_near(T, 1024 // B)
    others = Schedule(chunk, chunk, block=16)
    return lax.platform_dependent(*args, cpu=partial(pass_, cpu), default=partial(pass_, others))


def batch_size(h0: jax.Array) -> int:
    """The B to plan by, of states [B, H]: a known number, at least 1."""
    B = h0.shape[0]
    return OPEN if is_symbolic_dim(B) else max(B, 1)


def _steps_per_projection(B: int, I: int, H: int) -> int:
    """On a CPU: one, or as many as give a matmul 512 rows or a product of 2^18 numbers."""
    if B >= 16 and B * H >= 2**12 and 2 * I <= H and (I + H) * H <= 2**17:
        return 1
    return min(max(512 // B, 2**18 // (B * H)), 128)


def divisor_near(T: int, wanted: int) -> int:
    """The divisor of T nearest to `wanted`, within a factor of two; if there is none, `wanted`."""
    wanted = min(max(wanted, 1), T)
    near = [k for k in range((wanted + 1) // 2, min(2 * wanted, T) + 1) if T % k == 0]
    return min(near, key=lambda k: max(k / wanted, wanted / k), default=wanted)
