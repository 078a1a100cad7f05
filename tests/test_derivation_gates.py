"""LSTM and GRU derived by hand, against loops of the tests' own that JAX differentiates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import LAW_RTOL, RTOL, H, I, O, T, assert_close, differences, together
from compilations import assert_second_calls_compile_nothing
from gated import gru_step, lstm_step
from mutations import assert_seen, mutated, planted
from refusals import refused

import jrnn
from jrnn import derivation
from jrnn.derivation import GRUGradients, LSTMGradients, gru, jacobians, lstm
from jrnn.types import GRUParams, LSTMParams, LSTMState, ReadoutParams

COSTS = {"total": np.ones(T), "mean": np.full(T, 1 / T), "last only": np.eye(T)[-1]}
FORMS = {
    "lstm": (derivation.lstm_double_sum, derivation.lstm_recursion),
    "gru": (derivation.gru_double_sum, derivation.gru_recursion),
}
GRADIENTS = {"lstm": LSTMGradients, "gru": GRUGradients}


def example(cell, *, bias="all", ids=False, state=True, seed=0):
    """The arguments of a form: one sequence with its readout and labels."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape)

    n, of_h = {"lstm": 4, "gru": 3}[cell], bias in ("all", "b_h")
    weights = normal(I, n * H), normal(H, n * H) / H**0.5, normal(n * H) if of_h else None
    if cell == "lstm":
        params, start = LSTMParams(*weights), LSTMState(normal(H), normal(H))
    else:
        params = GRUParams(*weights, normal(H) if bias in ("all", "b_hn") else None)
        start = normal(H)
    readout = ReadoutParams(normal(H, O), normal(O) if of_h else None)
    xs = rng.integers(0, I, T).astype(np.int32) if ids else normal(T, I)
    labels = rng.integers(0, O, T) if ids else rng.dirichlet(np.ones(O), T)
    return params, readout, xs, labels, start if state else None


# --- the oracle ----------------------------------------------------------------------------------


STEPS = {"lstm": lstm_step, "gru": gru_step}


def as_states(cell, state):
    """A tuple of arrays."""
    if state is None:
        return (np.zeros(H),) * (2 if cell == "lstm" else 1)
    return tuple(state) if cell == "lstm" else (state,)


@functools.partial(jax.jit, static_argnums=0)
def expected(cell, params, readout, xs, labels, state, weights):
    """The gradient by autodiff of a loop."""
    xs = jnp.eye(I)[xs] if xs.ndim == 1 else xs
    labels = jnp.eye(O)[labels] if labels.ndim == 1 else labels

    def cost(params, readout, states):
        total = 0.0
        for x, y, m in zip(xs, labels, weights, strict=True):
            states = STEPS[cell](params, states, x)
            logits = states[0] @ readout.w_ho
            logits = logits if readout.b_o is None else logits + readout.b_o
            total -= m * jnp.vdot(y, logits - jnp.log(jnp.exp(logits).sum()))
        return total

    *d, states = jax.grad(cost, (0, 1, 2))(params, readout, as_states(cell, state))
    return GRADIENTS[cell](*d, LSTMState(*states) if cell == "lstm" else states[0])


# Of biases, ids and states every pair occurs; quick: each cell, ids and vectors.
OPTIONS = [
    ("lstm", "all", False, True),
    pytest.param("lstm", "none", True, False, marks=pytest.mark.thorough),
    pytest.param("gru", "all", False, True, marks=pytest.mark.thorough),
    ("gru", "none", True, True),
    pytest.param("gru", "b_hn", False, False, marks=pytest.mark.thorough),
    pytest.param("gru", "b_h", True, False, marks=pytest.mark.thorough),
]


@pytest.mark.parametrize(("cell", "bias", "ids", "state"), OPTIONS)
def test_every_form_is_the_gradient(cell, bias, ids, state):
    args = example(cell, bias=bias, ids=ids, state=state)
    of_weights = lambda form: lambda *args: form(*args[:-1], weights=args[-1])
    every_form = together(*map(of_weights, FORMS[cell]))
    for cost, weights in COSTS.items():
        want = expected(cell, *args, weights)
        for found in every_form(*args, weights):
            wrong = {k: d for k, d in differences(found, want).items() if not d <= RTOL}
            assert not wrong, (cost, wrong)


