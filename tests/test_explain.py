"""`jrnn.explain` names the backend that a call is lowered to, on every platform, and the reason."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import B, H, I, T, make_case

import jrnn

CASE = make_case()


def gradient(params, xs):
    return jax.grad(lambda params: jrnn.rnn(params, xs)[1].sum())(params)


def lines(fn, *args, **kwargs):
    return [(e.direction, tuple(e.shape[:4]), e.backend) for e in jrnn.explain(fn, *args, **kwargs)]


@pytest.mark.usefixtures("without_native")
def test_a_batch_goes_in_chunks_and_one_sequence_back_by_a_scan():
    found = lines(jrnn.rnn, CASE.params, CASE.xs)
    assert [line[:2] for line in found] == [("forward", (T, B, I, H)), ("backward", (T, B, I, H))]
    assert all(backend.startswith("XLA(") for *_, backend in found)
    forward, backward = lines(gradient, CASE.params, CASE.xs[:, 0])
    assert forward[:2] == ("forward", (T, 1, I, H))
    assert backward == ("backward", (T, 1, I, H), "Reference()")


@pytest.mark.usefixtures("without_native")
def test_vmap_is_one_batch_and_a_gradient_for_each_sequence_is_not():
    of_batch = jax.vmap(jrnn.rnn, (None, 1))
    assert lines(of_batch, CASE.params, CASE.xs)[0][:2] == ("forward", (T, B, I, H))
    forward, backward = lines(jax.vmap(gradient, (None, 1)), CASE.params, CASE.xs)
    assert forward[:2] == ("forward", (T, B, I, H))
    assert backward == ("backward", (T, 1, I, H), "Reference()")


def test_every_layer_and_every_platform():
    stack = jrnn.init_stack(jax.random.key(0), I, (4, 6), bidirectional=True)
    shapes = [shape for _, shape, _ in lines(jrnn.stack, stack, CASE.xs)]
    assert shapes == 4 * [(T, B, I, 4)] + 4 * [(T, B, 8, 6)]
    on_cpu, on_tpu = (lines(jrnn.rnn, *CASE[:2], platform=name)[0] for name in ("cpu", "tpu"))
    assert on_cpu != on_tpu
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
    cells = [None, None, None, own]
    found = jrnn.explain(partial(jrnn.stack, cell=cells), jrnn.StackParams(layers), CASE.xs)
    forward = [(e.cell, e.shape.I, e.shape.H) for e in found if e.direction == "forward"]
    assert forward == list(zip(kinds, inputs, sizes, strict=True))


def test_it_prints_and_refuses():
    first = str(jrnn.explain(jrnn.rnn, *CASE[:2], platform="tpu")[0])
    assert first.startswith(
        "elman, forward pass on tpu, T = 7, B = 3, I = 5, H = 4, dtype = float64: XLA("
    )
    with pytest.raises(ValueError, match="platform: expected one of cpu, cuda, rocm, tpu"):
        jrnn.explain(jrnn.rnn, *CASE[:2], platform="abacus")
    with pytest.raises(ValueError, match="xs: expected vectors"):
        jrnn.explain(jrnn.rnn, CASE.params, CASE.xs[..., 1:])
