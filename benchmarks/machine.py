"""What a figure was measured on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from jrnn.parallel import _cpu_cores as cores

LIBRARIES = ["jrnn", "jax", "jaxlib", "flax", "dm-haiku", "keras", "equinox", "torch"]
LIBRARIES += ["libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin"]  # compilers


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
