"""Describe the machine of a measurement."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import jax

from jrnn import native
from jrnn.native import cpu_cores as cores

LIBRARIES = ["jrnn", "jax", "jaxlib", "flax", "dm-haiku", "keras", "torch"]
LIBRARIES += ["libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin"]  # compilers
VECTOR_UNITS = {  # by their flags in Linux
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 of bfloat16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "sve": "SVE",
    "asimd": "NEON",
}
NVIDIA = [  # fields of `nvidia-smi --help-query-gpu`
    *("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm"),
    *("clocks.mem", "power.draw", "power.limit", "temperature.gpu", "utilization.gpu"),
]


def description() -> str:
    """Backend, processor, cores, versions, native kernel, settings and GPUs."""
    backend, device = jax.default_backend(), jax.devices()[0]
    memory = device.memory_stats() or {}
    said = [
        f"{jax.device_count()} {backend} device(s), {device.device_kind};",
        f"{processor()}, {cores()} cores.",
        f"Python {platform.python_version()}, {versions()}.",
        native_kernel() if backend == "cpu" else "",
        *(f"{name} {os.environ.get(name, 'not set')}." for name in ("GLIBC_TUNABLES", "XLA_FLAGS")),
        *(f"{name} {n / 1e9:,.1f} GB." for name, n in memory.items() if n and "bytes" in name),
        gpus(),
    ]
    return " ".join(filter(None, said))


def versions() -> str:
    """The installed versions of the libraries that take part."""
    found = {one.name: one.version for one in distributions()}
    return ", ".join(f"{name} {found[name]}" for name in LIBRARIES if name in found)


def gpus() -> str:
    """Clocks, power and temperature of each GPU, from nvidia-smi, or why there are none."""
    if not shutil.which("nvidia-smi"):
        return ""
    query = ["nvidia-smi", f"--query-gpu={','.join(NVIDIA)}", "--format=csv"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except subprocess.SubprocessError as error:
        return f"No clocks, no power: {error}."
    return f"{'; '.join(said.splitlines())}."


def native_kernel() -> str:
    """Whether the native kernel runs here, for which instructions, on at most how many cores."""
    if not native.available():
        return f"No native kernel: {native.why_not()}"
    off = "" if native.enabled() else "; it is turned off"
    return f"Native kernel: {native.ISAS[native.library().isa]}, on {cores()} core(s){off}."


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name and vector units of the processor, on which times and ratios depend."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    fields = dict(re.findall(r"^(.*?)\s*: (.*)$", text, re.M))
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:  # distinguishes processors if a virtual machine shortens the name
        name += f", family {fields['cpu family']}, model {fields['model']}"
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    units = [unit for flag, unit in VECTOR_UNITS.items() if flag in flags]
    return f"{name} ({', '.join(units)})" if units else name
