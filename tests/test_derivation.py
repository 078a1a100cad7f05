"""Every form of the gradient against the NumPy oracle, and what the sources say of each factor."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import RTOL, H, I, O, T, assert_close, differences, make_case, parameters, together
from compilations import assert_second_calls_compile_nothing
from cover import in_tiers
from mutations import assert_seen, mutated, planted
from refusals import refused

import jrnn
from jrnn import derivation
from jrnn.derivation import Gradients, double_sum, jacobians, recursion, truncated


def kernel(rnn, readout, xs, labels, h0=None, *, weights=None, activation="tanh"):
    """The gradient by `jrnn.rnn`, and beside it by autodiff of a plain scan."""
    return _by_autodiff(jrnn.rnn, rnn, readout, xs, labels, h0, weights, activation)


def autodiff(rnn, readout, xs, labels, h0=None, *, weights=None, activation="tanh"):
    return _by_autodiff(derivation.rnn_scan, rnn, readout, xs, labels, h0, weights, activation)


def _by_autodiff(f, rnn, readout, xs, labels, h0, weights, activation):
    def cost(at):
        _, hs = f(at.rnn, xs, at.h0, activation=activation)
        return jrnn.softmax_cross_entropy(jrnn.readout(at.readout, hs), labels, weights).sum()

    start = jnp.zeros(rnn.w_hh.shape[0], rnn.w_hh.dtype) if h0 is None else h0
    return jax.grad(cost)(Gradients(rnn, readout, start))


def summed(f):
    """The sum over the leading axis of a decomposition."""
    return lambda *args, **options: jax.tree.map(lambda g: g.sum(0), f(*args, **options))


FORMS = {
    "kernel": kernel,
    "double sum": derivation.gradients_double_sum,
    "sum of per step": summed(derivation.gradients_per_step),
    "sum of per use": summed(derivation.gradients_per_use),
    "recursion": derivation.gradients_recursion,
    "sensitivity": derivation.gradients_sensitivity,
    "untruncated window": partial(derivation.gradients_truncated, window=T),
    "untruncated chunk": partial(derivation.gradients_truncated, chunk=T),
    "autodiff": autodiff,
}
COSTS = {"total": np.ones(T), "mean": np.full(T, 1 / T), "last only": np.eye(T)[-1]}


def example(*, bias=True, ids=False, h0="[H]", seed=0, **sizes):
    """One sequence with its readout and labels."""
    case = make_case(batch=False, bias=bias, ids=ids, h0=h0, seed=seed, **sizes)
    rng = np.random.default_rng(seed + 100)
    n, h = case.dhs.shape
    readout = jrnn.ReadoutParams(rng.normal(size=(h, O)), rng.normal(size=O) if bias else None)
    labels = rng.integers(0, O, n) if ids else rng.dirichlet(np.ones(O), n)
    return case.params, readout, case.xs, labels, case.h0


def expected(rnn, readout, xs, labels, h0, weights, activation):
    """The gradient by the oracle's loops."""
    h0 = np.zeros(len(rnn.w_hh)) if h0 is None else h0
    zero = np.zeros_like(h0)
    (_, hs), _ = oracle.rnn(rnn, xs, h0, activation, zero, np.zeros((len(xs), len(zero))))
    logits = hs @ readout.w_ho + (0 if readout.b_o is None else readout.b_o)
    _, d = oracle.cross_entropy(logits, labels, weights, np.ones(len(xs)))
    dhs = d["logits"] @ readout.w_ho.T
    _, dp = oracle.rnn(rnn, xs, h0, activation, zero, dhs)
    dw_ho = sum(np.outer(h, o) for h, o in zip(hs, d["logits"], strict=True))
    db_o = None if readout.b_o is None else d["logits"].sum(0)
    drnn = jrnn.RNNParams(dp["w_ih"], dp["w_hh"], dp.get("b_h"))
    return Gradients(drnn, jrnn.ReadoutParams(dw_ho, db_o), dp["h0"])


