"""Jobs of eight kinds of user, as README and docs describe them, in small.

Each job uses public names alone, and ends with a mistake whose error is the package's own.
"""

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jrnn
import jrnn.nnx
from examples.char_model import Settings, evaluate, sample, train
from jrnn import derivation, diagnostics, interop, model_file, sampling
from jrnn.training import init_train_state, make_train_step

ROOT = Path(__file__).parents[1]
T, B, I, H, O = 12, 6, 3, 8, 4
KEYS = jax.random.split(jax.random.key(0), 6)
LENGTHS = np.array([12, 3, 7, 12, 1, 9])
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float32")]


def normal(key, *shape):
    return jax.random.normal(KEYS[key], shape, jnp.float32)


def refused(argument, call):
    """The package says what is wrong: the argument, what was expected, what came, the repair."""
    with pytest.raises(ValueError, match=rf"^{re.escape(argument)}: expected .*; got .*\."):
        call()


def learned(loss, params, optimizer, steps):
    """Parameters after training with a loss of (params, key), and the losses."""
    state = init_train_state(params, optimizer, (), jax.random.key(1))
    step = make_train_step(lambda params, carry, batch, key: (loss(params, key), ()), optimizer)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, ())
        losses.append(float(metrics.loss))
    return state.params, losses


def test_a_researcher_ports_a_classifier_from_torch(tmp_path):
    """Two layers, both directions, sequences of different lengths, dropout, AdamW, weights back."""
    layers = jrnn.init_stack(KEYS[0], I, (H, H), cell="gru", bidirectional=True).layers
    state_dict = interop.to_torch([(layer.forward, layer.backward) for layer in layers])
    stack = interop.from_torch(state_dict, stack=True)
    readout = jrnn.init_readout(KEYS[1], 2 * H, O)
    xs, labels = normal(2, T, B, I), jnp.arange(B) % O

    def logits(params, key=None):
        stack, readout = params
        h_last, _ = jrnn.stack(stack, xs, lengths=LENGTHS, key=key, dropout=0.3)
        return jrnn.readout(readout, h_last[-1])

    def loss(params, key):
        return jrnn.softmax_cross_entropy(logits(params, key), labels).mean()

    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-2, 5, 60)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    params, losses = learned(loss, (stack, readout), optimizer, 60)
    assert losses[-1] < losses[0] / 2
    model_file.save_model(tmp_path / "model", params, {"dropout": 0.3})
    restored, settings = model_file.load_model(tmp_path / "model")
    assert settings == {"dropout": 0.3}
    np.testing.assert_array_equal(logits(restored), logits(params))
    refused(
        "weight_ih_l0", lambda: interop.from_torch({"rnn.weight_ih_l0": state_dict["weight_ih_l0"]})
    )


def test_a_user_of_flax_trains_a_module_and_an_ensemble():
    xs, targets = normal(2, T, B, I), normal(3, T, B, H)
    model = jrnn.nnx.Stack(I, [H, H], cell="lstm", rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        cost = lambda model: jrnn.squared_error(model(xs)[1], targets).mean()
        loss, gradient = nnx.value_and_grad(cost)(model)
        optimizer.update(model, gradient)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(20)]
    assert losses[-1] < losses[0]
    many = jax.vmap(lambda key: jrnn.init_rnn(key, I, H))(KEYS)
    cost = lambda params: jrnn.squared_error(jrnn.rnn(params, xs)[1], targets).mean()
    gradients = jax.jit(jax.vmap(jax.grad(cost)))(many)
    one = jax.grad(cost)(jax.tree.map(lambda x: x[2], many))
    np.testing.assert_allclose(gradients.w_hh[2], one.w_hh, 1e-4, 1e-6)
    refused("xs", lambda: model(xs[..., :2]))


def test_a_neuroscientist_trains_a_network_with_dales_law_and_looks_into_it():
    sign = jnp.where(jnp.arange(H) < 6, 1.0, -1.0)[:, None]
    free = jrnn.init_leaky(KEYS[0], None, H, alpha=0.2)
    w_in, readout = normal(1, I, H) / 2, jrnn.init_readout(KEYS[2], H, 2)
    xs, targets = normal(3, T, B, I), jnp.sign(normal(4, T, B, 2))

    def network(free):
        return free._replace(w_hh=sign * jax.nn.relu(free.w_hh) * (1 - jnp.eye(H)))

    def loss(params, key):
        free, readout = params
        noise = 0.1 * jax.random.normal(key, (T, B, H))
        _, hs = jrnn.leaky(network(free), xs @ w_in + noise, activation="relu", leak="input")
        return jrnn.squared_error(jrnn.readout(readout, hs), targets).mean()

    (free, _), losses = learned(loss, (free, readout), optax.adam(1e-2), 60)
    assert losses[-1] < losses[0]
    rate_cell = jrnn.cells.leaky.leaky("relu", "input", learned=False)
    visited = diagnostics.trajectory(network(free), xs @ w_in, cell=rate_cell)
    held = jnp.zeros(H)
    points = diagnostics.fixed_points(network(free), held, visited, starts=16, cell=rate_cell)
    assert len(points.speeds) == len(points.unstable) >= 1
    assert points.eigenvalues.shape[1:] == (H,)
    assert diagnostics.principal_components(visited).variances.shape == (H,)
    refused("x_t", lambda: diagnostics.fixed_points(network(free), None, visited, cell=rate_cell))


