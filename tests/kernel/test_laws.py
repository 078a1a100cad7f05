"""What every pure function under JAX's transformations must satisfy, and this one does."""

import dataclasses
from functools import partial

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    LAW_RTOL,
    assert_close,
    make_case,
    on_two_devices,
    parameters,
    sines,
    together,
    twice,
    two_devices,
    value_and_cotangents,
)
from cells_of_users import GATED
from jax import lax
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads
from jaxprs import named

import jrnn
from jrnn import derivation


def scan(params, xs, h0=None):
    """A plain scan, independent of the package."""
    bias = 0.0 if params.b_h is None else params.b_h[None]

    def step(h, x):
        h = jnp.tanh(x @ params.w_ih + h @ params.w_hh + bias)
        return h, h

    shape = (xs.shape[1], params.w_hh.shape[0])
    h0 = jnp.zeros(shape, xs.dtype) if h0 is None else jnp.broadcast_to(h0, shape)
    return lax.scan(step, h0, xs)


def cost(f, case):
    """A scalar that depends on both outputs, and not linearly."""

    def total(params, xs, h0):
        h_last, hs = f(params, xs, h0)
        return jnp.vdot(jnp.sin(h_last), case.dh_last) + jnp.vdot(hs**2, case.dhs)

    return total


def everything(f, case, argnums=(0, 1, 2)):
    run = jax.jit(jax.value_and_grad(cost(f, case), argnums))
    return run(case.params, case.xs, case.h0)


def test_jit_is_eager():
    case = make_case()
    with jax.disable_jit():
        eager = everything(jrnn.rnn, case)
    assert_close(jax.jit(lambda: everything(jrnn.rnn, case))(), eager, LAW_RTOL)


def test_checkpoint_changes_nothing():
    case = make_case()
    assert_close(everything(jax.checkpoint(jrnn.rnn), case), everything(jrnn.rnn, case), LAW_RTOL)


def test_inside_a_scan():
    case = make_case(T=6)

    def in_two(params, xs, h0):
        h, hs = lax.scan(lambda h, x: jrnn.rnn(params, x, h), h0, xs.reshape(2, 3, *xs.shape[1:]))
        return h, hs.reshape(6, *hs.shape[2:])

    assert_close(everything(in_two, case), everything(jrnn.rnn, case), LAW_RTOL)


@pytest.mark.parametrize("k", [1, 4])
def test_a_sequence_in_two_parts_is_the_whole(k):
    case = make_case()

    def parts(params, xs, h0):
        h_k, first = jrnn.rnn(params, xs[:k], h0)
        h_last, second = jrnn.rnn(params, xs[k:], h_k)
        return h_last, jnp.concatenate([first, second])

    assert_close(everything(parts, case), everything(jrnn.rnn, case), LAW_RTOL)


def test_permuting_the_batch_permutes_the_result():
    case = make_case()
    order = np.array([2, 0, 1])
    h_last, hs = jrnn.rnn(case.params, case.xs[:, order], case.h0[order])
    expected = jrnn.rnn(case.params, case.xs, case.h0)
    assert_close((h_last, hs), (expected[0][order], expected[1][:, order]), LAW_RTOL)


def second_order(f, case):
    return jax.jit(twice(cost(f, case), (0, 1, 2)))(case.params, case.xs, case.h0)


def test_grad_of_grad():
    case = make_case()
    assert_close(second_order(jrnn.rnn, case), second_order(scan, case), LAW_RTOL * 10)


@pytest.mark.thorough
def test_third_order():
    case = make_case(T=3, B=2, I=2, H=3)
    third = [jax.grad(lambda p: sines(second_order(f, p)))(case) for f in (jrnn.rnn, scan)]
    assert_close(*third, LAW_RTOL * 100)


def test_grad_of_grad_of_ids():
    case = make_case(ids=True)

    def second(f, xs):
        return jax.jit(twice(lambda p: jnp.vdot(f(p, xs, case.h0)[1] ** 2, case.dhs)))(case.params)

    assert_close(second(jrnn.rnn, case.xs), second(scan, np.eye(cases.I)[case.xs]), LAW_RTOL * 10)


def stack(params, xs):
    return jrnn.stack(jrnn.StackParams((jrnn.LayerParams(params, None, None),)), xs)


def objective(params, xs):
    readout = jrnn.ReadoutParams(jnp.ones((cases.H, 2)), None)
    return jrnn.rnn_cross_entropy(params, readout, xs, jnp.zeros(xs.shape[:2], int))


def sequences(params, xs):
    return jax.vmap(jrnn.rnn, (None, 1))(params, xs)


