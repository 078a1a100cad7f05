"""The speakers' example: its files, its data, its figures, and a toy run on a file made here."""

import json
from argparse import Namespace
from functools import partial
from importlib.metadata import PackageNotFoundError

import co2_forecast
import command
import installed
import japanese_vowels
import jax
import numpy as np
import pytest
import ts_data
from programs import in_this_process, unboxed

import jrnn

pytestmark = pytest.mark.usefixtures("float32")
TOY = ["--epochs=2", "--hidden-size=4", "--batch-size=5", "--seeds=2"]
HEAD = """#A comment: with a colon
@problemName Toy
@dimensions 2
@classLabel true a b c
@data
"""


def ts_text(count, seed=0, channels=2):
    """A file, its sequences, whose values tell the class, and its labels."""
    rng = np.random.default_rng(seed)
    sequences, labels = [], []
    for n in range(count):
        label = "abc"[n % 3]
        steps = rng.integers(2, 6)
        sequences.append(rng.normal("abc".index(label), 0.1, (steps, channels)).round(6))
        labels.append(label)
    lines = [
        ":".join([*(",".join(map(str, channel)) for channel in s.T), label])
        for s, label in zip(sequences, labels, strict=True)
    ]
    return HEAD + "\n".join(lines) + "\n", sequences, labels


@pytest.fixture
def folder(tmp_path):
    for part, count in (("TRAIN", 30), ("TEST", 12)):
        text, *_ = ts_text(count, seed=count)
        (tmp_path / f"JapaneseVowels_{part}.ts").write_text(text)
    return tmp_path


run = partial(in_this_process, japanese_vowels.main)


def test_a_file_is_read_and_padded(tmp_path):
    text, sequences, labels = ts_text(7)
    path = tmp_path / "toy.ts"
    path.write_text(text + "\n")  # an empty line more
    found = ts_data.read_ts(path)
    longest = max(map(len, sequences))
    assert found.xs.shape == (longest, 7, 2)
    assert found.xs.dtype == np.float32
    assert found.classes == ["a", "b", "c"]
    assert [found.classes[i] for i in found.labels] == labels
    assert found.lengths.tolist() == [len(s) for s in sequences]
    for n, sequence in enumerate(sequences):
        np.testing.assert_array_equal(found.xs[: len(sequence), n], sequence.astype(np.float32))
        assert (found.xs[len(sequence) :, n] == 0).all()
    some = found.take(np.array([5, 2]))
    assert some.lengths.tolist() == [len(sequences[5]), len(sequences[2])]
    np.testing.assert_array_equal(some.xs[:, 1], found.xs[:, 2])


