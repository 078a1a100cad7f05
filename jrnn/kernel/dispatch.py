"""Which backend computes a call: chosen by its shape and by the platform it is lowered for.

On a CPU `Native` runs what it serves, if it is enabled; of the rest, the backward pass of one
sequence by a cell of one block is `Reference`, also in `vmap(grad)`. Everything else, and all on
other platforms, is `XLA`, with a schedule for the platform. Second derivatives are those of the
plain scans (`transforms`). A new backend is one file in `backends/` and one line here.
"""

from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.export import is_symbolic_dim

from jrnn import native
from jrnn.arrays import are_ids, steps
from jrnn.kernel import step
from jrnn.kernel.backends.native import Native, reads_gates, why_not
from jrnn.kernel.backends.xla import XLA, schedule_for
from jrnn.kernel.reference import Reference
from jrnn.kernel.types import Backend, Inputs, Spec

OPEN = 32  # the B to plan by where `jax.export` leaves it open; no result depends on it


Direction = Literal["forward", "backward"]


class Shape(NamedTuple):
    """The sizes of a call."""

    T: int
    B: int | None  # None where `jax.export` leaves it open
    I: int  # 0 for ids
    H: int
    dtype: Any = np.float32  # of the parameters


class Choice(NamedTuple):
    """A backend, and why it was chosen."""

    backend: Backend
    reason: str


def choose(spec: Spec, shape: Shape, platform: str, direction: Direction) -> Choice:
    """The backend of one pass of a call, on a platform such as "cpu", "cuda" or "tpu"."""
    T, B, I, H, _ = shape
    if spec.backend is not None:
        return Choice(spec.backend, "the call names it")
    reason = why_not_native(spec, shape) if platform == "cpu" else "the native kernel is for CPUs"
    if reason is None:
        slices = number_of_slices(spec, shape, direction)
        return Choice(Native(slices), "it goes through time in one call")
    X, G = len(spec.cell.x_blocks), step.number_of_blocks(spec.cell)
    if direction == "backward" and B == G == 1 and platform == "cpu":
        # The chunks of XLA's loops would be written one number at a time, [H, K, 1]. Those of a
        # gated cell are still faster: 0.87 of the time of a scan, in less than half of its memory,
        # at T = 1024, I = 32, H = 128 (GRU, AMD EPYC, jaxlib 0.10.2). On a GPU they take 0.36 of it
        # (Elman, NVIDIA H100, jax 0.11.2).
        return Choice(
            Reference(), f"{reason}, and a plain scan is for the gradient of one sequence"
        )
    schedule = schedule_for(platform, T, OPEN if B is None else max(B, 1), I, H, X, G)
    return Choice(XLA(schedule), reason)


