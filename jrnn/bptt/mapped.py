"""`vmap` over sequences that share their weights makes one batch of them.

JAX maps a custom rule first and sums its results afterwards: under `vmap`, a rule that returns
dw_hh would form one [H, H] for each sequence. So what `vmap` meets is not the rule yet but a
primitive, whose batching rule puts the sequences into one batch. Where the primitive is
differentiated or compiled, the function that it stands for takes its place, custom rule and all. In
`grad` of `vmap` that is after `vmap`; in `vmap` of `grad`, which asks for a gradient for each
sequence, before.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, NoReturn

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jrnn import checks
from jrnn.arrays import varying_alike
from jrnn.bptt.inputs import Inputs, as_one_batch, only_one
from jrnn.bptt.step import Recurrence
from jrnn.types import RNNParams

Results = tuple[jax.Array, jax.Array]  # h_last, hs
States = Callable[[Recurrence, RNNParams, Inputs], Results]

_rnn = Primitive("rnn")
_rnn.multiple_results = True


class Call(NamedTuple):
    """A call of a function of one sequence or a batch, less the arrays."""

    states: States
    recurrence: Recurrence
    tree: Any  # of the parameters and the inputs

    @partial(jax.jit, static_argnums=0, inline=True)
    def of(self, *leaves: jax.Array) -> Results:
        """(h_last, hs); a batch of one sequence is that sequence."""
        params, inputs = jax.tree.unflatten(self.tree, leaves)
        if inputs.h0.ndim == 1 or inputs.h0.shape[0] != 1:
            return self.states(self.recurrence, params, inputs)
        h_last, hs = self.states(self.recurrence, params, only_one(inputs))
        return h_last[None], hs[:, None]


def in_one_batch(
    states: States, recurrence: Recurrence, params: RNNParams, inputs: Inputs
) -> Results:
    """(h_last, hs) by `states`, which `vmap` with shared weights calls with one batch."""
    # Under `shard_map` a replicated weight becomes a copy per device out here, so that JAX, not
    # the rule, sums its gradient over the mesh.
    leaves, tree = jax.tree.flatten(varying_alike((params, inputs)))
    h_last, hs = _rnn.bind(*leaves, call=Call(states, recurrence, tree))
    return h_last, hs


def _avals(*avals: Any, call: Call) -> Any:
    return Call.of.trace(call, *avals).jaxpr.out_avals


def _jvp(primals: Any, tangents: Any, call: Call) -> Any:
    moving = [n for n, t in enumerate(tangents) if not isinstance(t, ad.Zero)]
    moves = [tangents[n] for n in moving]
    if isinstance(call.states, jax.custom_vjp):
        moves = _reverse_mode.bind(*moves)

    def of_moving(*xs: jax.Array) -> Results:
        leaves = list(primals)
        for n, x in zip(moving, xs, strict=True):
            leaves[n] = x
        return call.of(*leaves)

    return jax.jvp(of_moving, [primals[n] for n in moving], moves)


# The tangents of a custom rule, as they are. Reverse mode transposes them and leaves nothing of
# this; forward mode computes with them, which JAX refuses at the rule itself, in its own words.
_reverse_mode = Primitive("reverse_mode")
_reverse_mode.multiple_results = True


def _forward_mode(*_: Any, **__: Any) -> NoReturn:
    expected = "reverse mode (jax.grad, jax.vjp, jax.jacrev), or forward mode over it (jax.hessian)"
    came = "forward mode (jax.jvp, jax.jacfwd, jax.linearize)"
    checks.refuse("rnn", expected, came, "jrnn.derivation.rnn_scan is the same function with both.")


def _batched(leaves: Any, axes: Any, call: Call) -> Any:
    weights_mapped, _ = jax.tree.unflatten(call.tree, [axis is not None for axis in axes])
    if any(jax.tree.leaves(weights_mapped)):  # each sequence has its own
        return jax.vmap(call.of, axes)(*leaves), (0, 0)
    N = next(x.shape[axis] for x, axis in zip(leaves, axes, strict=True) if axis is not None)
    params, _ = jax.tree.unflatten(call.tree, leaves)
    in_front = (batching.bdim_at_front(x, axis, N) for x, axis in zip(leaves, axes, strict=True))
    _, inputs = jax.tree.unflatten(call.tree, in_front)
    h_last, hs = in_one_batch(call.states, call.recurrence, params, as_one_batch(inputs))
    shape = inputs.h0.shape
    return (h_last.reshape(shape), hs.reshape(len(hs), *shape)), (0, 1)


_rnn.def_impl(lambda *leaves, call: call.of(*leaves))
_rnn.def_abstract_eval(_avals)
mlir.register_lowering(
    _rnn, mlir.lower_fun(lambda *leaves, call: call.of(*leaves), multiple_results=True)
)
ad.primitive_jvps[_rnn] = _jvp
batching.primitive_batchers[_rnn] = _batched

_reverse_mode.def_impl(_forward_mode)
_reverse_mode.def_abstract_eval(lambda *tangents: tangents)
mlir.register_lowering(_reverse_mode, _forward_mode)
ad.deflinear2(_reverse_mode, lambda cotangents, *_: cotangents)
batching.primitive_batchers[_reverse_mode] = _forward_mode
