"""Layers of every kind in one stack, against the same networks called one after the other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, assert_close, parameters
from cells_of_users import GATED, GatedParams
from refusals import refused

import jrnn
from jrnn.cells.leaky import leaky

T, B, I, H = 6, 3, 4, 5
RNG = np.random.default_rng(0)
LEAK = leaky("relu", "state", learned=True)
RATE = leaky("tanh", "input", learned=True)


def normal(*shape):
    return RNG.normal(size=shape)


def leaky_params(I):
    return jrnn.LeakyParams(*parameters(jrnn.init_rnn, I, H), None, normal(H))


LAYERS = (
    jrnn.LayerParams(
        parameters(jrnn.init_lstm, I, H),
        parameters(jrnn.init_lstm, I, H, seed=1),
        jrnn.LayerNormParams(normal(2 * H), normal(2 * H)),
    ),
    jrnn.LayerParams(
        parameters(jrnn.init_gru, 2 * H, H), parameters(jrnn.init_gru, 2 * H, H, seed=1), None
    ),
    jrnn.LayerParams(leaky_params(2 * H), None, None),
    jrnn.LayerParams(leaky_params(H), None, None),
    jrnn.LayerParams(parameters(jrnn.init_rnn, H, H), None, None),
    jrnn.LayerParams(
        GatedParams(normal(H, 2 * H), normal(H, 2 * H), normal(2 * H), normal(H)), None, None
    ),
)
STACK = jrnn.StackParams(LAYERS)
XS, LENGTHS, RESETS = normal(T, B, I), np.array([T, 0, 4]), RNG.random((T, B)) < 0.3
STATES = (
    (jrnn.LSTMState(normal(H), None), jrnn.LSTMState(normal(B, H), normal(H))),
    normal(B, 2 * H),
    normal(H),
    None,
    normal(B, H),
    normal(B, H),
)
MASKS = (normal(2 * H), None, normal(B, H), None, normal(H), None)
OPTIONS = {
    "activation": (None, None, None, None, "sigmoid", None),
    "cell": (None, None, LEAK, RATE, None, GATED),
    "clip_delta": (0.1, None, 0.2, None, None, 0.3),
    "remat": (True, False, False, True, False, False),
}


def both(run, params, xs, states, again, m, **options):
    """Two directions of networks whose states are one array."""
    found = []
    for i, p in enumerate(params):
        h0, h_r = (None if h is None else h[..., i * H : (i + 1) * H] for h in (states, again))
        ends = (h0, LENGTHS, RESETS, h_r, m)
        found.append(run(p, xs, *ends, reverse=i == 1, **options))
    (last, hs), (last_back, hs_back) = found
    return jnp.concatenate([last, last_back], -1), jnp.concatenate([hs, hs_back], -1)


def by_hand(params, xs, states, again):
    one, two, three, four, five, six = params.layers
    marks = LENGTHS, RESETS
    lasts, ys = [], []
    for i, p in enumerate((one.forward, one.backward)):
        m = MASKS[0][i * H : (i + 1) * H]
        given = (states[0][i], *marks, again[0][i], m)
        last, hs = jrnn.lstm(p, xs, *given, reverse=i == 1, clip_delta=0.1)
        lasts, ys = [*lasts, last], [*ys, hs]
    u = jnp.concatenate(ys, -1)
    centred = u - u.mean(-1, keepdims=True)
    n = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    xs = one.norm.scale[None, None] * n + one.norm.offset[None, None]
    xs = jnp.where(jrnn.sequence_mask(LENGTHS, T)[..., None], xs, 0)
    last_2, xs = both(jrnn.gru, two[:2], xs, states[1], again[1], None)
    ends = (states[2], *marks, again[2], MASKS[2])
    last_3, xs = jrnn.leaky(three.forward, xs, *ends, activation="relu", clip_delta=0.2)
    last_4, xs = jrnn.leaky(four.forward, xs, states[3], *marks, again[3], leak="input")
    ends = (states[4], *marks, again[4], MASKS[4])
    last_5, xs = jrnn.rnn(five.forward, xs, *ends, activation="sigmoid")
    ends = (states[5], *marks, again[5])
    last_6, xs = jrnn.unroll(GATED, six.forward, xs, *ends, clip_delta=0.3)
    return (tuple(lasts), last_2, last_3, last_4, last_5, last_6), xs


def by_stack(params, xs, states, again):
    given = (states, LENGTHS, RESETS, again, None, None, MASKS)
    return jrnn.stack(params, xs, *given, **OPTIONS)


def value_and_cotangents(run):
    again = jax.tree.map(lambda s: 0.5 * s, STATES)
    outputs, vjp = jax.vjp(run, STACK, XS, STATES, again)
    return outputs, vjp(jax.tree.map(lambda y: jnp.sin(3 * y), outputs))


def test_layers_of_every_kind_with_options_of_their_own():
    found, right = jax.jit(lambda: [value_and_cotangents(run) for run in (by_stack, by_hand)])()
    assert_close(found, right, 1e-11)


def test_one_direction_read_in_reverse():
    layers = jrnn.StackParams((jrnn.LayerParams(leaky_params(I), None, None), *LAYERS[3:5]))
    cells, options = (LEAK, RATE, None), {"lengths": LENGTHS, "reverse": True}
    lasts, hs = jrnn.stack(layers, XS, cell=cells, **options)
    runs = partial(jrnn.leaky, activation="relu"), partial(jrnn.leaky, leak="input"), jrnn.rnn
    xs = XS
    for run, layer, last in zip(runs, layers.layers, lasts, strict=True):
        right, xs = run(layer.forward, xs, **options)
        assert_close(last, right, LAW_RTOL)
    assert_close(hs, xs, LAW_RTOL)


@pytest.mark.parametrize(
    "cell",
    ["lstm", pytest.param("gru", marks=pytest.mark.thorough), GATED],
    ids=["lstm", "gru", "own"],
)
def test_initial_stacks_of_one_kind(cell):
    key, options = jax.random.key(0), {"bidirectional": True, "layer_norm": True}
    if cell == "lstm":
        options["forget_bias"] = 2.0
    elif cell is GATED:
        options["tau"] = 0.5
    params = jrnn.init_stack(key, I, (H, 7), cell=cell, **options)
    own = GATED if cell is GATED else None
    ((_, last)), hs = jrnn.stack(params, XS, cell=own)
    assert hs.shape == (T, B, 14)
    assert jax.tree.leaves(last)[0].shape[-1] == (7 if cell == "lstm" else 14)
    shapes = jax.eval_shape(lambda: jrnn.init_stack(key, I, (H, 7), cell=cell, **options))
    assert jax.tree.structure(params) == jax.tree.structure(shapes)
    if cell == "lstm":
        assert np.array_equal(params.layers[1].backward.b_h[7:14], [2.0] * 7)


BOTH_WAYS, ONE_WAY = (
    jrnn.init_stack(jax.random.key(0), I, (H, H), cell="lstm", bidirectional=both)
    for both in (True, False)
)
GRUS = jrnn.init_stack(jax.random.key(0), I, (H,), cell="gru", bidirectional=True)
REFUSED = {
    "a pair that is no pair": (
        lambda: jrnn.stack(STACK, XS, (STATES[0][0], *STATES[1:]), cell=OPTIONS["cell"]),
        "h0[0]: expected a pair of states, forwards and backwards; got LSTMState.",
    ),
    "an array for an LSTM": (
        lambda: jrnn.stack(STACK, XS, (STATES[1], *STATES[1:]), cell=OPTIONS["cell"]),
        "h0[0]: expected a pair of states, forwards and backwards; got float64[",
    ),
    "torch's states": (
        lambda: jrnn.stack(BOTH_WAYS, XS, (np.zeros((4, B, H)), np.zeros((4, B, H)))),
        "h0: expected None or a tuple of 2 states, one for each layer; got (h_n, c_n) of all "
        "layers, as torch has them. With s = list(map(jrnn.LSTMState, *h0)), "
        "tuple(zip(s[::2], s[1::2])) is one.",
    ),
    "torch's states of one direction": (
        lambda: jrnn.stack(ONE_WAY, XS, (np.zeros((2, B, H)), np.zeros((2, B, H)))),
        "tuple(map(jrnn.LSTMState, *h0)) is one.",
    ),
    "a pair of states for a GRU": (
        lambda: jrnn.stack(GRUS, XS, ((np.zeros((B, H)), np.zeros((B, H))),)),
        "h0[0]: expected one array with the states forwards and backwards side by side; got tuple. "
        "jnp.concatenate(h0[0], -1) is one; None is for zeros.",
    ),
    "an LSTMState for a GRU": (
        lambda: jrnn.stack(STACK, XS, (None, STATES[0][0], *[None] * 4), cell=OPTIONS["cell"]),
        "h0[1]: expected a JAX or NumPy array; got LSTMState.",
    ),
    "options of another number": (
        lambda: jrnn.stack(STACK, XS, cell=OPTIONS["cell"], remat=(True, False)),
        "remat: expected one value, or a tuple of 6, one for each layer; got 2 of them. "
        "Give them from the inputs up.",
    ),
    "two directions in reverse": (
        lambda: jrnn.stack(STACK, XS, cell=OPTIONS["cell"], reverse=True),
        "reverse: expected False for layers of two directions; got True.",
    ),
    "two kinds in one layer": (
        lambda: jrnn.stack(
            jrnn.StackParams((jrnn.LayerParams(LAYERS[0].forward, LAYERS[1].backward, None),)), XS
        ),
        "layers[0].backward.params: expected LSTMParams(w_ih, w_hh, b_h); got GRUParams.",
    ),
    "an activation for an LSTM": (
        lambda: jrnn.stack(STACK, XS, activation="relu", cell=OPTIONS["cell"]),
        "layers[0].forward.activation: expected None, since the cell lstm has its own; got relu.",
    ),
}
test_refused = refused(REFUSED)
