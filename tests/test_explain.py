"""`jrnn.explain` names the backend that a call is lowered to, on every platform, and the reason."""

import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import B, H, I, T, make_case
from jax.sharding import PartitionSpec as P
from native_built import built

import jrnn
from jrnn import native
from jrnn.cells.leaky import leaky

CASE = make_case()


def gradient(params, xs):
    return jax.grad(lambda params: jrnn.rnn(params, xs)[1].sum())(params)


def lines(fn, *args, **kwargs):
    return [(e.direction, tuple(e.shape[:4]), e.backend) for e in jrnn.explain(fn, *args, **kwargs)]


@pytest.mark.usefixtures("without_native")
def test_a_batch_goes_in_chunks_and_one_sequence_back_by_a_scan():
    found = lines(jrnn.rnn, CASE.params, CASE.xs)
    assert [line[:2] for line in found] == [("forward", (T, B, I, H)), ("backward", (T, B, I, H))]
    assert all(backend.startswith("XLA, ") for *_, backend in found)
    forward, backward = lines(gradient, CASE.params, CASE.xs[:, 0])
    assert forward[:2] == ("forward", (T, 1, I, H))
    assert backward == ("backward", (T, 1, I, H), "XLA, a plain scan")


@pytest.mark.usefixtures("without_native")
def test_vmap_is_one_batch_and_a_gradient_for_each_sequence_is_not():
    of_batch = jax.vmap(jrnn.rnn, (None, 1))
    assert lines(of_batch, CASE.params, CASE.xs)[0][:2] == ("forward", (T, B, I, H))
    forward, backward = lines(jax.vmap(gradient, (None, 1)), CASE.params, CASE.xs)
    assert forward[:2] == ("forward", (T, B, I, H))
    assert backward == ("backward", (T, 1, I, H), "XLA, a plain scan")


def test_every_layer_and_every_platform():
    stack = jrnn.init_stack(jax.random.key(0), I, (4, 6), bidirectional=True)
    shapes = [shape for _, shape, _ in lines(jrnn.stack, stack, CASE.xs)]
    assert shapes == 4 * [(T, B, I, 4)] + 4 * [(T, B, 8, 6)]
    on_cpu, on_tpu = (
        jrnn.explain(jrnn.rnn, *CASE[:2], platform=name)[0] for name in ("cpu", "tpu")
    )
    assert on_cpu.reason != on_tpu.reason
    assert lines(jrnn.rnn, *CASE[:2], platform="gpu") == lines(jrnn.rnn, *CASE[:2], platform="cuda")


def of_stack(params, xs):
    return jrnn.stack(params, xs)[1].sum()


