"""The perceptual decision at its real size: the results in examples/README.md."""

import json

import numpy as np
import pytest
from programs import run_example


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_network_decides_by_two_stable_points_and_the_saddle_between_them(seed, tmp_path):
    _, seconds = run_example("perceptual_decision", "--out", tmp_path, "--seed", seed)
    found = json.loads((tmp_path / "perceptual_decision.json").read_text())
    print(found["correct"], found["points"], f"{seconds:.0f} s of processor time")
    assert found["correct"]["16"] >= 0.95
    assert found["correct"]["8"] >= 0.95
    right = {int(c): share for c, share in found["right"].items()}
    ordered = [right[c] for c in sorted(right)]
    assert (np.diff(ordered) > -0.02).all()  # a psychometric curve
    stable = [p for p in found["points"] if p["unstable"] == 0]
    sides = {int(np.argmax(p["outputs"])): p for p in stable}
    assert sides.keys() == {0, 1}
    for side, p in sides.items():
        assert p["outputs"][side] > 0.8
        assert p["outputs"][1 - side] < 0.4
    places = sorted(p["components"][0] for p in sides.values())
    between = [p for p in found["points"] if p["unstable"] == 1]
    assert any(places[0] < p["components"][0] < places[1] for p in between)
    assert found["slow points"] >= 10
    assert found["milliseconds of a gradient"]["difference"] < 1e-4
