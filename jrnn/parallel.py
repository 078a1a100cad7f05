"""Data parallelism: the batch is split over devices, parameters are replicated, gradients summed.

Device d runs its part of the batch from the first to the last time step without synchronisation.
Once per training step, after the loops, the devices sum three things (6):

    J = sum_d total_d / sum_d N_d                dJ/dw = sum_d dJ/dw_d

total_d is the sum of the losses of part d, N_d the number of terms, w_d the copy of w on device d.
The devices (CPU cores, GPUs or TPUs) form a mesh with one axis, "batch", for `jax.shard_map`.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jrnn import checks
from jrnn.arrays import at_least_float32, mesh_axes
from jrnn.native import cpu_cores

BATCH = "batch"  # the one axis of the mesh
MOST_SAID = 2000  # bytes of an error message for the other processes

ValueAndGrad = Callable[[Any, Any, Any, jax.Array], tuple[tuple[jax.Array, Any], Any]]


def use_cpu_cores(n: int | None = None) -> None:
    """Make n CPU cores n JAX devices. Call it before JAX creates its devices.

    It sets `jax_num_cpu_devices`. JAX still prefers a GPU or a TPU.

    Args:
        n: the number of cores; None for all that this process may use.

    Raises:
        ValueError: n is below 1 or above the number of cores, or JAX has already created another
            number of devices, for example in a computation or in `jax.devices()`.
    """
    cores = cpu_cores()
    n = cores if n is None else n
    checks.sizes(n=n)
    n = int(n)  # JAX refuses integers of NumPy
    if n > cores:
        repair = "More devices than cores would take turns; None is all cores."
        checks.refuse("n", f"at most {cores}, the cores of this process", n, repair)
    try:
        jax.config.update("jax_num_cpu_devices", n)
    except RuntimeError:
        came = f"JAX that runs on {_count(jax.devices())}"
        repair = "Call it right after the imports, before anything is computed."
        checks.refuse("use_cpu_cores", "JAX that has made no device yet", came, repair)


def _count(devices: Any) -> str:
    return f"{len(devices)} {devices[0].platform} device{'s' if len(devices) > 1 else ''}"


def batch_mesh(devices: int | None = None) -> Mesh:
    """Make the mesh over which a batch is split.

    Args:
        devices: the number of devices; None for all of `jax.devices()`.

    Returns:
        A `Mesh` of the first `devices` of `jax.devices()` with one axis, "batch".

    Raises:
        ValueError: `devices` is below 1 or above the number of devices.
    """
    there = jax.devices()
    devices = len(there) if devices is None else devices
    checks.sizes(devices=devices)
    if devices > len(there):
        repair = "CPU cores become devices by jrnn.parallel.use_cpu_cores()."
        checks.refuse("devices", f"at most the {_count(there)} of JAX", devices, repair)
    return jax.make_mesh((devices,), (BATCH,), (AxisType.Auto,), devices=there[:devices])


def mean(total: Any, count: Any) -> jax.Array:
    """The mean of (6) with m_t = 1/N over the whole batch, from this device's part.

    Under a mesh, both are summed over the devices first; elsewhere this is a plain division. So
    one loss function works in both cases:

        losses = jrnn.softmax_cross_entropy(logits, labels, mask)
        return jrnn.parallel.mean(losses, mask), h_last

    Add a term that depends only on the parameters to the sum of the losses, multiplied by `count`.

    Args:
        total: the losses of this part, which are summed in at least float32 (a sum in float16 ends
            at 65,504); or `[]`, their sum.
        count: `[]`, N of this part, such as `labels.size`; or a mask or weights in the shape of the
            losses, which are summed.

    Returns:
        `[]`, the same on every device, in at least float32; NaN where N is 0.
    """
    total = at_least_float32(total).sum()  # float16 has no count of 70,000
    count = jnp.asarray(count).astype(total.dtype).sum()
    axes = mesh_axes(total) | mesh_axes(count)
    return _sum_over(axes, total) / _sum_over(axes, count)


def _sum_over(axes: frozenset[str], x: jax.Array) -> jax.Array:
    """The sum over the devices, without communication over axes along which x is equal."""
    differs = mesh_axes(x)
    same = math.prod(jax.lax.axis_size(axis) for axis in axes - differs)
    return (jax.lax.psum(x, tuple(differs)) if differs else x) * same


def split_value_and_grad(value_and_grad: ValueAndGrad, mesh: Mesh, batch_spec: Any) -> ValueAndGrad:
    """Run a function on every device with its part of the carry and of the batch.

    Args:
        value_and_grad: `(params, carry, batch, key) -> ((loss [], carry), gradient in params)`.
        mesh: from `batch_mesh`.
        batch_spec: one `PartitionSpec` for all arrays of the batch, or one for each.

    Returns:
        The same function for whole arrays: it returns the loss, which must be equal on every
        device, the whole carry, and the sum of the gradients.

    Raises:
        ValueError: a mesh that is not from `batch_mesh`; when called, a carry or a batch that the
            devices do not divide, or a loss that differs between devices.
    """
    checks.batch_mesh(mesh, BATCH)

    def on_one_device(params: Any, carry: Any, batch: Any, key: jax.Array) -> Any:
        key = jax.random.fold_in(key, jax.lax.axis_index(BATCH))
        # Each device differentiates with its own copy. With shared parameters JAX would sum the
        # gradient at every use, that is, at every step of the loop.
        params = jax.lax.pcast(params, BATCH, to="varying")
        (loss, carry), gradient = value_and_grad(params, carry, batch, key)
        checks.loss_of_the_whole_batch(mesh_axes(loss))
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
    """Select the columns of a batch of streams that this process reads.

    Args:
        streams: `[N, B]`, the same in every process; a memory-mapped file is not read here.

    Returns:
        `[N, B / P]` for P processes.

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
    """Make one batch over all devices from the parts of all processes.

    Args:
        batch: a pytree of the arrays of this process, usually `[T, B / P]` or `[T, B / P, I]`.
        mesh: from `batch_mesh`, with devices of every process.
        batch_spec: as for `training.make_train_step`.

    Returns:
        The same pytree with arrays `[T, B]`, `[T, B, I]` on the mesh. With one process, `batch`
        unchanged: a jitted step splits it faster.
    """
    if jax.process_count() == 1:
        return batch
    specs = jax.tree.broadcast(batch_spec, batch)
    return jax.tree.map(
        lambda x, spec: jax.make_array_from_process_local_data(NamedSharding(mesh, spec), x),
        batch,
        specs,
    )


