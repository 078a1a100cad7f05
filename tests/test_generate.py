"""Free running: vectors and ids, against a plain loop and against the sampler."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, assert_close, on_two_devices, parameters
from cover import in_tiers
from jax.sharding import PartitionSpec
from refusals import refused

import jrnn
from jrnn import _generate, sampling

P, B, D, K, H, L = 4, 3, 2, 3, 5, 40
RNG = np.random.default_rng(0)
KEY = jax.random.key(7)


def normal(*shape):
    return RNG.normal(size=shape)


def readout_of(H, O):
    return jrnn.ReadoutParams(normal(H, O) / H**0.5, normal(O))


NETWORKS = {
    "rnn": lambda I: (parameters(jrnn.init_rnn, I, H), H, {"activation": "relu"}),
    "lstm": lambda I: (parameters(jrnn.init_lstm, I, H), H, {}),
    "stack": lambda I: (
        parameters(jrnn.init_stack, I, (H, H), cell="lstm", layer_norm=True),
        H,
        {},
    ),
    "residual": lambda I: (parameters(jrnn.init_stack, I, (I, I)), I, {"residual": True}),
}


def plain_loop(params, readout, prefix, length, draw, known=None, keys=None, **options):
    """The whole sequence is read again for every step; no state is kept."""
    run = jrnn.stack if isinstance(params, jrnn.StackParams) else jrnn.rnn
    run = jrnn.lstm if isinstance(params, jrnn.LSTMParams) else run
    total = len(prefix) + length
    whole = np.zeros((total, *prefix.shape[1:]), prefix.dtype)
    whole[: len(prefix)] = prefix
    width = (*prefix.shape[1:-1], 0 if known is None else K)
    also = np.zeros((total, *width)) if known is None else np.resize(known, (total, *width))
    for n in range(length):
        xs = whole if np.issubdtype(prefix.dtype, np.integer) else np.concatenate([whole, also], -1)
        _, ys = run(params, xs, **options)  # one shape: what comes later changes nothing before
        outputs = jrnn.readout(readout, ys[len(prefix) + n - 1])
        whole[len(prefix) + n] = draw(None if keys is None else keys[n], outputs)
    return whole[len(prefix) :]


def itself(key, outputs):
    return outputs


def gaussian(key, outputs):
    mean, log_std = jnp.split(outputs, 2, -1)
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)


@in_tiers(name=NETWORKS, batch=[(), (B,)])
def test_vectors_are_those_of_a_plain_loop(name, batch):
    params, width, options = NETWORKS[name](D)
    readout, prefix = readout_of(width, D), normal(P, *batch, D)
    _, found = jrnn.generate(params, readout, prefix, 6, **options)
    assert_close(found, plain_loop(params, readout, prefix, 6, itself, **options), LAW_RTOL)


def test_inputs_known_in_advance():
    params, width, _ = NETWORKS["stack"](D + K)
    readout, prefix, known = readout_of(width, D), normal(P, B, D), normal(P + 5, B, K)
    _, found = jrnn.generate(params, readout, prefix, 6, known=known)
    whole = np.concatenate([known, np.zeros((1, B, K))])  # of the last step, which is not read
    expected = plain_loop(params, readout, prefix, 6, itself, whole)
    assert_close(found, expected, LAW_RTOL)
    shared = jrnn.generate(params, readout, prefix, 6, known=known[:, 0])[1]
    tiled = np.broadcast_to(known[:, :1], known.shape)
    assert_close(shared, jrnn.generate(params, readout, prefix, 6, known=tiled)[1], LAW_RTOL)


def test_draws():
    params, width, _ = NETWORKS["lstm"](D)
    readout, prefix = readout_of(width, 2 * D), normal(P, B, D)
    _, found = jrnn.generate(params, readout, prefix, 6, key=KEY, draw=gaussian)
    keys = _generate._keys(KEY, 6)
    assert_close(found, plain_loop(params, readout, prefix, 6, gaussian, keys=keys), LAW_RTOL)
    again = jrnn.generate(params, readout, prefix, 9, key=KEY, draw=gaussian)[1]
    assert_close(again[:6], found, LAW_RTOL)  # a longer run begins in the same way
    other = jrnn.generate(params, readout, prefix, 6, key=jax.random.key(8), draw=gaussian)[1]
    assert not np.allclose(other, found)


@pytest.mark.parametrize("name", ["lstm", "stack", "residual"])
def test_the_states_take_it_further(name):
    params, width, options = NETWORKS[name](D)
    readout, prefix = readout_of(width, D), normal(P, B, D)
    states, first = jrnn.generate(params, readout, prefix, 3, **options)
    last, second = jrnn.generate(params, readout, first[-1:], 3, states, **options)
    whole = jrnn.generate(params, readout, prefix, 6, **options)
    assert_close((last, np.concatenate([first, second])), whole, LAW_RTOL)


@pytest.mark.parametrize("name", [pytest.param("rnn", marks=pytest.mark.thorough), "stack"])
def test_ids_are_those_of_the_sampler(name):
    """Also past a block of the sampler, and for a prompt that is longer than one."""
    params, width, options = NETWORKS[name](6)
    readout, prompt = readout_of(width, 6), np.arange(35) % 6
    rules = {"temperature": 0.7, "top_k": 5, "top_p": 0.9}
    more = rules | options
    blocks = sampling.generate(params, readout, KEY, prompt, L, num_samples=B, **more)
    expected = np.concatenate(list(blocks), 1)
    prefix = np.tile(prompt[:, None], B)
    _, found = jrnn.generate(params, readout, prefix, L, key=KEY, **more)
    assert found.dtype == jnp.int32
    assert np.array_equal(found.T, expected)
    greedy = jrnn.generate(params, readout, prompt, 8, temperature=0, **options)[1]
    likeliest = lambda key, logits: logits.argmax(-1)
    assert np.array_equal(greedy, plain_loop(params, readout, prompt, 8, likeliest, **options))


DRAWN_BY_0_1 = [
    "1054113024144023510522434131103531422112",
    "4224420004124210424111040414314423414310",
]


def test_ids_are_those_that_version_0_1_drew():
    params, readout = parameters(jrnn.init_rnn, 6, 8), parameters(jrnn.init_readout, 8, 6, seed=1)
    prefix, rules = np.tile([[1], [2], [3]], 2), {"temperature": 0.8, "top_k": 5, "top_p": 0.95}
    _, found = jrnn.generate(params, readout, prefix, 40, key=jax.random.key(2), **rules)
    assert ["".join(map(str, row)) for row in found.T.tolist()] == DRAWN_BY_0_1


def test_a_draw_of_ones_own_for_ids():
    params, width, options = NETWORKS["rnn"](6)
    readout = readout_of(width, 6)
    least = lambda key, logits: logits.argmin(-1).astype(jnp.int32)
    found = jrnn.generate(params, readout, np.array([1, 2]), 5, draw=least, **options)[1]
    assert np.array_equal(found, plain_loop(params, readout, np.array([1, 2]), 5, least, **options))


def test_draws_of_any_width_are_cast():
    ids, _, options = NETWORKS["rnn"](6)
    run = partial(jrnn.generate, ids, readout_of(H, 6), np.array([1, 2], np.int32), 5, **options)
    least = run(draw=lambda key, logits: logits.argmin(-1))[1]  # int64, as the next
    drawn = run(draw=lambda key, logits: jax.random.categorical(key, logits), key=KEY)[1]
    assert (least.dtype, drawn.dtype) == (np.int32, np.int32)
    outside = run(draw=lambda key, logits: jnp.full((), 2**32 + 1))[1]
    assert (outside >= 6).all()  # not 1


@pytest.mark.usefixtures("float32")
def test_noise_of_float32_on_half_precision():
    params, readout = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.bfloat16), (parameters(jrnn.init_rnn, D, H), readout_of(H, D))
    )
    noisy = lambda key, outputs: outputs + 0.1 * jax.random.normal(key, outputs.shape)
    prefix = jnp.ones((2, B, D), jnp.bfloat16)
    _, xs = jrnn.generate(params, readout, prefix, 3, key=KEY, draw=noisy)
    assert (xs.dtype, xs.shape) == (jnp.bfloat16, (3, B, D))
    assert len(set(xs[:, 0, 0].tolist())) == 3


def test_a_thousand_steps_compile_once_and_options_compile_nothing():
    params, width, _ = NETWORKS["lstm"](6)
    readout = readout_of(width, 6)
    run = partial(jrnn.generate, params, readout, np.array([1]), 1000)
    size = _generate._generate._cache_size()
    states, ids = run(key=KEY)
    for options in ({"temperature": 0.5}, {"top_k": 2, "top_p": 0.5}, {"temperature": 2}):
        _, ids = run(states, key=jax.random.key(1), **options)
    assert ids.shape == (1000,)
    assert _generate._generate._cache_size() == size + 1


def test_it_is_differentiated_and_mapped():
    params, width, _ = NETWORKS["rnn"](D)
    readout, prefix = readout_of(width, D), normal(P, B, D)

    def by_steps(params):
        h, x, found = jnp.zeros((B, H)), prefix[0], []
        for n in range(P + 4):
            h = jrnn.rnn_cell(params, h, x)
            x = prefix[n + 1] if n + 1 < P else jrnn.readout(readout, h)
            found = [*found, x] if n + 1 >= P else found
        return jnp.stack(found)

    free = lambda params: jrnn.generate(params, readout, prefix, 5)[1]
    cost = lambda f: lambda params: jnp.sum(jnp.sin(f(params)))
    assert_close(jax.grad(cost(free))(params), jax.grad(cost(by_steps))(params))
    mapped = jax.vmap(lambda x: jrnn.generate(params, readout, x, 5)[1], 1, 1)(prefix)
    assert_close(mapped, free(params), LAW_RTOL)


def test_two_devices_are_one():
    params, width, _ = NETWORKS["stack"](D)
    readout, prefix = readout_of(width, D), normal(1, 4, D)
    free = lambda params, prefix: jrnn.generate(params, readout, prefix, 5)[1]
    batch = PartitionSpec(None, "data")
    split = on_two_devices(free, (PartitionSpec(), batch), batch)
    assert_close(jax.jit(split)(params, prefix), free(params, prefix), LAW_RTOL)


@pytest.mark.parametrize("own", ["key", "temperature"])
def test_each_device_may_have_its_own(own):
    params, readout = parameters(jrnn.init_rnn, 6, H), readout_of(H, 6)
    values = jax.random.split(KEY) if own == "key" else np.array([1.0, 3.0])

    def run(value):  # the rest is the same for all devices
        options = {"key": KEY, "temperature": 1.0} | {own: value[0]}
        return jrnn.generate(params, readout, np.array([1]), 20, **options)[1][None]

    axes = PartitionSpec("data")
    split = on_two_devices(run, axes, axes)
    wanted = np.concatenate([run(values[:1]), run(values[1:])])
    assert not np.array_equal(*wanted)
    np.testing.assert_array_equal(jax.jit(split)(values), wanted)


VECTORS, IDS = parameters(jrnn.init_rnn, D + K, H), parameters(jrnn.init_rnn, 6, H)
BOTH = parameters(jrnn.init_stack, D, (H,), bidirectional=True)
OUT, LOGITS = readout_of(H, D), readout_of(H, 6)
PREFIX, KNOWN = normal(P, B, D), normal(P + 5, B, K)
free = partial(jrnn.generate, VECTORS, OUT)
ids = partial(jrnn.generate, IDS, LOGITS)
REFUSED = {
    "an empty prefix": (
        lambda: free(PREFIX[:0], 6, known=KNOWN),
        "prefix: expected at least one step: vectors [P, D] or [P, B, D], or integer ids [P] or "
        "[P, B]; got float64[0, 3, 2].",
    ),
    "a prefix longer than the series": (
        lambda: free(PREFIX, 6, known=KNOWN[:3]),
        "prefix: expected at most the L = 3 steps of known; got P = 4 steps. Both begin at",
    ),
    "known inputs that end too early": (
        lambda: free(PREFIX, 7, known=KNOWN),
        "known: expected at least P + length - 1 = 10 steps, for each that is read; got L = 9. "
        "They end too early: take a length of 6.",
    ),
    "no known inputs": (
        lambda: free(PREFIX, 6),
        "prefix: expected vectors of size D = 5; got float64[4, 3, 2]. The network reads vectors "
        "of size I = 5.",
    ),
    "known inputs of another batch": (
        lambda: free(PREFIX, 6, known=KNOWN[:, :2]),
        "known: expected [L, K] or [L, B, K] with B = 3; got float64[9, 2, 3].",
    ),
    "known inputs of another dtype": (
        lambda: free(PREFIX, 6, known=KNOWN.astype(np.float32)),
        "known: expected the dtype of prefix, float64; got float32.",
    ),
    "known inputs of ids": (
        lambda: ids(np.array([1]), 6, known=KNOWN),
        "known: expected None for token ids; got float64[9, 3, 3].",
    ),
    "outputs of another size": (
        lambda: jrnn.generate(VECTORS, LOGITS, PREFIX, 6, known=KNOWN),
        "w_ho: expected next inputs float64[3, 2]; got float64[3, 6]. Each output is the next",
    ),
    "draws of another size": (
        lambda: jrnn.generate(VECTORS, LOGITS, PREFIX, 6, known=KNOWN, draw=itself),
        "draw: expected next inputs float64[3, 2]; got float64[3, 6].",
    ),
    "draws of another kind": (
        lambda: free(PREFIX, 6, known=KNOWN, draw=lambda key, outputs: outputs > 0),
        "draw: expected next inputs float64[3, 2]; got bool[3, 2].",
    ),
    "an id outside": (
        lambda: ids(np.array([1, 6]), 6, key=KEY),
        "prefix: expected ids from 0 to 5 (I = 6 rows of w_ih); got 6 at [1]",
    ),
    "a logit too few": (
        lambda: jrnn.generate(IDS, OUT, np.array([1]), 6, key=KEY),
        "readout_params: expected w_ho [H, O] = [5, 6], a logit for every input id; got [5, 2].",
    ),
    "random tokens without a key": (
        lambda: ids(np.array([1]), 6),
        "key: expected a JAX random key for random tokens; got None. temperature=0 takes the",
    ),
    "a seed as the key": (
        lambda: ids(np.array([1]), 6, key=0),
        "key: expected one random key of JAX; got 0. jax.random.key(0) makes one.",
    ),
    "a batch of keys": (
        lambda: ids(np.array([1]), 6, key=jax.random.split(KEY, 3)),
        "key: expected one random key of JAX; got key<fry>[3].",
    ),
    "a temperature of vectors": (
        lambda: free(PREFIX, 6, known=KNOWN, temperature=0.5),
        "temperature: expected its default, 1.0; got 0.5. It is for token ids; a draw of your own",
    ),
    "temperatures of vectors": (
        lambda: free(PREFIX, 6, known=KNOWN, temperature=np.ones(2)),
        "temperature: expected its default, 1.0; got an array [2]. It is for token ids;",
    ),
    "a length of 0": (
        lambda: free(PREFIX, 0, known=KNOWN),
        "length: expected a positive integer; got 0.",
    ),
    "states of another size": (
        lambda: free(PREFIX, 6, np.zeros(2), known=KNOWN),
        "states: expected [H] = [5] or [B, H] = [3, 5]; got float64[2].",
    ),
    "a stack that reads both ways": (
        lambda: jrnn.generate(BOTH, OUT, PREFIX, 6),
        "layers[0].backward: expected None; got a network that reads backwards. "
        "Read backwards, its first output would "
        "need all inputs.",
    ),
    "a readout of another network": (
        lambda: jrnn.generate(VECTORS, readout_of(H + 1, D), PREFIX, 6, known=KNOWN),
        "w_ho: expected shape [H, O] = [5, any]; got float64[6, 2].",
    ),
}
test_refused = refused(REFUSED)
