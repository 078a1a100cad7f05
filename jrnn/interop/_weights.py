"""Shared by the libraries: entries by name, the order of the gates, two biases and one."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.cells.elman import elman
from jrnn.cells.gru import GRU
from jrnn.cells.lstm import LSTM
from jrnn.types import GRUParams, LayerParams, LSTMParams, RNNParams, StackParams

# RNNParams, LSTMParams or GRUParams. The weights say which, so a type checker cannot.
Params = Any
Layer = tuple[Params, Params | None]  # (forward, backward or None), both of one class

CELLS = {len(cell.h_blocks): cell for cell in (elman("tanh"), GRU, LSTM)}  # by G, as w_hh has them
CLASSES = (RNNParams, LSTMParams, GRUParams)
GATES = {1: "h", 3: "rzn", 4: "ifgo"}  # in the order of jrnn

RESET_BEFORE = (
    "It resets the state before the matmul, (r * h) w_hn; jrnn.gru resets after it, r * (h w_hn): "
    "the same weights are another network."
)

# Entries by which the weights of another library are recognised.
_ENTRIES = {
    "from_torch": r"weight_[ih]h_l\d+",
    "from_linen": r"[ih][ifgorzn]?/kernel",
    "from_nnx": r"(dense_[ih]|if_)/kernel",
    "from_haiku": r".+/(linear(_1)?/w|w_[ih])",
}


class Source(NamedTuple):
    """The words of errors about the weights of a library."""

    reader: str  # the function of jrnn.interop that reads them
    argument: str  # its argument
    repair: str


def leaves(source: Source, tree: Any) -> dict[str, Any]:
    """The leaves of a tree, by path."""
    checks.mapping(source.argument, tree, source.repair)
    return dict(_walk(tree))


def _walk(tree: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    for name, x in tree.items():
        if isinstance(x, Mapping):
            yield from _walk(x, f"{path}{name}/")
        else:
            yield f"{path}{name}", x


def entries(
    source: Source,
    found: Mapping[str, Any],
    needed: Collection[str],
    optional: Collection[str] = (),
) -> dict[str, ArrayLike]:
    """The arrays that were found, `needed` first."""
    # The last that match: an LSTMCell of nnx has also names of linen.
    readers = [r for r, entry in _ENTRIES.items() if any(re.fullmatch(entry, n) for n in found)]
    others = readers and readers[-1] != source.reader and not found.keys() >= set(needed)
    repair = f"jrnn.interop.{readers[-1]} reads such entries." if others else source.repair
    checks.entries(source.argument, found, needed, optional, repair)
    names = [name for name in (*needed, *optional) if name in found]
    arrays = {name: readable(name, found[name]) for name in names}
    checks.one_dtype(arrays)
    return arrays


def readable(name: str, x: Any) -> ArrayLike:
    """A JAX array unchanged, so it may be traced; other arrays as NumPy."""
    if isinstance(x, jax.Array):
        return x
    if hasattr(x, "__jax_array__"):  # nnx.Param
        return jnp.asarray(x)
    repair = "Of a torch tensor take x.detach().cpu().float()."
    try:
        found = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:  # bfloat16, in a graph, or on a GPU
        came = str(error).removeprefix("Got ").rstrip(".")
        checks.refuse(name, "an array that NumPy can read", came, repair)
    if found.dtype.kind in "OSU":  # objects and strings
        checks.refuse(name, "an array that NumPy can read", type(x).__name__, repair)
    return found


def blocks(
    found: Mapping[str, Any], w_hh: str, known: Collection[int] = tuple(CELLS), *, out_in: bool
) -> int:
    """G; the first known if w_hh is missing, which `entries` refuses."""
    if w_hh not in found:
        return next(iter(known))
    return checks.blocks(w_hh, readable(w_hh, found[w_hh]), known, out_in)


def in_out(
    arrays: Mapping[str, ArrayLike],
    G: int,
    I: int | None = None,
    H: int | None = None,
    *,
    out_in: bool = False,
) -> list[jax.Array]:
    """w_ih [I, G*H], w_hh [H, G*H] and biases [G*H], from arrays in this order."""
    checks.layer_arrays(arrays, G, I, H, out_in)
    w_ih, w_hh, *biases = map(jnp.asarray, arrays.values())
    return [w_ih.T, w_hh.T, *biases] if out_in else [w_ih, w_hh, *biases]


def reorder(x: jax.Array, order: str, wanted: str) -> jax.Array:
    """The blocks of the last axis, one for each letter of `order`, in another order."""
    if order == wanted:
        return x
    blocks = dict(zip(order, jnp.split(x, len(order), -1), strict=True))
    return jnp.concatenate([blocks[gate] for gate in wanted], -1)


def network(
    w_ih: jax.Array,
    w_hh: jax.Array,
    b_h: jax.Array | None = None,
    b_hn: jax.Array | None = None,
) -> Params:
    """Parameters of the class that the shape of w_hh says."""
    G = w_hh.shape[1] // w_hh.shape[0]
    if G == 3:
        return GRUParams(w_ih, w_hh, b_h, b_hn)
    return LSTMParams(w_ih, w_hh, b_h) if G == 4 else RNNParams(w_ih, w_hh, b_h)


def of_two_biases(w_ih: jax.Array, w_hh: jax.Array, b_x: jax.Array, b_s: jax.Array) -> Params:
    """As `network`, of two biases `[G*H]`, one for x and one for the state.

    Their sum; but a GRU's block n of the second, which the reset gate multiplies, stays apart.
    """
    H, columns = w_hh.shape
    if columns != 3 * H:
        return network(w_ih, w_hh, b_x + b_s)
    return network(w_ih, w_hh, b_x.at[: 2 * H].add(b_s[: 2 * H]), b_s[2 * H :])


def two_biases(params: Params) -> tuple[jax.Array, jax.Array]:
    """The biases of `of_two_biases`: the second is 0 except a GRU's b_hn."""
    b_h, *b_hn = with_biases(params)[2:]
    zeros = jnp.zeros_like(b_h)
    return b_h, zeros.at[-len(params.w_hh) :].set(b_hn[0]) if b_hn else zeros


