"""The LSTM as its users see it: parameters, one step, a sequence."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, orthogonal

from jrnn import checks
from jrnn._network import run_checked, step_checked
from jrnn._unroll import init_cell
from jrnn.arrays import ArrayLike, Initializer, InputsAre
from jrnn.cells.lstm import LSTM
from jrnn.types import LSTMParams, LSTMState


def init_lstm(
    key: jax.Array,
    input_size: int | None,
    hidden_size: int,
    *,
    bias: bool = True,
    forget_bias: float = 1.0,
    w_ih_init: Initializer = lecun_normal(),  # noqa: B008
    w_hh_init: Initializer = orthogonal(),  # noqa: B008
    dtype: Any = None,
) -> LSTMParams:
    """Draw the parameters of an LSTM.

    By default `w_ih` has variance 1/I, each of the four blocks of `w_hh` is orthogonal, and `b_h`
    is 1 at the forget gate and zero elsewhere: at the start the memory decays by sigmoid(1) = 0.73
    per step and not by 0.5 (Gers, Schmidhuber and Cummins, Learning to forget, 2000; Jozefowicz,
    Zaremba and Sutskever, An empirical exploration of recurrent network architectures, 2015). For
    longer memories see `jrnn.initializers.chrono`.

    Args:
        key: a JAX random key.
        input_size: I, or None, as in `init_rnn`; then the inputs are `[T, 4H]` or `[T, B, 4H]`.
        hidden_size: H, features of the state.
        bias: False leaves `b_h` out (None in its place); `forget_bias` is then not used.
        forget_bias: the bias of the forget gate, a finite number.
        w_ih_init: as in `init_rnn`; it draws `[I, H]`, four times.
        w_hh_init: as in `init_rnn`; it draws `[H, H]`, four times.
        dtype: a floating dtype; None is JAX's default float.

    Returns:
        `LSTMParams` of `w_ih [I, 4H]`, `w_hh [H, 4H]`, `b_h [4H]` or None, in the order i f g o.

    Raises:
        ValueError: a size below 1, a dtype that is not floating, a forget bias that is no number.
    """
    checks.number("forget_bias", forget_bias)
    options = {"bias": bias, "w_ih_init": w_ih_init, "w_hh_init": w_hh_init, "dtype": dtype}
    params: LSTMParams = init_cell(LSTM, key, input_size, hidden_size, **options)
    if params.b_h is None:
        return params
    forget = jnp.zeros_like(params.b_h).at[hidden_size : 2 * hidden_size].set(forget_bias)
    return params._replace(b_h=forget)


def lstm_cell(
    params: LSTMParams, state: LSTMState | None, x_t: ArrayLike, *, inputs: InputsAre | None = None
) -> LSTMState:
    """One step of an LSTM, (24).

    Differentiated by JAX, in forward and reverse mode.

    Args:
        params: `w_ih [I, 4H]` or None, `w_hh [H, 4H]`, `b_h [4H]` or None, in the order i f g o.
        state: before the step, as in `lstm`.
        x_t: `[I]` or `[B, I]` input, or `[]` or `[B]` token ids; without `w_ih` `[4H]`, `[B, 4H]`.
        inputs: as in `rnn`.

    Returns:
        The `LSTMState` after the step, `[H]` or `[B, H]` each.

    Raises:
        ValueError: as `lstm`.
    """
    return step_checked(LSTM, params, state, x_t, inputs=inputs)


def lstm(
    params: LSTMParams,
    xs: ArrayLike,
    state: LSTMState | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: LSTMState | None = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    reverse: bool = False,
    clip_delta: float | None = None,
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[LSTMState, jax.Array]:
    """Run an LSTM over a sequence, or over a batch of sequences.

        i, f, o = sigmoid(x_t w_i + h_{t-1} w_i' + b_i), and so on
        g       = tanh(x_t w_g + h_{t-1} w_g' + b_g)
        c_t     = f * c_{t-1} + i * g             h_t = o * tanh(c_t)              (24)

    The gradient is backpropagation through time, derived by hand: (25) of `jrnn/cells/lstm.py` in
    the loops of `jrnn/kernel/`. It keeps h and c, and the
    gates too where that is faster. Derivatives and `jax.vmap` are as in `rnn`.

    Args:
        params: `w_ih [I, 4H]` or None, `w_hh [H, 4H]`, `b_h [4H]` or None, in the order i f g o,
            of one floating dtype.
        xs: as in `rnn`; without `w_ih` `[T, 4H]` or `[T, B, 4H]`.
        state: before the first step: None (zeros), or `LSTMState(h, c)`, each None, `[H]` (shared
            by the batch, so that it can be learned) or `[B, H]`.
        lengths: as in `rnn`.
        resets: as in `rnn`.
        reset_state: the state that resets go back to, as `state`.
        recurrent_mask: m, `[H]` or `[B, H]`, of h as the operand of `w_hh`, as in `rnn`; c is not
            masked.
        mask: as in `rnn`.
        reverse: as in `rnn`.
        clip_delta: as in `rnn`, of the cotangents of all four gates, after the whole adjoint of the
            step. The cotangent of c is not clipped.
        compute_dtype: as in `rnn`; c stays in the dtype of the parameters.
        remat: as in `rnn`.
        inputs: as in `rnn`.

    Returns:
        `(state, hs)`: the `LSTMState` after the last step, `[H]` or `[B, H]` each, and all h_t,
        `[T, H]` or `[T, B, H]`; dtypes as in `rnn`.

    Raises:
        ValueError: what `rnn` refuses; parameters of another network; a state that is no
            `LSTMState`.
    """
    arrays = (state, lengths, resets, reset_state, recurrent_mask, mask)
    options = {"clip_delta": clip_delta, "compute_dtype": compute_dtype, "remat": remat}
    return run_checked(LSTM, params, xs, *arrays, reverse=reverse, inputs=inputs, **options)
