"""The losses of the native kernel: where it runs, where it does not, and what it is told.

What it computes is proven in `test_readout_loss.py`, layout "natively".
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, on_two_devices
from jax import lax
from jax.sharding import PartitionSpec as P
from native_built import built

import jrnn
from jrnn import native

T, B, I, H, O = 13, 12, 5, 16, 7
RNG = np.random.default_rng(0)
PARAMS = jrnn.ReadoutParams(RNG.normal(size=(H, O)), RNG.normal(size=O))
HS, LABELS = RNG.normal(size=(T, B, H)), RNG.integers(0, O, (T, B))


def cost(params, hs, labels):
    return jrnn.readout_cross_entropy(params, hs, labels)


def calls(f, *arguments):
    """The calls of the library in a compiled program."""
    text = jax.jit(f).lower(*arguments).compile().as_text()
    return text.count('custom_call_target="jrnn_native_')


@built
def test_a_training_step_has_two_calls_for_its_loss():
    rnn = jrnn.init_rnn(jax.random.key(0), I, H, dtype=jnp.float64)

    def loss(params, xs):
        return cost(params[1], jrnn.rnn(params[0], xs)[1], LABELS)

    arguments = (rnn, PARAMS), RNG.normal(size=(T, B, I))
    assert calls(loss, *arguments) == 2
    assert calls(jax.value_and_grad(loss), *arguments) == 4
    with native.turned(False):
        assert calls(jax.value_and_grad(loss), *arguments) == 0


@built
@pytest.mark.parametrize(
    ("params", "hs", "labels"),
    [
        (PARAMS, HS[:9], LABELS[:9]),  # few positions
        (PARAMS, HS, np.eye(O)[LABELS]),
        (PARAMS, HS[:, 0], LABELS[:, 0]),  # a sequence, which `vmap` may make a batch
        (jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS), HS.astype(jnp.bfloat16), LABELS),
        (jrnn.ReadoutParams(np.zeros((H, 20_000)), None), HS, LABELS),  # a large w_ho
        (jrnn.ReadoutParams(np.zeros((H, 2)), None), HS, LABELS % 2),
    ],
    ids=["few", "floats", "one sequence", "bfloat16", "many classes", "two classes"],
)
def test_what_it_does_not_serve_runs_elsewhere(params, hs, labels):
    assert calls(jax.grad(cost, (0, 1)), params, hs, labels) == 0


@built
def test_only_the_gradients_that_are_asked_for_are_computed():
    def results(of):
        return jax.jit(jax.grad(cost, of)).lower(PARAMS, HS, LABELS).as_text()

    dhs = f"-> (tensor<{T * B}x{H}xf64>, tensor<{H}x{O}xf64>"
    assert dhs not in results(0)
    assert dhs in results((0, 1))


@built
def test_many_parameters_by_vmap():
    """Each has gradients of its own, so XLA's program runs; the results are those of each."""
    both = jax.tree.map(lambda x: np.stack([x, 2 * x]), PARAMS)
    mapped = jax.vmap(jax.grad(cost, (0, 1)), (0, None, None))
    assert calls(mapped, both, HS, LABELS) == 0
    found = jax.jit(mapped)(both, HS, LABELS)
    for n in range(2):
        one = jax.tree.map(lambda x, n=n: x[n], both)
        own = jax.tree.map(lambda x, n=n: x[n], found)
        assert_close(own, jax.grad(cost, (0, 1))(one, HS, LABELS))


@built
def test_an_exported_program_has_no_native_code():
    f = jax.jit(jax.grad(cost, (0, 1)))
    exported = jax.export.export(f)(PARAMS, HS, LABELS)
    assert "jrnn_native" not in exported.mlir_module()
    assert_close(exported.call(PARAMS, HS, LABELS), f(PARAMS, HS, LABELS))


@built
def test_each_device_of_a_shard_map_computes_its_part():
    batch = P(None, "data")

    def local(params, hs, labels):
        loss = lambda params, hs: lax.psum(cost(params, hs, labels), "data")
        return jax.value_and_grad(loss, (0, 1))(params, hs)

    f = on_two_devices(local, (P(), batch, batch), (P(), (P(), batch)))
    arguments = PARAMS, np.tile(HS, (1, 2, 1)), np.tile(LABELS, 2)
    assert calls(f, *arguments) == 2
    assert_close(jax.jit(f)(*arguments), jax.jit(jax.value_and_grad(cost, (0, 1)))(*arguments))


@built
@pytest.mark.parametrize("slices", [1, 2, 3, 16])
def test_any_number_of_slices(monkeypatch, slices):
    from jrnn.loss import native as losses

    expected = jax.jit(jax.value_and_grad(cost, (0, 1)))(PARAMS, HS, LABELS)
    monkeypatch.setattr(losses, "_slices", lambda *_: slices)
    jax.clear_caches()
    lowered = jax.jit(lambda *a: jax.value_and_grad(cost, (0, 1))(*a)).lower(PARAMS, HS, LABELS)
    assert lowered.as_text().count(f"slices = {slices} :") == 2
    assert_close(lowered.compile()(PARAMS, HS, LABELS), expected)


@built
def test_wrong_sizes_are_an_error_and_no_crash():
    like = jax.ShapeDtypeStruct
    results = like((8,), jnp.float32), like((0,), jnp.float32), like((8,), jnp.uint8)
    arguments = [jnp.zeros(3, jnp.float32)] * 3 + [jnp.zeros(3, jnp.int32)]
    sizes = {"N": 8, "H": 2, "O": 3, "slices": 1}
    with pytest.raises(Exception, match="jrnn native kernel: hs has 3 elements and not 16"):
        jax.block_until_ready(native.call("loss", results, arguments, bits=32, **sizes))
    for wrong in ({"N": 0, "bits": 32}, {"bits": 16}, {"bits": 32, "slices": 0}):
        with pytest.raises(Exception, match="out of range"):
            jax.block_until_ready(native.call("loss", results, arguments, **sizes | wrong))
    results = [like((8,), jnp.float32)] * 3 + [like((8,), jnp.uint8)]
    given = [jnp.zeros(n, jnp.float32) for n in (16, 6, 24)]
    with pytest.raises(Exception, match="dlosses is missing"):
        jax.block_until_ready(native.call("loss_gradient", results, given, bits=32, **sizes))
