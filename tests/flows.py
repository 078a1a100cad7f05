"""What `jrnn.diagnostics` computes, by a scan of the tests' own that JAX differentiates.

Each comparison takes what it compares, so that one with a planted fault can take its place.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from cases import B, H, I, O, T, assert_close, make_case, together

import jrnn

PHI = {"tanh": jnp.tanh, "relu": lambda a: jnp.maximum(a, 0), "identity": lambda a: a}


def problem(*, ids=False, batch=True, h0="[B, H]", weights=None, seed=0):
    """The arguments of `gradient_flow` and `influence`; some losses do not count."""
    case = make_case(ids=ids, batch=batch, h0=h0, seed=seed)
    rng = np.random.default_rng(seed + 1)
    readout = jrnn.ReadoutParams(rng.normal(size=(H, O)), rng.normal(size=O))
    lead = (T, B) if batch else (T,)
    labels = rng.integers(0, O, lead)
    if weights == "mask":
        weights = np.asarray(rng.integers(0, 4, lead) > 0)
    elif weights == "floats":
        weights = np.where(rng.integers(0, 4, lead) > 0, rng.uniform(size=lead), 0)
    return (case.params, readout, case.xs, labels, case.h0), weights


def as_batch(arguments, weights):
    """The same with a batch axis, ids and labels as one-hot vectors, and nothing None."""
    params, readout, xs, labels, h0 = arguments
    vectors = np.eye(I)[xs] if np.issubdtype(xs.dtype, np.integer) else xs
    vectors, labels = vectors.reshape(T, -1, I), np.eye(O)[labels].reshape(T, -1, O)
    n = labels.shape[1]
    h0 = np.broadcast_to(np.zeros(H) if h0 is None else h0, (n, H))
    m = np.ones((T, n)) if weights is None else np.asarray(weights, float).reshape(T, n)
    return params, readout, vectors, labels, h0, m


def scan_losses(arguments, activation, a_changes, h_changes):
    """m_t J_t and h_{t-1} for every t, where every a_t and h_t is changed by something."""
    params, readout, xs, labels, h0, m = arguments

    def step(h, t):
        x, y, m, da, dh = t
        a = x @ params.w_ih + h @ params.w_hh + params.b_h[None] + da
        h_t = PHI[activation](a) + dh
        log_p = jax.nn.log_softmax(h_t @ readout.w_ho + readout.b_o[None])
        return h_t, (-m * (log_p * y).sum(-1), h)

    return jax.lax.scan(step, jnp.asarray(h0), (xs, labels, m, a_changes, h_changes))[1]


@functools.partial(jax.jit, static_argnames="activation")
def derivatives(arguments, activation):
    """dJ_t/dh_k `[T, B, T, B, H]`, and of all losses the deltas, with h_{t-1} beside them."""
    zero = jnp.zeros((*arguments[-1].shape, H))

    def losses(dh):
        return scan_losses(arguments, activation, zero, dh)[0]

    def total(da):
        losses, h_tm1s = scan_losses(arguments, activation, da, zero)
        return losses.sum(), h_tm1s

    return jax.jacrev(losses)(zero), *jax.grad(total, has_aux=True)(zero)


def oracle(arguments, weights, activation):
    """||dJ_t/dh_k|| as `[T, T, B]`, and the norm of each use's outer products, `[T]`."""
    jacobian, deltas, h_tm1s = map(
        np.asarray, derivatives(as_batch(arguments, weights), activation=activation)
    )
    n = jacobian.shape[1]
    norms = np.stack([np.linalg.norm(jacobian[:, b, :, b], axis=-1) for b in range(n)], -1)
    outer = [[np.outer(h_tm1s[k, b], deltas[k, b]) for b in range(n)] for k in range(T)]
    return norms, np.array([np.linalg.norm(sum(use)) for use in outer])


