"""Less memory, the same gradient: `rnn` with remat, and the objective that holds no states."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import O, assert_close, make_case, together, value_and_cotangents
from cover import in_tiers
from jaxprs import equations, sizes

import jrnn


def remat(params, xs, h0=None):
    return jrnn.rnn(params, xs, h0, remat=True)


TWO = [True, False]


# 12 steps are 12 segments; 41 are 13 of 3, four side by side, and 2, or in a batch 6 of 6, and 5.
@in_tiers(T=[1, 12, 41], batch=TWO, ids=TWO)
def test_every_gradient(ids, batch, T):
    case = make_case(T=T, ids=ids, batch=batch)
    expected = oracle.rnn(case.params, case.xs, case.h0, "tanh", case.dh_last, case.dhs)
    found = jax.jit(partial(value_and_cotangents, remat))(case)
    assert_close(found, expected)


def temporary_bytes(f, *args):
    return jax.jit(jax.grad(f)).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param((), marks=pytest.mark.optimized),
        pytest.param((1,), marks=pytest.mark.slow),  # compiled alike
        pytest.param((2,), marks=pytest.mark.optimized),
    ],
    ids=str,
)
def test_memory_grows_as_the_square_root_of_the_length(batch):
    params = make_case(I=4, H=32, dtype=np.float32).params
    used = {}
    for T in (1024, 16384):
        xs = jax.ShapeDtypeStruct((T, *batch, 4), np.float32)
        used[T] = temporary_bytes(lambda p, xs: jnp.sum(remat(p, xs)[0]), params, xs)
    states = 4 * 16384 * int(np.prod(batch)) * 32
    assert used[16384] < 0.08 * states
    assert used[16384] < 5 * used[1024]


@pytest.mark.usefixtures("without_native")
def test_vmap_with_shared_weights_forms_no_gradient_per_example():
    T, B, I, H = 4, 7, 4, 16
    case = make_case(T=T, B=B, I=I, H=H)

    def mapped(params):
        return jnp.sum(jax.vmap(remat, (None, 1))(params, case.xs)[1] ** 2)

    jaxpr = jax.make_jaxpr(jax.grad(mapped))(case.params)
    assert max(n for e in equations(jaxpr) for n in sizes(e)) < B * H * H


@pytest.mark.usefixtures("without_native")
@pytest.mark.parametrize("T", [9, pytest.param(16, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("lead", [(), pytest.param((3,), marks=pytest.mark.thorough)], ids=str)
def test_vmap_of_the_gradient_is_that_of_each(T, lead):
    """The forward pass is one batch of all calls, and the backward pass is mapped."""
    case = make_case(T=T)
    many = np.random.default_rng(2).normal(size=(5, T, *lead, case.xs.shape[-1]))

    def gradient(xs, **options):
        def cost(params, xs):
            return jnp.sum(jrnn.rnn(params, xs, **options)[1] ** 2)

        return jax.grad(cost, (0, 1))(case.params, xs)

    found = jax.jit(jax.vmap(partial(gradient, remat=True)))(many)
    assert_close(found, jax.jit(partial(jax.lax.map, gradient))(many))


# --- the objective -------------------------------------------------------------------------------


def readout_case(lead, H=4):
    rng = np.random.default_rng(1)
    readout = jrnn.ReadoutParams(rng.normal(size=(H, O)), rng.normal(size=O))
    return readout, rng.integers(0, O, lead), rng.random(lead)


def apart(rnn_params, readout_params, xs, labels, h0=None, *, weights=None):
    h_last, hs = jrnn.derivation.rnn_scan(rnn_params, xs, h0)
    logits = jrnn.readout(readout_params, hs)
    return jrnn.softmax_cross_entropy(logits, labels, weights).sum(), h_last


@in_tiers(T=[7, 12], weighted=["none", "one", "each"], batch=TWO, remat=TWO)
def test_the_objective_is_its_parts(T, weighted, batch, remat):
    case = make_case(T=T, batch=batch)
    readout, labels, weights = readout_case(case.xs.shape[:-1])
    weights = {"none": None, "one": np.float64(0.3), "each": weights}[weighted]
    shares = np.eye(O)[labels] * 0.7

    def everything(f, **options):
        def total(rnn_params, readout_params, xs, labels, h0, weights):
            J, h_last = f(rnn_params, readout_params, xs, labels, h0, weights=weights, **options)
            return J + jnp.vdot(h_last, case.dh_last)

        argnums = (0, 1, 2, 3, 4) if weights is None else (0, 1, 2, 3, 4, 5)
        return jax.value_and_grad(total, argnums)

    run = together(everything(jrnn.rnn_cross_entropy, remat=remat), everything(apart))
    assert_close(*run(case.params, readout, case.xs, shares, case.h0, weights))


@pytest.mark.parametrize("remat", [False, True], ids=["whole", "remat"])
def test_a_mask_keeps_out_what_stands_there_and_lets_the_state_go_on(remat):
    case = make_case(ids=True)
    readout, labels, weights = readout_case(case.xs.shape)
    mask = weights > 0.5
    expected = apart(case.params, readout, case.xs, labels, weights=mask)
    labels = np.where(mask, labels, -99)
    found = jrnn.rnn_cross_entropy(case.params, readout, case.xs, labels, weights=mask, remat=remat)
    assert_close(found, expected)


@pytest.mark.optimized
def test_the_objective_holds_neither_states_nor_logits():
    T, B, H, classes = 4096, 2, 32, 100
    params = make_case(I=classes, H=H, dtype=np.float32).params
    readout = jrnn.ReadoutParams(np.ones((H, classes), np.float32), np.ones(classes, np.float32))
    ids = jax.ShapeDtypeStruct((T, B), np.int32)

    def cost(params, ids):
        return jrnn.rnn_cross_entropy(params, readout, ids, ids, remat=True)[0]

    assert temporary_bytes(cost, params, ids) < 0.25 * 4 * T * B * H
