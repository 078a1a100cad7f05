"""The fused cost: every gradient against the NumPy oracle, the laws, and what it never holds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import LAW_RTOL, assert_close, on_two_devices, together, twice
from cover import in_tiers
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxprs import equations, named, sizes
from mutations import assert_seen, mutated, planted

import jrnn
from jrnn.loss import blockwise, native, softmax

T, B, H, O = 7, 3, 4, 8  # 21 positions in blocks of 4, 8 classes in blocks of 3: both with a rest
BLOCKS = {"by positions": (T, B), "by classes": (T * B,)}
LAYOUTS = {**BLOCKS, "natively": (T, B)}  # where the native kernel runs
KINDS = ["ids", "any sum"]
RNG = np.random.default_rng(1)
MASK = RNG.random(T * B) > 0.4
WEIGHTS = {
    "no weights": lambda lead: None,
    "mask": lambda lead: np.resize(MASK, lead),
    "floats": lambda lead: np.where(np.resize(MASK, lead), RNG.normal(size=lead), 0.0),
    "mean": lambda lead: np.float64(1 / np.prod(lead, dtype=int)),
}


SMALL = {"POSITIONS": 4, "LOGITS": 1, "CLASSES": 3, "LONG": 1000}  # sequences are short


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch, request):
    given = getattr(request.node, "callspec", None)
    if given is not None and given.params.get("layout") == "natively":
        monkeypatch.setattr(native, "FEWEST", 1)
        return
    for name, size in SMALL.items():
        monkeypatch.setattr(blockwise, name, size)


def fused(params, hs, labels, weights=None):
    return blockwise.cost(None, blockwise.cross_entropy, params, hs, labels, weights)


def apart(params, hs, labels, weights=None):
    """Readout and loss by JAX alone."""
    logits = hs @ params.w_ho
    logits = (
        logits if params.b_o is None else logits + params.b_o.reshape((1,) * (hs.ndim - 1) + (-1,))
    )
    y = labels if labels.ndim == hs.ndim else jax.nn.one_hot(labels, logits.shape[-1])
    losses = -(y * jax.nn.log_softmax(logits)).sum(-1)
    if weights is None:
        return losses.sum()
    return jnp.where(weights.astype(bool), losses * weights.astype(losses.dtype), 0).sum()


def example(lead=(T, B), kind="ids", weights="floats", O=O, bias=True, seed=0):
    """The four arguments of the cost, by name."""
    rng = np.random.default_rng(seed)
    params = jrnn.ReadoutParams(rng.normal(size=(H, O)), rng.normal(size=O) if bias else None)
    labels = rng.integers(0, O, lead) if kind == "ids" else rng.normal(size=(*lead, O))
    return {
        "params": params,
        "hs": rng.normal(size=(*lead, H)),
        "labels": np.asarray(labels),
        "weights": WEIGHTS[weights](lead),
    }


def floats(example):
    """The arguments that have a gradient."""
    return {
        name: x
        for name, x in example.items()
        if name == "params" or (x is not None and x.dtype == np.float64)
    }


@partial(jax.jit, static_argnums=0)
def _value_and_grad(f, part, example):
    return jax.value_and_grad(lambda part: f(**{**example, **part}))(part)


def value_and_grad(f, example):
    """Compiled once for each function and shape: what a test has patched needs its own function."""
    return _value_and_grad(f, floats(example), example)


def expected(example):
    """The cost and its gradients by name, from the oracle's of the logits."""
    w_ho, b_o = example["params"]
    hs, weights = example["hs"], example["weights"]
    O = w_ho.shape[1]
    flat = hs.reshape(-1, H)
    logits = np.array([[h @ w_ho[:, k] for k in range(O)] for h in flat])
    logits = (logits if b_o is None else logits + b_o).reshape(*hs.shape[:-1], O)
    losses, d = oracle.cross_entropy(logits, example["labels"], weights, np.ones(logits.shape[:-1]))
    dlogits = d["logits"].reshape(-1, O)
    dw_ho = sum(np.outer(h, o) for h, o in zip(flat, dlogits, strict=True))
    db_o = None if b_o is None else sum(dlogits)
    found = {"params": jrnn.ReadoutParams(dw_ho, db_o), "labels": d["labels"]}
    found["hs"] = np.array([w_ho @ o for o in dlogits]).reshape(hs.shape)
    if weights is not None:
        zero = np.broadcast_to(weights, losses.shape) == 0
        found["weights"] = np.where(zero, 0, d["weights"])
        found["weights"] = found["weights"] if weights.ndim else found["weights"].sum()
    return losses.sum(), {name: found[name] for name in floats(example)}


