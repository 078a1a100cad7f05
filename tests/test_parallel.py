"""The batch split over two devices: the same losses, nobody waits in a loop; refusals."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import RTOL, assert_close, parameters
from compilations import compilations
from cover import in_tiers
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from programs import in_a_new_process
from refusals import refused

import jrnn
from jrnn import native, parallel
from jrnn.training import init_train_state, make_train_step

T, B, I, H, O = 5, 6, 4, 8, 3
OPTIMIZER = optax.sgd(1e-2, momentum=0.9)  # reads the size of the gradient, as adam does not


def batches(count, dtype=np.float64, ids=False):
    """(xs [T, B, I] or ids [T, B], labels [T, B], mask [T, B], last labels [B]), mask uneven."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        xs = rng.integers(0, I, (T, B)) if ids else rng.normal(size=(T, B, I)).astype(dtype)
        mask = np.arange(T)[:, None] < [
            1,
            2,
            1,
            5,
            4,
            3,
        ]  # 4 positions in one half, 12 in the other
        yield xs, rng.integers(0, O, (T, B)), mask, rng.integers(0, O, B)


def make_model(dtype=np.float64, init=jrnn.init_rnn):
    rnn = parameters(init, I, H, dtype=dtype)
    return rnn, parameters(jrnn.init_readout, H, O, seed=1, dtype=dtype)


def make_loss(cost, network=jrnn.rnn):
    """A loss that hands `cost(losses, mask, model)` over, and the last state."""

    def loss(model, carry, batch, key):
        xs, labels, mask, _ = batch
        carry, hs = network(model[0], xs, carry)
        losses = jrnn.softmax_cross_entropy(jrnn.readout(model[1], hs), labels, mask)
        return cost(losses, mask, model), carry

    return loss


def with_decay(losses, mask, model):
    count = mask.sum().astype(losses.dtype)
    return parallel.mean(losses.sum() + count * 0.1 * optax.tree.norm(model), count)


COSTS = {  # on two devices, on one
    "masked mean": (
        lambda losses, mask, _: parallel.mean(losses, mask),
        lambda losses, mask, _: losses.sum() / mask.sum(dtype=losses.dtype),
    ),
    "mean": (
        lambda losses, mask, _: parallel.mean(losses, losses.size),
        lambda losses, mask, _: losses.mean(),
    ),
    "total": (
        lambda losses, mask, _: lax.psum(losses.sum(), "batch"),
        lambda losses, mask, _: losses.sum(),
    ),
    "with a term of the parameters": (
        with_decay,
        lambda losses, mask, model: (
            losses.sum() / mask.sum(dtype=losses.dtype) + 0.1 * optax.tree.norm(model)
        ),
    ),
}
SPEC = (P(None, "batch"), P(None, "batch"), P(None, "batch"), P("batch"))


def run(loss, mesh, steps=8, dtype=np.float64, init=jrnn.init_rnn, carry=lambda h: h, **data):
    """The state after some steps, and losses and norms of all of them."""
    model, start = make_model(dtype, init), carry(jnp.zeros((B, H), dtype))
    state = init_train_state(model, OPTIMIZER, start, jax.random.key(1), mesh=mesh)
    step = make_train_step(loss, OPTIMIZER, mesh=mesh, batch_spec=SPEC)
    metrics = []
    for batch in batches(steps, dtype, **data):
        state, measured = step(state, batch)
        metrics.append(measured)
    state, metrics = jax.device_get((state._replace(key=None), metrics))
    return state, jax.tree.map(lambda *m: np.stack(m), *metrics)


@in_tiers(name=COSTS, ids=[False, True])
def test_two_devices_are_one(name, ids):
    split, whole = (make_loss(cost) for cost in COSTS[name])
    expected = run(whole, None, ids=ids)
    assert len(set(expected[1].loss.tolist())) == 8
    assert_close(run(split, parallel.batch_mesh(2), ids=ids), expected, RTOL)


