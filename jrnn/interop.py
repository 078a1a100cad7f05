"""Convert weights from and to other libraries, as plain arrays, without importing them.

                 w_ih                 w_hh                   b_h
    torch        weight_ih_l0^T       weight_hh_l0^T         bias_ih_l0 + bias_hh_l0
    flax linen   i/kernel             h/kernel               i/bias
    flax nnx     dense_i/kernel       dense_h/kernel         dense_i/bias
    haiku        linear/w             linear_1/w             linear/b + linear_1/b
    keras        kernel               recurrent_kernel       bias

The activation is not part of the weights: haiku uses relu, the others tanh by default. flax's
`residual=True` is a different network. `from_` functions accept JAX, NumPy or torch arrays and keep
their dtype (float64 in JAX's 64-bit mode only); a gradient through them has the entries of the
other library. `to_` functions return one bias; if the other library has two, the second is 0.
Freeze it there: otherwise both learn, and their sum changes twice as fast.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.cells.elman import elman
from jrnn.types import RNNParams

Layer = tuple[RNNParams, RNNParams | None]  # (forward, backward or None)

_TORCH = "Give the state dict of an nn.RNN alone: model.rnn.state_dict()."
_LINEN = 'Give those of the SimpleCell alone: variables["params"]["cell"] of an nn.RNN.'
_NNX = "Give those of the SimpleCell alone: nnx.state(rnn.cell) of an nnx.RNN."
_HAIKU = "Give the parameters that hk.transform made, and the path of the VanillaRNN as module."
_KERAS = "Give layer.get_weights() of a SimpleRNN; convert the two of a Bidirectional separately."


def from_torch(state_dict: Mapping[str, Any]) -> list[Layer]:
    """Convert the state dict of a `torch.nn.RNN`.

    Args:
        state_dict: for each layer n `weight_ih_ln [H, I]` (`[H, 2 H]` above a bidirectional layer),
            `weight_hh_ln [H, H]` and, unless `bias=False`, `bias_ih_ln [H]` and `bias_hh_ln [H]`;
            the same names with `_reverse` if it is bidirectional.

    Returns:
        One pair per layer: the `RNNParams` of the forward direction, and those of the backward
        direction or None. One unidirectional layer is `[(params, None)]`.

    Raises:
        ValueError: an entry that is missing, unknown (such as `weight_hr_l0`, a projection), of
            another shape (an LSTM has 4 H rows, a GRU 3 H) or of a different dtype.
    """
    checks.mapping("state_dict", state_dict, _TORCH)
    found = [m for m in map(_TORCH_ENTRY.fullmatch, map(str, state_dict)) if m]
    depth = 1 + max((int(m["layer"]) for m in found), default=0)
    directions = ["", "_reverse"] if any(m["reverse"] for m in found) else [""]
    bias = any(m["kind"] == "bias" for m in found)
    kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if bias else [])]
    suffixes = [[f"_l{n}{direction}" for direction in directions] for n in range(depth)]
    names = [kind + suffix for layer in suffixes for suffix in layer for kind in kinds]
    arrays = _entries("state_dict", state_dict, names, repair=_TORCH)

    def read(suffix: str, I: int | None, H: int | None) -> RNNParams:
        return _params({kind + suffix: arrays[kind + suffix] for kind in kinds}, I, H, out_in=True)

    I, H = read("_l0", None, None).w_ih.shape
    layers = [
        [read(suffix, len(directions) * H if n else I, H) for suffix in layer]
        for n, layer in enumerate(suffixes)
    ]
    return [(layer[0], layer[1] if len(layer) == 2 else None) for layer in layers]


def to_torch(layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """Convert to the state dict of a `torch.nn.RNN`, for `load_state_dict` (as tensors).

    Args:
        layers: as returned by `from_torch`: `[(params, None)]` for one unidirectional layer.

    Returns:
        NumPy arrays by name, as in `from_torch`; without biases if every `b_h` is None.

    Raises:
        ValueError: not a list of pairs of `RNNParams`, or layers that do not form one `nn.RNN`:
            their H, directions or biases differ.
    """
    checks.layers(layers, RNNParams)
    state_dict: dict[str, np.ndarray] = {}
    for n, layer in enumerate(layers):
        for params, suffix in zip(layer, (f"_l{n}", f"_l{n}_reverse"), strict=True):
            if params is not None:
                checks.network_of_inputs(elman("tanh"), params)
                named = {"weight_ih": params.w_ih.T, "weight_hh": params.w_hh.T}
                if params.b_h is not None:
                    named |= {"bias_ih": params.b_h, "bias_hh": jnp.zeros_like(params.b_h)}
                state_dict |= {name + suffix: np.array(x) for name, x in named.items()}
    from_torch(state_dict)  # refuse what torch could not load
    return state_dict


def from_linen(params: Mapping[str, Any]) -> RNNParams:
    """Convert the parameters of a `SimpleCell` of flax linen.

    Args:
        params: `{"i": {"kernel": [I, H], "bias": [H]}, "h": {"kernel": [H, H]}}`.

    Returns:
        `RNNParams`.

    Raises:
        ValueError: an entry that is missing, unknown, or of another shape or dtype.
    """
    names = ["i/kernel", "h/kernel", "i/bias"]
    return _params(_entries("params", params, names, repair=_LINEN))


def to_linen(params: RNNParams) -> dict[str, dict[str, jax.Array]]:
    """Convert to the parameters of a `SimpleCell` of flax linen.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None (zeros there).

    Returns:
        `{"i": {"kernel": [I, H], "bias": [H]}, "h": {"kernel": [H, H]}}`.

    Raises:
        ValueError: parameters that do not fit together.
    """
    w_ih, w_hh, b_h = _checked(params)
    return {"i": {"kernel": w_ih, "bias": b_h}, "h": {"kernel": w_hh}}


def from_nnx(state: Mapping[str, Any]) -> RNNParams:
    """Convert the parameters of a `SimpleCell` of flax nnx.

    Args:
        state: `{"dense_i": {"kernel": [I, H], "bias": [H]}, "dense_h": {"kernel": [H, H]}}`, an
            `nnx.State` or a dict.

    Returns:
        `RNNParams`.

    Raises:
        ValueError: as `from_linen`.
    """
    names = ["dense_i/kernel", "dense_h/kernel", "dense_i/bias"]
    return _params(_entries("state", state, names, repair=_NNX))


def to_nnx(params: RNNParams) -> dict[str, dict[str, jax.Array]]:
    """Convert to the state of a `SimpleCell` of flax nnx, a dict for `nnx.update(cell, ...)`.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None (zeros there).

    Returns:
        `{"dense_i": {"kernel": [I, H], "bias": [H]}, "dense_h": {"kernel": [H, H]}}`.

    Raises:
        ValueError: parameters that do not fit together.
    """
    return {f"dense_{name}": dense for name, dense in to_linen(params).items()}


def from_haiku(params: Mapping[str, Any], module: str = "vanilla_rnn") -> RNNParams:
    """Convert the parameters of a `VanillaRNN` of haiku, which has one or two biases and relu.

    Args:
        params: `{"vanilla_rnn/linear": {"w": [I, H], "b": [H]}, "vanilla_rnn/linear_1":
            {"w": [H, H], "b": [H]}}`, the last `b` only with `double_bias`; other modules are
            ignored.
        module: the path of the `VanillaRNN`, such as `my_net/vanilla_rnn`.

    Returns:
        `RNNParams`.

    Raises:
        ValueError: as `from_linen`.
    """
    checks.mapping("params", params, _HAIKU)
    own = {path: x for path, x in params.items() if str(path).startswith(f"{module}/")}
    names = [f"{module}/{name}" for name in ("linear/w", "linear_1/w", "linear/b")]
    second_bias = [f"{module}/linear_1/b"]
    return _params(_entries("params", own, names, second_bias, repair=_HAIKU))


def to_haiku(params: RNNParams, module: str = "vanilla_rnn") -> dict[str, dict[str, jax.Array]]:
    """Convert to the parameters of a `VanillaRNN` of haiku with two biases; the second is 0.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None (zeros there).
        module: the path of the `VanillaRNN`.

    Returns:
        As in `from_haiku`.

    Raises:
        ValueError: parameters that do not fit together.
    """
    w_ih, w_hh, b_h = _checked(params)
    return {
        f"{module}/linear": {"w": w_ih, "b": b_h},
        f"{module}/linear_1": {"w": w_hh, "b": jnp.zeros_like(b_h)},
    }


def from_keras(weights: Sequence[Any]) -> RNNParams:
    """Convert the weights of a `SimpleRNN` of keras.

    Args:
        weights: `[kernel [I, H], recurrent_kernel [H, H], bias [H]]`, or the first two with
            `use_bias=False`.

    Returns:
        `RNNParams`.

    Raises:
        ValueError: another number of weights, or as `from_linen`.
    """
    checks.keras_weights(weights, _KERAS)
    named = dict(zip(("kernel", "recurrent_kernel", "bias"), weights, strict=False))
    return _params(_entries("weights", named, named, repair=_KERAS))


def to_keras(params: RNNParams) -> list[jax.Array]:
    """Convert to the weights of a `SimpleRNN` of keras, for `layer.set_weights`.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None (for `use_bias=False`).

    Returns:
        `[kernel, recurrent_kernel, bias]`, or the first two.

    Raises:
        ValueError: parameters that do not fit together.
    """
    checks.network_of_inputs(elman("tanh"), params)
    return [w for w in params if w is not None]


_TORCH_ENTRY = re.compile(r"(?P<kind>weight|bias)_(ih|hh)_l(?P<layer>\d+)(?P<reverse>_reverse)?")


def _entries(
    argument: str,
    tree: Mapping[str, Any],
    needed: Collection[str],
    optional: Collection[str] = (),
    *,
    repair: str,
) -> dict[str, ArrayLike]:
    """The arrays of a tree by path, `needed` first."""
    checks.mapping(argument, tree, repair)
    found = dict(_leaves(tree))
    checks.entries(argument, found, needed, optional, repair)
    names = [name for name in (*needed, *optional) if name in found]
    arrays = {name: _array(name, found[name]) for name in names}
    checks.one_dtype(arrays)
    return arrays


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    for name, x in tree.items():
        if isinstance(x, Mapping):
            yield from _leaves(x, f"{path}{name}/")
        else:
            yield f"{path}{name}", x


def _array(name: str, x: Any) -> ArrayLike:
    """A JAX array unchanged, so it may be traced; other arrays as NumPy."""
    if isinstance(x, jax.Array):
        return x
    repair = "Of a torch tensor take x.detach().cpu().float()."
    try:
        found = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:  # bfloat16, in a graph, or on a GPU
        checks.refuse(name, "an array that NumPy can read", error, repair)
    if found.dtype.kind in "OSU":  # objects and strings
        checks.refuse(name, "an array that NumPy can read", type(x).__name__, repair)
    return found


def _params(
    arrays: Mapping[str, ArrayLike],
    I: int | None = None,
    H: int | None = None,
    *,
    out_in: bool = False,
) -> RNNParams:
    """Parameters from arrays in the order w_ih, w_hh and up to two biases."""
    checks.layer_arrays(arrays, I, H, out_in)
    w_ih, w_hh, *biases = map(jnp.asarray, arrays.values())
    if out_in:
        w_ih, w_hh = w_ih.T, w_hh.T
    return RNNParams(w_ih, w_hh, sum(biases[1:], biases[0]) if biases else None)


def _checked(params: RNNParams) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Checked parameters, with zeros for a bias of None: the other library needs a bias."""
    checks.network_of_inputs(elman("tanh"), params)
    w_ih, w_hh, b_h = params
    return w_ih, w_hh, jnp.zeros_like(w_hh[0]) if b_h is None else b_h
