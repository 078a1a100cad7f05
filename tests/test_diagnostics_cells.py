"""Diagnostics of every kind of network, against loops of the tests' own that JAX differentiates."""

import functools
from typing import Any, NamedTuple

import flows
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, B, H, I, O, T, assert_close, together
from cells import CELLS
from cells import Params as OwnParams
from gated import gru_gates, gru_step, lstm_gates, lstm_step
from refusals import refused

import jrnn
from jrnn import diagnostics
from jrnn.cells import StepCotangents
from jrnn.cells.leaky import leaky
from jrnn.types import GRUParams, LeakyParams, LSTMParams, LSTMState, ReadoutParams, RNNParams

# --- networks ------------------------------------------------------------------------------------


class Network(NamedTuple):
    """A kind of network: how the package is told of it, and its step in the words of the tests."""

    kind: type
    blocks: tuple[int, int] = (1, 1)  # of w_ih and of w_hh
    rest: tuple = (1,)  # further parameters: how many H, "unit" in (0, 1), or None
    step: Any = None  # (params, states, x, data) -> states
    states: int = 1
    output: Any = lambda states: states[0]
    options: dict = {}  # noqa: RUF012
    data: bool = False


LEAK, LEARNED_LEAK = (leaky("tanh", "state", learned=learned) for learned in (False, True))


def leaky_step(p, s, x, data):
    return ((1 - p.alpha) * s[0] + p.alpha * jnp.tanh(x @ p.w_ih + s[0] @ p.w_hh + p.b_h),)


def learned_step(p, s, x, data):
    alpha = 1 - jnp.exp(-jnp.exp(-p.log_tau))
    return ((1 - alpha) * s[0] + alpha * jnp.tanh(x @ p.w_ih + s[0] @ p.w_hh + p.b_h),)


def rate_step(p, s, x, data):
    return ((1 - p.alpha) * s[0] + p.alpha * (x @ p.w_ih + jnp.tanh(s[0]) @ p.w_hh + p.b_h),)


def zoneout_step(p, s, x, data):
    return (data * s[0] + (1 - data) * jnp.tanh(x @ p.w_ih + s[0] @ p.w_hh + p.b_h),)


def gated_step(p, s, x, data):
    """Two blocks of x and two of h, in other orders."""
    a, h = x @ p.w_ih, s[0] @ p.w_hh
    f = 1 / (1 + jnp.exp(-a[H:] - h[:H] - p.b_h[:H]))
    n = jnp.tanh(a[:H] + p.b_h[H : 2 * H] + f * (h[H:] + p.b_h[2 * H :]))
    return ((1 - f) * s[0] + f * n,)


def own(name, **options):
    return {"kind": OwnParams, "options": {"cell": CELLS[name]}, **options}


NETWORKS = {
    "elman": Network(
        RNNParams, step=lambda p, s, x, _: (jnp.tanh(x @ p.w_ih + s[0] @ p.w_hh + p.b_h),)
    ),
    "lstm": Network(LSTMParams, (4, 4), (4,), lambda p, s, x, _: lstm_step(p, s, x), states=2),
    "gru": Network(GRUParams, (3, 3), (3, 1), lambda p, s, x, _: gru_step(p, s, x)),
    "leaky": Network(LeakyParams, rest=(1, "unit", None), step=leaky_step, options={"cell": LEAK}),
    "learned leak": Network(
        LeakyParams, rest=(1, None, "unit"), step=learned_step, options={"cell": LEARNED_LEAK}
    ),
    "rate": Network(
        LeakyParams,
        rest=(1, "unit", None),
        step=rate_step,
        output=lambda s: jnp.tanh(s[0]),
        options={"cell": leaky("tanh", "input", learned=False)},
    ),
    "zoneout": Network(rest=(1, None), step=zoneout_step, data=True, **own("zoneout")),
    "gated": Network(blocks=(2, 2), rest=(3, None), step=gated_step, **own("mgu")),
}


