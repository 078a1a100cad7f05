"""A JAX primitive that may contain native code: its program is chosen when it is lowered.

A function that is traced does not know where it will run. A primitive stays one operation until it
is compiled. Then `Call.function` is told the platform, and `spec.no_native` the reason why native
code may not run, if there is one: the program is exported, XLA cuts its arrays for several devices,
or `vmap` maps the call. The function answers with a program: a native call, or plain JAX.

`vmap`: `map_each` maps the plain program; a rule of the caller's own may do better.

Derivatives: native code has none. `jvp_of_program` is the derivative of the plain program.

A new primitive, where `function(platform, spec, *arguments)` gives a tree of arrays:

    loss_p = primitive("loss", map_each, jvp_of_program)
    losses = bind(loss_p, function, spec, (hs, labels), 0)

This needs JAX's internals: how a primitive is lowered, batched and differentiated.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
CUT = "the native kernel runs on one device, and XLA cuts these arrays for several"
MAPPED = "jax.vmap maps it: each call has weights, or gradients of them, of its own"


class Static(Protocol):
    """The options of a call: a NamedTuple, hashable."""

    @property
    def no_native(self) -> str | None:
        """The reason why no native code may run."""

    def _replace(self, *, no_native: str | None) -> Self: ...


S = TypeVar("S", bound=Static)


class Call(NamedTuple, Generic[S]):
    """The static part of a call of a primitive: everything except the arrays."""

    function: Callable[..., Any]  # (platform, spec, *arguments), see `bind`
    spec: S
    tree: Any  # of the arguments
    mapped: tuple[tuple[int | None, ...], ...] = ()  # the axes of each `vmap`, the innermost first

    @partial(jax.jit, static_argnums=(0, 1), inline=True)  # JAX traces what a primitive does twice
    def of(self, platform: str, *leaves: jax.Array) -> list[jax.Array]:
        """The results as a list."""

        def flat(*leaves: jax.Array) -> list[jax.Array]:
            arguments = jax.tree.unflatten(self.tree, leaves)
            return jax.tree.leaves(self.function(platform, self.spec, *arguments))

        for axes in self.mapped:
            flat = jax.vmap(flat, axes)
        return flat(*leaves)

    def without_native(self, reason: str) -> Self:
        """The same without native code."""
        return self._replace(spec=self.spec._replace(no_native=reason))

    def arguments(self, avals: Any) -> Any:
        """The types of the arguments of one call, by those of all that `vmap` maps."""
        for axes in reversed(self.mapped):
            avals = [_without_axis(x, axis) for x, axis in zip(avals, axes, strict=True)]
        return jax.tree.unflatten(self.tree, avals)


def _without_axis(x: Any, axis: int | None) -> Any:
    if axis is None:
        return x
    return jax.ShapeDtypeStruct(x.shape[:axis] + x.shape[axis + 1 :], x.dtype)


def bind(
    primitive: Primitive,
    function: Callable[..., Any],
    spec: Static,
    arguments: tuple[Any, ...],
    results: Any,
) -> Any:
    """A call of a primitive.

    Args:
        primitive: of this file.
        function: `function(platform, spec, *arguments)` gives the results. The platform is one of
            `PLATFORMS`, or "any" for all others. There, and if `spec.no_native` is not None, the
            program is plain JAX.
        spec: the options.
        arguments: trees of arrays.
        results: any tree of their structure.

    Returns:
        The results, in the structure of `results`.
    """
    leaves, tree = jax.tree.flatten(arguments)
    found = primitive.bind(*leaves, call=Call(function, spec, tree))
    return jax.tree.unflatten(jax.tree.structure(results), found)


def primitive(name: str, batched: Callable[..., Any], jvp: Callable[..., Any]) -> Primitive:
    """A new primitive, to be called by `bind`.

    Args:
        name: in a traced program.
        batched: its rule for `vmap`, such as `map_each`.
        jvp: its rule for derivatives, such as `jvp_of_program`.

    Returns:
        The primitive, which has one parameter, the `Call`.
    """
    new = Primitive(name)
    new.multiple_results = True
    new.def_impl(_run)
    new.def_abstract_eval(_types)
    for platform in (None, *PLATFORMS):  # None: any other
        mlir.register_lowering(new, partial(_lower, platform or "any"), platform=platform)
    ad.primitive_jvps[new] = jvp
    batching.primitive_batchers[new] = partial(batched, new)
    return new


# --- rules ----------------------------------------------------------------------------------------


def map_each(primitive: Primitive, leaves: Any, axes: Any, call: Call[Any]) -> Any:
    """The rule for `vmap` by which each call is computed separately, without native code.

    Args:
        primitive: of the call.
        leaves: the arrays.
        axes: the mapped axis of each, or None.
        call: the static part.

    Returns:
        The results and their mapped axes. Gradients of what the calls share are not summed.
    """
    call = call._replace(mapped=(*call.mapped, tuple(axes))).without_native(MAPPED)
    found = primitive.bind(*leaves, call=call)
    return found, [0] * len(found)


def jvp_of_program(primals: Any, tangents: Any, call: Call[Any], platform: str = "any") -> Any:
    """The rule for derivatives by which JAX differentiates a program without native code.

    That program gives the results, too: no native code runs in a call that is differentiated.

    Args:
        primals: the arrays.
        tangents: their tangents, `ad.Zero` for an array that does not move, as of integers.
        call: the static part.
        platform: what `call.function` is asked for; a function may have a program of its own for
            JAX to differentiate, by a name that is no platform.

    Returns:
        The results and their tangents.
    """
    moving = [n for n, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def of_moving(*xs: jax.Array) -> list[jax.Array]:
        leaves = list(primals)
        for n, x in zip(moving, xs, strict=True):
            leaves[n] = x
        return call.of(platform, *leaves)

    return jax.jvp(of_moving, [primals[n] for n in moving], [tangents[n] for n in moving])


def _run(*leaves: Any, call: Call[Any]) -> list[jax.Array]:
    if any(len(x.sharding.device_set) > 1 for x in leaves if isinstance(x, jax.Array)):
        call = call.without_native(CUT)
    return call.of(jax.default_backend(), *leaves)


def _types(*avals: Any, call: Call[Any]) -> Any:
    return Call.of.trace(call, jax.default_backend(), *avals).jaxpr.out_avals


def _lower(platform: str, context: Any, *leaves: Any, call: Call[Any]) -> Any:
    """The program for a platform. Native code is for this machine, and not to be cut by XLA."""
    module = context.module_context
    if module.lowering_parameters.for_export:
        call = call.without_native("an exported program has no native code")
    if _cut_by_xla(module.axis_context):
        call = call.without_native(CUT)
    return mlir.lower_fun(partial(call.of, platform), True)(context, *leaves)


def _cut_by_xla(axes: Any) -> bool:
    """Whether XLA cuts arrays for several devices; `jax.shard_map` does that itself."""
    if (mesh := getattr(axes, "mesh", None)) is None:
        return getattr(axes, "num_devices", 2) > 1
    return math.prod(mesh.shape[name] for name in axes.manual_axes) < mesh.size
