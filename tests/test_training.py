"""The training step: optax on the hand-derived gradient, cut between two chunks."""

import inspect
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from cases import RTOL, B, H, I, T, assert_close, make_case, parameters
from cover import in_tiers

import jrnn
from jrnn import kernel
from jrnn.arrays import named_leaves
from jrnn.checks.basics import describe
from jrnn.kernel import reference
from jrnn.training import TrainState, init_train_state, make_train_step

CASE = make_case(T=2 * T)
CHUNKS = [(CASE.xs[:T], CASE.dhs[:T]), (CASE.xs[T:], CASE.dhs[T:])]


def loss(params, h0, batch, key):
    xs, dhs = batch
    h_last, hs = jrnn.rnn(params, xs, h0)
    return jnp.vdot(hs, dhs), h_last


def start(optimizer):
    return init_train_state(CASE.params, optimizer, CASE.h0, jax.random.key(0))


def oracle_step(params, h0, chunk, rate):
    xs, dhs = chunk
    zero = np.zeros_like(h0)
    (h_last, _), d = oracle.rnn(params, xs, h0, "tanh", zero, dhs)
    return jrnn.RNNParams(*(p - rate * d[n] for n, p in params._asdict().items())), h_last


def test_two_chunks_are_truncated_bptt():
    """The state crosses the cut with its value, the gradient does not cross it."""
    state, step = start(optax.sgd(0.01)), make_train_step(loss, optax.sgd(0.01))
    params, h = CASE.params, CASE.h0
    for chunk in CHUNKS:
        state, metrics = step(state, chunk)
        params, h = oracle_step(params, h, chunk, 0.01)
        assert_close((state.params, state.carry), (params, h))
    assert state.step == 2
    assert metrics.loss.shape == metrics.grad_norm.shape == ()


def test_metrics_are_the_loss_and_the_norm_of_the_gradient():
    step = make_train_step(loss, optax.sgd(0.0))
    _, metrics = step(start(optax.sgd(0.0)), CHUNKS[0])
    xs, dhs = CHUNKS[0]
    (_, hs), d = oracle.rnn(CASE.params, xs, CASE.h0, "tanh", np.zeros((B, H)), dhs)
    norm = np.sqrt(sum((d[n] ** 2).sum() for n in CASE.params._fields))
    np.testing.assert_allclose(metrics.loss, (hs * dhs).sum(), rtol=RTOL)
    np.testing.assert_allclose(metrics.grad_norm, norm, rtol=RTOL)


SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 2, 6)
OPTIMIZERS = {
    "adam": optax.adam(1e-3),
    "schedule and clipping": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(SCHEDULE)),
    "weight decay but for the bias": optax.adamw(
        1e-3, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    ),
    "frozen recurrence": optax.partition(
        {"train": optax.sgd(0.1), "freeze": optax.set_to_zero()},
        jrnn.RNNParams(w_ih="train", w_hh="freeze", b_h="train"),
    ),
    "accumulation": optax.MultiSteps(optax.adam(1e-3), every_k_schedule=2),
    "adafactor": optax.adafactor(1e-3),
    "accumulation of one that reads the loss": optax.MultiSteps(
        optax.chain(optax.adam(1e-3), optax.contrib.reduce_on_plateau(patience=1)), 2
    ),
    "one that keeps the parameters": optax.contrib.prodigy(1.0),
    "one that reads the loss": optax.chain(
        optax.adam(1e-3), optax.contrib.reduce_on_plateau(patience=1)
    ),
}


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optax_optimizer(name):
    case = make_case(dtype=np.float32, T=2 * T)
    state = init_train_state(case.params, OPTIMIZERS[name], case.h0, jax.random.key(0))
    step = make_train_step(loss, OPTIMIZERS[name])
    for chunk in [(case.xs[:T], case.dhs[:T]), (case.xs[T:], case.dhs[T:])]:
        state, _ = step(state, chunk)
    moved = {
        n: np.abs(p - getattr(case.params, n)).max() for n, p in state.params._asdict().items()
    }
    if name == "frozen recurrence":
        assert moved.pop("w_hh") == 0
    assert all(np.isfinite(m) and m > 0 for m in moved.values()), moved


@pytest.mark.usefixtures("float32")
def test_buffers_are_donated_and_the_callers_survive():
    case = make_case(dtype=np.float32)
    params = jax.tree.map(jnp.asarray, case.params)
    state = init_train_state(params, optax.adam(1e-3), jnp.zeros((B, H)), jax.random.key(0))
    after, _ = make_train_step(loss, optax.adam(1e-3))(state, (case.xs, case.dhs))
    assert isinstance(after, TrainState)
    assert state.params.w_hh.is_deleted()
    assert not params.w_hh.is_deleted()