def example(name, *, ids=False, batch=True, weights=None, seed=0):
    """The arguments of `gradient_flow`, and its options."""
    rng, network = np.random.default_rng(seed), NETWORKS[name]
    normal = lambda *shape: rng.normal(size=shape)
    lead = (T, B) if batch else (T,)
    X, Y = network.blocks
    parts = {"unit": lambda: rng.uniform(0.2, 0.8, H), None: lambda: None}
    rest = [parts[n]() if n in parts else normal(n * H) for n in network.rest]
    params = network.kind(normal(I, X * H), normal(H, Y * H) / H**0.5, *rest)
    readout = ReadoutParams(normal(H, O), normal(O))
    xs = rng.integers(0, I, lead).astype(np.int32) if ids else normal(*lead, I)
    state = tuple(normal(*lead[1:], H) for _ in range(network.states))
    h0 = LSTMState(*state) if network.states == 2 else state[0]
    data = {"z": rng.uniform(0.2, 0.8, (*lead, H))} if network.data else None
    if weights is not None:
        weights = np.where(rng.integers(0, 4, lead) > 0, rng.uniform(size=lead), 0)
    labels = rng.integers(0, O, lead)
    return (params, readout, xs, labels, h0, data), {"weights": weights, **network.options}


# --- the oracle ----------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def derivatives(name, params, readout, xs, labels, states, data, m):
    """dJ_t/ds_k `[T, B, T, B, S, H]`, and what each step adds to dw_hh `[T, H, Y*H]`."""
    network = NETWORKS[name]

    def losses(ds, w_hhs):
        s, found = states, []
        for t in range(T):
            own = params._replace(w_hh=w_hhs[t])
            s = jax.vmap(network.step, (None, 0, 0, 0))(own, s, xs[t], data[t])
            s = tuple(part + ds[t, :, n] for n, part in enumerate(s))
            log_p = jax.nn.log_softmax(network.output(s) @ readout.w_ho + readout.b_o[None])
            found.append(-m[t] * (log_p * labels[t]).sum(-1))
        return jnp.stack(found)

    n = m.shape[1]
    zero, w_hhs = jnp.zeros((T, n, network.states, H)), jnp.stack([params.w_hh] * T)
    uses = jax.grad(lambda w_hhs: losses(zero, w_hhs).sum())(w_hhs)
    return jax.jacrev(losses)(zero, w_hhs), uses


def oracle(name, arguments, weights):
    """||dJ_t/ds_k|| of each state apart, `[T, T, B, S]`, and the norms of the uses `[T]`."""
    params, readout, xs, labels, h0, data = arguments
    xs = np.eye(I)[xs] if np.issubdtype(xs.dtype, np.integer) else xs
    n = xs[0].size // I
    states = h0 if NETWORKS[name].states == 2 else (h0,)
    jacobian, uses = derivatives(
        name,
        params,
        readout,
        xs.reshape(T, n, I),
        np.eye(O)[labels].reshape(T, n, O),
        tuple(s.reshape(n, H) for s in states),
        np.zeros((T, n, H)) if data is None else data["z"].reshape(T, n, H),
        np.ones((T, n)) if weights is None else weights.reshape(T, n),
    )
    jacobian = np.asarray(jacobian)
    norms = np.stack([np.linalg.norm(jacobian[:, b, :, b], axis=-1) for b in range(n)], 2)
    return norms, np.linalg.norm(uses, axis=(1, 2))


def together_norm(norms):
    return np.sqrt((norms**2).sum(-1))


CASES = [
    pytest.param("lstm", {}, marks=pytest.mark.thorough),
    ("lstm", {"batch": False, "ids": True}),
    pytest.param("lstm", {"weights": "floats"}, marks=pytest.mark.thorough),
    pytest.param("gru", {}, marks=pytest.mark.thorough),
    pytest.param(
        "gru", {"batch": False, "ids": True, "weights": "floats"}, marks=pytest.mark.thorough
    ),
    pytest.param("leaky", {}, marks=pytest.mark.thorough),
    pytest.param("learned leak", {"batch": False}, marks=pytest.mark.thorough),
    ("rate", {}),
    pytest.param("zoneout", {"weights": "floats"}, marks=pytest.mark.thorough),
    pytest.param("zoneout", {"batch": False}, marks=pytest.mark.thorough),
    pytest.param("gated", {"ids": True}, marks=pytest.mark.thorough),
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_gradient_flow_and_influence(name, case):
    arguments, options = example(name, **case)
    norms, uses = oracle(name, arguments, options["weights"])
    percentiles, counts = flows.percentiles(together_norm(norms), options["weights"])
    found = diagnostics.gradient_flow(*arguments, **options)
    assert_close(tuple(found), (np.arange(T), percentiles, uses, counts))
    if case.get("batch") is False:
        table = diagnostics.influence(*arguments, **options)
        assert_close(table, together_norm(norms)[..., 0])


def test_h_alone_is_another_curve():
    """Of an LSTM the gradient with respect to c is a part that the comparison would miss."""
    arguments, options = example("lstm")
    norms, _ = oracle("lstm", arguments, None)
    found = diagnostics.gradient_flow(*arguments, **options).percentiles
    h_alone, _ = flows.percentiles(norms[..., 0], None)
    assert_close(found[:, 0], h_alone[:, 0])  # a loss reads h
    assert (found[:, 1:] > 1.01 * h_alone[:, 1:]).all()


@pytest.mark.parametrize(
    "name",
    [
        "lstm",
        "rate",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("gru", "zoneout")),
    ],
)
def test_exponents_add_up_to_the_determinants(name):
    (params, _, xs, _, h0, data), options = example(name, batch=False)
    network = NETWORKS[name]
    states = h0 if network.states == 2 else (h0,)

    def step(flat, x, data):
        return jnp.concatenate(network.step(params, jnp.split(flat, network.states), x, data))

    step_and_jacobian = together(step, jax.jacrev(step))
    flat, logs = np.concatenate(states), []
    for t in range(T):
        flat, jacobian = step_and_jacobian(flat, xs[t], data["z"][t] if data else xs[t])
        logs.append(np.linalg.slogdet(jacobian)[1])
    n, cell = network.states * H, options.get("cell")
    found = diagnostics.lyapunov_exponents(params, xs, h0, data, n=n, warmup=2, cell=cell)
    np.testing.assert_allclose(found.sum(), np.mean(logs[2:]), rtol=1e-9)