@in_tiers(lambda _: [{"name": "masked mean"}], name=[name for name in COSTS if name != "total"])
def test_the_same_function_is_the_loss_of_one_device(name):
    """On a mesh and without."""
    split, whole = (make_loss(cost) for cost in COSTS[name])
    expected = run(whole, None)
    assert_close(run(split, parallel.batch_mesh(1)), expected, RTOL)
    assert_close(run(split, None), expected, RTOL)


@pytest.mark.usefixtures("float32")
def test_two_devices_are_one_to_float32_rounding():
    split, whole = (make_loss(cost) for cost in COSTS["masked mean"])
    expected = run(whole, None, dtype=np.float32)
    # Eight steps of sums in another order, of about a hundred terms of eps = 1.2e-7 each.
    assert_close(run(split, parallel.batch_mesh(2), dtype=np.float32), expected, 1e-5)


def test_two_states_are_carried_from_chunk_to_chunk_on_two_devices_as_on_one():
    """h and c begin as one array, whose buffer a step that donates may take once only."""
    split, whole = (make_loss(cost, jrnn.lstm) for cost in COSTS["masked mean"])
    lstm = {"init": jrnn.init_lstm, "carry": lambda zeros: jrnn.LSTMState(zeros, zeros)}
    state, metrics = run(whole, None, **lstm)
    assert isinstance(state.carry, jrnn.LSTMState)
    assert not np.allclose(state.carry.h, state.carry.c)
    assert len(set(metrics.loss.tolist())) == 8
    found = run(split, parallel.batch_mesh(2), **lstm)
    assert_close(found, (state, metrics), RTOL)


