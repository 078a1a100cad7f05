"""A forecast of CO2 by the LSTM of `examples/co2_forecast.py`, and its errors by month ahead."""

import co2_forecast
import numpy as np
from co2_data import LONGEST, YEAR, load
from matplotlib.figure import Figure

from jrnn.plot import _colors as colors
from pictures import figure

BEFORE = 2 * YEAR  # months that are shown before the forecast


def draw() -> Figure:
    """Train five seeds, and draw the first forecast of one of them, and the errors of all."""
    settings = co2_forecast.Settings(cell="lstm")
    job = load(settings)
    record, (means, draws, naive) = co2_forecast.evaluate(settings, job)
    origin, ppm = job.origins[0], job.series.ppm
    years = (job.series.first + np.arange(len(ppm)) + 0.5) / YEAR
    ahead, shown = slice(origin, origin + LONGEST), slice(origin - BEFORE, origin + LONGEST)
    drawn = figure(3.9)
    series, errors = drawn.subplots(1, 2, width_ratios=(3, 2))
    low, high = np.quantile(draws[0, ..., 0], (0.1, 0.9), axis=0)
    band = {"color": colors.SKY, "alpha": 0.4, "linewidth": 0, "label": "80 % of its draws"}
    series.fill_between(years[ahead], low, high, **band)
    series.plot(years[shown], ppm[shown], color=colors.BLACK, label="observed")
    series.plot(years[ahead], means[0, :, 0], color=colors.BLUE, label="LSTM")
    series.plot(years[ahead], naive[:, 0], "--", color=colors.VERMILION, label="seasonal naive")
    series.set(title="CO2 at Mauna Loa", xlabel="year", ylabel="ppm")
    series.legend(loc="upper left")
    months, every = np.arange(1, LONGEST + 1), np.array(record["errors"])
    errors.fill_between(months, every.min(0), every.max(0), **{**band, "label": "five seeds"})
    errors.plot(months, every.mean(0), color=colors.BLUE, label="LSTM")
    errors.plot(months, record["naive"], "--", color=colors.VERMILION, label="seasonal naive")
    errors.set(xlabel="months ahead", ylabel="mean absolute error (ppm)", ylim=(0, None))
    errors.set_title(f"Errors, {record['origins']} origins")
    errors.legend(loc="upper left")
    return drawn
