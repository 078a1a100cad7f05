"""How far a result in float32 may be from that in float64: as far as plain scans are.

A bound of one number would be luck: how much a case amplifies rounding is its own affair.
"""

import jax
import jax.numpy as jnp
import numpy as np
from calls import both, expected, on_floats, parts, results

from jrnn import kernel
from jrnn.kernel import reference

RUNS = 9


def in_float32(call):
    return on_floats(np.float32, call)


def in_float64(call):
    return on_floats(np.float64, call)


def float32_bounds(cell, name, call, compute_dtype=None):
    """The results in float64, and how far each array in float32 may be from them.

    That is 3 times the largest error of nine plain scans in float32, one of the call as it is,
    eight with every number moved by -1, 0 or 1 unit in the last place; and 4 units of its maximum.
    The units are those of `compute_dtype`, if it is given.
    """
    right, dtype = expected(name, in_float64(call)), jnp.dtype(compute_dtype or np.float32)
    eps = float(jnp.finfo(dtype).eps)
    rng = np.random.default_rng(0)
    floats, others = parts(call.arguments)

    def moved(x):
        return x * (1 + rng.integers(-1, 2, x.shape).astype(x.dtype) * x.dtype.type(eps))

    @jax.jit
    def scan(floats):
        by_scan = call._replace(arguments=both(floats, others))
        spec = kernel.Spec(cell, compute_dtype=compute_dtype)
        return results(spec, by_scan, run=reference.unroll_by_scan)

    calls = [floats, *(jax.tree.map(moved, floats) for _ in range(RUNS - 1))]
    runs = jax.tree.map(lambda *x: np.stack(x), *map(jax.device_get, map(scan, calls)))

    def bound(runs, y):
        largest = np.abs(y).max()
        return 3 * np.abs(np.asarray(runs, np.float64) - y).max() + 4 * eps * largest

    return right, jax.tree.map(bound, runs, right)


def assert_within(found, right, bounds):
    off = jax.tree.map(lambda x, y: np.abs(np.asarray(x, np.float64) - y).max(), found, right)
    wrong = [
        (jax.tree_util.keystr(path), error, bound)
        for (path, error), bound in zip(
            jax.tree.leaves_with_path(off), jax.tree.leaves(bounds), strict=True
        )
        if not error <= bound
    ]
    assert not wrong, wrong