FORWARD = [jrnn.rnn, jax.jit(jrnn.rnn), partial(jrnn.rnn, remat=True), stack, objective, sequences]


@pytest.mark.parametrize("f", FORWARD)
def test_forward_mode_is_refused_with_the_way_out(f):
    case = make_case()
    tangent = jax.tree.map(jnp.ones_like, case.params)
    f = partial(f, xs=case.xs)
    _, linear = jax.linearize(f, case.params)
    for forward in (
        lambda: jax.jvp(f, (case.params,), (tangent,)),
        lambda: jax.jit(partial(jax.jvp, f))((case.params,), (tangent,)),
        lambda: jax.jacfwd(f)(case.params),
        lambda: linear(tangent),
    ):
        with pytest.raises(ValueError, match=r"rnn: expected reverse mode .*derivation\.rnn_scan"):
            forward()


def step_of(cell):
    """The stack of one layer, step by step, as the error says."""

    def scan(params, xs):
        stack = jrnn.StackParams((jrnn.LayerParams(params, None, None),))
        states, _ = jrnn.stack_step(stack, None, xs[0], cell=cell)
        zeros = jax.tree.map(jnp.zeros_like, states)
        return jax.lax.scan(partial(jrnn.stack_step, stack, cell=cell), zeros, xs)[1]

    return scan


def leaky_by_cell(params, xs):
    step = lambda h, x: 2 * (jrnn.leaky_cell(params, h, x),)
    return jax.lax.scan(step, jnp.zeros((cases.B, cases.H)), xs)[1]


init_gated, init_leaky = (
    partial(jrnn.init_cell, GATED, tau=0.5),
    partial(jrnn.init_leaky, alpha=0.5),
)
WAYS_OUT = {  # the network, what the error names, and that
    "lstm": (jrnn.init_lstm, jrnn.lstm, "derivation.lstm_scan", derivation.lstm_scan),
    "gru": (jrnn.init_gru, jrnn.gru, "derivation.gru_scan", derivation.gru_scan),
    "leaky": (init_leaky, jrnn.leaky, "scan over jrnn.leaky_cell", leaky_by_cell),
    "gated": (init_gated, partial(jrnn.unroll, GATED), "scan over jrnn.stack_step", step_of(GATED)),
}


@pytest.mark.parametrize("cell", WAYS_OUT)
def test_the_way_out_of_forward_mode_is_that_of_the_cell(cell):
    init, run, named, way_out = WAYS_OUT[cell]
    params, xs = init(jax.random.key(1), cases.I, cases.H), make_case().xs
    tangent = jax.tree.map(jnp.ones_like, params)
    forward = lambda f: jax.jvp(lambda p: f(p, xs), (params,), (tangent,))
    with pytest.raises(ValueError, match=rf"^{cell}: expected reverse mode .*{named}") as caught:
        forward(run)
    assert "rnn_scan" not in str(caught.value)
    found = forward(way_out)
    hs, moved = (one[1] if isinstance(one, tuple) else one for one in found)
    assert_close(hs, run(params, xs)[1])
    assert float(jnp.abs(moved).max()) > 0


def test_a_name_of_the_package_does_not_make_it_a_cell_of_the_package():
    cell, xs = dataclasses.replace(GATED, name="lstm"), make_case().xs
    params = (init_gated(jax.random.key(1), cases.I, cases.H),)
    with pytest.raises(ValueError, match=r"^lstm: .*scan over jrnn\.stack_step") as caught:
        jax.jvp(lambda p: jrnn.unroll(cell, p, xs)[1], params, params)
    assert "lstm_scan" not in str(caught.value)


def test_the_way_out_of_forward_mode_of_a_cell_that_reads_data():
    step = lambda blocks, before, unit, data: (data["z"] * jnp.tanh(blocks[0]),)
    cell = jrnn.Cell("timed", step, data=("z",), params=jrnn.RNNParams)
    case, z = make_case(), np.ones((cases.B, cases.H))
    total = lambda p: jrnn.unroll(cell, p, case.xs, data={"z": z})[1].sum()
    params = (case.params,)
    with pytest.raises(ValueError, match=r"scan over the cell's step has both; of the gradient"):
        jax.jvp(total, params, params)
    assert float(jnp.abs(jax.jvp(jax.grad(total), params, params)[1].w_hh).max()) > 0


def test_forward_mode_is_served_by_the_plain_scan():
    case = make_case()
    f = lambda p: cost(jrnn.derivation.rnn_scan, case)(p, case.xs, case.h0)
    check_grads(f, (case.params,), order=1, modes=["fwd"], atol=1e-6, rtol=1e-6, eps=1e-6)
    of_rnn = lambda p: cost(jrnn.rnn, case)(p, case.xs, case.h0)
    hessians = together(jax.hessian(f), jax.hessian(of_rnn))
    assert_close(*hessians(case.params), LAW_RTOL * 10)  # forward over reverse of `rnn` itself


