"""Several processes on one machine are one run: the same losses, the same refusals."""

import csv
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
TEXT = "".join(f"{n} times {m} is {n * m}.\n" for n in range(30) for m in range(30))
TOY = ["--hidden-size=16", "--length=16", "--batch-size=4", "--eval-every=10"]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text(TEXT)
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


class Process(subprocess.Popen):
    """What it prints goes to files: a pipe that nobody reads would be full and stop it."""

    def __init__(self, command, **more):
        self.printed = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        out, err = self.printed
        super().__init__(command, cwd=ROOT, stdout=out, stderr=err, **more)

    def finish(self):
        """(exit status, stdout, stderr), once it has ended."""
        try:
            self.wait(timeout=300)
        finally:
            self.kill()
        texts = []
        for file in self.printed:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return self.returncode, *texts


def start(*options, x64=False):
    """One process of the character model."""
    command = [sys.executable, "-u", "examples/char_lm.py", *map(str, options)]
    return Process(command, env=os.environ | {"JAX_ENABLE_X64": str(int(x64))})


def start_two(*options, each=((), ()), **more):
    """Two processes of one run, with two devices each."""
    port = free_port()
    return [
        start(
            f"--coordinator=localhost:{port}",
            "--processes=2",
            f"--process={i}",
            *options,
            *own,
            **more,
        )
        for i, own in enumerate(each)
    ]


def finish(*processes):
    """(exit status, stdout, stderr) of each."""
    return [process.finish() for process in processes]


def bits(out):
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(r[k]) for k in ("train_bits", "validation_bits")] for r in rows])


# Ten losses in a row; in float32 rounding in another order, grown over 200 steps of Adam.
@pytest.mark.parametrize(("x64", "rtol"), [(True, 1e-10), (False, 1e-4)])
@pytest.mark.slow
def test_one_device_two_devices_and_two_processes_learn_the_same(x64, rtol, text_file, tmp_path):
    outs = [tmp_path / name for name in ("one", "two", "processes")]
    options = ("--text", text_file, *TOY, "--steps=200")
    runs = [start(*options, "--out", outs[i], f"--devices={i + 1}", x64=x64) for i in (0, 1)]
    runs += start_two(*options, "--out", outs[2], x64=x64)
    found = finish(*runs)
    assert [status for status, *_ in found] == [0] * 4, found
    assert "devices     4 cpu" in found[2][1]
    headings = ("text  ", "alphabet", "rnn.w_hh", "devices", "network", "a sample")
    for heading in headings:  # one process speaks; beside it, gloo does, in all
        assert heading in found[2][1]
        assert heading not in found[3][1]
    expected = bits(outs[0])
    assert expected.shape == (20, 2)
    for out in outs[1:]:
        np.testing.assert_allclose(bits(out), expected, rtol=rtol)


def test_processes_that_disagree_and_other_bad_input(text_file, tmp_path):
    other = tmp_path / "other"
    other.write_text(TEXT[::-1])
    each = (("--text", text_file, "--learning-rate=1e-3"), ("--text", other))
    options = (*TOY, "--out", tmp_path / "out")
    two = start_two(*options, each=each)
    found = finish(*two, start(*options, "--text", text_file, "--processes=2"))
    for status, _, error in found[:2]:
        assert status == 1
        assert "processes: expected the same settings in all; got --text" in error
        assert "--learning_rate" in error
        assert "the text's SHA-256" in error
    assert found[2][0] == 1
    expected = "processes: expected a coordinator, their number and one's own; got"
    assert expected in found[2][2]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
