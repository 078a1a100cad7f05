"""The adding problem at its real size: the results in examples/README.md."""

import json

import pytest
from programs import run_example


def learn(out, *options):
    """The row of a run, which must learn."""
    _, seconds = run_example("adding_problem", "--out", out, *options)
    (row,) = json.loads((out / "adding_problem.json").read_text())
    print(f"{row['error']:.4f} after {row['steps']} steps, {seconds:.0f} s of processor time")
    assert row["error"] < 0.01
    return row


@pytest.mark.slow
def test_a_network_of_relus_that_starts_from_the_identity_learns(tmp_path):
    row = learn(tmp_path, "--starts", "relu-identity")
    # The state of the first step counts before and after.
    assert min(row["before"][-1], row["after"][-1]) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "T"), [("gru", 200), ("gru", 400), ("lstm", 200)])
def test_a_network_with_gates_learns(cell, T, tmp_path):
    """The LSTM at T = 400, which takes more than a minute, is in examples/README.md."""
    learn(tmp_path, "--cell", cell, "--lengths", T)