def test_the_same_again_bit_for_bit():
    split = make_loss(COSTS["masked mean"][0])
    again, first = (run(split, parallel.batch_mesh(2)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, again, first)


def test_every_device_has_its_part_and_a_key_of_its_own():
    seen = {}

    def loss(model, h0, batch, key):
        xs, *_, last = batch
        seen.update(h0=h0.shape, xs=xs.shape, last=last.shape, w_hh=model[0].w_hh.shape)
        drawn = jax.random.normal(key, h0.shape)
        return parallel.mean((drawn * model[0].w_hh.sum()).sum(), 1), drawn

    state, _ = run(loss, parallel.batch_mesh(2), steps=1)
    assert seen == {"h0": (3, H), "xs": (T, 3, I), "last": (3,), "w_hh": (H, H)}
    assert state.carry.shape == (B, H)
    assert len(np.unique(state.carry)) == B * H


@pytest.mark.usefixtures("float32")
def test_the_step_compiles_once_and_takes_the_buffers():
    mesh, optimizer = parallel.batch_mesh(2), optax.MultiSteps(optax.adam(1e-2), 2)
    params, h0 = jax.device_put(make_model(np.float32)), jnp.zeros((B, H))
    state = init_train_state(params, optimizer, h0, jax.random.key(1), mesh=mesh)
    step = make_train_step(make_loss(COSTS["mean"][0]), optimizer, mesh=mesh, batch_spec=SPEC)
    data = list(batches(4, np.float32))
    fresh = [jnp.zeros_like(state.carry) for _ in data]  # as where a text begins again
    compiled = len(compilations())
    for batch, zeros in zip(data, fresh, strict=True):
        before = state._replace(carry=zeros)
        shardings = jax.tree.map(lambda x: x.sharding, state)
        state, _ = step(before, batch)
        assert before.params[0].w_hh.is_deleted()
        assert zeros.is_deleted()
        assert jax.tree.map(lambda x: x.sharding, state) == shardings
    assert len(compilations()) == compiled + 1
    assert state.carry.sharding.shard_shape((B, H)) == (3, H)
    assert not params[0].w_hh.is_deleted()


@pytest.mark.parametrize("of", ["a device", "another mesh", "the same mesh"])
def test_a_state_begins_with_arrays_of_any_devices(of):
    """As a restored or a pretrained model has them; they stay the caller's."""
    mesh = parallel.batch_mesh(2)
    device = {
        "a device": jax.devices()[1],
        "another mesh": jax.sharding.NamedSharding(parallel.batch_mesh(1), P()),
        "the same mesh": jax.sharding.NamedSharding(mesh, P()),
    }[of]
    params, h0 = jax.device_put((make_model(), np.zeros((B, H))), device)
    state = init_train_state(params, OPTIMIZER, h0, jax.random.key(1), mesh=mesh)
    loss = make_loss(COSTS["mean"][0])
    state, _ = make_train_step(loss, OPTIMIZER, mesh=mesh, batch_spec=SPEC)(state, next(batches(1)))
    assert state.carry.sharding.shard_shape((B, H)) == (3, H)
    assert np.isfinite(params[0].w_hh).all()
    assert (np.asarray(h0) == 0).all()


# --- nobody waits in a loop ----------------------------------------------------------------------


def computations(program):
    """Name and lines of every computation of a compiled program."""
    computation = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*?\{\n(.*?)^\}", re.S | re.M)
    return dict(computation.findall(program.as_text()))


def collectives(text):
    return re.findall(
        r"(?:all|reduce|collective)-(?:reduce|gather|scatter|to-all|permute)\S*\(", text
    )


def in_loops(program):
    """The collectives in the bodies of while loops, and in what these call."""
    parts = computations(program)
    waiting = re.findall(r"body=%?([\w.-]+)", program.as_text())
    assert waiting, "no loop"
    found, seen = [], set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            found += collectives(parts[name])
            waiting += [n for n in re.findall(r"%([\w.-]+)", parts[name]) if n in parts]
    return found


def scan_loss(model, h0, batch, key):
    """Autodiff of a plain scan, in which w_hh is used at every step."""
    h_last, hs = jrnn.derivation.rnn_scan(model[0], batch[0], h0)
    return parallel.mean((hs**2).sum(), hs.size), h_last


@pytest.mark.usefixtures("without_native")
@pytest.mark.parametrize("loss", [make_loss(COSTS["masked mean"][0]), scan_loss])
def test_devices_meet_outside_of_the_loops(loss):
    mesh = parallel.batch_mesh(2)
    state = init_train_state(
        make_model(), OPTIMIZER, jnp.zeros((B, H)), jax.random.key(1), mesh=mesh
    )
    step = make_train_step(loss, OPTIMIZER, mesh=mesh, batch_spec=SPEC)
    program = step.lower(state, next(batches(1))).compile()
    assert len(collectives(program.as_text())) >= 1
    assert in_loops(program) == []


def test_that_test_sees_devices_meet_in_a_loop():
    """As they do where a shared parameter is differentiated through a scan."""

    @partial(
        jax.shard_map,
        mesh=parallel.batch_mesh(2),
        in_specs=(P(), P("batch"), SPEC, P()),
        out_specs=P(),
    )
    def gradient(*args):
        return jax.grad(lambda *args: scan_loss(*args)[0])(*args)

    args = make_model(), jnp.zeros((B, H)), next(batches(1)), jax.random.key(0)
    assert len(in_loops(jax.jit(gradient).lower(*args).compile())) >= 1


# --- devices -------------------------------------------------------------------------------------


def test_every_core_becomes_a_device():
    code = """
import os, jax, numpy as np
environment = dict(os.environ)
from jrnn.parallel import batch_mesh, use_cpu_cores
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
use_cpu_cores(1)
use_cpu_cores()
use_cpu_cores(np.int64(cores))
assert environment == dict(os.environ)
print(len(jax.devices("cpu")) == cores, batch_mesh().size == len(jax.devices()))
use_cpu_cores()  # nothing to do
print(batch_mesh(1).axis_names)
"""
    assert in_a_new_process(code) == ["True", "True", "('batch',)"]


def too_late():
    parallel.batch_mesh()
    parallel.use_cpu_cores(1)


def train(batch=None, mesh=None, loss=None, spec=SPEC, h0=None):
    mesh = mesh or parallel.batch_mesh(2)
    h0 = jnp.zeros((B, H)) if h0 is None else h0
    state = init_train_state(make_model(), OPTIMIZER, h0, jax.random.key(1), mesh=mesh)
    loss = loss or make_loss(COSTS["mean"][0])
    make_train_step(loss, OPTIMIZER, mesh=mesh, batch_spec=spec)(state, batch or next(batches(1)))


REFUSED = {
    "after the start": (
        too_late,
        "use_cpu_cores: expected JAX that has made no device yet; got JAX that runs on 2 cpu "
        "devices. Call it right after the imports, before anything is computed.",
    ),
    "more cores than there are": (
        lambda: parallel.use_cpu_cores(10_000),
        f"n: expected at most {native.cpu_cores()}, the cores of this process; got 10000. "
        "More devices than cores would take turns; None is all cores.",
    ),
    "no core": (
        lambda: parallel.use_cpu_cores(0),
        "n: expected a positive integer; got 0. The least is 1.",
    ),
    "more devices than there are": (
        lambda: parallel.batch_mesh(3),
        "devices: expected at most the 2 cpu devices of JAX; got 3. CPU cores become devices by "
        "jrnn.parallel.use_cpu_cores().",
    ),
    "no device": (
        lambda: parallel.batch_mesh(0),
        "devices: expected a positive integer; got 0. The least is 1.",
    ),
    "a mesh of Explicit axes": (
        lambda: train(mesh=jax.make_mesh((2,), ("batch",))),
        "mesh: expected a mesh of one axis, 'batch', of type Auto; got Mesh(axis_sizes="
        "(2,), axis_names=('batch',), axis_types=(Explicit,)). "
        "Make it by jrnn.parallel.batch_mesh().",
    ),
    "another axis": (
        lambda: make_train_step(
            scan_loss,
            OPTIMIZER,
            mesh=jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,)),
        ),
        "mesh: expected a mesh of one axis, 'batch', of type Auto; got Mesh(axis_sizes="
        "(2,), axis_names=('data',), axis_types=(Auto,)).",
    ),
    "a carry that does not divide": (
        lambda: train(h0=jnp.zeros((5, H))),
        "carry: expected a batch, axis 0, that 2 devices divide; got float64[5, 8]. Take another "
        "batch size or other devices: jrnn.parallel.batch_mesh(n).",
    ),
    "a carry without a batch": (
        lambda: train(h0=jnp.zeros(())),
        "carry: expected the batch on axis 0 of every array; got float64[]. Every array of the "
        "carry is split along axis 0: give it one value for each sequence, jnp.zeros(B).",
    ),
    "a batch that does not divide": (
        lambda: train(batch=jax.tree.map(lambda x: x[..., :5], next(batches(1, ids=True)))),
        "batch: expected a batch, axis 1, that 2 devices divide; got int64[5, 5]. Take another",
    ),
    "a batch of vectors": (
        lambda: train(spec=P(None, "batch")),
        "batch: expected the batch on axis 1 of every array; got int64[6]. batch_spec gives "
        "the batch axis of each array.",
    ),
    "a loss of one part": (
        lambda: train(loss=make_loss(lambda losses, mask, model: losses.mean())),
        "loss_fn: expected the loss of the whole batch; got one that differs from device to "
        "device. Return jrnn.parallel.mean(losses, count) of this device's part.",
    ),
}