def test_a_forecaster_learns_from_gaps_and_runs_ahead():
    months = jnp.arange(T + 24) % 12
    season = jnp.eye(12)[months]  # known in advance
    series = jnp.sin(2 * jnp.pi * months / 12)[:, None]
    seen = jnp.ones((T, 1), bool).at[4].set(False)
    filled = jnp.where(seen, series[:T], 0)
    stack = jrnn.init_stack(KEYS[0], 13, (H, H), cell="gru")
    readout = jrnn.init_readout(KEYS[1], H, 2)
    xs = jnp.concatenate([filled[:-1], season[: T - 1]], -1)
    targets = jnp.where(seen, series[:T], jnp.nan)[1:]

    def loss(params, key):
        total, _ = jrnn.rnn_loss(
            *params, xs, targets, loss=jrnn.gaussian_nll, weights=seen[1:], remat=True
        )
        return total / seen[1:].sum()

    params, losses = learned(loss, (stack, readout), optax.adam(2e-2), 200)
    assert losses[-1] < losses[0] - 1
    mean = lambda key, outputs: outputs[..., :1]
    _, ahead = jrnn.generate(*params, filled, 12, known=season, draw=mean)
    assert float(jnp.abs(ahead - series[T : T + 12]).mean()) < 0.4
    refused("known", lambda: jrnn.generate(*params, filled, 30, known=season[:20], draw=mean))
    bands = lambda q: jrnn.quantile_loss(filled, filled, quantile=q)
    refused("quantile", lambda: bands(1.5))


def test_a_student_compares_the_forms_of_the_gradient():
    rnn, readout = jrnn.init_rnn(KEYS[0], I, H), jrnn.init_readout(KEYS[1], H, O)
    xs, labels = normal(2, T, I), jnp.arange(T) % O
    by_hand = derivation.gradients_recursion(rnn, readout, xs, labels)
    by_sum = derivation.gradients_double_sum(rnn, readout, xs, labels)

    def cost(rnn, readout):
        _, hs = jrnn.rnn(rnn, xs)
        return jrnn.softmax_cross_entropy(jrnn.readout(readout, hs), labels).sum()

    by_jrnn = jax.grad(cost, (0, 1))(rnn, readout)
    for found in (by_hand, by_sum):
        for a, b in zip(jax.tree.leaves(found[:2]), jax.tree.leaves(by_jrnn), strict=True):
            np.testing.assert_allclose(a, b, 1e-3, 1e-4)
    assert max(jrnn.testing.check_against_scan(rnn, xs).values()) < 1e-4
    refused("labels", lambda: derivation.gradients_recursion(rnn, readout, xs, labels[:-1]))


@pytest.mark.usefixtures("quick_children")
def test_an_engineer_measures_the_kernel(tmp_path):
    command = "-m benchmarks.kernel --toy --rows 1 --routes batch --dtypes float32 --rounds 1"
    more = ["--rivals", "autodiff", "--cell", "lstm", "--out", str(tmp_path)]
    run = [sys.executable, *command.split(), *more]
    printed = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "| 7, 4, 3, 5 | best autodiff | " in printed
    assert "AMD" in printed or "cores" in printed  # the processor is named
    forward, backward = jrnn.explain(jrnn.rnn, jrnn.init_rnn(KEYS[0], I, H), normal(1, T, B, I))
    assert forward.backend
    assert backward.reason


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_user_of_gates_reads_a_stream_and_samples(cell):
    stack = jrnn.init_stack(KEYS[0], O, (H, H), cell=cell, layer_norm=True)
    readout = jrnn.init_readout(KEYS[1], H, O)
    ids = jax.random.randint(KEYS[2], (T, B), 0, O)
    states, hs = None, []
    for x_t in ids:
        states, y_t = jrnn.stack_step(stack, states, x_t)
        hs.append(y_t)
    np.testing.assert_allclose(jnp.stack(hs), jrnn.stack(stack, ids)[1], 1e-4, 1e-5)
    drawn = list(
        sampling.generate(stack, readout, KEYS[3], ids[:, 0], 40, temperature=0.8, top_k=3)
    )
    assert sum(block.shape[1] for block in drawn) == 40
    _, tokens = jrnn.generate(stack, readout, ids, 5, key=KEYS[3])
    assert tokens.shape == (5, B)
    refused("key", lambda: jrnn.generate(stack, readout, ids, 5))


def test_a_user_of_notebooks_imports_the_loop(tmp_path):
    (tmp_path / "text").write_text("to be or not to be, that is the question\n" * 40)
    settings = Settings(
        text=[str(tmp_path / "text")], out=tmp_path / "run", cell="gru", steps=20, hidden_size=8,
        length=8, batch_size=4, eval_every=5, patience=2,
    )  # fmt: skip
    rows = []
    trained = train(settings, on_metrics=rows.append)
    assert trained.finished
    assert trained.rows == rows
    assert evaluate(settings) == pytest.approx(rows[-1]["validation_bits"], abs=1e-4)
    assert len("".join(part for (part,) in sample(replace(settings, sample=30, prompt="to")))) == 30
    refused("--cell", lambda: replace(settings, cell="transformer"))


def test_no_job_uses_a_private_name():
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in
              (*(node.module or "").split("."), *(alias.name for alias in node.names))}  # fmt: skip
    assert {name for name in names if name.startswith("_")} == {"_replace"}  # of NamedTuples