# An orthogonal array: every pair of two options occurs, and with each the three costs. Quick: ids
# and vectors, with and without a bias; every activation is in the finite differences.
OPTIONS = [
    ("tanh", True, False, "[H]"),
    ("tanh", False, True, "None"),
    pytest.param("relu", True, False, "None", marks=pytest.mark.thorough),
    pytest.param("relu", False, True, "[H]", marks=pytest.mark.thorough),
    pytest.param("sigmoid", True, True, "[H]", marks=pytest.mark.thorough),
    pytest.param("sigmoid", False, False, "None", marks=pytest.mark.thorough),
    pytest.param("identity", True, True, "None", marks=pytest.mark.thorough),
    pytest.param("identity", False, False, "[H]", marks=pytest.mark.thorough),
]


@pytest.mark.parametrize(("activation", "bias", "ids", "h0"), OPTIONS)
def test_every_form_is_the_gradient(activation, bias, ids, h0):
    args = example(bias=bias, ids=ids, h0=h0)
    of_weights = lambda form: (
        lambda *args: form(*args[:-1], weights=args[-1], activation=activation)
    )
    every_form = together(*map(of_weights, FORMS.values()))
    for cost, weights in COSTS.items():
        want = expected(*args, weights, activation)
        for name, found in zip(FORMS, every_form(*args, weights), strict=True):
            wrong = {k: d for k, d in differences(found, want).items() if not d <= RTOL}
            assert not wrong, (name, cost, wrong)


def test_a_second_call_compiles_nothing():
    args = example(T=5, I=3, H=9)  # sizes of no other test
    forms = {k: f for k, f in FORMS.items() if k != "untruncated chunk"}  # one program with per use
    forms["chunk"] = partial(derivation.gradients_truncated, chunk=2)
    assert_second_calls_compile_nothing({k: partial(f, *args) for k, f in forms.items()})


@in_tiers(activation=list(oracle.ACTIVATIONS), ids=[False, True])
def test_finite_differences(activation, ids):
    args = example(ids=ids)  # relu: every |a| > 1e-3, see the test below
    found = derivation.gradients_finite_difference(*args, activation=activation)
    assert_close(found, expected(*args, None, activation), rtol=1e-6)


def test_finite_differences_of_large_parameters_and_of_few_bits():
    """The step grows with the parameter; it is divided by what is left of it by rounding."""
    for at in np.array([[1e6], [-3e3], [2], [0]], np.float32):
        found = derivation.finite_differences(lambda x: (jnp.square(x) + x).sum(), at)
        np.testing.assert_allclose(found, 2 * at + 1, rtol=2e-3)
    small = derivation.finite_differences(lambda x: 3 * x.sum(), jnp.ones(2, jnp.bfloat16))
    np.testing.assert_allclose(small.astype(np.float32), 3, rtol=0.05)


@pytest.mark.parametrize("ids", [False, True], ids=["vectors", "ids"])
def test_relu_stays_off_its_kink(ids):
    rnn, _, xs, _, h0 = example(ids=ids)
    x = np.eye(I)[xs] if ids else xs
    a, _ = oracle.states(rnn.w_ih, rnn.w_hh, rnn.b_h, x, h0, "relu")
    assert np.abs(a).min() > 1e-3


def test_a_batch_by_vmap():
    many = [example(seed=s) for s in range(3)]
    rnn, readout, *_ = many[0]
    xs, labels, h0 = (np.stack(leaves) for leaves in list(zip(*many, strict=True))[2:])
    forms = derivation.gradients_recursion, derivation.gradients_sensitivity
    mapped = together(*(jax.vmap(form, (None, None, 0, 0, 0)) for form in forms))
    for found in mapped(rnn, readout, xs, labels, h0):
        for b in range(3):
            want = expected(rnn, readout, xs[b], labels[b], h0[b], None, "tanh")
            assert_close(jax.tree.map(lambda g: g[b], found), want)


# --- the two decompositions ----------------------------------------------------------------------


def test_by_loss_is_the_gradient_of_each_loss():
    args = example()
    (found,) = together(derivation.gradients_per_step)(*args)
    for t in range(T):
        want = expected(*args, np.eye(T)[t], "tanh")
        assert_close(jax.tree.map(lambda g: g[t], found), want)


