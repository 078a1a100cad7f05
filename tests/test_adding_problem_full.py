"""The adding problem at its real size: the results in examples/README.md."""

import json

import pytest
from programs import run_example


@pytest.mark.slow
def test_a_network_of_relus_that_starts_from_the_identity_learns(tmp_path):
    _, seconds = run_example("adding_problem", "--out", tmp_path, "--starts", "relu-identity")
    (row,) = json.loads((tmp_path / "adding_problem.json").read_text())
    print(f"{row['error']:.4f} after {row['steps']} steps, {seconds:.0f} s of processor time")
    assert row["error"] < 0.01
    assert seconds < 2 * 300
    # The state of the first step counts before and after.
    assert min(row["before"][-1], row["after"][-1]) > 0.01
