"""The passes of the recurrences in a traced program, for `jrnn.explain`."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from jrnn.kernel.dispatch import Direction, Shape, shape_of
from jrnn.kernel.transforms import SCANS, backward_p, forward_p, inputs_of, rnn_p
from jrnn.kernel.types import Spec
from jrnn.primitives import CUT


class Pass(NamedTuple):
    """A pass of a recurrence.

    Attributes:
        cell: its name.
        direction: of the pass.
        shape: of one call.
        compute_dtype: of matmul operands; None: that of the parameters.
        scopes: the names of `jax.named_scope` around the call.
        spec: the static part of the call; None if JAX differentiates its plain scans.
    """

    cell: str
    direction: Direction
    shape: Shape
    compute_dtype: np.dtype | None
    scopes: str
    spec: Spec | None


DIRECTIONS: dict[Any, tuple[Direction, ...]] = {
    rnn_p: ("forward", "backward"),
    forward_p: ("forward",),
    backward_p: ("backward",),
}


def devices_of(jaxpr: Any) -> int:
    """The most devices that a sharding or a mesh in a program names.

    Args:
        jaxpr: the program; loops, calls and rules in it are searched, too.

    Returns:
        Their number, at least 1.
    """
    number = 1
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        for one in jax.tree.leaves(list(equation.params.values())):
            if isinstance(one, jax.sharding.Sharding):
                number = max(number, one.num_devices)
            elif isinstance(one, (jax.sharding.Mesh, jax.sharding.AbstractMesh)):
                number = max(number, one.size)
        for inner in jaxprs_in_params(equation.params):
            number = max(number, devices_of(inner))
    return number


def passes_in(jaxpr: Any, devices: int, scope: str = "") -> Iterator[Pass]:
    """The passes in a traced program.

    Args:
        jaxpr: the program; loops, calls and rules in it are searched, too.
        devices: for which XLA cuts the arrays where `jax.shard_map` does not.
        scope: the names of `jax.named_scope` around the program.

    Yields:
        A `Pass` for each; of a recurrence that is not differentiated yet, both of them. Scans that
        JAX differentiates are several loops for one pass: the pass may come more than once.
    """
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        scopes = f"{scope}/{equation.source_info.name_stack}"
        if equation.primitive in DIRECTIONS:
            call, avals = equation.params["call"], [v.aval for v in equation.invars]
            if _cut_by_shard_map(avals[0]) < devices:
                call = call.without_native(CUT)
            cell, rounded = call.spec.cell.name, call.spec.compute_dtype
            for direction in DIRECTIONS[equation.primitive]:
                shape = shape_of(inputs_of(call, avals))
                yield Pass(cell, direction, shape, rounded, scopes, call.spec)
        elif equation.primitive.name == "scan" and (found := SCANS.findall(scopes)):
            yield _of_scans(*found[-1], scopes)
        for inner in jaxprs_in_params(equation.params):
            yield from passes_in(inner, devices, scopes)


def _cut_by_shard_map(aval: Any) -> int:
    """The number of devices for which a `jax.shard_map` around an array has cut it."""
    mesh = aval.sharding.mesh
    return math.prod(mesh.shape[name] for name in mesh.manual_axes)


def _of_scans(cell: str, direction: Any, *sizes_and_dtypes: str) -> Pass:
    """The pass whose scans have this scope, see `transforms.SCANS`."""
    T, B, I, H, dtype, compute_dtype, scopes = sizes_and_dtypes
    shape = Shape(int(T), int(B) if B else None, int(I), int(H), jnp.dtype(dtype))
    rounded = jnp.dtype(compute_dtype) if compute_dtype else None
    return Pass(cell, direction, shape, rounded, scopes, None)
