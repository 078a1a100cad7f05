"""The Elman network as its users see it: parameters, one step, a sequence.

Each function documents, checks and fills in defaults; the recurrence is in `bptt/`. Each holds
its own `jax.jit`, so that a call outside a jitted function does not compile anew every time.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, lecun_normal, orthogonal

from jrnn import bptt, checks
from jrnn.arrays import ArrayLike, draw, matmul_precision
from jrnn.cell import Activation, ActivationName, elman
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
        w_ih_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`.
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
) -> jax.Array:
    """One step, equations (1) and (2): h_t = phi(x_t w_ih + h_{t-1} w_hh + b_h).

    Differentiated by JAX, in forward and reverse mode.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        h_tm1: `[H]` or `[B, H]`, the state before the step; `[H]` is shared by a batch.
        x_t: `[I]` or `[B, I]` input, or `[]` or `[B]` token ids.
        activation: as in `rnn`.

    Returns:
        h_t, `[H]` or `[B, H]`, in the dtype of the parameters.

    Raises:
        ValueError: as `rnn`.
    """
    checks.cell_arguments(params, h_tm1, x_t)
    options = recurrence(activation, None, params)
    return _rnn_cell(params, h_tm1, x_t, recurrence=options)


def rnn(
    params: RNNParams,
    xs: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
    compute_dtype: Any = None,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Run the Elman network over a sequence, or over a batch of sequences.

        a_t = x_t w_ih + h_{t-1} w_hh + b_h                                         (1)
        h_t = phi(a_t)                                                              (2)

    The gradient is backpropagation through time, derived by hand: equations (9) and (11)-(13) of
    `jrnn/bptt/`. It is exact to every order of reverse mode; of size T*B*H it keeps `hs` alone.
    There is no forward mode of `rnn` itself (`jax.jvp`, `jax.jacfwd`, `jax.linearize`): use
    `jrnn.derivation.rnn_scan`. Forward over reverse, as in `jax.hessian` of a cost, works.
    `jax.default_matmul_precision` holds for the backward pass as for the forward pass.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None, of one floating dtype.
        xs: `[T, I]` or `[T, B, I]` inputs in the dtype of the parameters, or `[T]` or `[T, B]`
            integers: token ids in [0, I), which stand for one-hot vectors.
        h0: the state before the first step: None (zeros), `[H]` (shared by the batch, so that it
            can be learned) or `[B, H]`, in the dtype of the parameters.
        activation: phi: "tanh", "relu" (phi'(0) = 0), "sigmoid", "identity", or a
            `jrnn.Activation`.
        compute_dtype: a narrower floating dtype, such as `jnp.bfloat16`: operands of matmuls are
            rounded to it and their products summed in the dtype of the parameters, in which all
            else stays; `hs` comes back in it. None: the dtype of the parameters.
        remat: keep only about sqrt(T) of the states for the gradient and compute the rest once
            more, in segments: for one more forward pass, memory that grows as sqrt(T), if `hs`
            itself is not used (see `jrnn.rnn_cross_entropy` for a loss at every step).

    Returns:
        `(h_last, hs)`, as `lax.scan` returns its carry and its outputs: `[H]` or `[B, H]`, the
        state after the last step, and `[T, H]` or `[T, B, H]`, the state after every step. Both
        have the dtype of the parameters, or `hs` that of `compute_dtype`.

    Raises:
        ValueError: a shape, a rank or a dtype that does not fit, no step at all, concrete token
            ids outside [0, I), an unknown activation, a `compute_dtype` that is not floating or
            not narrower than the parameters. Ids outside the range that only the compiled
            program sees give NaN.
    """
    checks.rnn_arguments(params, xs, h0)
    checks.flag("remat", remat)
    options = recurrence(activation, compute_dtype, params)
    return _rnn(params, xs, h0, recurrence=options, remat=bool(remat))


def recurrence(
    activation: ActivationName | Activation, compute_dtype: Any, params: RNNParams
) -> bptt.Recurrence:
    """The static part of a call, from its options.

    Args:
        activation: as in `rnn`.
        compute_dtype: as in `rnn`.
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.

    Returns:
        The `bptt.Recurrence`.

    Raises:
        ValueError: an option that `rnn` refuses.
    """
    compute_dtype = checks.compute_dtype(compute_dtype, params)
    return bptt.Recurrence(elman(activation), matmul_precision(), compute_dtype)


@partial(jax.jit, static_argnames=("recurrence", "remat"))
def _rnn(
    params: RNNParams,
    xs: jax.Array,
    h0: jax.Array | None,
    *,
    recurrence: bptt.Recurrence,
    remat: bool,
) -> tuple[jax.Array, jax.Array]:
    return bptt.run(recurrence, params, xs, h0, remat)


@partial(jax.jit, static_argnames=("recurrence",))
def _rnn_cell(
    params: RNNParams,
    h_tm1: jax.Array,
    x_t: jax.Array,
    *,
    recurrence: bptt.Recurrence,
) -> jax.Array:
    projected = bptt.project_inputs(params, x_t, recurrence.matmul)
    return recurrence.step(params.w_hh, projected, jnp.broadcast_to(h_tm1, projected.shape))