def of_a_factor(params, h0, batch, key):
    """A loss whose batch says what it is multiplied by."""
    factor, *chunk = batch
    cost, h_last = loss(params, h0, chunk, key)
    return factor * cost, h_last + 0 * factor


@pytest.mark.parametrize("factor", [np.nan, np.inf])
@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_what_is_not_finite_changes_nothing(nonfinite, factor):
    optimizer = optax.sgd(1e-3, momentum=0.9)
    state = init_train_state(CASE.params, optimizer, CASE.h0, jax.random.key(0))
    step = make_train_step(of_a_factor, optimizer, nonfinite=nonfinite)
    states, losses = [], []
    for f in (1.0, factor, 1.0):
        state, metrics = step(state, (f, *CHUNKS[0]))
        states.append(jax.device_get(state._replace(key=None)))
        losses.append(float(metrics.loss))
        if f == factor:
            assert jax.tree.structure(metrics.grad_norms) == jax.tree.structure(CASE.params)
            assert not np.isfinite(metrics.grad_norms.w_hh)
    one, two, three = states
    same = ("params", "opt_state", "carry")
    for name in same:
        jax.tree.map(np.testing.assert_array_equal, getattr(two, name), getattr(one, name))
    assert (one.nonfinite, two.nonfinite, three.nonfinite) == (0, 1, 1)
    assert np.isfinite(losses[0])
    assert not np.isfinite(losses[1])
    if nonfinite == "stop":
        jax.tree.map(np.testing.assert_array_equal, three, two)
        assert (three.step, np.isnan(losses[2])) == (1, True)
    else:
        assert (two.step, three.step, np.isfinite(losses[2])) == (2, 3, True)
        assert np.abs(three.params.w_hh - two.params.w_hh).max() > 0


def test_a_loss_may_be_a_number_of_python():
    optimizer = optax.sgd(0.1)
    state = init_train_state(jnp.ones(3), optimizer, None, jax.random.key(0))
    _, metrics = make_train_step(lambda *carry: (0.5, None), optimizer)(state, None)
    assert (metrics.loss, metrics.grad_norm) == (0.5, 0)


def test_an_infinite_gradient_of_a_finite_loss_changes_nothing():
    def root(params, carry, batch, key):
        return jnp.sqrt(params), carry

    optimizer = optax.sgd(0.1)
    state = init_train_state(jnp.zeros(()), optimizer, (), jax.random.key(0))
    state, metrics = make_train_step(root, optimizer)(state, None)
    assert (float(metrics.loss), float(metrics.grad_norm)) == (0, np.inf)
    assert (float(state.params), int(state.step), int(state.nonfinite)) == (0, 0, 1)


@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_a_carry_that_is_not_finite_is_not_taken(nonfinite):
    """Every loss after it would not be finite."""

    def divided(params, carry, batch, key):
        carry = carry | {"h": carry["h"] / batch, "steps": carry["steps"] + 1}
        return (params * batch).sum(), carry

    optimizer, key = optax.sgd(0.1), jax.random.key(0)
    carry = {"h": jnp.ones(3), "steps": jnp.zeros((), jnp.int32), "key": key}
    state = init_train_state(jnp.ones(3), optimizer, carry, key)
    step = make_train_step(divided, optimizer, nonfinite=nonfinite)
    for batch in (np.array([1, 0, 2.0]), np.ones(3)):
        state, metrics = step(state, batch)
    assert (state.nonfinite, np.isfinite(metrics.loss)) == (1, nonfinite == "skip")
    assert state.carry["h"].tolist() == [1, 1, 1]
    assert int(state.carry["steps"]) == (nonfinite == "skip")


def test_a_gradient_in_float16_whose_squares_overflow_is_finite():
    params = {"w": jnp.full(1000, 1.0, jnp.float16)}
    optimizer = optax.sgd(1e-3)
    step = make_train_step(
        lambda p, c, batch, key: (300 * p["w"].sum(dtype=jnp.float32), c), optimizer
    )
    state = init_train_state(params, optimizer, None, jax.random.key(0))
    state, metrics = step(state, None)
    assert (state.step, state.nonfinite) == (1, 0)
    np.testing.assert_allclose(metrics.grad_norm, 300 * 1000**0.5, rtol=1e-5)


