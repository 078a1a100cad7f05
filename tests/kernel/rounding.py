"""How far a result in float32 may be from that in float64: as far as plain scans are.

A bound of one number would be luck: how much a case amplifies rounding is its own affair.
"""

import jax
import numpy as np
from calls import both, cell_of, expected, on_floats, parts, results

from jrnn import kernel
from jrnn.kernel import reference

RUNS = 9
EPS = np.finfo(np.float32).eps


def in_float32(call):
    return on_floats(np.float32, call)


def in_float64(call):
    return on_floats(np.float64, call)


def float32_bounds(name, call):
    """The results in float64, and how far each array in float32 may be from them.

    That is 3 times the largest error of nine plain scans in float32, one of the call as it is,
    eight with every number moved by -1, 0 or 1 unit in the last place; and 4 units of its maximum.
    """
    right = expected(name, in_float64(call))
    rng = np.random.default_rng(0)
    floats, others = parts(call.arguments)

    def moved(x):
        ways = rng.integers(-1, 2, (RUNS, *x.shape)).astype(x.dtype)
        ways[0] = 0
        return np.where(ways == 0, x, np.nextafter(x, x + ways))

    def scan(floats):
        by_scan = call._replace(arguments=both(floats, others))
        return results(kernel.Spec(cell_of(name)), by_scan, run=reference.unroll_by_scan)

    runs = jax.vmap(scan)(jax.tree.map(moved, floats))

    def bound(runs, y):
        largest = np.abs(y).max()
        return 3 * np.abs(np.asarray(runs, np.float64) - y).max() + 4 * EPS * largest

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
