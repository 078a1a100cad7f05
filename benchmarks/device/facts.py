"""Facts about the device: versions, clocks, memory, and the speed of simple operations."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import machine
from benchmarks.device.runner import Context, words
from benchmarks.measuring import compile_program, matmul_size, time_in_turn

ROUNDS = 5
NVIDIA = [  # fields of `nvidia-smi --help-query-gpu`
    *("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm"),
    *("clocks.mem", "power.draw", "power.limit", "temperature.gpu", "utilization.gpu"),
]


def facts(context: Context) -> Iterator[dict[str, Any] | str]:
    """Yield the machine, then its GPUs, then the speeds."""
    yield {
        "machine": machine.description(),
        "memory": {k: int(v) for k, v in (jax.devices()[0].memory_stats() or {}).items() if v},
        "load": os.getloadavg()[0] - 1,  # without this process
    }
    if jax.device_count() > 1:
        n = jax.device_count()
        yield f"The first of {n} devices runs all; the training step is also split over them."
    yield from nvidia_smi()
    yield from speeds(context.options["toy"])


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


def speeds(toy: bool) -> Iterator[dict[str, Any]]:
    """Time matmuls at each precision, and the overhead of a call and of a step of a loop.

    The overheads dominate a recurrence of small matmuls.
    """
    size, T = matmul_size(toy), 10 if toy else 1000
    wide, narrow = (jnp.ones((size, size), dtype) for dtype in (jnp.float32, jnp.bfloat16))
    one, rows = jnp.ones((8, 128)), jnp.ones((T, 8, 128))

    def loop(h: Any, xs: Any) -> Any:
        return jax.lax.scan(lambda h, x: (jnp.tanh(h + x),) * 2, h, xs)

    highest = partial(jnp.matmul, precision="highest")
    teraflop = 2 * size**3 / 1e12
    given: dict[str, tuple[Any, tuple[Any, ...], float]] = {
        f"matmul of {size}^3, float32, default precision": (jnp.matmul, (wide, wide), teraflop),
        f'matmul of {size}^3, float32, "highest"': (highest, (wide, wide), teraflop),
        f"matmul of {size}^3, bfloat16": (jnp.matmul, (narrow, narrow), teraflop),
        "a call of one operation": (jnp.tanh, (one,), 1),
        "a step of a loop of one operation": (loop, (one, rows), T),
    }
    programs = [compile_program(name, f, args, dict) for name, (f, args, _) in given.items()]
    times = time_in_turn(programs, ROUNDS)
    for name, (_, _, work) in given.items():
        seconds = times[name].minimum / work
        speed, unit = (1 / seconds, "TFLOP/s") if work == teraflop else (1e6 * seconds, "us")
        yield {"what": name, "speed": speed, "unit": unit}
