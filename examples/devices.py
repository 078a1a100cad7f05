"""Devices and memory of the examples.

JAX's errors about missing devices and memory become ValueErrors with the usual wording.
"""

import contextlib
import os
from collections.abc import Iterator

import jax
from command import refuse


@contextlib.contextmanager
def on_devices(options: str) -> Iterator[None]:
    """Let JAX create its devices, then run the block, whose memory is determined by `options`."""
    try:
        jax.devices()
    except Exception as error:  # RuntimeError with a reason, or any error of JAX
        reason = str(error) if isinstance(error, RuntimeError) else ""
        reason = reason.split(" (set JAX_PLATFORMS")[0].rstrip(".")
        came = ": ".join(filter(None, (jax.config.values["jax_platforms"], reason)))
        refuse("JAX_PLATFORMS", "platforms that JAX has here", came, "Unset it, or take cpu.")
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        message = str(error).split("\n")[0].rstrip(".")
        # JAX reports INTERNAL for a computation that depends on one without memory.
        signs = ("RESOURCE_EXHAUSTED", "Out of memory")
        if not isinstance(error, MemoryError) and not any(sign in message for sign in signs):
            raise
        came = message or "no more"
        refuse("memory", "as much as the run needs", came, f"Give a smaller {options}.")


def require_memory(numbers: int, what: str, options: str, devices: int = 1) -> None:
    """Refuse arrays that do not fit, before the system kills the program without a message.

    Each of the devices of this process must hold so many numbers of 32 bits; `options` determine
    them.
    """
    device, there = jax.local_devices()[0], None
    if device.platform != "cpu":
        needed, there = 4 * numbers, (device.memory_stats() or {}).get("bytes_limit")
    else:  # all devices share the memory of the machine, which not every system reports
        needed = 4 * numbers * devices
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
            there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if there is not None and needed > there:
        expected = f"at least {needed / 1e9:,.1f} GB for {what}"
        refuse("memory", expected, f"{there / 1e9:,.1f} GB", f"Give a smaller {options}.")
