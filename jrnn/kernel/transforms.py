"""How JAX transforms the kernel: the gradient, `vmap`, second derivatives, platforms.

Three primitives carry a call. The kernel uses JAX's internals in this file only.

    rnn                     the whole recurrence, with its gradient
      rnn_forward           the forward pass of a backend
      rnn_backward          the backward pass of a backend

`vmap`: sequences that share their weights become one batch (`Batching.fold`). If `rnn` were a
custom rule, JAX would map it, form one [H, H] for each sequence, and sum afterwards. Therefore it
is a primitive, and its rule appears only when it is differentiated or compiled. For grad(vmap(f))
batching comes first, and the rule sees one batch. For vmap(grad(f)) differentiation comes first:
`rnn_forward` still becomes one batch, and `rnn_backward` is mapped, so that each sequence gets its
own gradient.

To differentiate a gradient again, JAX differentiates the plain scans of `reference.py`, since loops
that write into buffers are differentiated badly.

The platform is known when a primitive is lowered: `dispatch` then chooses the backend. A program
that is exported has no native code, and neither has what JAX maps.
"""

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jrnn import checks
from jrnn.arrays import devices_of_this_process, steps, varying_alike
from jrnn.cells import Arrays
from jrnn.kernel import reference, step
from jrnn.kernel.dispatch import choose, keeps_gates, shape_of
from jrnn.kernel.types import Backward, Cotangents, Inputs, Passes, Residuals, Spec, States, Weights

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def unroll(spec: Spec, weights: Weights, inputs: Inputs) -> tuple[Arrays, jax.Array]:
    """The recurrence of one sequence or a batch.

    Args:
        spec: the static part of the call.
        weights: the parameters.
        inputs: the arrays.

    Returns:
        The last states and the outputs.
    """
    _assert_fit(spec, weights, inputs)
    spec = spec._replace(devices=devices_of_this_process())
    # Under `shard_map` a replicated weight becomes a copy per device here, so that JAX, not the
    # rule, sums its gradient over the mesh.
    arguments = varying_alike((weights, inputs))
    results = (0,) * spec.cell.states, 0
    last, hs = _bind(rnn_p, _rule, spec, arguments, results)
    return last, hs


def _assert_fit(spec: Spec, weights: Weights, inputs: Inputs) -> None:
    """The shapes and dtypes that `types.py` gives."""
    import chex  # here, to keep `import jrnn` fast

    cell, (w_ih, w_hh, b), given = spec.cell, weights, inputs.steps
    H, dtype, lead = w_hh.shape[0], w_hh.dtype, steps(given.xs)
    X, Y = len(cell.x_blocks) * H, len(cell.h_blocks) * H
    chex.assert_shape(w_hh, (H, Y))
    if w_ih is None:
        chex.assert_shape(given.xs, (*lead, X))
    else:
        chex.assert_shape(w_ih, (None, X))
    if b is not None:
        chex.assert_shape(b, (step.number_of_blocks(cell) * H,))
    chex.assert_type(jax.tree.leaves((weights, inputs.start)), dtype)
    chex.assert_equal(len(inputs.start), cell.states)
    chex.assert_equal(sorted(inputs.constants.unit), sorted(cell.unit))
    chex.assert_equal(sorted({*given.data, *inputs.constants.data}), sorted(cell.data))
    chex.assert_shape(jax.tree.leaves(inputs[1:]), (*lead[1:], H))
    chex.assert_shape(jax.tree.leaves(given.data), (*lead, H))
    for flags in (given.valid, given.reset):
        if flags is not None:
            chex.assert_shape(flags, lead)
            chex.assert_type(flags, bool)


# --- the rule -------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def rnn(spec: Spec, weights: Weights, inputs: Inputs) -> tuple[Arrays, jax.Array]:
    """The last states and the outputs, with the gradient derived by hand."""
    last, hs, _ = forward(spec, weights, inputs)
    return last, hs


def _rnn_fwd(spec: Spec, weights: Any, inputs: Any) -> tuple[Any, Residuals]:
    weights, inputs = jax.tree.map(lambda x: x.value, (weights, inputs))
    spec = spec._replace(keep_gates=keeps_gates(spec, shape_of(inputs)))
    last, hs, kept = forward(spec, weights, inputs)
    return (last, hs), Residuals(weights, inputs, hs if spec.remat is None else None, kept)


