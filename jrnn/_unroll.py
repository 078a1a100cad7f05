"""A network of any cell as its users see it: parameters, a sequence.

`jrnn.rnn`, `jrnn.lstm`, `jrnn.gru` and `jrnn.leaky` are the same for one kind of cell.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, orthogonal

from jrnn import checks
from jrnn._network import run_checked
from jrnn.arrays import ArrayLike, Initializer, InputsAre, draw
from jrnn.cells import Named, UncheckedCell


def init_cell(
    cell: UncheckedCell,
    key: jax.Array,
    input_size: int | None,
    hidden_size: int,
    *,
    bias: bool = True,
    w_ih_init: Initializer = lecun_normal(),  # noqa: B008
    w_hh_init: Initializer = orthogonal(),  # noqa: B008
    dtype: Any = None,
    **unit: Any,
) -> Any:
    """Draw the parameters of a network of a cell of your own.

    Args:
        cell: a `jrnn.Cell`, with X blocks that the input feeds, Y that the state feeds, G in all.
        key: a JAX random key.
        input_size: I, or None, as in `jrnn.init_rnn`.
        hidden_size: H, features of the state.
        bias: False leaves the biases out (None in their place).
        w_ih_init: as in `jrnn.init_rnn`; it draws each block `[I, H]` by itself.
        w_hh_init: as in `jrnn.init_rnn`; it draws each block `[H, H]` by itself.
        dtype: a floating dtype; None is JAX's default float.
        unit: the parameters for each unit that the cell names, each a number or an array `[H]`.

    Returns:
        `cell.params` of `w_ih [I, X*H]` or None, `w_hh [H, Y*H]`, biases of zeros `[G*H]` or None,
        and `[H]` for each name in `cell.unit`; None for any other field.

    Raises:
        ValueError: no cell, no key, a size below 1, a dtype that is not floating, other names
            than `cell.unit`, or a value for each unit that is neither a number nor `[H]`.
    """
    checks.a_cell(cell)
    checks.key(key)
    if input_size is not None:
        checks.sizes(input_size=input_size)
    checks.sizes(hidden_size=hidden_size)
    dtype = checks.floating_dtype(dtype)
    if set(unit) != set(cell.unit):
        expected = f"the parameters {', '.join(cell.unit)}" if cell.unit else "no more parameters"
        came = ", ".join(unit) or "none"
        checks.refuse("unit", expected, came, f"The cell {cell.name} reads them for each unit.")
    H = hidden_size
    weights = _draw_weights(cell, key, input_size, H, w_ih_init, w_hh_init, dtype)
    kind: Any = cell.params
    found: dict[str, Any] = dict.fromkeys(kind._fields)
    found |= dict(zip(("w_ih", "w_hh"), weights, strict=True))
    if bias:
        found |= {name: jnp.zeros(n * H, dtype) for name, n in checks.bias_parts(cell)}
    found |= {name: checks.for_each_unit(name, x, H, dtype) for name, x in unit.items()}
    return kind(**found)


def _draw_weights(
    cell: UncheckedCell,
    key: jax.Array,
    input_size: int | None,
    hidden_size: int,
    w_ih_init: Initializer,
    w_hh_init: Initializer,
    dtype: Any,
) -> tuple[Any, jax.Array]:
    """w_ih or None, and w_hh; each block is drawn by itself, with its own fan in and fan out."""
    key_ih, key_hh = jax.random.split(key)

    def weights(init: Initializer, key: jax.Array, rows: int, blocks: int) -> jax.Array:
        keys = [key] if blocks == 1 else jax.random.split(key, blocks)
        return jnp.concatenate([draw(init, k, (rows, hidden_size), dtype) for k in keys], -1)

    w_hh = weights(w_hh_init, key_hh, hidden_size, len(cell.h_blocks))
    if input_size is None:
        return None, w_hh
    return weights(w_ih_init, key_ih, input_size, len(cell.x_blocks)), w_hh


def unroll(
    cell: UncheckedCell,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: Any = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    data: Named | None = None,
    *,
    reverse: bool = False,
    clip_delta: float | None = None,
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[Any, jax.Array]:
    """Run a network of any cell over a sequence, or over a batch of sequences.

        a_t = [x_t w_ih] + [(m * h_{t-1}) w_hh] + b                                (23)
        s_t = step(a_t, s_{t-1})         h_t is the first state, or output(s_t)

    The gradient is backpropagation through time with the adjoint of the cell, or with `jax.vjp` of
    its step. The states are kept for it, and the gates of a cell where that is faster.
    Derivatives and `jax.vmap` are as in `jrnn.rnn`.

    Args:
        cell: a `jrnn.Cell`, static: under `jax.vmap` or `jax.jit` bind it by `functools.partial`.
        params: an instance of `cell.params`: `w_ih [I, X*H]` or None, `w_hh [H, Y*H]`, biases and
            parameters `[H]` of the cell, of one floating dtype.
        xs: as in `jrnn.rnn`; without `w_ih` `[T, X*H]` or `[T, B, X*H]`, for X blocks that the
            input feeds.
        state: before the first step: of one state None (zeros), `[H]` or `[B, H]`; of several
            None, or a `cell.state` of these, a tuple if the cell names no such class.
        lengths: as in `jrnn.rnn`.
        resets: as in `jrnn.rnn`.
        reset_state: the state that resets go back to, as `state`.
        recurrent_mask: as in `jrnn.rnn`; it multiplies the operand of w_hh, and no other use of
            the state.
        mask: as in `jrnn.rnn`.
        data: the arrays that the cell names, a dict: `[H]` or `[B, H]` for each sequence, or for
            each step `[T, H]` of one sequence, `[T, B, H]` of a batch. Floating ones have
            gradients.
        reverse: as in `jrnn.rnn`.
        clip_delta: as in `jrnn.rnn`, of all blocks of delta_t, after the whole adjoint of the
            cell. A part that does not pass through a_t is not
            clipped.
        compute_dtype: as in `jrnn.rnn`.
        remat: as in `jrnn.rnn`.
        inputs: as in `jrnn.rnn`.

    Returns:
        The state after the last step, in the form of `state`, and the outputs h_t, `[T, H]` or
        `[T, B, H]`; dtypes as in `jrnn.rnn`.

    Raises:
        ValueError: no cell; what `jrnn.rnn` refuses; parameters or states of another class; `data`
            of other names than the cell's.
    """
    arrays = (state, lengths, resets, reset_state, recurrent_mask, mask, data)
    options = {"clip_delta": clip_delta, "compute_dtype": compute_dtype, "remat": remat}
    return run_checked(cell, params, xs, *arrays, reverse=reverse, inputs=inputs, **options)
