"""Shared parts of the examples: numbers on the command line, and one-line errors.

A number on the command line is an integer in int32 or a float in float32. JAX's errors about
missing devices and memory become ValueErrors with the usual wording.
"""

import contextlib
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator

import jax
import numpy as np

from jrnn.checks import refuse
from jrnn.extras import install

try:  # all packages of a run, before it begins
    import matplotlib as matplotlib
    import safetensors as safetensors
    import tqdm as tqdm
    from orbax import checkpoint as checkpoint
except ImportError as error:
    sys.exit(f"error: {error.name} is missing: {install('train')}")


def positive(text: str) -> int:
    """An integer above 0, for argparse."""
    return _integer(text, 1)


def not_negative(text: str) -> int:
    """An integer of at least 0, for argparse."""
    return _integer(text, 0)


def _integer(text: str, least: int) -> int:
    with contextlib.suppress(ValueError):
        if least <= int(text) < 2**31:
            return int(text)
    raise ArgumentTypeError(f"expected an integer from {least} to {2**31 - 1:,}; got {text!r}")


def positive_float(text: str) -> float:
    """A number above 0, for argparse."""
    least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    with contextlib.suppress(ValueError):
        if least <= float(text) <= most:
            return float(text)
    raise ArgumentTypeError(f"expected a number from {least:.3g} to {most:.3g}; got {text!r}")


@contextlib.contextmanager
def on_devices(options: str) -> Iterator[None]:
    """Let JAX create its devices, then run the block.

    Args:
        options: the options that determine the memory, for the message.

    Raises:
        ValueError: the device does not exist, or the memory is too small.
    """
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

    Args:
        numbers: how many numbers of 32 bits a device must hold at least.
        what: what they are, for the message.
        options: the options that determine them, for the message.
        devices: the devices of this process; each holds as many.

    Raises:
        ValueError: they need more memory than the machine has.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":  # all devices share the memory of the machine
        needed, there = 4 * numbers * devices, _memory_of_the_machine()
    else:
        needed, there = 4 * numbers, (device.memory_stats() or {}).get("bytes_limit")
    if there is not None and needed > there:
        expected = f"at least {needed / 1e9:,.1f} GB for {what}"
        refuse("memory", expected, f"{there / 1e9:,.1f} GB", f"Give a smaller {options}.")


def _memory_of_the_machine() -> int | None:
    """The memory in bytes, or None if the system does not report it."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