def assert_exact(example):
    assert_close(value_and_grad(fused, example), expected(example))


# --- exactness -----------------------------------------------------------------------------------


@in_tiers(layout=LAYOUTS, kind=KINDS, weights=WEIGHTS)
def test_every_gradient(layout, kind, weights):
    assert_exact(example(LAYOUTS[layout], kind, weights))


@in_tiers(layout=LAYOUTS, kind=KINDS)
def test_without_bias(layout, kind):
    assert_exact(example(LAYOUTS[layout], kind, bias=False))


@pytest.mark.parametrize(
    ("lead", "O", "kind"),
    [
        ((), 8, "ids"),
        pytest.param((1,), 7, "any sum", marks=pytest.mark.thorough),
        ((2, 2, 3), 5, "ids"),
        pytest.param((1, 5), 1, "any sum", marks=pytest.mark.thorough),
        ((5,), 1, "ids"),
        ((5,), 1, "any sum"),
        ((3, 4), 2, "any sum"),
        pytest.param((6,), 2, "ids", marks=pytest.mark.thorough),
        pytest.param((4, 2), 6, "any sum", marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_sizes(lead, O, kind):
    assert_exact(example(lead, kind, O=O))


def test_both_ways_are_taken():
    scans = [
        [s.params["length"] for s in named(jax.make_jaxpr(fused)(**example(lead)), "scan")]
        for lead in BLOCKS.values()
    ]
    assert scans == [[5], [2]]  # and a rest of one position, and of two classes


@pytest.mark.usefixtures("float32")
def test_a_mean_over_more_positions_than_float16_can_count(monkeypatch):
    """The sums of the gradients are above 65,504, and are divided by N before they are rounded."""
    monkeypatch.setattr(blockwise, "LOGITS", 2**18)
    N, O = (512, 256), 4
    readout = jrnn.ReadoutParams(jnp.ones((2, O), jnp.float16), jnp.zeros(O, jnp.float16))
    hs, labels = jnp.ones((*N, 2), jnp.float16), jnp.zeros(N, int)

    def mean(readout):
        return jrnn.readout_cross_entropy(readout, hs, labels) / labels.size

    found = jax.grad(mean)(readout)
    np.testing.assert_allclose(found.b_o, [-0.75, 0.25, 0.25, 0.25], rtol=1e-3)
    np.testing.assert_allclose(found.w_ho, [found.b_o] * 2, rtol=1e-3)


def test_a_long_sequence_goes_by_positions(monkeypatch):
    monkeypatch.setattr(blockwise, "LONG", 5)
    at = example((21,), "any sum")  # H = 4
    assert [s.params["length"] for s in named(jax.make_jaxpr(fused)(**at), "scan")] == [5]
    assert_close(value_and_grad(lambda **at: fused(**at), at), expected(at))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_leaks_where_the_weight_is_zero(layout):
    for kind in KINDS:
        for weights in ("mask", "floats"):
            clean = example(LAYOUTS[layout], kind, weights)
            counted = clean["weights"].astype(bool)
            assert not counted.all()
            hs = np.where(counted[..., None], clean["hs"], np.nan)
            at = counted if kind == "ids" else counted[..., None]
            labels = np.where(at, clean["labels"], -100 if kind == "ids" else np.inf)
            found = value_and_grad(fused, {**clean, "hs": hs, "labels": labels})
            assert_close(found, value_and_grad(fused, clean), rtol=0.0)
            for name, leaf in found[1].items():
                assert name == "params" or not np.asarray(leaf)[~counted].any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_impossible_class_costs_nothing_unless_a_label_asks_for_it(layout):
    at = example(LAYOUTS[layout], weights="mask")
    possible = np.arange(O) >= 4  # all of the first block of classes is impossible
    b_o = np.where(possible, at["params"].b_o, -np.inf)
    at["labels"] = np.where(at["weights"], 4 + at["labels"] % 4, 0)
    whole = {**at, "params": at["params"]._replace(b_o=b_o)}
    small = jrnn.ReadoutParams(at["params"].w_ho[:, 4:], at["params"].b_o[4:])
    value, found = value_and_grad(fused, whole)
    labels = np.where(at["weights"], at["labels"] - 4, 0)
    value_4, found_4 = value_and_grad(apart, {**at, "params": small, "labels": labels})
    assert_close(value, value_4)
    assert_close(found["hs"], found_4["hs"])
    assert_close(found["params"].b_o[4:], found_4["params"].b_o)
    assert not np.asarray(found["params"].b_o[:4]).any()
    whole["labels"][np.unravel_index(np.argmax(at["weights"]), at["weights"].shape)] = 0
    assert value_and_grad(fused, whole)[0] == np.inf


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrong", [-1, O])
def test_traced_labels_outside_the_range_are_nan(layout, wrong):
    at = example(LAYOUTS[layout], weights="no weights")
    at["labels"][(2,) * at["labels"].ndim] = wrong
    value, found = value_and_grad(fused, at)
    assert np.isnan(value)
    assert np.isnan(found["hs"][(2,) * at["labels"].ndim]).all()
    assert np.isnan(found["hs"]).all(-1).sum() == 1


@in_tiers(layout=BLOCKS, dtype=[np.int8, np.uint8, np.uint16])
def test_labels_of_any_integer_type(layout, dtype):
    """Of 300 classes, more than a byte counts; int64 is that of every other test."""
    at = example(LAYOUTS[layout], O=300)
    at["labels"] %= 100
    narrow = {**at, "labels": at["labels"].astype(dtype)}
    assert_close(value_and_grad(fused, narrow), value_and_grad(fused, at), rtol=0.0)


# --- planted faults ------------------------------------------------------------------------------

P_SUM_Y = "p * y.sum(-1, keepdims=True)"
OF_BOTH = {
    blockwise._split: {
        "rest left out": ("n % size", "0"),
        "one block left out": ("n // size,", "n // size - 1,"),
        "blocks overlap by one": ("return size,", "return size - 1,"),
    },
}
BY_POSITIONS = {
    softmax.cross_entropy_bwd: {
        "sum of the labels taken for 1": (P_SUM_Y, "p"),
        "sign": (f"dlosses * ({P_SUM_Y}", f"-dlosses * ({P_SUM_Y}"),
        "weight left out": (f"dlosses * ({P_SUM_Y}", f"({P_SUM_Y}"),
        "0.1 % on the logits": (f"dlosses * ({P_SUM_Y}", f"1.001 * dlosses * ({P_SUM_Y}"),
        "sign of dlabels": ("dlosses * -log_p", "dlosses * log_p"),
    },
    blockwise._positions: {
        "w_ho in another order for dhs": ("dlogits, w_ho.T)", "dlogits, w_ho.T[:, ::-1])"),
        "a position late in dw_ho": ("(h.T)", "(jnp.roll(h.T, 1, 1))"),
        "bias of the rows but one": ("dlogits.sum(0)", "dlogits[1:].sum(0)"),
        "mean for the sum": ("grads.w_ho + dw_ho", "grads.w_ho + dw_ho / len(hs)"),
        "0.1 % on the bias": ("dlogits.sum(0)", "1.001 * dlogits.sum(0)"),
        "0.1 % on the weights": ("(grads.m, dm)", "(grads.m, 1.001 * dm)"),
    },
    blockwise._sum_by_positions_bwd: {
        "the factor": ("dtotal * at_least_float32(g)", "at_least_float32(g)"),
    },
}
BY_CLASSES = {
    blockwise._losses_by_classes: {
        "sum of the labels taken for 1": ("at_least_float32(labels).sum(-1) * log_sum", "log_sum"),
    },
    blockwise._block_bwd: {
        "softmax of the block for that of all": ("dlog_sum * jnp.exp", "jnp.exp"),
        "sign": ("return dlogits, (dat", "return -dlogits, (dat"),
        "0.1 % on the logits": ("return dlogits, (dat", "return 1.001 * dlogits, (dat"),
        "sign of dlabels": ("(dat_labels * logits)", "(dat_labels * -logits)"),
    },
}


def assert_fault_seen(layout, fault):
    """Of three times the cost: the gradient is formed for the cotangent 1."""
    at, wrong = example(LAYOUTS[layout], "any sum"), mutated(*fault, user=blockwise)
    vars(wrong).update(SMALL)
    three = jax.tree.map(lambda d: 3 * d, expected(at)[1])
    cost = partial(wrong.cost, None, wrong.cross_entropy)
    assert_seen(value_and_grad(lambda **at: 3 * cost(**at), at)[1], three)


@pytest.mark.parametrize("layout", BLOCKS)
@planted(OF_BOTH)
def test_planted_fault(layout, fault):
    assert_fault_seen(layout, fault)


@planted(BY_POSITIONS)
def test_planted_fault_by_positions(fault):
    assert_fault_seen("by positions", fault)


@planted(BY_CLASSES)
def test_planted_fault_by_classes(fault):
    assert_fault_seen("by classes", fault)


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_cotangent_and_checkpoint(layout):
    at = example(LAYOUTS[layout], "any sum")
    found = value_and_grad(lambda **at: 3 * jax.checkpoint(fused)(**at), at)
    assert_close(found, jax.tree.map(lambda x: 3 * x, expected(at)))


@pytest.mark.parametrize(
    "layout", ["by positions", pytest.param("by classes", marks=pytest.mark.thorough)]
)
def test_jit_is_eager(layout):
    at = example((3, 2) if layout == "by positions" else (6,), O=5)
    assert_close(
        value_and_grad(fused, at),
        jax.value_and_grad(lambda part: fused(**{**at, **part}))(floats(at)),
        LAW_RTOL,
    )


def second_order(f, at):
    return twice(lambda part: jnp.sin(f(**{**at, **part})))


@in_tiers(layout=LAYOUTS, kind=KINDS)
def test_grad_of_grad(layout, kind):
    at = example(LAYOUTS[layout], kind)
    both = together(second_order(fused, at), second_order(apart, at))
    assert_close(*both(floats(at)), 10 * LAW_RTOL)


@in_tiers(lambda _: [{"layout": "by positions"}], layout=LAYOUTS)
def test_hessian(layout):
    at = example(LAYOUTS[layout])
    hessians = (jax.hessian(lambda p, f=f: f(**{**at, "params": p})) for f in (fused, apart))
    assert_close(*together(*hessians)(at["params"]), 10 * LAW_RTOL)


@in_tiers(lead=[(4, T, B), (3, T)], kind=KINDS)  # by positions, by classes
def test_vmap_with_shared_parameters(lead, kind):
    at = example(lead, kind)

    def total(f, params, hs, labels, weights):
        mapped = jax.vmap(f, (None, 0, 0, 0))(params, hs, labels, weights)
        return jnp.vdot(mapped, np.arange(1.0, 1 + lead[0]))

    found, right = (value_and_grad(partial(total, f), at) for f in (fused, apart))
    assert_close(found, right, LAW_RTOL)


@in_tiers(lead=[(T, B), (T,)], shared=[True, False])  # by positions, by classes
def test_vmap_of_grad_is_the_gradient_of_each(lead, shared):
    many = [example(lead, "any sum", seed=n) for n in range(2)]
    if shared:
        many[1]["params"] = many[0]["params"]
    stacked = jax.tree.map(lambda *x: np.stack(x), *many)
    axes = dict.fromkeys(stacked, 0)
    if shared:
        axes["params"], stacked["params"] = None, many[0]["params"]
    each = jax.vmap(lambda at: jax.grad(lambda a: fused(**a))(at), (axes,))
    found = jax.device_get(jax.jit(each)(stacked))
    for n, at in enumerate(many):
        assert_close(jax.tree.map(lambda d: d[n], found), expected(at)[1])


@in_tiers(layout=BLOCKS, place=["grad of shard_map", "shard_map of grad"])
def test_shard_map_is_one_device(layout, place):
    lead, batch = ((T, 4), P(None, "data")) if layout == "by positions" else ((22,), P("data"))
    at = example(lead, "any sum")
    specs = ({name: P() if name == "params" else batch for name in at},)
    local = lambda at: lax.psum(fused(**at), "data")
    if place == "grad of shard_map":
        f = jax.grad(on_two_devices(local, specs))
    else:
        f = on_two_devices(jax.grad(local), specs, specs[0])
    assert_close(jax.jit(f)(at), expected(at)[1])


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_lowers_for_every_platform(layout):
    at = jax.tree.map(lambda x: jnp.asarray(x), example(LAYOUTS[layout]))
    f = jax.jit(jax.grad(lambda at: fused(**at), allow_int=True))
    exported = jax.export.export(f, platforms=["cpu", "cuda", "tpu"])(at)
    assert exported.platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize("lead", [(64, 64), (4096,)], ids=["by positions", "by classes"])
def test_half_precision_sums_in_float32(lead):
    """4,096 equal terms: a sum in bfloat16 would stop at 256 of them."""
    params = jrnn.ReadoutParams(np.zeros((2, O)), np.zeros(O))
    params, hs = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, np.ones((*lead, 2))))
    labels = np.zeros(lead, int)
    value, found = jax.jit(jax.value_and_grad(fused))(params, hs, labels)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 4096 * np.log(O), rtol=1e-5)
    assert {d.dtype for d in found} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(found.b_o.astype(float)[:2], [-4096 * 7 / 8, 4096 / 8], rtol=0.01)