def test_the_exponents_of_open_gates_are_those_of_the_forget_gate():
    """Without weights c changes by f alone, and h depends on c alone: half of them are -inf."""
    f = np.array([0.9, 0.5, 0.8, 0.99])
    b_h = np.concatenate([np.zeros(H), np.log(f / (1 - f)), np.zeros(2 * H)])
    params = LSTMParams(np.zeros((I, 4 * H)), np.zeros((H, 4 * H)), b_h)
    found = diagnostics.lyapunov_exponents(params, np.zeros((40, I)), n=2 * H, warmup=30)
    np.testing.assert_allclose(found[:H].sum(), np.log(f).sum(), atol=1e-6)
    np.testing.assert_allclose(found[0], np.log(0.99), atol=1e-3)
    assert np.isneginf(found[H:]).all()


# --- gates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step", "gates", "kind"),
    [
        ("lstm", lstm_step, lstm_gates, jrnn.derivation.LSTMGates),
        ("gru", gru_step, gru_gates, jrnn.derivation.GRUGates),
    ],
)
def test_gates(name, step, gates, kind):
    (params, _, xs, _, h0, _), _ = example(name)
    found = diagnostics.gates(params, xs, h0)
    assert type(found) is kind
    states = h0 if name == "lstm" else (h0,)
    at = together(*(jax.vmap(f, (None, 0, 0)) for f in (gates, step)))
    for t in range(T):
        want, states = at(params, states, xs[t])
        assert_close(tuple(gate[t] for gate in found), want)
    one = diagnostics.gates(params, xs[:, 1], jax.tree.map(lambda s: s[1], h0))
    assert_close(tuple(one), tuple(gate[:, 1] for gate in found), LAW_RTOL)


def test_gates_of_a_cell_of_ones_own():
    """With and without an adjoint: the kernel keeps other things for it."""

    def gates(blocks):
        return jax.nn.sigmoid(blocks[0]), jnp.tanh(blocks[1])

    def step(gates, before, unit, data):
        return (before[0] + gates[0] * (gates[1] - before[0]),)

    blocks = {"x_blocks": (0, 1), "h_blocks": (0, 1)}
    cell = jrnn.Cell("two", step, gates=gates, params=OwnParams, **blocks)
    rng = np.random.default_rng(0)
    params = OwnParams(rng.normal(size=(I, 2 * H)), rng.normal(size=(H, 2 * H)), None)
    xs = rng.normal(size=(T, I))
    z, n = diagnostics.gates(params, xs, cell=cell)
    _, hs = jrnn.unroll(cell, params, xs)
    before = np.concatenate([np.zeros((1, H)), hs[:-1]])
    assert_close(before + z * (n - before), hs)
    assert ((z > 0) & (z < 1)).all()


