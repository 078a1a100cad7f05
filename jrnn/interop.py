"""Weights from and to other libraries, as plain arrays; none of the libraries is imported.

                 w_ih                 w_hh                   b_h
    torch        weight_ih_l0^T       weight_hh_l0^T         bias_ih_l0 + bias_hh_l0
    flax linen   i/kernel             h/kernel               i/bias
    flax nnx     dense_i/kernel       dense_h/kernel         dense_i/bias
    haiku        linear/w             linear_1/w             linear/b + linear_1/b
    keras        kernel               recurrent_kernel       bias

The activation is not among the weights: haiku's is relu, by default that of the others tanh. flax's
`residual=True` is another network. Weights come in as JAX, NumPy or torch arrays and keep their
dtype (float64 in JAX's 64-bit mode only); a gradient through a `from_` function is that of the
other library, entry by entry. Out goes one bias: where there are two, the second is 0, and should
be frozen there, or both learn and their sum moves twice as far.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.types import RNNParams

Layer = tuple[RNNParams, RNNParams | None]  # forward, and backward if it reads in both directions

_TORCH = "Give the state dict of an nn.RNN alone: model.rnn.state_dict()."
_LINEN = 'Give those of the SimpleCell alone: variables["params"]["cell"] of an nn.RNN.'
_NNX = "Give those of the SimpleCell alone: nnx.state(rnn.cell) of an nnx.RNN."
_HAIKU = "Give the parameters that hk.transform made, and the path of the VanillaRNN as module."
_KERAS = "Give layer.get_weights() of a SimpleRNN; a Bidirectional has those of two, one by one."


def from_torch(state_dict: Mapping[str, Any]) -> list[Layer]:
    """The layers of a `torch.nn.RNN`.

    Args:
        state_dict: for each layer n `weight_ih_ln [H, I]` (`[H, 2 H]` on top of two directions),
            `weight_hh_ln [H, H]` and, unless it was made with `bias=False`, `bias_ih_ln [H]` and
            `bias_hh_ln [H]`; the same with `_reverse`, if it reads in both directions.

    Returns:
        For each layer a pair: the `RNNParams` of the forward direction, and of the backward one or
        None. A layer in one direction is `[(params, None)]`.

    Raises:
        ValueError: an entry that is missing, unknown (such as `weight_hr_l0`, a projection), of
            another shape (an LSTM's has 4 H rows, a GRU's 3 H) or of a dtype of its own.
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
    """The state dict of a `torch.nn.RNN`: `load_state_dict` takes it as tensors.

    Args:
        layers: as `from_torch` returns them: `[(params, None)]` for one layer in one direction.

    Returns:
        NumPy arrays by name, as in `from_torch`; without biases where every `b_h` is None.

    Raises:
        ValueError: something else than pairs of `RNNParams`, or parameters that do not make one
            `nn.RNN`: layers of different H, some in one direction or without a bias.
    """
    checks.layers(layers, RNNParams)
    state_dict: dict[str, np.ndarray] = {}
    for n, layer in enumerate(layers):
        for params, suffix in zip(layer, (f"_l{n}", f"_l{n}_reverse"), strict=True):
            if params is not None:
                checks.rnn_params(params)
                named = {"weight_ih": params.w_ih.T, "weight_hh": params.w_hh.T}
                if params.b_h is not None:
                    named |= {"bias_ih": params.b_h, "bias_hh": jnp.zeros_like(params.b_h)}
                state_dict |= {name + suffix: np.array(x) for name, x in named.items()}
    from_torch(state_dict)  # what torch could not load is refused
    return state_dict


def from_linen(params: Mapping[str, Any]) -> RNNParams:
    """A `SimpleCell` of flax linen.

    Args:
        params: `{"i": {"kernel": [I, H], "bias": [H]}, "h": {"kernel": [H, H]}}`.

    Returns:
        `RNNParams`.

    Raises:
        ValueError: an entry that is missing, unknown, of another shape or of a dtype of its own.
    """
    names = ["i/kernel", "h/kernel", "i/bias"]
    return _params(_entries("params", params, names, repair=_LINEN))


