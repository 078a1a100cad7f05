"""The Elman network as its users see it: parameters, one step, a sequence.

Each function documents, checks and fills in defaults; the recurrence is in `bptt/`. Each holds
its own `jax.jit`, so that a call outside a jitted function does not compile anew every time.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, orthogonal

from jrnn import bptt, checks
from jrnn.arrays import ArrayLike, Initializer, InputsAre, draw, matmul_precision, steps
from jrnn.cell import Activation, ActivationName, elman
from jrnn.lengths import in_reverse, marks_in_order
from jrnn.types import RNNParams


def init_rnn(
    key: jax.Array,
    input_size: int,
    hidden_size: int,
    *,
    bias: bool = True,
    w_ih_init: Initializer = lecun_normal(),  # noqa: B008
    w_hh_init: Initializer = orthogonal(),  # noqa: B008
    dtype: Any = None,
) -> RNNParams:
    """Draw the parameters of an Elman network.

    By default `w_ih` has variance 1/I (LeCun et al., Efficient BackProp, 1998), `w_hh` is
    orthogonal, so that at the start it neither shrinks nor stretches what goes back through time
    (Saxe et al., Exact solutions to the nonlinear dynamics of learning, 2014), and `b_h` is zero.

    Args:
        key: a JAX random key.
        input_size: I, features of an input vector or number of token ids.
        hidden_size: H, features of the state.
        bias: False leaves `b_h` out (None in its place).
        w_ih_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers` and
            `jrnn.initializers`.
        w_hh_init: the same for `w_hh`.
        dtype: a floating dtype; None is JAX's default float.

    Returns:
        `RNNParams` of `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.

    Raises:
        ValueError: a size below 1, or a dtype that is not floating.
    """
    checks.sizes(input_size=input_size, hidden_size=hidden_size)
    dtype = checks.floating_dtype(dtype)
    key_ih, key_hh = jax.random.split(key)
    return RNNParams(
        w_ih=draw(w_ih_init, key_ih, (input_size, hidden_size), dtype),
        w_hh=draw(w_hh_init, key_hh, (hidden_size, hidden_size), dtype),
        b_h=jnp.zeros((hidden_size,), dtype) if bias else None,
    )


def rnn_cell(
    params: RNNParams,
    h_tm1: ArrayLike,
    x_t: ArrayLike,
    *,
    activation: ActivationName | Activation = "tanh",
    inputs: InputsAre | None = None,
) -> jax.Array:
    """One step, equations (1) and (2): h_t = phi(x_t w_ih + h_{t-1} w_hh + b_h).

    Differentiated by JAX, in forward and reverse mode.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        h_tm1: `[H]` or `[B, H]`, the state before the step; `[H]` is shared by a batch.
        x_t: `[I]` or `[B, I]` input, or `[]` or `[B]` token ids.
        activation: as in `rnn`.
        inputs: as in `rnn`.

    Returns:
        h_t, `[H]` or `[B, H]`, in the dtype of the parameters.

    Raises:
        ValueError: as `rnn`.
    """
    x_t = checks.cell_arguments(params, h_tm1, x_t, inputs)
    options = recurrence(activation, None, params)
    return _rnn_cell(params, h_tm1, x_t, recurrence=options)


def rnn(
    params: RNNParams,
    xs: ArrayLike,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: ArrayLike | None = None,
    recurrent_mask: ArrayLike | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
    reverse: bool = False,
    clip_delta: float | None = None,
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Run the Elman network over a sequence, or over a batch of sequences.

        a_t = x_t w_ih + h_{t-1} w_hh + b_h                                         (1)
        h_t = phi(a_t)                                                              (2)

    The gradient is backpropagation through time, derived by hand: equations (9), (11)-(13) and
    (15)-(17) of `jrnn/bptt/`. It is exact to every order of reverse mode; of size T*B*H it keeps
    `hs` alone. There is no forward mode of `rnn` itself (`jax.jvp`, `jax.jacfwd`,
    `jax.linearize`): use `jrnn.derivation.rnn_scan`. Forward over reverse, as in `jax.hessian` of
    a cost, works. `jax.default_matmul_precision` holds for the backward pass as for the forward.

    What carries data can be mapped by `jax.vmap` by its position; options go through
    `functools.partial`.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None, of one floating dtype.
        xs: `[T, I]` or `[T, B, I]` inputs in the dtype of the parameters, or `[T]` or `[T, B]`
            integers: token ids in [0, I), which stand for one-hot vectors.
        h0: the state before the first step: None (zeros), `[H]` (shared by the batch, so that it
            can be learned) or `[B, H]`, in the dtype of the parameters.
        lengths: the steps of each sequence, from 0 to T, `[B]` or `[]` (shared) integers; None: T.
            What stands after them is padding: whatever it is, it reaches no output and no
            gradient; `hs` is 0 there. A sequence of length 0 ends in `h0`.
        resets: `[T, B]` or `[T]` (shared) bool: a new segment begins with this step, whichever
            way it is read. The state before its first step that is read is `reset_state`, not what
            came before, nor `h0`. None: nowhere.
        reset_state: as `h0`; None is zeros.
        recurrent_mask: m, `[H]` or `[B, H]`: (1) becomes x_t w_ih + (m * h_{t-1}) w_hh + b_h, with
            the same m at every step, as in variational dropout (Gal and Ghahramani, A
            theoretically grounded application of dropout in recurrent neural networks, 2016).
            None: ones.
        activation: phi: "tanh", "relu" (phi'(0) = 0), "sigmoid", "identity", or a
            `jrnn.Activation`.
        reverse: read each sequence from its own end to its start. The outputs keep the order of
            the inputs; `h_last` is the state after x_0 is read.
        clip_delta: every element of delta_t, the cotangent of a_t, is clipped to +-clip_delta
            before anything is made of it: the gradients of that step and what goes back to the
            steps before (Graves, Generating sequences with recurrent neural networks, 2013). It is
            then no gradient of a cost any more. None: as it is.
        compute_dtype: a narrower floating dtype, such as `jnp.bfloat16`: operands of matmuls are
            rounded to it and their products summed in the dtype of the parameters, in which all
            else stays; `hs` comes back in it. None: the dtype of the parameters.
        remat: keep only about sqrt(T) of the states for the gradient and compute the rest once
            more, in segments: for at most one more forward pass, memory that grows as sqrt(T), if
            `hs` itself is not used (see `jrnn.rnn_cross_entropy` for a loss at every step).
        inputs: how integers are read. "ids": as token ids. "features": as numbers, such as counts,
            pixels or spikes; they and bool are cast to the dtype of the parameters. None: as ids,
            unless they could be features as well: `[T, B]` with B = I looks like `[T, I]`. Then
            an argument with an axis B (`h0`, `lengths`, ...) says that they are ids; without one
            there is an error, and you say which.

    Returns:
        `(h_last, hs)`, as `lax.scan` does: the state after the last step `[H]` or `[B, H]`, and
        all states `[T, H]` or `[T, B, H]`, `hs[0]` being h_1, in the dtype of the parameters (`hs`
        in `compute_dtype`, if there is one).

    Raises:
        ValueError: a shape, a rank or a dtype that does not fit, integers that could be ids or
            features, no step at all or a symbolic number of them (`jax.export`; that of the batch
            may be symbolic), concrete token ids outside [0, I), concrete lengths outside [0, T], an
            unknown activation, a `clip_delta` that is not positive, a `compute_dtype` that is not
            floating or not narrower than the parameters. Ids outside the range that only the
            compiled program sees give NaN; lengths, the nearest one.
    """
    data = (h0, lengths, resets, reset_state, recurrent_mask)
    xs = checks.rnn_arguments(params, xs, *data, reading=inputs)
    checks.known_steps(xs)
    checks.flag("reverse", reverse)
    checks.flag("remat", remat)
    options = recurrence(activation, compute_dtype, params, clip_delta)
    return _rnn(params, xs, *data, recurrence=options, reverse=bool(reverse), remat=bool(remat))


