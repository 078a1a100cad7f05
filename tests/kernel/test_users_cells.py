"""Cells, activations and data of users: padding that is not finite, integers, many of them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, assert_close

import jrnn
from jrnn import derivation
from jrnn.cells.elman import elman
from jrnn.cells.leaky import leaky

RNG = np.random.default_rng(0)
T, B, I, H = 6, 3, 2, 4
LENGTHS = np.array([T, 2, 0])
XS = RNG.normal(size=(T, B, I))


class Params(NamedTuple):
    w_ih: Any
    w_hh: Any
    b_h: Any


def divided(blocks, before, unit, data):
    return (before[0] + (jnp.tanh(blocks[0]) - before[0]) / data["tau"],)


# 0 / 0 where tau is 0, as in the padding; and phi' divides by h, which is 0 there.
CELL = jrnn.Cell("divided", divided, data=("tau",), params=Params)
ROOT = jrnn.Activation(
    lambda a: jnp.sqrt(jax.nn.softplus(a)), lambda h: -jnp.expm1(-h * h) / (2 * h)
)
TAU = np.full((T, B, H), 3.0)


def own_cell(params, xs, tau, **options):
    return jrnn.unroll(CELL, params, xs, data={"tau": tau}, **options)[1]


def own_activation(params, xs, tau, **options):
    return jrnn.rnn(jrnn.RNNParams(*params), xs, activation=ROOT, **options)[1] + 0 * tau


def by_scan(params, xs, tau, lengths=None):
    padding = {} if lengths is None else {"lengths": lengths}
    return derivation.rnn_scan(jrnn.RNNParams(*params), xs, activation=ROOT, **padding)[1] + 0 * tau


def parameters():
    return Params(*jrnn.init_rnn(jax.random.key(0), I, H, dtype=float))


@pytest.mark.parametrize(
    "network",
    [
        *(own_cell, own_activation, by_scan),
        *(partial(network, remat=True) for network in (own_cell, own_activation)),
    ],
)
def test_the_gradient_is_that_of_the_steps_that_count(network):
    def padded(params, xs, tau):
        return jnp.square(network(params, xs, tau, lengths=LENGTHS)).sum()

    def each_alone(params, xs, tau):
        counted = (np.s_[:n, b] for b, n in enumerate(LENGTHS) if n)
        return sum(jnp.square(network(params, xs[at], tau[at])).sum() for at in counted)

    given = parameters(), XS, TAU
    found, expected = (jax.grad(f, (0, 1, 2))(*given) for f in (padded, each_alone))
    assert_close(found, expected, LAW_RTOL)


def test_the_gradient_of_a_gradient_is_that_of_the_steps_that_count():
    tau = np.where(np.arange(T)[:, None, None] < LENGTHS[:, None], TAU, 0)

    def squares(params, xs, tau, **padding):
        def output(xs, tau):
            return own_cell(params, xs, tau, **padding).sum()

        return sum(jnp.square(d).sum() for d in jax.grad(output, (0, 1))(xs, tau))

    def each_alone(params, xs, tau):
        counted = (np.s_[:n, b] for b, n in enumerate(LENGTHS) if n)
        return sum(squares(params, xs[at], tau[at]) for at in counted)

    padded = partial(squares, lengths=LENGTHS)
    found, expected = (jax.grad(f, (0, 1, 2))(parameters(), XS, tau) for f in (padded, each_alone))
    assert_close(found, expected, LAW_RTOL)


@pytest.mark.parametrize("network", [jrnn.rnn, partial(jrnn.rnn, activation=ROOT)])
@pytest.mark.parametrize("remat", [False, True])
def test_the_state_of_a_sequence_without_a_step_is_not_read(network, remat):
    h0 = np.zeros((B, H))
    h0[2] = np.nan

    def loss(params, h0):
        h_last, hs = network(params, XS, h0, LENGTHS, remat=remat)
        return jnp.square(hs).sum() + h_last[:2].sum()

    params = jrnn.RNNParams(*parameters())
    found, dh0 = jax.grad(loss, (0, 1))(params, h0)
    assert_close(found, jax.grad(loss)(params, np.zeros((B, H))), LAW_RTOL)
    assert not np.asarray(dh0)[2].any()


def test_integers_of_a_sequence_are_exact():
    """2^24 + 1 is no float32."""
    odd = lambda blocks, before, unit, data: (
        jnp.where(data["n"] % 2 == 1, jnp.tanh(blocks[0]), 0),
    )
    cell = jrnn.Cell("odd", odd, data=("n",), params=Params)
    n = np.full((B, H), 2**24 + 1, np.int32)
    of_each_step = np.broadcast_to(n, (T, B, H))
    found, expected = (
        jrnn.unroll(cell, parameters(), XS, data={"n": x})[1] for x in (n, of_each_step)
    )
    assert_close(found, expected, 1e-15)
    assert np.abs(expected).max() > 0.1


def test_integer_features_with_steps_of_different_lengths():
    counts = RNG.integers(0, 5, (T, B, I))
    params = jrnn.init_leaky(jax.random.key(0), I, H, alpha=0.5, dtype=float)
    for dt in (np.full(T, 0.5), np.full((T, B), 0.5)):
        found = jrnn.leaky(params, counts, dt=dt, inputs="features")[1]
        assert_close(found, jrnn.leaky(params, counts.astype(float), dt=dt)[1], 1e-15)


class Unchecked(jrnn.Activation):
    def __post_init__(self):
        """Right by construction: 300 checks take seconds."""


def test_the_cells_of_the_package_stay_the_same_beside_many_of_users():
    cells = [elman("tanh"), leaky("tanh", "state", False)]
    for _ in range(300):
        phi = Unchecked(jnp.tanh, lambda h: 1 - h * h)
        elman(phi), leaky(phi, "state", False)
    assert [elman("tanh"), leaky("tanh", "state", False)] == cells