def test_by_use_is_the_gradient_of_each_use():
    """Give every step weights of its own: the gradient of step k's is the term of use k."""
    rnn, readout, xs, labels, h0 = example()
    own = jax.tree.map(lambda w: np.broadcast_to(w, (T, *w.shape)), (rnn, readout))

    def cost(own):
        def step(h, row):
            (rnn, readout), x, y = row
            h = jnp.tanh(x @ rnn.w_ih + h @ rnn.w_hh + rnn.b_h)
            return h, -jnp.vdot(y, jax.nn.log_softmax(h @ readout.w_ho + readout.b_o))

        return jax.lax.scan(step, h0, (own, xs, labels))[1].sum()

    (found,) = together(derivation.gradients_per_use)(rnn, readout, xs, labels, h0)
    assert_close((found.rnn, found.readout), jax.jit(jax.grad(cost))(own))


def test_the_sums_are_equal_and_the_terms_are_not():
    args = example()
    by_loss, by_use = together(derivation.gradients_per_step, derivation.gradients_per_use)(*args)
    assert_close(by_loss.rnn.w_hh.sum(0), by_use.rnn.w_hh.sum(0))
    norms = [np.linalg.norm(g.rnn.w_hh, axis=(1, 2)) for g in (by_loss, by_use)]
    assert np.abs(norms[0] - norms[1]).max() > 0.1 * max(map(np.max, norms))


def test_a_loss_needs_no_label_but_its_own():
    """Wolf: "we'll need access to our labels at time-steps t = 3, 2 and 1" for dJ_3. No."""
    rnn, readout, xs, labels, h0 = example()
    others = labels.copy()
    others[[0, 1]] = labels[[1, 0]]
    f = together(derivation.gradients_per_step)
    (a,), (b,) = (f(rnn, readout, xs, y, h0) for y in (labels, others))
    third = lambda g: jax.tree.map(lambda x: x[2], g)
    assert_close(third(a), third(b), rtol=0.0)
    assert max(differences(a, b).values()) > 0.01


def test_with_a_zero_first_state_the_first_use_of_w_hh_is_nothing():
    rnn, readout, xs, labels, _ = example()
    (found,) = together(derivation.gradients_per_use)(rnn, readout, xs, labels)
    assert not found.rnn.w_hh[0].any()
    assert found.rnn.w_ih[0].any()


# --- Wolf's and the notebook's expansions, term by term ------------------------------------------


def factors(args):
    rnn, readout, xs, labels, h0 = args
    f = jax.device_get(derivation.trajectory(rnn, readout, xs, labels, h0))
    return f, [None, *f.dhs], [None, *map(np.diag, f.dphis)], rnn.w_hh.T


def test_wolf_expands_three_steps():
    """3 + 2 + 1 terms of dJ/dW^hh and dJ/dW^xh."""
    args = example(T=3)
    f, dJ_dh, dh_dz, dz_dh = factors(args)
    paths = {
        (3, 3): dJ_dh[3] @ dh_dz[3],
        (3, 2): dJ_dh[3] @ dh_dz[3] @ dz_dh @ dh_dz[2],
        (3, 1): dJ_dh[3] @ dh_dz[3] @ dz_dh @ dh_dz[2] @ dz_dh @ dh_dz[1],
        (2, 2): dJ_dh[2] @ dh_dz[2],
        (2, 1): dJ_dh[2] @ dh_dz[2] @ dz_dh @ dh_dz[1],
        (1, 1): dJ_dh[1] @ dh_dz[1],
    }
    dW_hh = sum(np.outer(f.h_tm1s[k - 1], path) for (_, k), path in paths.items())
    dW_xh = sum(np.outer(f.xs[k - 1], path) for (_, k), path in paths.items())
    found = derivation.gradients_double_sum(*args)
    assert_close((found.rnn.w_hh, found.rnn.w_ih), (dW_hh, dW_xh))
    (deltas,) = together(derivation.deltas_by_loss)(f, args[0].w_hh)
    for (t, k), path in paths.items():
        assert_close(deltas[t - 1, k - 1], path)


