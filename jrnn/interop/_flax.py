"""Weights of flax: (in, out), one bias; each gate by itself, or all gates in one array."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.interop._weights import (
    Params,
    Source,
    blocks,
    checked,
    entries,
    in_out,
    leaves,
    network,
    with_biases,
)

Tree = dict[str, dict[str, jax.Array]]

_CELLS = "a SimpleCell, LSTMCell, OptimizedLSTMCell or GRUCell"
_FROM_LINEN = Source(
    "from_linen",
    "params",
    f'Give those of {_CELLS} alone: variables["params"]["cell"] of an nn.RNN.',
)
_FROM_NNX = Source(
    "from_nnx", "state", f"Give those of {_CELLS} alone: nnx.state(rnn.cell, nnx.Param)."
)


class _Dense(NamedTuple):
    """The names of a cell's dense layers, one for each gate, or one for all gates."""

    x: tuple[str, ...]  # of the input
    h: tuple[str, ...]  # of the state
    bias: tuple[str, ...]  # those of the two that have a bias
    b_hn: str | None = None  # that of the state whose bias is b_hn


def _of_gates(side: str, gates: str) -> tuple[str, ...]:
    return tuple(side + gate for gate in gates)


# By G, the number of gates.
_LINEN = {
    1: _Dense(("i",), ("h",), bias=("i",)),
    4: _Dense(_of_gates("i", "ifgo"), _of_gates("h", "ifgo"), bias=_of_gates("h", "ifgo")),
    3: _Dense(_of_gates("i", "rzn"), _of_gates("h", "rzn"), bias=_of_gates("i", "rzn"), b_hn="hn"),
}
_NNX = {
    1: _Dense(("dense_i",), ("dense_h",), bias=("dense_i",)),
    4: _Dense(("dense_i",), ("dense_h",), bias=("dense_h",)),  # OptimizedLSTMCell
    3: _Dense(("dense_i",), ("dense_h",), bias=("dense_i",)),
}
_NNX_LSTM = _LINEN[4]._replace(x=("ii", "if_", "ig", "io"))


def from_linen(params: Mapping[str, Any]) -> Params:
    """Convert the parameters of a cell of flax linen.

    Args:
        params: of a `SimpleCell` `{"i": {"kernel": [I, H], "bias": [H]}, "h": {"kernel": [H, H]}}`;
            of an `LSTMCell` or `OptimizedLSTMCell` `ii`, `if`, `ig`, `io` with a kernel and `hi`,
            `hf`, `hg`, `ho` with kernel and bias; of a `GRUCell` `ir`, `iz`, `in`, `hn` with kernel
            and bias and `hr`, `hz` with a kernel.

    Returns:
        `RNNParams`, `LSTMParams` or `GRUParams`.

    Raises:
        ValueError: an entry that is missing, unknown, or of another shape or dtype; an `MGUCell`.
    """
    found = leaves(_FROM_LINEN, params)
    if found.keys() >= {"if/kernel", "in/kernel"}:
        repair = "One gate forgets and resets there: write it as a jrnn.Cell, for jrnn.unroll."
        checks.refuse("params", f"those of {_CELLS}", "those of an MGUCell", repair)
    G = 4 if "ig/kernel" in found else 3 if "ir/kernel" in found else 1
    return _read(_FROM_LINEN, found, _LINEN[G], G)


def to_linen(params: Params) -> Tree:
    """Convert to the parameters of a `SimpleCell`, `LSTMCell` or `GRUCell` of flax linen.

    Args:
        params: `RNNParams`, `LSTMParams` or `GRUParams`; a bias of None becomes zeros.

    Returns:
        As in `from_linen`; an `OptimizedLSTMCell` takes that of an `LSTMCell`.

    Raises:
        ValueError: parameters of another class, or that do not fit together.
    """
    return _write(params, _LINEN[checked(params)])