def test_the_lstm_is_that_of_the_numpy_oracle():
    """Another oracle, without autodiff."""
    params, readout, xs, labels, state = example("lstm")
    zero = (np.zeros(H),) * 2
    call = (oracle.CELLS["lstm"], params, xs, state)
    (_, hs), _ = oracle.unroll(*call, d_last=zero, dhs=np.zeros((T, H)))
    _, d = oracle.cross_entropy(hs @ readout.w_ho + readout.b_o, labels, None, np.ones(T))
    _, wanted = oracle.unroll(*call, d_last=zero, dhs=d["logits"] @ readout.w_ho.T)
    for found in together(*FORMS["lstm"])(params, readout, xs, labels, state):
        assert_close(found.params, LSTMParams(wanted["w_ih"], wanted["w_hh"], wanted["b"]))
        assert_close(tuple(found.state), wanted["start"])


@pytest.mark.parametrize("cell", FORMS)
def test_finite_differences(cell):
    params, readout, xs, labels, state = example(cell)
    forward = getattr(derivation, f"{cell}_trajectory")

    def cost(at):
        return forward(at.params, at.readout, xs, labels, at.state).losses.sum()

    found = derivation.finite_differences(cost, GRADIENTS[cell](params, readout, state))
    want = expected(cell, params, readout, xs, labels, state, COSTS["total"])
    assert_close(found, want, rtol=1e-6)


@pytest.mark.parametrize("cell", FORMS)
def test_a_batch_by_vmap(cell):
    many = [example(cell, seed=s) for s in range(2)]
    (params, readout, *_), rest = many[0], [case[2:] for case in many]
    xs, labels, state = jax.tree.map(lambda *leaves: np.stack(leaves), *rest)
    (found,) = together(jax.vmap(FORMS[cell][1], (None, None, 0, 0, 0)))(
        params, readout, xs, labels, state
    )
    for b, one in enumerate(rest):
        want = expected(cell, params, readout, *one, COSTS["total"])
        assert_close(jax.tree.map(lambda g: g[b], found), want)


@pytest.mark.parametrize("cell", FORMS)
def test_a_second_call_compiles_nothing(cell):
    params, readout, xs, labels, state = example(cell)
    xs, labels = xs[:5], labels[:5]  # a length of no other test
    calls = {f.__name__: lambda f=f: f(params, readout, xs, labels, state) for f in FORMS[cell]}
    calls["scan"] = lambda: getattr(derivation, f"{cell}_scan")(params, xs, state)
    assert_second_calls_compile_nothing(calls)


# --- the networks of the package -----------------------------------------------------------------


@pytest.mark.parametrize("cell", FORMS)
def test_the_network_and_its_scan_have_this_gradient(cell):
    params, readout, xs, labels, state = example(cell)

    def gradient(network):
        def cost(at):
            _, hs = network(at.params, xs, at.state)
            return jrnn.softmax_cross_entropy(jrnn.readout(at.readout, hs), labels).sum()

        return jax.grad(cost)

    networks = getattr(jrnn, cell), getattr(derivation, f"{cell}_scan")
    at = GRADIENTS[cell](params, readout, state)
    want = expected(cell, params, readout, xs, labels, state, COSTS["total"])
    for found in together(*map(gradient, networks))(at):
        assert_close(found, want)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", FORMS)
def test_a_scan_takes_what_the_network_takes(cell, reverse):
    """Lengths or a mask, resets, states and a mask of the states, of a batch."""
    rng, B = np.random.default_rng(1), 3
    params, *_ = example(cell)
    of = lambda *axes: rng.normal(size=axes)
    two = lambda: LSTMState(of(H), of(B, H)) if cell == "lstm" else of(B, H)
    xs, start, again, m = of(T, B, I), two(), two(), of(H)
    resets, counted = rng.random((T, B)) < 0.3, rng.random((T, B)) < 0.6
    lengths = np.array([T, 0, 3])
    options = {"reverse": reverse}
    both = getattr(jrnn, cell), getattr(derivation, f"{cell}_scan")
    for given in (
        (start, lengths, resets, again, m),
        (start, None, resets, again, m, counted),
    ):
        found, want = together(*(functools.partial(f, **options) for f in both))(params, xs, *given)
        assert_close(found, want, LAW_RTOL)


def test_forward_mode_of_the_scan():
    params, _, xs, _, state = example("lstm")
    change = jax.tree.map(np.ones_like, params)
    outputs = lambda p: derivation.lstm_scan(p, xs, state)[1].sum()
    (found,) = together(lambda p: jax.jvp(outputs, (p,), (change,))[1])(params)
    (d,) = together(jax.grad(lambda p: jrnn.lstm(p, xs, state)[1].sum()))(params)
    np.testing.assert_allclose(found, sum(map(np.sum, jax.tree.leaves(d))), rtol=1e-10)