@pytest.mark.parametrize("kind", [LSTMParams, GRUParams, LeakyParams])
def test_gates_of_a_cell_of_ones_own_with_parameters_of_the_package(kind):
    """The class of the parameters does not say what the gates are."""
    cell = jrnn.Cell(
        "one gate",
        lambda gates, before, unit, data: gates,
        gates=lambda blocks: (jax.nn.sigmoid(blocks[0]),),
        unit=("alpha",) if kind is LeakyParams else ("b_hn",) if kind is GRUParams else (),
        params=kind,
    )
    rng = np.random.default_rng(0)
    rest = [np.full(H, 0.5)] * (len(kind._fields) - 3)
    params = kind(rng.normal(size=(I, H)), rng.normal(size=(H, H)), None, *rest)
    params = params._replace(log_tau=None) if kind is LeakyParams else params
    xs = rng.normal(size=(T, I))
    found = diagnostics.gates(params, xs, cell=cell)
    assert type(found) is tuple
    assert_close(found[0], jrnn.unroll(cell, params, xs)[1])


def test_gates_of_a_cell_whose_adjoint_reads_none():
    def adjoint(d_after, gates, before, unit, data, after):
        return StepCotangents(((1 - after[0] ** 2) * d_after[0],))

    cell = jrnn.Cell(
        "tanh",
        lambda gates, before, unit, data: (gates[0],),
        adjoint,
        gates=lambda blocks: (jnp.tanh(blocks[0]),),
        adjoint_reads_blocks=False,
        params=OwnParams,
    )
    rng = np.random.default_rng(0)
    params = OwnParams(rng.normal(size=(I, H)), rng.normal(size=(H, H)), None)
    xs = rng.normal(size=(T, I))
    (found,) = diagnostics.gates(params, xs, cell=cell)
    assert_close(found, jrnn.unroll(cell, params, xs)[1])


def test_half_precision_is_computed_in_float32():
    (params, readout, xs, labels, h0, _), _ = example("lstm")
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (params, readout, xs, h0))
    params, readout, xs, h0 = half
    assert diagnostics.gates(params, xs, h0).f.dtype == np.float32
    assert diagnostics.gradient_flow(params, readout, xs, labels, h0).uses.dtype == np.float32


# --- bad input -----------------------------------------------------------------------------------

LSTM, _ = example("lstm")
ELMAN, _ = example("elman")
OWN, _ = example("zoneout")
STACK = jrnn.StackParams((jrnn.LayerParams(LSTM[0], None, None),))
REFUSED = {
    "a cell that is not given": (
        lambda: diagnostics.gradient_flow(*OWN),
        "params: expected RNNParams, LSTMParams, GRUParams, or those of cell; got Params.",
    ),
    "data that is not given": (
        lambda: diagnostics.gradient_flow(*OWN[:-1], cell=CELLS["zoneout"]),
        "data: expected a dict of z; got NoneType.",
    ),
    "an activation of an LSTM": (
        lambda: diagnostics.gradient_flow(*LSTM, activation="relu"),
        "activation: expected None, since the cell lstm has its own; got relu.",
    ),
    "one state for two": (
        lambda: diagnostics.gradient_flow(*LSTM[:4], LSTM[4].h),
        "h0: expected LSTMState(h, c) or None; got float64[3, 4].",
    ),
    "too many exponents": (
        lambda: diagnostics.lyapunov_exponents(LSTM[0], LSTM[2][:, 0], n=2 * H + 1),
        "n: expected an integer from 1 to 8; got 9. A state of size 2H = 8 has 8 exponents.",
    ),
    "gates of an Elman network": (
        lambda: diagnostics.gates(ELMAN[0], ELMAN[2]),
        "params: expected LSTMParams, GRUParams, or those of a cell with gates; "
        "got RNNParams. An Elman or leaky network has no gates.",
    ),
    "gates of a leaky network": (
        lambda: diagnostics.gates(example("leaky")[0][0], ELMAN[2], cell=LEAK),
        "got LeakyParams. An Elman or leaky network has no gates.",
    ),
    "gates of a stack": (
        lambda: diagnostics.gates(STACK, LSTM[2]),
        "params: expected the parameters of one network; got StackParams. ",
    ),
    "the flow of a stack": (
        lambda: diagnostics.gradient_flow(STACK, *LSTM[1:4]),
        "params: expected the parameters of one network; got StackParams. "
        "Of a stack: trajectory, fixed_points, lyapunov_exponents.",
    ),
    "gates, rank of xs": (
        lambda: diagnostics.gates(LSTM[0], np.zeros(T)),
        "xs: expected vectors [T, I] or [T, B, I]; got float64[7]. ",
    ),
}
test_refused = refused(REFUSED)
