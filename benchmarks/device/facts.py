"""Facts about the device: versions, memory, clocks, power and temperature."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks import machine
from benchmarks.device.runner import Context, words

NVIDIA = [  # fields of `nvidia-smi --help-query-gpu`
    *("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm"),
    *("clocks.mem", "power.draw", "power.limit", "temperature.gpu", "utilization.gpu"),
]


def facts(context: Context) -> Iterator[dict[str, Any] | str]:
    """Yield the machine, then its GPUs."""
    yield {
        "machine": machine.description(),
        "memory": {k: int(v) for k, v in (jax.devices()[0].memory_stats() or {}).items() if v},
        "load": os.getloadavg()[0] - 1,  # without this process
    }
    if jax.device_count() > 1:
        n = jax.device_count()
        yield f"The first of {n} devices runs all; the training step is also split over them."
    yield from nvidia_smi()


def nvidia_smi() -> Iterator[dict[str, Any] | str]:
    """Clocks, power and temperature from nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        yield "No nvidia-smi here: no clocks, no power."
        return
    query = ["nvidia-smi", f"--query-gpu={','.join(NVIDIA)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except subprocess.SubprocessError as error:
        yield f"No clocks, no power: {words(error)}"
        return
    for n, line in enumerate(said.stdout.strip().splitlines()):
        yield {"gpu": n} | dict(zip(NVIDIA, line.split(", "), strict=True))
