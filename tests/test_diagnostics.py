"""Where the gradient goes: against a scan of the tests' own, differentiated by JAX."""

import functools

import gradient_flow
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, B, H, I, O, T, assert_close, make_case
from char_model import loop as char_loop
from compilations import assert_second_calls_compile_nothing
from cover import in_tiers
from flows import (
    CASES,
    determinant_differs,
    flow_differs,
    growth_differs,
    influence_differs,
    linear,
    orthogonal,
    problem,
    rotation_differs,
    spectrum_differs,
)
from jaxprs import equations, sizes
from programs import table

import jrnn
from jrnn import diagnostics


@in_tiers(case=CASES, activation=["tanh", "relu"])
def test_gradient_flow_against_jacrev(case, activation):
    flow_differs(diagnostics, case, activation)


@in_tiers(case=[c for c in CASES if "one" in c], activation=["tanh", "relu"])
def test_influence_against_jacrev(case, activation):
    influence_differs(diagnostics, case, activation)


def test_the_norms_of_a_scaled_rotation_fall_geometrically():
    params, xs = linear(0.9 * orthogonal(6), 50)
    readout = jrnn.ReadoutParams(np.random.default_rng(1).normal(size=(6, 3)), None)
    labels = np.zeros(50, int)
    arguments = (params, readout, xs, labels)
    table = diagnostics.influence(*arguments, activation="identity")
    expected = 0.9 ** np.subtract.outer(np.arange(50), np.arange(50)) * np.diag(table)[:, None]
    np.testing.assert_allclose(table, np.tril(expected), rtol=1e-10)
    last = {"weights": np.arange(50) == 49, "activation": "identity"}  # one norm per lag
    flow = diagnostics.gradient_flow(*arguments, **last)
    assert flow.lags.tolist() == list(range(50))
    for curve in flow.percentiles:
        np.testing.assert_allclose(curve, curve[0] * 0.9 ** np.arange(50), rtol=1e-10)


def test_a_network_without_w_ih():
    """It reads the currents that another one computes: the same states, and the same gradients."""
    (params, readout, xs, *rest), _ = problem(batch=False, h0="[H]")
    alone = params._replace(w_ih=None)
    for measure in (diagnostics.gradient_flow, diagnostics.influence):
        expected = measure(params, readout, xs, *rest)
        found = measure(alone, readout, xs @ params.w_ih, *rest)
        assert_close(tuple(found), tuple(expected), LAW_RTOL)
    spectrum = functools.partial(diagnostics.lyapunov_exponents, n=2)
    assert_close(spectrum(alone, xs @ params.w_ih), spectrum(params, xs), LAW_RTOL)


def test_max_lag():
    arguments, _ = problem()
    whole = diagnostics.gradient_flow(*arguments)
    cut = diagnostics.gradient_flow(*arguments, max_lag=2)
    assert whole.percentiles.shape == (3, T)
    assert cut.lags.tolist() == [0, 1, 2]
    assert_close(cut.percentiles, whole.percentiles[:, :3], LAW_RTOL)
    assert_close(cut.uses, whole.uses, LAW_RTOL)


def test_what_is_not_there_is_nan():
    arguments, _ = problem(batch=False)
    first = diagnostics.gradient_flow(*arguments, weights=np.arange(T) == 0)
    assert np.isfinite(first.percentiles[:, 0]).all()
    assert np.isnan(first.percentiles[:, 1:]).all()  # the first loss has no earlier state
    xs = arguments[2].copy()
    xs[4:] = np.nan
    broken = diagnostics.gradient_flow(*arguments[:2], xs, *arguments[3:])
    assert np.isnan(broken.percentiles).all()  # not those of the steps that are left
    counted = diagnostics.gradient_flow(
        *arguments[:2], xs, *arguments[3:], weights=np.arange(T) < 4
    )
    assert np.isfinite(counted.percentiles[:, :4]).all()


def test_padding_of_nan_has_no_part():
    """Weights mark the last step of each sequence; what is after it is padding."""
    (params, readout, xs, labels, h0), _ = problem()
    lengths = np.array([3, T, 5])
    padded = np.where((np.arange(T)[:, None] < lengths)[..., None], xs, np.nan)
    weights = (np.arange(T)[:, None] == lengths - 1).astype(float)
    measure = functools.partial(diagnostics.gradient_flow, params, readout, weights=weights)
    found, expected = measure(padded, labels, h0), measure(xs, labels, h0)
    assert (expected.uses > 0).all()
    assert_close(tuple(found), tuple(expected), LAW_RTOL)
    one = functools.partial(diagnostics.influence, params, readout, weights=weights[:, 0])
    assert_close(one(padded[:, 0], labels[:, 0]), one(xs[:, 0], labels[:, 0]), LAW_RTOL)


