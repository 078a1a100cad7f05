"""The adding problem: its data, its table, and a toy run."""

import json
from dataclasses import replace
from functools import partial

import adding_networks
import adding_problem
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import parameters
from programs import in_this_process, unboxed

import jrnn
from jrnn import native

pytestmark = pytest.mark.usefixtures("float32")
TOY = ["--lengths=6", "--steps=20", "--block=10", "--hidden-size=5", "--batch-size=4"]


run = partial(in_this_process, adding_problem.main)


@pytest.mark.parametrize("T", [2, 9])
def test_the_data(T):
    B = 4000
    xs, targets = map(np.asarray, adding_networks.draw_batch(jax.random.key(0), T, B))
    assert (xs.shape, targets.shape) == ((T, B, 2), (B,))
    u, m = xs[..., 0], xs[..., 1]
    assert 0 <= u.min() < 0.01 < 0.99 < u.max() < 1
    assert np.isin(m, [0, 1]).all()
    first, second = m[: T // 2], m[T // 2 :]
    assert (first.sum(0) == 1).all()
    assert (second.sum(0) == 1).all()
    for half in (first, second):  # every step is marked as often
        np.testing.assert_allclose(half.mean(1), 1 / len(half), atol=0.03)
    expected = [u[m[:, b] == 1, b].sum() for b in range(B)]
    np.testing.assert_allclose(targets, expected, rtol=1e-6)
    assert np.square(targets - 1).mean() == pytest.approx(adding_problem.GUESSING, rel=0.05)
    again, _ = adding_networks.draw_batch(jax.random.key(1), T, B)
    assert (np.asarray(again) != xs).any()


def a_model(H=5, init=jrnn.init_rnn, **options):
    rnn = parameters(init, 2, H)
    return adding_problem.Model(rnn._replace(**options), parameters(jrnn.init_readout, H, 1))


def test_the_error_is_that_of_the_last_output():
    model = a_model()
    xs, targets = adding_networks.draw_batch(jax.random.key(1), 7, 3)
    found = adding_networks.mean_squared_error(jrnn.rnn, model, xs, targets)
    w_ih, w_hh, b_h, w_ho, b_o = (np.asarray(x, np.float64) for x in jax.tree.leaves(model))
    h = np.zeros((3, 5))
    for x in np.asarray(xs, np.float64):
        h = np.tanh(x @ w_ih + h @ w_hh + b_h)
    expected = np.square((h @ w_ho + b_o)[:, 0] - np.asarray(targets)).mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_sensitivity_of_a_linear_network_is_a_power():
    H, T = 5, 8
    model = a_model(H, w_hh=0.9 * np.eye(H, dtype=np.float32))
    run = partial(jrnn.rnn, activation="identity")
    found = adding_networks.sensitivity(run, model, jax.random.key(0), T)
    np.testing.assert_allclose(found, 0.9 ** np.arange(T), rtol=1e-5)


CELLS = {  # init, one step, what is added to a state to make another one
    "tanh": (jrnn.init_rnn, jrnn.rnn_cell, lambda s: s),
    "gru": (jrnn.init_gru, jrnn.gru_cell, lambda s: s),
    "lstm": (jrnn.init_lstm, jrnn.lstm_cell, lambda s: jrnn.LSTMState(*jnp.split(s, 2))),
}


@pytest.mark.parametrize("name", CELLS)
def test_the_sensitivity_against_autodiff(name):
    """Of the output in every number of the state, h and c of an LSTM."""
    T, H = 4, 5
    init, cell, state_of = CELLS[name]
    model, key = a_model(H, init), jax.random.key(4)
    xs, _ = adding_networks.draw_batch(key, T, adding_networks.MEASURED)
    size = 2 * H if name == "lstm" else H

    def output(state, rest):  # of one sequence, from the state before the rest of it
        state = state_of(state)
        for x in rest:
            state = cell(model.rnn, state, x)
        return (getattr(state, "h", state) @ model.readout.w_ho)[0]

    def state_after(before):
        state = state_of(jnp.zeros(size))
        for x in before:
            state = cell(model.rnn, state, x)
        return jnp.concatenate(jax.tree.leaves(state))

    def norm(one, t):
        return jnp.linalg.norm(jax.grad(output)(state_after(one[:t]), one[t:]))

    norms = jax.jit(lambda xs: [jax.vmap(lambda x: norm(x, T - l), 1)(xs) for l in range(T)])(xs)
    median = np.median(np.array(norms), axis=1)
    run = adding_problem.CELLS["rnn" if name == "tanh" else name].run
    found = adding_networks.sensitivity(run, model, key, T)
    np.testing.assert_allclose(found, median / median[0], rtol=1e-4)


@pytest.mark.parametrize(
    "start", ["lstm-chrono", pytest.param("gru-chrono", marks=pytest.mark.slow)]
)
def test_chrono_biases_are_those_of_the_length(start):
    """A share f is kept in each step: a memory of 1 / (1 - f) = 1 + exp(b) steps."""
    T, H = 50, 100
    model = adding_networks.init_model(jax.random.key(0), start, T, H)
    b = np.asarray(model.rnn.b_h).reshape(-1, H)
    steps = 1 + np.exp(b[1])
    assert 2 <= steps.min() < 4 < T - 2 < steps.max() <= T + 1
    if start.startswith("lstm"):
        np.testing.assert_array_equal(b[0], -b[1])
    plain = adding_networks.init_model(jax.random.key(0), start.replace("chrono", "default"), T, H)
    same = model._replace(rnn=model.rnn._replace(b_h=plain.rnn.b_h))
    jax.tree.map(np.testing.assert_array_equal, same, plain)


def rows_of(out):
    return json.loads((out / "adding_problem.json").read_text())


def test_a_toy_run(tmp_path, capsys):
    starts = ["relu-identity", "tanh-uniform"]
    status, text, bar = run(capsys, "--out", tmp_path, *TOY, "--starts", *starts)
    assert status == 0
    for shown in ("T = 6, relu-identity", "step/s", "error "):
        assert shown in bar
    table = (tmp_path / "adding_problem.md").read_text()
    assert table in text
    assert [line.split(" | ")[1:4] for line in table.splitlines()[2:]] == [
        [start, "5", "4"] for start in starts
    ]
    assert "| 5 | 4 | 0.001 | 1 | no | 20 | " in table
    assert (tmp_path / "adding_problem.png").read_bytes().startswith(b"\x89PNG")
    for row in rows_of(tmp_path):
        assert (row["steps"], len(row["errors"]), row["learned"]) == (20, 2, False)
        assert row["error"] == row["errors"][-1]
        assert len(row["before"]) == len(row["after"]) == 6
        assert row["before"] != row["after"]
        assert row["options"]["hidden_size"] == 5
        assert row["kernel"].startswith("native, " if native.enabled() else "XLA")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        pytest.param("--goal=1e30", "| 0.001 | 1 | yes | 10 | ", marks=pytest.mark.slow),
        ("--learning-rate=1e30", "| no | 10 | no number |"),
    ],
)
def test_a_run_ends_when_it_has_learned_or_is_lost(option, said, tmp_path, capsys):
    status, text, _ = run(capsys, "--out", tmp_path, *TOY, "--starts=relu-identity", option)
    assert (status, said in text) == (0, True)
    (row,) = rows_of(tmp_path)
    assert row["errors"] == [row["error"]]