# --- meshes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("h0", ["None", "[H]", "[B, H]"])
@pytest.mark.parametrize("place", ["grad of shard_map", "shard_map of grad"])
def test_shard_map_is_one_device(h0, place):
    case = make_case(B=4, h0=h0)

    def local(params, h0, xs, dhs):
        return lax.psum(jnp.vdot(jrnn.rnn(params, xs, h0)[1] ** 2, dhs), "data")

    wrt = (0,) if h0 == "None" else (0, 1)
    specs = (P(), P("data") if h0 == "[B, H]" else P(), P(None, "data"), P(None, "data"))
    args = (case.params, case.h0, case.xs, case.dhs)
    if place == "grad of shard_map":
        f = jax.grad(on_two_devices(local, specs), wrt)
    else:
        f = on_two_devices(jax.grad(local, wrt), specs, specs[: len(wrt)])
    one = jax.grad(lambda p, h0, x, d: jnp.vdot(jrnn.rnn(p, x, h0)[1] ** 2, d), wrt)
    assert_close(jax.jit(f)(*args), one(*args), LAW_RTOL)


def test_sharded_arguments_without_shard_map():
    case = make_case(B=4)
    put = lambda x, *axes: jax.device_put(x, jax.NamedSharding(two_devices(), P(*axes)))
    sharded = case._replace(
        params=put(case.params), xs=put(case.xs, None, "data"), h0=put(case.h0, "data")
    )
    assert_close(everything(jrnn.rnn, sharded), everything(jrnn.rnn, case), LAW_RTOL)


# --- dtypes and precision ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("ids", [False, True], ids=["vectors", "ids"])
def test_dtypes_are_preserved(dtype, ids):
    case = make_case(ids=ids)
    cast = lambda x: x.astype(dtype) if x.dtype == np.float64 else x
    case = jax.tree.map(cast, case)
    found = value_and_cotangents(jrnn.rnn, case)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}


def test_half_precision_sums_of_gradients_do_not_stop_growing():
    """Cotangents of 1 at 4,096 positions: a sum in bfloat16 would stop at 256, or at 1,024."""
    params = jrnn.RNNParams(jnp.zeros((2, 3)), jnp.zeros((3, 3)), jnp.zeros(3))
    readout = jrnn.ReadoutParams(jnp.zeros((3, 2)), jnp.zeros(2))
    params, readout = jax.tree.map(lambda p: p.astype(jnp.bfloat16), (params, readout))

    def total(params, readout, xs):
        hs = jrnn.rnn(params, xs, activation="identity")[1]
        return jnp.sum(hs.astype(jnp.float32)), jnp.sum(
            jrnn.readout(readout, hs).astype(jnp.float32)
        )

    ids, vectors = jnp.zeros((64, 64), jnp.int32), jnp.ones((64, 64, 2), jnp.bfloat16)
    for xs in (ids, vectors):
        dparams = jax.grad(lambda p: total(p, readout, xs)[0])(params)
        assert float(dparams.b_h[0]) == float(dparams.w_ih[0, 0]) == 4096
        assert float(jax.grad(lambda r: total(params, r, xs)[1])(readout).b_o[0]) == 4096


def test_half_precision_sums_over_segments_do_not_stop_growing():
    """256 segments of 256 steps, each with a cotangent of 1 at every step."""
    params = jrnn.RNNParams(jnp.zeros((2, 3)), jnp.zeros((3, 3)), jnp.zeros(3))
    readout = jrnn.ReadoutParams(jnp.eye(3), jnp.zeros(3))
    params, readout = jax.tree.map(lambda p: p.astype(jnp.bfloat16), (params, readout))
    xs, targets = (jnp.ones((2**16, n), jnp.bfloat16) for n in (2, 3))

    def total(params, readout):
        own = {"loss": lambda o, y: o * y, "activation": "identity", "remat": True}
        return jrnn.rnn_loss(params, readout, xs, targets, **own)[0]

    dparams, dreadout = jax.jit(jax.grad(total, (0, 1)))(params, readout)
    assert float(dparams.b_h[0]) == float(dparams.w_ih[0, 0]) == float(dreadout.b_o[0]) == 2**16


