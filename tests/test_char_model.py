"""The character model as a library: settings, functions of them, and what they share with a run."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import jax
import numpy as np
import pytest
from char_model import Settings, evaluate, sample, train
from char_model import main as char_lm
from char_model import run as char_run
from char_model import signals as char_signals
from char_model.settings import parse, resolved
from command import option
from programs import ROOT, TEXT, TOY, unboxed

import jrnn
from jrnn.checkpoint import Checkpoints
from jrnn.metrics import csv_writer
from jrnn.model_file import load_model, save_model

SMALL = {"hidden_size": 16, "length": 16, "batch_size": 4, "eval_every": 10, "devices": 1}


@pytest.fixture
def small(text_file, tmp_path, float32):
    return Settings(out=tmp_path / "out", text=[str(text_file)], steps=20, **SMALL)


def test_a_run_as_functions_of_its_settings(small, tmp_path):
    rows = []
    hooks = [rows.append, csv_writer(tmp_path / "live.csv")]
    both = replace(small, sample=40)  # of which the training takes no notice
    trained = train(both, on_metrics=lambda row: [hook(row) for hook in hooks])
    assert (trained.finished, trained.saved) == (True, True)
    assert [row["step"] for row in rows] == [10, 20]
    assert rows == trained.rows
    assert (tmp_path / "live.csv").read_bytes() == (small.out / "metrics.csv").read_bytes()
    for which, model, step in ((small, trained.model, 20), (replace(small, best=True), None, None)):
        name = "best" if which.best else "model"
        params, said = load_model(small.out / f"{name}.safetensors")
        assert evaluate(which) == pytest.approx(said["validation_bits"], rel=1e-6)
        if model is not None:
            jax.tree.map(np.testing.assert_array_equal, model._asdict(), params)
            assert said["step"] == step
    asked = replace(small, sample=40, prompt="3 times", num_samples=2, seed=1)
    texts = ["".join(parts) for parts in zip(*sample(asked), strict=True)]
    assert [len(text) for text in texts] == [40, 40]
    assert texts[0] != texts[1]
    assert sum(map(len, next(zip(*sample(small), strict=True)))) == 300


def test_a_run_is_continued_by_its_settings(small):
    """The hook gets the rows that are new; all of them are in the result."""
    train(replace(small, steps=10, schedule="constant"))
    new = []
    trained = train(replace(small, schedule="constant", resume=True), on_metrics=new.append)
    assert [row["step"] for row in new] == [20]
    assert [row["step"] for row in trained.rows] == [10, 20]


def test_the_best_model_waits_for_the_checkpoint_before_it(small, monkeypatch):
    """A part of a checkpoint may fill a disk on which the model has a place."""
    pending, written = [], []
    save, wait, write = Checkpoints.save, Checkpoints.wait, char_run.write_model
    monkeypatch.setattr(Checkpoints, "save", lambda *a, **k: [pending.append(1), save(*a, **k)])
    monkeypatch.setattr(Checkpoints, "wait", lambda self: [wait(self), pending.clear()])
    monkeypatch.setattr(
        char_run, "write_model", lambda *args: [written.append(not pending), write(*args)]
    )
    train(replace(small, checkpoint_every=5))
    assert written == [True, True]


def test_a_model_is_evaluated_on_its_own_text(small, tmp_path):
    train(small)
    (tmp_path / "other").write_text(TEXT[::-1])
    expected = (
        r"^--text: expected the text that the model was trained on, of SHA-256 \w{64}; got \w"
    )
    with pytest.raises(ValueError, match=expected):
        evaluate(replace(small, text=[str(tmp_path / "other")]))


@pytest.mark.slow
def test_the_package_is_imported_from_the_root_of_a_clone():
    code = (
        "from examples.char_model import Settings, evaluate, sample, train; print(train.__name__)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "train\n", run.stderr


# --- settings ------------------------------------------------------------------------------------


def test_the_command_line_is_that_of_the_settings(capsys):
    assert parse([]) == resolved(Settings()) == Settings(cell="rnn", activation="tanh")
    assert parse(["--sample=5"]) == Settings(sample=5)  # the model file has the rest
    command = "--text a b --steps 5 --cell gru --devices all --top-p 0.5 --resume --prompt="
    expected = Settings(text=["a", "b"], steps=5, cell="gru", devices="all", top_p=0.5, resume=True)
    assert parse([*command.split(), "--steps=7"]) == replace(expected, steps=7)
    with pytest.raises(SystemExit) as end:
        char_lm.main(["--help"])
    assert end.value.code == 0
    printed = unboxed(capsys.readouterr().out)
    for field in fields(Settings):
        assert f" {option(field.name)} " in printed
    assert (
        "--keep INT how many of the last checkpoints; the best is kept too (default: 3)" in printed
    )
    for mistake in (["--no-such-option"], ["--steps"], ["--steps=1e3"], ["--text"]):
        with pytest.raises(SystemExit) as end:
            char_lm.main(mistake)
        assert end.value.code == 2
        assert mistake[0].partition("=")[0] in unboxed(capsys.readouterr().err)


BAD = {
    "a number": ({"steps": "30"}, "--steps: expected an integer from 1 to 2,147,483,647; got '30'"),
    "a fraction": ({"hidden_size": 2.5}, "--hidden-size: expected an integer from 1 to"),
    "none": ({"layers": 0}, "--layers: expected an integer from 1 to 2,147,483,647; got 0."),
    "too large": ({"learning_rate": 1e39}, "--learning-rate: expected a number from 1.18e-38 to"),
    "a choice": ({"schedule": "linear"}, "--schedule: expected 'cosine', 'constant'; got 'linear'"),
    "two kinds": ({"devices": "two"}, "--devices: expected an integer from 1 to .* or 'all'; got"),
    "a text": (
        {"text": "book.txt"},
        "--text: expected one file or more; got book.txt. Give a list",
    ),
    "no text": ({"text": []}, r"--text: expected one file or more; got \[\]. Give a list"),
    "an address": ({"coordinator": "host"}, "--coordinator: expected HOST:PORT"),
    "both": ({"resume": True, "overwrite": True}, "--resume: expected one of --resume and"),
    "dropout": (
        {"dropout": 1.0, "layers": 2},
        r"--dropout: expected a number in \[0, 1\); got 1.0",
    ),
    "a temperature": ({"temperature": -1.0}, "--temperature: expected a number from 0 to 3.4e"),
    "a share": ({"top_p": 0.0}, "--top-p: expected a number from 1.18e-38 to 1; got 0.0. See"),
    "one layer": ({"dropout": 0.1}, "--dropout: expected 0 with a single layer; got 0.1. It is"),
    "activation": (
        {"cell": "gru", "activation": "relu"},
        "--activation: expected none with --cell gru, which has its own; got 'relu'. Leave",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_settings_that_are_none(name):
    given, message = BAD[name]
    with pytest.raises(ValueError, match=f"^{message}"):
        Settings(**given)
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(Settings(), **given)


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Settings().steps = 5


# --- layers --------------------------------------------------------------------------------------


@pytest.fixture
def run(text_file, tmp_path, capsys, float32):
    def run(*options):
        own = ["--text", text_file, "--out", tmp_path / "out", *TOY, "--steps=20", *options]
        return char_lm.main([str(one) for one in own]), *capsys.readouterr()

    return run


@pytest.mark.slow
def test_layers_are_trained_resumed_and_sampled_from(run, tmp_path, monkeypatch):
    """Stopped between two checkpoints; with dropout, which is not random again."""
    layers = ("--devices=1", "--layers=2", "--dropout=0.3", "--checkpoint-every=5")
    status, text, error = run(*layers, "--out", tmp_path / "whole")
    assert (status, "rnn.layers.1.forward.w_hh" in text) == (0, True), error
    with monkeypatch.context() as patch:
        patch.setattr(char_signals.StopFlag, "is_set", lambda self, step: step == 12)
        assert run(*layers)[0] == 0
    status, _, error = run(*layers, "--layers=3", "--resume")
    assert (status, "expected the run of --layers 3; got 2. Resume" in error) == (1, True)
    status, text, error = run(*layers, "--resume")
    assert (status, "after step 12 of 20" in text) == (0, True), error
    whole, parts = (load_model(tmp_path / d / "model.safetensors") for d in ("whole", "out"))
    assert isinstance(parts[0]["rnn"], jrnn.StackParams)
    jax.tree.map(np.testing.assert_array_equal, parts[0], whole[0])
    assert parts[1] == whole[1]
    assert len(text.split("a sample:\n\n")[1]) >= 300
    assert len(run("--sample=20")[1]) == 21


@pytest.mark.slow
def test_dropout_is_of_the_training_alone(small):
    """The first loss differs; the same parameters have the same bits of an evaluation."""
    still = {"layers": 2, "learning_rate": 1e-30}
    rows = [train(replace(small, **still, dropout=p, overwrite=True)).rows for p in (0.0, 0.5)]
    assert rows[0][-1]["train_bits"] != rows[1][-1]["train_bits"]
    assert rows[0][-1]["validation_bits"] == rows[1][-1]["validation_bits"]


def test_a_stack_of_other_networks_is_not_sampled_from(small):
    small.out.mkdir()
    rnn, gru = (
        jrnn.init_stack(jax.random.key(0), n, [4], cell=c) for n, c in ((5, "rnn"), (4, "gru"))
    )
    mixed = jrnn.StackParams(rnn.layers + gru.layers)
    readout = jrnn.init_readout(jax.random.key(1), 4, 5)
    save_model(small.out / "model.safetensors", {"rnn": mixed, "readout": readout}, {})
    expected = r"or a stack of one kind; got {'rnn': 'GRUParams and RNNParams', 'readout': 'Readout"
    with pytest.raises(ValueError, match=expected):
        sample(replace(small, sample=5))


# --- early stopping ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_stops_early_and_has_finished(run, tmp_path):
    """A learning rate that changes no parameter: no evaluation is better than the first."""
    still = ("--learning-rate=1e-30", "--eval-every=4")
    status, text, error = run(*still, "--patience=2")
    assert status == 0, error
    assert "stopped early after step 12 of 20: the last 2 evaluations were not better" in text
    assert f"in {tmp_path / 'out'}\n  model.safetensors  step 12: " in text
    assert "a sample:\n" in text
    status, text, error = run(*still, "--patience=2", "--resume")
    assert (status, "model.safetensors  step 12: " in text) == (0, True), error
    status, text, error = run(*still, "--patience=3", "--resume")
    assert (status, "model.safetensors  step 16: " in text) == (0, True), error
    status, text, error = run(*still, "--resume")
    assert (status, "model.safetensors  step 20: " in text) == (0, True), error
    assert "stopped early" not in text
