"""`jax.export` with a symbolic batch: one program for every B; and what a saved program needs.

Each program sums over the sequences. Called with one of them and with two it must give, in sum,
the direct call with all three, whose cotangents of what the sequences share are sums, too.
"""

import operator
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import H, I, O, T, assert_close, make_case, parameters
from jax import export

import jrnn
from jrnn.loss import blockwise

B = 3
IN_FRONT = {  # [B, ...]; else [T, B, ...]
    *("lengths", "answer", "recurrent_mask"),
    *("h0", "c0", "reset_state", "reset_c"),
}


def axis(name):
    return 0 if name in IN_FRONT else 1


def data(*names, lead=(T, B)):
    """Arguments of a batch by their names."""
    rng = np.random.default_rng(1)
    state = lambda: rng.normal(size=(*lead[1:], H))
    make = {
        "xs": lambda: rng.normal(size=(*lead, I)),
        "ids": lambda: rng.integers(0, I, lead),
        "hs": lambda: rng.normal(size=(*lead, H)),
        "labels": lambda: rng.integers(0, O, lead),
        "answer": lambda: rng.integers(0, O, lead[1:]),
        "weights": lambda: rng.random(lead),
        "resets": lambda: rng.random(lead) < 1 / 3,
        "lengths": lambda: rng.integers(0, lead[0] + 1, lead[1:]),
        **dict.fromkeys(["h0", "c0", "reset_state", "reset_c", "recurrent_mask"], state),
    }
    return {name: make[name]() for name in names}


def models():
    """A network of each kind, a readout and a stack."""
    rng = np.random.default_rng(2)
    readout = jrnn.ReadoutParams(rng.normal(size=(H, O)), rng.normal(size=O))
    stack = parameters(jrnn.init_stack, I, (H, H), bidirectional=True, layer_norm=True)
    gates = {"lstm": parameters(jrnn.init_lstm, I, H), "gru": parameters(jrnn.init_gru, I, H)}
    return {"rnn": make_case().params, "readout": readout, "stack": stack, **gates}


def value_and_cotangents(f):
    """A program of `f(models, **data)`, a scalar: it and the cotangents of all floats."""

    def run(models, data):
        floats = {k: x for k, x in data.items() if jnp.issubdtype(x.dtype, jnp.floating)}
        of_floats = lambda models, floats: f(models, **(data | floats))
        return jax.value_and_grad(of_floats, (0, 1))(models, floats)

    return jax.jit(run)


def exported(program, models, data, **options):
    """For a batch of any size."""
    (b,) = export.symbolic_shape("b")

    def spec(name, x):
        shape = tuple(b if i == axis(name) else n for i, n in enumerate(x.shape))
        return jax.ShapeDtypeStruct(shape, x.dtype)

    shared = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), models)
    specs = {name: spec(name, x) for name, x in data.items()}
    return export.export(program, **options)(shared, specs)


def sequences(data, start, stop):
    return {k: np.take(x, range(start, stop), axis(k)) for k, x in data.items()}


def squares(tree):
    return sum(jnp.sum(x.astype(jnp.float64) ** 2) for x in jax.tree.leaves(tree))


# --- the cases: (models, **data) -> a sum over the sequences --------------------------------------


def every_option_of_rnn(models, **data):
    return squares(jrnn.rnn(models["rnn"], **data, reverse=True, remat=True))


def ids_and_what_is_shared(models, ids):
    """A length, resets and a state of constants; the matmuls of ids have half the precision."""
    resets, h = np.arange(T) == 2, np.linspace(-1, 1, H)
    given = (models["rnn"], ids, h, T - 1, resets, h)
    return squares(jrnn.rnn(*given, clip_delta=1.0, compute_dtype=jnp.float32))


def every_option_of_lstm(models, h0, c0, reset_state, reset_c, recurrent_mask, **data):
    state, again = jrnn.LSTMState(h0, c0), jrnn.LSTMState(reset_state, reset_c)
    given = data["lengths"], data["resets"], again, recurrent_mask
    return squares(jrnn.lstm(models["lstm"], data["xs"], state, *given, reverse=True, remat=True))


def ids_of_gru(models, ids, h0, lengths, resets, reset_state):
    """And each sequence by itself, of which a length is no array of the batch."""
    given = ids, h0, lengths, resets, reset_state
    mapped = jax.vmap(jrnn.gru, (None, 1, 0, 0, 1, 0))
    return squares(jrnn.gru(models["gru"], *given)) + 2 * squares(mapped(models["gru"], *given))


def layers(models, xs, lengths, resets):
    return squares(jrnn.stack(models["stack"], xs, None, lengths, resets))