@pytest.mark.usefixtures("float32")
def test_an_update_of_a_finite_gradient_that_is_not_finite_changes_nothing():
    """In float16 Adam divides 0 by 0: its epsilon and the squares of small gradients are 0."""
    params = {"w": jnp.ones(3, jnp.float16)}
    optimizer = optax.adam(1e-3)
    step = make_train_step(lambda p, c, batch, key: (batch * p["w"].sum(), c), optimizer)
    state = init_train_state(params, optimizer, None, jax.random.key(0))
    state, metrics = step(state, jnp.float16(0))
    assert (metrics.loss, metrics.grad_norm) == (0, 0)
    assert (state.step, state.nonfinite) == (0, 1)
    assert state.params["w"].tolist() == [1, 1, 1]


def test_another_word_for_nonfinite():
    with pytest.raises(ValueError, match='nonfinite: expected "stop" or "skip"; got None'):
        make_train_step(loss, optax.sgd(0.1), nonfinite=None)


LOSSES = {
    "two arguments": (lambda params, batch: 0.0, "got one of (params, batch)."),
    "no function": (None, "got NoneType."),
    "a loss alone": (lambda p, c, b, k: p.w_hh.sum(), "got one that returns float64[]."),
    "three results": (
        lambda p, c, b, k: (p.w_hh.sum(), c, k),
        "got one that returns a tuple of 3.",
    ),
    "nothing": (lambda p, c, b, k: None, "got one that returns NoneType."),
    "losses": (lambda p, c, b, k: (p.b_h, c), f"got one whose loss is float64[{H}]."),
    "carry, loss": (lambda p, c, b, k: (None, p.w_hh.sum()), "got one whose loss is NoneType."),
}


@pytest.mark.parametrize("name", LOSSES)
def test_another_loss(name):
    loss_fn, came = LOSSES[name]
    expected = "loss_fn: expected a function (params, carry, batch, key) -> (loss [], carry); "
    with pytest.raises(ValueError, match=re.escape(expected + came)):
        make_train_step(loss_fn, optax.sgd(0.1))(start(optax.sgd(0.1)), CHUNKS[0])


CARRIES = {
    "nothing": lambda right: None,
    "one array for two layers": lambda right: jnp.zeros((2, 4)),
    "another size": lambda right: jax.tree.map(lambda h: h[:, 1:], right),
    "another dtype": lambda right: jax.tree.map(np.float32, right),
}


@pytest.mark.parametrize("name", CARRIES)
def test_a_carry_of_another_form(name):
    layers = jrnn.init_stack(jax.random.key(0), 3, (4, 4), cell="lstm")
    given = CARRIES[name](jrnn.zero_state(layers, 2))

    def loss(params, carry, batch, key):
        h_last, hs = jrnn.stack(params, batch)
        return hs.sum(), h_last

    state = init_train_state(layers, optax.sgd(0.1), given, jax.random.key(0))
    of_given = str(jax.tree.map(describe, given)).replace("'", "")
    expected = f"returns the carry {of_given}, as it gets it; got (LSTMState(h=float64[2, 4]"
    with pytest.raises(ValueError, match=re.escape(expected)):
        make_train_step(loss, optax.sgd(0.1))(state, jnp.ones((5, 2, 3)))


