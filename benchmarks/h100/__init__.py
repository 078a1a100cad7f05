"""An experiment: recurrences on an NVIDIA Hopper as one kernel per sequence, with Mosaic GPU.

XLA launches five kernels per time step; these launch one kernel for all steps. They were tested in
an interpreter and compiled for an H100, but never run on one, so the package does not contain them.
`python -m benchmarks.h100.check` on an H100 or H200 checks whether they are correct, deterministic
and faster; `python -m benchmarks.device` does the same as one of its parts.

    one_block.py    forward and backward in bfloat16; one block of threads per 16 or 32 sequences
    split.py        forward in nearly float32, operands split into parts of bfloat16
    cluster.py      forward, hidden units split over a cluster of blocks; may hang
    grid.py         forward, hidden units split over the grid of blocks; may hang
    network.py      cost and gradient of a network: `one_block` between matmuls of XLA
    plain.py        the reference scans

Mosaic GPU changes often; this code is for jax 0.10.2 (which also needs absl-py) to 0.12. States are
transposed, `[T, H, B]`: a matmul of Hopper's tensor cores has at least 64 rows, which H fills and a
batch of 16 does not.
"""

from typing import Any

HOPPER = "a Hopper GPU"


def is_hopper(device: Any) -> bool:
    """Whether a JAX device is a Hopper GPU, such as an H100 or H200."""
    return str(getattr(device, "compute_capability", "")).startswith("9.")
