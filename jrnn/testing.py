"""For users: prove the hand-derived gradient on your own shapes, dtype and device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from jrnn import checks
from jrnn._network import run_network, spec_of
from jrnn._stack import run_layers, specs_of, stack
from jrnn._unroll import unroll
from jrnn.arrays import ArrayLike, InputsAre, are_ids, named_leaves, reading
from jrnn.cells import Named, UncheckedCell
from jrnn.cells.elman import Activation, ActivationName
from jrnn.cells.kinds import cell_of
from jrnn.kernel.reference import unroll_by_scan
from jrnn.kernel.step import split_floats
from jrnn.types import StackParams


def check_against_scan(
    params: Any,
    xs: ArrayLike,
    h0: Any = None,
    data: Named | None = None,
    *,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: Any = None,
    recurrent_mask: Any = None,
    mask: ArrayLike | None = None,
    reverse: bool = False,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
    inputs: InputsAre | None = None,
    rtol: float | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Compare a network with the same scan differentiated by JAX: values and every gradient.

    `jrnn.stack` likewise, whose layers are then scans. All outputs get random cotangents, so that
    no path is left out, and matmuls run in full precision, so that the formulas are compared and
    not the rounding of a TPU or a TF32 unit.

    Args:
        params: `RNNParams`, `LSTMParams`, `GRUParams`, those of `cell`, or a
            `StackParams`.
        xs: `[T, I]` or `[T, B, I]` inputs, or `[T]` or `[T, B]` token ids.
        h0: the first state, as the network takes it: None, `[H]`, `[B, H]`, an `LSTMState`, ...
        data: the arrays that `cell` names, as in `jrnn.unroll`.
        lengths: as the network takes it, like all up to `reverse`.
        resets: where segments begin.
        reset_state: the state that resets go back to.
        recurrent_mask: m of (23).
        mask: the steps that count.
        reverse: the direction.
        activation: as in `jrnn.rnn_cross_entropy`, or in `jrnn.stack`.
        cell: as in `jrnn.rnn_cross_entropy`, or in `jrnn.stack`.
        inputs: as in `jrnn.rnn`.
        rtol: the largest difference allowed in an array, as a share of its largest element; None
            is 1e-10 in float64, 1e-4 in float32, 0.05 below. States that grow without bound, or
            chaotic ones, amplify rounding and need more.
        seed: of the cotangents.

    Returns:
        The largest difference in each output and each gradient, as a share of its largest element.

    Raises:
        AssertionError: a difference above `rtol`; the message lists them all.
        ValueError: as `jrnn.unroll` or `jrnn.stack`.
    """
    stacked = isinstance(params, StackParams)
    pair = _of_a_stack if stacked else _of_a_network
    given = (h0, lengths, resets, reset_state, recurrent_mask, mask, data)
    what, run, scan, xs = pair(params, xs, *given, activation, cell, reverse, inputs)
    floats = {"params": params, "xs": xs, "h0": h0}
    floats |= {"reset_state": reset_state, "recurrent_mask": recurrent_mask}
    fixed = {"lengths": lengths, "resets": resets, "mask": mask}
    if are_ids(xs):
        fixed["xs"] = floats.pop("xs")
    floats["data"], others = split_floats(data or {})

    def outputs_and_gradients(f: Callable[..., Any]) -> dict[str, Any]:
        def call(floats: dict[str, Any]) -> Any:
            own = None if data is None else floats["data"] | others
            return f(**floats | {"data": own}, **fixed)

        with jax.default_matmul_precision("highest"):
            (h_last, hs), vjp = jax.vjp(call, floats)
            (gradients,) = vjp(_normal_like((h_last, hs), jax.random.key(seed)))
        return {"h_last": h_last, "hs": hs, "gradient": gradients}

    ours, scans = outputs_and_gradients(run), outputs_and_gradients(scan)
    if rtol is None:
        rtol = {8: 1e-10, 4: 1e-4}.get(ours["hs"].dtype.itemsize, 0.05)
    differences = {}
    for (name, a), b in zip(named_leaves(ours), jax.tree.leaves(scans), strict=True):
        differences[name] = _relative_difference(a, b)
    if not all(d <= rtol for d in differences.values()):
        table = "\n".join(f"  {name:24s} {d:.2e}" for name, d in differences.items())
        raise AssertionError(f"{what} differs from the scan by more than {rtol:g}:\n{table}")
    return differences


Pair = tuple[str, Callable[..., Any], Callable[..., Any], Any]


def _of_a_network(params: Any, xs: Any, *given: Any) -> Pair:
    """A name, the network, the scan, and xs as ids or features."""
    *arrays, activation, cell, reverse, inputs = given
    cell = cell_of(params, activation, cell)
    xs = checks.network_arguments(cell, params, xs, *arrays, reading=inputs)

    def run(params: Any, xs: Any, h0: Any, **given: Any) -> Any:
        return unroll(cell, params, xs, h0, **given, reverse=reverse, inputs=reading(xs))

    def scan(params: Any, xs: Any, h0: Any, **given: Any) -> Any:
        spec, options = spec_of(cell, params), {"reverse": reverse, "run": unroll_by_scan}
        return run_network(spec, params, xs, h0, **given, **options)

    return f"the network of {type(params).__name__}", run, scan, xs


def _of_a_stack(params: Any, xs: Any, *given: Any) -> Pair:
    *arrays, recurrent_mask, mask, data, activation, cell, reverse, inputs = given
    cells, _ = specs_of(params, activation, cell)
    masks = {"mask": mask, "recurrent_mask": recurrent_mask}
    xs = checks.stack_arguments(cells, params, xs, *arrays, **masks, reading=inputs)
    checks.no_data_of_a_stack(data)

    def run(params: Any, xs: Any, data: None, **given: Any) -> Any:
        options = {"activation": activation, "cell": cell, "reverse": reverse}
        return stack(params, xs, **given, **options, inputs=reading(xs))

    def scan(params: Any, xs: Any, data: None, **given: Any) -> Any:
        _, specs = specs_of(params, activation, cell)
        runs = [partial(run_network, spec, run=unroll_by_scan) for spec in specs]
        return run_layers(runs, specs, params, xs, **given, reverse=reverse)

    return "jrnn.stack", run, scan, xs


def _normal_like(tree: Any, key: jax.Array) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, draws)


def _relative_difference(a: jax.Array, b: jax.Array) -> float:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(x - y).max(initial=0.0) / (np.abs(y).max(initial=0.0) or 1.0))
