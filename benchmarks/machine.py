"""Describe the machine of a measurement."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

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


def description() -> dict[str, Any]:
    """Versions, backend, processor, cores, native kernel and allocator."""
    versions = {one.name: one.version for one in distributions()}
    return {
        "versions": {name: versions[name] for name in LIBRARIES if name in versions},
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "memory": {k: int(v) for k, v in (jax.devices()[0].memory_stats() or {}).items() if v},
        "gpus": gpus(),
        "processor": processor(),
        "cores": cores(),
        "native": native_kernel(),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def sentence(machine: dict[str, Any]) -> str:
    """The description as text."""
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    said = [
        "{devices} {backend} device(s), {device}; {processor}, {cores} cores.".format(**machine),
        f"Python {machine['python']}, {versions}.",
        machine["native"] if machine["backend"] == "cpu" else "",
        f"Allocator: {machine['GLIBC_TUNABLES'] or 'default (GLIBC_TUNABLES not set)'}.",
        f"XLA_FLAGS: {machine['XLA_FLAGS']}." if machine["XLA_FLAGS"] else "",
        *(f"{name} {n / 1e9:,.1f} GB." for name, n in machine["memory"].items() if "bytes" in name),
        *machine["gpus"],
    ]
    return " ".join(filter(None, said))


def gpus() -> list[str]:
    """Clocks, power and temperature of each GPU, from nvidia-smi, or why there are none."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", f"--query-gpu={','.join(NVIDIA)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except subprocess.SubprocessError as error:
        return [f"No clocks, no power: {error}."]
    lines = [zip(NVIDIA, line.split(", "), strict=False) for line in said.stdout.splitlines()]
    return [", ".join(f"{name} {value}" for name, value in line) + "." for line in lines]


def native_kernel() -> str:
    """Whether the native kernel runs here, for which instructions, and on how many cores."""
    if not native.available():
        return f"No native kernel: {native.why_not()}"
    n = cores()  # at most, of a call on one device
    off = "" if native.enabled() else "; it is turned off"
    slices = f"a batch in at most {n} slice{'s' if n > 1 else ''}"
    return f"Native kernel: {native.ISAS[native.library().isa]}, {slices}{off}."


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
