"""Inputs by name, and how two results are compared."""

from typing import NamedTuple

import jax
import numpy as np

import jrnn

# Axis sizes differ pairwise and are at least 2, or a transposed weight would go unseen.
T, B, I, H, O = 7, 3, 5, 4, 6

# |a - b| <= RTOL max|b| for every array: float64 with sums of some hundred terms.
RTOL = 1e-10
# The same formula in another order of operations, as jit or vmap may choose.
LAW_RTOL = 1e-12


class Case(NamedTuple):
    """The arguments of `rnn` and cotangents for both of its outputs."""

    params: jrnn.RNNParams
    xs: np.ndarray
    h0: np.ndarray | None
    dh_last: np.ndarray
    dhs: np.ndarray


def make_case(
    *, bias=True, ids=False, batch=True, h0="[B, H]", seed=0, T=T, B=B, I=I, H=H, dtype=np.float64
):
    """Random arguments of order 1; `w_hh` of spectral radius near 1 and far from symmetric."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(dtype)

    lead = (T, B) if batch else (T,)
    params = jrnn.RNNParams(normal(I, H), normal(H, H) / H**0.5, normal(H) if bias else None)
    xs = rng.integers(0, I, lead).astype(np.int32) if ids else normal(*lead, I)
    start = {"None": None, "[H]": normal(H), "[B, H]": normal(*lead[1:], H)}[h0]
    return Case(params, xs, start, normal(*lead[1:], H), normal(*lead, H))


def value_and_cotangents(f, case):
    """`f(params, xs, h0)` and the cotangents of its arguments, named as the oracle names them."""
    ids = np.issubdtype(case.xs.dtype, np.integer)
    floats = (case.params, None if ids else case.xs, case.h0)

    def call(params, xs, h0):
        return f(params, case.xs if ids else xs, h0)

    outputs, vjp = jax.vjp(call, *floats)
    dparams, dxs, dh0 = vjp((jax.numpy.asarray(case.dh_last), jax.numpy.asarray(case.dhs)))
    found = {**dparams._asdict(), "xs": dxs, "h0": dh0}
    return outputs, {name: d for name, d in found.items() if d is not None}


def differences(found, expected):
    """The largest difference in each array, as a share of the largest element expected there."""
    a, b = (dict(jax.tree.leaves_with_path(tree)) for tree in (found, expected))
    assert a.keys() == b.keys()
    result = {}
    for path, leaf in a.items():
        x, y = np.asarray(leaf), np.asarray(b[path])
        assert x.shape == y.shape, (path, x.shape, y.shape)
        assert x.size, path  # comparing nothing proves nothing
        result[jax.tree_util.keystr(path)] = np.abs(x - y).max() / (np.abs(y).max() or 1.0)
    return result


def assert_close(found, expected, rtol=RTOL):
    """Array by array."""
    wrong = {name: d for name, d in differences(found, expected).items() if not d <= rtol}
    assert not wrong, wrong


def sines(tree):
    """A function of every number in a tree that is not linear."""
    return sum(jax.numpy.sin(x).sum() for x in jax.tree.leaves(tree))


def twice(f, argnums=0):
    """The gradient of such a function of every gradient of f."""
    return jax.grad(lambda *args: sines(jax.grad(f, argnums)(*args)), argnums)


def two_devices():
    """A mesh, whose axis is "data"."""
    return jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def on_two_devices(f, in_specs, out_specs=None):
    """f by `shard_map`; None: both devices have the same results."""
    out_specs = jax.P() if out_specs is None else out_specs
    return jax.shard_map(f, mesh=two_devices(), in_specs=in_specs, out_specs=out_specs)


def together(*functions):
    """Several functions of the same arguments, compiled as one program: quicker than one for each.

    The results are NumPy's, of which a test takes parts without compiling anything.
    """
    program = jax.jit(lambda *args: [f(*args) for f in functions])
    return lambda *args: jax.device_get(program(*args))


def parameters(init, *sizes, seed=0, **options):
    """Parameters of order 1 as `init(key, *sizes, **options)` makes them, but drawn by NumPy.

    Nothing compiles, as it does once for every size where JAX draws them.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), *sizes, **options))

    def draw(path, p):
        if jax.tree_util.keystr(path).endswith(".alpha"):  # a share
            return rng.uniform(0.1, 0.9, p.shape).astype(p.dtype)
        return (rng.normal(size=p.shape) / p.shape[0] ** 0.5).astype(p.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
