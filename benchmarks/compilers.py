"""Compilers for an NVIDIA H100 and a TPU v5e, on a machine without either.

These are the real compilers (XLA:GPU with Triton and ptxas, XLA:TPU with Mosaic), so they return
the program that the device would run. The program is not run and no time is measured: numbers of
kernels and bytes are properties of a program, its speed is not. There is one difference from a
machine with an H100: there XLA times several kernels for each matmul, here it takes its first
choice.
"""

import importlib.util
import os
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from jrnn.checks import refuse

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
INSTALL = "pip install -e '.[examples]' -r benchmarks/requirements-accelerators.txt"


class Target(NamedTuple):
    """Settings to compile for a device that is not present."""

    modules: tuple[str, ...]  # the packages of the compiler
    environment: dict[str, str]
    platform: str
    topology: dict[str, str]
    options: dict[str, Any]
    counts_all_bytes: bool  # False for a TPU: `memory_analysis` omits on-chip memory


TARGETS = {
    "H100": Target(
        modules=("jax_plugins.xla_cuda12", "nvidia.cuda_nvcc"),
        environment={"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"},  # no driver to check
        platform="cuda",
        topology={"topology": "1x1x1", "target_config": H100},
        options={"xla_gpu_autotune_level": 0},  # no device to time candidates on
        counts_all_bytes=True,
    ),
    "TPU v5e": Target(
        modules=("libtpu",),
        environment={
            "TPU_SKIP_MDS_QUERY": "1",  # no metadata server to ask
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "TPU_WORKER_HOSTNAMES": "localhost",
        },
        platform="tpu",
        topology={"topology_name": "v5e:2x2"},
        options={},
        counts_all_bytes=False,
    ),
}


class Program(NamedTuple):
    """A compiled program."""

    hlo: str
    temporary_bytes: int | None  # None if the compiler does not report it


def prepare() -> None:
    """Prepare JAX for the compilers. Call it before JAX looks for devices.

    Raises:
        ValueError: a compiler is not installed.
    """
    for device, target in TARGETS.items():
        missing = [module for module in target.modules if not _installed(module)]
        if missing:
            expected = f"its compiler, {' and '.join(target.modules)}"
            refuse(device, expected, f"no {' and no '.join(missing)}", INSTALL)
        for name, value in target.environment.items():
            os.environ.setdefault(name, value)


def compile_for(device: str, jitted: Any, *args: Any) -> Program:
    """Compile a function for a device that is not present, after `prepare()`.

    Args:
        device: a name in `TARGETS`.
        jitted: a function from `jax.jit`.
        *args: pytrees of arrays or `jax.ShapeDtypeStruct`.

    Returns:
        The `Program`.
    """
    target = TARGETS[device]
    topology = topologies.get_topology_desc(platform=target.platform, **target.topology)
    sharding = SingleDeviceSharding(topology.devices[0])

    def placed(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    traced = jitted.trace(*jax.tree.map(placed, args))
    # JAX resolves "gpu" to "cuda" only if it finds a GPU, so use the exact name.
    lowered = traced.lower(lowering_platforms=(target.platform,))
    compiled = lowered.compile(compiler_options=target.options)
    temporary = compiled.memory_analysis().temp_size_in_bytes
    return Program(compiled.as_text(), temporary if target.counts_all_bytes else None)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
