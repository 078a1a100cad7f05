"""Several devices: the batch split over them, the parameters whole on each, the gradients summed.

Device d runs its own part of the batch from the first step to the last and waits for nobody. The
devices meet once per training step, after the loops, to sum three things (6):

    J = sum_d total_d / sum_d N_d                dJ/dw = sum_d dJ/dw_d

total_d is the sum of the losses of part d, N_d what it counts, w_d the copy of w on device d. The
devices are CPU cores, or GPUs, or TPUs: a mesh of one axis, "batch", and `jax.shard_map` over it.
"""

import math
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jrnn import checks
from jrnn.arrays import mesh_axes

BATCH = "batch"  # the one axis of the mesh

ValueAndGrad = Callable[[Any, Any, Any, jax.Array], tuple[tuple[jax.Array, Any], Any]]


def use_cpu_cores(n: int | None = None) -> None:
    """Make n CPU cores n JAX devices. To be called before JAX has made its devices.

    It sets `jax_num_cpu_devices`. A GPU or a TPU stays the device that JAX prefers.

    Args:
        n: the number of cores; None is all that this process may use.

    Raises:
        ValueError: n is below 1 or more than the cores there are, or JAX has already made another
            number of devices, as it does when anything is computed or asked of `jax.devices()`.
    """
    cores = _cpu_cores()
    n = cores if n is None else n
    checks.sizes(n=n)
    if n > cores:
        repair = "More devices than cores would take turns; None is all cores."
        checks.refuse("n", f"at most {cores}, the cores of this process", n, repair)
    try:
        jax.config.update("jax_num_cpu_devices", n)
    except RuntimeError:
        came = f"JAX that runs on {_count(jax.devices())}"
        repair = "Call it right after the imports, before anything is computed."
        checks.refuse("use_cpu_cores", "JAX that has made no device yet", came, repair)


def _cpu_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux; elsewhere a process may use every core
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _count(devices: Any) -> str:
    return f"{len(devices)} {devices[0].platform} device{'s' if len(devices) > 1 else ''}"


def batch_mesh(devices: int | None = None) -> Mesh:
    """The mesh that a batch is split over.

    Args:
        devices: how many of `jax.devices()`; None is all of them.

    Returns:
        A `Mesh` of the first of `jax.devices()` along one axis, "batch".

    Raises:
        ValueError: `devices` is below 1 or more than there are.
    """
    there = jax.devices()
    devices = len(there) if devices is None else devices
    checks.sizes(devices=devices)
    if devices > len(there):
        repair = "CPU cores become devices by jrnn.parallel.use_cpu_cores()."
        checks.refuse("devices", f"at most the {_count(there)} of JAX", devices, repair)
    return jax.make_mesh((devices,), (BATCH,), (AxisType.Auto,), devices=there[:devices])


def mean(total: Any, count: Any) -> jax.Array:
    """total / count of the whole batch, from the part of it that is here: (6) with m_t = 1/N.

    In a loss that is split over devices both are summed over them; elsewhere it is a division. So
    one loss serves both:

        losses = jrnn.softmax_cross_entropy(logits, labels, mask)
        return jrnn.parallel.mean(losses.sum(), mask.sum()), h_last

    A term of the parameters alone belongs into the total, times the count.

    Args:
        total: `[]`, the sum of the losses of this part.
        count: `[]`, N, what this part counts: `labels.size`, or the sum of a mask or of weights.

    Returns:
        `[]`, the same on every device.
    """
    total = jnp.asarray(total)
    count = jnp.asarray(count).astype(total.dtype)
    axes = mesh_axes(total) | mesh_axes(count)
    return _sum_over(axes, total) / _sum_over(axes, count)


def _sum_over(axes: frozenset[str], x: jax.Array) -> jax.Array:
    """The sum over the devices; no device needs another's x where all have the same."""
    differs = mesh_axes(x)
    same = math.prod(jax.lax.axis_size(axis) for axis in axes - differs)
    return (jax.lax.psum(x, tuple(differs)) if differs else x) * same


