"""The GRU as its users see it: parameters, one step, a sequence."""

from typing import Any

import jax
from jax.nn.initializers import lecun_normal, orthogonal

from jrnn._network import run_checked, step_checked
from jrnn._unroll import init_cell
from jrnn.arrays import ArrayLike, Initializer, InputsAre
from jrnn.cells.gru import GRU
from jrnn.types import GRUParams


def init_gru(
    key: jax.Array,
    input_size: int | None,
    hidden_size: int,
    *,
    bias: bool = True,
    w_ih_init: Initializer = lecun_normal(),  # noqa: B008
    w_hh_init: Initializer = orthogonal(),  # noqa: B008
    dtype: Any = None,
) -> GRUParams:
    """Draw the parameters of a GRU.

    By default `w_ih` has variance 1/I, each of the three blocks of `w_hh` is orthogonal, and the
    biases are zero.

    Args:
        key: a JAX random key.
        input_size: I, or None, as in `init_rnn`; then the inputs are `[T, 3H]` or `[T, B, 3H]`.
        hidden_size: H, features of the state.
        bias: False leaves `b_h` and `b_hn` out (None in their place).
        w_ih_init: as in `init_rnn`; it draws `[I, H]`, three times.
        w_hh_init: as in `init_rnn`; it draws `[H, H]`, three times.
        dtype: a floating dtype; None is JAX's default float.

    Returns:
        `GRUParams` of `w_ih [I, 3H]`, `w_hh [H, 3H]`, `b_h [3H]` or None, in the order r z n, and
        `b_hn [H]` or None.

    Raises:
        ValueError: a size below 1, or a dtype that is not floating.
    """
    options = {"bias": bias, "w_ih_init": w_ih_init, "w_hh_init": w_hh_init, "dtype": dtype}
    return init_cell(GRU, key, input_size, hidden_size, **options)


def gru_cell(
    params: GRUParams, h_tm1: ArrayLike, x_t: ArrayLike, *, inputs: InputsAre | None = None
) -> jax.Array:
    """One step of a GRU, (26).

    Differentiated by JAX, in forward and reverse mode.

    Args:
        params: as in `gru`.
        h_tm1: `[H]` or `[B, H]`, the state before the step; `[H]` is shared by a batch.
        x_t: `[I]` or `[B, I]` input, or `[]` or `[B]` token ids; without `w_ih` `[3H]`, `[B, 3H]`.
        inputs: as in `rnn`.

    Returns:
        h_t, `[H]` or `[B, H]`, in the dtype of the parameters.

    Raises:
        ValueError: as `gru`.
    """
    return step_checked(GRU, params, h_tm1, x_t, named="h_tm1", inputs=inputs)


def gru(
    params: GRUParams,
    xs: ArrayLike,
    h0: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: ArrayLike | None = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    reverse: bool = False,
    clip_delta: float | None = None,
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Run a GRU over a sequence, or over a batch of sequences.

        r, z = sigmoid(x_t w_r + h_{t-1} w_r' + b_r), and so on
        n    = tanh(x_t w_n + b_n + r * (h_{t-1} w_n' + b_hn))
        h_t  = n + z * (h_{t-1} - n)                                               (26)

    It resets after the matmul, as cuDNN, torch, flax, equinox and keras (by default) do, and as
    ONNX does with linear_before_reset = 1. The gradient is backpropagation through time, derived by
    hand: (27) of `jrnn/cells/gru.py` in the loops of `jrnn/kernel/`. It keeps h, and the
    gates too where that is faster. Derivatives and `jax.vmap` are as in
    `rnn`.

    Args:
        params: `w_ih [I, 3H]` or None, `w_hh [H, 3H]`, `b_h [3H]` or None, in the order r z n, and
            `b_hn [H]` or None, of one floating dtype.
        xs: as in `rnn`; without `w_ih` `[T, 3H]` or `[T, B, 3H]`.
        h0: as in `rnn`.
        lengths: as in `rnn`.
        resets: as in `rnn`.
        reset_state: as `h0`.
        recurrent_mask: m, `[H]` or `[B, H]`, of h as the operand of `w_hh`, as in `rnn`; h in (26)
            is not masked.
        mask: as in `rnn`.
        reverse: as in `rnn`.
        clip_delta: as in `rnn`, of the cotangents of r, z, n and of h_{t-1} w_n', after the whole
            adjoint of the step. The part z dh_t of
            dh_{t-1} is not clipped.
        compute_dtype: as in `rnn`; h in (26) is not rounded.
        remat: as in `rnn`.
        inputs: as in `rnn`.

    Returns:
        `(h_last, hs)`, as `rnn`.

    Raises:
        ValueError: what `rnn` refuses; parameters of another network.
    """
    arrays = (h0, lengths, resets, reset_state, recurrent_mask, mask)
    options = {"clip_delta": clip_delta, "compute_dtype": compute_dtype, "remat": remat}
    options |= {"reverse": reverse, "inputs": inputs}
    return run_checked(GRU, params, xs, *arrays, named="h0", **options)