def test_the_notebook_expands_four_steps():
    """L_1 + ... + L_4: 1 + 2 + 3 + 4 terms of dL/dW_xh, the terms k > t being none."""
    args = example(T=4)
    f, dJ_dh, dh_dz, dz_dh = factors(args)
    J = [None, *(d @ dz_dh for d in dh_dz[1:])]  # J[t] = dh_t/dh_{t-1}
    dL = [None] * 5
    x = [None, *f.xs]
    dL[1] = np.outer(x[1], dJ_dh[1] @ dh_dz[1])
    dL[2] = np.outer(x[2], dJ_dh[2] @ dh_dz[2]) + np.outer(x[1], dJ_dh[2] @ J[2] @ dh_dz[1])
    dL[3] = (
        np.outer(x[3], dJ_dh[3] @ dh_dz[3])
        + np.outer(x[2], dJ_dh[3] @ J[3] @ dh_dz[2])
        + np.outer(x[1], dJ_dh[3] @ J[3] @ J[2] @ dh_dz[1])
    )
    dL[4] = (
        np.outer(x[4], dJ_dh[4] @ dh_dz[4])
        + np.outer(x[3], dJ_dh[4] @ J[4] @ dh_dz[3])
        + np.outer(x[2], dJ_dh[4] @ J[4] @ J[3] @ dh_dz[2])
        + np.outer(x[1], dJ_dh[4] @ J[4] @ J[3] @ J[2] @ dh_dz[1])
    )
    assert_close(derivation.gradients_per_step(*args).rnn.w_ih, np.stack(dL[1:]))
    assert_close(derivation.gradients_double_sum(*args).rnn.w_ih, sum(dL[1:]))


# --- Jacobians -----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
def test_state_jacobians(activation):
    rnn, _, xs, _, h0 = example()
    _, hs = jrnn.rnn(rnn, xs, h0, activation=activation)
    options = {"activation": activation}

    def run(h, k, t):
        """h_t from h_k, by the oracle's own definition of a step."""
        phi = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}
        for r in range(k, t):
            a = xs[r] @ rnn.w_ih + h @ rnn.w_hh + rnn.b_h
            h = phi.get(activation, lambda a: a)(a)
        return h

    before = [h0, *hs]
    for t, k in [(1, 0), (4, 3), (T, 2), (T, 0), (3, 3)]:
        product = derivation.state_jacobian_product(rnn, hs, t, k, **options)
        assert_close(product, jax.jacrev(run)(jnp.asarray(before[k]), k, t))
    assert_close(
        derivation.state_jacobian(rnn, hs, 4, **options),
        derivation.state_jacobian_product(rnn, hs, 4, 3, **options),
        rtol=0.0,
    )


def test_a_row_times_the_jacobian_and_its_transpose_times_a_column():
    """Chavan's approaches 1 and 2, and the step of (9): delta w_hh^T, with w_hh not symmetric."""
    rnn, _, xs, _, h0 = example()
    _, hs = jrnn.rnn(rnn, xs, h0)
    dh_3 = np.random.default_rng(0).normal(size=H)
    J_3 = derivation.state_jacobian(rnn, hs, 3)
    delta_3 = (1 - hs[2] ** 2) * dh_3
    assert_close(dh_3 @ J_3, delta_3 @ rnn.w_hh.T)
    assert_close(J_3.T @ dh_3, delta_3 @ rnn.w_hh.T)
    assert np.abs(J_3 @ dh_3 - delta_3 @ rnn.w_hh.T).max() > 0.1


# --- softmax: Chavan's worked example ------------------------------------------------------------

LOGITS, TRUE = np.array([2.0, 1.0, 0.1]), 1
P = np.exp(LOGITS) / np.exp(LOGITS).sum()
ONE_HOT = np.eye(3)[TRUE]


def test_chavans_example():
    np.testing.assert_allclose(P, [0.6590, 0.2424, 0.0986], atol=5e-5)
    found = derivation.logits_derivative(P, ONE_HOT)
    np.testing.assert_allclose(found, [0.6590, -0.7576, 0.0986], atol=5e-5)
    np.testing.assert_allclose(found, P - ONE_HOT, rtol=1e-12)
    np.testing.assert_allclose(derivation.cross_entropy_derivative(P, ONE_HOT), [0, -1 / P[1], 0])


@pytest.mark.parametrize("seed", range(3))
def test_softmax_jacobian_and_the_collapse(seed):
    rng = np.random.default_rng(seed)
    o, y = rng.normal(size=O), rng.normal(size=O)
    p = np.exp(o) / np.exp(o).sum()
    jacobian, dp, do = together(
        lambda p, y: derivation.softmax_jacobian(p),
        derivation.cross_entropy_derivative,
        derivation.logits_derivative,
    )(p, y)
    jacobian_by_jax, dp_by_jax, do_by_jax = together(
        lambda o, p, y: jax.jacrev(jax.nn.softmax)(o),
        lambda o, p, y: jax.grad(lambda p: -y @ jnp.log(p))(p),
        lambda o, p, y: jax.grad(jrnn.softmax_cross_entropy)(o, y),
    )(o, p, y)
    assert_close(jacobian, jacobian_by_jax)
    assert_close(dp, dp_by_jax)
    assert_close(do, do_by_jax)
    assert_close(do, p * y.sum() - y)