def split_value_and_grad(value_and_grad: ValueAndGrad, mesh: Mesh, batch_spec: Any) -> ValueAndGrad:
    """Run it on every device with that device's part of the carry and of the batch.

    Args:
        value_and_grad: `(params, carry, batch, key) -> ((loss [], carry), gradient in params)`.
        mesh: of `batch_mesh`.
        batch_spec: a `PartitionSpec` for every array of the batch, or one for all.

    Returns:
        The same function of the whole arrays: the loss, which must be the same on every device, the
        carry put together, and the gradient summed.

    Raises:
        ValueError: a mesh of another kind; when called, a carry or a batch that the devices do not
            divide, or a loss of a part of the batch alone.
    """
    checks.batch_mesh(mesh, BATCH)

    def on_one_device(params: Any, carry: Any, batch: Any, key: jax.Array) -> Any:
        key = jax.random.fold_in(key, jax.lax.axis_index(BATCH))
        # Each device differentiates in its own copy. JAX would sum the gradient wherever a shared
        # parameter is used, inside of a loop at every step.
        params = jax.lax.pcast(params, BATCH, to="varying")
        (loss, carry), gradient = value_and_grad(params, carry, batch, key)
        checks.loss_of_the_whole_batch(loss, mesh_axes(loss))
        return (loss, carry), jax.lax.psum(gradient, BATCH)

    whole, split = PartitionSpec(), PartitionSpec(BATCH)
    on_all_devices = jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(whole, split, batch_spec, whole),
        out_specs=((whole, split), whole),
    )

    def checked(params: Any, carry: Any, batch: Any, key: jax.Array) -> Any:
        checks.divided("carry", carry, split, mesh)
        checks.divided("batch", batch, batch_spec, mesh)
        return on_all_devices(params, carry, batch, key)

    return checked


# --- several processes ---------------------------------------------------------------------------


def own_part(streams: Any) -> Any:
    """What this process reads of a batch of streams: its columns.

    Args:
        streams: `[N, B]`, the same in every process; a memory-mapped file is not read by this.

    Returns:
        `[N, B / P]`, of P processes; all of it where there is one.

    Raises:
        ValueError: the processes do not divide the streams.
    """
    count, index = jax.process_count(), jax.process_index()
    B = streams.shape[1]
    if B % count:
        repair = "Take another batch size, or another number of processes."
        checks.refuse("streams", f"a multiple of {count} processes", B, repair)
    return streams[:, index * B // count : (index + 1) * B // count]


def whole_batch(batch: Any, mesh: Mesh, batch_spec: Any = PartitionSpec(None, BATCH)) -> Any:  # noqa: B008
    """One batch over all devices, of which every process gives its own part.

    Args:
        batch: a pytree of this process' arrays, `[T, B / P]` or `[T, B / P, I]` as a rule.
        mesh: of `batch_mesh`, with devices of every process.
        batch_spec: as for `training.make_train_step`.

    Returns:
        The same pytree of arrays `[T, B]`, `[T, B, I]` on the mesh. Of one process it is the batch
        as it came, which a jitted step splits on the way in, and faster.
    """
    if jax.process_count() == 1:
        return batch
    specs = jax.tree.broadcast(batch_spec, batch)
    return jax.tree.map(
        lambda x, spec: jax.make_array_from_process_local_data(NamedSharding(mesh, spec), x),
        batch,
        specs,
    )


def check_agreement(settings: Mapping[str, Any]) -> None:
    """Compare what every process was started with. All of them must call it.

    Args:
        settings: values by name, whose `repr` is compared.

    Raises:
        ValueError: on every process, where some differ; it names them.
    """
    sums = [zlib.crc32(repr(value).encode()) for value in settings.values()]
    everyone = multihost_utils.process_allgather(np.array(sums, np.uint32)).reshape(-1, len(sums))
    differ = [name for name, own in zip(settings, everyone.T, strict=True) if len(set(own)) > 1]
    if differ:
        came = ", ".join(f"{name} {settings[name]!r}" for name in differ)
        where = f"in process {jax.process_index()}, and not in all others"
        repair = "Start all with the same options and data."
        checks.refuse("processes", "the same settings in all", f"{came} {where}", repair)
