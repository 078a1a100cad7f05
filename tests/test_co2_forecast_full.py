"""The forecasting example on its real data: the results in examples/README.md.

The data come with `pip install --no-deps statsmodels==0.15.0`, as .ci/run does. The errors of
torch's networks were recorded by tests/interop/record_forecast.py.
"""

import json
from pathlib import Path

import co2_data
import numpy as np
import pytest
from co2_forecast import HORIZONS
from command import mean_and_error
from installed import installed_data
from programs import run_example


def torch_record():
    return json.loads((Path(__file__).parent / "recorded/forecast.json").read_text())


@pytest.mark.slow
def test_the_series_is_that_of_the_readme():
    series = co2_data.read_csv(installed_data(*co2_data.DATA))
    assert (series.first, len(series.ppm)) == (12 * 1958 + 2, 526)  # from March 1958
    missing = [divmod(series.first + n, 12) for n in np.flatnonzero(np.isnan(series.ppm))]
    assert missing == [(1958, 5), (1958, 9), (1964, 1), (1964, 2), (1964, 3)]
    assert series.ppm[0] == pytest.approx(316.1)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_forecast(cell, tmp_path):
    """It is as good as that of torch's network, and the sentences name the better one."""
    printed, seconds = run_example("co2_forecast", "--cell", cell, "--out", tmp_path)
    print(f"{seconds:.0f} s of processor time")
    found, better = json.loads((tmp_path / "co2_forecast.json").read_text()), []
    assert found["origins"] == 47
    for h in HORIZONS:
        own, error = mean_and_error(np.mean(np.array(found["errors"])[:, :h], 1))
        torch, torch_error = mean_and_error(torch_record()["errors"][cell][str(h)])
        print(f"{cell}, {h}: {own:.3f} ({error:.3f}), torch {torch:.3f} ({torch_error:.3f})")
        assert own <= torch + np.hypot(error, torch_error)
        better.append(own + error < np.mean(found["naive"][:h]))
    assert better[0]  # over a year
    assert cell == "lstm" or not better[1]  # over five years at most the LSTM
    for h, wins in zip(HORIZONS, better, strict=True):
        assert (f"Over {h} months the better forecast is: {cell}." in printed) == wins
    assert 0.7 < np.mean(found["covered"]) < 0.95  # of the intervals for 80 %
