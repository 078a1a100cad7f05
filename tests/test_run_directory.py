"""`--out` of the character model: one run at a time, and nothing is lost to the next one."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from char_model import data as char_data
from char_model import main as char_lm
from char_model import model as char_model
from char_model import run as char_run
from char_model import signals as char_signals
from char_model.directory import BEST, CHECKPOINTS, FILES, MODEL, RunDirectory
from char_model.settings import Settings
from programs import ROOT, finish, rows_of, start_two, table

from jrnn import native
from jrnn.model_file import load_model
from jrnn.parallel import batch_mesh

pytestmark = pytest.mark.slow  # it starts processes

TOY = ["--hidden-size=16", "--length=16", "--batch-size=4", "--eval-every=4", "--devices=1"]
LEFT = [*FILES, CHECKPOINTS]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def run(text_file, out, capsys, monkeypatch, float32):
    """Runs a command line on `out`; a training of ten steps, which `stop` interrupts after one."""

    def run(*options, stop=None):
        with monkeypatch.context() as patch:
            if stop is not None:
                patch.setattr(char_signals.StopFlag, "is_set", lambda self, step: step == stop)
            own = ["--text", text_file, *TOY, "--steps=10", "--out", out, *options]
            return char_lm.main([str(option) for option in own]), *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return tmp_path_factory.mktemp("shelf") / "out"


@pytest.fixture
def finished(run, out, shelf):
    """What a run that has finished left in `out`: the path in it, and the bytes, of every file."""
    if not shelf.exists():
        status, printed, error = run("--out", shelf)
        assert status == 0, error
        assert f"in {shelf}\n  model.safetensors  step 10: " in printed
    shutil.copytree(shelf, out)
    assert sorted(path.name for path in out.iterdir()) == sorted([*LEFT, ".lock"])
    return contents(out)


def contents(directory):
    """Of all files there, but what is unfinished."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not {".lock", "unfinished"} & set(path.relative_to(directory).parts)
    }


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def settings(path):
    return load_model(path)[-1]


def test_what_a_finished_run_left_stays_until_the_next_has_finished(run, out, finished):
    status, printed, _ = run("--seed=1", "--checkpoint-every=3", stop=5)
    assert status == 0
    unfinished = out / "unfinished"
    assert contents(out) == finished
    assert names(unfinished) == sorted(LEFT)
    assert names(unfinished / CHECKPOINTS) == ["3", "5"]
    assert f"in {unfinished}\n  model.safetensors  step 5: " in printed
    assert f"--resume goes on from {unfinished}/checkpoints/5\n" in printed
    assert f"what the run before it left, which had finished, is still in {out}\n" in printed

    ask = ("--sample=5", "--prompt=3")
    status, _, error = run(*ask)
    assert error == (
        f"{out}/model.safetensors is read; a later run, that has not finished, is in {unfinished}\n"
    )
    note = f"{unfinished}/model.safetensors is read: step 5 of a run that has not finished\n"
    assert run(*ask, "--out", unfinished)[2] == note
    refused = f"a directory without an unfinished run; got one at step 5 in {unfinished}. Take"
    assert refused in run("--seed=2")[2]
    assert contents(out) == finished

    status, printed, error = run("--seed=1", "--resume")
    assert (status, f"in {out}\n  model.safetensors  step 10: " in printed) == (0, True), error
    assert names(out) == sorted([*LEFT, ".lock"])
    assert names(out / CHECKPOINTS) == ["10", "3", "5"]
    assert [settings(out / name)["options"]["seed"] for name in (MODEL, BEST)] == [1, 1]
    assert run(*ask)[2] == ""


