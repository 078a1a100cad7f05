"""LSTM, GRU, leaky networks and a cell of a user's own, as users call them.

The kernel's tests compare every cell with NumPy on every path. Here is what lies between the users'
arguments and the kernel's.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, B, H, I, O, T, assert_close, on_two_devices, parameters, together
from cells_of_users import GATED, GatedParams
from cover import in_tiers
from jax.sharding import PartitionSpec as P
from refusals import refused

import jrnn
from jrnn import kernel
from jrnn.cells.gru import GRU
from jrnn.cells.leaky import leaky
from jrnn.cells.lstm import LSTM

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def normal(*shape):
    return RNG.normal(size=shape)


XS, LABELS = normal(T, B, I), RNG.integers(0, O, (T, B))
PARAMS = {
    "rnn": parameters(jrnn.init_rnn, I, H),
    "lstm": parameters(jrnn.init_lstm, I, H),
    "gru": parameters(jrnn.init_gru, I, H),
    "leaky": parameters(jrnn.init_rnn, I, H),
    "gated": GatedParams(normal(I, 2 * H), normal(H, 2 * H) / 2, normal(2 * H), normal(H)),
}
PARAMS["leaky"] = jrnn.LeakyParams(*PARAMS["leaky"], RNG.uniform(0.1, 0.9, H), None)
STATES = {name: normal(B, H) for name in PARAMS} | {"lstm": jrnn.LSTMState(normal(B, H), normal(H))}
RUNS = {
    "rnn": jrnn.rnn,
    "lstm": jrnn.lstm,
    "gru": jrnn.gru,
    "leaky": jrnn.leaky,
    "gated": partial(jrnn.unroll, GATED),
}
LEAK = leaky("tanh", "state", learned=False)
CELLS = {"gated": GATED, "leaky": LEAK}  # where the parameters do not say it
ENDS = {
    "lengths": np.array([T, 0, 4]),
    "resets": RNG.random((T, B)) < 0.3,
    "recurrent_mask": (RNG.random((B, H)) < 0.7) / 0.7,
}
READOUT = jrnn.ReadoutParams(normal(H, O), normal(O))


# --- one function for each kind -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "leaky"])
def test_a_step_is_a_sequence_of_one(name):
    step = getattr(jrnn, f"{name}_cell")
    found = step(PARAMS[name], STATES[name], XS[0])
    last, hs = RUNS[name](PARAMS[name], XS[:1], STATES[name])
    assert_close(found, last, LAW_RTOL)
    assert_close(jax.tree.leaves(last)[0], hs[0], LAW_RTOL)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_bias_that_is_none_is_a_bias_of_zeros(name):
    params, run = PARAMS[name], jax.jit(RUNS[name])
    biases = [field for field in params._fields if field.startswith("b_")]
    for missing in (biases[:1], biases[1:], biases):
        without = params._replace(**dict.fromkeys(missing))
        zeros = params._replace(**{field: 0 * getattr(params, field) for field in missing})
        assert_close(run(without, XS), run(zeros, XS), LAW_RTOL)
        gradient = jax.jit(jax.grad(lambda p: RUNS[name](p, XS)[1].sum()))(without)
        assert all(getattr(gradient, field) is None for field in missing)
        assert gradient.w_hh.shape == params.w_hh.shape


def test_states_of_an_lstm_each_by_itself():
    """Shared by the batch, for each sequence, or zeros; each has its own cotangent."""
    params = PARAMS["lstm"]
    h, c = normal(H), normal(B, H)
    forms = [
        (jrnn.LSTMState(h, c), jrnn.LSTMState(np.broadcast_to(h, (B, H)), c)),
        (jrnn.LSTMState(None, c), jrnn.LSTMState(np.zeros((B, H)), c)),
        (jrnn.LSTMState(h, None), jrnn.LSTMState(h, np.zeros(H))),
        (None, jrnn.LSTMState(np.zeros(H), np.zeros((B, H)))),
    ]
    options = (None, ENDS["resets"])
    for short, full in forms:
        found = jrnn.lstm(params, XS[:2], short, None, ENDS["resets"][:2], short)
        right = jrnn.lstm(params, XS[:2], full, None, ENDS["resets"][:2], full)
        assert_close(found, right, LAW_RTOL)

    def cost(state):
        last, hs = jrnn.lstm(params, XS, state, *options, state)
        return (hs * XS[..., :H]).sum() + (last.c * last.h).sum()

    shared = jax.grad(cost)(jrnn.LSTMState(h, c))
    each = jax.grad(cost)(jrnn.LSTMState(np.broadcast_to(h, (B, H)), c))
    assert_close(shared, jrnn.LSTMState(each.h.sum(0), each.c), LAW_RTOL)
    assert jax.grad(cost)(jrnn.LSTMState(None, c)).h is None


def test_vmap_with_shared_and_mapped_leaves_of_states():
    params, h, c = PARAMS["lstm"], normal(H), normal(B, H)
    state, again = jrnn.LSTMState(h, c), jrnn.LSTMState(normal(B, H), None)
    right = jrnn.lstm(params, XS, state, None, ENDS["resets"], again)
    axes = (None, 1, jrnn.LSTMState(None, 0), None, 1, jrnn.LSTMState(0, None))
    one = jax.vmap(jrnn.lstm, axes, (0, 1))
    found = one(params, XS, state, None, ENDS["resets"], again)
    assert_close(found, right, LAW_RTOL)


KERNEL = {"lstm": LSTM, "gru": GRU, **CELLS}


@pytest.mark.parametrize(
    "name",
    ["lstm", *(pytest.param(x, marks=pytest.mark.thorough) for x in ("gated", "gru", "leaky"))],
)
def test_every_option_reaches_the_kernel(name):
    cell, params, state = KERNEL[name], PARAMS[name], STATES[name]
    arrays = (ENDS["lengths"], ENDS["resets"], state, ENDS["recurrent_mask"])
    options = {"clip_delta": 1e-2, "compute_dtype": jnp.bfloat16, "remat": True, "reverse": True}
    spec = kernel.Spec(cell, None, jnp.dtype(jnp.bfloat16), 1e-2, kernel.Remat())
    unit = {name: getattr(params, name) for name in cell.unit}

    def by_the_kernel(w_hh, mask, *arrays):
        bias = [b for b in (params.b_h, getattr(params, "b_hn", None)) if b is not None]
        weights = kernel.Weights(params.w_ih, w_hh, np.concatenate(bias))
        lengths, resets, again, m = arrays
        states = [tuple(s) if name == "lstm" else (s,) for s in (state, again)]
        given = (weights, XS, states[0], lengths, resets, states[1], m, mask, unit)
        return kernel.unroll(spec, *given, reverse=True)

    def by_users(w_hh, mask, *arrays):
        last, hs = RUNS[name](params._replace(w_hh=w_hh), XS, state, *arrays, mask, **options)
        return (tuple(last) if name == "lstm" else (last,)), hs

    def all_of(run):
        with_lengths, vjp = jax.vjp(lambda w_hh: run(w_hh, None, *arrays), params.w_hh)
        with_mask = run(params.w_hh, ~ENDS["resets"], None, *arrays[1:])
        return with_lengths, with_mask, vjp(with_lengths)

    assert_close(*(jax.jit(partial(all_of, run))() for run in (by_users, by_the_kernel)), 0.0)


def loss_of_half(params, xs, **options):
    readout, labels = narrow((READOUT, LABELS))
    return jrnn.rnn_cross_entropy(params, readout, xs, labels, **options)


IN_HALF = {
    "rnn": (jrnn.rnn, PARAMS["rnn"]),
    "gated": (partial(jrnn.unroll, GATED), PARAMS["gated"]),
    "leaky": (partial(jrnn.leaky, dt=np.ones(T, np.float32)), PARAMS["leaky"]),
    "stack": (jrnn.stack, jrnn.StackParams((jrnn.LayerParams(PARAMS["gru"], None, None),))),
    "loss": (loss_of_half, PARAMS["lstm"]),
}


def narrow(tree):
    return jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, tree)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("name", IN_HALF)
def test_inputs_in_half_precision_are_those_that_the_kernel_rounds(name):
    """As a layer below returns them; the results are those of the same inputs, cast."""
    run, params = IN_HALF[name]
    params, xs = narrow(params), jnp.asarray(XS, jnp.bfloat16)

    def call(params, xs):
        return run(params, xs, compute_dtype=jnp.bfloat16)

    with_half, cast = (
        jax.vjp(f, params, xs) for f in (call, lambda p, xs: call(p, xs.astype(jnp.float32)))
    )
    assert_close(with_half[0], cast[0], 0.0)
    found, expected = (
        vjp(jax.tree.map(jnp.ones_like, outputs)) for outputs, vjp in (with_half, cast)
    )
    assert_close(found, expected, 0.0)
    assert found[1].dtype == jnp.bfloat16
    for options in ({}, {"compute_dtype": jnp.float16}):
        with pytest.raises(ValueError, match="xs: expected the dtype of params, float32; got bf"):
            run(params, xs, **options)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["lstm", "gru", "leaky", "gated"])
def test_two_devices_are_one(name):
    """Lengths, resets and states are split; the gradient of shared parameters is summed."""
    B = 4
    params, xs, resets = PARAMS[name], normal(T, B, I), RNG.random((T, B)) < 0.3
    lengths, state = np.array([T, 0, 4, 5]), normal(B, H)
    state = jrnn.LSTMState(state, normal(B, H)) if name == "lstm" else state

    def cost(params, xs, state, lengths, resets):
        _, hs = RUNS[name](params, xs, state, lengths, resets, state)
        return (hs**2).sum()

    def local(*args):
        return jax.lax.psum(cost(*args), "data")

    axes = (P(), P(None, "data"), P("data"), P("data"), P(None, "data"))
    on_two = jax.grad(on_two_devices(local, axes), (0, 1, 2))
    given = (params, xs, state, lengths, resets)
    assert_close(jax.jit(on_two)(*given), jax.jit(jax.grad(cost, (0, 1, 2)))(*given), LAW_RTOL)


# --- the parameters -------------------------------------------------------------------------------


def test_initial_parameters():
    lstm = jrnn.init_lstm(KEY, I, H)
    assert np.array_equal(lstm.b_h, np.repeat([0.0, 1.0, 0.0, 0.0], H))
    assert np.array_equal(jrnn.init_lstm(KEY, I, H, forget_bias=2.5).b_h[H : 2 * H], [2.5] * H)
    assert jrnn.init_lstm(KEY, I, H, bias=False).b_h is None
    gru = jrnn.init_gru(KEY, I, H)
    assert not gru.b_h.any()
    assert not gru.b_hn.any()
    assert jrnn.init_gru(KEY, I, H, bias=False)[2:] == (None, None)
    for params, blocks in ((lstm, 4), (gru, 3)):
        assert params.w_ih.shape == (I, blocks * H)
        for block in np.split(params.w_hh, blocks, -1):
            assert np.allclose(block.T @ block, np.eye(H))
        assert jrnn.summary(params)
    assert jrnn.init_lstm(KEY, None, H).w_ih is None
    gated = jrnn.init_cell(GATED, KEY, I, H, tau=0.5)
    assert np.array_equal(gated.tau, [0.5] * H)
    assert gated.b_h.shape == (2 * H,)


def test_initial_leaks():
    euler = jrnn.init_leaky(KEY, I, H, alpha=0.1)
    assert np.array_equal(euler.alpha, [0.1] * H)
    assert euler.log_tau is None
    exact = jrnn.init_leaky(KEY, I, H, dt_over_tau=np.full(H, 0.1))
    assert np.allclose(exact.alpha, 1 - np.exp(-0.1), rtol=1e-15)
    for leak in ({"alpha": 1 - np.exp(-0.1)}, {"dt_over_tau": 0.1}):
        learned = jrnn.init_leaky(KEY, I, H, **leak, learned=True)
        assert learned.alpha is None
        assert np.allclose(learned.log_tau, np.log(10))


def test_chrono():
    for cell, blocks in (("lstm", 4), ("gru", 3)):
        b = jrnn.initializers.chrono(100, cell)(KEY, (blocks * 1000,), jnp.float64)
        b = np.split(np.asarray(b), blocks)
        keep = b[1]
        assert (keep >= 0).all()
        assert keep.max() <= np.log(99)
        assert 0.4 < np.exp(keep).mean() / 50 < 1.6
        rest = [b[0] + keep, *b[2:]] if cell == "lstm" else [b[0], b[2]]
        assert not any(x.any() for x in rest)


# --- leaky networks -------------------------------------------------------------------------------


def test_a_leak_of_one_is_an_elman_network():
    elman = PARAMS["rnn"]
    params = jrnn.LeakyParams(*elman, np.ones(H), None)
    right = jrnn.rnn(elman, XS, STATES["rnn"])
    assert_close(jrnn.leaky(params, XS, STATES["rnn"]), right, LAW_RTOL)
    dt = np.full(T, 2.0)  # all is new in any time
    assert_close(jrnn.leaky(params, XS, STATES["rnn"], *[None] * 5, dt), right, LAW_RTOL)


@pytest.mark.parametrize("leak", ["state", "input"])
def test_a_step_of_two_units_of_time_is_two_steps(leak):
    """Without recurrence and with an input that stays, the solution is exact for any step."""
    learned = jrnn.LeakyParams(*PARAMS["rnn"], None, normal(H))._replace(w_hh=np.zeros((H, H)))
    xs = np.repeat(XS[:1], 4, 0)
    run = partial(jrnn.leaky, leak=leak)
    by_ones, _ = run(learned, xs, STATES["rnn"])
    by_twos, _ = run(learned, xs[:2], STATES["rnn"], *[None] * 5, np.full(2, 2.0))
    assert_close(by_twos, by_ones, LAW_RTOL)
    alpha = -np.expm1(-np.exp(-learned.log_tau))
    fixed = learned._replace(alpha=alpha, log_tau=None)
    assert_close(run(fixed, xs[:2], STATES["rnn"], *[None] * 5, np.full((2, B), 2.0))[0], by_ones)


@pytest.mark.parametrize("alpha", [0.2, 0.8])
def test_noise_in_a_rate_network_has_the_deviation_of_continuous_time(alpha):
    """sqrt(2 / alpha) sigma xi in a_t gives v the deviation sigma / sqrt(1 - alpha / 2)."""
    sigma, units = 0.15, 200
    alone = jrnn.LeakyParams(
        None, np.zeros((units, units)), None, np.full(units, alpha), None
    )  # no unit hears another
    xi = np.random.default_rng(0).normal(size=(2000, units))
    cell = jrnn.cells.leaky.leaky("identity", "input", learned=False)
    _, vs = jrnn.unroll(cell, alone, np.sqrt(2 / alpha) * sigma * xi)
    np.testing.assert_allclose(vs[100:].std(), sigma / np.sqrt(1 - alpha / 2), rtol=0.01)


def test_a_fixed_leak_has_no_gradient_and_a_learned_one_has():
    fixed = jax.grad(lambda p: jrnn.leaky(p, XS)[1].sum())(PARAMS["leaky"])
    assert not fixed.alpha.any()
    learned = PARAMS["leaky"]._replace(alpha=None, log_tau=normal(H))
    found = jax.grad(lambda p: jrnn.leaky(p, XS)[1].sum())(learned)
    assert found.log_tau.all()


# --- what takes networks of any kind --------------------------------------------------------------


@in_tiers(lambda _: [{"name": "lstm"}], name=PARAMS)
def test_the_objective_and_the_check(name):
    cell, params = CELLS.get(name), PARAMS[name]

    def fused(params, readout, state, remat):
        ends = ENDS["lengths"], ENDS["resets"], state
        more = {"cell": cell, "remat": remat}
        J, last = jrnn.rnn_cross_entropy(params, readout, XS, LABELS, state, *ends, **more)
        return J, last

    def separate(params, readout, state):
        last, hs = RUNS[name](params, XS, state, ENDS["lengths"], ENDS["resets"], state)
        weights = jrnn.sequence_mask(ENDS["lengths"], T)
        return jrnn.readout_cross_entropy(readout, hs, LABELS, weights), last

    wrt = {"argnums": (0, 1, 2), "has_aux": True}
    given = params, READOUT, STATES[name]
    forms = separate, partial(fused, remat=False), partial(fused, remat=True)
    right, *found = together(*(jax.value_and_grad(form, **wrt) for form in forms))(*given)
    for one in found:
        assert_close(one, right)
    found = jrnn.testing.check_against_scan(params, XS[:3], STATES[name], cell=cell)
    assert max(found.values()) <= 1e-12


@in_tiers(lambda _: [{"name": "lstm"}, {"name": "gated"}], name=PARAMS)
def test_samples(name):
    params = parameters(jrnn.init_rnn, O, H) if name == "rnn" else PARAMS[name]
    width = params.w_hh.shape[1]
    params = params._replace(w_ih=normal(O, width))
    sample = partial(jrnn.sampling.generate, params, READOUT, KEY, cell=CELLS.get(name))
    tokens = np.concatenate(list(sample(np.array([1, 2, 3]), 5, temperature=0.0)), 1)[0]
    read = np.concatenate([[1, 2, 3], tokens[:-1]])
    hs = RUNS[name](params, read)[1]
    assert np.array_equal(np.argmax(np.asarray(hs) @ READOUT.w_ho + READOUT.b_o, -1)[2:], tokens)


@pytest.mark.parametrize("name", PARAMS)
def test_files(name, tmp_path):
    cells = {"mine": GATED} if name == "gated" else None
    jrnn.model_file.save_model(tmp_path / "m", {"net": PARAMS[name]}, {}, cells=cells)
    found, _ = jrnn.model_file.load_model(tmp_path / "m", cells=cells)
    assert type(found["net"]) is type(PARAMS[name])
    assert_close(found["net"], PARAMS[name], 0.0)
    if cells:
        with pytest.raises(ValueError, match=r"got 'mine'\. .*a cell as cells="):
            jrnn.model_file.load_model(tmp_path / "m")


# --- what is refused ------------------------------------------------------------------------------

FIXED, ELMAN = PARAMS["leaky"], PARAMS["rnn"]
REFUSED = {
    "an LSTM in rnn": (
        lambda: jrnn.rnn(PARAMS["lstm"], XS),
        "params: expected RNNParams(w_ih, w_hh, b_h); got LSTMParams. jrnn.lstm runs these.",
    ),
    "an Elman network in gru": (
        lambda: jrnn.gru(ELMAN, XS),
        "params: expected GRUParams(w_ih, w_hh, b_h, b_hn); got RNNParams. jrnn.rnn runs these.",
    ),
    "a leaky network in rnn": (
        lambda: jrnn.rnn(FIXED, XS),
        "got LeakyParams. jrnn.leaky runs these.",
    ),
    "another class in unroll": (
        lambda: jrnn.unroll(GATED, ELMAN, XS),
        "params: expected GatedParams(w_ih, w_hh, b_h, tau); got RNNParams. jrnn.rnn runs these.",
    ),
    "a stack in lstm": (
        lambda: jrnn.lstm(jrnn.init_stack(jax.random.key(0), I, (H,), cell="lstm"), XS),
        "params: expected LSTMParams(w_ih, w_hh, b_h); got StackParams. jrnn.stack runs these.",
    ),
    "a layer in lstm": (
        lambda: jrnn.lstm(jrnn.LayerParams(PARAMS["lstm"], None, None), XS),
        "got LayerParams. jrnn.stack runs these as StackParams((layer,)).",
    ),
    "a model in rnn": (
        lambda: jrnn.rnn((ELMAN, READOUT), XS),
        "got tuple. Pass the parameters of the network alone, one of its parts.",
    ),
    "a stack in unroll": (
        lambda: jrnn.unroll(GATED, jrnn.init_stack(jax.random.key(0), I, (H,)), XS),
        "got StackParams. jrnn.stack runs these.",
    ),
    "an own class without its cell": (
        lambda: jrnn.rnn_cross_entropy(PARAMS["gated"], READOUT, XS, LABELS),
        "params: expected RNNParams, LSTMParams, GRUParams, or those of cell; got GatedParams. "
        "For a cell of your own give cell=, the jrnn.Cell.",
    ),
    "an own class without its cell in a layer": (
        lambda: jrnn.stack(jrnn.StackParams((jrnn.LayerParams(PARAMS["gated"], None, None),)), XS),
        "layers[0].forward.params: expected RNNParams",
    ),
    "an activation of an LSTM": (
        lambda: jrnn.rnn_cross_entropy(PARAMS["lstm"], READOUT, XS, LABELS, activation="relu"),
        "activation: expected None, since the cell lstm has its own; got relu.",
    ),
    "an LSTMState in gru": (
        lambda: jrnn.gru(PARAMS["gru"], XS, STATES["lstm"]),
        "h0: expected a JAX or NumPy array; got LSTMState.",
    ),
    "an array in lstm": (
        lambda: jrnn.lstm(PARAMS["lstm"], XS, normal(B, H)),
        "state: expected LSTMState(h, c) or None; got float64[3, 4].",
    ),
    "a tuple in lstm": (
        lambda: jrnn.lstm(PARAMS["lstm"], XS, (normal(H), normal(H))),
        "state: expected LSTMState(h, c) or None; got tuple. LSTMState(*state) is one.",
    ),
    "a c of another shape": (
        lambda: jrnn.lstm(PARAMS["lstm"], XS, jrnn.LSTMState(None, normal(B + 1, H))),
        "state.c: expected [H] = [4] or [B, H] = [3, 4]; got float64[4, 4].",
    ),
    "a c of a reset state": (
        lambda: jrnn.lstm(
            PARAMS["lstm"], XS, None, None, ENDS["resets"], jrnn.LSTMState(None, normal(1))
        ),
        "reset_state.c: expected [H] = [4]",
    ),
    "a w_ih of three blocks": (
        lambda: jrnn.lstm(PARAMS["lstm"]._replace(w_ih=normal(I, 3 * H)), XS),
        "w_ih: expected shape [I, 4H] = [any, 16]; got float64[5, 12].",
    ),
    "a b_hn of three blocks": (
        lambda: jrnn.gru(PARAMS["gru"]._replace(b_hn=normal(3 * H)), XS),
        "b_hn: expected shape [H] = [4]; got float64[12]. Use None for no bias.",
    ),
    "added inputs of one block": (
        lambda: jrnn.lstm(PARAMS["lstm"]._replace(w_ih=None), XS[..., :H]),
        "xs: expected vectors [T, I] or [T, B, I] with I = 16; got float64[7, 3, 4]. "
        "Without w_ih they are added to a_t, which has 16 numbers.",
    ),
    "both leaks": (
        lambda: jrnn.init_leaky(KEY, I, H, alpha=0.1, dt_over_tau=0.1),
        "alpha, dt_over_tau: expected one of the two; got both.",
    ),
    "an alpha of 0": (
        lambda: jrnn.init_leaky(KEY, I, H, alpha=0.0),
        "alpha: expected numbers in (0, 1]; got 0.0.",
    ),
    "a learned alpha of 1": (
        lambda: jrnn.init_leaky(KEY, I, H, alpha=1, learned=True),
        "alpha: expected numbers in (0, 1); got 1.0.",
    ),
    "a negative dt_over_tau": (
        lambda: jrnn.init_leaky(KEY, I, H, dt_over_tau=-1),
        "dt_over_tau: expected finite numbers above 0; got -1.",
    ),
    "an alpha above 1": (
        lambda: jrnn.leaky(FIXED._replace(alpha=np.full(H, 1.5)), XS),
        "alpha: expected numbers in (0, 1]; got 1.5.",
    ),
    "no leak": (
        lambda: jrnn.leaky(FIXED._replace(alpha=None), XS),
        "alpha, log_tau: expected one of the two; got neither.",
    ),
    "a cell of the other leak": (
        lambda: jrnn.unroll(leaky("tanh", "input", learned=True), FIXED, XS),
        "got None. A leaky cell with learned=True reads log_tau, one with learned=False alpha.",
    ),
    "an unknown leak": (
        lambda: jrnn.leaky(FIXED, XS, leak="output"),
        'leak: expected "state" or "input"; got \'output\'.',
    ),
    "a negative time step": (
        lambda: jrnn.leaky(FIXED, XS, *[None] * 6, np.full(T, -1.0)),
        "dt: expected numbers of at least 0; got -1.0.",
    ),
    "time steps of another length": (
        lambda: jrnn.leaky(FIXED, XS, *[None] * 6, np.ones(T + 1)),
        "dt: expected shape [T] = [7] or [T, B] = [7, 3]; got float64[8].",
    ),
    "integer features that are not said to be such, with time steps": (
        lambda: jrnn.leaky(FIXED, np.ones((T, B, I), int), dt=np.ones((T, B))),
        "xs: expected integer token ids [T] or [T, B]; got int64[7, 3, 5].",
    ),
    "a time step of another batch": (
        lambda: jrnn.leaky_cell(FIXED, normal(H), XS[0], np.ones(2)),
        "dt: expected shape [] or [B] = [3]; got float64[2]. The length of each step.",
    ),
    "a negative time step of a cell": (
        lambda: jrnn.leaky_cell(FIXED, normal(H), XS[0], -1.0),
        "dt: expected numbers of at least 0; got -1.0.",
    ),
    "a forget bias that is no number": (
        lambda: jrnn.init_lstm(KEY, I, H, forget_bias=np.nan),
        "forget_bias: expected a finite number; got nan.",
    ),
    "chrono of two steps": (
        lambda: jrnn.initializers.chrono(2),
        "longest: expected a finite number above 2; got 2.",
    ),
    "chrono of another cell": (
        lambda: jrnn.initializers.chrono(9, "rnn"),
        'cell: expected "lstm" or "gru"; got \'rnn\'.',
    ),
    "chrono of another shape": (
        lambda: jrnn.initializers.chrono(9)(KEY, (5,)),
        "shape: expected [4H]; got [5].",
    ),
    "data that the cell does not read": (
        lambda: jrnn.unroll(GATED, PARAMS["gated"], XS, data={"z": normal(H)}),
        "data: expected None; got z. They are what the cell gated reads.",
    ),
    **{
        f"{tau} for each unit": (
            partial(jrnn.init_cell, GATED, KEY, I, H, tau=tau),
            f"tau: expected a number or an array [H] = [4]; got {came}. One for each unit.",
        )
        for tau, came in ((None, "None"), ("a", "'a'"), (np.ones(3), "an array [3]"))
    },
    "unit parameters that the cell lacks": (
        lambda: jrnn.init_cell(GATED, KEY, I, H, alpha=0.5),
        "unit: expected the parameters tau; got alpha.",
    ),
    "two cells of one class in a file": (
        lambda: jrnn.model_file.save_model("m", {}, {}, cells={"a": GATED, "b": GATED}),
        "cells: expected jrnn.Cells, each with a class of parameters of its own; got 'b': 'gated'.",
    ),
    "an unknown kind of a stack": (
        lambda: jrnn.init_stack(KEY, I, (H,), cell="peephole"),
        'cell: expected one of "rnn", "lstm", "gru", "leaky", or a jrnn.Cell; got \'peephole\'.',
    ),
}
test_refused = refused(REFUSED)
