"""Compile the gradients for an H100 and a TPU v5e, on a machine without either, and count.

    python -m benchmarks.accelerators    # T, B, I, H = 512, 32, 128, 256

The compilers need one version of jax, so an environment of their own, with `INSTALL`.

It prints the operations of the loops per time step (`hlo.py`), forward + backward, of the programs
that the devices would run; but XLA takes its first kernel for each matmul here, where it would time
several on an H100. On a GPU an operation is a kernel launch, which takes most of the time of a
small recurrence; on a TPU it is a step of the schedule. Nothing is run.
"""

import argparse
import os
import sys
from functools import partial
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks import kernel, machine, report
from benchmarks.cases import CASES, CELLS, TOY_CASES, Case, Group
from benchmarks.hlo import loop_operations
from benchmarks.report import Record, Results

INSTALL = "pip install -e '.[examples]' -r benchmarks/requirements-accelerators.txt"
RIVALS = ["autodiff", "flax", "haiku"]
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
ENVIRONMENT = {
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # no driver to check
    "TPU_SKIP_MDS_QUERY": "1",  # no metadata server to ask
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
TARGETS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {  # platform, topology, options
    "H100": (
        "cuda",
        {"topology": "1x1x1", "target_config": H100},
        {"xla_gpu_autotune_level": 0},  # no device to time candidates on
    ),
    "TPU v5e": ("tpu", {"topology_name": "v5e:2x2"}, {}),
}


def compile_for(target: Any, jitted: Any, *args: Any) -> Any:
    """Compile a jitted function of arrays for one of `TARGETS`, with `ENVIRONMENT` set."""
    platform, described, options = target
    topology = topologies.get_topology_desc(platform=platform, **described)
    sharding = SingleDeviceSharding(topology.devices[0])

    def placed(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    traced = jitted.trace(*jax.tree.map(placed, args))
    # JAX resolves "gpu" to "cuda" only if it finds a GPU, so use the exact name.
    return traced.lower(lowering_platforms=(platform,)).compile(compiler_options=options)


def counted(case: Case, cell: str, rivals: list[str]) -> Results:
    """A record of every program of a cell."""
    group = Group(case, cell=cell)
    for one in kernel.recurrences(group, rivals):
        params, xs, y = kernel.arguments(group, one)
        jitted = jax.jit(kernel.cost_and_gradient(one))
        found: Record = {"table": "Operations", "T, B, I, H": f"{cell}, {case}"}
        found["program"] = one.name
        for name, target in TARGETS.items():
            compiled = compile_for(target, jitted, one.own(params), xs, y)
            forward, backward = (n / case.T for n in loop_operations(compiled.as_text()))
            found[name] = f"{forward:.2f} + {backward:.2f} = {forward + backward:.2f}"
        yield found


def results(args: argparse.Namespace) -> Results:
    """The records of all cells."""
    os.environ.update(ENVIRONMENT)  # JAX reads it when it looks for devices
    yield f"{machine.versions()}; {INSTALL}"
    case = TOY_CASES[1] if args.toy else CASES[2]
    tasks = {cell: partial(counted, case, cell) for cell in CELLS}
    yield from report.in_order(tasks, RIVALS, args.minutes)


if __name__ == "__main__":
    sys.exit(report.run(report.parser("accelerators", __doc__).parse_args(), results))