@in_tiers(layout=LAYOUTS, dtype=[jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtypes_are_preserved_and_near(layout, dtype):
    error = {jnp.float32: 1e-5, jnp.bfloat16: 0.03, jnp.float16: 0.004}[dtype]
    at = example(LAYOUTS[layout], "any sum")
    cast = lambda x: x.astype(dtype)
    half = jax.tree.map(cast, at)
    value, found = jax.jit(jax.value_and_grad(lambda at: fused(**at)))(half)
    assert value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
    exact = jax.tree.map(lambda x: np.asarray(x.astype(jnp.float64)), half)
    assert_close(jax.tree.map(lambda x: x.astype(jnp.float64), found), expected(exact)[1], error)


@pytest.mark.parametrize("lead", [(64, 16), (1024,)], ids=["by positions", "by classes"])
def test_matmul_precision_reaches_the_backward_pass(monkeypatch, lead):
    monkeypatch.undo()  # the blocks of the package
    monkeypatch.setattr(blockwise, "LONG", 1000)
    at = example(lead, O=5000, weights="no weights")
    with jax.default_matmul_precision("highest"):
        _, vjp = jax.vjp(jax.jit(jrnn.readout_cross_entropy), *at.values())
    forward = jax.make_jaxpr(partial(blockwise.cost, "highest", softmax.cross_entropy))(
        *at.values()
    )
    found = [*named(jax.make_jaxpr(vjp)(1.0), "dot_general"), *named(forward, "dot_general")]
    assert len(found) >= (4 if len(lead) == 1 else 1)  # by positions all are in the forward pass
    assert {e.params["precision"] for e in found} == {(lax.Precision.HIGHEST,) * 2}


# --- structure -----------------------------------------------------------------------------------


def elements(jaxpr):
    """The largest intermediate of a program."""
    return max(n for e in equations(jaxpr) for n in sizes(e))


@pytest.mark.parametrize("lead", [(20, 10), (200,)], ids=["by positions", "by classes"])
def test_the_logits_never_exist_whole(monkeypatch, lead):
    monkeypatch.setattr(blockwise, "CLASSES", 10)
    at = example(lead, O=100, weights="mask")
    jaxpr = jax.make_jaxpr(jax.value_and_grad(fused, (0, 1)))(*at.values())
    assert elements(jaxpr) <= 200 * 10
    assert elements(jax.make_jaxpr(jax.grad(apart))(*at.values())) >= 200 * 100


def test_vmap_with_shared_weights_forms_no_gradient_per_sequence_and_no_logits():
    at = example((20, 5), O=40, weights="mask")
    total = lambda *a: jax.vmap(fused, (None, 0, 0, 0))(*a).sum()
    jaxpr = jax.make_jaxpr(jax.value_and_grad(total, (0, 1)))(*at.values())
    assert elements(jaxpr) < 20 * H * 40
    assert elements(jaxpr) < 20 * 5 * 40


@pytest.mark.parametrize(
    ("wrt", "matmuls"),
    [([], 1), (["hs"], 2), (["params"], 2), (["weights"], 1), (["params", "hs"], 3)],
    ids=str,
)
def test_only_the_gradients_that_are_asked_for_are_formed(wrt, matmuls):
    at = example((10, 2), weights="floats")  # blocks that leave no rest
    cost = lambda part: fused(**{**at, **part})
    part = {name: at[name] for name in wrt}
    jaxpr = jax.make_jaxpr(jax.grad(cost) if wrt else cost)(part)
    assert len(named(jaxpr, "dot_general")) == matmuls
    frozen = lambda w_ho: cost({"params": at["params"]._replace(w_ho=w_ho)})
    assert len(named(jax.make_jaxpr(jax.grad(frozen))(at["params"].w_ho), "dot_general")) == 2


@pytest.mark.parametrize("lead", [(128, 32), (4096,), (2048,)], ids=str)
def test_memory_at_the_size_of_a_language_model(monkeypatch, lead):
    monkeypatch.undo()  # the blocks of the package
    like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    params = jrnn.ReadoutParams(like(512, 32000), like(32000))
    labels = jax.ShapeDtypeStruct(lead, jnp.int32)
    f = jax.jit(jax.value_and_grad(jrnn.readout_cross_entropy, (0, 1)))
    program = f.lower(params, like(*lead, 512), labels).compile()
    assert program.memory_analysis().temp_size_in_bytes < 0.3 * np.prod(lead) * 32000 * 4


@pytest.mark.parametrize(
    "lead",
    [(64, 16), pytest.param((1024,), marks=pytest.mark.thorough)],
    ids=["by positions", "by classes"],
)
def test_the_public_function_at_its_own_block_sizes(monkeypatch, lead):
    monkeypatch.undo()
    monkeypatch.setattr(blockwise, "LONG", 1000)
    at = example(lead, O=5001)
    assert named(jax.make_jaxpr(jrnn.readout_cross_entropy)(**at), "scan")
    found = value_and_grad(jrnn.readout_cross_entropy, at)
    assert_close(found, value_and_grad(apart, at))