def losses(models, hs, labels, answer, weights):
    readout = models["readout"]
    each = jrnn.softmax_cross_entropy(jrnn.readout(readout, hs), labels, weights)
    mapped = jax.vmap(jrnn.readout_cross_entropy, (None, 1, 1, 1))(readout, hs, labels, weights)
    return (
        each.sum()
        + mapped.sum()
        + jrnn.readout_cross_entropy(readout, hs, labels, weights)
        + jrnn.readout_cross_entropy(readout, jrnn.mean_over_time(hs), answer)
    )


def objective(models, xs, labels, weights, lengths, resets):
    given = (models["rnn"], models["readout"], xs, labels, None, lengths, resets)
    return jrnn.rnn_cross_entropy(*given, weights=weights, remat=True)[0]


def mapped_sequences(models, xs, lengths):
    """And the gradient of each."""

    def one(params, x, length):
        return squares(jrnn.rnn(params, x, None, length, reverse=True))

    total, gradients = (
        jax.vmap(f, (None, 1, 0))(models["rnn"], xs, lengths) for f in (one, jax.grad(one))
    )
    return total.sum() + squares(gradients)


CASES = {
    every_option_of_rnn: ("xs", "lengths", "resets", "h0", "reset_state", "recurrent_mask"),
    ids_and_what_is_shared: ("ids",),
    every_option_of_lstm: (
        *("xs", "lengths", "resets", "recurrent_mask"),
        *("h0", "c0", "reset_state", "reset_c"),
    ),
    ids_of_gru: ("ids", "h0", "lengths", "resets", "reset_state"),
    layers: ("xs", "lengths", "resets"),
    losses: ("hs", "labels", "answer", "weights"),
    objective: ("xs", "labels", "weights", "lengths", "resets"),
    mapped_sequences: ("xs", "lengths"),
}


QUICK = (objective,)  # of an RNN and its loss; a stack is below


@pytest.mark.parametrize(
    "f",
    [pytest.param(f, marks=[] if f in QUICK else pytest.mark.thorough) for f in CASES],
    ids=lambda f: f.__name__,
)
def test_one_program_for_every_batch(monkeypatch, f):
    monkeypatch.setattr(blockwise, "CLASSES", 3)  # where a batch of any size goes by blocks
    given, of = data(*CASES[f]), models()
    program = value_and_cotangents(f)
    call = exported(program, of, given).call
    total, (shared, each) = program(of, given)
    (total_1, (shared_1, each_1)), (total_2, (shared_2, each_2)) = (
        call(of, sequences(given, *part)) for part in ((0, 1), (1, B))
    )
    joined = {k: jnp.concatenate([each_1[k], each_2[k]], axis(k)) for k in each}
    found = total_1 + total_2, jax.tree.map(operator.add, shared_1, shared_2), joined
    # Sums in another order; of products of operands in float32, whose own sums may be in float32.
    assert_close(found, (total, shared, each), 1e-5 if f is ids_and_what_is_shared else 1e-11)


def test_every_platform_and_a_larger_batch():
    """With dropout, whose masks are another draw for another B."""

    def run(params, xs, lengths):
        key = jax.random.key(1)
        return jrnn.stack(params, xs, None, lengths, key=key, dropout=0.5)

    params, (b,) = models()["stack"], export.symbolic_shape("b")
    specs = jax.ShapeDtypeStruct((T, b, I), float), jax.ShapeDtypeStruct((b,), int)
    platforms = ("cpu", "cuda", "tpu")
    found = export.export(jax.jit(run), platforms=platforms)(params, *specs)
    assert found.platforms == platforms
    given = data("xs", "lengths", lead=(T, 7)).values()
    assert_close(found.call(params, *given), jax.jit(run)(params, *given), 1e-11)


@pytest.mark.parametrize("name", [pytest.param("lstm", marks=pytest.mark.thorough), "gru"])
def test_networks_and_their_gradients_are_lowered_for_every_platform(name):
    init, run = getattr(jrnn, f"init_{name}"), getattr(jrnn, name)
    params, xs = parameters(init, I, H), data("xs")["xs"]

    def cost(params, xs):
        return squares(run(params, xs)[1])

    gradient = jax.jit(jax.grad(cost))
    (b,) = export.symbolic_shape("b")
    platforms = ("cpu", "cuda", "tpu")
    specs = jax.eval_shape(lambda: params), jax.ShapeDtypeStruct((T, b, I), float)
    found = export.export(gradient, platforms=platforms)(*specs)
    assert found.platforms == platforms
    assert_close(found.call(params, xs), gradient(params, xs), 1e-11)


def test_diagnostics_of_a_batch_of_any_size():
    def run(xs, labels):
        of = models()
        return jrnn.diagnostics.gradient_flow(of["rnn"], of["readout"], xs, labels, max_lag=2)

    (b,) = export.symbolic_shape("b")
    specs = jax.ShapeDtypeStruct((T, b, I), float), jax.ShapeDtypeStruct((T, b), int)
    given = data("xs", "labels").values()
    assert_close(export.export(jax.jit(run))(*specs).call(*given), run(*given), 1e-11)


