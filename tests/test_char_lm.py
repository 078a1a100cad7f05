"""The main job, at toy size, as a person runs it."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from functools import partial
from itertools import count, product
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import programs
import pytest
from char_model import data as char_data
from char_model import loop as char_loop
from char_model import main as char_lm
from char_model import model as char_model
from char_model import run as char_run
from char_model import signals as char_signals
from char_model.devices import choose_devices
from char_model.model import CELLS
from char_model.ngram import witten_bell
from char_model.settings import Settings, parse
from native_built import built
from programs import ROOT, TEXT, in_this_process, rows_of, unboxed

import jrnn
from jrnn import native
from jrnn.checkpoint import Checkpoints
from jrnn.model_file import load_model, save_model
from jrnn.parallel import BATCH, batch_mesh
from jrnn.text import Alphabet, read_blocks

SPACE = 2  # its id, after U+FFFD and the newline
TOY = ["--steps=30", *programs.TOY]
ALONE = [*TOY, "--devices=1"]  # a process has a device for each core, this one has two


@pytest.fixture(scope="module")
def trained(text_file, tmp_path_factory):
    """A directory that a toy training has filled, and what it printed."""
    out = tmp_path_factory.mktemp("out")
    command = [
        sys.executable,
        "examples/char_lm.py",
        "--text",
        text_file,
        "--out",
        str(out),
        *ALONE,
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return out, run


run = partial(in_this_process, char_lm.main)


def test_training_shows_and_leaves_what_it_promises(trained):
    out, run = trained
    assert sorted(p.name for p in out.iterdir()) == [
        ".lock",
        "best.safetensors",
        "checkpoints",
        "curve.png",
        "metrics.csv",
        "model.safetensors",
    ]
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    rows = rows_of(out)
    assert [int(r["step"]) for r in rows] == [10, 20, 30]
    assert [int(r["characters"]) for r in rows] == [640, 1280, 1920]
    assert float(rows[-1]["validation_bits"]) < float(rows[0]["validation_bits"])
    for text in ("sha256 ", "alphabet ", "1-gram", "6-gram", "network", "3-gram\n", "characters/s"):
        assert text in run.stdout
    for text in ("bits/char", "char/s", "<00:"):  # loss, speed, time left
        assert text in run.stderr
    assert len(run.stdout.split("a sample:\n\n")[1]) >= 300


@pytest.mark.usefixtures("float32")
def test_the_same_seed_gives_the_same_losses_bit_for_bit(trained, text_file, tmp_path, capsys):
    """In another process."""
    assert run(capsys, "--text", text_file, "--out", tmp_path, *ALONE)[0] == 0
    for a, b in zip(rows_of(trained[0]), rows_of(tmp_path), strict=True):
        assert (a["train_bits"], a["validation_bits"]) == (b["train_bits"], b["validation_bits"])
    ours, again = (load_model(d / "model.safetensors") for d in (trained[0], tmp_path))
    jax.tree.map(np.testing.assert_array_equal, ours[0], again[0])


@pytest.mark.usefixtures("float32")
def test_sampling_from_the_model(trained, capsys):
    out, _ = trained
    options = ("--sample", 50, "--prompt", "3 times", "--temperature", 0.5, "--top-k", 5)
    status, text, _ = run(capsys, "--out", out, *options, "--top-p", 0.9)
    assert status == 0
    assert text.startswith("3 times")
    assert len(text) == len("3 times") + 50 + 1
    assert text == run(capsys, "--out", out, *options, "--top-p", 0.9)[1]
    several = run(capsys, "--out", out, *options, "--num-samples", 3)[1]
    assert several.count("--- sample") == several.count("3 times") == 3


@pytest.mark.usefixtures("float32")
def test_an_unknown_character_in_a_prompt(trained, capsys):
    status, _, error = run(capsys, "--out", trained[0], "--sample", 5, "--prompt", "3 é times")
    assert status == 1
    assert "--prompt: expected characters of the training text; got 'é' U+00E9. The model" in error
    assert "The model knows '\\n .0123456789eimst'." in error


@pytest.mark.usefixtures("float32")
def test_an_unknown_character_in_the_validation_part(tmp_path, capsys):
    path = tmp_path / "text"
    path.write_text(TEXT + "ßß Ω" * 10)
    status, text, _ = run(capsys, "--text", path, "--out", tmp_path, *TOY)
    assert status == 0
    assert "the validation part has 30 characters that the training part lacks" in text
    assert "'ß' U+00DF, 'Ω' U+03A9): read as U+FFFD, not counted" in text


@pytest.mark.usefixtures("float32")
def test_two_devices_learn_what_one_does(text_file, tmp_path, capsys):
    rows = {}
    for n in (1, 2):
        options = ("--text", text_file, "--out", tmp_path, *TOY, "--devices", n)
        status, text, _ = run(capsys, *options)
        assert (status, f"devices     {n} cpu\n" in text) == (0, True)
        assert load_model(tmp_path / "model.safetensors")[1]["machine"]["devices"] == f"{n} cpu"
        rows[n] = rows_of(tmp_path)
    for one, two in zip(rows[1], rows[2], strict=True):
        for name in ("train_bits", "validation_bits"):
            assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-4), name


@pytest.mark.parametrize(("batch_size", "mesh_size"), [(4, 2), (3, 1)])
def test_as_many_devices_as_divide_the_batch(batch_size, mesh_size):
    assert choose_devices(None, batch_size).size == mesh_size
    assert choose_devices("all", 4).size == len(jax.devices())


BAD = {
    "more devices than there are": (
        TEXT.encode(),
        ["--devices=3"],
        "devices: expected at most the 2 cpu devices of JAX; got 3.",
    ),
    "devices that do not divide the batch": (
        TEXT.encode(),
        ["--devices=all", "--batch-size=5"],
        "--batch-size: expected a multiple of the 2 devices; got 5. Take another batch size, or "
        "other --devices.",
    ),
    "missing": (None, [], "No such file or directory"),
    "empty": (b"", [], "text: expected at least one character; got none in"),
    "not UTF-8": (b"abc\xff", [], "text: expected UTF-8; got byte 0xff at offset 3 of"),
    "too short": (
        b"abc" * 20,
        [],
        "text: expected at least 76 characters for 4 streams of chunks of 16 with a tenth held "
        "out; got 60. Give more text, or a smaller --batch-size or --length.",
    ),
    "too short to validate": (
        b"abc" * 100,
        ["--batch-size=16"],
        "text: expected at least 311 characters for 16 streams of chunks of 16",
    ),
    "no common character": (b"a" * 900 + b"b" * 100, [], "text: expected its last tenth, which"),
    "nothing to judge": (
        b"abcdefghij" * 90 + b"a" + b"z" * 99,
        [],
        "share characters with the rest; got none in common. Give a text whose parts are alike.",
    ),
    "a length without end": (
        TEXT.encode(),
        ["--length=1073741824"],
        "text: expected at least 4,772,185,889 characters for 4 streams of chunks of 1073741824",
    ),
    "streams without end": (
        TEXT.encode(),
        ["--batch-size=2147483647"],
        "text: expected at least 42,949,672,931 characters for 2147483647 streams of chunks of 16",
    ),
    "a network that fits nowhere": (
        TEXT.encode(),
        ["--hidden-size=2147483647"],
        "memory: expected at least 147,573,",
    ),
    "a large network": (
        TEXT.encode(),
        ["--hidden-size=2000000"],
        "GB for the parameters, their gradient, its two moments, and the states of a chunk; got",
    ),
    "samples without end": (
        TEXT.encode(),
        ["--num-samples=2147483647"],
        "GB for 2,147,483,647 samples; got",
    ),
    "prompt": (TEXT.encode(), ["--prompt", "é"], "--prompt: expected characters of the training"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_training(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(char_run, "run_steps", lambda *args: pytest.fail("training began"))
    content, options, message = BAD[name]
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    status, _, error = run(capsys, "--text", path, "--out", tmp_path, *TOY, *options)
    assert status == 1
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    ("text", "start"), [("b a\nc", "\n"), ("\t b a", " "), ("b\ta", "\t"), ("ba", "a")]
)
def test_a_sample_without_a_prompt_starts_from_what_the_network_has_read(
    text, start, tmp_path, capsys
):
    """A network that says after each character what it has read; U+FFFD it has never read."""
    characters = Alphabet.of(text).characters
    w_ih = np.eye(len(characters), dtype=np.float32)
    w_ih[0] = w_ih[characters.index("b")]
    rnn = jrnn.RNNParams(w_ih, np.zeros_like(w_ih), None)
    readout = jrnn.ReadoutParams(np.eye(len(w_ih), dtype=np.float32), np.zeros_like(w_ih[0]))
    settings = {"characters": characters, "activation": "identity"}
    save_model(tmp_path / "model.safetensors", {"rnn": rnn, "readout": readout}, settings)
    status, sample, _ = run(capsys, "--out", tmp_path, "--sample", 4, "--temperature", 0)
    assert (status, sample) == (0, 4 * start + "\n")


def test_an_out_that_is_no_directory_is_refused_before_training(tmp_path, capsys):
    (tmp_path / "file").touch()
    status, _, error = run(capsys, "--out", tmp_path / "file" / "out")
    assert (status, "Not a directory" in error) == (1, True)


def test_a_model_file_that_is_missing_cut_or_another_programs(trained, tmp_path, capsys):
    ask = ("--out", tmp_path, "--sample", 5)
    assert "--out: expected a directory with a model.safetensors; got" in run(capsys, *ask)[2]
    whole = (trained[0] / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole[:-10])
    assert "expected a whole model file" in run(capsys, *ask)[2]
    params, settings = load_model(trained[0] / "model.safetensors")
    save_model(path, params, settings | {"characters": "abc"})
    error = run(capsys, *ask)[2]
    expected = "a character model, cell 'rnn', its activation and an alphabet of 19 characters; got"
    assert f"{expected} 3 characters, cell 'rnn', activation 'tanh'. Train the model" in error
    wrong = {"activation": ["tanh"]}, {"activation": "gelu"}, {"activation": None}, {"cell": "lstm"}
    for changed in ({"characters": None}, *wrong):
        save_model(path, params, settings | changed)
        assert f"expected {expected}" in run(capsys, *ask)[2]
    leaky = {
        "rnn": jrnn.init_leaky(jax.random.key(0), 19, 16, alpha=0.1),
        "readout": params["readout"],
    }
    save_model(path, leaky, settings)
    assert "got {'rnn': 'LeakyParams', 'readout': 'ReadoutParams'}. Train" in run(capsys, *ask)[2]
    for other in (params["rnn"], {"rnn": params["rnn"]}, {"rnn": params["readout"]}):
        save_model(path, other, settings)
        error = run(capsys, *ask)[2]
        assert "expected a character model, rnn of RNNParams, GRUParams, LSTMParams and" in error
    for part, message in (({"w_ih": None}, "since w_ih is None"), ({"b_h": jnp.zeros(3)}, "b_h: ")):
        save_model(path, params | {"rnn": params["rnn"]._replace(**part)}, settings)
        assert message in run(capsys, *ask)[2]
    one = params | {"rnn": params["rnn"]._replace(w_ih=params["rnn"].w_ih[:1])}  # can write nothing
    save_model(path, one, settings | {"characters": "\ufffd"})
    assert "an alphabet of 2 characters; got 1 characters" in run(capsys, *ask)[2]


@pytest.mark.usefixtures("float32")
def test_a_model_without_biases_is_sampled_from(trained, tmp_path, capsys):
    params, settings = load_model(trained[0] / "model.safetensors")
    bare = {
        "rnn": params["rnn"]._replace(b_h=None),
        "readout": params["readout"]._replace(b_o=None),
    }
    save_model(tmp_path / "model.safetensors", bare, settings)
    status, text, _ = run(capsys, "--out", tmp_path, "--sample", 50)
    assert (status, len(text), "\ufffd" in text) == (0, 51, False)


@pytest.mark.usefixtures("float32")
def test_a_model_that_is_not_finite_is_not_sampled_from(trained, tmp_path, capsys):
    params, settings = load_model(trained[0] / "model.safetensors")
    params["rnn"] = params["rnn"]._replace(w_hh=params["rnn"].w_hh.at[2, 1].set(jnp.nan))
    save_model(tmp_path / "model.safetensors", params, settings)
    status, text, error = run(capsys, "--out", tmp_path, "--sample", 5)
    assert (status, text) == (1, "")
    assert "error: rnn_params.w_hh: expected finite numbers; got nan at [2, 1], 1 of 256" in error


GATED = {"gru": jrnn.GRUParams, "lstm": jrnn.LSTMParams}


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("cell", GATED)
def test_a_gated_network_does_what_an_elman_network_does(
    cell, text_file, tmp_path, capsys, monkeypatch
):
    """On two devices, stopped and resumed, and at once on one; then it is sampled from."""
    command = ("--text", text_file, *TOY, "--cell", cell, "--out")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    status, text, error = run(capsys, *command, whole, "--devices=1")
    assert (status, f"cell        {cell}\n" in text) == (0, True), error
    with monkeypatch.context() as patch:
        patch.setattr(char_signals.StopFlag, "is_set", lambda self, step: step == 17)
        assert run(capsys, *command, parts)[0] == 0
    status, _, error = run(capsys, *command, parts, "--resume", "--cell=rnn")
    assert (status, f"expected the run of --cell rnn; got {cell}. Resume" in error) == (1, True)
    status, text, _ = run(capsys, *command, parts, "--resume")
    assert (status, "after step 17 of 30" in text) == (0, True)
    for one, two in zip(rows_of(whole), rows_of(parts), strict=True):
        for name in ("train_bits", "validation_bits"):
            assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-4), name
    assert float(one["validation_bits"]) < float(rows_of(whole)[0]["validation_bits"])
    params, settings = load_model(parts / "model.safetensors")
    assert isinstance(params["rnn"], GATED[cell])
    assert (settings["cell"], settings["activation"]) == (cell, None)
    ask = ("--out", parts, "--sample", 20)
    assert len(run(capsys, *ask)[1]) == 21
    assert run(capsys, *ask, "--cell", cell) == run(capsys, *ask)
    for option, value, own in (("cell", "rnn", cell), ("activation", "relu", None)):
        error = run(capsys, *ask, f"--{option}={value}")[2]
        assert f"--{option}: expected {own}, the one of model file {parts}" in error
        assert f"; got {value}. Leave it out, or train such a model." in error


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    ("cell", "layers"),
    [
        *(pytest.param(cell, 1, marks=[] if cell == "rnn" else pytest.mark.slow) for cell in CELLS),
        ("lstm", 2),
    ],
)
def test_the_state_that_is_carried_is_the_whole_state(cell, layers):
    """The losses of two chunks are those of one that is as long as both."""
    args = parse([f"--cell={cell}", "--hidden-size=8", f"--layers={layers}"])
    model = char_model.init_model(jax.random.key(0), args, 5)
    ids = jax.random.randint(jax.random.key(1), (17, 3), 0, 5)
    loss = jax.jit(char_model.make_loss(args))
    state = jrnn.zero_state(model.rnn, 3)

    def of_chunk(start, end, state):
        return loss(model, state, (ids[start:end], ids[start + 1 : end + 1]), jax.random.key(0))

    expected, at_end = of_chunk(0, 16, state)
    first, state = of_chunk(0, 8, state)
    second, state = of_chunk(8, 16, state)
    assert float(first + second) / 2 == pytest.approx(float(expected), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, at_end)


def test_the_memory_of_a_gated_network_is_that_of_its_gates(capsys, tmp_path, text_file):
    ask = ("--text", text_file, "--out", tmp_path, *TOY, "--hidden-size=2000000")
    errors = [run(capsys, *ask, f"--cell={cell}")[2] for cell in ("rnn", "gru", "lstm")]
    need = [float(re.search(r"at least ([\d,]+)", e)[1].replace(",", "")) for e in errors]
    assert need == pytest.approx(need[0] * np.array([1, 3, 4]), rel=1e-3)


@pytest.fixture
def interrupted(text_file, tmp_path, capsys, monkeypatch, float32):
    """The toy run, stopped between two evaluations; its command."""
    command = ("--text", text_file, "--out", tmp_path, *ALONE)
    with monkeypatch.context() as patch:
        patch.setattr(char_signals.StopFlag, "is_set", lambda self, step: step == 17)
        status, text, _ = run(capsys, *command, "--resume")  # which finds nothing
    nothing = f"no checkpoint in {tmp_path}/unfinished/checkpoints: the run starts"
    assert (status, nothing in text) == (0, True)
    return command


@pytest.mark.optimized  # where a restored state could be computed with otherwise
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(interrupted, trained, tmp_path, capsys):
    status, text, _ = run(capsys, *interrupted, "--resume")
    assert status == 0
    checkpoint = f"checkpoint {tmp_path}/unfinished/checkpoints/17"
    assert f"resumed     {checkpoint}, after step 17 of 30" in text
    assert "another machine" not in text
    assert "kernel: " not in text
    ours, whole = (load_model(d / "model.safetensors") for d in (tmp_path, trained[0]))
    jax.tree.map(np.testing.assert_array_equal, ours[0], whole[0])
    assert ours[1] == whole[1]
    for row, other in zip(rows_of(tmp_path), rows_of(trained[0]), strict=True):
        del row["characters_per_second"], other["characters_per_second"]
        assert row == other


@pytest.mark.slow
@built
def test_another_kernel_is_said(interrupted, capsys, monkeypatch):
    """The run was made with the native kernel; it goes on without it, and again with it."""
    own, repair = explained("rnn", 1), "JRNN_NATIVE=0 resumes it without the native"
    with monkeypatch.context() as patch, native.turned(False):
        patch.setattr(char_signals.StopFlag, "is_set", lambda self, step: step == 20)
        status, text, _ = run(capsys, *interrupted, "--resume")
    assert status == 0
    assert f"kernel: was {own}, is XLA: the results agree only up to rounding\n" in text
    assert repair not in text
    assert "another machine" not in text
    status, text, _ = run(capsys, *interrupted, "--resume")
    assert status == 0
    assert f"kernel: was XLA, is {own}: the results agree only up to rounding\n" in text
    assert repair in text


def explained(cell, devices):
    """What computes the network in a step of the toy run, by the step itself."""
    args = parse([*TOY, f"--cell={cell}", f"--devices={devices}"])
    data, mesh = SimpleNamespace(alphabet=Alphabet(TEXT)), batch_mesh(devices)
    state, step = char_loop.make_training(args, data, mesh)
    ids = jax.ShapeDtypeStruct((args.length, args.batch_size), np.int32)
    found = {call.backend for call in jrnn.explain(step, state, (ids, ids), platform="cpu")}
    (kernel,) = {name if name.startswith("native, ") else name.split(",")[0] for name in found}
    return kernel


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "gru"])
@pytest.mark.usefixtures("float32")
def test_the_kernel_is_recorded(cell, text_file, tmp_path, capsys):
    command = ("--text", text_file, "--out", tmp_path, *TOY, f"--cell={cell}", "--steps=1")
    status, text, _ = run(capsys, *command)
    own = explained(cell, 2)
    assert status == 0
    assert f"\nkernel      {own}\n" in text
    assert load_model(tmp_path / "model.safetensors")[1]["kernel"] == own
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest().manifest["kernel"] == own


def test_other_machines_and_options_are_said(interrupted, capsys):
    changed = ("--learning-rate=1e-3", "--devices=2", "--steps=20")
    status, text, _ = run(capsys, *interrupted, "--resume", *changed)
    assert status == 0
    for line in (
        "learning_rate: was 0.008, is 0.001",
        "steps: was 30, is 20",
        "devices: was 1 cpu, is 2 cpu",
        "another machine: the same run to rounding, not bit for bit",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("dropout", "devices", "same"),
    [(0.1, 2, "another run, since each"), (0.1, 1, "the same run to"), (0.0, 2, "the same run to")],
)
def test_other_devices_draw_another_dropout(dropout, devices, same, tmp_path, capsys):
    settings = Settings(layers=2, dropout=dropout)
    manifest = {"options": vars(settings) | {"out": None}, "text_sha256": "", "kernel": "XLA"}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": np.ones(2)}, manifest | {"machine": {"devices": "1 cpu"}})
    here = {"devices": f"{devices} tpu"}
    char_run.find_checkpoint(settings, manifest | {"machine": here}, tmp_path)
    assert f"another machine: {same}" in capsys.readouterr().out


def test_a_run_that_cannot_be_resumed_is_refused(interrupted, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(char_run, "run_steps", lambda *args: pytest.fail("training began"))
    other = tmp_path / "other"
    other.write_text(TEXT[::-1])
    checkpoint = f"checkpoint {tmp_path}/unfinished/checkpoints/17: expected "
    for options, message in {
        ("--resume", "--hidden-size=8"): checkpoint + "the run of --hidden-size 8; got 16. Resume",
        ("--resume", "--text", other): checkpoint + "the run of text of SHA-256",
        ("--resume", "--steps=10"): checkpoint + "at most 10 steps; got 17. Give at least as many",
        (): f"an unfinished run; got one at step 17 in {tmp_path}/unfinished. Take --resume",
    }.items():
        status, _, error = run(capsys, *interrupted, *options)
        assert (status, message in error) == (1, True), error


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("told", ["continue", "stop"])
def test_a_save_that_fails_is_said_and_the_run_does_as_told(
    told, text_file, tmp_path, capsys, monkeypatch
):
    """A disk that is really full is in test_full_disk_full.py."""

    def write(*args, **kwargs):
        raise RuntimeError("nobody has heard of this error")

    monkeypatch.setattr(orbax.checkpoint.CheckpointManager, "save", write)
    options = ("--text", text_file, "--out", tmp_path, *TOY, "--on-save-error", told)
    status, _, error = run(capsys, *options, "--checkpoint-every=10")
    place = tmp_path / "unfinished" / "checkpoints"
    said = f"a checkpoint was not written to {place}: nobody has heard of this error"
    if told == "continue":
        assert (status, error.count(f"{said}; the training goes on\n")) == (0, 3)
        assert (tmp_path / "model.safetensors").exists()
    else:
        assert (status, error.endswith(f"error: {said}\n")) == (1, True)
        assert not (tmp_path / "model.safetensors").exists()


def test_the_default_text(tmp_path):
    from pydoc_data.topics import topics

    data = char_data.load_data(None, 32, 64, tmp_path)
    characters = sum(map(len, topics.values())) + len(topics) - 1
    assert len(data.train) == int(0.9 * characters)
    assert len(data.train) + len(data.validation) == characters
    # Other Pythons bring other editions of the reference; its statistics stay.
    same_edition = data.sha256.startswith("2a95af4ac93f5b71")
    assert (characters == 465_048) == same_edition
    tolerance = 0.005 if same_edition else 0.05
    assert char_data.baselines(data)["3-gram"] == pytest.approx(2.47, abs=tolerance)


@pytest.fixture
def bad_batches(monkeypatch):
    """Every chunk that begins with a space has no finite loss; undone by `undo`."""
    make_loss = char_loop.make_loss

    def bad_at_times(settings):
        def loss(model, h0, batch, key):
            cost, h_last = make_loss(settings)(model, h0, batch, key)
            first = jax.lax.pmax(batch[0][0, 0], BATCH)
            return cost * jnp.where(first == SPACE, jnp.nan, 1), h_last

        return loss

    with monkeypatch.context() as patch:
        patch.setattr(char_loop, "make_loss", bad_at_times)
        yield patch


@pytest.mark.usefixtures("float32")
def test_a_loss_that_is_not_finite_ends_the_run_and_changes_nothing(bad_batches, tmp_path, capsys):
    """In the last step of a pass of five: before it is read, the next pass could have begun."""
    text = list("bcdefgh" * 57)
    text[1], text[64] = "\n", " "  # 64: where the fifth chunk of the first stream begins
    (tmp_path / "text").write_text("".join(text))
    options = ("--text", tmp_path / "text", *TOY, "--devices=1", "--out")
    out = tmp_path / "ended"
    out.mkdir()
    (out / "model.safetensors").write_text("an older model")
    status, _, error = run(capsys, *options, out)
    assert status == 1
    said = "training, step 5: expected a finite loss, gradient, update and state; got the loss nan"
    assert said in error
    assert re.search(r"norms rnn.w_ih \S+, rnn.w_hh \S+, rnn.b_h \S+, readout.w_ho \S+,", error)
    assert (
        "--resume goes on from before it, with a lower --learning-rate or --clip; --nonf" in error
    )
    assert (out / "model.safetensors").read_text() == "an older model"
    assert [c.name for c in (out / "unfinished" / "checkpoints").iterdir()] == ["4"]
    bad_batches.undo()
    status, text, error = run(capsys, *options, out, "--resume")
    assert (status, "after step 4 of 30" in text) == (0, True), error
    assert [int(row["step"]) for row in rows_of(out)] == [10, 20, 30]
    assert run(capsys, *options, tmp_path / "not ended")[0] == 0
    # Of another program, whose losses can be NaN, the first four steps are the same to rounding;
    # from a carry of zeros the losses would differ by more than a thousandth.
    for a, b in zip(rows_of(out), rows_of(tmp_path / "not ended"), strict=True):
        for bits in ("train_bits", "validation_bits"):
            assert float(a[bits]) == pytest.approx(float(b[bits]), rel=1e-5)


@pytest.mark.usefixtures("float32")
def test_an_update_that_is_not_finite_ends_the_run_at_its_step(
    text_file, monkeypatch, tmp_path, capsys
):
    make_optimizer = char_loop.make_optimizer

    def bad_once(settings):
        bad = optax.scale_by_schedule(lambda n: jnp.where(n == 4, jnp.inf, 1.0))
        return optax.chain(make_optimizer(settings), bad)

    monkeypatch.setattr(char_loop, "make_optimizer", bad_once)
    status, _, error = run(capsys, "--text", text_file, "--out", tmp_path, *ALONE)
    assert status == 1
    said = r"step 5: .* and state; got an update or a state that is not, from the loss \d\S* and"
    assert re.search(said, error)
    assert [c.name for c in (tmp_path / "unfinished" / "checkpoints").iterdir()] == ["4"]


@pytest.mark.usefixtures("float32", "bad_batches")
def test_batches_that_are_skipped_are_counted(text_file, tmp_path, capsys):
    options = ("--text", text_file, "--out", tmp_path, *TOY, "--nonfinite=skip", "--devices=1")
    status, text, error = run(capsys, *options)
    assert status == 0, error
    assert len(rows_of(tmp_path)) == 3
    assert 0 < int(re.search(r"([\d,]+) batches were skipped", text)[1]) < 30


def test_u_fffd_in_a_text_is_no_unknown_character(tmp_path, capsys):
    path = tmp_path / "text"
    path.write_text("abcde\ufffd" * 200)
    char_data.load_data([str(path)], 4, 16, tmp_path)
    assert "lacks" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "option",
    [
        "--learning-rate=nan",
        "--clip=-1",
        "--steps=0",
        "--seed=-1",
        "--devices=0",
        "--process=-1",
        "--coordinator=host",
        "--coordinator=",
        "--coordinator=:1",
        "--coordinator=host:0",
        "--coordinator=host:65536",
    ],
)
def test_options_that_are_none(option, capsys):
    with pytest.raises(SystemExit) as end:
        char_lm.main([option])
    assert end.value.code == 2
    name, value = option.split("=")
    error = unboxed(capsys.readouterr().err)
    assert re.search(rf": {name}: expected .*; got '?{value}(\.0)?'?\. ", error), error


def test_the_least_text_is_the_first_that_is_enough():
    for batch_size, length in product(range(1, 7), range(1, 20)):

        def is_enough(characters, batch_size=batch_size, length=length):
            train = int(0.9 * characters)
            return train >= batch_size * (length + 1) and characters - train >= 2 * batch_size

        least = next(n for n in count(1) if is_enough(n))
        assert char_data._split(least, batch_size, length) == int(0.9 * least)
        for characters in (1, least - 1):
            with pytest.raises(ValueError, match=f"expected at least {least:,} characters for"):
                char_data._split(characters, batch_size, length)


def test_what_is_loaded_is_what_the_whole_text_in_memory_gives(tmp_path, monkeypatch):
    parts = ["naïve 😀 ©あ" * 37 + "\ufffd", "いろは" * 20 + "Ω" * 12]
    for i, part in enumerate(parts):
        (tmp_path / f"{i}").write_bytes(part.encode())
    (tmp_path / "out").mkdir()
    text = "\n".join(parts)
    known, held_out = text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]
    alphabet = Alphabet.of(known)
    for size in (1, 3, 4, 7, 10_000):
        monkeypatch.setattr(char_data, "read_blocks", partial(read_blocks, size=size))
        data = char_data.load_data([str(tmp_path / i) for i in "01"], 4, 16, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []
        assert data.sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert data.alphabet == alphabet
        assert data.train.dtype == np.uint8
        for part, ids, streams in (
            (known, data.train, data.streams),
            (held_out, data.validation, data.validation_streams),
        ):
            np.testing.assert_array_equal(ids, alphabet.encode(part))
            np.testing.assert_array_equal(streams, ids[: streams.size].reshape(4, -1).T)
            assert np.shares_memory(ids, streams)


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, change):
    path = tmp_path / "text"
    path.write_text(TEXT)
    survey = char_data._survey

    def survey_and_change(blocks):
        found = survey(blocks)
        if change == "gone":
            path.unlink()
        else:
            changed = {"longer": TEXT + "1", "shorter": TEXT[:100], "other": TEXT.swapcase()}
            path.write_text(changed[change])
        return found

    monkeypatch.setattr(char_data, "_survey", survey_and_change)
    if change == "gone":
        expected = pytest.raises(FileNotFoundError, match="text")
    else:
        message = r"text: expected the same when it is read again; got a change in .*text\. Start"
        expected = pytest.raises(ValueError, match=message)
    with expected:
        char_data.load_data([str(path)], 4, 16, tmp_path)


def test_no_more_than_the_start_of_a_long_held_out_part_is_judged(tmp_path, monkeypatch, capsys):
    (tmp_path / "text").write_text(TEXT + "ßßΩ" + TEXT[: len(TEXT) // 20] + "Ψ")
    load = partial(char_data.load_data, [str(tmp_path / "text")], 4, 16, tmp_path)
    whole, printed = load(), capsys.readouterr().out
    assert "are the validation part" not in printed
    assert "the validation part has 4 characters" in printed
    most = len(whole.validation) - 1
    monkeypatch.setattr(char_data, "MOST_JUDGED_CHARACTERS", most)
    data, printed = load(), capsys.readouterr().out
    assert f"of the {most + 1:,} characters that are held out, the first {most:,} are" in printed
    assert "the validation part has 3 characters that the training part lacks ('ß'" in printed
    assert "Ψ" not in printed
    np.testing.assert_array_equal(data.train, whole.train)
    np.testing.assert_array_equal(data.validation, whole.validation[:most])
    assert data.validation_streams.size == most // 4 * 4
    assert char_data.baselines(data).keys() == char_data.baselines(whole).keys()


def test_witten_bell_against_dictionaries():
    rng = np.random.default_rng(0)
    ids = rng.choice(4, 300, p=[0.6, 0.3, 0.07, 0.03])
    train, test, vocabulary = ids[:200].tolist(), ids[200:].tolist(), 5

    def probability(context, token, n):
        if n == 0:
            return 1 / vocabulary
        context = context[-(n - 1) :] if n > 1 else []
        places = [i for i in range(n - 1, len(train)) if train[i - n + 1 : i] == context]
        follow = Counter(train[i] for i in places)
        shorter = probability(context[1:], token, n - 1)
        if not follow:
            return shorter
        total, kinds = sum(follow.values()), len(follow)
        return (follow[token] + kinds * shorter) / (total + kinds)

    found = list(witten_bell(ids[:200], ids[200:], vocabulary, orders=4))
    for n, p in enumerate(found, 1):
        context = train + test
        expected = [probability(context[: 200 + i], c, n) for i, c in enumerate(test)]
        np.testing.assert_allclose(p, expected, rtol=1e-12)


def test_n_gram_probabilities_sum_to_one():
    train = np.array([0, 1, 2, 0, 1, 1, 0, 2, 2, 1, 0])
    for order in range(4):
        p = [list(witten_bell(train, np.array([0, 1, c]), 4, orders=4))[order][2] for c in range(4)]
        np.testing.assert_allclose(sum(p), 1, rtol=1e-12)