def together(do: Callable[[], Any]) -> None:
    """Run a function in every process; if it fails in one of them, it fails in all.

    Without this the others would wait in their next joint computation. Every process must call it.

    Args:
        do: a function of the process, such as one that writes a file in process 0.

    Raises:
        Exception: the error of this process.
        ValueError: with the text of another process's error.
    """
    error: Exception | None = None
    try:
        do()
    except Exception as caught:
        error = caught
    if jax.process_count() > 1:
        text = "" if error is None else str(error) or type(error).__name__
        own = text.encode(errors="backslashreplace")[:MOST_SAID]
        padded = np.frombuffer(own.ljust(MOST_SAID, b"\0"), np.uint8)
        everyones = multihost_utils.process_allgather(padded)
        said = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in everyones]
        if any(said) and error is None:
            error = ValueError(next(filter(None, said)))
    if error is not None:
        raise error


def check_agreement(settings: Mapping[str, Any]) -> None:
    """Compare the settings of all processes. Every process must call it.

    Args:
        settings: values by name; their `repr` is compared.

    Raises:
        ValueError: on every process, if settings differ; it names them.
    """
    sums = [zlib.crc32(repr(value).encode()) for value in settings.values()]
    everyone = multihost_utils.process_allgather(np.array(sums, np.uint32)).reshape(-1, len(sums))
    differ = [name for name, own in zip(settings, everyone.T, strict=True) if len(set(own)) > 1]
    if differ:
        came = ", ".join(f"{name} {settings[name]!r}" for name in differ)
        where = f"in process {jax.process_index()}, and not in all others"
        repair = "Start all with the same options and data."
        checks.refuse("processes", "the same settings in all", f"{came} {where}", repair)
