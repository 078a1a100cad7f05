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
    """Parameters of a recurrent layer; `b_h` is None if the layer has no bias."""

    w_ih: jax.Array  # [I, H]; or None, see `init_rnn`
    w_hh: jax.Array  # [H, H]
    b_h: jax.Array | None  # [H]


class ReadoutParams(NamedTuple):
    """Parameters of a readout; `b_o` is None if the readout has no bias."""

    w_ho: jax.Array  # [H, O]
    b_o: jax.Array | None  # [O]


class LayerNormParams(NamedTuple):
    """Parameters of the layer normalisation of a layer's outputs."""

    scale: jax.Array  # [D*H]
    offset: jax.Array  # [D*H]


class LayerParams(NamedTuple):
    """Parameters of one layer of a stack; None for a part that the layer does not have."""

    forward: RNNParams  # reads from the start to the end
    backward: RNNParams | None  # reads from the end to the start
    norm: LayerNormParams | None


class StackParams(NamedTuple):
    """Parameters of a stack; the first layer reads the inputs."""

    layers: tuple[LayerParams, ...]


# Model files and programs saved by `jax.export` contain the names of these classes. Add a new class
# here.
KINDS = (RNNParams, ReadoutParams, LayerNormParams, LayerParams, StackParams)
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