BAD_FILES = {
    "no data": (HEAD, "expected @classLabel, @data and a sequence; got less. It is cut"),
    "no head": ("1,2:3,4:a\n", "expected @classLabel, @data and a sequence"),
    "no classes": ("@data\n1,2:3,4:a\n", "expected @classLabel, @data and a sequence"),
    "a channel less": (
        HEAD + "1,2:3,4:a\n1,2:b\n",
        "sequence 2 of FILE: expected 2 channels and a label of a, b, c; got [2, 1] steps and "
        "channels, label 'b'. Steps are as many in each channel.",
    ),
    "a step less": (HEAD + "1,2:3,4:a\n1,2:3:b\n", "sequence 2 of FILE: expected 2 channels"),
    "another class": (HEAD + "1,2:3,4:d\n", "got [2, 2] steps and channels, label 'd'"),
    "no number": (HEAD + "1,x:3,4:a\n", "could not convert string to float: 'x'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_cut_or_another_kind(name, tmp_path):
    text, message = BAD_FILES[name]
    path = tmp_path / "toy.ts"
    path.write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        ts_data.read_ts(path)
    assert message.replace("FILE", str(path)) in str(error.value)


@pytest.mark.parametrize(
    ("program", "package", "contains"),
    [
        (japanese_vowels, "aeon==1.6.0", "JapaneseVowels"),
        (co2_forecast, "statsmodels==0.15.0", "co2.csv"),
    ],
)
def test_the_package_that_is_missing(program, package, contains, monkeypatch, tmp_path, capsys):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installed, "distribution", missing)
    assert program.main(["--out", str(tmp_path)]) == 1
    assert (
        f"data: expected the package {package.split('=')[0]}, which contains {contains}; got no "
        f"such package. pip install --no-deps {package}, or give a copy by --data."
        in capsys.readouterr().err
    )


def test_the_package_that_is_there(monkeypatch, tmp_path):
    class Installed:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(installed, "distribution", {"aeon": Installed()}.get)
    found = installed.installed_data(*japanese_vowels.DATA)
    assert found == tmp_path / "aeon/datasets/data/JapaneseVowels"


def test_channels_are_standardised_by_the_training_part(folder):
    args = Namespace(data=folder, validate=False, batch_size=5)
    train, test = japanese_vowels.load_data(args)
    raw = [ts_data.read_ts(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")]
    steps = np.concatenate([raw[0].xs[:n, b] for b, n in enumerate(raw[0].lengths)])
    for found, given in zip((train, test), raw, strict=True):
        assert found.xs.dtype == np.float32
        for b, n in enumerate(given.lengths):
            expected = (given.xs[:n, b] - steps.mean(0)) / steps.std(0)
            np.testing.assert_allclose(found.xs[:n, b], expected, atol=1e-5)
            assert (found.xs[n:, b] == 0).all()


def test_validation_leaves_the_test_part_alone(folder):
    (folder / "JapaneseVowels_TEST.ts").unlink()
    args = Namespace(data=folder, validate=True, batch_size=5)
    train, held_out = japanese_vowels.load_data(args)
    raw = ts_data.read_ts(folder / "JapaneseVowels_TRAIN.ts")
    assert (len(train.labels), len(held_out.labels)) == (24, 6)
    np.testing.assert_array_equal(held_out.lengths, raw.lengths[4::5])
    np.testing.assert_array_equal(held_out.labels, raw.labels[4::5])


def test_every_epoch_reads_every_sequence_once():
    orders = japanese_vowels.epoch_orders(0, 3, 17, 5)
    assert orders.shape == (3, 3, 5)
    for order in orders:
        assert len(set(order.ravel().tolist())) == 15  # two fill no batch
    assert (orders[0] != orders[1]).any()
    np.testing.assert_array_equal(orders, japanese_vowels.epoch_orders(0, 3, 17, 5))


@pytest.mark.parametrize("name", japanese_vowels.MODELS)
def test_the_logits_of_each_model(name):
    H, lengths = 3, [4, 2]
    model = japanese_vowels.init_model(jax.random.key(0), name, "rnn", (2, H, 5))
    xs = np.random.default_rng(0).normal(size=(4, 2, 2)).astype(np.float32)
    found = japanese_vowels.logits(name, model, xs, np.array(lengths))
    (layer,) = model.rnn.layers
    for b, n in enumerate(lengths):
        states = []
        for network, step in ((layer.forward, 1), (layer.backward, -1)):
            if network is None:
                continue
            h, hs = np.zeros(H), []
            for x in xs[:n, b][::step]:
                h = np.tanh(x @ np.asarray(network.w_ih) + h @ np.asarray(network.w_hh))
                hs.append(h)
            states.append(h if name.startswith("last") else np.mean(hs, 0))
        expected = np.concatenate(states) @ np.asarray(model.readout.w_ho)
        np.testing.assert_allclose(found[b], expected, atol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_logits_of_networks_with_gates(cell):
    """From the last h of both directions, not from the c of an LSTM."""
    H, n = 3, 4
    model = japanese_vowels.init_model(jax.random.key(0), "last-both", cell, (2, H, 5))
    xs = np.random.default_rng(0).normal(size=(n, 1, 2)).astype(np.float32)
    (layer,), network = model.rnn.layers, {"gru": jrnn.gru, "lstm": jrnn.lstm}[cell]
    states = [network(layer.forward, xs[:, 0])[1][-1], network(layer.backward, xs[::-1, 0])[1][-1]]
    expected = np.concatenate(states) @ np.asarray(model.readout.w_ho)
    found = japanese_vowels.logits("last-both", model, xs, np.array([n]))
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_means_errors_and_confusions():
    mean, error = command.mean_and_error([0.9, 0.92, 0.97])
    assert mean == pytest.approx(0.93)
    assert error == pytest.approx(np.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2 / 3))
    assert np.isnan(command.mean_and_error([0.9])[1])
    labels = np.array([0, 1, 1, 2], np.int32)
    test = ts_data.Sequences(np.zeros((1, 4, 1)), np.ones(4), labels, ["a", "b", "c"])
    predicted = np.array([[0, 1, 2, 2], [0, 1, 1, 0]])
    found = japanese_vowels.confusion(predicted, test)
    np.testing.assert_array_equal(found, [[2, 0, 0], [0, 3, 1], [1, 0, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_toy_run(cell, folder, tmp_path, capsys):
    out = tmp_path / "out"
    models = ["mean-both", "last-forwards"]
    options = ["--epochs=30", "--learning-rate=0.03", "--cell", cell, "--models", *models]
    status, text, bar = run(capsys, "--data", folder, "--out", out, *TOY, *options)
    assert status == 0
    for shown in (*models, "epoch/s", "loss 0."):
        assert shown in bar
    assert (out / "japanese_vowels.md").read_text() in text + "\n"
    assert (out / "japanese_vowels.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((out / "japanese_vowels.json").read_text())
    assert (result["part"], result["options"]["hidden_size"]) == ("test", 4)
    assert [record["model"] for record in result["records"]] == models
    assert {record["cell"] for record in result["records"]} == {cell}
    for record in result["records"]:
        assert np.shape(record["losses"]) == np.shape(record["accuracies"]) == (30, 2)
        assert record["losses"][0][0] != record["losses"][0][1]  # two seeds
        assert record["accuracies"][-1] == [1.0, 1.0]
        assert np.sum(record["confusion"]) == np.trace(record["confusion"]) == 24
    assert text.count("| 100.0 % | 0.0 | 100.0, 100.0 |") == 2


@pytest.mark.slow
def test_a_seed_learns_alone_what_it_learns_among_others(folder, tmp_path, capsys):
    losses = []
    for seeds in (1, 2):
        options = ["--data", folder, "--out", tmp_path, *TOY, f"--seeds={seeds}", "--validate"]
        assert run(capsys, *options, "--models=last-forwards")[0] == 0
        result = json.loads((tmp_path / "japanese_vowels.json").read_text())
        losses.append([row[0] for row in result["records"][0]["losses"]])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert result["part"] == "validation"


def test_parts_that_do_not_belong_together(folder, tmp_path, capsys):
    path = folder / "JapaneseVowels_TEST.ts"
    for text in (ts_text(4, channels=3)[0], path.read_text().replace("true a b c", "true a b c d")):
        path.write_text(text)
        status, _, error = run(capsys, "--data", folder, "--out", tmp_path, *TOY)
        assert status == 1
        assert "data: expected two parts with the same classes and channels; got" in error


def test_a_batch_that_is_too_large(folder, tmp_path, capsys):
    options = ["--data", folder, "--out", tmp_path, *TOY, "--batch-size=31"]
    status, _, error = run(capsys, *options)
    assert status == 1
    assert "--batch-size: expected at most the 30 sequences of training; got 31." in error


@pytest.mark.parametrize(
    "option", ["--seeds=0", "--learning-rate=nan", "--models=last", "--models", "--cell=leaky"]
)
def test_options_that_are_none(option, capsys):
    with pytest.raises(SystemExit):
        japanese_vowels.main([option])
    assert option.split("=")[0] in unboxed(capsys.readouterr().err)


@pytest.mark.parametrize("option", ["--seeds", "--epochs", "--hidden-size"])
def test_sizes_that_cannot_fit(option, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(japanese_vowels, "run", lambda *args: pytest.fail("training began"))
    options = ["--data", folder, "--out", tmp_path, *TOY, f"{option}={2**31 - 1}"]
    status, _, error = run(capsys, *options)
    assert (status, error.startswith("error: memory: expected at least ")) == (1, True)
    assert option in error.split("Give a smaller ")[1]
