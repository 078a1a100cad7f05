"""An experiment: recurrences on an NVIDIA Hopper as one kernel per sequence, with Mosaic GPU.

XLA launches more than four kernels per time step; these launch one kernel for all steps. On an H100
they are right, the same in every run, and take half or less of the time of jrnn in bfloat16
(`benchmarks/results`). No tool could look for races in them, and Mosaic GPU changes often, so the
package does not contain them. On an H100 or H200, `python -m benchmarks.h100.check` checks whether
they are correct, deterministic and faster, and so does a part of `python -m benchmarks.device`.

    one_block.py    forward and backward in bfloat16; one block of threads per 16 or 32 sequences
    split.py        forward in nearly float32, operands split into parts of bfloat16
    network.py      cost and gradient of a network: `one_block` between matmuls of XLA
    plain.py        the reference scans

This code is for jax 0.10.2 (which also needs absl-py) to 0.12. States are
transposed, `[T, H, B]`: a matmul of Hopper's tensor cores has at least 64 rows, which H fills and a
batch of 16 does not.
"""

from typing import Any

HOPPER = "a Hopper GPU"


def is_hopper(device: Any) -> bool:
    """Whether a JAX device is a Hopper GPU, such as an H100 or H200."""
    return str(getattr(device, "compute_capability", "")).startswith("9.")
