"""Run a function of a batch on several devices, each with a part of the batch."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jrnn.parallel import BATCH, batch_mesh

WHOLE, SPLIT = PartitionSpec(), PartitionSpec(None, BATCH)  # parameters; [T, B, ...]


def on_mesh(function: Callable[..., Any], devices: int, gradient: bool) -> Callable[..., Any]:
    """Split `function(params, xs)`, or `function(params, xs, y)` with gradient, over devices.

    Each device differentiates with its own copy of the parameters, and the gradients are summed
    once. Without the `pcast` JAX would sum inside the loop, at every step, which would be unfair to
    a rival.
    """

    def part(params: Any, *arrays: Any) -> Any:
        result = function(jax.lax.pcast(params, BATCH, to="varying"), *arrays)
        return jax.lax.psum(result, BATCH) if gradient else result

    in_specs = (WHOLE, SPLIT, SPLIT) if gradient else (WHOLE, SPLIT)
    out_specs = WHOLE if gradient else SPLIT
    return jax.shard_map(part, mesh=batch_mesh(devices), in_specs=in_specs, out_specs=out_specs)


def split_batch(args: tuple[Any, ...], devices: int) -> tuple[Any, ...]:
    """Put the parameters on every device, and a part of the batch on each."""
    mesh = batch_mesh(devices)
    params, *arrays = args
    put = jax.device_put(arrays, NamedSharding(mesh, SPLIT))
    return (jax.device_put(params, NamedSharding(mesh, WHOLE)), *put)
