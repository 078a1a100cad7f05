"""A training step for any loss and any optax optimiser, and truncated BPTT through its carry.

The state that is carried from one call to the next is data of the next call, so no gradient
crosses the cut: a step on chunk after chunk of a long sequence *is* truncated BPTT by chunks
(Williams and Peng, An efficient gradient-based algorithm for on-line training of recurrent network
trajectories, 1990). Schedules, clipping and accumulation are optax's:

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    optimizer = optax.MultiSteps(optimizer, every_k_schedule=4)

A loss or a gradient that is not finite changes nothing. The step gives its state's buffers back to
the device, so that is decided inside of it: whoever reads the loss afterwards has no older state.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jrnn import checks
from jrnn.parallel import BATCH, split_value_and_grad

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
    nonfinite: jax.Array  # [] int32, how many losses or gradients were not finite


class StepMetrics(NamedTuple):
    """What a training step measures, on the device, before the optimiser sees the gradient."""

    loss: jax.Array  # []
    grad_norm: jax.Array  # [] global 2-norm of the gradient
    grad_norms: Any  # [] for each array of the parameters: the 2-norm of its gradient


def init_train_state(
    params: Any,
    optimizer: "optax.GradientTransformation",
    carry: Any,
    key: jax.Array,
    *,
    mesh: Mesh | None = None,
) -> TrainState:
    """The state before the first step.

    Arrays are copied: a training step gives its state's buffers back to the device, which the
    caller's must survive, and no buffer can be given back twice.

    Args:
        params: any pytree of arrays.
        optimizer: an optax optimiser.
        carry: what the loss function takes for the first chunk, `jnp.zeros((B, H))` as a rule.
        key: a JAX random key.
        mesh: of `parallel.batch_mesh`: the state is on its devices, each of which has a part of
            the carry, cut along its first axis, and all of the rest.

    Returns:
        The `TrainState` of step 0.

    Raises:
        ValueError: a mesh of another kind, or a carry that it does not divide.
    """
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(params, optimizer.init(params), carry, zero, key, zero)
    state = jax.tree.map(jnp.copy, state)
    if mesh is None:
        return state
    checks.batch_mesh(mesh, BATCH)
    checks.divided("carry", carry, PartitionSpec(BATCH), mesh)
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(BATCH))
    shardings: Any = TrainState(*[whole] * 6)._replace(carry=split)  # type: ignore[arg-type]
    return jax.jit(lambda state: state, out_shardings=shardings)(state)  # of any processes


def make_train_step(
    loss_fn: LossFn,
    optimizer: "optax.GradientTransformation",
    *,
    mesh: Mesh | None = None,
    batch_spec: Any = PartitionSpec(None, BATCH),  # noqa: B008
    nonfinite: Literal["stop", "skip"] = "stop",
) -> Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]:
    """A jitted step of gradient descent that takes the state's buffers for its result.

    With a mesh, `loss_fn` runs on every device, under `jax.shard_map`, and gets the parameters, its
    part of the carry and of the batch, and a key of this device's own. What it returns is the loss
    of the whole batch, by `parallel.mean`, and its part of the carry. A batch of NumPy arrays, or
    of arrays that are nowhere in particular, is split on the way in.

    Args:
        loss_fn: `(params, carry, batch, key) -> (loss [], carry)`, a pure function. It gets the
            carry that it returned for the batch before, and a key of this step's own.
        optimizer: an optax optimiser; not one that evaluates the loss again (a line search).
        mesh: of `parallel.batch_mesh`, and the one that `init_train_state` was given.
        batch_spec: which axis the mesh splits, by default the second, as in `[T, B]` and
            `[T, B, I]`. A `PartitionSpec` for all arrays of the batch, or one for each.
        nonfinite: what a loss or a gradient with NaN or inf does, beside being counted in the
            state. "stop": parameters, optimiser, carry and step stay for good as they were before
            it, and every loss after it is NaN, so it is enough to look now and then; a state whose
            `nonfinite` is set to 0 goes on. "skip": they stay for this one batch, whose number
            passes. (`optax.apply_if_finite` spares the parameters, but not the carry, and does not
            see the loss.)

    Returns:
        `step(state, batch) -> (state, StepMetrics)`. The state that goes in is donated: use the
        one that comes out. `step.lower`, `step.trace` and `step.eval_shape` are those of the
        jitted function.

    Raises:
        ValueError: a mesh of another kind, or another word for `nonfinite`; from the step, a batch
            or a carry that it does not divide, a loss of a part of the batch alone, or a state that
            went in before.
    """
    checks.nonfinite(nonfinite)

    import optax  # here: importing jrnn is to be quick

    update = optax.with_extra_args_support(optimizer).update  # some read the loss

    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    if mesh is not None:
        value_and_grad = split_value_and_grad(value_and_grad, mesh, batch_spec)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, carry), grads = value_and_grad(state.params, state.carry, batch, key)
        updates, opt_state = update(grads, state.opt_state, state.params, value=loss, grad=grads)
        params = optax.apply_updates(state.params, updates)

        norms = jax.tree.map(optax.tree.norm, grads)
        metrics = StepMetrics(loss, optax.tree.norm(norms), norms)
        finite = jnp.isfinite(loss) & jnp.isfinite(metrics.grad_norm)
        taken, number = finite, state.step + 1
        if nonfinite == "stop":
            stopped = state.nonfinite > 0
            metrics = metrics._replace(loss=jnp.where(stopped, jnp.nan, loss))
            taken = finite & ~stopped
            number = jnp.where(taken, number, state.step)
        before = state.params, state.opt_state, state.carry
        after = params, opt_state, carry
        params, opt_state, carry = jax.tree.map(partial(jnp.where, taken), after, before)
        count = state.nonfinite + (~finite).astype(jnp.int32)
        return TrainState(params, opt_state, carry, number, state.key, count), metrics

    jitted = jax.jit(step, donate_argnums=0)

    @wraps(step)
    def with_state(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        if isinstance(state.step, jax.Array):
            checks.there("state", state.step)  # it is given away together with the rest
        return jitted(state, batch)

    vars(with_state).update(lower=jitted.lower, trace=jitted.trace, eval_shape=jitted.eval_shape)
    return with_state