test_refused = refused(REFUSED)


GRU, READOUT = make_model(init=jrnn.init_gru)
ID_BATCH = np.zeros((T, B), int)
EXPLICIT = {  # (the argument, a cost of it, the argument on one device)
    "a network": ("xs", lambda xs: jrnn.gru(GRU, xs)[0].sum(), np.ones((T, B, I))),
    "a stack": (
        "xs",
        lambda xs: jrnn.stack(jrnn.StackParams((jrnn.LayerParams(GRU, None, None),)), xs)[1].sum(),
        np.ones((T, B, I)),
    ),
    "a whole objective": (
        "xs",
        lambda xs: jrnn.rnn_cross_entropy(GRU, READOUT, xs, ID_BATCH[:, : xs.shape[1]])[0],
        ID_BATCH,
    ),
    "a readout with its loss": (
        "hs",
        lambda hs: jrnn.readout_cross_entropy(READOUT, hs, ID_BATCH[:, : hs.shape[1]]),
        np.ones((T, B, H)),
    ),
}


@pytest.mark.parametrize("name", EXPLICIT)
def test_a_batch_that_is_split_over_an_explicit_axis_is_refused_by_name(name):
    argument, cost, x = EXPLICIT[name]
    mesh = jax.make_mesh((2,), ("data",))  # whose axes are Explicit
    split = jax.device_put(x, NamedSharding(mesh, P(None, "data")))
    said = rf"{argument}: expected an array split over Auto axes; got one .*, P\(None, 'data'.*"
    for call in (cost, jax.jit(cost)):
        with pytest.raises(ValueError, match=said) as error:
            call(split)
    options = re.search(r"Give jax\.make_mesh axis_types=(.*), or map", str(error.value)).group(1)
    auto = jax.make_mesh((2,), ("data",), axis_types=eval(options, {"jax": jax}))
    mapped = jax.shard_map(
        lambda x: lax.psum(cost(x), "data"), mesh=mesh, in_specs=P(None, "data"), out_specs=P()
    )
    expected = cost(x)
    assert_close(jax.jit(cost)(jax.device_put(x, NamedSharding(auto, P(None, "data")))), expected)
    assert_close(jax.jit(mapped)(split), expected)
    with jax.set_mesh(mesh):  # in every device the whole of it
        assert_close(cost(jax.device_put(x, NamedSharding(mesh, P()))), expected)


