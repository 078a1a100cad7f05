"""Losses of real numbers: values and gradients against NumPy, masks, the limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, B, T, assert_close
from cover import in_tiers
from refusals import refused

import jrnn

O = 4
RNG = np.random.default_rng(0)
LEVELS = np.array([0.1, 0.5, 0.9, 0.25])


def normal(*shape):
    return RNG.normal(size=shape)


def huber(e, delta=0.7):
    small = np.abs(e) <= delta
    value = np.where(small, e**2 / 2, delta * (np.abs(e) - delta / 2))
    return value, np.where(small, -e, -delta * np.sign(e))


# Each: the loss, and its values and derivative in o for e = y - o.
LOSSES = {
    "squared": (jrnn.squared_error, lambda e: (e**2, -2 * e)),
    "absolute": (jrnn.absolute_error, lambda e: (np.abs(e), -np.sign(e))),
    "huber": (partial(jrnn.huber_loss, delta=0.7), huber),
    "quantile": (
        partial(jrnn.quantile_loss, quantile=0.3),
        lambda e: (np.where(e >= 0, 0.3, -0.7) * e, np.where(e >= 0, -0.3, 0.7)),
    ),
    "quantiles": (
        partial(jrnn.quantile_loss, quantile=tuple(LEVELS)),
        lambda e: (np.where(e >= 0, LEVELS, LEVELS - 1) * e, np.where(e >= 0, -LEVELS, 1 - LEVELS)),
    ),
}
MASK = RNG.random((T, B, O)) > 0.4
WEIGHTS = {
    "none": None,
    "one": np.float64(0.3),
    "positions": np.where(MASK[..., 0], normal(T, B), 0.0),
    "elements": np.where(MASK, normal(T, B, O), 0.0),
    "mask of positions": MASK[..., 0],
    "mask of elements": MASK,
}


def each(weights):
    """Weights in the shape of the elements, as floats."""
    if weights is None:
        return np.ones((T, B, O))
    return np.broadcast_to(weights[..., None] if weights.ndim == 2 else weights, (T, B, O)) * 1.0


def value_and_cotangents(loss, o, y, weights, d):
    """The losses, and the cotangents of o, y and float weights."""
    floats = weights is not None and weights.dtype != bool
    arguments = (o, y, weights) if floats else (o, y)
    call = loss if floats else lambda o, y: loss(o, y, weights)
    losses, vjp = jax.vjp(call, *arguments)
    return losses, vjp(jnp.asarray(d))


@in_tiers(name=LOSSES, weights=WEIGHTS)
def test_every_gradient(name, weights):
    loss, formula = LOSSES[name]
    o, y, d, weights = normal(T, B, O), normal(T, B, O), normal(T, B, O), WEIGHTS[weights]
    losses, found = value_and_cotangents(loss, o, y, weights, d)
    (right, slope), m = formula(y - o), each(weights)
    assert_close(losses, m * right)
    assert_close(found[:2], (m * slope * d, -m * slope * d))
    if len(found) == 3:
        dm = np.where(m == 0, 0, right * d)
        axes = {0: None, 2: -1}.get(weights.ndim, ())
        assert_close(found[2], dm.sum(axes) if axes != () else dm)


@pytest.mark.parametrize("weights", ["none", "elements"])
def test_the_gaussian_likelihood(weights):
    mean, log_std, y, d = (normal(T, B, O) for _ in range(4))
    o, weights = np.concatenate([mean, log_std], -1), WEIGHTS[weights]
    losses, found = value_and_cotangents(jrnn.gaussian_nll, o, y, weights, d)
    m, std, z = each(weights), np.exp(log_std), (y - mean) * np.exp(-log_std)
    assert_close(losses, -m * np.asarray(jax.scipy.stats.norm.logpdf(y, mean, std)))
    assert_close(found[0], np.concatenate([-m * z / std * d, m * (1 - z**2) * d], -1))
    assert_close(found[1], m * z / std * d)


NAMES = [*LOSSES, "gaussian"]
ALL = {name: loss for name, (loss, _) in LOSSES.items()} | {"gaussian": jrnn.gaussian_nll}


@in_tiers(
    name=NAMES, weights=["positions", "elements", "mask of positions"], poison=[np.nan, np.inf]
)
def test_nothing_leaks_where_the_weight_is_zero(name, weights, poison):
    y, d, weights = normal(T, B, O), normal(T, B, O), WEIGHTS[weights]
    parts = [normal(T, B, O) for _ in range(2 if name == "gaussian" else 1)]
    counted = each(weights) != 0
    join = lambda y, *parts: (np.concatenate(parts, -1), y)
    clean = value_and_cotangents(ALL[name], *join(y, *parts), weights, d)
    spoiled = [np.where(counted, x, poison) for x in (y, *parts)]
    found = value_and_cotangents(ALL[name], *join(*spoiled), weights, d)
    assert_close(found, clean, 0.0)
    assert not np.asarray(found[0])[~counted].any()


def test_several_quantiles_of_one_target():
    o, y = normal(T, O), normal(T, 1)
    loss = partial(jrnn.quantile_loss, quantile=jnp.asarray(LEVELS))
    losses, found = value_and_cotangents(loss, o, y, None, np.ones((T, O)))
    same, expected = value_and_cotangents(loss, o, np.tile(y, O), None, np.ones((T, O)))
    assert_close(losses, same, LAW_RTOL)
    assert_close(found[1], expected[1].sum(-1, keepdims=True), LAW_RTOL)


def test_the_least_mean_is_at_the_quantile():
    y = np.sort(normal(101))
    for q in (0.1, 0.5, 0.75):
        o = jnp.broadcast_to(y[:, None], (101, 101))
        mean = jrnn.quantile_loss(o, np.broadcast_to(y, (101, 101)), quantile=q).mean(-1)
        assert_close(y[int(mean.argmin())], np.quantile(y, q), LAW_RTOL)


def test_any_axes():
    for shape in ((), (T,), (2, T, B, O)):
        o, y = np.asarray(normal(*shape)), np.asarray(normal(*shape))
        assert_close(jrnn.squared_error(o, y), (y - o) ** 2)
        assert_close(jrnn.quantile_loss(o, y, quantile=0.5), np.abs(y - o) / 2)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name):
    cast = lambda x: jnp.asarray(x, jnp.bfloat16)
    o, y = cast(normal(T, 2 * O if name == "gaussian" else O)), cast(normal(T, O))
    found = ALL[name](o, y, jnp.ones((T, O), jnp.bfloat16))
    exact = ALL[name](o.astype(jnp.float32), y.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    assert_close(found.astype(jnp.float32), exact.astype(jnp.bfloat16).astype(jnp.float32), 0.0)


def test_an_option_of_the_same_value_compiles_nothing():
    o, y = jnp.asarray(normal(T, B, O)), jnp.asarray(normal(T, B, O))
    run = lambda: jrnn.quantile_loss(o, y, quantile=[0.1, 0.2, 0.3, 0.6])
    run()
    before = jrnn.loss.regression._losses._cache_size()
    run()
    assert jrnn.loss.regression._losses._cache_size() == before


X = np.zeros((T, B, O))
REFUSED = {
    "targets without the last axis": (
        lambda: jrnn.squared_error(X[..., :1], X[..., 0]),
        "targets: expected shape [7, 3, 1]; got float64[7, 3]. One for each prediction; a single "
        "output is an axis of size 1.",
    ),
    "targets of another dtype": (
        lambda: jrnn.absolute_error(X, X.astype(np.float32)),
        "targets: expected the dtype of predictions, float64; got float32.",
    ),
    "counts": (
        lambda: jrnn.huber_loss(X, X.astype(int)),
        "targets: expected a floating dtype; got int64[7, 3, 4]. Cast counts by .astype.",
    ),
    "integers as predictions": (
        lambda: jrnn.squared_error(X.astype(int), X),
        "predictions: expected a floating dtype; got int64[7, 3, 4].",
    ),
    "a mask of the wrong shape": (
        lambda: jrnn.squared_error(X, X, np.ones((B, T), bool)),
        "weights: expected shape [7, 3], [7, 3, 4] or []; got bool[3, 7]. One weight per position,",
    ),
    "a mask of integers": (
        lambda: jrnn.squared_error(X, X, np.ones((T, B), int)),
        "weights: expected a bool or floating dtype; got int64[7, 3]. A mask is bool,",
    ),
    "a delta of 0": (
        lambda: jrnn.huber_loss(X, X, delta=0.0),
        "delta: expected a finite number above 0; got 0.0.",
    ),
    "a quantile of 1": (
        lambda: jrnn.quantile_loss(X, X, quantile=1.0),
        "quantile: expected a number between 0 and 1, or a sequence of one for each output; got "
        "1.0. 0.5 is the median.",
    ),
    "a quantile in percent among others": (
        lambda: jrnn.quantile_loss(X, X, quantile=(0.1, 0.5, 0.9, 95)),
        "quantile: expected a number between 0 and 1, or a sequence of one for each output; got 95",
    ),
    "a traced quantile": (
        lambda: jax.jit(lambda q: jrnn.quantile_loss(X, X, quantile=q))(0.5),
        "got a traced array. It is fixed when the call is compiled.",
    ),
    "another number of quantiles": (
        lambda: jrnn.quantile_loss(X, X, quantile=(0.1, 0.9)),
        "or a sequence of one for each output; got 2 for 4 outputs. A readout has one output for",
    ),
    "targets of no quantile": (
        lambda: jrnn.quantile_loss(X, X[..., :2], quantile=0.5),
        "targets: expected shape [7, 3, 4] or [7, 3, 1]; got float64[7, 3, 2].",
    ),
    "an odd number of outputs": (
        lambda: jrnn.gaussian_nll(X[..., :3], X[..., :1]),
        "predictions: expected [..., 2D] with D >= 1; got float64[7, 3, 3]. The means come first,",
    ),
    "a target for each output of a Gaussian": (
        lambda: jrnn.gaussian_nll(X, X),
        "targets: expected shape [7, 3, 2]; got float64[7, 3, 4].",
    ),
}
test_refused = refused(REFUSED)
