"""For users: prove the hand-derived gradient on your own shapes, dtype and device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.arrays import ArrayLike, are_ids, named_leaves
from jrnn.cell import Activation, ActivationName
from jrnn.derivation import rnn_scan
from jrnn.rnn import rnn
from jrnn.types import RNNParams


def check_against_scan(
    params: RNNParams,
    xs: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
    rtol: float | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Compare `jrnn.rnn` with the same scan differentiated by JAX: values and every gradient.

    Both outputs get random cotangents, so that no path is left out, and matmuls run in full
    precision, so that the formulas are compared and not the rounding of a TPU or a TF32 unit.

    Args:
        params: `w_ih [I, H]`, `w_hh [H, H]`, `b_h [H]` or None.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        h0: None, `[H]` or `[B, H]`.
        activation: as in `jrnn.rnn`.
        rtol: the largest difference allowed in an array, as a share of its largest element; None
            is 1e-10 in float64, 1e-4 in float32, 0.05 below. States that grow without bound, or
            chaotic ones, amplify rounding and need more.
        seed: of the cotangents.

    Returns:
        The largest difference in each output and each gradient, as a share of its largest element.

    Raises:
        AssertionError: a difference above `rtol`; the message lists them all.
        ValueError: as `jrnn.rnn`.
    """
    dtype = jnp.result_type(params.w_hh)
    if rtol is None:
        rtol = {8: 1e-10, 4: 1e-4}.get(dtype.itemsize, 0.05)
    floats = {"params": params, "xs": xs, "h0": h0}
    ids = {"xs": floats.pop("xs")} if are_ids(xs) else {}

    def outputs_and_gradients(f: Any) -> dict[str, Any]:
        def call(floats: dict[str, Any]) -> Any:
            a = {**floats, **ids}
            return f(a["params"], a["xs"], a["h0"], activation=activation)

        with jax.default_matmul_precision("highest"):
            (h_last, hs), vjp = jax.vjp(call, floats)
            key_last, key_hs = jax.random.split(jax.random.key(seed))
            dh_last = jax.random.normal(key_last, h_last.shape, dtype)
            dhs = jax.random.normal(key_hs, hs.shape, dtype)
            (gradients,) = vjp((dh_last, dhs))
        return {"h_last": h_last, "hs": hs, "gradient": gradients}

    ours, scans = outputs_and_gradients(rnn), outputs_and_gradients(rnn_scan)
    differences = {}
    for (name, a), b in zip(named_leaves(ours), jax.tree.leaves(scans), strict=True):
        differences[name] = _relative_difference(a, b)
    if not all(d <= rtol for d in differences.values()):
        table = "\n".join(f"  {name:24s} {d:.2e}" for name, d in differences.items())
        raise AssertionError(f"jrnn.rnn differs from the scan by more than {rtol:g}:\n{table}")
    return differences


def _relative_difference(a: jax.Array, b: jax.Array) -> float:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(x - y).max(initial=0.0) / (np.abs(y).max(initial=0.0) or 1.0))