def _rnn_bwd(spec: Spec, residuals: Residuals, cotangents: Any) -> tuple[Weights, Inputs]:
    weights, inputs = residuals.weights, residuals.inputs
    d_last, dhs = cotangents
    dhs = None if spec.remat is not None and isinstance(dhs, SymbolicZero) else _as_array(dhs)
    cotangents = Cotangents(tuple(map(_as_array, d_last)), dhs)
    sums = step.no_sums(weights, inputs.steps.xs)
    found = backward(spec, *varying_alike((residuals, cotangents, sums)))
    return step.gradients(weights, inputs, found)


def _as_array(d: Any) -> jax.Array:
    return jnp.zeros(d.shape, d.dtype) if isinstance(d, SymbolicZero) else d


rnn.defvjp(_rnn_fwd, _rnn_bwd, symbolic_zeros=True)


# --- the two passes of a backend ------------------------------------------------------------------


def forward(spec: Spec, weights: Weights, inputs: Inputs) -> States:
    """The forward pass, by the backend that `dispatch` chooses.

    Args:
        spec: the static part of the call.
        weights: the parameters.
        inputs: the arrays.

    Returns:
        The `States`.
    """
    number = spec.cell.states
    kept = step.number_kept(spec) if spec.remat is None else number
    results = (0,) * number, 0, (0,) * kept
    return States(*_bind(forward_p, _forward, spec, (weights, inputs), results))


def backward(spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights) -> Backward:
    """The backward pass, by the backend that `dispatch` chooses.

    Args:
        spec: the static part of the call.
        residuals: of the forward pass.
        cotangents: of its results.
        sums: of the weight gradients so far.

    Returns:
        The `Backward`.
    """
    steps, start, constants = residuals.inputs
    results = Backward(step.first_carry(constants, start), sums, *step.d_of_steps(steps))
    return _bind(backward_p, _backward, spec, (residuals, cotangents, sums), results)


def _rule(platform: str, spec: Spec, weights: Weights, inputs: Inputs) -> States:
    """The rule for a batch; one sequence becomes a batch of one."""
    if inputs.start[0].ndim == 2:
        return States(*rnn(spec, weights, inputs))
    alone = jax.tree.map(lambda x: x[:, None], inputs.steps)
    rest = jax.tree.map(lambda x: x[None], (inputs.start, inputs.constants))
    last, hs = rnn(spec, weights, Inputs(alone, *rest))
    return States(tuple(s[0] for s in last), hs[:, 0])


def _forward(platform: str, spec: Spec, weights: Weights, inputs: Inputs) -> States:
    return _run_forward(_chosen(platform), spec, weights, inputs)


def _backward(platform: str, spec: Spec, *arguments: Any) -> Backward:
    return _run_backward(_chosen(platform), spec, *arguments)


def _run_forward(passes: Passes, spec: Spec, weights: Weights, inputs: Inputs) -> States:
    if spec.remat is None:
        return passes.forward(spec, weights, inputs)
    return spec.remat.forward(passes, spec._replace(remat=None), weights, inputs)


def _run_backward(
    passes: Passes, spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights
) -> Backward:
    if spec.remat is None:
        return passes.backward(spec, residuals, cotangents, sums)
    return spec.remat.backward(passes, spec._replace(remat=None), residuals, cotangents, sums)


def _chosen(platform: str) -> Passes:
    """The passes of the backends that `dispatch` chooses."""
    import chex  # here, to keep `import jrnn` fast

    def forward(spec: Spec, weights: Weights, inputs: Inputs) -> States:
        backend = choose(spec, shape_of(inputs), platform, "forward").backend
        found = backend.forward(spec, weights, inputs)
        hs = found.hs
        chex.assert_trees_all_equal_shapes_and_dtypes(found.last, inputs.start)
        chex.assert_shape(hs, (*steps(inputs.steps.xs), inputs.start[0].shape[1]))
        chex.assert_type(hs, step.rounded(spec, inputs.start[0]).dtype)
        chex.assert_tree_shape_prefix(found.kept, hs.shape[:2])
        return found

    def backward(
        spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights
    ) -> Backward:
        inputs = residuals.inputs
        backend = choose(spec, shape_of(inputs), platform, "backward").backend
        found = backend.backward(spec, residuals, cotangents, sums)
        same = chex.assert_trees_all_equal_shapes_and_dtypes
        same(found.carry, step.first_carry(inputs.constants, inputs.start))
        same(found.sums, sums)
        same((found.dxs, found.ddata), step.d_of_steps(inputs.steps))
        return found

    return Passes(forward, backward, reference.scan_in_bits)


