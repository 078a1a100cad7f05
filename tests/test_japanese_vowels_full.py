"""The speakers' example on its real data: the results in examples/README.md.

The data come with `pip install --no-deps aeon==1.6.0`, as .ci/run does.
"""

import json

import numpy as np
import pytest
from command import mean_and_error
from installed import installed_data
from japanese_vowels import DATA, NAME
from programs import run_example
from ts_data import read_ts

# Of the 370, told right by torch 2.13.0 with the seeds 0 to 4: tests/interop/record_vowels.py.
TORCH = {
    ("rnn", "last-forwards"): [356, 361, 361, 358, 360],
    ("rnn", "last-both"): [362, 360, 361, 365, 360],
    ("rnn", "mean-forwards"): [344, 346, 352, 345, 348],
    ("rnn", "mean-both"): [358, 358, 359, 356, 362],
    ("gru", "last-both"): [363, 362, 366, 364, 361],
    ("lstm", "last-both"): [361, 355, 362, 360, 363],
}


@pytest.mark.slow
def test_the_files_are_those_of_the_paper():
    folder = installed_data(*DATA)
    train, test = (read_ts(folder / f"{NAME}_{part}.ts") for part in ("TRAIN", "TEST"))
    for part, count in ((train, 270), (test, 370)):
        assert part.xs.shape[1:] == (count, 12)
        assert part.classes == [str(n) for n in range(1, 10)]
    assert (np.bincount(train.labels) == 30).all()
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = np.concatenate([train.lengths, test.lengths])
    assert (lengths.min(), lengths.max()) == (7, 29)
    assert train.xs[0, 0, 0] == np.float32(1.860936)


def accuracies(out, *options):
    """The mean of each model, each as good as torch's."""
    _, seconds = run_example("japanese_vowels", "--out", out, *options)
    means = {}
    for record in json.loads((out / "japanese_vowels.json").read_text())["records"]:
        name = record["cell"], record["model"]
        (own, error), (torch, torch_error) = map(
            mean_and_error, (record["accuracies"][-1], np.array(TORCH[name]) / 370)
        )
        print(f"{name}: {own:.3f} ({error:.3f}), torch {torch:.3f} ({torch_error:.3f})")
        assert own >= torch - np.hypot(error, torch_error), name
        means[name] = own
    print(f"{seconds:.0f} s of processor time")
    return means


@pytest.mark.slow
def test_the_default_run(tmp_path):
    means = accuracies(tmp_path)
    assert len(means) == 4
    assert max(means.values()) >= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_networks_with_gates(cell, tmp_path):
    """The best of the four models."""
    means = accuracies(tmp_path, "--cell", cell, "--models=last-both")
    assert means[cell, "last-both"] >= 0.97
