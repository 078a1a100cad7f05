"""The speakers' example on its real data: the results in examples/README.md.

The data come with `pip install --no-deps aeon==1.6.0`, as .ci/run does.
"""

import json

import numpy as np
import pytest
from japanese_vowels import NAME, mean_and_error
from programs import run_example
from ts_data import installed_data, read_ts

# Of the 370, told right by torch 2.13.0 with the seeds 0 to 4: benchmarks/japanese_vowels.py.
TORCH = {
    "last-forwards": [356, 361, 361, 358, 360],
    "last-both": [362, 360, 361, 365, 360],
    "mean-forwards": [344, 346, 352, 345, 348],
    "mean-both": [358, 358, 359, 356, 362],
}


@pytest.mark.slow
def test_the_files_are_those_of_the_paper():
    folder = installed_data(NAME)
    train, test = (read_ts(folder / f"{NAME}_{part}.ts") for part in ("TRAIN", "TEST"))
    for part, count in ((train, 270), (test, 370)):
        assert part.xs.shape[1:] == (count, 12)
        assert part.classes == [str(n) for n in range(1, 10)]
    assert (np.bincount(train.labels) == 30).all()
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = np.concatenate([train.lengths, test.lengths])
    assert (lengths.min(), lengths.max()) == (7, 29)
    assert train.xs[0, 0, 0] == np.float32(1.860936)


@pytest.mark.slow
def test_the_default_run(tmp_path):
    _, seconds = run_example("japanese_vowels", "--out", tmp_path)
    records = json.loads((tmp_path / "japanese_vowels.json").read_text())["records"]
    means = {}
    for record in records:
        (own, error), (torch, torch_error) = map(
            mean_and_error,
            (record["accuracies"][-1], np.array(TORCH[record["model"]]) / 370),
        )
        print(f"{record['model']}: {own:.3f} ({error:.3f}), torch {torch:.3f} ({torch_error:.3f})")
        assert own >= torch - np.hypot(error, torch_error), record["model"]
        means[record["model"]] = own
    assert max(means.values()) >= 0.96
    assert seconds < 2 * 120  # of processor time
