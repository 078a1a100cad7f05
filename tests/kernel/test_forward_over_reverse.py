"""Forward mode over the gradient, as in `jax.hessian`, with every option of every function.

The tangent of the gradient is compared with the difference of the gradient at two points beside,
by one compiled program.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import B, H, I, T, assert_close, make_case, parameters
from test_lengths import LENGTHS, make_data

import jrnn
from jrnn.loss import blockwise

STEP = 1e-5  # of the difference, whose error is some 1e-10 of the second derivative


def hessian_vector(f, at):
    """J -> (its gradient, the tangent of the gradient along a direction), and that direction."""
    rng = np.random.default_rng(7)
    along = jax.tree.map(lambda x: rng.normal(size=np.shape(x)), at)
    both = jax.jit(lambda at: jax.jvp(jax.grad(f), (at,), (along,)))
    return both, along


def assert_tangent_of_gradient(f, at):
    both, along = hessian_vector(f, at)
    before, after = (
        both(jax.tree.map(lambda x, v: x + sign * STEP * v, at, along))[0] for sign in (-1, 1)
    )
    expected = jax.tree.map(lambda a, b: (b - a) / (2 * STEP), before, after)
    assert_close(both(at)[1], expected, rtol=1e-6)


def squares(tree):
    return sum(jnp.sum(jnp.sin(x) ** 2) for x in jax.tree.leaves(tree))


def everything(batch, ids=False):
    """Arguments of `rnn` to be differentiated, and the others."""
    case = make_case(batch=batch, ids=ids)
    data = make_data(batch=batch, mask=True)
    at = {"params": case.params, "h0": case.h0}
    at |= {name: data.pop(name) for name in ("reset_state", "recurrent_mask")}
    if ids:
        data["xs"] = case.xs
    else:
        at["xs"] = case.xs
    return at, data


@pytest.mark.parametrize(
    ("batch", "ids", "options"),
    [
        pytest.param(True, False, {"reverse": True}, marks=pytest.mark.thorough),
        pytest.param(
            False, False, {"reverse": True, "clip_delta": 1.0}, marks=pytest.mark.thorough
        ),
        (True, False, {"reverse": True, "remat": True}),
        pytest.param(False, True, {"reverse": True, "remat": True}, marks=pytest.mark.thorough),
        (True, True, {"clip_delta": 1.0}),
        pytest.param(False, False, {"remat": True}, marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_rnn_with_lengths_resets_and_a_mask(batch, ids, options):
    at, data = everything(batch, ids)
    assert_tangent_of_gradient(lambda at: squares(jrnn.rnn(**at, **data, **options)), at)


def test_vmap_of_sequences_in_reverse():
    case = make_case()

    def cost(params, x, length):
        return squares(jrnn.rnn(params, x, None, length, reverse=True))

    def total(at):
        return jax.vmap(cost, (None, 1, 0))(at["params"], at["xs"], LENGTHS).sum()

    assert_tangent_of_gradient(total, {"params": case.params, "xs": case.xs})


def test_rounded_operands():
    """The difference would be that of the rounding: beside the same without it."""
    at, data = everything(batch=True)

    def tangent(compute_dtype):
        def cost(at):
            outputs = jrnn.rnn(**at, **data, reverse=True, compute_dtype=compute_dtype)
            return squares(jax.tree.map(lambda x: x.astype(jnp.float64), outputs))

        return hessian_vector(cost, at)[0](at)[1]

    assert_close(tangent(jnp.float32), tangent(None), rtol=1e-4)


@pytest.mark.thorough
def test_a_stack_in_both_directions():
    params = parameters(jrnn.init_stack, I, (I, I), bidirectional=True, layer_norm=True)
    case, data = make_case(), make_data()
    given = (None, LENGTHS, data["resets"])

    def cost(at):
        key = jax.random.key(1)
        return squares(jrnn.stack(*at, *given, key=key, dropout=0.3, remat=True))

    assert_tangent_of_gradient(cost, (params, case.xs))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blockwise, "POSITIONS", 4)
    monkeypatch.setattr(blockwise, "LOGITS", 1)
    monkeypatch.setattr(blockwise, "CLASSES", 3)


def readout_and_labels(lead, O=13):
    """Of as many classes as no other test has, whose programs are in blocks of another size."""
    rng = np.random.default_rng(3)
    readout = jrnn.ReadoutParams(rng.normal(size=(H, O)), rng.normal(size=O))
    return readout, rng.integers(0, O, lead), rng.random(lead)


@pytest.mark.thorough
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("lead", [(T, B), (T,)], ids=["by positions", "by classes"])
def test_the_loss_by_blocks(lead):
    readout, labels, weights = readout_and_labels(lead)
    at = (readout, np.random.default_rng(4).normal(size=(*lead, H)), weights)

    def cost(at):
        readout, hs, weights = at
        return jnp.sin(jrnn.readout_cross_entropy(readout, hs, labels, weights))

    assert_tangent_of_gradient(cost, at)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("remat", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_the_whole_objective(remat):
    case, data = make_case(), make_data()
    readout, labels, weights = readout_and_labels((T, B))

    def cost(at):
        params, readout, h0, h_r, weights = at
        given = (case.xs, labels, h0, LENGTHS, data["resets"], h_r)
        return jrnn.rnn_cross_entropy(params, readout, *given, weights=weights, remat=remat)[0]

    assert_tangent_of_gradient(cost, (case.params, readout, case.h0, data["reset_state"], weights))


def test_no_order_of_differentiation_scatters_in_reverse():
    case = make_case()

    def cost(params, xs, lengths):
        return squares(jrnn.rnn(params, xs, None, lengths, reverse=True))

    first = jax.grad(cost, (0, 1))
    second = jax.grad(lambda *at: squares(first(*at)), (0, 1))
    over = lambda params, *rest: jax.jvp(lambda p: first(p, *rest), (params,), (params,))
    for f in (first, second, over):
        program = jax.jit(f).lower(case.params, case.xs, LENGTHS).as_text()
        assert "stablehlo.gather" in program
        assert "scatter" not in program