def test_half_precision_gradients_of_what_the_batch_shares_do_not_stop_growing():
    params = jrnn.init_leaky(jax.random.key(0), None, 64, alpha=0.5)
    params = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.bfloat16), params._replace(log_tau=None))
    params = params._replace(alpha=jnp.full(64, 0.5, jnp.bfloat16))
    xs = jnp.ones((1, 64, 64), jnp.bfloat16)

    def total(dt):
        return jrnn.leaky(params, xs, dt=dt)[1].astype(jnp.float32).sum()

    one = jax.grad(total)(jnp.ones((1, 64), jnp.bfloat16))
    shared = jax.grad(total)(jnp.ones(1, jnp.bfloat16))
    np.testing.assert_allclose(float(shared[0]), one.astype(np.float32).sum(), rtol=0.01)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_are_drawn_in_half_precision(dtype):
    rnn = jrnn.init_rnn(jax.random.key(0), 5, 4, dtype=dtype)
    readout = jrnn.init_readout(jax.random.key(0), 4, 3, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves((rnn, readout))} == {jnp.dtype(dtype)}
    assert_close((rnn.w_hh @ rnn.w_hh.T).astype(jnp.float64), np.eye(4), rtol=0.02)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_near(dtype):
    case = make_case(h0="[B, H]")
    half = jax.tree.map(lambda x: x.astype(dtype), case)
    found = jax.tree.map(lambda x: x.astype(jnp.float64), value_and_cotangents(jrnn.rnn, half))
    # Rounding is 2**-9 (bfloat16) a step, amplified over 7 steps by a w_hh of norm near 2.
    assert_close(found, value_and_cotangents(jrnn.rnn, case), rtol=0.1)


@pytest.mark.thorough
def test_grad_of_grad_in_bfloat16():
    case = make_case(T=3)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), case)
    found = jax.tree.map(lambda x: x.astype(jnp.float64), second_order(jrnn.rnn, half))
    expected = jax.tree.map(lambda x: x.astype(jnp.float64), second_order(scan, half))
    assert_close(found, expected, rtol=0.1)


@pytest.mark.usefixtures("without_native")
def test_matmul_precision_reaches_the_backward_pass():
    case = make_case()
    with jax.default_matmul_precision("highest"):
        _, vjp = jax.vjp(jrnn.rnn, case.params, case.xs, case.h0)
    jaxpr = jax.make_jaxpr(vjp)((case.dh_last, case.dhs))
    found = [e.params["precision"] for e in named(jaxpr, "dot_general")]
    assert len(found) >= 4  # dw_hh, dw_ih, dx and the loop
    assert set(found) == {(lax.Precision.HIGHEST, lax.Precision.HIGHEST)}


@pytest.mark.parametrize("leak", ["state", "input"])
def test_an_alpha_of_1_keeps_nothing_in_a_step_of_any_length(leak):
    params = parameters(jrnn.init_leaky, 5, 4, alpha=1.0)._replace(alpha=np.ones(4))
    xs = np.random.default_rng(0).normal(size=(3, 5))
    expected = jrnn.leaky(params, xs, leak=leak)
    assert_close(jrnn.leaky(params, xs, leak=leak, dt=np.array([0.01, 1.0, 50.0])), expected)


def test_a_tau_that_is_far_too_small_has_a_finite_gradient():
    params = parameters(jrnn.init_leaky, 5, 4, alpha=0.5, learned=True)
    params = params._replace(log_tau=np.full(4, -1000.0))
    xs = np.random.default_rng(0).normal(size=(3, 5))
    found = jax.grad(lambda p: jnp.sum(jrnn.leaky(p, xs)[0]))(params)
    assert np.isfinite(found.w_hh).all()
    assert not found.log_tau.any()


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_guard")
@pytest.mark.parametrize(
    ("x64", "jit"),
    [
        (False, True),
        pytest.param(True, True, marks=pytest.mark.thorough),
        pytest.param(True, False, marks=pytest.mark.thorough),
    ],
    ids=["x32", "x64", "x64 eager"],
)
def test_strict_settings(x64, jit):
    """Promotion of ranks and dtypes is strict in every test; here NaNs and leaked tracers raise."""
    rnn, readout = parameters(jrnn.init_rnn, 5, 4), parameters(jrnn.init_readout, 4, 5)
    ids, h0 = np.arange(21).reshape(7, 3) % 5, np.zeros(4)
    if not x64:
        rnn, readout, h0 = jax.tree.map(np.float32, (rnn, readout, h0))

    def mean(rnn, readout, h0):
        _, hs = jrnn.rnn(rnn, ids, h0)
        return jrnn.softmax_cross_entropy(jrnn.readout(readout, hs), ids, ids > 0).sum() / 21

    f = jax.jit(mean) if jit else mean
    with jax.enable_x64(x64):
        grads = jax.grad(f, (0, 1, 2))(rnn, readout, h0)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