# --- Jacobians -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", FORMS)
def test_jacobians(cell):
    """The derivatives by the state before and by the pre-activation."""
    params, _, xs, _, state = args = example(cell)
    forward, jacobians = (getattr(derivation, f"{cell}_{f}") for f in ("trajectory", "jacobians"))
    states, t = as_states(cell, state), 3
    for x in xs[: t - 1]:
        states = STEPS[cell](params, states, x)
    flat = jnp.concatenate(states)

    def step(flat, b):
        return jnp.concatenate(STEPS[cell](params, jnp.split(flat, len(states)), xs[t - 1], b))

    both = jax.jacrev(step, (0, 1))
    (want,) = together(lambda flat: both(flat, jnp.zeros(4 * H)))(flat)
    (found,) = together(lambda *args: jacobians(params, forward(*args), t))(*args)
    assert_close(found, want)


def test_gates_at_their_ends_pass_the_gradient_of_c_unchanged():
    """f = 1 and i = 0: dc_T/dc_0 is 1 however long the sequence; f = 0: it is 0."""
    params, readout, xs, labels, state = example("lstm")
    for bias, kept in ((40.0, 1.0), (-40.0, 0.0)):
        b_h = np.repeat([-40.0, bias, 0.0, 0.0], H)
        closed = LSTMParams(0 * params.w_ih, 0 * params.w_hh, b_h)
        run = derivation.lstm_trajectory(closed, readout, xs, labels, state)
        J = [derivation.lstm_jacobians(closed, run, t)[0] for t in range(1, T + 1)]
        product = np.linalg.multi_dot(J[::-1])
        np.testing.assert_allclose(product[H:, H:], kept * np.eye(H), atol=1e-15)


# --- planted faults ------------------------------------------------------------------------------

RECURSION_FAULTS = {
    lstm.lstm_recursion: {
        "dc without f": ("w_hh_transposed, q * f", "w_hh_transposed, q"),
        "dc with 1 - f": ("w_hh_transposed, q * f", "w_hh_transposed, q * (1 - f)"),
        "the path through tanh(c) forgotten": ("dc_next + dh * o * (1 - tanh_c**2)", "dc_next"),
        "tanh' missing": (" * (1 - tanh_c**2)", ""),
        "o missing": ("dh * o * (1 - tanh", "dh * (1 - tanh"),
        "dc of later steps forgotten": ("dc_next + dh * o", "dh * o"),
        "c_t for c_{t-1}": ("run.c_tm1s[t]", "run.cs[t]"),
        "f' missing": (" * f * (1 - f)", ""),
        "i' missing": (" * i * (1 - i)", ""),
        "g as a sigmoid": ("(1 - g**2)", "g * (1 - g)"),
        "i missing": ("q * i * (1 - g**2)", "q * (1 - g**2)"),
        "delta_o of dc": ("dh * tanh_c", "tanh_c"),
        "blocks i g f o": ("delta_f, delta_g, delta_o]", "delta_g, delta_f, delta_o]"),
        "w_hh not transposed": ("params.w_hh).T", "jnp.concatenate(jnp.split(params.w_hh, 4, 1)))"),
        "h_t for h_{t-1}": ("run.h_tm1s.T", "run.hs.T"),
        "no step back": ("delta_t @ w_hh_transposed", "0 * dh"),
    },
    gru.gru_recursion: {
        "1 - z missing": ("dh * (1 - z) * (1", "dh * (1"),
        "z for 1 - z": ("dh * (1 - z) * (1", "dh * z * (1"),
        "n' missing": (" * (1 - n**2)", ""),
        "b_hn outside of r": ("delta_n * u", "delta_n * (u - params.b_hn)"),
        "r' missing": (" * r * (1 - r)", ""),
        "n - h_{t-1}": ("run.h_tm1s[t] - n", "n - run.h_tm1s[t]"),
        "n missing": ("(run.h_tm1s[t] - n)", "run.h_tm1s[t]"),
        "r outside of delta_u": ("delta_u = delta_n * r", "delta_u = delta_n"),
        "delta_n for delta_u": ("[delta_r, delta_z, delta_u]", "[delta_r, delta_z, delta_n]"),
        "b_hn as a bias of n": ("delta_z, delta_n, delta_u]", "delta_z, delta_n, delta_n]"),
        "z dh forgotten": (" + dh * z", ""),
        "(1 - z) dh": (" + dh * z", " + dh * (1 - z)"),
        "w_hh not transposed": ("params.w_hh).T", "jnp.concatenate(jnp.split(params.w_hh, 3, 1)))"),
        "no step back": ("@ w_hh_transposed + dh", "@ (0 * w_hh_transposed) + dh"),
    },
}