def test_what_jax_splits_over_an_explicit_axis_by_itself_is_not_refused():
    mesh = jax.make_mesh((2,), ("data",))
    hs, labels = np.ones((T, B, H)), np.zeros((T, B), int)
    cost = lambda hs, labels: jrnn.softmax_cross_entropy(jrnn.readout(READOUT, hs), labels).sum()
    split = jax.device_put((hs, labels), NamedSharding(mesh, P(None, "data")))
    assert_close(jax.jit(jax.grad(cost))(*split), jax.grad(cost)(hs, labels))


def test_each_process_has_its_own_streams(monkeypatch):
    streams = np.arange(30).reshape(5, 6)
    np.testing.assert_array_equal(parallel.own_part(streams), streams)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    own = parallel.own_part(streams)
    np.testing.assert_array_equal(own, streams[:, 3:])
    assert own.base is streams.base  # nothing is read
    with pytest.raises(ValueError, match="streams: expected a multiple of 2 processes; got 5"):
        parallel.own_part(streams[:, :5])


def test_the_batch_of_one_process_is_the_whole_one():
    batch = next(batches(1))
    assert parallel.whole_batch(batch, parallel.batch_mesh(2), SPEC) is batch
    parallel.check_agreement({"one": 1, "process": "agrees"})


@pytest.mark.parametrize("error", [OSError("no space"), ValueError("no prompt"), KeyError()])
def test_what_fails_together_fails_with_its_own_error(error):
    """Of two processes: test_another_run_of_two_processes_is_refused_in_both."""
    done = []
    parallel.together(lambda: done.append(1))
    assert done == [1]

    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        parallel.together(fail)
    assert caught.value is error


@pytest.mark.parametrize("error", [TimeoutError(), RuntimeError("no device")])
def test_any_error_reaches_the_other_processes(error, monkeypatch):
    """Each of the two is run in turn; the second gets the message of the first."""
    rows = []

    def gather(row):
        rows.append(row)
        return np.stack(rows)

    def fail():
        raise error

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    with pytest.raises(type(error)):
        parallel.together(fail)
    with pytest.raises(ValueError, match=str(error) or "TimeoutError"):
        parallel.together(list)


@pytest.mark.usefixtures("float32")
def test_a_mean_counts_beyond_half_precision():
    """float16 ends at 65,504, and bfloat16 has no 1,999."""
    found = parallel.mean(jnp.float16(7000), 70_000)
    np.testing.assert_allclose(found, 0.1, rtol=1e-3)
    np.testing.assert_allclose(parallel.mean(jnp.bfloat16(1), 1999), 1 / 1999, rtol=1e-6)
    threes, twos = (jnp.full((300, 300), n, jnp.float16) for n in (3, 2))
    np.testing.assert_allclose(parallel.mean(threes, twos), 1.5, rtol=1e-6)
