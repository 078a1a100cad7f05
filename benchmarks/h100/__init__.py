"""An experiment: recurrences on an NVIDIA Hopper as one kernel per sequence, by Mosaic GPU.

XLA launches five kernels per time step; these launch one for all steps. Written and proven right
in an interpreter, compiled for an H100, and never run on one. So nothing of it is in the package:
`python -m benchmarks.h100.check` on an H100 or H200 says whether it is right there, twice the same,
and faster, and `python -m benchmarks.device` does so as one of its parts.

    one_block.py    forward and backward in bfloat16; a block of threads per 16 or 32 sequences
    split.py        forward in nearly float32, operands split into parts of bfloat16
    cluster.py      forward, hidden units split over a cluster of blocks; it may hang
    grid.py         forward, hidden units split over the grid of blocks; it may hang
    network.py      cost and gradient of a network: `one_block` between matmuls of XLA
    plain.py        what each must compute, as a scan

Mosaic GPU says of itself that it changes from week to week: jax 0.10.2 (which needs absl-py beside
it) to 0.12 is what this is written for. States are transposed, `[T, H, B]`: a matmul of Hopper's
tensor cores has at least 64 rows, and H fills them where a batch of 16 does not.
"""

from typing import Any

HOPPER = "a Hopper GPU"


def is_hopper(device: Any) -> bool:
    """Whether a JAX device is an H100, an H200 or one of their kind."""
    return str(getattr(device, "compute_capability", "")).startswith("9.")