@pytest.mark.parametrize("seed", range(3))
def test_what_the_gradient_at_the_logits_says(seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(O))
    d = derivation.logits_derivative(p, np.eye(O)[2])
    assert abs(d.sum()) < 1e-12
    assert d[2] <= 0
    assert (np.delete(d, 2) >= 0).all()
    surer = np.where(np.arange(O) == 4, 5.0, p)
    surer /= surer.sum()  # more confident, and wrong
    assert np.abs(derivation.logits_derivative(surer, np.eye(O)[2])).sum() > np.abs(d).sum()


# --- truncation ----------------------------------------------------------------------------------


def plain_window(rnn, readout, xs, labels, h0, *, window):
    """Each loss differentiated by JAX with the state cut `window` steps before it."""

    def cost(at):
        total = 0.0
        for t in range(len(xs)):
            h = at.h0
            for k in range(t + 1):
                h = jax.lax.stop_gradient(h) if k == t - window + 1 and k > 0 else h
                h = jnp.tanh(xs[k] @ at.rnn.w_ih + h @ at.rnn.w_hh + at.rnn.b_h)
            logits = h @ at.readout.w_ho + at.readout.b_o
            total -= jnp.vdot(labels[t], jax.nn.log_softmax(logits))
        return total

    return jax.grad(cost)(Gradients(rnn, readout, h0))


def plain_chunk(rnn, readout, xs, labels, h0, *, chunk):
    def cost(at):
        total, h = 0.0, at.h0
        for t in range(len(xs)):
            h = jax.lax.stop_gradient(h) if t % chunk == 0 and t > 0 else h
            h = jnp.tanh(xs[t] @ at.rnn.w_ih + h @ at.rnn.w_hh + at.rnn.b_h)
            logits = h @ at.readout.w_ho + at.readout.b_o
            total -= jnp.vdot(labels[t], jax.nn.log_softmax(logits))
        return total

    return jax.grad(cost)(Gradients(rnn, readout, h0))


TOO_SHORT = [1, 2, *(pytest.param(n, marks=pytest.mark.thorough) for n in (3, T - 1))]


@pytest.mark.parametrize("n", [*TOO_SHORT, T, T + 5])
def test_truncated_gradients(n):
    args = example()
    window, chunk = together(
        partial(derivation.gradients_truncated, window=n),
        partial(derivation.gradients_truncated, chunk=n),
    )(*args)
    assert_close(window, plain_window(*args, window=n))
    assert_close(chunk, plain_chunk(*args, chunk=n))
    exact = expected(*args, None, "tanh")
    for found in (window, chunk):
        distance = derivation.gradient_distance(found, exact)
        if n >= T:
            np.testing.assert_allclose(distance, (1, 1), rtol=1e-12)
        else:
            assert max(differences(found, exact).values()) > 10 * RTOL
    if 1 < n < T:
        assert max(differences(window, chunk).values()) > 0.01  # different gradients


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("name", ["window", "chunk"])
def test_a_window_or_chunk_that_is_no_int32(name):
    args = jax.tree.map(jnp.asarray, example())
    found, whole = (derivation.gradients_truncated(*args, **{name: n}) for n in (10**10, T))
    assert_close(found, whole, rtol=0)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("form", [derivation.gradients_recursion, derivation.gradients_double_sum])
def test_float32(form):
    args = jax.tree.map(np.float32, example())
    assert_close(jax.jit(form)(*args), expected(*args, None, "tanh"), rtol=1e-5)


def test_window_one_is_the_immediate_derivative():
    """Brown's (15): every state as if it depended on the weights through its own step alone."""
    args = example()
    window_one = partial(derivation.gradients_truncated, window=1)
    found, f = together(window_one, derivation.trajectory)(*args)
    assert_close(
        found.rnn.w_hh, sum(np.outer(h, d) for h, d in zip(f.h_tm1s, f.dhs * f.dphis, strict=True))
    )


