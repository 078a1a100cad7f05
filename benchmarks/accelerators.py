"""Compile the gradients for an H100 and a TPU v5e, on a machine without either, and count.

    python -m benchmarks.accelerators                          # T, B, I, H = 512, 32, 128, 256
    python -m benchmarks.accelerators --rows 1 4 --cells lstm  # other rows of `cases.py`

Install first, in a separate environment (the compilers need one version of jax):

    pip install -e '.[examples]' -r benchmarks/requirements-accelerators.txt

It prints the operations of the loops per time step (`hlo.py`), forward + backward, and temporary
bytes, of the programs that the devices would run; but XLA takes its first kernel for each matmul
here, where it would time several on an H100. On a GPU an operation is a kernel launch, which takes
most of the time of a small recurrence; on a TPU it is a step of the schedule. Nothing is run.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks import cases, kernel, machine, report
from benchmarks.hlo import loop_operations

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
HEADER = ["T, B, I, H", "program", *TARGETS, "H100, MB"]  # of a TPU on-chip memory is omitted


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


def counted(row: int, cell: str) -> Iterator[list[str]]:
    """A line of the table for every program."""
    group = cases.Group(row, cases.CASES[row], cell=cell)
    for one in kernel.recurrences(group, RIVALS):
        params, xs, y = kernel.arguments(group, one)
        jitted = jax.jit(kernel.cost_and_gradient(one))
        programs = [compile_for(t, jitted, one.own(params), xs, y) for t in TARGETS.values()]
        line = [f"{cell}, {group.case}", one.name]
        for program in programs:
            forward, backward = (n / group.case.T for n in loop_operations(program.as_text()))
            line.append(f"{forward:.2f} + {backward:.2f} = {forward + backward:.2f}")
        temporary = programs[0].memory_analysis().temp_size_in_bytes
        yield [*line, report.number(temporary / 1e6)]


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 if a compiler or a library is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerators", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--rows", nargs="+", type=int, choices=cases.CASES, default=[2])
    parser.add_argument("--cells", nargs="+", choices=cases.CELLS, default=list(cases.CELLS))
    args = parser.parse_args(argv)
    os.environ.update(ENVIRONMENT)  # JAX reads it when it looks for devices
    try:
        rows = [line for cell in args.cells for row in args.rows for line in counted(row, cell)]
    except (ImportError, ValueError, RuntimeError) as error:  # of a rival, a compiler
        install = (__doc__ or "").split("\n\n")[3].strip()
        print(f"error: {error}\nIs everything installed? {install}", file=sys.stderr)
        return 1
    versions = machine.description()["versions"]
    print(", ".join(f"{name} {version}" for name, version in versions.items()), end="\n\n")
    print(report.table(HEADER, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
