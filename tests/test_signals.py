"""Ctrl-C, SIGTERM and the loss of the terminal, at any moment of a run: nothing is lost."""

import io
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest
from char_model import directory as char_directory
from char_model import main as char_lm
from char_model import record as char_record
from char_model import run as char_run
from char_model import signals as char_signals
from programs import ROOT, STARTED, TOY

from jrnn.checkpoint import Checkpoints
from jrnn.model_file import load_model

pytestmark = pytest.mark.slow  # it starts processes

# Makes its input its terminal, as a login shell does, and becomes the command.
ON_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def handlers():
    """As they were, after a run that was stopped in this process."""
    before = {s: signal.getsignal(s) for s in char_signals.SIGNALS}
    yield before
    for signum, handler in before.items():
        signal.signal(signum, handler)


class Run:
    """A run that goes on until it is stopped, what it prints in files."""

    def __init__(self, text_file, out, *prefix, **options):
        """Started."""
        self.out, self.place = out, out.with_name(out.name + ".printed")
        self.place.mkdir()
        command = [*prefix, sys.executable, "-u", "examples/char_lm.py", "--text", str(text_file)]
        with (self.place / "1").open("w") as stdout, (self.place / "2").open("w") as stderr:
            streams = {"stdout": stdout, "stderr": stderr} | options
            command += [*TOY, "--steps=1000000", "--out", str(out)]
            self.process = subprocess.Popen(command, cwd=ROOT, **streams)
        STARTED.append(self.process)

    def read(self):
        """What it has printed."""
        return (self.place / "1").read_text(), (self.place / "2").read_text()

    def wait_for(self, seen):
        """Until something is true of it."""
        while not seen():
            assert self.process.poll() is None, self.read()
            time.sleep(0.01)

    def wait_for_steps(self):
        """Until ten steps more are behind it."""
        shown = self.read()[1].count("bits/char")
        self.wait_for(lambda: self.read()[1].count("bits/char") > shown)

    def assert_saved(self, status, *, says=True):
        """It has ended, with its last step in a checkpoint and in its files."""
        assert self.process.wait(timeout=300) == status, self.read()
        unfinished = self.out / "unfinished"
        last = int((unfinished / "metrics.csv").read_text().splitlines()[-1].split(",")[0])
        checkpoint = unfinished / "checkpoints" / str(last)
        assert checkpoint.is_dir()
        assert load_model(unfinished / "model.safetensors")[-1]["step"] == last
        out, error = self.read()
        assert "Traceback" not in error
        assert "ignored" not in error
        if says:
            assert f"interrupted after step {last:,} of 1,000,000; all of it is saved, and" in out
            assert f"--resume goes on from {checkpoint}\n" in out
            assert f"in {unfinished}\n  model.safetensors  step {last:,}: " in out


def test_ctrl_c_again_and_again_until_the_process_has_gone(text_file, out):
    run = Run(text_file, out)
    run.wait_for_steps()
    while run.process.poll() is None:
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.0005)
    run.assert_saved(130)
    assert run.read()[1].count("stopping after this step, and saving") == 1


AT_THE_VERY_END = """
import atexit, runpy, signal, sys
atexit.register(signal.raise_signal, signal.SIGINT)
runpy.run_path("examples/char_lm.py", run_name="__main__")
"""


def test_a_first_ctrl_c_while_python_ends(out):
    command = [sys.executable, "-c", AT_THE_VERY_END, "--sample=5", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'examples'}"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == -signal.SIGINT
    assert run.stderr.startswith("error: --out: expected a directory with a model.safetensors")
    assert run.stderr.count("\n") == 1


def on_a_terminal(text_file, out, *prefix, prints_there=False):
    """A run, and the side of its terminal that a window or a connection holds."""
    window, terminal = pty.openpty()
    termios.tcsetwinsize(window, (24, 100))
    prefix = (sys.executable, "-c", ON_ITS_TERMINAL, *prefix)
    streams = dict.fromkeys(["stdin", "stdout", "stderr"][: 3 if prints_there else 1], terminal)
    run = Run(text_file, out, *prefix, start_new_session=True, **streams)
    os.close(terminal)
    return run, window


def test_a_terminal_that_is_closed_ends_the_run_saved_and_nohup_goes_on(text_file, tmp_path):
    closed, window = on_a_terminal(text_file, tmp_path / "closed")
    immune, other_window = on_a_terminal(text_file, tmp_path / "immune", "nohup")
    for run in (closed, immune):
        run.wait_for_steps()
    for side in (window, other_window):
        os.close(side)
    closed.assert_saved(0)
    immune.wait_for_steps()
    assert "stopping" not in immune.read()[1]
    immune.process.terminate()
    immune.assert_saved(0)


def test_a_terminal_that_shows_the_run_is_closed(text_file, out):
    """Whatever the run prints from then on raises an OSError."""
    run, window = on_a_terminal(text_file, out, prints_there=True)
    seen = b""
    while b"bits/char" not in seen:
        seen += os.read(window, 1000)
    os.close(window)
    run.assert_saved(0, says=False)


MOMENTS = {
    "before the training": (char_run, "load_data", 130),
    "in an evaluation": (char_record.Record, "evaluate", 130),
    "while the results are written": (char_run, "write_results", 130),
    "while a checkpoint is finished": (Checkpoints, "__exit__", 130),
    "while the files take their places": (char_directory.RunDirectory, "end", 130),
    "in the sample": (char_lm, "write_samples", 130),
}


@pytest.mark.usefixtures("float32", "handlers")
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_twice_at_any_moment(moment, text_file, out, capfd, monkeypatch):
    where, name, status = MOMENTS[moment]
    function = getattr(where, name)

    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        try:
            return function(*args, **options)
        finally:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(where, name, interrupted)
    options = ["--text", str(text_file), *TOY, "--steps=10", "--out", str(out)]
    assert char_lm.main(options) == status
    printed, error = capfd.readouterr()
    deferred = moment not in ("before the training", "in the sample")
    assert error.count("stopping after this step, and saving") == deferred
    assert error.endswith("interrupted\n") != deferred
    assert (out / "model.safetensors").exists() == (moment != "before the training")
    assert (f"in {out}\n  model.safetensors" in printed) == (moment != "before the training")
    for signum in char_signals.SIGNALS:  # until the process has gone
        assert signal.getsignal(signum) == signal.SIG_IGN


def test_signals_that_are_ignored_stay_so_and_the_others_are_given_back(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = {s: signal.getsignal(s) for s in char_signals.SIGNALS}
    with char_signals.StopFlag() as stop, stop.deferred():
        signal.raise_signal(signal.SIGHUP)
        assert not stop.is_set(1)
        assert signal.getsignal(signal.SIGTERM) not in before.values()
    assert {s: signal.getsignal(s) for s in char_signals.SIGNALS} == before


class InterruptedWrite(io.RawIOBase):
    """A terminal; Ctrl-C is pressed while it takes a line."""

    def writable(self):
        return True

    def write(self, line):
        signal.raise_signal(signal.SIGINT)
        return len(line)


def test_ctrl_c_within_a_write_to_the_terminal(handlers, monkeypatch):
    """To print there by print() raises RuntimeError."""
    terminal = io.TextIOWrapper(io.BufferedWriter(InterruptedWrite()))
    monkeypatch.setattr(sys, "stderr", terminal)
    with char_signals.StopFlag() as stop, stop.deferred():
        print("line", file=sys.stderr, flush=True)
        assert stop.is_set(1)