REFERENCE = Passes(reference.states, reference.backward, lax.scan)


def _reference_forward(platform: str, spec: Spec, *arguments: Any) -> States:
    return _run_forward(REFERENCE, spec, *arguments)


def _reference_backward(platform: str, spec: Spec, *arguments: Any) -> Backward:
    return _run_backward(REFERENCE, spec, *arguments)


DERIVED_BY = {_rule: _rule, _forward: _reference_forward, _backward: _reference_backward}


# --- primitives -----------------------------------------------------------------------------------


CUT = "the native kernel runs on one device, and XLA cuts these arrays for several"
MAPPED = "jax.vmap maps it: each call has weights, or gradients of them, of its own"


class Call(NamedTuple):
    """The static part of a call of a primitive: everything except the arrays."""

    function: Callable[..., Any]  # (platform, spec, *arguments)
    spec: Spec
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

    def without_native(self, reason: str) -> "Call":
        """The same by XLA's loops."""
        return self._replace(spec=self.spec._replace(no_native=reason))

    def inputs(self, avals: Any) -> Inputs:
        """The types of the inputs of one call, by those of all arguments."""
        for axes in reversed(self.mapped):
            avals = [_without_axis(x, axis) for x, axis in zip(avals, axes, strict=True)]
        first, *rest = jax.tree.unflatten(self.tree, avals)
        return first.inputs if isinstance(first, Residuals) else rest[0]


def _bind(primitive: Primitive, function: Any, spec: Spec, arguments: Any, results: Any) -> Any:
    """The results of a primitive, in the structure of `results`."""
    leaves, tree = jax.tree.flatten(arguments)
    found = primitive.bind(*leaves, call=Call(function, spec, tree))
    return jax.tree.unflatten(jax.tree.structure(results), found)


def _run(*leaves: Any, call: Call) -> list[jax.Array]:
    if any(len(x.sharding.device_set) > 1 for x in leaves if isinstance(x, jax.Array)):
        call = call.without_native(CUT)
    return call.of(jax.default_backend(), *leaves)


def _types(*avals: Any, call: Call) -> Any:
    return Call.of.trace(call, jax.default_backend(), *avals).jaxpr.out_avals


def _jvp(primals: Any, tangents: Any, call: Call) -> Any:
    moving = [n for n, t in enumerate(tangents) if not isinstance(t, ad.Zero)]
    moves = [tangents[n] for n in moving]
    if call.function is _rule:
        moves = reverse_mode_p.bind(*moves, cell=call.spec.cell.name)
        # The rule cannot find it out by `perturbed`: JAX keeps one structure for its residuals.
        _, inputs = jax.tree.unflatten(call.tree, range(len(primals)))
        call = call._replace(spec=call.spec._replace(wants_dx=inputs.steps.xs in moving))
        scope: AbstractContextManager[Any] = nullcontext()
    else:
        scope = jax.named_scope(_name_of_scans(call, [jax.typeof(x) for x in primals]))
    call = call._replace(function=DERIVED_BY[call.function])

    def of_moving(*xs: jax.Array) -> list[jax.Array]:
        leaves = list(primals)
        for n, x in zip(moving, xs, strict=True):
            leaves[n] = x
        return call.of("any", *leaves)

    with scope:
        return jax.jvp(of_moving, [primals[n] for n in moving], moves)


SCANS = re.compile(r"scans_of\[(.*?);(\w+);(\d+),(\d*),(\d+),(\d+);(\w+);(\w*)\]")


def _name_of_scans(call: Call, avals: Any) -> str:
    """The scope of scans that JAX differentiates: for `passes`, and in a profile."""
    direction = "forward" if call.function is _forward else "backward"
    T, B, I, H, dtype = shape_of(call.inputs(avals))
    sizes = f"{T},{'' if B is None else B},{I},{H}"
    dtypes = f"{dtype};{call.spec.compute_dtype or ''}"
    return f"scans_of[{call.spec.cell.name};{direction};{sizes};{dtypes}]"


