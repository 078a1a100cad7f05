"""What a figure was measured on, and how many devices JAX is to have there."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from jrnn.checks import refuse

LIBRARIES = ["jrnn", "jax", "jaxlib", "flax", "dm-haiku", "keras", "equinox", "torch"]
LIBRARIES += ["libtpu", "jax-cuda12-plugin"]  # compilers


def cores() -> int:
    """The CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def set_devices(n: int | None) -> None:
    """Give JAX n CPU devices, a core each by default; a GPU or TPU has the devices that it has.

    One device uses every core however many there are, so the routes without a mesh lose nothing.
    """
    n = cores() if n is None else n
    jax.config.update("jax_num_cpu_devices", n)
    if jax.device_count() < n and jax.default_backend() != "cpu":
        there = f"{jax.device_count()} of {jax.default_backend()}"
        refuse("--devices", "as many as there are, or fewer", f"{n} with {there}", "Ask for fewer.")


def description() -> dict[str, Any]:
    """Versions, backend, cores and allocator."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cores": cores(),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def sentence(machine: dict[str, Any]) -> str:
    """The same as text."""
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    allocator = machine["GLIBC_TUNABLES"] or "default (GLIBC_TUNABLES not set)"
    flags = f" XLA_FLAGS: {machine['XLA_FLAGS']}." if machine["XLA_FLAGS"] else ""
    return (
        f"{machine['devices']} {machine['backend']} device(s), {machine['device']}; "
        f"{machine['processor']}, {machine['cores']} cores. "
        f"Python {machine['python']}, {versions}. "
        f"Allocator: {allocator}.{flags}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
