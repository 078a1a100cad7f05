"""The adding problem at its real size: what the README says of it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_network_of_relus_that_starts_from_the_identity_learns(tmp_path):
    start = time.perf_counter()
    command = [sys.executable, "examples/adding_problem.py", "--out", tmp_path]
    subprocess.run([*command, "--starts", "relu-identity"], cwd=ROOT, check=True)
    seconds = time.perf_counter() - start
    (row,) = json.loads((tmp_path / "adding_problem.json").read_text())
    print(f"{row['error']:.4f} after {row['steps']} steps, {seconds:.0f} s")
    assert row["error"] < 0.01
    assert seconds < 300
    # The state of the first step counts before and after.
    assert min(row["before"][-1], row["after"][-1]) > 0.01
