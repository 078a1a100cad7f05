"""Values and every gradient of `rnn` against the NumPy oracle, array by array, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import H, assert_close, make_case, value_and_cotangents
from cover import pairwise
from jax.test_util import check_grads

import jrnn
from jrnn.cells.elman import ACTIVATIONS

pytestmark = pytest.mark.optimized


def assert_exact(case, activation="tanh", f=jrnn.rnn):
    found = value_and_cotangents(lambda *a: f(*a, activation=activation), case)
    expected = oracle.rnn(case.params, case.xs, case.h0, activation, case.dh_last, case.dhs)
    assert_close(found, expected)


FORMS = pairwise(
    {
        "activation": list(oracle.ACTIVATIONS),
        "h0": ["None", "[H]", "[B, H]"],
        "batch": [True, False],
        "ids": [False, True],
        "bias": [True, False],
    }
)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(map(str, form.values())))
def test_every_gradient(form):
    """Of every pair of forms; `test_cells` has them with every path of the kernel."""
    activation, *_ = form.values()
    assert_exact(make_case(**{k: x for k, x in form.items() if k != "activation"}), activation)


@pytest.mark.parametrize(
    "sizes", [{"T": 1}, {"B": 1}, {"H": 1}, {"I": 1}, {"T": 1, "B": 1}], ids=str
)
def test_sizes_of_one(sizes):
    assert_exact(make_case(**sizes))


def test_a_longer_sequence():
    assert_exact(make_case(T=60, B=2, I=3, H=8))


def test_own_activation():
    softsign = jrnn.Activation(lambda a: a / (1 + abs(a)), lambda h: (1 - abs(h)) ** 2)
    case = make_case()

    def scan(params, xs, h0):
        def step(h, x):
            a = x @ params.w_ih + h @ params.w_hh + params.b_h[None]
            return (a / (1 + abs(a)),) * 2

        return jax.lax.scan(step, h0, xs)

    found = value_and_cotangents(lambda *a: jrnn.rnn(*a, activation=softsign), case)
    assert_close(found, value_and_cotangents(scan, case))


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
def test_finite_differences(activation):
    case = make_case()  # relu: this seed has no pre-activation within 1e-3 of the kink
    check_grads(
        lambda *a: jrnn.rnn(*a, activation=activation),
        (case.params, case.xs, case.h0),
        order=1,
        modes=["rev"],
        atol=1e-6,
        rtol=1e-6,
        eps=1e-6,
    )


def test_relu_seed_stays_off_the_kink():
    case = make_case()
    hs = np.asarray(jrnn.rnn(case.params, case.xs, case.h0, activation="relu")[1])
    before = np.concatenate([case.h0[None], hs[:-1]])
    a = case.xs @ case.params.w_ih + before @ case.params.w_hh + case.params.b_h
    assert np.abs(a).min() > 1e-3
    assert 0.2 < (a > 0).mean() < 0.8


@pytest.mark.parametrize("h0", ["None", "[H]", "[B, H]"])
@pytest.mark.parametrize("ids", [False, True], ids=["vectors", "ids"])
def test_plain_scan(ids, h0):
    assert_exact(make_case(ids=ids, h0=h0), f=jrnn.derivation.rnn_scan)


@pytest.mark.parametrize("ids", [False, True], ids=["vectors", "ids"])
@pytest.mark.parametrize("batch", [True, False], ids=["batch", "one"])
def test_cell_is_one_step(batch, ids):
    case = make_case(batch=batch, ids=ids)
    h = jrnn.rnn_cell(case.params, case.h0, case.xs[0])
    expected, _ = oracle.rnn(case.params, case.xs[:1], case.h0, "tanh", case.dh_last, case.dhs[:1])
    assert_close(h, expected[0])


def test_cell_shares_a_state_over_the_batch():
    case = make_case(h0="[H]")
    assert jrnn.rnn_cell(case.params, case.h0, case.xs[0]).shape == (3, H)


def test_token_ids_of_any_integer_type():
    case = make_case(ids=True)
    expected = jrnn.rnn(case.params, case.xs, case.h0)
    for dtype in (np.uint8, np.int8, np.int64):
        assert_close(jrnn.rnn(case.params, case.xs.astype(dtype), case.h0), expected, rtol=0.0)


def test_traced_ids_outside_the_vocabulary_are_nan():
    case = make_case(ids=True)
    for wrong in (-1, 5):
        xs = case.xs.copy()
        xs[3, 1] = wrong
        hs = np.asarray(jax.jit(jrnn.rnn)(case.params, jnp.asarray(xs))[1])
        assert np.isnan(hs[3:, 1]).all()
        assert np.isfinite(hs[:3]).all()
        assert np.isfinite(hs[:, [0, 2]]).all()


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
def test_built_in_derivatives_pass_the_check_of_an_own_one(name):
    phi = ACTIVATIONS[name]
    jrnn.Activation(phi.fn, phi.derivative_from_output)


def test_relu_has_derivative_zero_at_zero():
    zero = jrnn.RNNParams(jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.zeros(1))
    (dparams,) = jax.vjp(lambda p: jrnn.rnn(p, jnp.ones((1, 1)), activation="relu")[0], zero)[1](
        jnp.ones(1)
    )
    assert dparams.b_h[0] == 0
