"""Devices and processes of a run of the character model."""

import argparse
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jrnn.checks import refuse
from jrnn.parallel import batch_mesh

HEARTBEAT_SECONDS = 30  # if a process dies, the others end after this time
MOST_SAID = 2000  # bytes of an error message for the other processes


def join(args: argparse.Namespace) -> None:
    """Join several processes with JAX's runtime; call it before JAX creates its devices."""
    flags = (args.coordinator, args.processes, args.process)
    if args.cluster or any(flag is not None for flag in flags):
        if not args.cluster and None in flags:
            repair = "Give all three, or --cluster, where Slurm, MPI or the cloud knows them."
            came = dict(zip(("--coordinator", "--processes", "--process"), flags, strict=True))
            refuse("processes", "a coordinator, their number and one's own", came, repair)
        jax.distributed.initialize(*flags, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


def choose_devices(devices: int | Literal["all"] | None, batch_size: int) -> Mesh:
    """The mesh of `--devices`, which must divide the streams; all devices of all processes."""
    if jax.process_count() > 1:
        if devices not in (None, "all"):
            refuse("--devices", "all, with several processes", devices, "Leave it out.")
        devices = "all"
    if devices is None:
        there = range(1, len(jax.devices()) + 1)
        devices = max(n for n in there if batch_size % n == 0)
    mesh = batch_mesh(None if devices == "all" else devices)
    if batch_size % mesh.size:
        repair = "Take another batch size, or other --devices."
        refuse("--batch-size", f"a multiple of the {mesh.size} devices", batch_size, repair)
    return mesh


def describe_devices(mesh: Mesh) -> str:
    """The number and kind of the devices."""
    return f"{mesh.size} {mesh.devices[0].platform}"


def together(do: Callable[[], None]) -> None:
    """Run a function in every process; if one fails, all end with its error."""
    error: Exception | None = None
    try:
        do()
    except (OSError, ValueError) as caught:
        error = caught
    if jax.process_count() > 1:
        text = (
            str(error or "").encode(errors="backslashreplace")[:MOST_SAID].ljust(MOST_SAID, b"\0")
        )
        everyones = multihost_utils.process_allgather(np.frombuffer(text, np.uint8))
        said = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in everyones]
        if any(said) and error is None:
            error = ValueError(next(filter(None, said)))
    if error is not None:
        raise error