def test_gradient_distance():
    a = {"x": jnp.array([3.0, 0.0]), "y": jnp.array(4.0)}
    b = {"x": jnp.array([0.0, 0.0]), "y": jnp.array(10.0)}
    np.testing.assert_allclose(derivation.gradient_distance(a, b), (0.5, 0.8))


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("size", [0, 1e-30, 1e-10, 1e10, 1e30])
def test_gradient_distance_of_vanishing_and_exploding_gradients(size):
    a = {"x": jnp.full(4, size)}
    np.testing.assert_allclose(derivation.gradient_distance(a, a), (1, 1), rtol=1e-6)
    zero = derivation.gradient_distance({"x": jnp.zeros(4)}, a)
    np.testing.assert_allclose(zero, (0, 0) if size else (1, 1))


def test_sensitivity_refuses_labels_of_no_class():
    rnn, readout, xs, *_ = example()
    with pytest.raises(ValueError, match="labels: expected ids from 0 to "):
        derivation.gradients_sensitivity(rnn, readout, xs, np.full(len(xs), 99))


# --- forward in time -----------------------------------------------------------------------------


def test_sensitivity_online():
    """Every step knows its own loss's gradient, and the running sum."""
    rnn, readout, xs, labels, h0 = args = example()
    by_loss, f = together(derivation.gradients_per_step, derivation.trajectory)(*args)
    carry = derivation.sensitivity_init(rnn, readout, h0)
    step = jax.jit(derivation.sensitivity_step)
    for t in range(T):
        carry, out = step(rnn, readout, carry, xs[t], labels[t])
        assert_close(out.gradients, jax.tree.map(lambda g: g[t], by_loss))
        assert_close(carry.total, jax.tree.map(lambda g: g[: t + 1].sum(0), by_loss))
        assert_close(out.loss, f.losses[t])


def test_training_online():
    """Updates inside the sequence: the loss falls; S_t goes stale by as much as theta moves."""
    rnn, readout, xs, labels, _ = example(ids=True, T=120, I=3, H=6)
    xs, labels = np.arange(120) % 3, (np.arange(120) + 1) % 3

    @jax.jit
    def step(rnn, readout, carry, x, y, rate):
        carry, out = derivation.sensitivity_step(rnn, readout, carry, x, y)
        move = lambda p, d: p - rate * d
        rnn = jax.tree.map(move, rnn, out.gradients.rnn)
        readout = jax.tree.map(move, readout, out.gradients.readout)
        return rnn, readout, carry, out

    def online(rate):
        theta, carry = (rnn, readout), derivation.sensitivity_init(rnn, readout)
        losses, last = [], None
        for x, y in zip(xs, labels, strict=True):
            *theta, carry, last = step(*theta, carry, x, y, rate)
            losses.append(float(last.loss))
        return losses, last.gradients

    losses, _ = online(0.1)
    assert np.mean(losses[-5:]) < 0.2 * np.mean(losses[:5])
    (by_loss,) = together(derivation.gradients_per_step)(rnn, readout, xs, labels)
    exact = jax.tree.map(lambda g: g[-1], by_loss)
    assert_close(online(0.0)[1], exact)
    stale = [max(differences(online(rate)[1], exact).values()) for rate in (1e-6, 1e-4)]
    assert RTOL < stale[0] < 0.1 * stale[1]


def test_the_memory_of_the_sensitivities_does_not_grow_with_time():
    def temporaries(steps):
        args = example(T=steps, H=8)
        program = jax.jit(derivation.gradients_sensitivity).lower(*args).compile()
        return program.memory_analysis().temp_size_in_bytes

    grown = temporaries(400) - temporaries(100)
    assert grown <= 300 * 8 * (I + O + H)  # nothing but rows of the inputs


def test_mean_and_total_cost_differ_by_the_number_of_steps():
    """Brown (2) has 1/N, his 2.4 "just sums"."""
    total, mean = together(
        derivation.gradients_recursion,
        partial(derivation.gradients_recursion, weights=COSTS["mean"]),
    )(*example())
    assert_close(jax.tree.map(lambda g: T * g, mean), total)


# --- size and speed ------------------------------------------------------------------------------


