"""Weights of torch: (out, in), two biases; gates in the order of jrnn."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np

from jrnn import checks
from jrnn.interop._weights import (
    CLASSES,
    Layer,
    Params,
    Source,
    blocks,
    checked,
    entries,
    has_bias,
    in_out,
    leaves,
    network,
    of_two_biases,
    pair,
    two_biases,
)
from jrnn.types import LayerParams, StackParams

_SOURCE = Source(
    "from_torch",
    "state_dict",
    "Give the state dict of an nn.RNN, nn.LSTM or nn.GRU alone: model.rnn.state_dict().",
)
_ENTRY = re.compile(r"(?P<kind>weight|bias)_(ih|hh)_l(?P<layer>\d+)(?P<reverse>_reverse)?")


@overload
def from_torch(state_dict: Mapping[str, Any], *, stack: Literal[False] = False) -> list[Layer]: ...


@overload
def from_torch(state_dict: Mapping[str, Any], *, stack: Literal[True]) -> StackParams: ...


def from_torch(state_dict: Mapping[str, Any], *, stack: bool = False) -> list[Layer] | StackParams:
    """Convert the state dict of a `torch.nn.RNN`, `nn.LSTM` or `nn.GRU`.

    Args:
        state_dict: for each layer n `weight_ih_ln [G*H, I]` (`[G*H, 2 H]` above a bidirectional
            layer), `weight_hh_ln [G*H, H]` and, unless `bias=False`, `bias_ih_ln [G*H]` and
            `bias_hh_ln [G*H]`, where G is 1 for an RNN, 4 for an LSTM and 3 for a GRU; the same
            names with `_reverse` if it is bidirectional.
        stack: True for the parameters of `jrnn.stack`; False for those of each layer.

    Returns:
        With `stack=True` `StackParams`. Otherwise one pair per layer: the parameters of the forward
        direction, and those of the backward direction or None. They are `RNNParams`, `LSTMParams`
        or `GRUParams`. One unidirectional layer is `[(params, None)]`.

    Raises:
        ValueError: an entry that is missing, unknown, of another shape or of a different dtype; a
            projection (`proj_size`), which jrnn's LSTM does not have; a `stack` that is not True or
            False.
    """
    checks.flag("stack", stack)
    found = leaves(_SOURCE, state_dict)
    for name in found:
        if name.startswith("weight_hr_l"):
            repair = "jrnn.lstm feeds h_{t-1} back as it is: build the nn.LSTM without proj_size."
            checks.refuse(name, "an LSTM that does not project h", "one with proj_size", repair)
    known = [m for m in map(_ENTRY.fullmatch, found) if m]
    depth = 1 + max((int(m["layer"]) for m in known), default=0)
    directions = ["", "_reverse"] if any(m["reverse"] for m in known) else [""]
    bias = any(m["kind"] == "bias" for m in known)
    kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if bias else [])]
    suffixes = [[f"_l{n}{direction}" for direction in directions] for n in range(depth)]
    names = [kind + suffix for layer in suffixes for suffix in layer for kind in kinds]
    arrays = entries(_SOURCE._replace(repair=_repair(found)), found, names)
    G = blocks(arrays, "weight_hh_l0", out_in=True)

    def read(suffix: str, I: int | None, H: int | None) -> Params:
        named = {kind + suffix: arrays[kind + suffix] for kind in kinds}
        weights = in_out(named, G, I, H, out_in=True)
        return of_two_biases(*weights) if bias else network(*weights)

    I, H = read("_l0", None, None).w_ih.shape[0], arrays["weight_hh_l0"].shape[1]
    networks = [
        [read(suffix, len(directions) * H if n else I, H) for suffix in layer]
        for n, layer in enumerate(suffixes)
    ]
    layers = [(layer[0], layer[1] if len(layer) == 2 else None) for layer in networks]
    if stack:
        return StackParams(tuple(LayerParams(*layer, norm=None) for layer in layers))
    return layers


def _repair(found: Mapping[str, Any]) -> str:
    """The repair of the entries: of a cell, how to name them; of a model, how to take them out."""
    if "weight_ih" in found:
        return 'Of a cell take {f"{n}_l0": x for n, x in state_dict.items()}.'
    first = ".weight_ih_l0"
    networks = [name.removesuffix(first) for name in found if name.endswith(first)]
    if not networks:
        return _SOURCE.repair
    prefix = repr(f"{networks[0]}.")
    own = f"k.removeprefix({prefix}): x for k, x in state_dict.items() if k.startswith({prefix})"
    return f"Of a whole model take {{{own}}}."


def to_torch(layers: StackParams | Sequence[Layer | LayerParams]) -> dict[str, np.ndarray]:
    """Convert to the state dict of a `torch.nn.RNN`, `nn.LSTM` or `nn.GRU`.

    Args:
        layers: the parameters of a stack, or a list as `from_torch` returns it: `[(params, None)]`
            for one unidirectional layer.

    Returns:
        NumPy arrays by name, as in `from_torch`, for `load_state_dict` as tensors: of bfloat16
        `torch.tensor(x.astype(np.float32)).bfloat16()`. Without biases if no layer has any. The
        second bias is 0, except that of a GRU for n, which is `b_hn`.

    Raises:
        ValueError: not a list of pairs of parameters of one class, or layers that do not form one
            module of torch: their H, directions, dtypes or biases differ, or one has a norm.
    """
    found: Any = layers.layers if isinstance(layers, StackParams) else layers
    if type(found) in (list, tuple):
        found = [pair(layer, f"layers[{n}]") for n, layer in enumerate(found)]
    checks.layers("layers", found, CLASSES)
    _check_alike(found)
    state_dict: dict[str, np.ndarray] = {}
    for n, networks in enumerate(found):
        for params, suffix in zip(networks, (f"_l{n}", f"_l{n}_reverse"), strict=True):
            if params is not None:
                named = {"weight_ih": params.w_ih.T, "weight_hh": params.w_hh.T}
                if has_bias(params):
                    named |= zip(("bias_ih", "bias_hh"), two_biases(params), strict=True)
                state_dict |= {name + suffix: np.array(x) for name, x in named.items()}
    return state_dict


def _check_alike(layers: Sequence[Layer]) -> None:
    """Refuse layers that are no one module of torch."""
    networks = [[params for params in layer if params is not None] for layer in layers]
    first, D, of_first = networks[0][0], len(networks[0]), "as in the first network"
    for n, directions in enumerate(networks):
        name = f"layers[{n}]"
        if len(directions) != D:
            repair = "A module of torch has one direction in all layers, or two."
            checks.refuse(name, f"D = {D} directions, as in layers[0]", len(directions), repair)
        for params in directions:
            checked(params)
            H = len(first.w_hh)
            wanted = f"I = {D * H if n else len(first.w_ih)} and H = {H}"
            came = f"I = {len(params.w_ih)} and H = {len(params.w_hh)}"
            if came != wanted:
                repair = "torch has one H; above the first layer, I is the size of outputs, D*H."
                checks.refuse(name, wanted, came, repair)
            if params.w_hh.dtype != first.w_hh.dtype:
                repair = "Cast it by jax.tree.map(lambda x: x.astype(...), params)."
                checks.refuse(name, f"{first.w_hh.dtype}, {of_first}", params.w_hh.dtype, repair)
            if has_bias(params) != has_bias(first):
                expected, came = ("biases", "none") if has_bias(first) else ("no biases", "some")
                zeros = "params._replace(b_h=jnp.zeros_like(params.w_hh[0]))"
                repair = f"Where b_h is None, give zeros: {zeros}."
                checks.refuse(name, f"{expected}, {of_first}", came, repair)