def test_the_number_of_steps_is_known_to_a_loop_over_them():
    """To all but the plain scan."""
    t, b = export.symbolic_shape("t, b")
    of, (xs, labels) = models(), data("xs", "labels").values()
    specs = jax.ShapeDtypeStruct((t, b, I), float), jax.ShapeDtypeStruct((t, b), int)
    objective = lambda params, xs: jrnn.rnn_cross_entropy(params, of["readout"], xs, xs[..., 0])
    for f, name in ((jrnn.rnn, "rnn"), (jrnn.stack, "stack"), (objective, "rnn")):
        with pytest.raises(
            ValueError, match=r"^xs: expected a known number of steps T; got .*t, b"
        ):
            export.export(jax.jit(f))(of[name], specs[0])

    def cost(xs, labels):
        hs = jrnn.derivation.rnn_scan(of["rnn"], xs)[1]
        return jrnn.readout_cross_entropy(of["readout"], hs, labels)

    assert_close(export.export(jax.jit(cost))(*specs).call(xs, labels), cost(xs, labels), 1e-11)


# --- saved ---------------------------------------------------------------------------------------


def test_the_parameters_of_a_saved_program_keep_their_types():
    def cost(models, xs, labels):
        params, readout = models["stack"], models["readout"]
        return jrnn.readout_cross_entropy(readout, jrnn.stack(params, xs)[1][..., :H], labels)

    of = {name: model for name, model in models().items() if name in ("stack", "readout")}
    (b,) = export.symbolic_shape("b")
    specs = jax.ShapeDtypeStruct((T, b, I), float), jax.ShapeDtypeStruct((T, b), int)
    saved = export.export(jax.jit(cost))(of, *specs).serialize(vjp_order=1)
    call = export.deserialize(saved).call
    given = data("xs", "labels").values()
    found = jax.grad(call)(of, *given)
    assert isinstance(found["readout"], jrnn.ReadoutParams)
    assert_close(found, jax.grad(cost)(of, *given), 1e-11)


def test_a_saved_program_takes_and_returns_the_state_of_an_lstm():
    """Chunk after chunk, as a server does, is the whole sequence; so are the cotangents."""

    def both(models, state, xs):
        (h, c), hs = jrnn.lstm(models["lstm"], xs, state)
        last, ys = jrnn.gru(models["gru"], xs, h)
        return jrnn.LSTMState(h, c), (hs, last, ys)

    of, xs = {k: models()[k] for k in ("lstm", "gru")}, data("xs", lead=(2 * T, B))["xs"]
    state = jrnn.LSTMState(*data("h0", "c0").values())
    (b,) = export.symbolic_shape("b")
    a_state = jax.ShapeDtypeStruct((b, H), float)
    chunk = jax.ShapeDtypeStruct((T, b, I), float)
    specs = jax.eval_shape(lambda: of), jrnn.LSTMState(a_state, a_state), chunk
    saved = export.export(jax.jit(both))(*specs).serialize(vjp_order=1)
    call = export.deserialize(saved).call

    between, (first, *_) = call(of, state, xs[:T])
    last, (second, *_) = call(of, between, xs[T:])
    assert isinstance(last, jrnn.LSTMState)
    assert_close((last, jnp.concatenate([first, second])), jrnn.lstm(of["lstm"], xs, state), 1e-11)

    found, expected = (
        jax.grad(lambda *given: squares(f(*given)), (0, 1))(of, state, xs[:T]) for f in (call, both)
    )
    kinds = jrnn.LSTMParams, jrnn.GRUParams, jrnn.LSTMState
    assert tuple(map(type, (found[0]["lstm"], found[0]["gru"], found[1]))) == kinds
    assert_close(found, expected, 1e-11)


LOAD = """
import sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
np.save(sys.argv[2], program.call(np.load(sys.argv[3])))
assert "jrnn" not in sys.modules
"""


def test_a_trained_network_runs_where_this_package_is_not(tmp_path):
    params, (b,) = models()["rnn"], export.symbolic_shape("b")
    predict = lambda xs: jrnn.rnn(params, xs)[0]
    saved = export.export(jax.jit(predict))(jax.ShapeDtypeStruct((T, b, I), float)).serialize()
    program, result, inputs = (tmp_path / name for name in ("program", "result.npy", "inputs.npy"))
    program.write_bytes(saved)
    np.save(inputs, data("xs")["xs"])
    subprocess.run([sys.executable, "-c", LOAD, program, result, inputs], check=True, cwd=tmp_path)
    assert_close(np.load(result), predict(np.load(inputs)), 1e-11)
