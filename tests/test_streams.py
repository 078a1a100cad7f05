"""Lines that cannot be written: a training goes on, a sample is an error."""

import os
import subprocess
import sys

import pytest
from cases import parameters
from char_model import main as char_lm
from char_model.directory import CHECKPOINTS, FILES, UNFINISHED
from programs import ROOT, table

import jrnn
from jrnn.model_file import save_model

pytestmark = pytest.mark.slow  # it starts processes

TOY = ["--steps=20", "--hidden-size=8", "--length=8", "--batch-size=2", "--devices=1"]
FULL = "No space left on device"


def start(redirection, *options, **streams):
    """The example, as a shell starts it."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-u"]
    command += ["examples/char_lm.py", *map(str, options)]
    return subprocess.Popen(command, cwd=ROOT, **streams)


@pytest.fixture
def training(tmp_path):
    (tmp_path / "text").write_text(table(9))
    return ["--text", tmp_path / "text", "--out", tmp_path / "out", *TOY]


def assert_trained(status, tmp_path):
    assert status == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made >= {CHECKPOINTS, *FILES}
    assert UNFINISHED not in made
    assert (tmp_path / "out" / "checkpoints" / "20").is_dir()


def read_until_the_training(file):
    seen = b""
    while b"\ndevices" not in seen:
        part = os.read(file, 1000)
        assert part, seen  # nothing: the training has ended
        seen += part


def test_a_training_without_standard_error_whose_reader_leaves(training, tmp_path):
    """2>&- and | head: the descriptor is no other file's, which would get what is logged."""
    with start("2>&-", *training, stdout=subprocess.PIPE) as run:
        read_until_the_training(run.stdout.fileno())
        assert os.readlink(f"/proc/{run.pid}/fd/2") == os.devnull
        run.stdout.close()
        assert_trained(run.wait(), tmp_path)


def test_a_training_that_loses_its_terminal(training, tmp_path):
    terminal, its_end = os.openpty()
    with start("", *training, stdout=its_end, stderr=its_end, start_new_session=True) as run:
        os.close(its_end)
        read_until_the_training(terminal)
        os.close(terminal)
        assert_trained(run.wait(), tmp_path)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(("which", "other"), [("stdout", "stderr"), ("stderr", "stdout")])
def test_a_training_whose_lines_go_to_a_full_disk(
    which, other, training, tmp_path, capsys, monkeypatch
):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, which, full)
        assert_trained(char_lm.main(list(map(str, training))), tmp_path)
    seen = getattr(capsys.readouterr(), other[3:])
    said = f"[Errno 28] {FULL}: 'standard output'; the run did without it\n"
    assert seen.endswith(said) == (which == "stdout")
    assert seen.count(FULL) == (which == "stdout")


# --- a sample ------------------------------------------------------------------------------------


@pytest.fixture
def sampling(tmp_path, float32):
    characters = "\ufffd\nab"
    params = parameters(jrnn.init_rnn, len(characters), 3)
    readout = parameters(jrnn.init_readout, 3, len(characters))
    settings = {"characters": characters, "activation": "tanh"}
    model = {"rnn": params, "readout": readout}
    save_model(tmp_path / "model.safetensors", model, settings)
    return ["--out", str(tmp_path), "--sample=5"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_sample_on_a_full_disk_is_an_error(number, sampling, capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert char_lm.main([*sampling, f"--num-samples={number}"]) == 1
    assert capsys.readouterr().err == f"error: [Errno 28] {FULL}: 'standard output'\n"


def test_a_sample_whose_reader_has_left_ends_quietly(sampling, capsys, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert char_lm.main(sampling) == 1
    assert capsys.readouterr().err == ""


def test_a_sample_without_standard_output_is_an_error(sampling):
    with start(">&-", *sampling, stderr=subprocess.PIPE) as run:
        error = run.stderr.read().decode()
        assert (run.wait(), error) == (
            1,
            "error: [Errno 9] Bad file descriptor: 'standard output'\n",
        )


# --- streams -------------------------------------------------------------------------------------


def test_closed_descriptors_become_ones_that_fail():
    program = """
import os, sys, char_lm
char_lm.open_closed()
def fails(do):
    try:
        do()
    except OSError:
        return True
file = open(sys.argv[1], "w")
print(
    [os.readlink(f"/proc/self/fd/{n}") for n in range(3)], file.fileno() > 2,
    *(fails(lambda: print("lost", file=f, flush=True)) for f in (sys.stdout, sys.stderr)),
    file=file, flush=True,
)
os._exit(0)  # Python would write out at its end what is lost
"""
    reader, writer = os.pipe()
    command = [sys.executable, "-c", program, f"/proc/{os.getpid()}/fd/{writer}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "examples")}
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    assert subprocess.run(closed, env=environment, check=True).returncode == 0
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.readline() == f"{[os.devnull] * 3} True True True\n"