@planted(RECURSION_FAULTS)
def test_planted_fault(fault):
    form = fault[0].__name__
    cell, _ = form.split("_")
    found = getattr(mutated(*fault), form)(*example(cell))
    assert_seen(found, expected(cell, *example(cell), COSTS["total"]))


DOUBLE_SUM_FAULTS = {
    lstm.lstm_double_sum: {
        "k from 2": ("range(1, t + 1)", "range(2, t + 1)"),
        "k up to t - 1": ("range(1, t + 1)", "range(1, t)"),
        "k beyond t": ("range(1, t + 1)", "range(1, T + 1)"),
        "one Jacobian too few": ("product(J, t, k)", "product(J, t, k + 1)"),
        "one Jacobian too many": ("product(J, t, k)", "product(J, t, k - 1)"),
    },
    lstm.lstm_jacobians: {
        "h alone": ("axis=1), ds_da", "axis=1).at[len(f) :].set(0), ds_da"),
        "without the path from c to c": ("jnp.diag(f)]", "0 * jnp.diag(f)]"),
        "without the path from h to c": ("[ds_dh_tm1,", "[ds_dh_tm1.at[len(f) :].set(0),"),
        "without the path from c to h": ("jnp.diag(dh_dc * f)", "0 * jnp.diag(f)"),
        "without the path from h to h": ("[ds_dh_tm1,", "[ds_dh_tm1.at[: len(f)].set(0),"),
        "Jacobians transposed": ("axis=1), ds_da", "axis=1).T, ds_da"),
    },
    jacobians.product: {
        "Jacobians multiplied in the order of time": ("J_r @ result", "result @ J_r"),
    },
}


@planted(DOUBLE_SUM_FAULTS)
def test_planted_fault_in_the_double_sum(fault):
    found = mutated(*fault, user=lstm).lstm_double_sum(*example("lstm"))
    assert_seen(found, expected("lstm", *example("lstm"), COSTS["total"]))


# --- bad input -----------------------------------------------------------------------------------

LSTM, GRU = example("lstm"), example("gru")
REFUSED = {
    "a batch": (
        lambda: derivation.lstm_recursion(*LSTM[:2], np.zeros((T, 2, I)), LSTM[3]),
        "xs: expected one sequence, vectors [T, I] or token ids [T]; got float64[7, 2, 5].",
    ),
    "the parameters of a GRU": (
        lambda: derivation.lstm_double_sum(*GRU),
        "params: expected LSTMParams(w_ih, w_hh, b_h); got GRUParams.",
    ),
    "the parameters of an LSTM": (
        lambda: derivation.gru_scan(LSTM[0], LSTM[2]),
        "params: expected GRUParams(w_ih, w_hh, b_h, b_hn); got LSTMParams.",
    ),
    "no input weights": (
        lambda: derivation.gru_recursion(GRU[0]._replace(w_ih=None), *GRU[1:]),
        "params: expected GRUParams with w_ih; got w_ih = None.",
    ),
    "one state for two": (
        lambda: derivation.lstm_trajectory(*LSTM[:4], LSTM[4].h),
        "state: expected LSTMState(h, c) or None; got float64[4].",
    ),
    "a state of another size, of one array": (
        lambda: derivation.gru_trajectory(*GRU[:4], h0=np.zeros(H + 1)),
        "h0: expected [H] = [4]; got float64[5].",
    ),
    "a state of another size": (
        lambda: derivation.lstm_recursion(*LSTM[:4], LSTMState(np.zeros(H + 1), None)),
        "state.h: expected [H] = [4]; got float64[5].",
    ),
    "a readout of other states": (
        lambda: derivation.gru_recursion(
            GRU[0], GRU[1]._replace(w_ho=np.ones((H + 1, O))), *GRU[2:]
        ),
        "w_ho: expected shape [H, O] = [4, any]; got float64[5, 6].",
    ),
    "t above T": (
        lambda: derivation.lstm_jacobians(LSTM[0], derivation.lstm_trajectory(*LSTM), T + 1),
        "t: expected an integer from 1 to T = 7; got 8.",
    ),
}
test_refused = refused(REFUSED)