def has_bias(params: Params) -> bool:
    """False if every bias is None."""
    return any(b is not None for b in params[2:])


def with_biases(params: Params) -> Params:
    """The parameters with zeros for every bias of None."""
    filled = jax.tree.map(jnp.asarray, params)
    H, zeros = len(filled.w_hh), jnp.zeros_like(filled.w_hh[0])
    if filled.b_h is None:
        filled = filled._replace(b_h=zeros)
    if isinstance(filled, GRUParams) and filled.b_hn is None:
        filled = filled._replace(b_hn=zeros[:H])
    return filled


def pair(layer: Any, argument: str) -> Any:
    """A layer of a stack as a pair, which has no place for a norm; anything else as it is."""
    if not isinstance(layer, LayerParams):
        return layer
    if layer.norm is not None:
        repair = "Only the networks can be converted: layer._replace(norm=None)."
        checks.refuse(argument, "a layer without a norm", "one with a norm", repair)
    return layer.forward, layer.backward


def checked(params: Params) -> int:
    """Return G, or refuse parameters of another kind or that do not fit together."""
    if not isinstance(params, CLASSES):
        repair = "The other libraries know these; see jrnn.init_rnn, init_lstm, init_gru."
        if isinstance(params, (StackParams, LayerParams)):
            layer = ".layers[0]" if isinstance(params, StackParams) else ""
            repair = f"Convert its networks one by one, such as params{layer}.forward."
        checks.refuse("params", "RNNParams, LSTMParams or GRUParams", type(params).__name__, repair)
    G = {cell.params: G for G, cell in CELLS.items()}[type(params)]
    checks.network_of_inputs(CELLS[G], params)
    return G
