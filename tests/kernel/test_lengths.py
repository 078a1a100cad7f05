"""Sequences of different lengths, in segments, read both ways: each as if it were run alone."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import (
    LAW_RTOL,
    B,
    H,
    I,
    O,
    T,
    assert_close,
    make_case,
    on_two_devices,
    parameters,
    together,
)
from cover import in_tiers, pairwise

import jrnn
from jrnn import native

DATA = ("xs", "h0", "lengths", "resets", "reset_state", "recurrent_mask")
LENGTHS = np.array([T, 0, 4])
ONE = np.array([1, T, 3])


def make_data(*, seed=1, batch=True, states="[B, H]", mask=False):
    """Resets in one of three steps, the first among them; a reset state and a mask."""
    rng = np.random.default_rng(seed)
    lead = (T, B) if batch else (T,)
    shape = {"[B, H]": (*lead[1:], H), "[H]": (H,)}.get(states)
    resets = rng.random(lead) < 1 / 3
    resets[0] = rng.random(lead[1:]) < 1 / 2
    reset_state = None if shape is None else rng.normal(size=shape)
    dropped = rng.random((*lead[1:], H)) < 0.7
    return {
        "lengths": LENGTHS if batch else 5,
        "resets": resets,
        "reset_state": reset_state,
        "recurrent_mask": dropped / 0.7 if mask else None,
    }


def outputs_and_cotangents(case, data, f=jrnn.rnn, **options):
    """Of a function like `rnn`; the cotangents by the names of the oracle."""
    floats = {**case.params._asdict(), "h0": case.h0}
    floats |= {} if np.issubdtype(case.xs.dtype, np.integer) else {"xs": case.xs}
    floats |= {name: data.get(name) for name in ("reset_state", "recurrent_mask")}
    floats = {name: x for name, x in floats.items() if x is not None}

    def call(floats):
        params = jrnn.RNNParams(floats["w_ih"], floats["w_hh"], floats.get("b_h"))
        given = {**data, "xs": case.xs, **floats}
        return f(params, *(given.get(name) for name in DATA), **options)

    outputs, vjp = jax.vjp(call, floats)
    (cotangents,) = vjp((jnp.asarray(case.dh_last), jnp.asarray(case.dhs)))
    return outputs, cotangents


def in_one_program(case, data, f=jrnn.rnn, **options):
    """The same compiled as one, so that nothing of the data is known."""
    run = jax.jit(partial(outputs_and_cotangents, f=f, **options))
    return jax.device_get(run(case, data))


def by_the_oracle(case, data, activation="tanh", reverse=False, clip_delta=np.inf):
    arguments = (case.params, case.xs, case.h0, activation, case.dh_last, case.dhs)
    return oracle.rnn(*arguments, **data, reverse=reverse, clip=clip_delta)


def assert_exact(case, data, f=jrnn.rnn, remat=None, run=in_one_program, **options):
    more = {} if remat is None else {"remat": remat}
    found = run(case, data, f, **options, **more)
    assert_close(found, by_the_oracle(case, data, **options))


# --- against the oracle --------------------------------------------------------------------------

# The whole call; `test_cells` has every pair of its options, on every path of the kernel.
LEARNED = pairwise(
    {"states": ["None", "[H]", "[B, H]"], "ids": [False, True], "reverse": [False, True]}
)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("batch", [True, False], ids=["batch", "one"])
def test_every_gradient_of_an_eager_call(batch, reverse):
    case, data = make_case(batch=batch), make_data(batch=batch, mask=True)
    assert_exact(case, data, run=outputs_and_cotangents, reverse=reverse)


@pytest.mark.parametrize("form", LEARNED, ids=lambda form: " ".join(map(str, form.values())))
def test_learned_states_of_every_form(form):
    states, ids, reverse = form.values()
    case = make_case(h0=states, ids=ids, bias=not ids)
    assert_exact(case, make_data(states=states), reverse=reverse)


@in_tiers(pairwise, batch=[True, False], reverse=[False, True], remat=[False, True])
def test_clipped_deltas_and_recomputed_states(batch, reverse, remat):
    """The clip is at 0.3 of cotangents of order 1: most of the deltas."""
    data = make_data(batch=batch, mask=True)
    options = {"reverse": reverse, "remat": remat, "clip_delta": 0.3, "activation": "sigmoid"}
    assert_exact(make_case(batch=batch), data, **options)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("sizes", [{"T": 1}, {"B": 1}, {"H": 1}], ids=str)
def test_sizes_of_one(sizes, reverse):
    case = make_case(**sizes)
    t, b = case.xs.shape[:2]
    resets = np.random.default_rng(3).random((t, b)) < 0.5
    data = {"lengths": np.minimum(ONE, t)[:b], "resets": resets}
    data["reset_state"] = np.random.default_rng(4).normal(size=case.dh_last.shape)
    assert_exact(case, data, reverse=reverse)


def test_one_length_and_one_row_of_resets_are_shared():
    case, data = make_case(), make_data(states="[H]")
    data |= {"lengths": 5, "resets": data["resets"][:, 2]}
    assert_exact(case, data)
    assert_exact(case, data, reverse=True)


# --- what is outside -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reverse", "batch", "remat"),  # every pair of settings; above is the full product
    [(False, False, False), (False, True, True), (True, False, True), (True, True, False)],
)
def test_nothing_in_the_padding_changes_a_bit(reverse, batch, remat):
    case, data = make_case(batch=batch), make_data(batch=batch)
    outside = ~np.asarray(jrnn.sequence_mask(data["lengths"], T))
    assert outside.sum() > 1
    run = partial(outputs_and_cotangents, reverse=reverse, remat=remat)
    clean = run(case, data)
    for junk in (np.nan, np.inf, -np.inf):
        xs, dhs, resets = case.xs.copy(), case.dhs.copy(), data["resets"].copy()
        xs[outside], dhs[outside], resets[outside] = junk, junk, ~resets[outside]
        found = run(case._replace(xs=xs, dhs=dhs), data | {"resets": resets})
        jax.tree.map(np.testing.assert_array_equal, found, clean)
    (_, hs), cotangents = jax.tree.map(np.asarray, clean)
    assert not hs[outside].any()
    assert not cotangents["xs"][outside].any()


@pytest.mark.parametrize("is_native", [False, True])
@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("rnn", {}),
        ("lstm", {"remat": True}),
        ("lstm", {"reverse": True}),
        ("gru", {}),
        ("lstm_scan", {}),
        ("rnn_scan", {"reverse": True}),
    ],
)
def test_a_state_that_no_step_reads_may_be_nan(network, options, is_native):
    """That before a sequence without a step, and that of a reset in the padding."""
    init = getattr(jrnn, f"init_{network.removesuffix('_scan')}")
    params = init(jax.random.key(0), I, H, dtype=float)
    run = getattr(jrnn.derivation if network.endswith("_scan") else jrnn, network)
    xs, padding = make_case().xs, ~np.asarray(jrnn.sequence_mask(LENGTHS, T))
    unread = np.zeros((B, H))
    unread[1] = np.nan  # its length is 0

    def cost(params, start, reset_state):
        states = (
            jax.tree.map(lambda zero, h=h: zero + h, jrnn.zero_state(params, B))
            for h in (start, reset_state)
        )
        start, reset_state = states
        given = xs, start, LENGTHS, padding, reset_state
        return jnp.square(run(params, *given, **options)[1]).sum()

    with native.turned(is_native):
        gradient = jax.jit(jax.grad(cost, (0, 1, 2)))
        clean = gradient(params, *np.zeros((2, B, H)))
        spoiled = gradient(params, unread, np.full((B, H), np.nan))
    jax.tree.map(np.testing.assert_array_equal, spoiled, clean)


@pytest.mark.parametrize(("ids", "reverse"), [(False, False), (True, False), (True, True)])
def test_the_padding_may_be_anything_where_jax_differentiates(ids, reverse):
    """The gradient of `rnn` once more; that of the plain scan."""
    case, outside = make_case(ids=ids), ~np.asarray(jrnn.sequence_mask(LENGTHS, T))
    junk = case.xs.copy()
    junk[outside] = -7 if ids else np.nan

    def squares(tree):
        return sum(jnp.sum(jnp.sin(x) ** 2) for x in jax.tree.leaves(tree))

    @jax.jit
    def run(params, xs):
        cost = lambda f, params: squares(f(params, xs, case.h0, LENGTHS, reverse=reverse))
        of_rnn, of_scan = (jax.grad(partial(cost, f)) for f in (jrnn.rnn, jrnn.derivation.rnn_scan))
        return of_scan(params), jax.grad(lambda params: squares(of_rnn(params)))(params)

    jax.tree.map(np.testing.assert_array_equal, *(run(case.params, x) for x in (junk, case.xs)))


def test_ids_in_the_padding_may_be_anything():
    case, data = make_case(ids=True), make_data()
    clean = outputs_and_cotangents(case, data)
    xs = np.where(jrnn.sequence_mask(LENGTHS, T), case.xs, -7)
    found = outputs_and_cotangents(case._replace(xs=xs), data)
    jax.tree.map(np.testing.assert_array_equal, found, clean)
    traced = jax.jit(jrnn.rnn)(case.params, xs, None, LENGTHS)
    assert_close(traced, jrnn.rnn(case.params, case.xs, None, LENGTHS), 0.0)


def test_clean_data_raise_no_alarm_under_debug_nans():
    case, data = make_case(), make_data()
    with jax.debug_nans(True):
        outputs_and_cotangents(case, data)


def test_a_reset_in_reverse_before_the_first_step_changes_nothing():
    case, data = make_case(), make_data()
    other = data["resets"].copy()
    other[0] = ~other[0]
    found = outputs_and_cotangents(case, data | {"resets": other}, reverse=True)
    jax.tree.map(
        np.testing.assert_array_equal, found, outputs_and_cotangents(case, data, reverse=True)
    )


# --- the whole objective ---


@pytest.mark.parametrize("remat", [False, True], ids=["kept", "remat"])
def test_the_objective_of_sequences_of_different_lengths(remat):
    """Against its three parts one after the other; inputs and labels in the padding are junk."""
    case, data = make_case(), make_data()
    rng = np.random.default_rng(5)
    readout = jrnn.ReadoutParams(rng.normal(size=(H, O)), rng.normal(size=O))
    inside = np.asarray(jrnn.sequence_mask(LENGTHS, T))
    xs = np.where(inside[..., None], case.xs, np.nan)
    labels = np.where(inside, rng.integers(0, O, (T, B)), -1)
    weights = rng.random((T, B))
    given = (LENGTHS, data["resets"])

    def whole(params, readout, h0, h_r, weights):
        arguments = (params, readout, xs, labels, h0, *given, h_r)
        J, h_last = jrnn.rnn_cross_entropy(*arguments, weights=weights, remat=remat)
        return J + jnp.sum(h_last * case.dh_last)

    def parts(params, readout, h0, h_r, weights):
        h_last, hs = jrnn.derivation.rnn_scan(params, case.xs, h0, *given, h_r)
        logits = jrnn.readout(readout, hs)
        losses = jrnn.softmax_cross_entropy(
            logits, np.maximum(labels, 0), weights * inside.astype(float)
        )
        return jnp.sum(losses) + jnp.sum(h_last * case.dh_last)

    arguments = (case.params, readout, case.h0, data["reset_state"], weights)
    run = together(*(jax.value_and_grad(f, range(5)) for f in (whole, parts)))
    assert_close(*run(*arguments))


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_the_plain_scan_agrees_and_goes_forward_mode(reverse):
    case, data = make_case(), make_data(mask=True)
    assert_exact(case, data, jrnn.derivation.rnn_scan, reverse=reverse)

    def last(w_hh):
        params = case.params._replace(w_hh=w_hh)
        given = (data[name] for name in DATA[2:])
        return jrnn.derivation.rnn_scan(params, case.xs, case.h0, *given, reverse=reverse)[0]

    assert jax.jvp(last, (case.params.w_hh,), (case.params.w_hh,))[1].shape == (B, H)


STACK = parameters(jrnn.init_stack, I, (H, H))
READOUT = parameters(jrnn.init_readout, H, O)


@pytest.mark.parametrize("remat", [None, False, True], ids=["rnn", "loss of a stack", "remat"])
def test_shared_inputs_read_to_ends_that_differ_from_device_to_device(remat):
    case, ends = make_case(B=2), np.array([T, 0, 4, 2])

    def cost(xs, lengths):
        if remat is not None:
            labels = jnp.zeros(xs.shape[:2], int)
            return jrnn.rnn_cross_entropy(STACK, READOUT, xs, labels, None, lengths, remat=remat)[0]
        h_last, hs = jrnn.rnn(case.params, xs, None, lengths, reverse=True)
        return jnp.sum(h_last) + jnp.sum(hs**2)

    def on_one_device(xs, lengths):
        return jax.lax.psum(cost(xs, lengths), "data")

    split = on_two_devices(on_one_device, (jax.P(), jax.P("data")))
    twice = lambda xs: cost(jnp.concatenate([xs, xs], 1), ends)
    assert_close(jax.jit(jax.grad(split))(case.xs, ends), jax.grad(twice)(case.xs), LAW_RTOL)


def test_jit_compiles_once_for_all_lengths():
    case, data = make_case(), make_data()
    rnn = partial(jrnn.rnn, case.params, case.xs, case.h0)
    run = jax.jit(chex.assert_max_traces(lambda *ends: rnn(*ends), n=1))
    for lengths in (LENGTHS, ONE):
        expected = rnn(lengths, data["resets"])
        assert_close(run(jnp.asarray(lengths), data["resets"]), expected, LAW_RTOL)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_lengths_of_any_integer_type(dtype):
    case = make_case()
    expected = jrnn.rnn(case.params, case.xs, case.h0, LENGTHS)
    assert_close(jrnn.rnn(case.params, case.xs, case.h0, LENGTHS.astype(dtype)), expected, 0.0)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_traced_lengths_are_clipped(reverse):
    case = make_case()
    rnn = partial(jrnn.rnn, case.params, case.xs, case.h0, reverse=reverse)
    run = jax.jit(lambda lengths: rnn(lengths))
    assert_close(run(jnp.array([-3, T + 5, 4])), run(jnp.array([0, T, 4])), 0.0)
    mask = jax.jit(partial(jrnn.sequence_mask, T=T))
    assert mask(jnp.array([-3, T + 5, 4])).sum(0).tolist() == [0, T, 4]
    large = jnp.array([2**32 - 1, 2**31, 4], jnp.uint32)
    assert mask(large).sum(0).tolist() == [T, T, 4]
    assert_close(run(large), run(jnp.array([T, T, 4])), 0.0)


def test_split_at_a_step_is_the_whole():
    """The carried state meets a length that is shorter by the steps before."""
    case, data = make_case(), make_data()
    k, resets, h_r = 3, data["resets"], data["reset_state"]
    h, first = jrnn.rnn(case.params, case.xs[:k], case.h0, np.minimum(LENGTHS, k), resets[:k], h_r)
    rest = np.maximum(LENGTHS - k, 0)
    h, second = jrnn.rnn(case.params, case.xs[k:], h, rest, resets[k:], h_r)
    whole = jrnn.rnn(case.params, case.xs, case.h0, LENGTHS, resets, h_r)
    assert_close((h, jnp.concatenate([first, second])), whole, LAW_RTOL)


# --- episodes ------------------------------------------------------------------------------------


def test_a_carried_state_never_crosses_a_reset():
    """Truncated BPTT over streams of episodes is each episode's own truncated BPTT.

    The gradient of the learned reset state is that of every episode's first state.
    """
    case = make_case(T=12)
    resets = np.zeros((12, B), bool)
    for b, starts in enumerate([(0, 5), (4, 8), (6,)]):
        resets[list(starts), b] = True
    h_r, chunk = np.random.default_rng(0).normal(size=H), 4

    def streams(params, h_r):
        h, total = jnp.asarray(case.h0), 0.0
        for t in range(0, 12, chunk):
            part = slice(t, t + chunk)
            h = jax.lax.stop_gradient(h)
            h, hs = jrnn.rnn(params, case.xs[part], h, None, resets[part], h_r)
            total += jnp.sum(hs * case.dhs[part])
        return total

    def episodes(params, h_r):
        total = 0.0
        for b in range(B):
            h = case.h0[b]
            for t in range(12):
                h = h_r if resets[t, b] else jax.lax.stop_gradient(h) if t % chunk == 0 else h
                h = jrnn.rnn_cell(params, h, case.xs[t, b])
                total += jnp.sum(h * case.dhs[t, b])
        return total

    found = jax.grad(streams, (0, 1))(case.params, h_r)
    with jax.disable_jit():  # 36 cells, one after the other
        assert_close(found, jax.grad(episodes, (0, 1))(case.params, h_r))
