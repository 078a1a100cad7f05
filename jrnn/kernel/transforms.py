"""How JAX transforms the kernel: the gradient, `vmap`, second derivatives, platforms.

Three primitives carry a call; `jrnn/primitives.py` makes them. JAX's internals are used in these
two files only; in `jrnn/native.py` for an option, and in `passes.py` to read programs.

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

import re
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jrnn import checks
from jrnn.arrays import devices_of_this_process, steps, varying_alike
from jrnn.cells import Arrays, Cell, UncheckedCell
from jrnn.kernel import reference, step
from jrnn.kernel.dispatch import choose, keeps_gates, shape_of
from jrnn.kernel.types import Backward, Cotangents, Inputs, Passes, Residuals, Spec, States, Weights
from jrnn.kernel.weight_gradients import gradients, no_sums
from jrnn.primitives import Call, bind, jvp_of_program, map_each, primitive


def unroll(spec: Spec, weights: Weights, inputs: Inputs) -> tuple[Arrays, jax.Array]:
    """The last states and the outputs of one sequence or a batch."""
    _assert_fit(spec, weights, inputs)
    spec = spec._replace(devices=devices_of_this_process())
    # Under `shard_map` a replicated weight becomes a copy per device here, so that JAX, not the
    # rule, sums its gradient over the mesh.
    weights, inputs = varying_alike((weights, inputs))
    results = (0,) * spec.cell.states, 0
    run = partial(bind, rnn_p, _rule, spec)
    return step.with_clean_start(spec, inputs, lambda clean: run((weights, clean), results))


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
    sums = no_sums(weights)
    found = backward(spec, *varying_alike((residuals, cotangents, sums)))
    return gradients(weights, inputs, found)


def _as_array(d: Any) -> jax.Array:
    return jnp.zeros(d.shape, d.dtype) if isinstance(d, SymbolicZero) else d


rnn.defvjp(_rnn_fwd, _rnn_bwd, symbolic_zeros=True)


# --- the two passes of a backend ------------------------------------------------------------------


def forward(spec: Spec, weights: Weights, inputs: Inputs) -> States:
    """The forward pass, by the backend that `dispatch` chooses."""
    number = spec.cell.states
    kept = step.number_kept(spec) if spec.remat is None else number
    results = (0,) * number, 0, (0,) * kept
    return States(*bind(forward_p, _forward, spec, (weights, inputs), results))


def backward(spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights) -> Backward:
    """The backward pass, by the backend that `dispatch` chooses; arguments of `types.Backend`."""
    steps, start, constants = residuals.inputs
    results = Backward(step.first_carry(constants, start), sums, *step.d_of_steps(steps))
    return bind(backward_p, _backward, spec, (residuals, cotangents, sums), results)


def _rule(platform: str, spec: Spec, weights: Weights, inputs: Inputs) -> States:
    """The rule for a batch; one sequence becomes a batch of one.

    Both passes share the segments of this call, whatever `vmap` makes of either.
    """
    if spec.remat is not None:
        spec = spec._replace(remat=spec.remat.of_call(shape_of(inputs)))
    if inputs.start[0].ndim == 2:
        return States(*rnn(spec, weights, inputs))
    alone = jax.tree.map(lambda x: x[:, None], inputs.steps)
    rest = jax.tree.map(lambda x: x[None], (inputs.start, inputs.constants))
    last, hs = rnn(spec, weights, Inputs(alone, *rest))
    return States(tuple(s[0] for s in last), hs[:, 0])


def _forward(platform: str, spec: Spec, weights: Weights, inputs: Inputs) -> States:
    passes = _passes(platform)
    if spec.remat is None:
        return passes.forward(spec, weights, inputs)
    return spec.remat.forward(passes, spec._replace(remat=None), weights, inputs)


def _backward(
    platform: str, spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights
) -> Backward:
    passes = _passes(platform)
    if spec.remat is None:
        return passes.backward(spec, residuals, cotangents, sums)
    return spec.remat.backward(passes, spec._replace(remat=None), residuals, cotangents, sums)


PLAIN_SCANS = "plain scans"  # instead of a platform: the passes that JAX differentiates


def _passes(platform: str) -> Passes:
    """Those of the backends that `dispatch` chooses, or the plain scans."""
    if platform == PLAIN_SCANS:
        return Passes(reference.states, reference.backward, lax.scan)
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


# --- primitives -----------------------------------------------------------------------------------


def _jvp(primals: Any, tangents: Any, call: Call[Spec]) -> Any:
    if call.function is not _rule:
        scans = _name_of_scans(call, [jax.typeof(x) for x in primals])
        with jax.named_scope(scans):
            return jvp_of_program(primals, tangents, call, PLAIN_SCANS)
    # The rule cannot find it out by `perturbed`: JAX keeps one structure for its residuals.
    _, inputs = jax.tree.unflatten(call.tree, tangents)
    wants_dx = not isinstance(inputs.steps.xs, ad.Zero)
    call = call._replace(spec=call.spec._replace(wants_dx=wants_dx))
    moves = [t for t in tangents if not isinstance(t, ad.Zero)]
    bound = iter(reverse_mode_p.bind(*moves, cell=call.spec.cell))
    tangents = [t if isinstance(t, ad.Zero) else next(bound) for t in tangents]
    return jvp_of_program(primals, tangents, call)


SCANS = re.compile(r"scans_of\[(.*?);(\w+);(\d+),(\d*),(\d+),(\d+);(\w+);(\w*)\]")


def _name_of_scans(call: Call[Spec], avals: Any) -> str:
    """The scope of scans that JAX differentiates: for `passes`, and in a profile."""
    direction = "forward" if call.function is _forward else "backward"
    T, B, I, H, dtype = shape_of(inputs_of(call, avals))
    sizes = f"{T},{'' if B is None else B},{I},{H}"
    dtypes = f"{dtype};{call.spec.compute_dtype or ''}"
    return f"scans_of[{call.spec.cell.name};{direction};{sizes};{dtypes}]"


def inputs_of(call: Call[Spec], avals: Any) -> Inputs:
    """The types of the inputs of one call.

    Args:
        call: of one of the three primitives.
        avals: the types of its arguments.

    Returns:
        The `Inputs`, without the axes that `vmap` maps.
    """
    first, *rest = call.arguments(avals)
    return first.inputs if isinstance(first, Residuals) else rest[0]


def _fold(primitive: Primitive, leaves: Any, axes: Any, call: Call[Spec]) -> Any:
    """The calls as one batch, if they share their weights."""
    mapped = [axis is not None for axis in axes]
    if call.mapped or any(jax.tree.leaves(jax.tree.unflatten(call.tree, mapped)[0])):
        return map_each(primitive, leaves, axes, call)
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


rnn_p = primitive("rnn", _fold, _jvp)
forward_p = primitive("rnn_forward", _fold, _jvp)
backward_p = primitive("rnn_backward", map_each, _jvp)


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


def _forward_mode(*_: Any, cell: UncheckedCell, **__: Any) -> NoReturn:
    expected = "reverse mode (jax.grad, jax.vjp, jax.jacrev), or forward mode over it (jax.hessian)"
    came = "forward mode (jax.jvp, jax.jacfwd, jax.linearize)"
    of_stack = "a jax.lax.scan over jrnn.stack_step"
    repair = f"{of_stack[0].upper()}{of_stack[1:]} is the same network with both."
    if cell.data:  # which stack_step refuses
        repair = "A jax.lax.scan over the cell's step has both; of the gradient both work."
    named = cell.name
    if named in WITH_BOTH and not isinstance(cell, Cell):  # a user may choose the same name
        repair = f"{WITH_BOTH[named]} is the same network with both; of a stack, {of_stack}."
        named = "rnn" if named == "elman" else named
    checks.refuse(named, expected, came, repair)


reverse_mode_p.def_impl(_forward_mode)
reverse_mode_p.def_abstract_eval(lambda *tangents, **_: tangents)
mlir.register_lowering(reverse_mode_p, _forward_mode)
ad.deflinear2(reverse_mode_p, lambda cotangents, *_, **__: cotangents)
batching.primitive_batchers[reverse_mode_p] = _forward_mode
