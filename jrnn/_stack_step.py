"""One step of any network, for inputs that arrive one by one."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jrnn import checks, kernel
from jrnn._layers import is_pair, layer_by_layer
from jrnn._network import output_of, state_of, states_of, step_network
from jrnn._stack import LayerStates, OneActivation, as_stack
from jrnn.arrays import ArrayLike, InputsAre, broadcast, steps
from jrnn.cells import UncheckedCell
from jrnn.cells.leaky import leaky
from jrnn.types import LayerParams, LeakyParams, StackParams


def stack_step(
    params: Any,
    states: Any,
    x_t: ArrayLike,
    *,
    activation: OneActivation | Sequence[OneActivation] = None,
    cell: UncheckedCell | Sequence[UncheckedCell | None] | None = None,
    residual: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[Any, jax.Array]:
    """One step of a stack or of any network, for inputs that arrive one by one.

    It equals the call over a sequence, step by step:

        states = None
        for x_t in stream:
            states, y_t = jrnn.stack_step(params, states, x_t)

    It compiles once for all steps. JAX differentiates it, in forward and reverse mode.

    Args:
        params: as in `stack`, of layers without a backward network; or those of one network.
        states: before the step: None (zeros), or for each layer None or its state, as `h0` of
            `stack`; of one network its state. `[H]` is shared by a batch.
        x_t: `[I]` or `[B, I]` input, or `[]` or `[B]` token ids.
        activation: as in `stack`.
        cell: as in `stack`; cells that read no `data`.
        residual: as in `stack`.
        inputs: as in `stack`.

    Returns:
        `(states, y_t)`: the states after the step, in the form of those before, and `[H]` or
        `[B, H]`, (20) of the last layer, in the dtype of the parameters.

    Raises:
        ValueError: what `stack` refuses, or a layer with a backward network.
    """
    alone = not isinstance(params, StackParams)
    params, cells, specs = as_stack(params, activation, cell)
    x_t = checks.stack_step_arguments(cells, params, states, x_t, reading=inputs, alone=alone)
    checks.residual(residual, cells, params, x_t)
    states = filled_states(specs, params, (states,) if alone else states, steps(x_t))
    states, y_t = _stack_step(params, states, x_t, specs=specs, residual=bool(residual))
    return states[0] if alone else states, y_t


def zero_state(
    params: Any,
    batch_size: int | None = None,
    *,
    cell: UncheckedCell | Sequence[UncheckedCell | None] | None = None,
) -> Any:
    """The state before the first step, as arrays of zeros.

    For a network or a stack None is the same. A loop that carries the state needs arrays, such as
    `jax.lax.scan` or the training steps of `jrnn.training`.

    Args:
        params: of a network or of a stack.
        batch_size: B; None: one sequence.
        cell: as in `stack`; leaky networks need none here.

    Returns:
        In the form of `h_last` of the network or the stack, `[H]` or `[B, H]`, or states of these.

    Raises:
        ValueError: parameters of no network, or a batch size below 1.
    """
    if batch_size is not None:
        checks.sizes(batch_size=batch_size)
    batch = () if batch_size is None else (batch_size,)
    if isinstance(params, StackParams):
        checks.stack_of_layers(params)
        each = checks.for_each_layer("cell", cell, len(params.layers))
        pairs = zip(params.layers, each, strict=True)
        cell = tuple(_or_either_leak(own, layer.forward) for layer, own in pairs)
    else:
        cell = _or_either_leak(cell, params)
    layers, cells, _ = as_stack(params, cell=cell)

    def zeros(cell: UncheckedCell, layer: LayerParams) -> Any:
        w_hh, D = layer.forward.w_hh, 1 if layer.backward is None else 2
        if not is_pair(cell):
            return jnp.zeros((*batch, D * len(w_hh)), jnp.result_type(w_hh))
        shape, dtype = (*batch, len(w_hh)), jnp.result_type(w_hh)
        states = [  # an array for each: a buffer can be donated only once
            state_of(cell, tuple(jnp.zeros(shape, dtype) for _ in range(cell.states)))
            for _ in range(D)
        ]
        return states[0] if D == 1 else tuple(states)

    states = tuple(map(zeros, cells, layers.layers))
    return states if isinstance(params, StackParams) else states[0]


def _or_either_leak(cell: Any, params: Any) -> Any:
    """The cell; without one a leaky network's (28), whose state has the form of that of (29)."""
    if cell is None and isinstance(params, LeakyParams):
        return leaky("tanh", "state", learned=params.log_tau is not None)
    return cell


def filled_states(
    specs: Sequence[kernel.Spec],
    params: StackParams,
    states: LayerStates | None,
    batch: tuple[int, ...],
) -> tuple[Any, ...]:
    """The states of a call with an array for each, so that every step has the same types.

    Args:
        specs: of each layer.
        params: of layers of one direction.
        states: as in `stack_step`.
        batch: () or (B,).

    Returns:
        For each layer `[*batch, H]`, or a state of such arrays.
    """

    def filled(spec: kernel.Spec, layer: LayerParams, state: Any) -> Any:
        w_hh = layer.forward.w_hh
        shape, dtype = (*batch, w_hh.shape[0]), jnp.result_type(w_hh)

        def whole(s: Any) -> jax.Array:
            if s is None:
                return jnp.zeros(shape, dtype)
            if isinstance(s, jax.Array) and s.shape == shape:
                return s  # as after each step, of which `broadcast` would be a third
            return broadcast(jnp.asarray(s), shape)

        return state_of(spec.cell, tuple(map(whole, states_of(spec.cell, state))))

    states = states or (None,) * len(specs)
    return tuple(map(filled, specs, params.layers, states))


def step_layers(
    specs: Sequence[kernel.Spec],
    params: StackParams,
    states: Any,
    x_t: jax.Array,
    *,
    residual: bool = False,
) -> tuple[tuple[Any, ...], jax.Array]:
    """`stack_step` without checks and without jit.

    Args:
        specs: of each layer.
        params: the parameters.
        states: of each layer.
        x_t: the input.
        residual: whether (20) adds x_t.

    Returns:
        The states after the step, and the output of the last layer.
    """

    def read_one(spec: kernel.Spec, network: Any, state: Any, x_t: jax.Array) -> Any:
        after = step_network(network, state, x_t, spec=spec)
        return after, output_of(spec.cell, after)

    reads = [
        partial(read_one, spec, layer.forward, state)
        for spec, layer, state in zip(specs, params.layers, states, strict=True)
    ]
    return layer_by_layer(reads, params.layers, x_t, residual=residual)


@partial(jax.jit, static_argnames=("specs", "residual"))
def _stack_step(
    params: StackParams,
    states: Any,
    x_t: jax.Array,
    *,
    specs: tuple[kernel.Spec, ...],
    residual: bool,
) -> tuple[tuple[Any, ...], jax.Array]:
    return step_layers(specs, params, states, x_t, residual=residual)