def a_run(args, T, start):
    """What a run leaves, without one."""
    curves = {"errors": [0.2], "before": [1.0, 0.5], "after": [1.0, None]}
    known = {"length": T, "start": start, "learned": False, "steps": 10, "error": 0.2}
    return known | curves | {"seconds": 1.5, "options": vars(args) | {"out": "", "seed": args.seed}}


def test_rows_are_added_or_replaced(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(adding_problem, "run", a_run)
    monkeypatch.setattr(adding_problem, "draw", lambda rows, path: None)  # a toy run draws
    for options in (
        ["--lengths", 9, 6, "--starts", "tanh-uniform", "relu-spectral"],
        ["--lengths", 6, "--starts", "relu-spectral", "--seed=7"],
        ["--lengths", 6, "--starts", "relu-spectral", "--learning-rate=0.1"],
    ):
        assert run(capsys, "--out", tmp_path, *TOY, *options)[0] == 0
    found = [(*adding_problem.order(row)[::2], row["options"]["seed"]) for row in rows_of(tmp_path)]
    assert found == [(6, 1e-3, 7), (6, 0.1, 0), (6, 1e-3, 0), (9, 1e-3, 0), (9, 1e-3, 0)]
    assert (
        "| 9 | tanh-uniform | 5 | 4 | 0.001 | 1 | no | 10 | 0.2000 | 2 | 5e-01 | - |"
        in (tmp_path / "adding_problem.md").read_text()
    )


def test_rows_that_another_process_adds_meanwhile_stay(tmp_path, capsys, monkeypatch):
    def with_another(settings, T, start):
        if T == 6:
            adding_problem.run_all(replace(settings, lengths=(9,)))
        return a_run(settings, T, start)

    monkeypatch.setattr(adding_problem, "run", with_another)
    monkeypatch.setattr(adding_problem, "draw", lambda rows, path: None)
    options = ["--lengths", 6, "--starts", "tanh-uniform"]
    assert run(capsys, "--out", tmp_path, *TOY, *options)[0] == 0
    assert [row["length"] for row in rows_of(tmp_path)] == [6, 9]


def test_ctrl_c_keeps_the_rows_that_are_there(tmp_path, capsys, monkeypatch):
    def interrupted(args, T, start):
        if start == "relu-identity":
            raise KeyboardInterrupt
        return a_run(args, T, start)

    monkeypatch.setattr(adding_problem, "run", interrupted)
    monkeypatch.setattr(adding_problem, "draw", lambda rows, path: None)
    starts = ["--starts", "tanh-spectral", "relu-identity", "tanh-uniform"]
    status, _, error = run(capsys, "--out", tmp_path, *TOY, *starts)
    assert (status, f"the runs that had ended are in {tmp_path}" in error) == (130, True)
    assert [row["start"] for row in rows_of(tmp_path)] == ["tanh-spectral"]


def test_an_out_that_is_another_programs(tmp_path, capsys):
    for text in ("{", "[1]", '[{"length": 3}]'):
        (tmp_path / "adding_problem.json").write_text(text)
        status, _, error = run(capsys, "--out", tmp_path, *TOY)
        assert status == 1
        assert "--out: expected a directory with rows of this program; got" in error


BAD = {
    "--starts=gru-identity": "--starts: expected all, or some of relu-identity, relu-ortho",
    "--starts=gru-chrono": "--starts: expected all, or some of relu-identity, relu-ortho",
    "--cell=leaky": "invalid choice 'leaky' for argument '--cell'",
    "--lengths=1": "--lengths: expected at least 2; got 1. Two steps are marked.",
    "--lengths=0": "--lengths: expected an integer from 1 to",
    "--steps=25": "--steps: expected a multiple of --block, 10; got 25.",
    "--learning-rate=nan": "--learning-rate: expected a number from",
    "--seed=-1": "--seed: expected an integer from 0 to",
}


@pytest.mark.parametrize("option", BAD)
def test_options_that_are_none(option, capsys):
    with pytest.raises(SystemExit):
        adding_problem.main([*TOY, option])
    assert BAD[option] in unboxed(capsys.readouterr().err)


@pytest.mark.parametrize("option", ["--lengths", "--hidden-size", "--batch-size"])
def test_sizes_that_cannot_fit(option, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(adding_problem, "run", lambda *args: pytest.fail("training began"))
    status, _, error = run(capsys, "--out", tmp_path, *TOY, f"{option}={2**31 - 1}")
    assert (status, error.startswith("error: memory: expected at least ")) == (1, True)
    assert option in error.split("Give a smaller ")[1]


def test_all_starts():
    assert len(adding_problem.STARTS) == 12
    for cell, count in (("rnn", 8), ("gru", 2), ("lstm", 2)):
        starts = adding_problem.Settings(cell, starts=("all",)).starts
        own = [s for s in adding_problem.STARTS if adding_problem.STARTS[s].cell == cell]
        assert list(starts) == own
        assert len(starts) == count


def test_each_cell_has_its_recipe():
    sizes = {}
    for cell in adding_problem.RECIPES:
        args = adding_problem.Settings.parse(["--cell", cell, "--learning-rate=0.5"])
        assert vars(args) == vars(args) | adding_problem.RECIPES[cell] | {"learning_rate": 0.5}
        sizes[cell] = args.hidden_size
    assert sizes == {"rnn": 128, "gru": 64, "lstm": 64}


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_networks_with_gates_learn(cell, tmp_path, capsys):
    """At a length for which a few seconds are enough."""
    options = ["--lengths=20", "--hidden-size=32", "--steps=1500", "--learning-rate=2e-2"]
    status, text, _ = run(capsys, "--out", tmp_path, f"--cell={cell}", *options)
    (row,) = rows_of(tmp_path)
    assert (status, row["learned"], f"{cell}-chrono" in text) == (0, True, True)
    assert row["error"] < 0.01