GRADIENTS = {
    "grad": jax.grad(of_stack),
    "vmap of grad": jax.vmap(jax.grad(of_stack), (None, 1)),
    "jit and remat": jax.jit(jax.grad(lambda p, xs: jrnn.stack(p, xs, remat=True)[1].sum())),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_each_line_names_its_layer_and_direction(name):
    stack = shapes_of(partial(jrnn.init_stack, bidirectional=True), I, (4, 6))
    forward = [f"layers[{n}].{way}" for n in (0, 1) for way in ("forward", "backward")]
    found = [(e.direction, e.network) for e in jrnn.explain(GRADIENTS[name], stack, CASE.xs)]
    expected = [("forward", network) for network in forward]
    assert found == expected + [("backward", network) for network in reversed(forward)]
    assert str(jrnn.explain(jrnn.stack, stack, CASE.xs, platform="tpu")[-1]).startswith(
        "layers[1].backward (elman), backward pass on tpu, T = 7, B = 3, I = 8, H = 6, "
    )


@pytest.mark.parametrize("remat", [False, True])
def test_a_loss_of_a_stack_names_its_layers(remat):
    stack, readout = shapes_of(jrnn.init_stack, I, (4, 6)), shapes_of(jrnn.init_readout, 6, 2)
    loss = partial(jrnn.rnn_loss, loss=jrnn.squared_error, remat=remat)
    given = stack, readout, CASE.xs, np.zeros((T, B, 2))
    gradient = jax.grad(lambda *given: loss(*given)[0])
    for e in jrnn.explain(gradient, *given):
        assert e.network == f"layers[{[4, 6].index(e.shape.H)}].forward"


def test_ids_and_segments():
    ids = make_case(ids=True)
    loss = jrnn.rnn_cross_entropy
    readout = jrnn.ReadoutParams(jnp.ones((H, 2)), None)
    labels = np.zeros((T, B), int)
    (first, *_) = jrnn.explain(loss, ids.params, readout, ids.xs, labels)
    assert first.shape.I == 0
    assert first.cell == "elman"
    from_segments = jrnn.explain(lambda p: jrnn.rnn(p, CASE.xs, remat=True), CASE.params)
    assert "segments" in str(from_segments[0])


NETWORKS = {
    "lstm": (jrnn.init_lstm, jrnn.lstm),
    "gru": (jrnn.init_gru, jrnn.gru),
    "leaky": (partial(jrnn.init_leaky, alpha=0.5, learned=True), jrnn.leaky),
}


def shapes_of(init, I, H):
    return jax.eval_shape(lambda: init(jax.random.key(0), I, H))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_by_the_name_of_its_cell(name):
    init, run = NETWORKS[name]
    params, xs = shapes_of(init, I, H), CASE.xs
    of_batch = [(e.cell, e.direction, tuple(e.shape[:4])) for e in jrnn.explain(run, params, xs)]
    assert of_batch == [(name, direction, (T, B, I, H)) for direction in ("forward", "backward")]

    def gradients(params, xs):
        return jax.vmap(jax.grad(lambda p, x: run(p, x)[1].sum()), (None, 1))(params, xs)

    forward, backward = jrnn.explain(gradients, params, xs, platform="tpu")
    assert (forward.cell, backward.cell) == (name, name)
    assert (forward.shape.B, backward.shape.B) == (B, 1)


class Own(NamedTuple):
    w_ih: Any
    w_hh: Any
    b_h: Any


def test_a_stack_of_several_kinds_and_a_cell_of_a_users_own():
    step = lambda blocks, before, unit, data: (jnp.sin(blocks[0]),)
    own = jrnn.Cell("sine", step, params=Own)
    kinds = {
        **{name: init for name, (init, _) in NETWORKS.items()},
        "sine": partial(jrnn.init_cell, own),
    }
    sizes, inputs = (4, 6, 3, 5), (I, 4, 6, 3)
    networks = [shapes_of(*given) for given in zip(kinds.values(), inputs, sizes, strict=True)]
    layers = tuple(jrnn.LayerParams(network, None, None) for network in networks)
    cells = [None] * len(kinds)
    cells[-2:] = leaky("tanh", "state", learned=True), own
    found = jrnn.explain(partial(jrnn.stack, cell=cells), jrnn.StackParams(layers), CASE.xs)
    forward = [(e.cell, e.shape.I, e.shape.H) for e in found if e.direction == "forward"]
    assert forward == list(zip(kinds, inputs, sizes, strict=True))


# --- beside the compiled program ------------------------------------------------------------------

XS = CASE.xs
LSTM = jrnn.init_lstm(jax.random.key(2), I, H)
SEVERAL = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), LSTM)  # networks


def squares(f):
    """A scalar, and not linear: of the arrays that f returns."""
    return lambda *args: sum(jnp.sum(x * x) for x in jax.tree.leaves(f(*args)))


of_lstm = squares(jrnn.lstm)
of_remat = squares(partial(jrnn.lstm, remat=True))
each = jax.vmap(jrnn.lstm, (0, None))
slope = jax.grad(of_lstm)


def in_a_scan(params, xs):
    return jax.lax.scan(lambda c, x: (c, jrnn.lstm(params, x)[1]), 0.0, xs[None])


def under_a_condition(params, xs):
    return jax.lax.cond(xs[0, 0, 0] > 0, of_lstm, squares(jrnn.lstm), params, xs)


MESH = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
CUT = jax.sharding.NamedSharding(MESH, P(None, "batch"))


def on_a_mesh(f):
    """f by `shard_map`, a part of the batch for each of two devices."""
    specs = {"in_specs": (P(), P(None, "batch")), "out_specs": P()}
    return jax.shard_map(lambda p, x: jax.lax.pmean(f(p, x), "batch"), mesh=MESH, **specs)


