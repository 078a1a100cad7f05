"""Inside a network: fixed points, Lyapunov spectra and components that are known in advance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import LAW_RTOL, assert_close, make_case, parameters
from cells import CELLS
from cells import Params as OwnParams
from refusals import refused

import jrnn
from jrnn import diagnostics
from jrnn.cells.leaky import leaky

RATE = leaky("relu", "input", learned=False)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def with_fixed_points(points, b):
    """An Elman network of 3 units, tanh(s W + b) = s for three points s."""
    w_hh = np.linalg.solve(points, np.arctanh(points) - b)
    return jrnn.RNNParams(np.zeros((2, 3)), w_hh, b)


POINTS = np.array([[0.5, -0.3, 0.2], [-0.6, 0.4, 0.1], [0.1, 0.7, -0.5]])
NETWORK = with_fixed_points(POINTS, np.array([0.1, -0.2, 0.05]))
STARTS = normal(20, 10, 3, seed=1)
find = functools.partial(diagnostics.fixed_points, NETWORK, np.zeros(2), STARTS)


def sorted_values(eigenvalues):
    return np.sort_complex(np.round(eigenvalues, 7))


# --- fixed points --------------------------------------------------------------------------------


def test_fixed_points_of_three_units_that_are_known():
    found = find()
    for s in POINTS:
        i = np.abs(found.states - s).max(1).argmin()
        np.testing.assert_allclose(found.states[i], s, rtol=0, atol=1e-8)
        jacobian = ((1 - s**2) * NETWORK.w_hh).T  # (out, in)
        np.testing.assert_allclose(found.jacobians[i], jacobian, atol=1e-8)
        expected = np.linalg.eigvals(jacobian)
        assert found.unstable[i] == (np.abs(expected) > 1).sum()
        np.testing.assert_allclose(
            sorted_values(found.eigenvalues[i]), sorted_values(expected), atol=1e-6
        )
    # The others are fixed points as well, each reported once.
    w, b, s = NETWORK.w_hh, NETWORK.b_h, found.states
    np.testing.assert_allclose(np.tanh(s @ w + b), s, atol=1e-12)
    apart = np.abs(s[:, None] - s[None]).max(-1) + np.eye(len(s))
    assert apart.min() > 1e-3
    assert (found.speeds < 1e-25).all()
    assert found.starts.sum() == 200
    assert_close(found.outputs, found.states)
    moduli = np.abs(found.eigenvalues)
    assert (np.diff(moduli, axis=1) <= 0).all()
    assert (np.diff(found.unstable) >= 0).all()
    assert 0 in found.unstable
    assert found.unstable.max() == 3


@pytest.mark.parametrize("gap", [2e-6, -2e-4])
def test_where_a_network_nearly_stands_still_is_no_fixed_point(gap):
    """h = tanh(2 k + b) of the mean k touches k at k = -0.7; moved by `gap` it misses or crosses.

    Each variable moves by 2e-6 in a step, which may be rounding in float32; but all move alike.
    """
    k, N = -np.sqrt(0.5), 100
    b = np.arctanh(k) - 2 * k + 2 * gap
    w_hh, b_h, rest = (np.full(n, x, np.float32) for n, x in (((N, N), 2 / N), (N, b), (N, k)))
    params = jrnn.RNNParams(None, w_hh, b_h)
    starts = rest + np.float32([[0], [0.02], [-0.02]])
    found = diagnostics.fixed_points(params, np.zeros_like(b_h), starts)
    means = np.sort(found.states.mean(-1))
    np.testing.assert_allclose(means, [] if gap > 0 else [-0.71883, -0.69505], atol=1e-4)


def test_slow_points_where_a_direction_does_not_move_at_all():
    """dF/ds - I is 0 there."""
    cell = leaky("identity", "state", learned=False)
    w_hh, alpha = np.eye(3), np.full(3, 0.5)
    params = jrnn.LeakyParams(None, w_hh, None, alpha, None)
    x, starts = np.array([1e-3, 0, 0]), normal(4, 3)
    found = diagnostics.fixed_points(params, x, starts, speed=1e-6, cell=cell)
    np.testing.assert_allclose(found.speeds, 0.5 * (0.5e-3) ** 2, rtol=1e-6)
    assert found.starts.sum() == 4
    assert len(diagnostics.fixed_points(params, x, starts, cell=cell).states) == 0


def test_padding_is_no_place_to_start():
    lengths = jnp.array([20, 2, 9, 0])
    mask = jrnn.sequence_mask(lengths, 20)
    padded = jnp.where(mask[..., None], STARTS[:, :4], jnp.nan)
    find_from = functools.partial(diagnostics.fixed_points, NETWORK, np.zeros(2))
    found, expected = find_from(padded, mask=mask), find_from(STARTS[:, :4][np.asarray(mask)])
    assert found.starts.sum() == lengths.sum()
    assert_close(tuple(found), tuple(expected))
    stack = jrnn.StackParams((jrnn.LayerParams(NETWORK, None, None),))
    alone = diagnostics.fixed_points(stack, np.zeros(2), (padded,), mask=mask)
    assert_close((alone.states[0], alone.starts), (found.states, found.starts))


def test_stable_points_are_those_where_the_network_ends():
    found = find()
    ends, _ = jrnn.rnn(NETWORK, np.zeros((2000, 200, 2)), STARTS.reshape(-1, 3))
    stable = found.states[found.unstable == 0]
    apart = np.abs(np.asarray(ends)[:, None] - stable[None]).max(-1)
    at_rest = np.abs(np.tanh(ends @ NETWORK.w_hh + NETWORK.b_h[None]) - ends).max(1) < 1e-10
    assert at_rest.any()
    np.testing.assert_allclose(apart.min(1)[at_rest], 0, atol=1e-8)
    assert set(apart.argmin(1)[at_rest]) <= set(range(len(stable)))


@pytest.mark.thorough
def test_another_optimiser_other_starts_and_noise():
    adam = optax.adam(0.05)  # as an optimiser that takes no more arguments than these
    plain = optax.GradientTransformation(adam.init, lambda g, s, p=None: adam.update(g, s, p))
    few = find(starts=12, optimizer=plain, steps=300, key=jax.random.key(1))
    assert few.starts.sum() <= 12
    np.testing.assert_allclose(
        np.tanh(few.states @ NETWORK.w_hh + NETWORK.b_h), few.states, atol=1e-12
    )
    one_place = diagnostics.fixed_points(NETWORK, np.zeros(2), POINTS[:1].repeat(40, 0), steps=0)
    assert one_place.starts.tolist() == [40]
    spread = diagnostics.fixed_points(NETWORK, np.zeros(2), POINTS[:1].repeat(40, 0), noise=1.0)
    assert len(spread.starts) > 3


@pytest.mark.thorough
def test_slow_points_lie_along_a_line():
    """A leaky integrator: along one direction its states shrink by 0.1 % in a step."""
    line = np.array([0.6, 0.8, 0.0])
    w_hh = 0.2 * np.eye(3) + 0.799 * np.outer(line, line)
    params, starts = jrnn.RNNParams(np.zeros((1, 3)), w_hh, None), 3 * STARTS[0]
    integrate = functools.partial(diagnostics.fixed_points, params, np.zeros(1), starts)
    slow = integrate(speed=1e-5, merge=0.0, activation="identity")
    assert slow.starts.tolist() == [1] * 10
    assert (slow.speeds <= 1e-5).all()
    along = slow.states @ line
    np.testing.assert_allclose(np.square(0.001 * along) / 2, slow.speeds, atol=1e-5)
    assert np.abs(slow.states - along[:, None] * line).max() < np.sqrt(2e-5) / 0.8
    assert np.ptp(along) > 2
    fixed = integrate(activation="identity")
    assert len(fixed.states) == 1
    np.testing.assert_allclose(fixed.states, 0, atol=1e-11)


def find_of_identity(w_hh, b_h, starts, **options):
    """Of three units; compiled once."""
    params = jrnn.RNNParams(np.zeros((1, 3)), w_hh, b_h)
    return diagnostics.fixed_points(params, np.zeros(1), starts, activation="identity", **options)


def test_points_that_are_not_isolated():
    """A perfect integrator: every point of a line is fixed, and I - J is singular."""
    line = np.array([0.6, 0.8, 0.0])
    found = find_of_identity(np.outer(line, line), np.zeros(3), STARTS[0], merge=0.0)
    assert found.starts.tolist() == [1] * 10
    along = found.states @ line
    np.testing.assert_allclose(found.states, along[:, None] * line, atol=1e-12)
    assert not found.unstable.any()  # an eigenvalue of 1 does not grow


def test_a_rate_network_of_two_units_that_inhibit_each_other():
    """(29): v = relu(v) w_hh + b. Both silent units, or equal ones, are the saddle."""
    inhibition, drive, alpha = 2.0, 1.0, 0.2
    params = jrnn.LeakyParams(
        np.eye(2), -inhibition * (1 - np.eye(2)), np.zeros(2), np.full(2, alpha), None
    )
    x = np.full(2, drive)
    starts = normal(40, 2)
    found = diagnostics.fixed_points(params, x, starts, noise=0.1, cell=RATE)
    equal = drive / (1 + inhibition)
    expected = [[drive, drive - inhibition * drive], [drive - inhibition * drive, drive]]
    assert found.unstable.tolist() == [0, 0, 1]
    stable = found.states[np.argsort(-found.states[:2, 0])]
    np.testing.assert_allclose(stable, expected, atol=1e-8)
    np.testing.assert_allclose(found.states[2], [equal, equal], atol=1e-8)
    np.testing.assert_allclose(found.outputs, np.maximum(found.states, 0))
    values = 1 - alpha + alpha * np.array([inhibition, -inhibition])
    np.testing.assert_allclose(found.eigenvalues[2], values, atol=1e-12)
    np.testing.assert_allclose(np.abs(found.eigenvalues[:2]), 1 - alpha, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_slow_network_leaves_its_saddle_slowly(dtype):
    """v = 1.03 tanh(v): around 0 a step of alpha = 0.01 multiplies by 1.0003."""
    one = lambda x: np.full(1, x, dtype)
    params = jrnn.LeakyParams(None, one(1.03)[None], one(0), one(0.01), None)
    starts = np.linspace(-0.5, 0.5, 9, dtype=dtype)[:, None]
    cell = leaky("tanh", "input", learned=False)
    found = diagnostics.fixed_points(params, one(0), starts, cell=cell)
    assert found.unstable.tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.states[2], 0, atol=1e-3)


def test_rounding_of_an_eigenvalue_is_no_instability():
    """That of 1 moves by sqrt(eps) if two coincide, and by eps times the size if they do not."""
    eps = np.finfo(np.float32).eps
    basis = np.linalg.qr(normal(3, 3))[0]
    normal_ones = [basis @ np.diag([1 + d, 0.5, -0.2]) @ basis.T for d in (eps, 1e-4, 1e-2)]
    defective = np.array([[1, 1, 0], [eps, 1, 0], [0, 0, 0.5]])  # 1 + sqrt(eps)
    exactly = np.array([[1 + 1e-4, 1, 0], [0, 1 + 1e-4, 0], [0, 0, 0.5]])
    jacobians = np.array([*normal_ones, defective * (1 - eps), exactly], np.float32)
    values = np.linalg.eigvals(jacobians.astype(np.float64)).astype(complex)
    zeros = np.zeros((5, 3))
    points = diagnostics.FixedPoints(zeros, zeros, zeros[:, 0], jacobians, values, zeros[:, 0])
    assert points.unstable.tolist() == [0, 1, 1, 0, 0]


def held_lstm():
    """Without w_hh: c = i g / (1 - f), with the eigenvalues f and 0."""
    params = parameters(jrnn.init_lstm, 3, 4)._replace(w_hh=np.zeros((4, 16)))
    x = normal(3, seed=8)
    i, f, g, o = np.split(x @ params.w_ih + params.b_h, 4)
    i, f, o = (1 / (1 + np.exp(-a)) for a in (i, f, o))
    c = i * np.tanh(g) / (1 - f)
    return params, x, {}, jrnn.LSTMState(o * np.tanh(c), c), np.concatenate([f, np.zeros(4)])


def held_gru():
    """Without w_hh: h = n, with the eigenvalues z. The input is a token id."""
    params = parameters(jrnn.init_gru, 5, 4)._replace(w_hh=np.zeros((4, 12)))
    r, z, n = np.split(params.w_ih[2] + params.b_h, 3)
    r, z = (1 / (1 + np.exp(-a)) for a in (r, z))
    return params, np.int32(2), {}, np.tanh(n + r * params.b_hn), z


def held_zoneout():
    """Data are held, too: a share z of the state is kept."""
    params, z = (
        OwnParams(normal(3, 4, seed=2), np.zeros((4, 4)), None),
        np.array([0.2, 0.3, 0.6, 0.9]),
    )
    x = normal(3, seed=9)
    options = {"cell": CELLS["zoneout"], "data": {"z": z}}
    return params, x, options, np.tanh(x @ params.w_ih), z


def held_stack():
    """Layers of identities, h = x w_ih + h w_hh, with a residual connection and no bias."""
    layers = [make_case(H=4, I=4, seed=seed, bias=False).params for seed in (1, 2)]
    layers = [p._replace(w_hh=p.w_hh / 4) for p in layers]
    params = jrnn.StackParams(tuple(jrnn.LayerParams(p, None, None) for p in layers))
    x, states, y = normal(4, seed=10), [], None
    y = x
    for p in layers:
        states.append(np.linalg.solve(np.eye(4) - p.w_hh.T, y @ p.w_ih))
        y = y + states[-1]
    values = np.concatenate([np.linalg.eigvals(p.w_hh) for p in layers])
    return params, x, {"activation": "identity", "residual": True}, tuple(states), values


HELD = [held_lstm]
HELD += [pytest.param(x, marks=pytest.mark.thorough) for x in (held_gru, held_stack, held_zoneout)]


@pytest.mark.parametrize("example", HELD)
def test_any_cell(example):
    params, x, options, state, values = example()
    starts = jax.tree.map(lambda s: normal(3, 4, len(s)), state)
    found = diagnostics.fixed_points(params, x, starts, merge=1e-6, **options)
    assert found.starts.tolist() == [12]
    assert jax.tree.structure(found.states) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(found.states), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        sorted_values(found.eigenvalues[0]), sorted_values(values.astype(complex)), atol=1e-6
    )


def test_float32_and_half_precision():
    narrow = lambda tree, dtype: jax.tree.map(lambda x: x.astype(dtype), tree)
    found = diagnostics.fixed_points(*narrow((NETWORK, np.zeros(2), STARTS[:4]), np.float32))
    assert found.states.dtype == np.float32
    for s in POINTS:
        assert np.abs(found.states - s).max(1).min() < 1e-4
    half = narrow((NETWORK, np.zeros(2), STARTS[:4]), jnp.bfloat16)
    assert diagnostics.fixed_points(*half).states.dtype == np.float32


@pytest.mark.usefixtures("float32")
def test_more_steps_than_an_int32_counts():
    network, x, starts = jax.tree.map(np.float32, (NETWORK, np.zeros(2), STARTS[0]))
    found = diagnostics.fixed_points(network, x, starts, steps=10**10)
    assert found.starts.sum() > 0


def test_no_point_at_all():
    """h grows by 1 in every step."""
    found = find_of_identity(np.eye(3), np.ones(3), np.zeros((10, 3)))
    assert found.states.shape == (0, 3)
    assert found.eigenvalues.shape == (0, 3)
    assert found.unstable.tolist() == []


# --- Lyapunov spectra ----------------------------------------------------------------------------


def test_the_spectrum_of_a_linear_stack_is_that_of_its_layers():
    layers, logs = [], []
    for seed, H in ((1, 3), (2, 2)):
        rng = np.random.default_rng(seed)
        values = rng.uniform(0.3, 1.1, H)
        basis = np.linalg.qr(rng.normal(size=(H, H)))[0] + 0.2 * rng.normal(size=(H, H))
        w_hh = np.linalg.inv(basis) @ np.diag(values) @ basis
        layers.append(jrnn.LayerParams(jrnn.RNNParams(np.ones((3, H)), w_hh, None), None, None))
        logs.append(np.log(values))
    found = diagnostics.lyapunov_exponents(
        jrnn.StackParams(tuple(layers)), np.zeros((400, 3)), warmup=300, activation="identity"
    )
    np.testing.assert_allclose(found, -np.sort(-np.concatenate(logs)), atol=1e-6)


def test_the_spectrum_of_a_stack_against_a_loop_of_qr_decompositions():
    """Two layers of tanh with a residual connection; the Jacobian by hand."""
    H, T, warmup = 4, 60, 10
    below, above = (make_case(H=H, I=H, T=T, batch=False, h0="[H]", seed=s) for s in (1, 2))
    one, two = below.params, above.params
    params = jrnn.StackParams(tuple(jrnn.LayerParams(p, None, None) for p in (one, two)))
    found = diagnostics.lyapunov_exponents(
        params, below.xs, (below.h0, above.h0), warmup=warmup, residual=True
    )
    h, g, logs = below.h0, above.h0, []
    q = np.linalg.qr(np.random.default_rng(3).normal(size=(2 * H, 2 * H)))[0]
    for x in below.xs:
        h = np.tanh(x @ one.w_ih + h @ one.w_hh + one.b_h)
        g = np.tanh((h + x) @ two.w_ih + g @ two.w_hh + two.b_h)
        dh, dg = 1 - h**2, 1 - g**2
        dh_dh = dh[:, None] * one.w_hh.T
        jacobian = np.block(
            [
                [dh_dh, np.zeros((H, H))],
                [dg[:, None] * two.w_ih.T @ dh_dh, dg[:, None] * two.w_hh.T],
            ]
        )
        q, r = np.linalg.qr(jacobian @ q)
        logs.append(np.log(np.abs(np.diag(r))))
    np.testing.assert_allclose(found.sum(), np.sum(np.mean(logs[warmup:], 0)), rtol=1e-9)
    np.testing.assert_allclose(found, np.mean(logs[warmup:], 0), atol=0.05)  # other first vectors


def test_the_exponents_of_a_stack_of_one_layer_are_those_of_its_network():
    params, xs = parameters(jrnn.init_lstm, 5, 4), normal(30, 5, seed=3)
    alone = diagnostics.lyapunov_exponents(params, xs, warmup=5)
    assert alone.shape == (8,)
    stack = jrnn.StackParams((jrnn.LayerParams(params, None, None),))
    assert_close(diagnostics.lyapunov_exponents(stack, xs, warmup=5), alone, LAW_RTOL)


# --- states and components -----------------------------------------------------------------------


def test_trajectory():
    lstm, xs = parameters(jrnn.init_lstm, 5, 4), normal(7, 3, 5, seed=4)
    start = jrnn.LSTMState(None, np.ones(4))
    found = diagnostics.trajectory(lstm, xs, start)
    last, hs = jrnn.lstm(lstm, xs, start)
    assert_close(found.h, hs)
    assert_close(found.c[-1], last.c)
    assert_close(found.c[2], jrnn.lstm(lstm, xs[:3], start)[0].c)
    rate = parameters(jrnn.init_leaky, 5, 4, alpha=0.2)._replace(alpha=np.full(4, 0.2))
    v = diagnostics.trajectory(rate, xs[:, 0], cell=RATE)
    v_last, rates = jrnn.leaky(rate, xs[:, 0], leak="input", activation="relu")
    assert_close((v[-1], jnp.maximum(v, 0)), (v_last, rates))
    ids = np.random.default_rng(0).integers(0, 5, (7, 3))
    deep = parameters(jrnn.init_stack, 5, (4, 4), cell="gru", layer_norm=True)
    states = diagnostics.trajectory(deep, ids, inputs="ids")
    h_last, _ = jrnn.stack(deep, ids, inputs="ids")
    assert_close(tuple(s[-1] for s in states), h_last)


def test_principal_components_against_the_covariance():
    states = normal(30, 4, 6, seed=5) @ normal(6, 6, seed=6) + 3
    rows = states.reshape(-1, 6)
    found = diagnostics.principal_components(states)
    variances, directions = np.linalg.eigh(np.cov(rows.T, bias=True))
    np.testing.assert_allclose(found.variances, variances[::-1], rtol=1e-10)
    np.testing.assert_allclose(np.abs(found.directions), np.abs(directions[:, ::-1]), atol=1e-8)
    largest = np.take_along_axis(found.directions, np.abs(found.directions).argmax(0)[None], 0)
    assert (np.asarray(largest) > 0).all()
    assert_close((found.mean, found.total), (rows.mean(0), rows.var(0).sum()))
    projected = diagnostics.project(found, states)
    assert_close(projected, (states - rows.mean(0)) @ np.asarray(found.directions))
    assert_close(projected.reshape(-1, 6).var(0), found.variances)
    two = diagnostics.principal_components(states, 2)
    assert two.directions.shape == (6, 2)
    assert_close(two.total, found.total)
    assert diagnostics.project(two, states[3, 1]).shape == (2,)


def test_components_of_padded_sequences_and_of_states_of_two_arrays():
    states = normal(9, 3, 4, seed=7)
    lengths = np.array([9, 2, 5])
    mask = np.arange(9)[:, None] < lengths
    padded = np.where(mask[..., None], states, np.nan)
    found = diagnostics.principal_components(padded, mask=mask)
    assert_close(tuple(found), tuple(diagnostics.principal_components(states[mask])))
    pair = jrnn.LSTMState(states[..., :1], states[..., 1:])
    both = jax.jit(diagnostics.principal_components)(pair)
    assert_close(tuple(both), tuple(diagnostics.principal_components(states)), LAW_RTOL)
    assert_close(diagnostics.project(both, pair), diagnostics.project(both, states))


def test_results_print_on_one_line():
    states = normal(9, 2, 20)
    components = diagnostics.principal_components(states, 2)
    few = components._replace(variances=jnp.array([2.0, 0.5]), total=jnp.array(3.25))
    text = "directions=float64[20, 2], variances=[2.  0.5], total=3.25)"
    assert repr(few).startswith("PrincipalComponents(mean=[")
    assert " ... " in str(few)
    assert str(few).endswith(text)
    values, pair = np.zeros(1), jrnn.LSTMState(np.zeros((1, 3)), np.zeros((1, 3)))
    points = diagnostics.FixedPoints((pair,), pair.h, values, values, values + 0j, values)
    assert repr(points).startswith(
        "FixedPoints(states=(LSTMState(h=float64[1, 3], c=float64[1, 3])), outputs=float64[1, 3], "
    )
    assert "eigenvalues=[0.+0.j], starts=[0.])" in repr(points)
    assert repr(jax.eval_shape(lambda: components)).startswith("PrincipalComponents(mean=Shape")
    shapes = []
    jax.make_jaxpr(lambda c: shapes.append(repr(c)))(components)
    assert shapes[0].endswith("variances=float64[2], total=float64[])")
    flow = diagnostics.GradientFlow(np.arange(30), np.zeros((3, 30)), np.ones(30), None)
    assert repr(flow) == (
        "GradientFlow(lags=[ 0  1  2 ... 27 28 29], percentiles=float64[3, 30], "
        "uses=[1. 1. 1. ... 1. 1. 1.], counts=None)"
    )


# --- bad input -----------------------------------------------------------------------------------

LSTM = parameters(jrnn.init_lstm, 5, 4)
BOTH = parameters(jrnn.init_stack, 5, (4,), bidirectional=True)
DEEP = parameters(jrnn.init_stack, 5, (4, 3))
X5 = np.zeros(5)
REFUSED = {
    "nothing to hold": (
        lambda: diagnostics.fixed_points(NETWORK, None, STARTS),
        "x_t: expected the constant input to hold, a vector [I] or a token id []; got None. "
        "A network has fixed points for a constant input; for none give jnp.zeros(I).",
    ),
    "several steps to hold": (
        lambda: diagnostics.fixed_points(NETWORK, np.zeros((7, 2)), STARTS),
        "x_t: expected one step of one sequence, a vector [I] or a token id []; got float64[7, 2].",
    ),
    "an input of another size": (
        lambda: diagnostics.fixed_points(NETWORK, np.zeros(3), STARTS),
        "x_t: expected vectors [I] or [B, I] with I = 2; got float64[3].",
    ),
    "no states": (
        lambda: diagnostics.fixed_points(NETWORK, np.zeros(2), None),
        "states: expected states [..., H] to start from; got None. "
        "Give those that the network visits: see jrnn.diagnostics.trajectory.",
    ),
    "states of another network": (
        lambda: diagnostics.fixed_points(NETWORK, np.zeros(2), np.zeros((7, 4))),
        "states: expected states [..., H] with H = 3; got float64[7, 4]. ",
    ),
    "h alone of an LSTM": (
        lambda: diagnostics.fixed_points(LSTM, X5, np.zeros((7, 4))),
        "states: expected LSTMState(h, c) or None; got float64[7, 4].",
    ),
    "padding": (
        lambda: diagnostics.fixed_points(NETWORK, np.zeros(2), STARTS * np.nan),
        "states: expected finite numbers; got NaN or inf. Leave the padding out by mask=, ",
    ),
    "padding alone": (
        lambda: diagnostics.fixed_points(
            NETWORK, np.zeros(2), STARTS, mask=np.zeros((20, 10), bool)
        ),
        "mask: expected a step that counts; got False alone. None is all.",
    ),
    "components of padding alone": (
        lambda: diagnostics.principal_components(STARTS, mask=np.zeros((20, 10), bool)),
        "mask: expected a step that counts; got False alone. None is all.",
    ),
    "states of one layer": (
        lambda: diagnostics.fixed_points(DEEP, X5, (np.zeros((7, 4)),)),
        "states: expected a tuple of 2 states, one for each layer; got 1 of them.",
    ),
    "a layer of other starts": (
        lambda: diagnostics.fixed_points(DEEP, X5, (np.zeros((7, 4)), np.zeros((6, 3)))),
        "states: expected arrays [..., H] with equal leading axes; got float64[7, 4], float",
    ),
    "no start": (lambda: find(starts=0), "starts: expected an integer >= 1; got 0."),
    "negative noise": (lambda: find(noise=-1.0), "noise: expected a finite number >= 0; got -1.0."),
    "a negative speed": (
        lambda: find(speed=-1e-9),
        "speed: expected a finite number >= 0; got -1e-09. None finds fixed points.",
    ),
    "a seed for a key": (lambda: find(key=0), "key: expected one random key of JAX; got 0."),
    "a rate for an optimiser": (
        lambda: find(optimizer=0.1),
        "optimizer: expected an optax optimiser; got float. optax.adam(1e-3) is one.",
    ),
    "under jit": (
        lambda: jax.jit(lambda x: diagnostics.fixed_points(NETWORK, x, STARTS))(np.zeros(2)),
        "params, x_t, states, data, mask: expected arrays with values; got traced ones. Call it ",
    ),
    "two directions": (
        lambda: diagnostics.lyapunov_exponents(BOTH, np.zeros((7, 5))),
        "layers[0].backward: expected None; got a network that reads backwards. "
        "Its states depend on the whole sequence: there is no step from one to the next.",
    ),
    "too many exponents of a stack": (
        lambda: diagnostics.lyapunov_exponents(DEEP, np.zeros((7, 5)), n=8),
        "n: expected an integer from 1 to 7; got 8. A state of size N = 7 has 7 exponents.",
    ),
    "a residual connection of one network": (
        lambda: diagnostics.trajectory(LSTM, np.zeros((7, 5)), residual=True),
        "residual: expected False for one network; got True.",
    ),
    "data of a stack": (
        lambda: diagnostics.trajectory(DEEP, np.zeros((7, 5)), None, {"z": X5}),
        "data: expected None for a stack; got dict.",
    ),
    "ragged states": (
        lambda: diagnostics.principal_components((np.zeros((7, 4)), np.zeros((6, 4)))),
        "states: expected arrays [..., H] with equal leading axes; got float64[7, 4], float",
    ),
    "a mask of other states": (
        lambda: diagnostics.principal_components(np.zeros((7, 4)), mask=np.ones(6, bool)),
        "mask: expected bool[7], as states; got bool[6].",
    ),
    "too many components": (
        lambda: diagnostics.principal_components(np.zeros((7, 4)), 5),
        "n: expected an integer from 1 to 4; got 5.",
    ),
    "components of other states": (
        lambda: diagnostics.project(
            diagnostics.principal_components(np.zeros((7, 4))), np.zeros((7, 3))
        ),
        "states: expected as many features as the components have, 4; got 3.",
    ),
    "states for components": (
        lambda: diagnostics.project(STARTS, diagnostics.principal_components(STARTS)),
        "components: expected a PrincipalComponents; got ndarray. "
        "Call jrnn.diagnostics.principal_components.",
    ),
    "a list of states": (
        lambda: diagnostics.project(diagnostics.principal_components(STARTS), [0.0, 1.0, 2.0]),
        "states: expected a JAX or NumPy array; got float.",
    ),
    "two states of other steps": (
        lambda: diagnostics.project(
            diagnostics.principal_components(STARTS), (np.zeros((7, 1)), np.zeros((6, 2)))
        ),
        "states: expected arrays [..., H] with equal leading axes; got float64[7, 1], float",
    ),
}
test_refused = refused(REFUSED)