def _map(primitive: Primitive, leaves: Any, axes: Any, call: Call) -> Any:
    """Each call by itself; its results are not summed."""
    call = call._replace(mapped=(*call.mapped, tuple(axes))).without_native(MAPPED)
    found = primitive.bind(*leaves, call=call)
    return found, [0] * len(found)


def _fold(primitive: Primitive, leaves: Any, axes: Any, call: Call) -> Any:
    """The calls as one batch, if they share their weights."""
    mapped = [axis is not None for axis in axes]
    if call.mapped or any(jax.tree.leaves(jax.tree.unflatten(call.tree, mapped)[0])):
        return _map(primitive, leaves, axes, call)
    N = next(x.shape[axis] for x, axis in zip(leaves, axes, strict=True) if axis is not None)
    weights, _ = jax.tree.unflatten(call.tree, leaves)
    in_front = (batching.bdim_at_front(x, axis, N) for x, axis in zip(leaves, axes, strict=True))
    _, inputs = jax.tree.unflatten(call.tree, in_front)
    fold, unfold = call.spec.batching.fold, call.spec.batching.unfold
    found = primitive.bind(*jax.tree.leaves((weights, fold(inputs))), call=call)
    last = call.spec.cell.states  # so many results have no axis of time
    states = States(tuple(found[:last]), found[last], tuple(found[last + 1 :]))
    states = unfold(states, inputs.start[0].shape[:-1])
    return jax.tree.leaves(states), [0] * last + [1] * (len(found) - last)


def _primitive(name: str, batched: Callable[..., Any]) -> Primitive:
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(_run)
    primitive.def_abstract_eval(_types)
    for platform in (None, *PLATFORMS):  # None: any other
        lower = partial(_lower, platform or "any")
        mlir.register_lowering(primitive, lower, platform=platform)
    ad.primitive_jvps[primitive] = _jvp
    batching.primitive_batchers[primitive] = partial(batched, primitive)
    return primitive


def _lower(platform: str, context: Any, *leaves: Any, call: Call) -> Any:
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


rnn_p = _primitive("rnn", _fold)
forward_p = _primitive("rnn_forward", _fold)
backward_p = _primitive("rnn_backward", _map)


def _without_axis(x: Any, axis: int | None) -> Any:
    if axis is None:
        return x
    return jax.ShapeDtypeStruct(x.shape[:axis] + x.shape[axis + 1 :], x.dtype)


# --- forward mode ---------------------------------------------------------------------------------
# The tangents of a custom rule, as they are. Reverse mode transposes them and leaves nothing of
# this; forward mode computes with them, which JAX refuses at the rule itself, in its own words.

reverse_mode_p = Primitive("reverse_mode")
reverse_mode_p.multiple_results = True


WITH_BOTH = {
    "elman": "jrnn.derivation.rnn_scan",
    "lstm": "jrnn.derivation.lstm_scan",
    "gru": "jrnn.derivation.gru_scan",
    "leaky": "A jax.lax.scan over jrnn.leaky_cell",
}


def _forward_mode(*_: Any, cell: str, **__: Any) -> NoReturn:
    expected = "reverse mode (jax.grad, jax.vjp, jax.jacrev), or forward mode over it (jax.hessian)"
    came = "forward mode (jax.jvp, jax.jacfwd, jax.linearize)"
    of_stack = "a jax.lax.scan over jrnn.stack_step"
    repair = f"{of_stack[0].upper()}{of_stack[1:]} is the same network with both."
    if cell in WITH_BOTH:
        repair = f"{WITH_BOTH[cell]} is the same network with both; of a stack, {of_stack}."
    checks.refuse("rnn" if cell == "elman" else cell, expected, came, repair)


reverse_mode_p.def_impl(_forward_mode)
reverse_mode_p.def_abstract_eval(lambda *tangents, cell: tangents)
mlir.register_lowering(reverse_mode_p, _forward_mode)
ad.deflinear2(reverse_mode_p, lambda cotangents, *_, cell: cotangents)
batching.primitive_batchers[reverse_mode_p] = _forward_mode