def to_linen(params: RNNParams) -> dict[str, dict[str, jax.Array]]:
    """The parameters of a `SimpleCell` of flax linen.

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
    """A `SimpleCell` of flax nnx.

    Args:
        state: `{"dense_i": {"kernel": [I, H], "bias": [H]}, "dense_h": {"kernel": [H, H]}}`: a
            `nnx.State`, or a pure dict.

    Returns:
        `RNNParams`.

    Raises:
        ValueError: as `from_linen`.
    """
    names = ["dense_i/kernel", "dense_h/kernel", "dense_i/bias"]
    return _params(_entries("state", state, names, repair=_NNX))


def to_nnx(params: RNNParams) -> dict[str, dict[str, jax.Array]]:
    """The state of a `SimpleCell` of flax nnx, as a pure dict: `nnx.update(cell, ...)` takes it.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None (zeros there).

    Returns:
        `{"dense_i": {"kernel": [I, H], "bias": [H]}, "dense_h": {"kernel": [H, H]}}`.

    Raises:
        ValueError: parameters that do not fit together.
    """
    return {f"dense_{name}": dense for name, dense in to_linen(params).items()}


def from_haiku(params: Mapping[str, Any], module: str = "vanilla_rnn") -> RNNParams:
    """A `VanillaRNN` of haiku, with one bias or two. Its activation is relu.

    Args:
        params: `{"vanilla_rnn/linear": {"w": [I, H], "b": [H]}, "vanilla_rnn/linear_1":
            {"w": [H, H], "b": [H]}}`, the last only with `double_bias`; other modules may be there.
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
    """The parameters of a `VanillaRNN` of haiku, with both of its biases; the second is 0.

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
    """A `SimpleRNN` of keras.

    Args:
        weights: `[kernel [I, H], recurrent_kernel [H, H], bias [H]]`, or the first two where it was
            made with `use_bias=False`.

    Returns:
        `RNNParams`.

    Raises:
        ValueError: another number of weights, or as `from_linen`.
    """
    checks.keras_weights(weights, _KERAS)
    named = dict(zip(("kernel", "recurrent_kernel", "bias"), weights, strict=False))
    return _params(_entries("weights", named, named, repair=_KERAS))


def to_keras(params: RNNParams) -> list[jax.Array]:
    """The weights of a `SimpleRNN` of keras: `layer.set_weights` takes them.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None (for `use_bias=False`).

    Returns:
        `[kernel, recurrent_kernel, bias]`, or the first two.

    Raises:
        ValueError: parameters that do not fit together.
    """
    checks.rnn_params(params)
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
    """The arrays of a tree by their paths, `needed` first."""
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
    """Of JAX as it is, so that it may be traced; of any other library as NumPy."""
    if isinstance(x, jax.Array):
        return x
    repair = "Of a torch tensor take x.detach().cpu().float()."
    try:
        found = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:  # of bfloat16, of a graph, of a GPU
        checks.refuse(name, "an array that NumPy can read", error, repair)
    if found.dtype.kind in "OSU":  # objects and texts
        checks.refuse(name, "an array that NumPy can read", type(x).__name__, repair)
    return found


def _params(
    arrays: Mapping[str, ArrayLike],
    I: int | None = None,
    H: int | None = None,
    *,
    out_in: bool = False,
) -> RNNParams:
    """Of one layer: its arrays in the order w_ih, w_hh, one bias or two or none."""
    checks.layer_arrays(arrays, I, H, out_in)
    w_ih, w_hh, *biases = map(jnp.asarray, arrays.values())
    if out_in:
        w_ih, w_hh = w_ih.T, w_hh.T
    return RNNParams(w_ih, w_hh, sum(biases[1:], biases[0]) if biases else None)


def _checked(params: RNNParams) -> tuple[jax.Array, jax.Array, jax.Array]:
    """With zeros for a bias of None: the other library has no way to leave it out."""
    checks.rnn_params(params)
    w_ih, w_hh, b_h = params
    return w_ih, w_hh, jnp.zeros_like(w_hh[0]) if b_h is None else b_h