ALONE = np.ones((16, 1, I))  # 4 segments of 4 steps, which are computed again side by side
PROGRAMS = {
    "network": (jrnn.lstm, LSTM, XS),
    "vmap over data": (jax.vmap(jrnn.lstm, (None, 1)), LSTM, XS),
    "vmap over parameters": (each, SEVERAL, XS),
    "vmap over both": (jax.vmap(jrnn.lstm, (0, 1)), SEVERAL, XS[:, :2]),
    "vmap over parameters, of a vmap over data": (
        jax.vmap(jax.vmap(jrnn.lstm, (None, 1)), (0, None)),
        SEVERAL,
        XS,
    ),
    "grad": (slope, LSTM, XS),
    "grad of vmap over parameters": (jax.grad(squares(each)), SEVERAL, XS),
    "vmap over data, of grad": (jax.vmap(slope, (None, 1)), LSTM, XS),
    "vmap over parameters, of grad": (jax.vmap(slope, (0, None)), SEVERAL, XS),
    "grad of grad": (jax.grad(squares(slope)), LSTM, XS),
    "grad of grad of remat": (jax.grad(squares(jax.grad(of_remat))), LSTM, XS),
    "jit of hessian": (jax.jit(jax.hessian(of_lstm)), LSTM, XS),
    "jvp of grad": (lambda p, xs: jax.jvp(lambda p: slope(p, xs), (p,), (p,)), LSTM, XS),
    "remat": (of_remat, LSTM, XS),
    "grad of remat": (jax.grad(of_remat), LSTM, XS),
    "grad of remat, one sequence": (jax.grad(of_remat), LSTM, ALONE),
    "grad of jax.checkpoint": (jax.grad(jax.checkpoint(of_lstm)), LSTM, XS),
    "scan": (in_a_scan, LSTM, XS),
    "grad of scan": (jax.grad(squares(in_a_scan)), LSTM, XS),
    "cond": (under_a_condition, LSTM, XS),
    "shard_map": (on_a_mesh(of_lstm), LSTM, XS[:, :2]),
    "grad of shard_map": (jax.grad(on_a_mesh(of_lstm)), LSTM, XS[:, :2]),
    "grad, arrays on two devices": (slope, LSTM, jax.device_put(XS[:, :2], CUT)),
    "grad, cut for two devices by jit": (jax.jit(slope, in_shardings=(None, CUT)), LSTM, XS[:, :2]),
    "grad, few steps": (slope, LSTM, XS[:1]),
}


QUICK = (
    "vmap over parameters",
    "vmap over data, of grad",
    "grad of grad",
    "grad of remat, one sequence",
    "grad of shard_map",
    "grad, arrays on two devices",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else pytest.mark.thorough) for n in PROGRAMS],
)
def test_what_is_said_to_be_native_is_so_in_the_compiled_program(name):
    fn, *args = PROGRAMS[name]
    program = jax.jit(fn).lower(*args).compile().as_text()
    compiled = {way for way in ("forward", "backward") if f"jrnn_native_{way}" in program}
    passes = jrnn.explain(fn, *args)
    if not re.search("grad|hessian", name):  # the backward passes would be those of its gradient
        passes = [e for e in passes if e.direction == "forward"]
    said = {e.direction for e in passes if e.backend.startswith("native")}
    said |= {"forward" for e in passes if "at a time: native" in e.reason}
    assert said == compiled


@pytest.mark.parametrize("name", ["grad of grad", "jit of hessian", "grad of grad of remat"])
def test_second_derivatives_are_those_of_plain_scans(name):
    fn, *args = PROGRAMS[name]
    forward, backward = jrnn.explain(fn, *args)
    assert [forward.direction, backward.direction] == ["forward", "backward"]
    for e in (forward, backward):
        assert (e.cell, e.shape) == ("lstm", (T, B, I, H, np.float64))
        assert (e.backend, "differentiates a gradient" in e.reason) == ("XLA, a plain scan", True)


def test_second_derivatives_of_a_stack_name_its_layers():
    params = shapes_of(jrnn.init_stack, I, (4, 6))
    found = jrnn.explain(jax.grad(squares(jax.grad(of_stack))), params, CASE.xs)
    assert sorted((e.network, e.shape.H, e.direction) for e in found) == [
        (f"layers[{n}].forward", H, direction)
        for n, H in ((0, 4), (1, 6))
        for direction in ("backward", "forward")
    ]


def of_size(T, B, I, H, dtype=np.float32, **options):
    params = jax.eval_shape(lambda: jrnn.init_rnn(jax.random.key(0), I, H, dtype=dtype))
    xs = jax.ShapeDtypeStruct((T, B, I), dtype)
    platform = options.pop("platform", "cpu")
    return jrnn.explain(partial(jrnn.rnn, **options), params, xs, platform=platform)[0].reason


def of_time_steps(T, B, I, H):
    params = jrnn.init_leaky(jax.random.key(0), I, H, alpha=0.5, dtype=np.float32)
    xs, dt = np.ones((T, B, I), np.float32), np.ones((T, B), np.float32)
    return jrnn.explain(partial(jrnn.leaky, dt=dt), params, xs, platform="cpu")[0].reason


