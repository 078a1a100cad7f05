"""For users: prove the hand-derived gradient on your own shapes, dtype and device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from jrnn import checks
from jrnn._rnn import rnn
from jrnn._stack import LayerStates, layer_by_layer, stack
from jrnn.arrays import ArrayLike, InputsAre, are_ids, named_leaves, reading
from jrnn.cells.elman import Activation, ActivationName
from jrnn.derivation import rnn_scan
from jrnn.types import RNNParams, StackParams


def check_against_scan(
    params: RNNParams | StackParams,
    xs: ArrayLike,
    h0: ArrayLike | LayerStates | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
    inputs: InputsAre | None = None,
    rtol: float | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Compare `jrnn.rnn` with the same scan differentiated by JAX: values and every gradient.

    `jrnn.stack` likewise, whose layers are then scans. All outputs get random cotangents, so that
    no path is left out, and matmuls run in full precision, so that the formulas are compared and
    not the rounding of a TPU or a TF32 unit.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None; or those of a stack.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        h0: None, `[H]` or `[B, H]`; of a stack None, or as in `jrnn.stack`.
        activation: as in `jrnn.rnn`.
        inputs: as in `jrnn.rnn`.
        rtol: the largest difference allowed in an array, as a share of its largest element; None
            is 1e-10 in float64, 1e-4 in float32, 0.05 below. States that grow without bound, or
            chaotic ones, amplify rounding and need more.
        seed: of the cotangents.

    Returns:
        The largest difference in each output and each gradient, as a share of its largest element.

    Raises:
        AssertionError: a difference above `rtol`; the message lists them all.
        ValueError: as `jrnn.rnn` or `jrnn.stack`.
    """
    stacked = isinstance(params, StackParams)
    arguments: Callable[..., Any] = checks.stack_arguments if stacked else checks.rnn_arguments
    xs = arguments(params, xs, h0, reading=inputs)
    floats = {"params": params, "xs": xs, "h0": h0}
    ids = {"xs": floats.pop("xs")} if are_ids(xs) else {}

    def outputs_and_gradients(f: Callable[..., Any]) -> dict[str, Any]:
        def call(floats: dict[str, Any]) -> Any:
            return f(**floats, **ids)

        with jax.default_matmul_precision("highest"):
            (h_last, hs), vjp = jax.vjp(call, floats)
            (gradients,) = vjp(_normal_like((h_last, hs), jax.random.key(seed)))
        return {"h_last": h_last, "hs": hs, "gradient": gradients}

    run = partial(stack if stacked else rnn, activation=activation, inputs=reading(xs))
    scan = partial(_scan, activation=activation)
    scan = partial(layer_by_layer, scan) if stacked else scan
    ours, scans = outputs_and_gradients(run), outputs_and_gradients(scan)
    if rtol is None:
        rtol = {8: 1e-10, 4: 1e-4}.get(ours["hs"].dtype.itemsize, 0.05)
    differences = {}
    for (name, a), b in zip(named_leaves(ours), jax.tree.leaves(scans), strict=True):
        differences[name] = _relative_difference(a, b)
    if not all(d <= rtol for d in differences.values()):
        table = "\n".join(f"  {name:24s} {d:.2e}" for name, d in differences.items())
        what = "stack" if stacked else "rnn"
        raise AssertionError(f"jrnn.{what} differs from the scan by more than {rtol:g}:\n{table}")
    return differences


def _scan(params: RNNParams, xs: jax.Array, *data: Any, **options: Any) -> Any:
    return rnn_scan(params, xs, *data, inputs=reading(xs), **options)


def _normal_like(tree: Any, key: jax.Array) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, draws)


def _relative_difference(a: jax.Array, b: jax.Array) -> float:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(x - y).max(initial=0.0) / (np.abs(y).max(initial=0.0) or 1.0))
