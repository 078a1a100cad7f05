"""A training step for any loss and any optax optimiser; its carry gives truncated BPTT.

The state that is carried from one call to the next is data of the next call, so no gradient crosses
the boundary. Training on consecutive chunks of a long sequence is therefore truncated BPTT by
chunks (Williams and Peng, An efficient gradient-based algorithm for on-line training of recurrent
network trajectories, 1990). Use optax for schedules, clipping and accumulation:

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    optimizer = optax.MultiSteps(optimizer, every_k_schedule=4)

A loss, a gradient, an update or a carry that is not finite changes nothing. The step donates the
buffers of its state, so the decision is made inside the step: afterwards the old state is gone.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jrnn import checks
from jrnn.arrays import at_least_float32
from jrnn.parallel import BATCH, split_value_and_grad

if TYPE_CHECKING:
    import optax

LossFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Any]]


class TrainState(NamedTuple):
    """The state that a training step reads and writes.

    Attributes:
        params: any pytree of arrays.
        opt_state: that of the optimiser.
        carry: carried from chunk to chunk by the loss: usually the hidden state `[B, H]`.
        step: `[]` int32, the number of steps so far.
        key: a random key; each step folds in its number.
        nonfinite: `[]` int32, how many losses, gradients, updates or carries were not finite.
    """

    params: Any
    opt_state: Any
    carry: Any
    step: jax.Array
    key: jax.Array
    nonfinite: jax.Array


class StepMetrics(NamedTuple):
    """Metrics of a training step, on the device, from the gradient before the optimiser.

    Attributes:
        loss: `[]` of this step.
        grad_norm: `[]` global 2-norm of the gradient.
        grad_norms: `[]` for each array of the parameters: the 2-norm of its gradient.
    """

    loss: jax.Array
    grad_norm: jax.Array
    grad_norms: Any


def init_train_state(
    params: Any,
    optimizer: "optax.GradientTransformation",
    carry: Any,
    key: jax.Array,
    *,
    mesh: Mesh | None = None,
) -> TrainState:
    """Make the state before the first step.

    Arrays are copied: a training step donates the buffers of its state. So the caller's arrays stay
    valid, and no buffer is donated twice.

    Args:
        params: any pytree of arrays.
        optimizer: an optax optimiser.
        carry: the carry for the first chunk, such as `jrnn.zero_state(params, B)`, or None.
        key: a JAX random key.
        mesh: from `parallel.batch_mesh`. The carry is split over its devices along the first axis;
            everything else is replicated.

    Returns:
        The `TrainState` at step 0.

    Raises:
        ValueError: no random key, no optimiser, a mesh that is not from `batch_mesh`, or a carry
            that it does not divide.
    """
    checks.key(key)
    checks.optimizer(optimizer)
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(params, optimizer.init(params), carry, zero, key, zero)
    # Copies without weak types, which the step does not return: it would be compiled again.
    state = jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x)), state)
    if mesh is None:
        return state
    checks.batch_mesh(mesh, BATCH)
    checks.divided("carry", carry, PartitionSpec(BATCH), mesh)
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(BATCH))
    shardings: Any = TrainState(*[whole] * 6)._replace(carry=split)  # type: ignore[arg-type]
    if jax.process_count() > 1:
        return jax.jit(lambda state: state, out_shardings=shardings)(state)
    return jax.device_put(state, shardings)  # from any devices; jit takes none of another mesh


def make_train_step(
    loss_fn: LossFn,
    optimizer: "optax.GradientTransformation",
    *,
    mesh: Mesh | None = None,
    batch_spec: Any = PartitionSpec(None, BATCH),  # noqa: B008
    nonfinite: Literal["stop", "skip"] = "stop",
) -> Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]:
    """Make a jitted training step that donates its state.

    With a mesh, `loss_fn` runs on every device, under `jax.shard_map`, and gets the parameters,
    this device's part of the carry and of the batch, and its own key. It returns the loss of the
    whole batch, computed with `parallel.mean`, and its part of the carry. A batch of NumPy arrays,
    or of uncommitted JAX arrays, is split automatically.

    Args:
        loss_fn: `(params, carry, batch, key) -> (loss [], carry)`, a pure function. It gets the
            carry that it returned for the previous batch, and a new key in every step.
        optimizer: an optax optimiser; not one that evaluates the loss again (a line search, as in
            `optax.lbfgs`), nor `optax.lookahead`, whose parameters are pairs.
        mesh: from `parallel.batch_mesh`, the same as for `init_train_state`.
        batch_spec: the axis that the mesh splits, by default the second, as in `[T, B]` and
            `[T, B, I]`: one `PartitionSpec` for all arrays of the batch, or one for each.
        nonfinite: the effect of NaN or inf in a loss, a gradient, its norm, the new carry, or the
            update that the optimiser makes (in float16 Adam may divide by 0); they are counted.
            "stop": parameters, optimiser state, carry and step stop changing and every later loss
            is NaN, so it suffices to check occasionally; to continue, set `nonfinite` of the state
            to 0. "skip": the batch changes only the step number. (`optax.apply_if_finite` protects
            the parameters, but not the carry, and does not check the loss.)

    Returns:
        `step(state, batch) -> (state, StepMetrics)`. The old state is donated: use the returned
        one. `step.lower`, `step.trace` and `step.eval_shape` are those of the jitted function.

    Raises:
        ValueError: a loss of other arguments, no optimiser, a mesh that is not from `batch_mesh`,
            or an unknown value of `nonfinite`; from the step, a loss that does not return
            `(loss [], carry)`, a line search, a batch or a carry that the mesh does not divide, a
            loss that differs between devices, or a state that was donated before.
    """
    checks.nonfinite(nonfinite)
    checks.loss_function(loss_fn)
    checks.optimizer(optimizer)

    import optax  # here, to keep `import jrnn` fast

    update = optimizer.update  # some optimisers read the loss
    if not isinstance(optimizer, optax.MultiSteps):  # which hands it over itself
        update = optax.with_extra_args_support(optimizer).update

    def loss_and_carry(*arguments: Any) -> tuple[jax.Array, Any]:
        found = loss_fn(*arguments)
        checks.loss_and_carry(found)
        return found

    value_and_grad = jax.value_and_grad(loss_and_carry, has_aux=True)
    if mesh is not None:
        value_and_grad = split_value_and_grad(value_and_grad, mesh, batch_spec)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, carry), grads = value_and_grad(state.params, state.carry, batch, key)
        checks.same_carry(carry, state.carry)
        with checks.no_line_search():
            of_loss = {"value": loss, "grad": grads}
            updates, opt_state = update(grads, state.opt_state, state.params, **of_loss)
        params = optax.apply_updates(state.params, updates)

        # Squares of float16 would overflow where the gradient is finite.
        norms = jax.tree.map(lambda g: optax.tree.norm(at_least_float32(g)), grads)
        metrics = StepMetrics(loss, optax.tree.norm(norms), norms)
        if nonfinite == "stop":
            metrics = metrics._replace(loss=jnp.where(state.nonfinite > 0, jnp.nan, loss))
        finite = jnp.isfinite(metrics.grad_norm) & _are_finite((loss, updates, carry))
        return _taken(finite, state, (params, opt_state, carry), nonfinite), metrics

    jitted = jax.jit(step, donate_argnums=0)

    @wraps(step)
    def with_state(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        if isinstance(state.step, jax.Array):
            checks.there("state", state.step)  # all of the state is donated together
        return jitted(state, batch)

    vars(with_state).update(lower=jitted.lower, trace=jitted.trace, eval_shape=jitted.eval_shape)
    return with_state


def _are_finite(tree: Any) -> jax.Array:
    """Whether all floats are; the carry may also have integers and keys."""
    leaves = jax.tree.leaves(tree)
    floats = [x for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def _taken(finite: jax.Array, state: TrainState, after: Any, nonfinite: str) -> TrainState:
    """The state after a step, or before it: see `nonfinite` of `make_train_step`.

    `after`: the parameters, the optimiser's state and the carry.
    """
    taken, number = finite, state.step + 1
    if nonfinite == "stop":
        taken = finite & (state.nonfinite == 0)
        number = jnp.where(taken, number, state.step)
    before = state.params, state.opt_state, state.carry
    params, opt_state, carry = jax.tree.map(partial(jnp.where, taken), after, before)
    count = state.nonfinite + (~finite).astype(jnp.int32)
    return TrainState(params, opt_state, carry, number, state.key, count)
