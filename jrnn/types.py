"""Parameters of recurrent networks, the names of array axes, and a table of any parameters.

Axes, in every shape of this library:

    T  time          B  batch         I  input
    H  hidden        O  output (classes, vocabulary)
    D  directions of a layer, 1 or 2

A weight `w_ab` maps a to b, has the shape (A, B) and is used as `a @ w_ab`. Time is the first axis,
as in `lax.scan`: one sequence is `[T, I]`, a batch is `[T, B, I]`. In the equations t counts from 1
and `h_0` is the state before the first step; in arrays `hs[0]` is h_1.
"""

import math
from typing import Any, NamedTuple

import jax
from jax.export import register_namedtuple_serialization

from jrnn.arrays import named_leaves


class RNNParams(NamedTuple):
    """Parameters of an Elman network; `b_h` is None if it has no bias.

    Attributes:
        w_ih: `[I, H]`; or None, see `init_rnn`.
        w_hh: `[H, H]`, from unit i to unit j at `[i, j]`: papers that write W h have the transpose.
        b_h: `[H]`.
    """

    w_ih: jax.Array
    w_hh: jax.Array
    b_h: jax.Array | None


class LSTMParams(NamedTuple):
    """Parameters of an LSTM, in the order of the gates i f g o; `b_h` is None without a bias.

    Attributes:
        w_ih: `[I, 4H]`; or None, see `init_rnn`.
        w_hh: `[H, 4H]`.
        b_h: `[4H]`.
    """

    w_ih: jax.Array
    w_hh: jax.Array
    b_h: jax.Array | None


class LSTMState(NamedTuple):
    """The state of an LSTM; None stands for zeros.

    Attributes:
        h: `[H]` or `[B, H]` the output.
        c: `[H]` or `[B, H]` the memory.
    """

    h: jax.Array | None
    c: jax.Array | None


class GRUParams(NamedTuple):
    """Parameters of a GRU, in the order of the gates r z n; None for a bias that it lacks.

    Attributes:
        w_ih: `[I, 3H]`; or None, see `init_rnn`.
        w_hh: `[H, 3H]`.
        b_h: `[3H]`.
        b_hn: `[H]` of the state's part of n, which the reset gate multiplies.
    """

    w_ih: jax.Array
    w_hh: jax.Array
    b_h: jax.Array | None
    b_hn: jax.Array | None


class LeakyParams(NamedTuple):
    """Parameters of a leaky network, with a fixed leak `alpha` or a learned one `log_tau`.

    Attributes:
        w_ih: `[I, H]`; or None, see `init_rnn`.
        w_hh: `[H, H]`, from unit i to unit j at `[i, j]`, as in `RNNParams`.
        b_h: `[H]`.
        alpha: `[H]` in (0, 1]; its gradient is 0.
        log_tau: `[H]` log of the time constant, in steps: alpha = 1 - exp(-1 / tau).
    """

    w_ih: jax.Array
    w_hh: jax.Array
    b_h: jax.Array | None
    alpha: jax.Array | None
    log_tau: jax.Array | None


class ReadoutParams(NamedTuple):
    """Parameters of a readout; `b_o` is None if the readout has no bias.

    Attributes:
        w_ho: `[H, O]`.
        b_o: `[O]`.
    """

    w_ho: jax.Array
    b_o: jax.Array | None


class LayerNormParams(NamedTuple):
    """Parameters of the layer normalisation of a layer's outputs.

    Attributes:
        scale: `[D*H]`.
        offset: `[D*H]`.
    """

    scale: jax.Array
    offset: jax.Array


class LayerParams(NamedTuple):
    """Parameters of one layer of a stack; None for a part that the layer does not have.

    Attributes:
        forward: the parameters of a network, such as RNNParams; reads from start to end.
        backward: of the same type, or None; reads from end to start.
        norm: of its outputs, or None.
    """

    forward: Any
    backward: Any
    norm: LayerNormParams | None


class StackParams(NamedTuple):
    """Parameters of a stack; the first layer reads the inputs.

    Attributes:
        layers: from the inputs up.
    """

    layers: tuple[LayerParams, ...]


# Model files and programs saved by `jax.export` contain the names of these classes. Add a new class
# here.
KINDS = (
    RNNParams,
    LSTMParams,
    LSTMState,
    GRUParams,
    LeakyParams,
    ReadoutParams,
    LayerNormParams,
    LayerParams,
    StackParams,
)
for _kind in KINDS:
    register_namedtuple_serialization(_kind, serialized_name=f"jrnn.{_kind.__name__}")


def summary(params: Any) -> str:
    """Make a table of path, shape, dtype, number of elements and bytes, one row per array.

    Args:
        params: any pytree of arrays (or of `jax.ShapeDtypeStruct`).

    Returns:
        The table as text; its last row is the sum.
    """
    rows = [("path", "shape", "dtype", "count", "bytes")]
    count = total = 0
    for name, leaf in named_leaves(params):
        size = math.prod(leaf.shape)
        nbytes = size * leaf.dtype.itemsize
        count, total = count + size, total + nbytes
        rows.append((name, str(tuple(leaf.shape)), str(leaf.dtype), f"{size:,}", f"{nbytes:,}"))
    rows.append(("total", "", "", f"{count:,}", f"{total:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = ("<", "<", "<", ">", ">")
    return "\n".join(
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip()
        for row in rows
    )
