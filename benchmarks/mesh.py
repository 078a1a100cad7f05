"""A function of a batch, run by several devices that have a part of the batch each."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jrnn.parallel import BATCH, batch_mesh

WHOLE, SPLIT = PartitionSpec(), PartitionSpec(None, BATCH)  # parameters; [T, B, ...]


def on_mesh(function: Callable[..., Any], devices: int, gradient: bool) -> Callable[..., Any]:
    """`function(params, xs)` that gives states, or `function(params, xs, y)` cost and gradient.

    Each device differentiates in its own copy of the parameters and the copies' gradients are
    summed once. Without the `pcast` JAX would sum inside the loop, at every step: that would be no
    way to treat a rival.
    """

    def part(params: Any, *arrays: Any) -> Any:
        result = function(jax.lax.pcast(params, BATCH, to="varying"), *arrays)
        return jax.lax.psum(result, BATCH) if gradient else result

    in_specs = (WHOLE, SPLIT, SPLIT) if gradient else (WHOLE, SPLIT)
    out_specs = WHOLE if gradient else SPLIT
    return jax.shard_map(part, mesh=batch_mesh(devices), in_specs=in_specs, out_specs=out_specs)


def split_batch(args: tuple[Any, ...], devices: int) -> tuple[Any, ...]:
    """The parameters on every device, of the batch a part on each."""
    mesh = batch_mesh(devices)
    params, *arrays = args
    put = jax.device_put(arrays, NamedSharding(mesh, SPLIT))
    return (jax.device_put(params, NamedSharding(mesh, WHOLE)), *put)