@jax.tree_util.register_pytree_node_class
class Opaque:
    """A carry whose text is that of its place in memory."""

    def __init__(self, h):
        self.h = h

    def tree_flatten(self):
        return (self.h,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def test_a_carry_of_any_class():
    def loss(params, carry, batch, key):
        return (params * batch).sum(), Opaque(carry.h + 1)

    optimizer = optax.sgd(0.1)
    state = init_train_state(jnp.ones(3), optimizer, Opaque(jnp.zeros(2)), jax.random.key(0))
    state, _ = make_train_step(loss, optimizer)(state, jnp.ones(3))
    np.testing.assert_array_equal(state.carry.h, [1, 1])


def test_the_step_compiles_once():
    traces = []

    def counted(*args):
        traces.append(1)
        return loss(*args)

    state, step = start(optax.sgd(1e-3)), make_train_step(counted, optax.sgd(1e-3))
    for _ in range(3):
        state, _ = step(state, CHUNKS[0])
    assert len(traces) == 1


@pytest.mark.usefixtures("float32")
def test_weak_types_compile_nothing_again():
    traces, optimizer = [], optax.adam(1e-3)

    def counted(params, carry, batch, key):
        traces.append(1)
        return (params * batch).sum(), carry + batch

    weak = jnp.full(3, 0.5), jnp.full(3, 0.0)
    state = init_train_state(weak[0], optimizer, weak[1], jax.random.key(0))
    step = make_train_step(counted, optimizer)
    for _ in range(3):
        state, _ = step(state, np.ones(3, np.float32))
    assert len(traces) == 1


def test_each_step_has_a_key_of_its_own():
    def noise(params, carry, batch, key):
        return 0.0 * params, jax.random.normal(key)

    optimizer = optax.sgd(0.0)
    state = init_train_state(jnp.ones(()), optimizer, jnp.zeros(()), jax.random.key(3))
    step, drawn = make_train_step(noise, optimizer), []
    for _ in range(3):
        state, _ = step(state, None)
        drawn.append(float(state.carry))
    assert len(set(drawn)) == 3


@pytest.mark.usefixtures("float32")
def test_a_rule_that_only_training_finds():
    """The class of a sequence is the parity of two of its bits."""
    rng = np.random.default_rng(0)
    xs = rng.integers(0, 2, (6, 64))
    labels = xs[0] ^ xs[3]
    model = (jrnn.init_rnn(jax.random.key(0), 2, 16), jrnn.init_readout(jax.random.key(1), 16, 2))

    def classify(model, carry, batch, key):
        h_last, _ = jrnn.rnn(model[0], batch)
        losses = jrnn.softmax_cross_entropy(jrnn.readout(model[1], h_last), labels)
        return losses.mean(), carry

    optimizer = optax.adam(1e-2)
    state = init_train_state(model, optimizer, (), jax.random.key(0))
    step = make_train_step(classify, optimizer)
    for _ in range(150):
        state, metrics = step(state, xs)
    assert metrics.loss < 0.05


def test_summary():
    text = jrnn.summary({"rnn": CASE.params, "readout": jrnn.ReadoutParams(jnp.ones((H, 2)), None)})
    rows = text.splitlines()
    assert rows[0].split() == ["path", "shape", "dtype", "count", "bytes"]
    assert f"rnn.w_ih      ({I}, {H})  float64     20    160" in rows
    assert rows[-1].split() == ["total", "48", "384"]
    assert len(rows) == 6
    assert jrnn.summary(jax.ShapeDtypeStruct((1000,), np.float32)).splitlines()[1].endswith("4,000")


def test_a_state_that_went_in_before_is_refused():
    state, step = start(optax.sgd(0.01)), make_train_step(loss, optax.sgd(0.01))
    after, _ = step(state, CHUNKS[0])
    with pytest.raises(
        ValueError, match=r"state: .* got one that was donated .* that it returned\."
    ):
        step(state, CHUNKS[1])
    with pytest.raises(
        ValueError, match=r"w_hh: .* got one that was donated .* that it returned\."
    ):
        jrnn.rnn(state.params, CHUNKS[1][0])
    _, metrics = step(after, CHUNKS[1])
    assert np.isfinite(metrics.loss)


@pytest.mark.parametrize("no_optimizer", ["adam", optax.adam])
def test_an_optimizer_that_is_none(no_optimizer):
    said = (
        r"optimizer: expected an optax optimiser; got (str|function)\. optax\.adam\(1e-3\) is one"
    )
    with pytest.raises(ValueError, match=said):
        start(no_optimizer)
    with pytest.raises(ValueError, match=said):
        make_train_step(loss, no_optimizer)


@pytest.mark.usefixtures("float32")
def test_a_line_search_is_refused():
    def square(params, carry, batch, key):
        return params**2, carry

    begin = lambda optimizer: init_train_state(jnp.ones(()), optimizer, None, jax.random.key(0))
    said = "optimizer: expected an optimiser that does not evaluate the loss again; got a line"
    with pytest.raises(ValueError, match=said):
        make_train_step(square, optax.lbfgs())(begin(optax.lbfgs()), None)
    without = optax.lbfgs(1e-2, linesearch=None)
    assert make_train_step(square, without)(begin(without), None)[0].step == 1


def test_a_step_is_a_jitted_function():
    state, step = start(optax.sgd(0.01)), make_train_step(loss, optax.sgd(0.01))
    in_a_trace = jax.jit(lambda state, chunk: step(state, chunk)[1].loss)
    expected = in_a_trace(state, CHUNKS[0])
    np.testing.assert_allclose(
        step.lower(state, CHUNKS[0]).compile()(state, CHUNKS[0])[1].loss, expected, rtol=RTOL
    )


@in_tiers(h0=["None", "[H]", "[B, H]"], ids=[False, True])
def test_check_against_scan_passes(h0, ids):
    case = make_case(h0=h0, ids=ids)
    found = jrnn.testing.check_against_scan(case.params, case.xs, case.h0)
    names = {"h_last", "hs", *(f"gradient.params.{n}" for n in case.params._fields)}
    if h0 != "None":
        names.add("gradient.h0")
    assert names <= found.keys()
    assert ("gradient.xs" in found) != ids
    assert max(found.values()) < RTOL


STACK = parameters(jrnn.init_stack, I, (H, 3), bidirectional=True, layer_norm=True)
LAYER = parameters(jrnn.init_stack, I, (H,))


@pytest.mark.thorough
def test_check_against_scan_passes_for_a_stack():
    found = jrnn.testing.check_against_scan(STACK, CASE.xs[:3], (None, np.full(6, 0.1)))
    leaves = [name for name, _ in named_leaves(STACK)]
    assert {f"gradient.params.{name}" for name in leaves} < found.keys()
    assert {"h_last.0", "h_last.1", "hs", "gradient.xs", "gradient.h0.1"} < found.keys()
    assert max(found.values()) < RTOL


class StayParams(NamedTuple):
    w_ih: Any
    w_hh: Any
    b_h: Any


ENDS = [  # of T = 3 steps and B = 3 sequences
    {"lengths": np.array([3, 0, 2]), "recurrent_mask": np.full(H, 0.5), "reverse": True},
    {"resets": np.arange(9).reshape(3, 3) % 2 == 0, "reset_state": np.full(H, 0.1)},
    {"mask": np.arange(9).reshape(3, 3) % 4 > 0},
]


@pytest.mark.parametrize("given", ENDS, ids=lambda given: ", ".join(given))
@pytest.mark.parametrize("stacked", [False, True])
def test_check_against_scan_takes_padding_resets_and_masks(monkeypatch, given, stacked):
    """They reach the network and the scan, and what has a gradient is compared."""
    params, of_states, calls = CASE.params, {"reset_state", "recurrent_mask"}, []
    if stacked:
        params = jrnn.StackParams((jrnn.LayerParams(params, None, None),))
        given = {k: (x,) if k in of_states else x for k, x in given.items()}
    unroll = kernel.unroll

    def seen(*arrays, **options):
        bound = inspect.signature(unroll).bind(*arrays, **options).arguments
        calls.append({k for k, x in bound.items() if x is not None and x is not False})
        return unroll(*arrays, **options)

    monkeypatch.setattr(kernel, "unroll", seen)
    found = jrnn.testing.check_against_scan(params, CASE.xs[:3], **given)
    assert len(calls) == 2
    assert all(given.keys() <= names for names in calls)
    gradients = {f"gradient.{k}" + ".0" * stacked for k in given.keys() & of_states}
    assert gradients <= found.keys()


def test_check_against_scan_with_data_that_have_no_gradient():
    """A mask of bool, and one of floats, which is compared."""

    def step(gates, before, unit, data):
        return (jnp.where(data["stay"], before[0], data["gain"] * jnp.tanh(gates[0])),)

    cell = jrnn.Cell("stay", step, data=("stay", "gain"), params=StayParams)
    params = StayParams(*jrnn.init_rnn(jax.random.key(0), 3, 4))
    random = np.random.default_rng(2)
    data = {"stay": random.random((5, 2, 4)) < 0.5, "gain": random.random((5, 2, 4))}
    found = jrnn.testing.check_against_scan(params, np.ones((5, 2, 3)), data=data, cell=cell)
    assert {name for name in found if "data" in name} == {"gradient.data.gain"}


def test_check_against_scan_refuses_what_is_no_network():
    for params, name in ((STACK.layers[0], "LayerParams"), ({}, "dict")):
        with pytest.raises(ValueError, match=f"params: expected RNNParams.* got {name}"):
            jrnn.testing.check_against_scan(params, CASE.xs)


@pytest.mark.parametrize("params", [CASE.params, LAYER], ids=["rnn", "stack"])
def test_check_against_scan_fails_where_the_gradient_is_wrong(monkeypatch, params):
    def wrong(spec, weights, inputs):
        last, hs = reference.unroll_by_scan(spec, weights, inputs)
        return last, hs + 1e-6 * weights.b.sum()

    monkeypatch.setattr(jrnn.testing, "unroll_by_scan", wrong)
    with pytest.raises(AssertionError, match=r"more than 1e-10:\n(.*\n)*  gradient.params.*b_h"):
        jrnn.testing.check_against_scan(params, CASE.xs[:3])


@pytest.mark.parametrize(
    "dtype", [pytest.param(jnp.float32, marks=pytest.mark.thorough), jnp.bfloat16]
)
def test_check_against_scan_in_other_dtypes(dtype):
    case = jax.tree.map(lambda x: x.astype(dtype), make_case())
    jrnn.testing.check_against_scan(case.params, case.xs, case.h0)