def recurrence(
    activation: ActivationName | Activation,
    compute_dtype: Any,
    params: RNNParams,
    clip_delta: float | None = None,
) -> bptt.Recurrence:
    """The static part of a call, from its options.

    Args:
        activation: as in `rnn`.
        compute_dtype: as in `rnn`.
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        clip_delta: as in `rnn`.

    Returns:
        The `bptt.Recurrence`.

    Raises:
        ValueError: an option that `rnn` refuses.
    """
    compute_dtype = checks.compute_dtype(compute_dtype, params)
    clip_delta = checks.positive_or_none("clip_delta", clip_delta)
    return bptt.Recurrence(elman(activation), matmul_precision(), compute_dtype, clip_delta)


@partial(jax.jit, static_argnames=("recurrence", "reverse", "remat"))
def _rnn(
    params: RNNParams,
    xs: jax.Array,
    h0: jax.Array | None,
    lengths: jax.Array | None,
    resets: jax.Array | None,
    reset_state: jax.Array | None,
    recurrent_mask: jax.Array | None,
    *,
    recurrence: bptt.Recurrence,
    reverse: bool,
    remat: bool,
) -> tuple[jax.Array, jax.Array]:
    lead = steps(xs)
    lengths = None if lengths is None else jnp.broadcast_to(lengths, lead[1:])
    marks = marks_in_order(lead, lengths, resets, reverse)
    entry = bptt.Entry(reset_state, recurrent_mask)
    turned = partial(in_reverse, lengths=lengths) if reverse else lambda x: x
    h_last, hs = bptt.run(
        recurrence, params, bptt.whole(params, turned(xs), h0, marks, entry), remat
    )
    return h_last, turned(hs)


@partial(jax.jit, static_argnames=("recurrence",))
def _rnn_cell(
    params: RNNParams,
    h_tm1: jax.Array,
    x_t: jax.Array,
    *,
    recurrence: bptt.Recurrence,
) -> jax.Array:
    projected = bptt.project_inputs(params.w_ih, x_t, recurrence.matmul)
    h_tm1 = jnp.broadcast_to(h_tm1, projected.shape)
    return recurrence.step(params, bptt.Entry(), projected, bptt.Marks(), h_tm1)
