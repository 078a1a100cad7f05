"""Monthly CO2 at Mauna Loa, the changes that a network learns, and the seasonal naive forecast.

The weekly means of Keeling and Whorf (1958 to 2001; CDIAC, Oak Ridge National Laboratory; public
domain) are in the package statsmodels. A month is the mean of its weeks; a month without any is
missing, and no value is made for it.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from command import refuse
from installed import installed_data

DATA = "statsmodels", "statsmodels/datasets/co2/co2.csv"  # a file in a package
YEAR = 12
LONGEST = 60  # months of a forecast
LINE = re.compile(r"(\d{4})(0[1-9]|1[0-2])\d\d,(\d+(?:\.\d*)?)?")


class Series(NamedTuple):
    """One value per month."""

    first: int  # month: 12 * year + 0 to 11
    ppm: np.ndarray  # [T] float64; NaN is missing


class Changes(NamedTuple):
    """Scaled changes, and the month of each prediction."""

    xs: np.ndarray  # [T, 1] float32; 0 where missing
    seen: np.ndarray  # [T] bool: not missing
    month: np.ndarray  # [T, 12] float32, one-hot: of the step after
    mean: float  # ppm
    std: float
    lag: int  # months

    def inputs(self) -> np.ndarray:
        """`[T, 13]`: the inputs of the network."""
        return np.concatenate([self.xs, self.month], -1)


class Job(NamedTuple):
    """The series, and its parts: training before `end`, then forecasts from the origins."""

    series: Series
    by: Changes
    end: int
    origins: np.ndarray  # [N]


def load(settings: Any) -> Job:
    """Read the series and divide it."""
    series = read_csv(installed_data(*DATA) if settings.data is None else settings.data)
    stop = len(series.ppm)
    end = stop * 4 // 5
    if settings.validate:
        stop, end = end, end * 4 // 5
    least = settings.window + settings.difference + 1
    if end <= least or stop - end < LONGEST:
        expected = f"more than {least} months of training and {LONGEST} after them"
        came = f"{end} and {stop - end}"
        refuse("data", expected, came, "Give a longer series, or a smaller --window.")
    origins = origins_between(series, end, stop, settings.window)
    if not len(origins):
        expected = f"an origin after {YEAR + 1} months that are not missing"
        refuse("data", expected, "none", "Give another series.")
    return Job(series, changes(series, settings.difference, end), end, origins)


def read_csv(path: Path) -> Series:
    """Read lines of `YYYYMMDD,ppm` after a header; an empty value is missing."""
    lines = path.read_text().splitlines()[1:]
    months, values = [], []
    for n, line in enumerate(lines, 2):
        match = LINE.fullmatch(line)
        if match is None:
            refuse(f"line {n} of {path}", "YYYYMMDD,ppm", line, "A missing value is empty.")
        year, month, value = match.groups()
        if value is not None:
            months.append(YEAR * int(year) + int(month) - 1)
            values.append(float(value))
    if not values:
        refuse(str(path), "a header and lines YYYYMMDD,ppm", "no value", "It is another file.")
    first = min(months)
    at = np.array(months) - first
    counts = np.bincount(at)
    sums = np.bincount(at, values)
    return Series(first, np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def changes(series: Series, lag: int, end: int) -> Changes:
    """y_t - y_{t-lag}, scaled to mean 0 and deviation 1 over the months before `end`."""
    ppm = series.ppm
    xs = np.full(len(ppm), np.nan)
    xs[lag:] = ppm[lag:] - ppm[:-lag]
    mean, std = np.nanmean(xs[:end]), np.nanstd(xs[:end])
    seen = ~np.isnan(xs)
    scaled = np.where(seen, (xs - mean) / std, 0).astype(np.float32)
    month = np.eye(YEAR, dtype=np.float32)[(series.first + 1 + np.arange(len(ppm))) % YEAR]
    return Changes(scaled[:, None], seen, month, mean, std, lag)


def levels(series: Series, origins: np.ndarray, scaled: np.ndarray, by: Changes) -> np.ndarray:
    """Forecasts in ppm from forecasts of changes `[..., LONGEST, N]`, from each of N origins."""
    *lead, N = scaled.shape
    past = series.ppm[origins - by.lag + np.arange(by.lag)[:, None]]  # [lag, N]
    steps = by.mean + by.std * scaled.astype(np.float64)
    steps = steps.reshape(*lead[:-1], LONGEST // by.lag, by.lag, N)
    return (past + steps.cumsum(-3)).reshape(scaled.shape)


def naive(series: Series, origins: np.ndarray, years: int) -> np.ndarray:
    """`[LONGEST, N]` ppm: the last year again and again, plus the mean yearly rise of `years`."""
    ppm, ahead = series.ppm, np.arange(LONGEST)[:, None]
    rise = (ppm[origins - 1] - ppm[origins - 1 - YEAR * years]) / years
    return ppm[origins - YEAR + ahead % YEAR] + (1 + ahead // YEAR) * rise


def origins_between(series: Series, start: int, end: int, window: int) -> np.ndarray:
    """The months from which forecasts begin: each whose LONGEST months end before `end`.

    An origin needs the 13 months before it and, for the naive forecast, one some years before.
    """
    origins = np.arange(start, end - LONGEST + 1)
    known = ~np.isnan(series.ppm)
    last = known[origins - 1 - np.arange(YEAR + 1)[:, None]].all(0)
    return origins[last & known[origins - 1 - window // YEAR * YEAR]]


def absolute_errors(series: Series, origins: np.ndarray, forecasts: np.ndarray) -> np.ndarray:
    """`[..., LONGEST]`: the mean absolute error of each month ahead, without missing months."""
    truth = series.ppm[origins + np.arange(LONGEST)[:, None]]
    return np.nanmean(np.abs(forecasts - truth), -1)


def covered(job: Job, draws: np.ndarray) -> np.ndarray:
    """`[LONGEST]`: how often the middle 80 % of the draws contain the observed value."""
    low, high = np.quantile(draws, (0.1, 0.9), axis=1)
    truth = job.series.ppm[job.origins + np.arange(LONGEST)[:, None]]
    inside = np.where(np.isnan(truth), np.nan, (low <= truth) & (truth <= high))
    return np.nanmean(inside, (0, 2))