def test_a_finished_run_that_is_extended_stays_until_that_has_finished(run, out, finished):
    more = ("--steps=20", "--resume")
    assert run(*more, "--hidden-size=8")[0] == 1
    assert names(out) == sorted([*LEFT, ".lock"])  # a run that is refused makes no folder
    status, printed, _ = run(*more, stop=12)
    assert (status, f"resumed     checkpoint {out}/checkpoints/10," in printed) == (0, True)
    assert contents(out) == finished
    assert names(out / "unfinished" / CHECKPOINTS) == ["10", "12"]
    status, printed, _ = run(*more)
    assert f"resumed     checkpoint {out}/unfinished/checkpoints/12, after step 12 of 20" in printed
    assert names(out) == sorted([*LEFT, ".lock"])
    assert names(out / CHECKPOINTS) == ["10", "12", "20"]
    assert [int(row["step"]) for row in rows_of(out)] == [4, 8, 10, 12, 16, 20]


def test_the_end_of_a_run_is_a_checkpoint_too_and_then_a_new_run_takes_its_place(
    run, out, finished
):
    status, printed, _ = run("--resume")
    assert (status, "after step 10 of 10" in printed) == (0, True)
    assert names(out / CHECKPOINTS) == ["10"]
    assert run("--steps=4")[0] == 0
    assert names(out / CHECKPOINTS) == ["4"]


def test_overwrite_gives_up_both(run, out, finished):
    unfinished = out / "unfinished"
    assert run("--seed=1", "--overwrite", stop=5)[0] == 0
    assert names(out) == [".lock", "unfinished"]
    assert run("--sample=5")[2].startswith(f"{unfinished}/model.safetensors is read: step 5 of")
    before = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    assert run("--seed=2", "--overwrite", "--prompt=é")[0] == 1
    assert {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()} == before
    assert run("--seed=2", "--overwrite")[0] == 0
    assert names(out) == sorted([*LEFT, ".lock"])
    assert settings(out / MODEL)["options"]["seed"] == 2
    with pytest.raises(SystemExit):
        run("--resume", "--overwrite")


def test_a_model_without_its_checkpoints_is_not_lost_to_resume(run, out):
    assert run(stop=5)[0] == 0
    shutil.rmtree(out / "unfinished" / CHECKPOINTS)
    model = (out / "unfinished" / MODEL).read_bytes()
    status, _, error = run("--resume")
    expected = f"--resume: expected a checkpoint in {out}/unfinished/checkpoints; got a model alone"
    assert (status, expected in error) == (1, True), error
    assert "got one at step 0" in run()[2]
    assert (out / "unfinished" / MODEL).read_bytes() == model