own = jrnn.Activation(lambda a: a / (1 + abs(a)), lambda h: (1 - abs(h)) ** 2)
REASONS = {
    "the native kernel is for CPUs": (of_size, {"platform": "cuda"}),
    "few steps of few sequences, 2 T B < I": (of_size, {"T": 1, "B": 1}),
    "fewer than 4 sequences of H >= 448": (of_size, {"B": 2, "H": 512}),
    "not of bfloat16": (of_size, {"dtype": jnp.bfloat16}),
    "no cell and no activation of a user's own": (of_size, {"activation": own}),
    "no leaky network with dt": (of_time_steps, {}),
    "no compute_dtype float16": (of_size, {"compute_dtype": jnp.float16}),
    "the batch is empty": (of_size, {"B": 0}),
}


@pytest.mark.parametrize("reason", REASONS)
@built
def test_the_reason_is_why_the_native_kernel_does_not_run_it(reason):
    run, changed = REASONS[reason]
    found = run(**{"T": 16, "B": 8, "I": 4, "H": 8} | changed)
    assert reason in found
    assert "goes through time" not in found


def test_a_kernel_that_is_off_or_not_there_is_the_reason(monkeypatch):
    with native.turned(False):
        reason = jrnn.explain(jrnn.rnn, *CASE[:2], platform="cpu")[0].reason
    assert reason.startswith("the native kernel is turned off (JRNN_NATIVE")
    monkeypatch.setattr(native, "_load", lambda: "It was not built.")
    with native.turned(True):
        reason = jrnn.explain(jrnn.rnn, *CASE[:2], platform="cpu")[0].reason
    assert reason == "It was not built"


def test_options_are_not_arrays():
    """Given as arguments of a call, they are what they are in the call itself."""
    stack = shapes_of(jrnn.init_stack, I, (4, 6))
    options = {"activation": "relu", "remat": True, "residual": False}
    found = jrnn.explain(jrnn.stack, stack, CASE.xs, **options)
    assert found == jrnn.explain(partial(jrnn.stack, **options), stack, CASE.xs)
    assert jrnn.explain(jrnn.rnn, *CASE[:2], reverse=True)
    assert jrnn.explain(lambda f, *args: f(*args), jrnn.rnn, *CASE[:2])  # not only by keyword


@pytest.mark.usefixtures("float32")
def test_the_compute_dtype_is_said():
    params, xs = shapes_of(jrnn.init_rnn, I, H), np.ones((T, B, I), np.float32)
    for e in jrnn.explain(jrnn.rnn, params, xs, compute_dtype=jnp.bfloat16):
        assert e.compute_dtype == jnp.bfloat16
        assert "H = 4, dtype = float32, compute_dtype = bfloat16: " in str(e)
    again = jax.grad(squares(jax.grad(squares(partial(jrnn.rnn, compute_dtype=jnp.bfloat16)))))
    assert {e.compute_dtype for e in jrnn.explain(again, params, xs)} == {np.dtype(jnp.bfloat16)}
    assert "compute_dtype" not in str(jrnn.explain(jrnn.rnn, params, xs)[0])


@pytest.mark.parametrize("fn", [jnp.sum, partial(jrnn.derivation.rnn_scan, CASE.params)])
def test_a_function_without_a_recurrence_is_refused(fn):
    said = "fn: expected a function that calls a network of jrnn; got one without"
    with pytest.raises(ValueError, match=said):
        jrnn.explain(fn, CASE.xs)


def test_it_prints_and_refuses():
    first = str(jrnn.explain(jrnn.rnn, *CASE[:2], platform="tpu")[0])
    assert first.startswith(
        "elman, forward pass on tpu, T = 7, B = 3, I = 5, H = 4, dtype = float64: "
        "XLA, chunks of 7 steps; the native kernel is for CPUs"
    )
    with pytest.raises(ValueError, match="platform: expected one of cpu, cuda, rocm, tpu"):
        jrnn.explain(jrnn.rnn, *CASE[:2], platform="abacus")
    with pytest.raises(ValueError, match="xs: expected vectors"):
        jrnn.explain(jrnn.rnn, CASE.params, CASE.xs[..., 1:])
    with pytest.raises(ValueError, match="fn: expected a function; got RNNParams"):
        jrnn.explain(CASE.params, CASE.xs)