def from_nnx(state: Mapping[str, Any]) -> Params:
    """Convert the parameters of a cell of flax nnx.

    Args:
        state: an `nnx.State` or a dict: `{"dense_i": {"kernel": [I, G*H], "bias": [G*H]},
            "dense_h": {"kernel": [H, G*H]}}` of a `SimpleCell` (G = 1) or a `GRUCell` (G = 3); the
            same with the bias in `dense_h` of an `OptimizedLSTMCell` (G = 4); `ii`, `if_`, `ig`,
            `io` with a kernel and `hi`, `hf`, `hg`, `ho` with kernel and bias of an `LSTMCell`.

    Returns:
        `RNNParams`, `LSTMParams` or `GRUParams`. That of a `GRUCell` has no `b_hn`.

    Raises:
        ValueError: an entry that is missing, unknown, or of another shape or dtype.
    """
    found = leaves(_FROM_NNX, state)
    if "if_/kernel" in found or "hg/kernel" in found:
        return _read(_FROM_NNX, found, _NNX_LSTM, 4)
    G = blocks(found, "dense_h/kernel", out_in=False)
    return _read(_FROM_NNX, found, _NNX[G], G)


def to_nnx(params: Params, *, optimized: bool = False) -> Tree:
    """Convert to the state of a cell of flax nnx, a dict for `nnx.update(cell, ...)`.

    Args:
        params: `RNNParams`, `LSTMParams` or `GRUParams`; a bias of None becomes zeros.
        optimized: of an LSTM: for an `OptimizedLSTMCell`, not for an `LSTMCell`.

    Returns:
        As in `from_nnx`.

    Raises:
        ValueError: parameters of another class, or that do not fit together; a `b_hn` that is not
            0, since the `GRUCell` of nnx has none; `optimized` for parameters of no LSTM.
    """
    G = checked(params)
    checks.flag("optimized", optimized)
    if optimized and G != 4:
        came = f"True for {type(params).__name__}"
        checks.refuse("optimized", "False but for LSTMParams", came, "Leave it out.")
    if G == 3:
        _refuse_b_hn(params.b_hn)
    return _write(params, _NNX_LSTM if G == 4 and not optimized else _NNX[G])


def _refuse_b_hn(b_hn: jax.Array | None) -> None:
    """Refuse a b_hn that is not 0, or not known to be."""
    values = None if b_hn is None else checks.concrete(b_hn)
    if b_hn is not None and (values is None or values.any()):
        came = "one that is traced" if values is None else "others"
        repair = "The GRUCell of nnx has no such bias: use linen's, or train with b_hn=None."
        checks.refuse("b_hn", "None or zeros", came, repair)


def _read(source: Source, found: Mapping[str, Any], dense: _Dense, G: int) -> Params:
    groups = [
        (f"{x}/kernel", f"{h}/kernel", f"{bias}/bias")
        for x, h, bias in zip(dense.x, dense.h, dense.bias, strict=True)
    ]
    further = [f"{dense.b_hn}/bias"] if dense.b_hn else []
    arrays = entries(source, found, [*chain(*groups), *further])
    parts: list[list[jax.Array]] = []
    for names in groups:
        I, H = (parts[0][0].shape[0], parts[0][1].shape[0]) if parts else (None, None)
        parts.append(in_out({name: arrays[name] for name in names}, G // len(groups), I, H))
    w_ih, w_hh, b_h = (jnp.concatenate(part, -1) for part in zip(*parts, strict=True))
    if not further:
        return network(w_ih, w_hh, b_h)
    checks.shape(further[0], arrays[further[0]], w_hh.shape[:1], "[H]", source.repair)
    return network(w_ih, w_hh, b_h, jnp.asarray(arrays[further[0]]))


def _write(params: Params, dense: _Dense) -> Tree:
    params = with_biases(params)
    w_ih, w_hh, b_h = (jnp.split(x, len(dense.x), -1) for x in params[:3])
    tree = {name: {"kernel": w} for name, w in zip(dense.x + dense.h, w_ih + w_hh, strict=True)}
    for name, b in zip(dense.bias, b_h, strict=True):
        tree[name]["bias"] = b
    if dense.b_hn:
        tree[dense.b_hn]["bias"] = params.b_hn
    return tree
