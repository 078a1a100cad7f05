"""Devices and processes of a run."""

from typing import Literal

import jax
from command import refuse
from jax.sharding import Mesh

from jrnn.parallel import batch_mesh

from .settings import Settings

HEARTBEAT_SECONDS = 30  # if a process dies, the others end after this time


def join(settings: Settings) -> None:
    """Join several processes with JAX's runtime; call it before JAX creates its devices."""
    flags = (settings.coordinator, settings.processes, settings.process)
    if settings.cluster or any(flag is not None for flag in flags):
        if not settings.cluster and None in flags:
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
