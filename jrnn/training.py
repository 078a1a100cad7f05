"""A training step for any loss and any optax optimiser, and truncated BPTT through its carry.

The state that is carried from one call to the next is data of the next call, so no gradient
crosses the cut: a step on chunk after chunk of a long sequence *is* truncated BPTT by chunks
(Williams and Peng, An efficient gradient-based algorithm for on-line training of recurrent network
trajectories, 1990). Schedules, clipping and accumulation are optax's:

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    optimizer = optax.MultiSteps(optimizer, every_k_schedule=4)
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    import optax

LossFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Any]]


class TrainState(NamedTuple):
    """All that a training step reads and writes."""

    params: Any
    opt_state: Any
    carry: Any  # what the loss carries from chunk to chunk: the hidden state, as a rule [B, H]
    step: jax.Array  # [] int32, the number of steps so far
    key: jax.Array  # a random key; each step folds its number into it


class StepMetrics(NamedTuple):
    """What a training step measures, on the device."""

    loss: jax.Array  # []
    grad_norm: jax.Array  # [] global 2-norm of the gradient, before the optimiser sees it


def init_train_state(
    params: Any, optimizer: "optax.GradientTransformation", carry: Any, key: jax.Array
) -> TrainState:
    """The state before the first step.

    Arrays are copied: a training step gives its state's buffers back to the device, which the
    caller's must survive, and no buffer can be given back twice.

    Args:
        params: any pytree of arrays.
        optimizer: an optax optimiser.
        carry: what the loss function takes for the first chunk, `jnp.zeros((B, H))` as a rule.
        key: a JAX random key.

    Returns:
        The `TrainState` of step 0.
    """
    state = TrainState(params, optimizer.init(params), carry, jnp.zeros((), jnp.int32), key)
    return jax.tree.map(jnp.copy, state)


def make_train_step(
    loss_fn: LossFn, optimizer: "optax.GradientTransformation"
) -> Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]:
    """A jitted step of gradient descent that takes the state's buffers for its result.

    Args:
        loss_fn: `(params, carry, batch, key) -> (loss [], carry)`, a pure function. It gets the
            carry that it returned for the batch before, and a key of this step's own.
        optimizer: an optax optimiser; not one that evaluates the loss again (a line search).

    Returns:
        `step(state, batch) -> (state, StepMetrics)`. The state that goes in is donated: use the
        one that comes out.
    """

    import optax  # here: importing jrnn is to be quick

    update = optax.with_extra_args_support(optimizer).update  # some read the loss

    def step(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, carry), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.carry, batch, key
        )
        updates, opt_state = update(grads, state.opt_state, state.params, value=loss, grad=grads)
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(loss, optax.tree.norm(grads))
        return TrainState(params, opt_state, carry, state.step + 1, state.key), metrics

    return jax.jit(step, donate_argnums=0)