def test_norms_far_below_one_do_not_vanish_in_float32():
    params, xs = linear(1e-3 * orthogonal(6), 13)
    readout = jrnn.ReadoutParams(np.ones((6, 3)) + np.eye(6, 3), None)
    to32 = lambda tree: jax.tree.map(lambda x: x.astype(np.float32), tree)
    arguments = (*to32((params, readout, xs)), np.zeros(13, int))
    flow = diagnostics.gradient_flow(*arguments, activation="identity")
    assert flow.percentiles.dtype == flow.uses.dtype == np.float32
    median = np.asarray(flow.percentiles[1], np.float64)
    assert median[12] > 1e-37  # its square is 1e-72
    np.testing.assert_allclose(np.diff(np.log10(median)), -3, atol=0.5)


# --- Lyapunov exponents --------------------------------------------------------------------------


def test_exponents_of_a_scaled_rotation():
    rotation_differs(diagnostics)


def test_exponents_of_real_eigenvalues():
    spectrum_differs(diagnostics)


def test_exponents_of_a_diagonal_are_those_of_its_largest_entries():
    """Unit vectors as first directions would stay what they are, and find the first entries."""
    params, xs = linear(np.diag([0.3, 0.5, 0.9, 0.7]), 300)
    found = diagnostics.lyapunov_exponents(params, xs, n=2, warmup=200, activation="identity")
    np.testing.assert_allclose(found, np.log([0.9, 0.7]), rtol=0, atol=1e-6)


def test_exponents_of_a_complex_pair_by_their_sum():
    block = np.diag([0.0, 0.0, 0.5, 0.3])
    block[:2, :2] = 0.9 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    basis = np.random.default_rng(3).normal(size=(4, 4))
    params, xs = linear(basis @ block @ np.linalg.inv(basis), 300)
    found = diagnostics.lyapunov_exponents(params, xs, n=3, warmup=200, activation="identity")
    np.testing.assert_allclose(found[:2].sum(), 2 * np.log(0.9), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[2], np.log(0.5), rtol=0, atol=1e-6)


def test_exponents_of_tanh_add_up_to_the_determinants():
    determinant_differs(diagnostics)


@pytest.mark.parametrize("ids", [False, True], ids=["vectors", "ids"])
def test_the_largest_exponent_of_tanh_is_the_growth_of_a_change(ids):
    growth_differs(diagnostics, ids)


def test_a_direction_that_relu_loses_has_no_finite_exponent():
    """Units that never fire: what is left is the matrix among the others."""
    w_hh = np.abs(np.random.default_rng(0).normal(size=(5, 5))) / 5
    params = jrnn.RNNParams(np.array([[1.0, 1, 1, -9, -9]]), w_hh, None)
    found = diagnostics.lyapunov_exponents(
        params, np.ones((300, 1)), n=5, warmup=200, activation="relu"
    )
    values = np.sort(np.abs(np.linalg.eigvals(w_hh[:3, :3])))[::-1]
    np.testing.assert_allclose(found[:3].sum(), np.log(values).sum(), atol=1e-6)
    np.testing.assert_allclose(found[0], np.log(values[0]), atol=1e-6)
    assert np.isneginf(found[3:]).all()


def test_states_beyond_the_floating_range_have_no_exponents():
    params, xs = linear(1e3 * orthogonal(4), 200)
    assert np.isnan(diagnostics.lyapunov_exponents(params, xs, n=2, activation="relu")).all()


# --- bad input -----------------------------------------------------------------------------------

CASE, ONE = make_case(), make_case(batch=False)
IDS = make_case(ids=True)
P, READOUT = CASE.params, jrnn.ReadoutParams(np.ones((H, O)), np.ones(O))
LABELS = np.zeros((T, B), int)


def flow(params=P, readout=READOUT, xs=CASE.xs, labels=LABELS, h0=None, **options):
    return diagnostics.gradient_flow(params, readout, xs, labels, h0, **options)


def exponents(params=P, xs=ONE.xs, h0=None, **options):
    return diagnostics.lyapunov_exponents(params, xs, h0, **options)


