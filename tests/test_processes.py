"""Several processes on one machine are one run: the same losses, the same refusals."""

import os
import sys

import numpy as np
import pytest
from char_model import main as char_lm
from programs import TEXT, TOY, Process, finish, free_port, rows_of, start, start_two

pytestmark = pytest.mark.slow  # it starts processes


def bits(out):
    columns = ("train_bits", "validation_bits")
    return np.array([[float(row[k]) for k in columns] for row in rows_of(out)])


# Ten losses in a row; in float32 rounding in another order, grown over 200 steps of Adam.
@pytest.mark.parametrize(
    ("cell", "x64", "rtol"), [("rnn", True, 1e-10), ("rnn", False, 1e-4), ("lstm", True, 1e-10)]
)
def test_one_device_two_devices_and_two_processes_learn_the_same(
    cell, x64, rtol, text_file, tmp_path
):
    outs = [tmp_path / name for name in ("one", "two", "processes")]
    options = ("--text", text_file, *TOY, "--steps=200", "--cell", cell)
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


def test_processes_that_disagree(text_file, tmp_path):
    other = tmp_path / "other"
    other.write_text(TEXT[::-1])
    each = (("--text", text_file, "--learning-rate=1e-3"), ("--text", other))
    for status, _, error in finish(*start_two(*TOY, "--out", tmp_path / "out", each=each)):
        assert status == 1
        assert "processes: expected the same settings in all; got --text" in error
        assert "--learning-rate" in error
        assert "the text's SHA-256" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_processes_without_a_coordinator(text_file, tmp_path, capsys):
    options = [*TOY, "--text", str(text_file), "--out", str(tmp_path / "out"), "--processes=2"]
    assert char_lm.main(options) == 1
    expected = "processes: expected a coordinator, their number and one's own; got"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


SAVES = """
import sys, jax, numpy as np
from jrnn.checkpoint import Checkpoints

directory, port, process = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(process))
state = {"n": np.int64(2**40), "none": np.zeros((0, 3)), "w": np.array([[1, 1 + 1e-12]])}
with Checkpoints(directory) as checkpoints:
    checkpoints.save(1, state, {})
    found = checkpoints.latest().arrays
print([(name, str(x.dtype), x.tolist()) for name, x in sorted(found.items())])
"""


def test_each_process_reads_all_bits_of_a_checkpoint(tmp_path):
    port = str(free_port())
    environment = os.environ | {"JAX_ENABLE_X64": "0"}
    runs = [
        Process([sys.executable, "-c", SAVES, str(tmp_path), port, str(i)], env=environment)
        for i in range(2)
    ]
    n, none, w = (
        ("n", "int64", 2**40),
        ("none", "float64", []),
        ("w", "float64", [[1.0, 1 + 1e-12]]),
    )
    for status, said, error in finish(*runs):
        assert status == 0, error
        assert str([n, none, w]) in said
