"""Both passes as plain `lax.scan`s: the definition of what every backend computes.

Forward: (23) and (15) step by step. Backward: (9) and (16) step by step, then (11)-(13) for all
steps at once, which needs all delta_t as well as the states. JAX maps and differentiates these
loops well. So they serve gradients of gradients and forward mode; and, on a CPU, the gradient of
one sequence by a cell of one block (`dispatch`).

`unroll_by_scan` is the forward pass for JAX to differentiate: the baseline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import are_ids, bits, floats
from jrnn.cells import Arrays
from jrnn.kernel import step
from jrnn.kernel.types import (
    Backward,
    BackwardCarry,
    Cotangents,
    Inputs,
    Residuals,
    Spec,
    States,
    Steps,
    Weights,
)
from jrnn.kernel.weight_gradients import (
    add_weight_gradients,
    input_gradients,
    transposed,
    transposed_back,
)


def states(spec: Spec, weights: Weights, inputs: Inputs) -> States:
    """The states, (23) and (15), by a scan that JAX can differentiate."""
    H = weights.w_hh.shape[0]
    steps, start, constants = inputs
    projected = step.project_inputs(spec, weights.w_ih, step.inputs_inside(spec, steps))
    weights = weights._replace(w_hh=step.rounded(spec, weights.w_hh))

    def one_step(states: Arrays, at: Steps) -> tuple[Arrays, Any]:
        at = at._replace(xs=step.blocks_of(at.xs, H))
        states, gates = step.step_forward(spec, weights, constants, at, states)
        return states, step.stored(spec, at.valid, states, gates)

    last, (hs, kept) = lax.scan(one_step, start, steps._replace(xs=projected))
    return States(last, hs, kept)


def unroll_by_scan(spec: Spec, weights: Weights, inputs: Inputs) -> tuple[Arrays, jax.Array]:
    """The last states and the outputs, which JAX differentiates in any mode."""
    return step.with_clean_start(spec, inputs, lambda clean: states(spec, weights, clean)[:2])


@dataclass(frozen=True)
class Reference:
    """The backend of plain scans."""

    def forward(self, spec: Spec, weights: Weights, inputs: Inputs) -> States:
        """As `types.Backend`."""
        return states(spec, weights, inputs)

    def backward(
        self, spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights
    ) -> Backward:
        """As `types.Backend`."""
        return backward(spec, residuals, cotangents, sums, scan_in_bits)


def backward(
    spec: Spec,
    residuals: Residuals,
    cotangents: Cotangents,
    sums: Weights,
    scan: Callable[..., Any] = lax.scan,
) -> Backward:
    """(9)-(13), with (16) and (17)."""
    weights, inputs = residuals.weights, residuals.inputs
    steps, _, constants = inputs
    given, last = step.backward_steps(spec, residuals, cotangents.hs), cotangents.last
    entering = step.states_entering(spec, inputs, given.after, 0, len(residuals.hs))
    gates = given.gates or step.recomputed_gates(spec, weights, constants, steps, entering)
    constant = step.rounded(spec, weights.w_hh.T), constants, last

    def one_step(carry: BackwardCarry, at: Any) -> tuple[BackwardCarry, Any]:
        carry, deltas, d_data = step.step_back(spec, *constant, carry, *at)
        return carry, (step.rounded(spec, jnp.concatenate(deltas, -1)), d_data)

    with jax.named_scope("rnn_backward"):
        carry, each = step.first_carry(constants, last), (given, gates, entering)
        carry, (deltas, d_data) = scan(one_step, carry, each, reverse=True)
        carry = step.at_the_start(spec, steps, carry, last)
    with jax.named_scope("rnn_weight_gradients"):
        # Without the barrier XLA transposes the deltas for each of their uses.
        deltas = lax.optimization_barrier(jnp.moveaxis(deltas, -1, 0).reshape(deltas.shape[-1], -1))
        xs, h = step.inputs_inside(spec, steps), step.operand(spec, constants, entering)
        sums = add_weight_gradients(spec, transposed(xs, sums), deltas, xs, h)
        sums = transposed_back(xs, sums)
        dxs = None
        if not are_ids(xs):
            dxs = input_gradients(spec, weights.w_ih, deltas)
            dxs = dxs.reshape(xs.shape).astype(xs.dtype)
    return Backward(carry, sums, dxs, d_data)


def scan_in_bits(
    body: Callable[..., Any], init: Any, xs: Any, reverse: bool = False
) -> tuple[Any, Any]:
    """`lax.scan` that stacks bfloat16 as its bits, see `arrays.bits`. It has no derivative."""

    def body_in_bits(carry: Any, x: Any) -> Any:
        carry, y = body(carry, x)
        return carry, jax.tree.map(bits, y)

    carry, ys = lax.scan(body_in_bits, init, xs, reverse=reverse)
    return carry, jax.tree.map(floats, ys)