REFUSED = {
    "rank of xs": (
        lambda: flow(xs=np.zeros(T)),
        "xs: expected vectors [T, I] or [T, B, I]; got float64[7]. ",
    ),
    "an id outside": (lambda: flow(xs=IDS.xs + I), "xs: expected ids from 0 to 4 (I = 5 rows"),
    "a state": (
        lambda: flow(h0=np.zeros((B + 1, H))),
        "h0: expected [H] = [4] or [B, H] = [3, 4]; got float64[4, 4].",
    ),
    "no readout": (
        lambda: flow(readout=P),
        "params: expected ReadoutParams(w_ho, b_o); got RNNParams. See jrnn.init_readout.",
    ),
    "a readout of other states": (
        lambda: flow(readout=READOUT._replace(w_ho=np.ones((H + 1, O)))),
        "w_ho: expected shape [H, O] = [4, any]; got float64[5, 6]. w_hh makes states of size",
    ),
    "a readout of another dtype": (
        lambda: flow(readout=jax.tree.map(lambda x: x.astype(np.float32), READOUT)),
        "w_ho: expected the dtype of rnn_params, float64; got float32.",
    ),
    "labels of another shape": (
        lambda: flow(labels=LABELS.T),
        "labels: expected ids of shape [7, 3]; got int64[3, 7].",
    ),
    "a label outside": (
        lambda: flow(labels=LABELS + O),
        "labels: expected ids from 0 to 5 (O = 6 classes); got 6 at [0, 0], 21 ids outside in all.",
    ),
    "weights of another shape": (
        lambda: flow(weights=np.ones(T)),
        "weights: expected shape [7, 3] or []; got float64[7].",
    ),
    "activation": (lambda: flow(activation="gelu"), "activation: expected one of"),
    "an unhashable activation": (lambda: flow(activation=["tanh"]), "activation: expected one of"),
    "a negative lag": (
        lambda: flow(max_lag=-1),
        "max_lag: expected an integer >= 0; got -1. Lag 0 is dJ_t/ds_t itself.",
    ),
    "half a lag": (lambda: flow(max_lag=2.5), "max_lag: expected an integer >= 0; got 2.5."),
    "a table of a batch": (
        lambda: diagnostics.influence(P, READOUT, CASE.xs, LABELS),
        "xs: expected one sequence, vectors [T, I] or token ids [T]; got float64[7, 3, 5]. "
        "Take one of the batch, or map over it by jax.vmap.",
    ),
    "a table of a batch of ids": (
        lambda: diagnostics.influence(P, READOUT, IDS.xs, LABELS),
        "xs: expected one sequence, vectors [T, I] or token ids [T]; got int32[7, 3].",
    ),
    "exponents of a batch": (
        lambda: exponents(xs=CASE.xs, n=1),
        "xs: expected one sequence, vectors [T, I] or token ids [T]; got float64[7, 3, 5].",
    ),
    "exponents, state of a batch": (
        lambda: exponents(h0=np.zeros((B, H)), n=1),
        "h0: expected [H] = [4]; got float64[3, 4]. One sequence has one state.",
    ),
    "n > H": (
        lambda: exponents(n=H + 1),
        "n: expected an integer from 1 to 4; got 5. A state of size H = 4 has 4 exponents.",
    ),
    "n = 0": (lambda: exponents(n=0), "n: expected an integer from 1 to 4; got 0."),
    "nothing after the warm-up": (
        lambda: exponents(n=1, warmup=T),
        "warmup: expected an integer from 0 to 6; got 7. "
        "Of T = 7 steps one at least is left for the mean.",
    ),
    "exponents, activation": (lambda: exponents(n=1, activation=max), "activation: expected one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, monkeypatch):
    """By its text, and before anything runs."""
    for inside in ("flow._gradient_flow", "flow._influence", "exponents._lyapunov_exponents"):
        monkeypatch.setattr(f"jrnn.diagnostics.{inside}", None)
    call, text = REFUSED[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert text in str(error.value)


# --- structure and laws --------------------------------------------------------------------------


def largest(f, *args):
    """Elements of the largest array that a call would form."""
    return max(n for e in equations(jax.make_jaxpr(f)(*args)) for n in sizes(e))


@pytest.mark.parametrize(("kind", "blocks"), [(jrnn.RNNParams, 1), (jrnn.LSTMParams, 4)])
def test_no_array_grows_with_the_lags_or_with_a_weight_per_step(kind, blocks):
    """At the size of a training."""
    T, B, H, O = 2000, 8, 128, 100
    shape = lambda *axes: jax.ShapeDtypeStruct(axes, np.float32)
    ids = jax.ShapeDtypeStruct((T, B), np.int32)
    params = kind(shape(O, blocks * H), shape(H, blocks * H), shape(blocks * H))
    arguments = (params, jrnn.ReadoutParams(shape(H, O), shape(O)), ids, ids)
    for max_lag in (200, 1999):
        flow = functools.partial(diagnostics.gradient_flow, max_lag=max_lag)
        assert largest(flow, *arguments) <= blocks * T * B * H < T * H * H, max_lag
    uses = lambda h_tm1s, deltas: jnp.linalg.norm(h_tm1s.mT @ deltas, axis=(1, 2))
    assert largest(uses, shape(T, B, H), shape(T, B, H)) >= T * H * H  # a weight per step is seen


def test_a_second_call_compiles_nothing():
    case = make_case(T=11, I=3, H=9, batch=False, h0="[H]")
    readout = jrnn.ReadoutParams(np.ones((9, 2)), None)
    arguments = (case.params, readout, case.xs, np.zeros(11, int), case.h0)
    calls = {
        "gradient_flow": lambda: diagnostics.gradient_flow(*arguments),
        "influence": lambda: diagnostics.influence(*arguments),
        "exponents": lambda: diagnostics.lyapunov_exponents(case.params, case.xs, case.h0, n=3),
    }
    assert_second_calls_compile_nothing(calls)


def test_jit_and_vmap():
    (params, readout, xs, labels, h0), _ = problem()
    eager = diagnostics.gradient_flow(params, readout, xs, labels, h0)
    jitted = jax.jit(diagnostics.gradient_flow)(params, readout, xs, labels, h0)
    assert_close(tuple(jitted), tuple(eager), LAW_RTOL)
    mapped = jax.vmap(diagnostics.influence, (None, None, 1, 1, 0))
    tables = mapped(params, readout, xs, labels, h0)
    spectra = jax.vmap(lambda xs, h0: diagnostics.lyapunov_exponents(params, xs, h0, n=2), (1, 0))
    for b in range(B):
        one = (xs[:, b], labels[:, b], h0[b])
        assert_close(tables[b], diagnostics.influence(params, readout, *one), LAW_RTOL)
        found = diagnostics.lyapunov_exponents(params, xs[:, b], h0[b], n=2)
        assert_close(spectra(xs, h0)[b], found, LAW_RTOL)


@pytest.mark.usefixtures("every_guard")
def test_strict_settings():
    flow_differs(diagnostics, "floats")
    influence_differs(diagnostics, "one, floats")
    assert np.isfinite(exponents(n=2)).all()


def test_they_lower_for_every_platform():
    (params, readout, *data), _ = problem(batch=False)

    def everything(*data):
        flow = diagnostics.gradient_flow(params, readout, *data)
        table = diagnostics.influence(params, readout, *data)
        return flow, table, diagnostics.lyapunov_exponents(params, data[0], n=2)

    platforms = ("cpu", "cuda", "tpu")
    assert jax.export.export(jax.jit(everything), platforms=platforms)(*data).platforms == platforms


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_lower_precision_is_computed_in_float32(dtype):
    arguments, _ = problem()
    narrow = lambda x: x.astype(dtype) if x.dtype == np.float64 else x
    low = jax.tree.map(narrow, arguments)
    wide = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == dtype else x, low)
    found, expected = (diagnostics.gradient_flow(*a) for a in (low, wide))
    assert found.percentiles.dtype == found.uses.dtype == np.float32
    assert_close(tuple(found), tuple(expected), 1e-5)
    params, xs = low[0], low[2][:, 0]
    assert diagnostics.lyapunov_exponents(params, xs, n=2).dtype == np.float32


# --- the example ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_the_example_draws_what_it_promises(tmp_path, capsys, monkeypatch):
    text = tmp_path / "text"
    text.write_text(table(60))
    monkeypatch.setattr(gradient_flow, "TABLE_STEPS", 20)
    toy = ["--steps=3", "--hidden-size=8", "--length=120", "--max-lag=20", "--exponents=4"]
    out = tmp_path / "out"
    assert gradient_flow.main(["--text", str(text), "--out", str(out), *toy]) == 0
    names = ["gradient_flow.png", "influence.png", "kinds.png", "lyapunov_exponents.png"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in out.iterdir())
    printed = capsys.readouterr().out
    for row in (
        "LSTM, forget bias 1 ",
        "orthogonal, at the start ",
        "gaussian, at the start ",
        "gaussian, after 3 steps (",
    ):
        assert row in printed


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_the_example_measures_the_model_that_it_trains(tmp_path, monkeypatch):
    """Also if the training draws it by another key: a step of Adam changes no number by 0.01."""
    text, init = tmp_path / "text", char_loop.init_model
    text.write_text(table(60))
    other_key = lambda key, *rest: init(jax.random.fold_in(key, 1), *rest)
    monkeypatch.setattr(char_loop, "init_model", other_key)
    monkeypatch.setattr(gradient_flow, "measure", lambda name, model, *rest: model)
    data = gradient_flow.load_data([str(text)], 32, 64, tmp_path)
    settings = gradient_flow.Settings(tmp_path, steps=1, hidden_size=4)
    first, trained = gradient_flow.train_and_measure("orthogonal", data, settings)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.01), first, trained)


@pytest.mark.usefixtures("float32")
def test_the_example_refuses_a_missing_text(tmp_path, capsys):
    missing = ["--text", str(tmp_path / "nothing"), "--out", str(tmp_path)]
    assert gradient_flow.main(missing) == 1
    assert "error: " in capsys.readouterr().err