def percentiles(norms, weights):
    """By lag, over every loss that counts and has a state that far away; and their number."""
    n = norms.shape[-1]
    counted = np.ones((T, n), bool) if weights is None else np.asarray(weights).reshape(T, n) != 0
    columns, counts = [], []
    for lag in range(T):
        found = [norms[t, t - lag, b] for t in range(lag, T) for b in range(n) if counted[t, b]]
        columns.append(np.percentile(found, [10, 50, 90]))
        counts.append(len(found))
    return np.array(columns).T, np.array(counts)


CASES = {
    "batch": {},
    "one": {"batch": False},
    "ids": {"ids": True, "h0": "None"},
    "one, ids": {"ids": True, "batch": False, "h0": "[H]"},
    "mask": {"weights": "mask"},
    "floats": {"weights": "floats", "h0": "[H]"},
    "one, floats": {"weights": "floats", "batch": False, "seed": 1},
}


def flow_differs(module, case="batch", activation="tanh"):
    arguments, weights = problem(**CASES[case])
    norms, uses = oracle(arguments, weights, activation)
    curves, counts = percentiles(norms, weights)
    expected = (np.arange(T), curves, uses, counts)
    found = module.gradient_flow(*arguments, weights=weights, activation=activation)
    assert_close(tuple(found), expected)


def influence_differs(module, case="one", activation="tanh"):
    arguments, weights = problem(**CASES[case])
    norms, _ = oracle(arguments, weights, activation)
    found = module.influence(*arguments, weights=weights, activation=activation)
    assert_close(found, norms[..., 0])
    assert not np.triu(found, 1).any()


def orthogonal(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def linear(w_hh, steps, seed=0):
    """An identity network around `w_hh`, and one sequence for it."""
    rng = np.random.default_rng(seed)
    n = len(w_hh)
    return jrnn.RNNParams(rng.normal(size=(2, n)), w_hh, None), rng.normal(size=(steps, 2))


def rotation_differs(module):
    params, xs = linear(0.9 * orthogonal(6), 40)
    found = module.lyapunov_exponents(params, xs, n=6, activation="identity")
    np.testing.assert_allclose(found, np.log(0.9), rtol=0, atol=1e-10)


def spectrum_differs(module):
    values = np.array([1.1, -0.95, 0.8, -0.6, 0.3])
    basis = np.random.default_rng(3).normal(size=(5, 5))
    params, xs = linear(basis @ np.diag(values) @ np.linalg.inv(basis), 300)
    found = module.lyapunov_exponents(params, xs, n=5, warmup=200, activation="identity")
    np.testing.assert_allclose(found, np.log(np.abs(values)), rtol=0, atol=1e-6)


def determinant_differs(module):
    """All exponents add up to the mean of log |det J_t|, here of Jacobians by autodiff."""
    case = make_case(batch=False, h0="[H]")
    step = lambda h, x: jnp.tanh(x @ case.params.w_ih + h @ case.params.w_hh + case.params.b_h)
    step_and_jacobian = together(step, jax.jacrev(step))
    h, logs = case.h0, []
    for x in case.xs:
        h, jacobian = step_and_jacobian(h, x)
        logs.append(np.linalg.slogdet(jacobian)[1])
    for warmup in (0, 3):
        found = module.lyapunov_exponents(case.params, case.xs, case.h0, n=H, warmup=warmup)
        np.testing.assert_allclose(found.sum(), np.mean(logs[warmup:]), rtol=1e-10)


def growth_differs(module, ids=False):
    """Any change of the state turns towards the direction that grows fastest: let one do so."""
    case = make_case(T=400, batch=False, ids=ids, h0="None")
    h, change, logs = np.zeros(H), np.ones(H), []
    for x in np.eye(I)[case.xs] if ids else case.xs:
        h = np.tanh(x @ case.params.w_ih + h @ case.params.w_hh + case.params.b_h)
        change = (1 - h**2) * (change @ case.params.w_hh)
        logs.append(np.log(np.linalg.norm(change)))
        change = change / np.linalg.norm(change)
    found = module.lyapunov_exponents(case.params, case.xs, n=2, warmup=200)
    np.testing.assert_allclose(found[0], np.mean(logs[200:]), rtol=1e-8)
