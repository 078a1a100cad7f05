"""LSTM and GRU derived by hand, against loops of the tests' own that JAX differentiates."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import LAW_RTOL, RTOL, H, I, O, T, assert_close, differences, together
from compilations import assert_second_calls_compile_nothing
from gated import gru_step, lstm_step

import jrnn
from jrnn import derivation
from jrnn.derivation import GRUGradients, LSTMGradients
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


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


@dataclass(frozen=True)
class LSTMCopy:
    """(25) once more in NumPy, with a place for each fault."""

    q: Callable = lambda dh, dc, o, tanh_c: dc + dh * o * (1 - tanh_c**2)
    delta_i: Callable = lambda q, i, g: q * g * i * (1 - i)
    c_of_f: Callable = lambda c_tm1, c: c_tm1
    delta_f: Callable = lambda q, c, f: q * c * f * (1 - f)
    delta_g: Callable = lambda q, i, g: q * i * (1 - g**2)
    delta_o: Callable = lambda dh, tanh_c, o: dh * tanh_c * o * (1 - o)
    dh: Callable = lambda delta, w_hh: delta @ w_hh.T
    dc: Callable = lambda q, f: q * f
    order: tuple = (0, 1, 2, 3)
    left: Callable = lambda h_tm1, h: h_tm1

    def __call__(self, params, readout, xs, labels, state):
        steps, (h, c) = [], state
        for x in xs:
            i, f, g, o = np.split(x @ params.w_ih + h @ params.w_hh + params.b_h, 4)
            i, f, g, o, before = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o), (h, c)
            c = f * c + i * g
            h = o * np.tanh(c)
            steps.append((*before, i, f, g, o, h, c))
        dh = dc = np.zeros(H)
        dw_ih, dw_hh, db = np.zeros((I, 4 * H)), np.zeros((H, 4 * H)), np.zeros(4 * H)
        for t in reversed(range(T)):
            h_tm1, c_tm1, i, f, g, o, h, c = steps[t]
            p = np.exp(h @ readout.w_ho + readout.b_o)
            dh = dh + (p / p.sum() - labels[t]) @ readout.w_ho.T
            q = self.q(dh, dc, o, np.tanh(c))
            deltas = (
                self.delta_i(q, i, g),
                self.delta_f(q, self.c_of_f(c_tm1, c), f),
                self.delta_g(q, i, g),
                self.delta_o(dh, np.tanh(c), o),
            )
            delta = np.concatenate([deltas[n] for n in self.order])
            dw_ih += np.outer(xs[t], delta)
            dw_hh += np.outer(self.left(h_tm1, h), delta)
            db += delta
            dh, dc = self.dh(delta, params.w_hh), self.dc(q, f)
        return LSTMParams(dw_ih, dw_hh, db), LSTMState(dh, dc)


@dataclass(frozen=True)
class GRUCopy:
    """(27) once more in NumPy, with a place for each fault."""

    delta_n: Callable = lambda dh, z, n: dh * (1 - z) * (1 - n**2)
    delta_r: Callable = lambda delta_n, u, r: delta_n * u * r * (1 - r)
    u_of_r: Callable = lambda u, b_hn: u
    delta_z: Callable = lambda dh, h_tm1, n, z: dh * (h_tm1 - n) * z * (1 - z)
    delta_u: Callable = lambda delta_n, r: delta_n * r
    of_state: Callable = lambda r, z, n, u: (r, z, u)
    dh: Callable = lambda delta, w_hh: delta @ w_hh.T
    beside: Callable = lambda dh, z: dh * z
    db_hn: Callable = lambda delta_n, delta_u: delta_u

    def __call__(self, params, readout, xs, labels, state):
        steps, h = [], state
        for x in xs:
            (x_r, x_z, x_n), (h_r, h_z, h_n) = (
                np.split(a, 3) for a in (x @ params.w_ih + params.b_h, h @ params.w_hh)
            )
            r, z, u, before = sigmoid(x_r + h_r), sigmoid(x_z + h_z), h_n + params.b_hn, h
            n = np.tanh(x_n + r * u)
            h = (1 - z) * n + z * h
            steps.append((before, r, z, n, u, h))
        dh = np.zeros(H)
        dw_ih, dw_hh = np.zeros((I, 3 * H)), np.zeros((H, 3 * H))
        db_h, db_hn = np.zeros(3 * H), np.zeros(H)
        for t in reversed(range(T)):
            h_tm1, r, z, n, u, h = steps[t]
            p = np.exp(h @ readout.w_ho + readout.b_o)
            dh = dh + (p / p.sum() - labels[t]) @ readout.w_ho.T
            delta_n = self.delta_n(dh, z, n)
            delta_r = self.delta_r(delta_n, self.u_of_r(u, params.b_hn), r)
            delta_z, delta_u = self.delta_z(dh, h_tm1, n, z), self.delta_u(delta_n, r)
            of_input = np.concatenate([delta_r, delta_z, delta_n])
            of_state = np.concatenate(self.of_state(delta_r, delta_z, delta_n, delta_u))
            dw_ih, db_h = dw_ih + np.outer(xs[t], of_input), db_h + of_input
            dw_hh, db_hn = dw_hh + np.outer(h_tm1, of_state), db_hn + self.db_hn(delta_n, delta_u)
            dh = self.dh(of_state, params.w_hh) + self.beside(dh, z)
        return GRUParams(dw_ih, dw_hh, db_h, db_hn), dh


RECURSION_FAULTS = {
    "lstm": {
        "the path through tanh(c) forgotten": {"q": lambda dh, dc, o, tanh_c: dc},
        "tanh' missing": {"q": lambda dh, dc, o, tanh_c: dc + dh * o},
        "o missing": {"q": lambda dh, dc, o, tanh_c: dc + dh * (1 - tanh_c**2)},
        "dc of later steps forgotten": {"q": lambda dh, dc, o, tanh_c: dh * o * (1 - tanh_c**2)},
        "dc without f": {"dc": lambda q, f: q},
        "dc with 1 - f": {"dc": lambda q, f: q * (1 - f)},
        "c_t for c_{t-1}": {"c_of_f": lambda c_tm1, c: c},
        "f' missing": {"delta_f": lambda q, c, f: q * c},
        "i' missing": {"delta_i": lambda q, i, g: q * g},
        "g as a sigmoid": {"delta_g": lambda q, i, g: q * i * g * (1 - g)},
        "i missing": {"delta_g": lambda q, i, g: q * (1 - g**2)},
        "delta_o of dc": {"delta_o": lambda dh, tanh_c, o: tanh_c * o * (1 - o)},
        "blocks i g f o": {"order": (0, 2, 1, 3)},
        "w_hh not transposed": {
            "dh": lambda delta, w: delta @ np.hstack([b.T for b in blocks(w)]).T
        },
        "h_t for h_{t-1}": {"left": lambda h_tm1, h: h},
        "no step back": {"dh": lambda delta, w_hh: np.zeros(H)},
    },
    "gru": {
        "1 - z missing": {"delta_n": lambda dh, z, n: dh * (1 - n**2)},
        "z for 1 - z": {"delta_n": lambda dh, z, n: dh * z * (1 - n**2)},
        "n' missing": {"delta_n": lambda dh, z, n: dh * (1 - z)},
        "b_hn outside of r": {"u_of_r": lambda u, b_hn: u - b_hn},
        "r' missing": {"delta_r": lambda delta_n, u, r: delta_n * u},
        "n - h_{t-1}": {"delta_z": lambda dh, h, n, z: dh * (n - h) * z * (1 - z)},
        "n missing": {"delta_z": lambda dh, h, n, z: dh * h * z * (1 - z)},
        "r outside of delta_u": {"delta_u": lambda delta_n, r: delta_n},
        "delta_n for delta_u": {"of_state": lambda r, z, n, u: (r, z, n)},
        "b_hn as a bias of n": {"db_hn": lambda delta_n, delta_u: delta_n},
        "z dh forgotten": {"beside": lambda dh, z: np.zeros(H)},
        "(1 - z) dh": {"beside": lambda dh, z: dh * (1 - z)},
        "w_hh not transposed": {
            "dh": lambda delta, w: delta @ np.hstack([b.T for b in blocks(w)]).T
        },
        "no step back": {"dh": lambda delta, w_hh: np.zeros(H)},
    },
}
COPIES = {"lstm": LSTMCopy, "gru": GRUCopy}


def blocks(w_hh):
    return np.split(w_hh, w_hh.shape[1] // H, axis=1)


def wanted(cell):
    """The gradient of the parameters and of the state, which the copies compute."""
    d = expected(cell, *example(cell), COSTS["total"])
    return d.params, d.state


@pytest.mark.parametrize("cell", COPIES)
def test_the_copy_without_a_fault(cell):
    assert_close(COPIES[cell]()(*example(cell)), wanted(cell))


@pytest.mark.parametrize(
    ("cell", "fault"),
    [(cell, fault) for cell, faults in RECURSION_FAULTS.items() for fault in faults],
)
def test_planted_fault(cell, fault):
    found = COPIES[cell](**RECURSION_FAULTS[cell][fault])(*example(cell))
    assert max(differences(found, wanted(cell)).values()) > 10 * RTOL


@functools.cache
def lstm_factors():
    """The trajectory of the example, ds_t/ds_{t-1} and ds_t/da_t."""
    params, *data = example("lstm")
    run = derivation.lstm_trajectory(params, *data)
    both = (derivation.lstm_jacobians(params, run, t) for t in range(1, T + 1))
    return jax.device_get((run, *zip(*both, strict=True)))


def double_sum(*, first=1, last=lambda t: t, quarters=lambda J: J, order=1, offset=1):
    """dw_hh of an LSTM by the double sum, with a place for each fault."""
    run, J, ds_da = lstm_factors()
    dw_hh = np.zeros((H, 4 * H))
    for t in range(1, T + 1):
        for k in range(first, last(t) + 1):
            product = np.eye(2 * H)
            for r in range(k + offset, t + 1):
                J_r = quarters(J[r - 1].copy())
                product = J_r @ product if order == 1 else product @ J_r
            dJ_ds = np.concatenate([run.dhs[t - 1], np.zeros(H)])
            dw_hh += np.outer(run.h_tm1s[k - 1], dJ_ds @ product @ ds_da[k - 1])
    return {"w_hh": dw_hh}


def without(rows, columns):
    def quarters(J):
        J[rows, columns] = 0
        return J

    return quarters


OF_H, OF_C = slice(None, H), slice(H, None)
DOUBLE_SUM_FAULTS = {
    "Jacobians multiplied in the order of time": {"order": -1},
    "k from 2": {"first": 2},
    "k up to t - 1": {"last": lambda t: t - 1},
    "k beyond t": {"last": lambda t: T},
    "one Jacobian too few": {"offset": 2},
    "one Jacobian too many": {"offset": 0},
    "h alone": {"quarters": without(OF_C, slice(None))},
    "without the path from c to c": {"quarters": without(OF_C, OF_C)},
    "without the path from h to c": {"quarters": without(OF_C, OF_H)},
    "without the path from c to h": {"quarters": without(OF_H, OF_C)},
    "without the path from h to h": {"quarters": without(OF_H, OF_H)},
    "Jacobians transposed": {"quarters": lambda J: J.T},
}


def test_the_double_sum_without_a_fault():
    assert_close(double_sum(), {"w_hh": wanted("lstm")[0].w_hh})


@pytest.mark.parametrize("fault", DOUBLE_SUM_FAULTS)
def test_planted_fault_in_the_double_sum(fault):
    found = double_sum(**DOUBLE_SUM_FAULTS[fault])
    want = {"w_hh": wanted("lstm")[0].w_hh}
    assert max(differences(found, want).values()) > 10 * RTOL


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
        lambda: derivation.lstm_jacobians(LSTM[0], lstm_factors()[0], T + 1),
        "t: expected an integer from 1 to T = 7; got 8.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, text = REFUSED[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert text in str(error.value)
