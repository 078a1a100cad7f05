"""One step of a stack against the call over the sequence."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, assert_close, parameters, sines
from cells_of_users import GATED, GatedParams
from refusals import refused

import jrnn
from jrnn import _stack_step
from jrnn.cells.leaky import leaky

T, B, I, H = 6, 3, 4, 5
RNG = np.random.default_rng(0)
LEAK = leaky("sigmoid", "state", learned=False)
RATE = leaky("relu", "input", learned=False)


def normal(*shape):
    return RNG.normal(size=shape)


def layer(forward, norm=False):
    scales = jrnn.LayerNormParams(normal(H), normal(H)) if norm else None
    return jrnn.LayerParams(forward, None, scales)


ELMAN = parameters(jrnn.init_rnn, H, H)
STACKS = {
    "every kind": (
        jrnn.StackParams(
            (
                layer(parameters(jrnn.init_lstm, I, H), norm=True),
                layer(parameters(jrnn.init_gru, H, H)),
                layer(jrnn.LeakyParams(*ELMAN, np.full(H, 0.3), None), norm=True),
                layer(jrnn.LeakyParams(*ELMAN, np.full(H, 0.2), None)),
                layer(GatedParams(normal(H, 2 * H), normal(H, 2 * H), normal(2 * H), normal(H))),
            )
        ),
        {"cell": (None, None, LEAK, RATE, GATED)},
    ),
    "residual": (
        parameters(jrnn.init_stack, I, (I, I), layer_norm=True),
        {"residual": True},
    ),
}


def step_by_step(params, states, xs, **options):
    ys = []
    for x_t in xs:
        states, y_t = jrnn.stack_step(params, states, x_t, **options)
        ys.append(y_t)
    return states, np.stack(ys)


@pytest.mark.parametrize("batch", [(), (B,)], ids=["one", "batch"])
@pytest.mark.parametrize("name", STACKS)
def test_steps_are_the_call_over_the_sequence(name, batch):
    params, options = STACKS[name]
    xs = normal(T, *batch, I)
    found = step_by_step(params, None, xs, **options)
    assert_close(found, jrnn.stack(params, xs, **options), LAW_RTOL)
    states, more = found[0], normal(2, *batch, I)  # states of `stack` go in, and out again
    again = step_by_step(params, states, more, **options)
    assert_close(again, jrnn.stack(params, more, states, **options), LAW_RTOL)


ALONE = {  # a network that is no stack: its sequence, and options
    "lstm": (jrnn.lstm, parameters(jrnn.init_lstm, I, H), {}),
    "relu": (
        partial(jrnn.rnn, activation="relu"),
        parameters(jrnn.init_rnn, I, H),
        {"activation": "relu"},
    ),
    "a cell of one's own": (
        partial(jrnn.unroll, GATED),
        GatedParams(normal(I, 2 * H), normal(H, 2 * H), normal(2 * H), normal(H)),
        {"cell": GATED},
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_steps_of_one_network_are_its_call_over_the_sequence(name):
    run, params, options = ALONE[name]
    xs, more = normal(T, B, I), normal(2, B, I)
    found = step_by_step(params, None, xs, **options)
    assert_close(found, run(params, xs), LAW_RTOL)
    assert type(found[0]) is type(run(params, xs)[0])
    assert_close(
        step_by_step(params, found[0], more, **options), run(params, more, found[0]), LAW_RTOL
    )


def test_states_that_are_left_out_or_shared():
    params = jrnn.StackParams(STACKS["every kind"][0].layers[:2])
    states, x_t = (jrnn.LSTMState(normal(H), None), None), normal(B, I)
    full = (jrnn.LSTMState(np.tile(states[0].h, (B, 1)), np.zeros((B, H))), np.zeros((B, H)))
    found = jrnn.stack_step(params, states, x_t)
    assert_close(found, jrnn.stack_step(params, full, x_t), 0.0)


def test_ids():
    params = parameters(jrnn.init_stack, 7, (H, H))
    ids = RNG.integers(0, 7, (T, B))
    assert_close(step_by_step(params, None, ids), jrnn.stack(params, ids), LAW_RTOL)


def test_a_thousand_steps_compile_once():
    params = parameters(jrnn.init_stack, I, (H, 2), cell="lstm")
    states, x_t = None, jnp.asarray(normal(B, I))
    before = _stack_step._stack_step._cache_size()
    for _ in range(1000):
        states, _ = jrnn.stack_step(params, states, x_t)
    assert _stack_step._stack_step._cache_size() == before + 1


def test_the_gradient_of_steps_is_that_of_the_sequence():
    params, options = STACKS["residual"]
    xs = normal(T, I)

    def cost(run, params, xs):
        return sines(run(params, xs))

    def scanned(params, xs):
        zeros = tuple(jnp.zeros(I) for _ in params.layers)
        return jax.lax.scan(partial(jrnn.stack_step, params, **options), zeros, xs)

    whole = partial(jrnn.stack, **options)
    found, expected = (jax.grad(partial(cost, run), (0, 1))(params, xs) for run in (scanned, whole))
    assert_close(found, expected)


TWO = parameters(jrnn.init_stack, I, (H,), bidirectional=True)
ONE = parameters(jrnn.init_stack, I, (H,))
TIMED = leaky("tanh", "state", learned=False, unequal=True)
LEAKY = jrnn.StackParams((*ONE.layers, layer(jrnn.LeakyParams(*ELMAN, np.ones(H), None))))
REFUSED = {
    "a layer that reads both ways": (
        lambda: jrnn.stack_step(TWO, None, np.zeros(I)),
        "layers[0].backward: expected None; got a network that reads backwards. "
        "Read backwards, a step needs all inputs "
        "after it: see jrnn.stack.",
    ),
    "a cell that reads data": (
        lambda: jrnn.stack_step(LEAKY, None, np.zeros(I), cell=(None, TIMED)),
        "layers[1].forward: expected a cell that reads no data; got leaky, which reads dt.",
    ),
    "and in a sequence": (
        lambda: jrnn.stack(LEAKY, np.zeros((T, I)), cell=(None, TIMED)),
        "layers[1].forward: expected a cell that reads no data; got leaky, which reads dt.",
    ),
    "a sequence": (
        lambda: jrnn.stack_step(ONE, None, np.zeros((T, B, I))),
        "x_t: expected vectors [I] or [B, I]; got float64[6, 3, 4].",
    ),
    "states of another number": (
        lambda: jrnn.stack_step(ONE, (None, None), np.zeros(I)),
        "states: expected None or a tuple of 1 states, one for each layer; got 2 of them.",
    ),
    "the state of another network": (
        lambda: jrnn.stack_step(ALONE["lstm"][1], np.zeros(H), np.zeros(I)),
        "states: expected LSTMState(h, c) or None; got float64[5].",
    ),
    "the state of one network as that of layers": (
        lambda: jrnn.stack_step(ALONE["relu"][1], (np.zeros(H),), np.zeros(I)),
        "states: expected a JAX or NumPy array; got tuple. Pass one of its parts",
    ),
    "states of another size": (
        lambda: jrnn.stack_step(ONE, (np.zeros(2),), np.zeros(I)),
        "states[0]: expected [H] = [5]; got float64[2]. One sequence has one state.",
    ),
}
test_refused = refused(REFUSED)


def test_zero_state_is_what_none_stands_for():
    lstm = parameters(jrnn.init_stack, I, (H, H), cell="lstm", bidirectional=True)
    elman = parameters(jrnn.init_stack, I, (H,), bidirectional=True)
    for params, options in (*STACKS.values(), (lstm, {}), (elman, {})):
        of_cells = {"cell": options.get("cell")}
        for batch, B_or_none in (((), None), ((B,), B)):
            xs, zeros = normal(T, *batch, I), jrnn.zero_state(params, B_or_none, **of_cells)
            h_last, hs = jrnn.stack(params, xs, zeros, **options)
            assert_types_equal(zeros, h_last)
            np.testing.assert_array_equal(hs, jrnn.stack(params, xs, **options)[1])
    alone = lstm.layers[0].forward
    assert_types_equal(jrnn.zero_state(alone, B), jrnn.lstm(alone, normal(T, B, I))[0])
    with pytest.raises(ValueError, match="batch_size: expected"):
        jrnn.zero_state(alone, 0)


@pytest.mark.parametrize("learned", [False, True])
def test_zero_state_of_leaky_networks_needs_no_cell(learned):
    """Both kinds of leak have one state [B, H]."""
    leaking = parameters(jrnn.init_leaky, I, H, alpha=0.2, learned=learned)
    mixed = jrnn.StackParams((layer(leaking), layer(parameters(jrnn.init_gru, H, H))))
    for params in (leaking, mixed):
        cell = leaky("tanh", "input", learned=learned)
        cells = cell if params is leaking else (cell, None)
        assert_types_equal(jrnn.zero_state(params, B), jrnn.zero_state(params, B, cell=cells))


def test_new_states_and_parameters_can_be_donated():
    lstm = parameters(jrnn.init_stack, I, (H, H), cell="lstm", bidirectional=True)
    given = jnp.full(H, 0.5)
    drawn = jrnn.init_cell(GATED, jax.random.key(0), I, H, tau=given)
    for new in (jrnn.zero_state(lstm, B), drawn):
        jax.jit(lambda x: jax.tree.map(jnp.sin, x), donate_argnums=0)(new)
    assert not given.is_deleted()


def test_parameters_of_numpy_without_64_bits(float32):
    params = jrnn.StackParams((layer(ELMAN), layer(parameters(jrnn.init_lstm, H, H))))
    leaking = jrnn.LeakyParams(*ELMAN, np.full(H, 0.3), None)
    found = (
        jrnn.zero_state(params, B),
        jrnn.stack_step(params, None, normal(B, H)),
        jrnn.leaky(leaking, normal(T, H), dt=np.ones(T)),
    )
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("float32")}


def assert_types_equal(a, b):
    assert jax.tree.map(jax.typeof, a) == jax.tree.map(jax.typeof, b)
