"""Facts about the device: versions, clocks, memory, and the speed of simple operations."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import machine
from benchmarks.device.runner import Context, words
from benchmarks.h100 import HOPPER, is_hopper
from benchmarks.measuring import Program, compile_program, matmul_size, time_in_turn
from benchmarks.rivals import PACKAGES

ROUNDS = 5
NVIDIA = [  # fields of `nvidia-smi --help-query-gpu`
    *("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm"),
    *("clocks.mem", "power.draw", "power.limit", "temperature.gpu", "utilization.gpu"),
]


def facts(context: Context) -> Iterator[dict[str, Any] | str]:
    """Yield the device, then missing libraries, then the speeds."""
    device = jax.devices()[0]
    offers = [HOPPER] if is_hopper(device) else []
    yield {
        "machine": machine.description(),
        "memory": {k: int(v) for k, v in (device.memory_stats() or {}).items() if v},
        "offers": offers,
        "load": os.getloadavg()[0] - 1,  # without this process
    }
    if jax.device_count() > 1:
        yield f"Everything runs on the first of {jax.device_count()} devices."
    yield from nvidia_smi()
    yield from missing()
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


def missing() -> Iterator[str]:
    """Yield a line for each missing library that other parts would use."""
    absent = [name for name, module in PACKAGES.items() if not importlib.util.find_spec(module)]
    if absent:
        yield (
            f"Not installed, so not compared: {', '.join(absent)} "
            "(pip install -r benchmarks/requirements.txt)."
        )


def speeds(toy: bool) -> Iterator[dict[str, Any]]:
    """Time matmuls at each precision, and the overhead of a call and of a step of a loop.

    The overheads dominate a recurrence of small matmuls.
    """
    size, T = matmul_size(toy), 10 if toy else 1000
    wide, narrow = (jnp.ones((size, size), dtype) for dtype in (jnp.float32, jnp.bfloat16))
    one, rows = jnp.ones((8, 128)), jnp.ones((T, 8, 128))

    def highest(a: Any, b: Any) -> Any:
        return jnp.matmul(a, b, precision="highest")

    def loop(h: Any, xs: Any) -> Any:
        return jax.lax.scan(lambda h, x: (jnp.tanh(h + x),) * 2, h, xs)

    given: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "matmul, float32, default precision": (jnp.matmul, (wide, wide)),
        'matmul, float32, "highest"': (highest, (wide, wide)),
        "matmul, bfloat16": (jnp.matmul, (narrow, narrow)),
        "a call of one operation": (jnp.tanh, (one,)),
        "a step of a loop of one operation": (loop, (one, rows)),
    }
    programs: list[Program] = [
        compile_program(name, f, args, lambda result: {}) for name, (f, args) in given.items()
    ]
    times = time_in_turn(programs, ROUNDS)
    for name, time in times.items():
        if name.startswith("matmul"):
            yield {"what": f"{name}, {size}^3", "tflops": 2 * size**3 / time.minimum / 1e12}
        else:
            yield {"what": name, "us": 1e6 * time.minimum / (T if "loop" in name else 1)}