@pytest.mark.usefixtures("float32")
def test_by_step_at_a_useful_size():
    args = example(T=200, H=64, I=8)
    args = jax.tree.map(lambda x: x.astype(np.float32), args)
    for form in (derivation.gradients_per_step, derivation.gradients_per_use):
        f = jax.jit(form)
        memory = f.lower(*args).compile().memory_analysis()
        assert memory.temp_size_in_bytes + memory.output_size_in_bytes < 200e6
        jax.block_until_ready(f(*args))
        seconds = []  # of the processor; the fastest of three: whatever else the machine does
        for _ in range(3):
            start = time.process_time()
            jax.block_until_ready(f(*args))
            seconds.append(time.process_time() - start)
        assert min(seconds) < 2  # a second of two cores


# --- planted faults ------------------------------------------------------------------------------


FAULTS = {
    double_sum.gradients_double_sum: {
        "k from 2": ("range(1, t + 1)", "range(2, t + 1)"),
        "k up to t - 1": ("range(1, t + 1)", "range(1, t)"),
        "k beyond t, as the notebook writes it": (
            "dh_0 += dh_t @",
            "dw_hh += f.h_tm1s[t:].T @ (dh_t[None] * f.dphis[t:]); dh_0 += dh_t @",
        ),
    },
    jacobians.state_jacobian: {
        "diagonal missing": ("jnp.diag(dphi) @ ", ""),
        "w_hh not transposed": (".w_hh).T", ".w_hh)"),
        "diagonal on the wrong side": ("jnp.diag(dphi) @", "dphi[None] *"),
    },
    recursion.gradients_recursion: {
        "phi' missing": ("f.dphis[t] * (f.dhs", "(f.dhs"),
        "w_hh not transposed": (".w_hh).T", ".w_hh)"),
        "no step back": ("f.dhs[t] + dhnext", "f.dhs[t]"),
    },
    recursion.assemble: {
        "h_t for h_{t-1}": ("f.h_tm1s.T", "f.hs.T"),
    },
}


@planted(FAULTS)
def test_planted_fault(fault):
    args, by_recursion = example(), fault[0].__module__ == recursion.__name__
    form = "gradients_recursion" if by_recursion else "gradients_double_sum"
    module = mutated(*fault, user=recursion if by_recursion else double_sum)
    assert_seen(getattr(module, form)(*args), expected(*args, None, "tanh"))


PRODUCT_FAULTS = {
    jacobians.state_jacobian_product: {
        "in the order of time": ("range(k + 1, t + 1)", "range(t, k, -1)"),
        "one Jacobian too few": ("range(k + 1, t + 1)", "range(k + 2, t + 1)"),
        "one Jacobian too many": ("range(k + 1, t + 1)", "range(k, t + 1)"),
    },
}


@planted(PRODUCT_FAULTS)
def test_planted_fault_in_a_product(fault):
    rnn, _, xs, _, h0 = example()
    _, hs = jrnn.rnn(rnn, xs, h0)
    right = np.linalg.multi_dot([derivation.state_jacobian(rnn, hs, t) for t in (5, 4, 3)])
    assert_seen(mutated(*fault).state_jacobian_product(rnn, hs, 5, 2), right)


TRUNCATION_FAULTS = {
    truncated._by_window: {
        "a window too long": ("back < window", "back <= window"),
        "a window too short": ("back < window", "back < window - 1"),
    },
    truncated.gradients_truncated: {
        "a chunk too long": ("min(chunk, T)", "min(chunk + 1, T)"),
        "a chunk too short": ("min(chunk, T)", "min(chunk - 1, T)"),
    },
}


@planted(TRUNCATION_FAULTS)
def test_planted_fault_in_the_truncation(fault):
    args, module = example(), mutated(*fault)
    for n in (2, 3):
        of_chunks = fault[0] is truncated.gradients_truncated
        plain, option = (plain_chunk, {"chunk": n}) if of_chunks else (plain_window, {"window": n})
        assert_seen(module.gradients_truncated(*args, **option), plain(*args, **option))


# --- bad input -----------------------------------------------------------------------------------

ARGS = example()
RNN, READOUT = ARGS[:2]
HS = np.zeros((T, H))
BIG = jrnn.RNNParams(
    *(jax.ShapeDtypeStruct(s, np.float64) for s in [(2, 1024), (1024, 1024), (1024,)])
)
BIG_READOUT = jrnn.ReadoutParams(*(jax.ShapeDtypeStruct(s, np.float64) for s in [(1024, 3), (3,)]))

