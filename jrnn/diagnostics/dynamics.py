"""A network, or a stack of networks, as a map from its states and an input to its next states.

The states have the form in which the network takes and returns them: of a network of one state an
array, of an LSTM an `LSTMState`, of a stack a tuple of these with one for each layer. They may have
any leading axes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jrnn import checks, kernel
from jrnn._network import output_of, spec_of, states_of, step_network, weights_of
from jrnn._stack import specs_of
from jrnn._stack_step import filled_states, step_layers
from jrnn.arrays import ArrayLike, InputsAre, steps
from jrnn.cells import Arrays, Named, UncheckedCell
from jrnn.cells.elman import Activation, ActivationName
from jrnn.cells.kinds import cell_of
from jrnn.diagnostics.basics import widened
from jrnn.types import LayerParams, StackParams


class Dynamics(NamedTuple):
    """The static part of a call: hashable, as an option of a jitted function must be."""

    specs: tuple[kernel.Spec, ...]  # of each layer
    residual: bool
    stacked: bool  # whether the parameters are those of a stack


def dynamics_of(params: Any, activation: Any, cell: Any, residual: Any) -> Dynamics:
    """The cells of a network or a stack, whose parameters are checked.

    Args:
        params: of a network, or `StackParams` of layers in one direction.
        activation: as in `jrnn.stack`.
        cell: as in `jrnn.stack`.
        residual: as in `jrnn.stack`.

    Returns:
        The `Dynamics`.

    Raises:
        ValueError: parameters of neither; layers of two directions; a residual connection of a
            network that is no stack.
    """
    checks.flag("residual", residual)
    if isinstance(params, StackParams):
        _, specs = specs_of(params, activation, cell)
        reason = "Its states depend on the whole sequence: there is no step from one to the next."
        checks.forwards(params, reason)
        return Dynamics(specs, bool(residual), True)
    checks.residual_of_a_stack(residual)
    found = cell_of(params, activation, cell)
    checks.network(found, params)
    return Dynamics((spec_of(found, params),), False, False)


def checked_sequence(
    dynamics: Dynamics, params: Any, xs: Any, h0: Any, data: Any, inputs: InputsAre | None = None
) -> Any:
    """Check the arguments of all steps of a sequence.

    Args:
        dynamics: of the parameters.
        params: the parameters.
        xs: the inputs.
        h0: the first states.
        data: the arrays that the cell reads.
        inputs: how integers are read.

    Returns:
        xs as ids or features.

    Raises:
        ValueError: as `jrnn.unroll` or `jrnn.stack`.
    """
    cells = tuple(spec.cell for spec in dynamics.specs)
    if not dynamics.stacked:
        none = (None,) * 5
        return checks.network_arguments(cells[0], params, xs, h0, *none, data, reading=inputs)
    checks.no_data_of_a_stack(data)
    xs = checks.stack_arguments(cells, params, xs, h0, reading=inputs)
    checks.residual(dynamics.residual, cells, params, xs)
    return xs


def advance(
    dynamics: Dynamics, params: Any, states: Any, x_t: jax.Array, data: Named | None = None
) -> tuple[Any, jax.Array]:
    """One step, which JAX differentiates in any mode.

    Args:
        dynamics: of the parameters.
        params: the parameters.
        states: before the step.
        x_t: the input of the step.
        data: what the cell reads at this step.

    Returns:
        The states after the step, and the output h_t, of a stack y_t of its last layer.
    """

    specs = dynamics.specs
    if dynamics.stacked:
        return step_layers(specs, params, states, x_t, residual=dynamics.residual)
    after = step_network(params, states, x_t, data, spec=specs[0])
    return after, output_of(specs[0].cell, after)


def first_states(dynamics: Dynamics, params: Any, h0: Any, batch: tuple[int, ...]) -> Any:
    """The states before the first step.

    Args:
        dynamics: of the parameters.
        params: the parameters.
        h0: the states as the network takes them, with None for zeros.
        batch: the leading axes of the result.

    Returns:
        The states, of which none is None and each has these axes.
    """
    if dynamics.stacked:
        return filled_states(dynamics.specs, params, h0, batch)
    alone = StackParams((LayerParams(params, None, None),))
    return filled_states(dynamics.specs, alone, (h0,), batch)[0]


def size_of_states(dynamics: Dynamics, params: Any) -> tuple[int, str]:
    """The number of state variables of one sequence.

    Args:
        dynamics: of the parameters.
        params: the parameters.

    Returns:
        The number, and its name: H, of an LSTM 2H, of a stack N.
    """
    networks = [layer.forward for layer in params.layers] if dynamics.stacked else [params]
    counts = [spec.cell.states for spec in dynamics.specs]
    size = sum(S * n.w_hh.shape[0] for S, n in zip(counts, networks, strict=True))
    return size, "N" if dynamics.stacked else checks.times(counts[0])


def of_every_step(params: Any, xs: jax.Array, data: Named | None) -> tuple[jax.Array, Named]:
    """x_t and the data of every step, which a scan can read.

    Args:
        params: the parameters.
        xs: the inputs.
        data: as in `jrnn.unroll`.

    Returns:
        xs, and the data with all axes.
    """
    lead = steps(xs)
    full = {k: jnp.broadcast_to(x, (*lead, params.w_hh.shape[0])) for k, x in (data or {}).items()}
    return jnp.asarray(xs), full


class Run(NamedTuple):
    """A forward pass. The arrays of every step have the axes [T] or [T, B] in front."""

    step: Callable[..., Arrays]  # (w_hh, states before, at) -> states after
    w_hh: jax.Array
    at: Any  # x_t and the data of step t
    before: Arrays  # s_{t-1}
    after: Arrays  # s_t


def run_forward(spec: kernel.Spec, params: Any, xs: Any, h0: Any, data: Any) -> Run:
    """The states of a network, by a scan.

    Args:
        spec: the static part of the call.
        params: of the class of the cell.
        xs: `[T, I]`, `[T, B, I]`, or ids `[T]`, `[T, B]`.
        h0: the first state, as the network takes it.
        data: the arrays that the cell names, or None.

    Returns:
        The `Run`.
    """
    weights, unit = weights_of(spec.cell, params)

    def step(w_hh: jax.Array, before: Arrays, at: Any) -> Arrays:
        x_t, data_t = at
        changed = weights._replace(w_hh=w_hh)
        return kernel.one_step(spec, changed, x_t, before, unit, data_t)

    def advance_and_keep(before: Arrays, at: Any) -> tuple[Arrays, Arrays]:
        after = step(weights.w_hh, before, at)
        return after, after

    alone = Dynamics((spec,), False, False)
    start = states_of(spec.cell, first_states(alone, params, h0, steps(xs)[1:]))
    at = of_every_step(params, xs, data)
    _, after = lax.scan(advance_and_keep, start, at)
    before = jax.tree.map(lambda s_0, s: jnp.concatenate([s_0[None], s[:-1]]), start, after)
    return Run(step, weights.w_hh, at, before, after)


def trajectory(
    params: Any,
    xs: ArrayLike,
    h0: Any = None,
    data: Named | None = None,
    *,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
    residual: bool = False,
    inputs: InputsAre | None = None,
) -> Any:
    """Compute the states after every step: all that a network carries from one step to the next.

    `jrnn.unroll` returns the outputs h_t instead. The states are more than the outputs for an LSTM
    (h and c), a rate network (the current v, of which h = phi(v)) and a stack (every layer).

    Args:
        params: `RNNParams`, `LSTMParams`, `GRUParams`, those of `cell`, or
            `StackParams` of layers in one direction. Half precision is computed in float32.
        xs: as in `jrnn.rnn`.
        h0: the first states, as in `jrnn.unroll` or `jrnn.stack`; None: zeros.
        data: the arrays that `cell` names, as in `jrnn.unroll`.
        activation: of Elman and leaky networks, as in `jrnn.rnn`; None: "tanh".
        cell: for parameters of another class, or for another cell with the parameters of the
            package, such as the rate network (29). For a stack one, or one for each layer.
        residual: as in `jrnn.stack`.
        inputs: as in `jrnn.rnn`.

    Returns:
        The states in the form of `h0`, each array `[T, H]` or `[T, B, H]`.

    Raises:
        ValueError: as `jrnn.unroll` or `jrnn.stack`; a stack of layers in two directions.
    """
    dynamics = dynamics_of(params, activation, cell, residual)
    xs = checked_sequence(dynamics, params, xs, h0, data, inputs)
    return _trajectory(params, xs, h0, data, dynamics=dynamics)


@partial(jax.jit, static_argnames="dynamics")
def _trajectory(*arguments: Any, dynamics: Dynamics) -> Any:
    params, xs, h0, data = widened(arguments)

    def step(states: Any, at: Any) -> tuple[Any, Any]:
        states, _ = advance(dynamics, params, states, *at)
        return states, states

    start = first_states(dynamics, params, h0, steps(xs)[1:])
    return lax.scan(step, start, of_every_step(params, xs, data))[1]