def number_of_slices(spec: Spec, shape: Shape, direction: Direction) -> int:
    """How many slices a batch is cut into: one for each core, but no more than memory allows.

    Each slice sums its own weight gradients, H for each of the I + H rows of the weights. Beyond
    two slices these sums may be as large as the states, T * B * H: 1.4 of the bytes of XLA's loops
    with 10 slices at T, B, I, H = 128, 64, 256, 512, where 16 would need 1.7.
    """
    T, B, I, H, _ = shape
    if B == 1:
        return 2 if is_halved(spec, shape, direction) else 1
    return max(1, min(_cores(spec), B or 0, max(2, T * (B or 0) // (I + H))))


def is_halved(spec: Spec, shape: Shape, direction: Direction) -> bool:
    """Whether one sequence is cut into halves of its units, for cores that exchange h at each step.

    A forward pass takes 0.50 to 0.65 of the time of one core from H = 128 on, a gradient 0.60 at
    H = 512 and 0.75 by an LSTM at H = 128 (native/core/pair.h; two cores of an AMD EPYC, family 25,
    model 17, November 2026). Short steps, or few, gain nothing. Nor does a processor with AMX: on
    an Intel Xeon h takes longer to the other core than half of a step. While one core goes back in
    time the other one sums the weight gradients, so there a step must be longer.
    """
    T, B, _, H, _ = shape
    work = step.number_of_blocks(spec.cell) * H * H
    is_long = work >= (2**13 if direction == "forward" else 2**15) and T * work >= 2**21
    return B == 1 and is_long and _cores(spec) > 1 and native.library().isa != native.TILES


def _cores(spec: Spec) -> int:
    return native.cpu_cores() // spec.devices


def why_not_native(spec: Spec, shape: Shape) -> str | None:
    """Why the native kernel does not serve a call on a CPU, or is slower than XLA; None: it runs.

    It copies the weights, and sums their gradients in scratch of that size, once for each call. For
    few steps of few sequences XLA takes 0.6 to 0.9 of its time (I = H = 512: T * B = 100 and 200;
    I = H = 1024: T * B up to 800). At every step, each core reads all of w_hh for its part of the
    batch. XLA shares the columns among the cores, which takes 0.6 to 0.95 of the time where the
    batch gives a core one or two rows and w_hh leaves its cache: one sequence, Elman H = 448 to
    1024, LSTM H = 384 and 512, GRU H = 512; two or three, Elman and GRU H = 512. Where one sequence
    is halved, XLA takes 1.2 to 1.8 of the time, and 1.0 to 1.1 by an LSTM at H = 1024. (Two cores
    of an AMD EPYC with 1 MB of second cache each, November 2026.)
    """
    T, B, I, H, dtype = shape
    if spec.no_native is not None:
        return spec.no_native
    if native.is_off():
        return "the native kernel is turned off (JRNN_NATIVE, or jrnn_native of jax.config)"
    if (missing := native.why_not()) is not None:
        return missing.rstrip(".")
    if not B:
        return "the batch is empty" if B == 0 else "the native kernel has no open batch size"
    if (missing := why_not(spec, dtype)) is not None:
        return missing
    halved = is_halved(spec, shape, "backward")
    if B < 4 and H >= 448 and not halved:
        return "XLA is faster for fewer than 4 sequences of H >= 448"
    most = 21 if halved else 19
    if B == 1 and step.number_of_blocks(spec.cell) * H * H > 2**most:
        return f"XLA is faster for one sequence where w_hh has more than 2^{most} numbers"
    if 2 * T * B < I + H:
        return "XLA is faster for few steps of few sequences, 2 T B < I + H"
    return None


def keeps_gates(spec: Spec, shape: Shape) -> bool:
    """Whether the forward pass of a gradient keeps the gates; else the backward pass computes them.

    A matmul of many steps computes them at full speed, so keeping them only pays while the arrays
    are small, or while a matmul takes longer than they do. Kept / computed, in time: 0.88 at
    T = 128, B = 32, I = H = 64 and at T = 1024, B = 1, I = 32, H = 128, and 0.81 at T = 128,
    B = 64, I = 256, H = 512 (LSTM, AMD EPYC, jaxlib 0.10.2), in about twice the memory. The native
    kernel writes them while they are in registers: it always keeps them. Under `vmap` of a gradient
    the shape is that of one call.

    The answer is the same for every platform that a program is compiled for, as it decides what the
    passes hand to each other. Where this process has no accelerator, it suits a CPU.
    """
    if not spec.cell.adjoint_reads_blocks or spec.remat is not None or spec.backend is not None:
        return False  # a backend that the call names need not know of gates
    if jax.default_backend() == "cpu" and why_not_native(spec, shape) is None:
        return reads_gates(spec.cell)
    T, B, _, H, _ = shape
    size = T * (OPEN if B is None else B) * H * step.number_of_blocks(spec.cell)
    return H >= 512 or size <= 2**23


def shape_of(inputs: Inputs) -> Shape:
    """The sizes of a call.

    Args:
        inputs: arrays or their types, of a batch or of one sequence.

    Returns:
        The `Shape`; one sequence is a batch of one.
    """
    (T, *batch), h = steps(inputs.steps.xs), inputs.start[0]
    B = batch[0] if batch else 1
    I = 0 if are_ids(inputs.steps.xs) else inputs.steps.xs.shape[-1]
    return Shape(T, None if is_symbolic_dim(B) else B, I, h.shape[-1], h.dtype)