REFUSED = {
    "k above t": (
        lambda: derivation.state_jacobian_product(RNN, HS, 3, 4),
        "k: expected an integer from 0 to t = 3; got 4. Steps count from 1, as in the equations",
    ),
    "k below 0": (
        lambda: derivation.state_jacobian_product(RNN, HS, 3, -1),
        "k: expected an integer from 0 to t = 3; got -1.",
    ),
    "t above T": (
        lambda: derivation.state_jacobian_product(RNN, HS, T + 1, 0),
        "t: expected an integer from 0 to T = 7; got 8.",
    ),
    "t of a Jacobian": (
        lambda: derivation.state_jacobian(RNN, HS, 0),
        "t: expected an integer from 1 to T = 7; got 0.",
    ),
    "states of a batch": (
        lambda: derivation.state_jacobian(RNN, np.zeros((T, 2, H)), 1),
        "hs: expected shape [T, H] = [any, 4]; got float64[7, 2, 4].",
    ),
    "a batch": (
        lambda: derivation.gradients_recursion(RNN, READOUT, np.zeros((T, 2, I)), ARGS[3]),
        "xs: expected one sequence, vectors [T, I] or token ids [T]; got float64[7, 2, 5].",
    ),
    "spikes as integers": (
        lambda: derivation.gradients_recursion(RNN, READOUT, np.zeros((T, I), np.int8), ARGS[3]),
        "got int8[7, 5]. Integers are token ids; features are cast by .astype. Take one of the",
    ),
    "one step of a batch": (
        lambda: derivation.sensitivity_step(
            RNN, READOUT, derivation.sensitivity_init(RNN, READOUT), np.zeros((2, I)), ARGS[3][0]
        ),
        "x_t: expected one step of one sequence, a vector [I] or a token id []; got float64[2, 5].",
    ),
    "window 0": (
        lambda: derivation.gradients_truncated(*ARGS, window=0),
        "window: expected an integer >= 1; got 0.",
    ),
    "chunk of a float": (
        lambda: derivation.gradients_truncated(*ARGS, chunk=2.0),
        "chunk: expected an integer >= 1; got 2.0.",
    ),
    "a step of 0": (
        lambda: derivation.gradients_finite_difference(*ARGS, epsilon=0),
        "epsilon: expected a finite number above 0; got 0.",
    ),
    "integers to differentiate": (
        lambda: derivation.finite_differences(jnp.sum, np.arange(3)),
        "at: expected a floating dtype; got int64[3]. Cast it by .astype(jnp.float32).",
    ),
    "window and chunk": (
        lambda: derivation.gradients_truncated(*ARGS, window=1, chunk=2),
        "window, chunk: expected one of the two; got window=1 and chunk=2. They are different",
    ),
    "neither": (
        lambda: derivation.gradients_truncated(*ARGS),
        "window, chunk: expected one of the two; got neither.",
    ),
    "too large by step": (
        lambda: jax.eval_shape(
            derivation.gradients_per_step,
            BIG,
            BIG_READOUT,
            jax.ShapeDtypeStruct((1000,), np.int32),
            jax.ShapeDtypeStruct((1000,), np.int32),
        ),
        "gradients per step: expected at most 4 GB; got 8.4 GB. jax.grad through jrnn.rnn computes",
    ),
    "too large forward in time": (
        lambda: jax.eval_shape(derivation.sensitivity_init, BIG, BIG_READOUT),
        "sensitivities: expected at most 4 GB; got 8.6 GB.",
    ),
}


@pytest.mark.parametrize("form", [f for f in FORMS if f != "kernel"] + ["finite differences"])
def test_every_form_refuses_other_parameters(form):
    stack = parameters(jrnn.init_stack, I, (H,))
    forms = FORMS | {"finite differences": derivation.gradients_finite_difference}
    with pytest.raises(ValueError, match=r"^(rnn_)?params: .* got StackParams"):
        forms[form](stack, *ARGS[1:])


@pytest.mark.parametrize("form", [f for f in FORMS if f not in ("kernel", "autodiff")])
def test_every_form_refuses_a_batch(form):
    with pytest.raises(ValueError, match=r"one sequence, vectors \[T, I\] or token ids \[T\]"):
        FORMS[form](RNN, READOUT, np.zeros((T, 2, I)), ARGS[3])


test_refused = refused(REFUSED)
