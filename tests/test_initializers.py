"""Initialisers against their definitions, in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refused

import jrnn
from jrnn.initializers import hidden_uniform, identity, spectral_radius

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 20)
ALL = {
    "identity": identity(0.5),
    "spectral_radius": spectral_radius(0.9),
    "hidden_uniform": hidden_uniform,
}


@pytest.mark.parametrize("name", ALL)
def test_in_init_rnn(name):
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        draw = partial(jrnn.init_rnn, input_size=3, hidden_size=5, w_hh_init=ALL[name], dtype=dtype)
        w_hh = jax.eval_shape(draw, KEY).w_hh
        assert (w_hh.shape, w_hh.dtype) == ((5, 5), dtype)
        alone = jax.eval_shape(lambda key, dtype=dtype: ALL[name](key, (4, 4), dtype), KEY)
        assert (alone.shape, alone.dtype) == ((4, 4), dtype)
    assert jax.eval_shape(lambda key: ALL[name](key, (4, 4)), KEY).dtype == jnp.float64


@pytest.mark.parametrize("name", ALL)
def test_the_key_decides(name):
    first, other, again = jax.vmap(lambda key: ALL[name](key, (4, 4)))(KEYS[jnp.array([0, 1, 0])])
    np.testing.assert_array_equal(first, again)
    assert (name == "identity") == bool((first == other).all())


def test_identity():
    np.testing.assert_array_equal(identity()(KEY, (4, 4)), np.eye(4))
    np.testing.assert_array_equal(identity(-0.01)(KEY, (1, 1)), [[-0.01]])


@pytest.mark.parametrize(
    ("H", "dtype", "rtol"),
    [(1, "float64", 1e-12), (2, "float64", 1e-12), (64, "float64", 1e-12), (5, "float32", 1e-5)],
)
def test_spectral_radius_is_exact(H, dtype, rtol):
    init = spectral_radius(1.3)
    draws = jax.jit(jax.vmap(lambda key: init(key, (H, H), jnp.dtype(dtype))))(KEYS)
    for w in np.asarray(draws, np.float64):
        assert np.abs(np.linalg.eigvals(w)).max() == pytest.approx(1.3, rel=rtol)
    if H == 1:  # the draw has the sign
        assert draws.min() < 0 < draws.max()


def test_spectral_radius_is_of_a_gaussian_matrix():
    """By the circular law, elements have a standard deviation of about r/sqrt(H)."""
    w = np.asarray(spectral_radius(0.9)(KEY, (200, 200), jnp.float32)) * 200**0.5 / 0.9
    assert w.std() == pytest.approx(1, abs=0.1)
    assert abs(w.mean()) < 0.02
    assert np.mean(np.abs(w) < w.std()) == pytest.approx(0.6827, abs=0.01)
    assert np.abs(w).max() > 3 * w.std()


@pytest.mark.parametrize("shape", [(300, 16), (16, 16)])
def test_hidden_uniform(shape):
    """The bound is that of H, the last axis, for w_ih as for w_hh."""
    w = np.asarray(hidden_uniform(KEY, shape))
    assert w.shape == shape
    assert np.abs(w).max() <= 0.25
    for share in (0.1, 0.5, 0.8):
        assert np.mean(w < -0.25 + 0.5 * share) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(
    ("init", "blocks"), [(jrnn.init_rnn, 1), (jrnn.init_lstm, 4), (jrnn.init_gru, 3)]
)
def test_a_block_of_weights_is_drawn_by_itself(init, blocks):
    """So torch's bound is that of H for all gates, and orthogonal columns are those of one gate."""
    params = init(KEY, 300, 16, w_ih_init=hidden_uniform, w_hh_init=hidden_uniform)
    for w in (params.w_ih, params.w_hh):
        assert w.shape[-1] == blocks * 16
        parts = np.split(np.asarray(w), blocks, -1)
        assert all(0.23 < np.abs(part).max() <= 0.25 for part in parts)
        assert all((parts[0] != part).all() for part in parts[1:])
    w_ih = init(KEY, 300, 16, w_ih_init=jax.nn.initializers.orthogonal()).w_ih
    for part in np.split(np.asarray(w_ih), blocks, -1):
        np.testing.assert_allclose(part.T @ part, np.eye(16), atol=1e-6)


REFUSED = {
    "not square": (
        lambda: identity()(KEY, (3, 4)),
        "shape: expected [H, H]; got [3, 4]. "
        "It is made for w_hh; w_ih takes any of jax.nn.initializers.",
    ),
    "w_ih": (
        lambda: jrnn.init_rnn(KEY, 3, 4, w_ih_init=spectral_radius(0.9)),
        "shape: expected [H, H]; got [3, 4]. It is made for w_hh;",
    ),
    "no axis": (
        lambda: hidden_uniform(KEY, ()),
        "shape: expected [..., H]; got []. The last axis is the state.",
    ),
    "integers": (
        lambda: identity()(KEY, (4, 4), jnp.int32),
        "dtype: expected a floating dtype or None; got int32.",
    ),
    "integers, uniform": (
        lambda: hidden_uniform(KEY, (4, 4), jnp.int32),
        "dtype: expected a floating dtype or None; got int32.",
    ),
    "integers, spectral": (
        lambda: spectral_radius(0.9)(KEY, (4, 4), jnp.int32),
        "dtype: expected a floating dtype or None; got int32.",
    ),
    "radius of 0": (
        lambda: spectral_radius(0),
        "radius: expected a finite number above 0; got 0. It must be a constant number.",
    ),
    "radius that is none": (
        lambda: spectral_radius(float("nan")),
        "radius: expected a finite number above 0; got nan.",
    ),
    "scale that is infinite": (
        lambda: identity(float("-inf")),
        "scale: expected a finite number; got -inf. It must be a constant number.",
    ),
    "scale that is no number": (
        lambda: identity("1"),
        "scale: expected a finite number; got '1'.",
    ),
}
test_refused = refused(REFUSED)