def test_a_run_that_was_killed_before_its_first_checkpoint(run, out, finished, monkeypatch):
    """`--resume` begins it anew, and does not go on with the run before it."""
    with monkeypatch.context() as patch:
        patch.setattr(char_run, "run_steps", lambda *args: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            run("--seed=1")
    assert names(out / "unfinished") == [CHECKPOINTS]
    printed = run("--seed=1", "--resume", stop=2)[1]
    assert f"no checkpoint in {out}/unfinished/checkpoints: the run starts" in printed
    assert contents(out) == finished


def test_a_folder_that_vanishes_does_not_take_the_model_with_it(run, out, monkeypatch):
    def vanish(self, step):
        if step == 9:
            shutil.rmtree(out / "unfinished")
        return False

    monkeypatch.setattr(char_signals.StopFlag, "is_set", vanish)
    status, printed, error = run()
    assert (status, f"in {out}\n  model.safetensors  step 10: " in printed) == (0, True), error
    assert settings(out / MODEL)["step"] == 10


class Killed(BaseException):
    """In place of SIGKILL: no handler in the program catches it."""


def write_results(directory, content):
    (directory / CHECKPOINTS / "10").mkdir(parents=True, exist_ok=True)
    for name in (*FILES, "checkpoints/10/manifest"):
        (directory / name).write_text(content)


def end_killed(out, monkeypatch, where, function, moment):
    """The end of a run, killed when it calls a function for the n-th time."""
    real, done = getattr(where, function), []

    def killed_at_last(*args):
        if len(done) == moment:
            raise Killed
        done.append(real(*args))

    write_results(out, "old")
    write_results(out / "unfinished", "new")
    with monkeypatch.context() as patch:
        patch.setattr(where, function, killed_at_last)
        with pytest.raises(Killed), RunDirectory(out, resume=True, overwrite=False) as directory:
            directory.end(finished=True)


@pytest.mark.parametrize("moment", range(len(LEFT) + 1))
def test_killed_while_its_files_take_their_places(moment, out, monkeypatch):
    """What has no place yet is where `--resume` looks for it, which finishes it all again."""
    end_killed(out, monkeypatch, os, "replace", moment)
    assert {(out / name).read_text() for name in FILES} <= {"old", "new"}
    with pytest.raises(ValueError, match="without an unfinished run; got one at step 10"):
        RunDirectory(out, resume=False, overwrite=False).__enter__()
    with RunDirectory(out, resume=True, overwrite=False) as directory:
        assert (directory.resumable / "10" / "manifest").read_text() == "new"
        write_results(directory.unfinished, "new")
        assert directory.end(finished=True) == out
    assert names(out) == sorted([*LEFT, ".lock"])
    assert set(contents(out).values()) == {b"new"}


def test_killed_when_all_files_have_their_places(out, monkeypatch):
    end_killed(out, monkeypatch, shutil, "rmtree", 0)
    assert names(out) == sorted([*LEFT, ".lock", "unfinished"])
    assert set(contents(out).values()) == {b"new"}
    with RunDirectory(out, resume=True, overwrite=False) as directory:
        assert directory.resumable == out / CHECKPOINTS
    with RunDirectory(out, resume=False, overwrite=False) as directory:
        directory.begin(None)
    assert names(out / "unfinished") == [CHECKPOINTS]


# --- one run at a time ---------------------------------------------------------------------------

HOLDS = """
import sys
from pathlib import Path
sys.path.insert(0, "examples")
from char_model.directory import RunDirectory
with RunDirectory(Path(sys.argv[1]), resume=True, overwrite=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(out):
    """Another process that holds the directory, until it is killed."""
    command, pipe = [sys.executable, "-c", HOLDS, str(out)], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_run_is_refused_and_sampling_is_not(run, out, finished, holder):
    for options in ((), ("--resume",), ("--overwrite",)):
        status, _, error = run(*options)
        assert status == 1
        expected = f"--out: expected a directory that no other run writes to; got {out}, of process"
        assert f"{expected} {holder.pid} on " in error
    assert run("--sample=5")[0] == 0
    assert contents(out) == finished
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunDirectory(out, resume=False, overwrite=False):
        pass  # nothing holds what a dead process held


def test_another_run_of_two_processes_is_refused_in_both(text_file, out, holder):
    ended = finish(*start_two("--text", text_file, *TOY[:4], "--out", out))
    for status, _, error in ended:
        assert (status, "a directory that no other run writes to; got" in error) == (1, True), ended


def test_a_file_system_without_locks_is_said(out, monkeypatch, capsys):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with RunDirectory(out, resume=False, overwrite=False):
        assert f"{out} cannot be locked (No locks available): see" in capsys.readouterr().err


# --- the best model ------------------------------------------------------------------------------


def assert_best(directory, text_file):
    """`best.safetensors` is the model of the best row of `metrics.csv`, by its parameters."""
    rows = rows_of(directory)
    bits = [float(row["validation_bits"]) for row in rows]
    params, said = load_model(directory / BEST)
    assert said["validation_bits"] == min(bits)
    assert said["step"] == int(rows[np.argmin(bits)]["step"])
    data = char_data.load_data([str(text_file)], 4, 16, directory)
    evaluate = char_model.make_evaluate(Settings(), data.validation_streams, batch_mesh(1))
    assert evaluate(char_model.Model(**params)) == pytest.approx(min(bits), rel=1e-5)
    last = load_model(directory / MODEL)[-1]
    assert (last["step"], last["validation_bits"]) == (int(rows[-1]["step"]), bits[-1])


BLOWS_UP = ("--learning-rate=30", "--schedule=constant")


def test_a_training_that_blows_up_is_said_and_the_best_model_kept(run, out, text_file):
    assert run("--schedule=constant", stop=5)[0] == 0
    assert_best(out / "unfinished", text_file)
    status, printed, error = run("--resume", *BLOWS_UP)
    assert status == 0
    assert_best(out, text_file)
    assert settings(out / BEST)["step"] == 4
    assert error.count("bits per character on the validation part, where guessing all") == 1
    assert "evenly takes 4.2: the training has blown up. Lower --learning-rate or --clip." in error
    best = float(rows_of(out)[0]["validation_bits"])
    assert f"The best model, {best:.3f} bits at step 4, is kept too." in error
    assert " bits per character, the last state, worse than guessing\n" in printed
    assert f"  best.safetensors   step 4: {best:.3f} bits per character, the best\n" in printed
    last = float(rows_of(out)[-1]["validation_bits"])
    assert f"  network  {last:6.3f}\n" in printed  # beside the n-grams: the last state's
    texts = [run("--sample=30", *which)[1] for which in ((), ("--best",))]
    assert texts[0] != texts[1]


def test_the_best_model_is_that_of_the_record_whatever_was_killed(run, out, text_file, monkeypatch):
    """The best of a branch that was lost with its process is not the best of the run."""
    assert run("--out", out.with_name("whole"))[0] == 0

    def killed(self, step):
        if step == 9:
            raise Killed
        return False

    with monkeypatch.context() as patch:
        patch.setattr(char_signals.StopFlag, "is_set", killed)
        with pytest.raises(Killed):
            run("--checkpoint-every=5")
    unfinished = out / "unfinished"
    assert settings(unfinished / BEST)["step"] == 8
    shutil.copytree(out, out.with_name("same"))
    assert f"{unfinished}/best.safetensors is read: step 8 of a run" in run("--sample=5")[2]
    assert run("--resume", *BLOWS_UP, "--schedule=cosine")[0] == 0
    assert_best(out, text_file)
    assert settings(out / BEST)["step"] < 8
    assert run("--resume", "--out", out.with_name("same"))[0] == 0
    for name in (MODEL, BEST):
        ours, whole = (load_model(out.with_name(d) / name) for d in ("same", "whole"))
        jax.tree.map(np.testing.assert_array_equal, ours[:-1], whole[:-1])


def test_a_run_of_version_0_1_goes_on(out, capsys, float32):
    """Its checkpoint, as that version wrote it; the best model is that of the rows from it on."""
    shutil.copytree(ROOT / "tests/recorded/checkpoints_0.1", out / CHECKPOINTS)
    text = out / "table.txt"
    text.write_text(table(9))
    options = "--hidden-size=4 --length=8 --batch-size=2 --devices=1 --eval-every=10 --steps=30"
    command = [*options.split(), "--text", str(text), "--out", str(out), "--resume"]
    assert char_lm.main([*command, "--cell=gru"]) == 1  # it has no such option: an Elman network
    assert "expected the run of --cell gru; got rnn. Resume" in capsys.readouterr().err
    status = char_lm.main(command)
    printed, error = capsys.readouterr()
    assert status == 0, error
    assert "after step 15 of 30" in printed
    kernel = settings(out / BEST)["kernel"]
    said = f"kernel: was XLA, is {kernel}: the results agree only up to rounding\n"
    assert (said in printed) == native.enabled() == kernel.startswith("native, ")
    bits = {int(row["step"]): float(row["validation_bits"]) for row in rows_of(out)}
    assert list(bits) == [10, 20, 30]
    assert settings(out / BEST)["step"] == min((20, 30), key=bits.get)
