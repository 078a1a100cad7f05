"""Checks of arrays and losses that are split over several devices."""

from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from jrnn.checks.basics import describe, refuse


def batch_mesh(mesh: Any, axis: str) -> None:
    auto = (jax.sharding.AxisType.Auto,)
    names, types = getattr(mesh, "axis_names", None), getattr(mesh, "axis_types", None)
    if (names, types) != ((axis,), auto):
        repair = "Make it by jrnn.parallel.batch_mesh()."
        refuse("mesh", f"a mesh of one axis, {axis!r}, of type Auto", repr(mesh), repair)


def divided(argument: str, arrays: Any, specs: Any, mesh: Any) -> None:
    """Every array must have the axes that its PartitionSpec splits, divisible by the mesh."""
    n, specs = mesh.size, jax.tree.leaves(jax.tree.broadcast(specs, arrays))
    for x, spec in zip(jax.tree.leaves(arrays), specs, strict=True):
        for axis in (i for i, name in enumerate(spec) if name is not None):
            if np.ndim(x) <= axis:
                repair = "batch_spec gives the batch axis of each array."
                if argument == "carry":
                    repair = "Every array of the carry is split along axis 0: give it one value "
                    repair += "for each sequence, jnp.zeros(B)."
                refuse(argument, f"the batch on axis {axis} of every array", describe(x), repair)
            if np.shape(x)[axis] % n:
                expected = f"a batch, axis {axis}, that {n} devices divide"
                repair = "Take another batch size or other devices: jrnn.parallel.batch_mesh(n)."
                refuse(argument, expected, describe(x), repair)


def loss_of_the_whole_batch(axes: Collection[str]) -> None:
    if axes:
        repair = "Return jrnn.parallel.mean(losses, count) of this device's part."
        came = "one that differs from device to device"
        refuse("loss_fn", "the loss of the whole batch", came, repair)
