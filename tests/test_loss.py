"""Loss and readout: values and every gradient against the NumPy oracle, and at the limits."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import LAW_RTOL, B, H, O, T, assert_close, differences, together, twice
from cover import in_tiers
from jax.test_util import check_grads
from mutations import assert_seen, mutated, planted

import jrnn
from jrnn.loss import softmax

WEIGHTS = {
    "no weights": None,
    "mask": np.random.default_rng(1).random((T, B)) > 0.4,
    "floats": np.random.default_rng(2).normal(size=(T, B)),
    "mean": np.float64(1 / (T * B)),
}


def example(kind, shape=(T, B)):
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(*shape, O))
    labels = {
        "ids": rng.integers(0, O, shape),
        "one-hot": np.eye(O)[rng.integers(0, O, shape)],
        "distribution": rng.dirichlet(np.ones(O), shape),
        "any sum": rng.normal(size=(*shape, O)),
    }[kind]
    return logits, labels, rng.normal(size=shape)


def value_and_cotangents(f, logits, labels, weights, dlosses):
    parts = {"logits": logits}
    if labels.ndim == logits.ndim:
        parts["labels"] = labels
    if weights is not None and weights.dtype != bool:
        parts["weights"] = weights

    def call(parts):
        arguments = {"logits": logits, "labels": labels, "weights": weights} | parts
        return f(arguments["logits"], arguments["labels"], arguments["weights"])

    value, vjp = jax.vjp(call, parts)
    return value, vjp(jnp.asarray(dlosses))[0]


def assert_exact(logits, labels, weights, dlosses, f=jrnn.softmax_cross_entropy):
    value, found = value_and_cotangents(f, logits, labels, weights, dlosses)
    losses, expected = oracle.cross_entropy(logits, labels, weights, dlosses)
    if weights is not None and weights.ndim == 0:
        expected["weights"] = expected["weights"].sum()
    assert_close((value, found), (losses, {name: expected[name] for name in found}))
    return max(differences(found, {name: expected[name] for name in found}).values())


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", ["ids", "one-hot", "distribution", "any sum"])
def test_every_gradient(kind, weights):
    logits, labels, dlosses = example(kind)
    assert_exact(logits, labels, WEIGHTS[weights], dlosses)


@pytest.mark.parametrize("shape", [(), (T,), (2, T, B)], ids=str)
@pytest.mark.parametrize("kind", ["ids", "any sum"])
def test_any_leading_axes(kind, shape):
    logits, labels, dlosses = example(kind, shape)
    assert_exact(logits, np.asarray(labels), None, dlosses)


@pytest.mark.parametrize("kind", ["ids", "any sum"])
def test_second_order(kind):
    logits, labels, dlosses = example(kind)

    def plain(logits, labels, weights):
        y = jax.nn.one_hot(labels, O) if kind == "ids" else labels
        return -(y * jax.nn.log_softmax(logits)).sum(-1) * weights

    costs = (
        lambda o, w, f=f: jnp.vdot(f(o, labels, w), dlosses)
        for f in (jrnn.softmax_cross_entropy, plain)
    )
    both = together(*(twice(cost, (0, 1)) for cost in costs))
    assert_close(*both(logits, WEIGHTS["floats"]), 10 * LAW_RTOL)


def test_finite_differences():
    logits, labels, _ = example("any sum")
    args = (logits, labels, WEIGHTS["floats"])
    check_grads(
        jrnn.softmax_cross_entropy, args, order=1, modes=["rev"], atol=1e-6, rtol=1e-6, eps=1e-6
    )


def test_vmap_is_a_loop():
    logits, labels, _ = example("ids")
    mapped = jax.vmap(jrnn.softmax_cross_entropy)(logits, labels)
    assert_close(mapped, jrnn.softmax_cross_entropy(logits, labels), LAW_RTOL)


# --- planted faults ------------------------------------------------------------------------------

P_SUM_Y = "p * y.sum(-1, keepdims=True)"
FAULTS = {
    softmax.cross_entropy_bwd: {
        "sum of the labels taken for 1": (P_SUM_Y, "p"),
        "sign": (f"dlosses * ({P_SUM_Y}", f"-dlosses * ({P_SUM_Y}"),
        "0.1 % on the logits": (f"dlosses * ({P_SUM_Y}", f"1.001 * dlosses * ({P_SUM_Y}"),
        "mean over the classes": (f"dlosses * ({P_SUM_Y}", f"dlosses / p.shape[-1] * ({P_SUM_Y}"),
        "incoming cotangent left out": (f"dlosses * ({P_SUM_Y}", f"({P_SUM_Y}"),
        "sign of dlabels": ("dlosses * -log_p", "dlosses * log_p"),
        "log p without the normaliser": ("dlosses * -log_p", "dlosses * -logits"),
        "diagonal of the softmax only": (f"{P_SUM_Y} - y", "y * (p - 1)"),
    },
}


@planted(FAULTS)
def test_planted_fault(fault):
    logits, labels, dlosses = example("any sum")
    wrong = mutated(*fault).softmax_cross_entropy
    found = value_and_cotangents(wrong, logits, labels, None, dlosses)[1]
    expected = oracle.cross_entropy(logits, labels, None, dlosses)[1]
    assert_seen(found, {name: expected[name] for name in found})


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits(dtype):
    logits = np.array([[1e4, -1e4, 0], [1e4, 1e4, 1e4 - 1]], dtype)
    losses, vjp = jax.vjp(lambda o: jrnn.softmax_cross_entropy(o, np.array([1, 2])), logits)
    (dlogits,) = vjp(jnp.ones(2, dtype))
    z = 2 + np.exp(-1.0)
    np.testing.assert_allclose(losses, [2e4, 1 + np.log(z)], rtol=1e-6)
    expected = [[1, -1, 0], [1 / z, 1 / z, np.exp(-1) / z - 1]]
    np.testing.assert_allclose(dlogits, expected, rtol=1e-6, atol=1e-7)


def test_minus_infinity_is_probability_zero_and_costs_nothing():
    logits = np.array([[0.0, -np.inf, 1.0]])
    share = np.array([[0.25, 0.0, 0.75]])
    for labels in (np.array([2]), share):
        losses, vjp = jax.vjp(lambda o: jrnn.softmax_cross_entropy(o, labels), logits)
        (dlogits,) = vjp(jnp.ones(1))
        p = np.array([1, 0, np.e]) / (1 + np.e)
        y = share if labels.ndim == 2 else np.array([[0, 0, 1.0]])
        expected = -(y[:, [0, 2]] * np.log(p[[0, 2]])).sum(-1)
        np.testing.assert_allclose(losses, expected, rtol=1e-12)
        np.testing.assert_allclose(dlogits, p - y, rtol=1e-12, atol=1e-12)


def test_a_label_of_probability_zero_costs_infinity():
    assert jrnn.softmax_cross_entropy(np.array([0.0, -np.inf]), np.array(1)) == np.inf


@pytest.mark.parametrize("kind", ["ids", "any sum"])
@pytest.mark.parametrize("weights", ["mask", "floats"])
def test_nothing_leaks_where_the_weight_is_zero(kind, weights):
    logits, labels, dlosses = example(kind)
    mask = WEIGHTS["mask"]
    w = mask if weights == "mask" else np.where(mask, WEIGHTS["floats"], 0.0)
    clean = value_and_cotangents(jrnn.softmax_cross_entropy, logits, labels, w, dlosses)
    for poison in (np.nan, np.inf, -np.inf):
        bad_logits = np.where(mask[..., None], logits, poison)
        if kind == "ids":
            bad_labels = np.where(mask, labels, -100)
        else:
            bad_labels = np.where(mask[..., None], labels, poison)
        found = value_and_cotangents(jrnn.softmax_cross_entropy, bad_logits, bad_labels, w, dlosses)
        assert_close(found, clean, rtol=0.0)
    for leaf in jax.tree.leaves(clean):
        assert not np.asarray(leaf)[~mask].any()


def test_traced_labels_outside_the_range_are_nan():
    logits, labels, _ = example("ids")
    for wrong in (-1, O):
        labels[2, 1] = wrong
        f = jax.jit(jax.value_and_grad(lambda o, y: jrnn.softmax_cross_entropy(o, y)[2, 1]))
        value, grad = f(logits, labels)
        assert np.isnan(value)
        assert np.isnan(grad[2, 1]).all()


@in_tiers(dtype=[np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.int64], O=[200, 256, 300])
def test_labels_of_any_integer_type(dtype, O):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, O)), np.array([1, 5, min(O - 1, np.iinfo(dtype).max)])
    f = jax.value_and_grad(lambda o, y: jrnn.softmax_cross_entropy(o, y).sum())
    assert_close(f(logits, labels.astype(dtype)), f(logits, labels), rtol=0.0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_dtypes_are_preserved(dtype):
    logits, labels, _ = example("any sum")
    args = (jnp.asarray(logits, dtype), jnp.asarray(labels, dtype), jnp.ones((T, B), dtype))
    value, vjp = jax.vjp(jrnn.softmax_cross_entropy, *args)
    assert {x.dtype for x in (value, *vjp(value))} == {jnp.dtype(dtype)}


def test_half_precision_sums_in_float32():
    logits = jnp.full((4096,), 2.0, jnp.bfloat16)  # 4,096 terms: bfloat16 would stop at 256
    np.testing.assert_allclose(jrnn.softmax_cross_entropy(logits, np.array(0)), np.log(4096), 0.01)


# --- readout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("lead", [(), (T,), (T, B)], ids=str)
def test_readout_and_its_gradients(lead, bias):
    rng = np.random.default_rng(0)
    params = jrnn.ReadoutParams(rng.normal(size=(H, O)), rng.normal(size=O) if bias else None)
    hs, do = rng.normal(size=(*lead, H)), rng.normal(size=(*lead, O))
    logits, vjp = jax.vjp(jrnn.readout, params, hs)
    dparams, dhs = vjp(jnp.asarray(do))
    flat_h, flat_o = hs.reshape(-1, H), do.reshape(-1, O)
    b_o = params.b_o if bias else np.zeros(O)
    expected = [
        [sum(h[i] * params.w_ho[i, k] for i in range(H)) + b_o[k] for k in range(O)] for h in flat_h
    ]
    assert_close(np.reshape(logits, (-1, O)), np.array(expected))  # (3)
    assert_close(dhs, do @ params.w_ho.T)  # (8)
    dw_ho = sum(np.outer(h, o) for h, o in zip(flat_h, flat_o, strict=True))
    assert_close(dparams.w_ho, dw_ho)  # (10)
    if bias:
        assert_close(dparams.b_o, flat_o.sum(0))  # (10)
    else:
        assert dparams.b_o is None


IDS = example("ids")[1]
OF_STATES = {
    "logits": jrnn.readout,
    "cost": lambda params, hs: jrnn.readout_cross_entropy(params, hs, IDS),
}


@pytest.mark.parametrize("name", OF_STATES)
@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
def test_states_in_half_precision_are_cast_to_the_dtype_of_the_parameters(name, half):
    """As a network with a compute_dtype returns them; their gradient is in half precision, too."""
    rng, f = np.random.default_rng(0), OF_STATES[name]
    params = jrnn.ReadoutParams(rng.normal(size=(H, O)), rng.normal(size=O))
    hs = jnp.asarray(rng.normal(size=(T, B, H))).astype(half)
    (found, vjp), (expected, vjp_of_cast) = (
        jax.vjp(g, params, hs) for g in (f, lambda params, hs: f(params, hs.astype(float)))
    )
    assert_close(found, expected, 0.0)
    assert_close(vjp(expected), vjp_of_cast(expected), 0.0)
    assert vjp(expected)[1].dtype == half
