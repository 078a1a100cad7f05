"""The Elman network as its users see it: parameters, one step, a sequence."""

from typing import Any

import jax
from jax.nn.initializers import lecun_normal, orthogonal

from jrnn._network import run_checked, step_checked
from jrnn._unroll import init_cell
from jrnn.arrays import ArrayLike, Initializer, InputsAre
from jrnn.cells.elman import Activation, ActivationName, elman
from jrnn.types import RNNParams


def init_rnn(
    key: jax.Array,
    input_size: int | None,
    hidden_size: int,
    *,
    bias: bool = True,
    w_ih_init: Initializer = lecun_normal(),  # noqa: B008
    w_hh_init: Initializer = orthogonal(),  # noqa: B008
    dtype: Any = None,
) -> RNNParams:
    """Draw the parameters of an Elman network.

    By default `w_ih` has variance 1/I (LeCun et al., Efficient BackProp, 1998), `w_hh` is
    orthogonal, so that at the start it neither shrinks nor stretches the gradient through time
    (Saxe et al., Exact solutions to the nonlinear dynamics of learning, 2014), and `b_h` is zero.

    Args:
        key: a JAX random key.
        input_size: I, features of an input vector or number of token ids; None: no `w_ih` (None in
            its place), the inputs `[T, H]` or `[T, B, H]` are added to a_t as they are. The
            gradient then takes memory of `T*B*H` numbers more: 3.1 instead of 2.1 times as many.
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
    options = {"bias": bias, "w_ih_init": w_ih_init, "w_hh_init": w_hh_init, "dtype": dtype}
    return init_cell(elman("tanh"), key, input_size, hidden_size, **options)


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
    return step_checked(elman(activation), params, h_tm1, x_t, named="h_tm1", inputs=inputs)


def rnn(
    params: RNNParams,
    xs: ArrayLike,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: ArrayLike | None = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
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
    (15)-(17) of `jrnn/kernel/`. Reverse-mode derivatives of any order are exact. Besides `xs`,
    `hs` is the only array of size `T*B*H` that is kept. Forward mode of `rnn` itself (`jax.jvp`,
    `jax.jacfwd`, `jax.linearize`) is refused: use `jrnn.derivation.rnn_scan`. Forward over reverse,
    as in `jax.hessian` of a cost, works. `jax.default_matmul_precision` holds for both passes.

    Array arguments can be mapped by `jax.vmap`, by position. Bind options by `functools.partial`.

    Args:
        params: `w_ih [I, H]` or None, `w_hh [H, H]`, `b_h [H]` or None, of one floating dtype.
        xs: `[T, I]` or `[T, B, I]` inputs in the dtype of the parameters or in `compute_dtype`, or
            `[T]` or `[T, B]` integers: token ids in [0, I), which stand for one-hot vectors.
            Without `w_ih`: `[T, H]` or `[T, B, H]`, which take the place of x_t w_ih.
        h0: the state before the first step: None (zeros), `[H]` (shared by the batch, so that it
            can be learned) or `[B, H]`, in the dtype of the parameters.
        lengths: the steps of each sequence, from 0 to T, `[B]` or `[]` (shared) integers; None: T.
            Later steps are padding and affect neither outputs nor gradients, even if NaN; `hs` is
            0 there. A sequence of length 0 ends in `h0`.
        resets: `[T, B]` or `[T]` (shared) bool: a new segment begins with this step. Read
            forwards, the state is `reset_state` before x_t is read, not the previous state or `h0`;
            in reverse, it is `reset_state` after x_t, before x_{t-1} is read. So in reverse h0
            always enters the last step, and `resets[0]` changes nothing. None: one segment.
        reset_state: as `h0`; None is zeros.
        recurrent_mask: m, `[H]` or `[B, H]`: (1) becomes x_t w_ih + (m * h_{t-1}) w_hh + b_h, with
            the same m at every step, as in variational dropout (Gal and Ghahramani, A
            theoretically grounded application of dropout in recurrent neural networks, 2016).
            None: ones.
        mask: `[T, B]` or `[T]` (shared) bool: the steps that count, wherever they are; it takes the
            place of `lengths`. A step that does not count leaves the state as it is; `hs` is 0
            there, and `xs` there, even NaN, affects nothing. A reset at such a step acts
            at the next step that counts. None: all count.
        activation: phi: "tanh", "relu" (phi'(0) = 0), "sigmoid", "identity", or a
            `jrnn.Activation`.
        reverse: read each sequence from its own end to its start. The outputs keep the order of
            the inputs; `h_last` is the state after x_0 is read.
        clip_delta: every element of delta_t, the cotangent of a_t, is clipped to +-clip_delta
            before it enters the weight gradients and the steps before (Graves, Generating sequences
            with recurrent neural networks, 2013). The result is then not the gradient of a cost.
            None: no clipping.
        compute_dtype: a narrower floating dtype, such as `jnp.bfloat16`: operands of matmuls are
            rounded to it and their products summed in the dtype of the parameters, which everything
            else has; `hs` is returned in it. None: the dtype of the parameters.
        remat: keep only about sqrt(T) of the states for the gradient and compute the others again,
            in segments. It costs at most one more forward pass, and memory grows as sqrt(T), if
            `hs` itself is not used (see `jrnn.rnn_cross_entropy` for a loss at every step).
        inputs: how integers are read. "ids": as token ids. "features": as numbers, such as counts,
            pixels or spikes; they and bool are cast to the dtype of the parameters. None: as ids,
            unless they could be features as well: `[T, B]` with B = I looks like `[T, I]`. Then
            an argument with an axis B (`h0`, `lengths`, ...) shows that they are ids; without one
            there is an error, and you must give `inputs`.

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
            compiled program sees give NaN; lengths, the nearest one. `mask` and `lengths` together.
    """
    arrays = (h0, lengths, resets, reset_state, recurrent_mask, mask)
    options = {"clip_delta": clip_delta, "compute_dtype": compute_dtype, "remat": remat}
    options |= {"reverse": reverse, "inputs": inputs}
    return run_checked(elman(activation), params, xs, *arrays, named="h0", **options)
