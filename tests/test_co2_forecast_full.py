"""The forecasting example on its real data: the results in examples/README.md.

The data come with `pip install --no-deps statsmodels==0.15.0`, as .ci/run does. The errors of
torch's LSTM were recorded by tests/interop/record_forecast.py.
"""

import json
from pathlib import Path

import co2_data
import numpy as np
import pytest
from co2_forecast import HORIZONS, mean_and_error
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
    assert series.ppm[0] == pytest.approx((316.1 + 317.3 - 317.3))
