"""The whole objective of a recurrent network, from inputs to the cost, in little memory.

    a_t = x_t w_ih + h_{t-1} w_hh + b_h          h_t = phi(a_t)                  (1), (2)
    o_t = h_t w_ho + b_o                                                         (3)
    J   = sum_t m_t J_t                          J_t: any loss of o_t and its target (6)

A loss that follows the recurrence needs the states of all T steps at once. Here the loss is
computed together with the states, segment by segment. With `remat` both passes hold one segment of
states at a time, and one block of outputs. In a stack a segment goes through all layers before the
next one begins, so no layer may read backwards.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jrnn import checks, kernel
from jrnn._layers import Dropout, layer_by_layer
from jrnn._network import state_of, states_of, weights_of
from jrnn._stack import as_stack
from jrnn.arrays import (
    ArrayLike,
    InputsAre,
    at_least_float32,
    rows,
    varying_alike,
    wide_floats,
)
from jrnn.cells import Arrays, Named
from jrnn.kernel.masking import Move
from jrnn.kernel.remat import over_segments
from jrnn.kernel.types import Inputs
from jrnn.loss.blockwise import LossFunction, cost
from jrnn.loss.regression import Loss
from jrnn.loss.softmax import cross_entropy, softmax_cross_entropy
from jrnn.types import ReadoutParams, StackParams


def rnn_loss(
    rnn_params: Any,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    targets: ArrayLike,
    h0: Any = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: Any = None,
    mask: ArrayLike | None = None,
    recurrent_mask: Any = None,
    data: Named | None = None,
    key: jax.Array | None = None,
    *,
    loss: Callable[..., Any],
    weights: ArrayLike | None = None,
    activation: Any = None,
    cell: Any = None,
    dropout: float = 0.0,
    residual: bool = False,
    clip_delta: Any = None,
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[jax.Array, Any]:
    """J of (6) for a network or a stack with a loss at every step, and its last state.

    Equals the network, `readout` and the loss one after the other, gradients included:

        h_last, hs = jrnn.rnn(rnn_params, xs, h0)
        loss(jrnn.readout(readout_params, hs), targets, weights).sum()

    A batch of many outputs is never in memory at once. With `remat` neither are the states: memory
    grows as sqrt(T), and one more forward pass is computed.

    Args:
        rnn_params: `RNNParams`, `LSTMParams`, `GRUParams`, those of `cell`, or a
            `StackParams` of layers without a backward network.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None, in the dtype of `rnn_params`.
        xs: `[T, I]` or `[T, B, I]`, or ids `[T]` or `[T, B]`, as in `rnn`.
        targets: `[T, ...]` or `[T, B, ...]`, as `loss` takes them; floats have the dtype of
            `rnn_params`.
        h0: the first state, as in `rnn`; of an LSTM an `LSTMState`, as in `lstm`; of a stack as in
            `stack`.
        lengths: `[B]`, `[]` or None, as in `rnn`; the loss of a step in the padding is 0, even if
            it is NaN.
        resets: `[T, B]`, `[T]` or None, as in `rnn`.
        reset_state: as `h0`.
        mask: `[T, B]`, `[T]` or None: the steps that count, as in `rnn`; the loss of the others is
            0, even if it is NaN.
        recurrent_mask: `[H]`, `[B, H]` or None, as in `rnn`; of a stack as in `stack`.
        data: the arrays that `cell` names, as in `unroll`; None for a stack.
        key: a JAX random key for the dropout of a stack, as in `stack`; the draws are the same
            unless there is a `mask`, or `remat` and a key of rbg, whose draws depend on the number
            of steps at a time.
        loss: the loss of each step, static: `jrnn.squared_error`, `jrnn.softmax_cross_entropy`,
            another loss of this package, `functools.partial(jrnn.quantile_loss, quantile=0.9)`, or
            a function of your own of outputs `[T, B, O]` and targets, which it gets in at least
            float32, to losses `[T, B, ...]`. It sees some of the steps at a time, and maybe all in
            one axis: `[N, O]`. Any other value that it reads, such as a parameter of its own, is
            fixed when this function is first used: define the function where that value is.
        weights: m, None (ones), `[]`, or `[T]` or `[T, B]`, or in the shape of the losses: a bool
            mask or floats. Where a weight is 0, the loss and its gradients are 0, even if the
            target is NaN; the state is computed all the same. `loss` gets 0 for the targets of a
            position where no loss counts and, if targets and weights have one shape, for each
            target of weight 0 that is not finite; it gets all others as they are, since another
            loss of the position may read them.
        activation: as in `rnn`, of an Elman network; None: "tanh". As in `stack`.
        cell: the `jrnn.Cell` of parameters of your own, static; None: that of the package. As in
            `stack`.
        dropout: as in `stack`.
        residual: as in `stack`.
        clip_delta: as in `rnn`, or in `stack`.
        compute_dtype: as in `rnn`, or in `stack`; the loss is computed in the dtype of the
            parameters from states that are rounded to it.
        remat: keep only about sqrt(T) states for the gradient and compute the rest once more.
        inputs: as in `rnn`; targets say as well whether they are those of a batch.

    Returns:
        `(J, h_last)`: `[]` the cost, in at least float32, and the state after the last step, as the
        network or the stack returns it.

    Raises:
        ValueError: what `rnn`, `stack` and the loss refuse; a readout of another size or dtype than
            the states; a layer with a backward network; dropout of one layer with a key; a loss
            that is not hashable.
    """
    loss = _static(loss)
    options = {"activation": activation, "cell": cell, "clip_delta": clip_delta}
    params, cells, specs = as_stack(rnn_params, **options, compute_dtype=compute_dtype)
    given = (h0, lengths, resets, reset_state)
    named = "labels" if loss is cross_entropy else "targets"
    batch = checks.of_a_batch(targets, weights, named)
    read: dict[str, Any] = {"reading": inputs, "of_a_batch": batch}
    read["compute_dtype"] = specs[0].compute_dtype
    alone = not isinstance(rnn_params, StackParams)
    if alone:
        arrays = (*given, recurrent_mask, mask, data)
        xs = checks.network_arguments(cells[0], rnn_params, xs, *arrays, **read)
        h0, reset_state, recurrent_mask = (h0,), (reset_state,), (recurrent_mask,)
    else:
        reason = "A segment would need all steps after it: see jrnn.readout_cross_entropy."
        checks.forwards(params, reason)
        xs = checks.stack_arguments(cells, params, xs, *given, mask, recurrent_mask, **read)
        checks.no_data_of_a_stack(data)
    checks.for_the_kernel(xs)
    checks.flag("remat", remat)
    checks.dropout_between(dropout, key, params)
    checks.residual(residual, cells, params, xs)
    top = params.layers[-1].forward
    counted = (weights, lengths, mask)
    if loss is cross_entropy:
        checks.objective_arguments(top, readout_params, xs, targets, *counted)
    else:
        checks.objective_of(loss, top, readout_params, xs, targets, weights)
    J, states = _rnn_loss(
        *(params, readout_params, xs, targets, weights),
        *(h0, lengths, resets, reset_state, mask, recurrent_mask, data),
        key if dropout > 0 else None,
        specs=specs,
        loss=loss,
        dropout=float(dropout),
        residual=bool(residual),
        remat=bool(remat),
    )
    return J, states[0] if alone else states


def rnn_cross_entropy(
    rnn_params: Any,
    readout_params: ReadoutParams,
    xs: ArrayLike,
    labels: ArrayLike,
    h0: Any = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: Any = None,
    mask: ArrayLike | None = None,
    recurrent_mask: Any = None,
    data: Named | None = None,
    key: jax.Array | None = None,
    *,
    weights: ArrayLike | None = None,
    activation: Any = None,
    cell: Any = None,
    dropout: float = 0.0,
    residual: bool = False,
    clip_delta: Any = None,
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[jax.Array, Any]:
    """`rnn_loss` of `softmax_cross_entropy`: equations (4) and (5) at every step.

    Equals the network followed by `readout_cross_entropy`, gradients included. The logits are never
    in memory at once.

    Args:
        rnn_params: as in `rnn_loss`, like all that is not listed.
        readout_params: `w_ho [H, O]`, `b_o [O]` or None, in the dtype of `rnn_params`.
        xs: `[T, I]` or `[T, B, I]`, or ids `[T]` or `[T, B]`, as in `rnn`.
        labels: `[T]` or `[T, B]` integers, the true classes; or `[T, O]` or `[T, B, O]` floats,
            each class's share, as in `readout_cross_entropy`.
        h0: the first state.
        lengths: `[B]`, `[]` or None.
        resets: `[T, B]`, `[T]` or None.
        reset_state: as `h0`.
        mask: `[T, B]`, `[T]` or None: the steps that count.
        recurrent_mask: `[H]`, `[B, H]` or None; of a stack as in `stack`.
        data: the arrays that `cell` names.
        key: for the dropout of a stack.
        weights: m, None (ones), `[]`, or `[T]` or `[T, B]`: a bool mask or floats.
        activation: of an Elman network; None: "tanh".
        cell: the `jrnn.Cell` of parameters of your own.
        dropout: p of (21), of a stack.
        residual: (20), of a stack.
        clip_delta: as in `rnn`.
        compute_dtype: as in `rnn`.
        remat: keep only about sqrt(T) states for the gradient and compute the rest once more.
        inputs: as in `rnn`; labels say as well whether they are those of a batch.

    Returns:
        `(J, h_last)`: `[]` the cost in nats, in at least float32, and the state after the last
        step, as the network returns it.

    Raises:
        ValueError: what `rnn_loss` and `readout_cross_entropy` refuse.
    """
    return rnn_loss(
        *(rnn_params, readout_params, xs, labels, h0, lengths, resets, reset_state),
        *(mask, recurrent_mask, data, key),
        loss=softmax_cross_entropy,
        weights=weights,
        activation=activation,
        cell=cell,
        dropout=dropout,
        residual=residual,
        clip_delta=clip_delta,
        compute_dtype=compute_dtype,
        remat=remat,
        inputs=inputs,
    )


def _static(loss: Any) -> LossFunction:
    """The loss as an option of a jitted function: equal partials become equal."""
    if isinstance(loss, partial) and not loss.args:
        try:
            equal = Loss(loss.func, tuple(sorted(loss.keywords.items())))
            hash(equal)
            loss = equal
        except TypeError:  # an option that is an array: only this very object is equal
            pass
    if not callable(loss):
        expected = "a function of outputs and targets"
        checks.refuse("loss", expected, type(loss).__name__, "See jrnn.squared_error.")
    try:
        hash(loss)
    except TypeError:
        repair = "Wrap it once: own = lambda o, y: module(o, y)."
        checks.refuse("loss", "a hashable function", type(loss).__name__, repair)
    if loss is softmax_cross_entropy:
        return cross_entropy
    return Loss(_of_wide, (("loss", loss),))


def _of_wide(outputs: jax.Array, targets: jax.Array, *, loss: LossFunction) -> jax.Array:
    return loss(at_least_float32(outputs), wide_floats(targets))


@partial(jax.jit, static_argnames=("specs", "loss", "dropout", "residual", "remat"))
def _rnn_loss(
    params: StackParams,
    readout_params: ReadoutParams,
    xs: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None,
    h0: Any,
    lengths: jax.Array | None,
    resets: jax.Array | None,
    reset_state: Any,
    mask: jax.Array | None,
    recurrent_mask: Any,
    data: Named | None,
    key: jax.Array | None,
    *,
    specs: tuple[kernel.Spec, ...],
    loss: LossFunction,
    dropout: float,
    residual: bool,
    remat: bool,
) -> tuple[jax.Array, Any]:
    none = (None,) * len(specs)
    of_layers = (h0 or none, reset_state or none, recurrent_mask or none)
    ends, more = (lengths, resets), (mask, data)
    forth: Any = None
    networks: list[kernel.Weights] = []
    calls: list[Inputs] = []
    for spec, layer, state, again, m in zip(specs, params.layers, *of_layers, strict=True):
        network, unit = weights_of(spec.cell, layer.forward)
        start, reset_to = states_of(spec.cell, state), states_of(spec.cell, again)
        given = (start, *ends, reset_to, m, more[0], unit, more[1])
        call, move, _ = kernel.in_reading_order(spec, network, xs, *given)
        # The steps are those of the first layer; of the others only states and constants are used.
        forth, ends, more = forth or move, (None, None), (None, None)
        networks.append(network)
        calls.append(call)
    steps = calls[0].steps
    targets, m = forth(targets), _counted(steps.valid, weights, forth)
    narrow = networks, [call.constants for call in calls], params.layers, readout_params
    shared = jax.tree.map(wide_floats, narrow)  # so that the gradients of segments are summed

    def segment(start: Any, S: int, states: Any) -> tuple[Any, jax.Array]:
        now = rows(steps, start, S)
        own = jax.tree.map(lambda x, like: x.astype(like.dtype), shared, narrow)
        networks, constants, layers, readout_params = own

        def read(n: int, xs: jax.Array) -> tuple[Arrays, jax.Array]:
            own = Inputs(now._replace(xs=xs), states[n], constants[n])
            return kernel.transforms.unroll(specs[n], networks[n], own)

        reads = [partial(read, n) for n in range(len(specs))]
        drop = None if key is None else Dropout(key, dropout, start + jnp.arange(S))
        states, hs = layer_by_layer(reads, layers, now.xs, now.valid, drop, residual=residual)
        m_t = m if m is None or m.ndim == 0 else rows(m, start, S)
        y = rows(targets, start, S)
        return states, cost(specs[0].precision, loss, readout_params, hs, y, m_t)

    first = tuple(call.start for call in calls)
    if remat:
        first, *_ = varying_alike((first, steps, shared))
        last, totals, rest = over_segments(segment, len(targets), first)
        total = totals.sum() if rest is None else totals.sum() + rest
    else:
        last, total = segment(0, len(targets), first)
    return total, tuple(state_of(spec.cell, s) for spec, s in zip(specs, last, strict=True))


def _counted(valid: jax.Array | None, weights: jax.Array | None, forth: Move) -> jax.Array | None:
    """The weights in the order of the kernel, and 0 where a step does not count."""
    if weights is not None and weights.ndim > 0:
        weights = forth(weights)
    if valid is None or weights is None:
        return valid if weights is None else weights
    valid = valid.reshape(valid.shape + (1,) * (weights.ndim - valid.ndim))
    return jnp.where(valid, weights, jnp.zeros_like(weights))
