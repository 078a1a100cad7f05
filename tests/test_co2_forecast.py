"""The forecasting example: its file, changes, its forecasts, and toy runs on files made here."""

import json
from dataclasses import replace
from functools import partial

import co2_data
import co2_forecast
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import in_this_process, unboxed

import jrnn

pytestmark = pytest.mark.usefixtures("float32")
TOY = ["--hidden-size=4", "--steps=2", "--batch-size=3", "--seeds=2", "--window=30", "--draws=3"]
FIRST = 12 * 1980 + 4  # May


def season(months, rise=1.5):
    """A series that the seasonal naive forecast tells exactly."""
    at = np.arange(months)
    return 300 + rise * (at // 12) + np.cos(at % 12)


def text_of(ppm):
    """A file with two weeks of each month; a month that is NaN has one line without a value."""
    lines = ["date,co2"]
    for n, value in enumerate(ppm):
        year, month = divmod(FIRST + n, 12)
        weeks = [""] if np.isnan(value) else [f"{value - 1:.6f}", f"{value + 1:.6f}", ""]
        lines += [f"{year}{month + 1:02}{7 * w + 1:02},{week}" for w, week in enumerate(weeks)]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def ppm():
    noise = np.random.default_rng(0).normal(0, 0.1, 400)
    values = season(400) + noise
    values[[3, 50, 51, 310]] = np.nan  # 310 is read before the first origin, 320
    return values


@pytest.fixture
def path(tmp_path, ppm):
    path = tmp_path / "toy.csv"
    path.write_text(text_of(ppm))
    return path


def job_of(path, *options):
    args = co2_forecast.Settings.parse(["--data", str(path), *TOY, *options])
    return args, co2_data.load(args)


run = partial(in_this_process, co2_forecast.main)


def test_a_file_becomes_monthly_means(path, ppm):
    found = co2_data.read_csv(path)
    assert found.first == FIRST
    np.testing.assert_allclose(found.ppm, ppm, atol=1e-6)  # NaN where it is missing


@pytest.mark.parametrize(
    "line", ["19800501", "19800501,x", "19801301,316.1", "1980-05-01,316.1", "19800501,-99.99"]
)
def test_a_line_of_another_kind(line, tmp_path, capsys):
    path = tmp_path / "toy.csv"
    path.write_text(f"date,co2\n19800401,316.1\n{line}\n")
    status, _, error = run(capsys, "--data", path, "--out", tmp_path)
    assert status == 1
    assert f"line 3 of {path}: expected YYYYMMDD,ppm; got {line}. A missing value is" in error


@pytest.mark.parametrize("text", ["", "date,co2\n", "date,co2\n19800401,\n"])
def test_a_file_without_values(text, tmp_path):
    path = tmp_path / "toy.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"expected a header and lines YYYYMMDD,ppm; got no value"):
        co2_data.read_csv(path)


@pytest.mark.parametrize("lag", [1, 12])
def test_changes_become_levels_again(lag, ppm):
    series, end = co2_data.Series(FIRST, ppm), 320
    by = co2_data.changes(series, lag, end)
    missing = np.isnan(ppm)
    expected = ~(missing | np.concatenate([np.ones(lag, bool), missing[:-lag]]))
    np.testing.assert_array_equal(by.seen, expected)
    assert (by.xs[~by.seen] == 0).all()
    before = by.xs[:end][by.seen[:end]]
    np.testing.assert_allclose([before.mean(), before.std()], [0, 1], atol=1e-5)
    assert by.month.argmax(1)[0] == 5  # June, which follows the first month
    origins = np.array([330, 340])
    ahead = origins + np.arange(60)[:, None]
    found = co2_data.levels(series, origins, by.xs[ahead][None, ..., 0], by)
    np.testing.assert_allclose(found[0], ppm[ahead], atol=1e-3)


def test_the_naive_forecast_of_what_it_supposes():
    series, origins = co2_data.Series(FIRST, season(400)), np.array([325, 330])
    truth = season(400)[origins + np.arange(60)[:, None]]
    np.testing.assert_allclose(co2_data.naive(series, origins, 10), truth)
    errors = co2_data.absolute_errors(series, origins, truth + np.arange(60)[:, None])
    np.testing.assert_allclose(errors, np.arange(60), atol=1e-9)


def test_an_origin_needs_the_months_before_it(ppm):
    values = ppm.copy()
    values[[325, 290]] = np.nan  # the naive forecast of 30 months' window begins 24 months earlier
    found = co2_data.origins_between(co2_data.Series(FIRST, values), 315, 400, 30)
    expected = {*range(315, 341)} - {*range(311, 324), *range(326, 339), 315, 335}
    assert set(found.tolist()) == expected


def test_months_of_evaluation_are_not_learned(path):
    args, job = job_of(path)
    _, validation = job_of(path, "--validate")
    assert (job.end, validation.end) == (320, 256)
    assert job.origins.tolist() == [o for o in range(320, 341) if not 311 <= o <= 323 and o != 335]
    assert validation.origins.max() + 60 == 320
    args = replace(args, steps=1000)
    starts = co2_forecast.window_starts(args, job.end, 0)
    assert starts.max() + args.window == job.end - 1  # the last target
    later = job.series.ppm.copy()
    later[job.end :] += 100
    by = co2_data.changes(job.series._replace(ppm=later), 1, job.end)
    assert (by.mean, by.std) == (job.by.mean, job.by.std)


@pytest.mark.slow
def test_missing_months_change_nothing(path):
    """No loss and no forecast depends on the number that a missing month has in the array."""
    args, job = job_of(path)
    assert not job.by.seen[job.origins[0] - args.window : job.origins[0]].all()
    filled = np.where(job.by.seen[:, None], job.by.xs, np.float32(np.nan))
    other = job._replace(by=job.by._replace(xs=filled))
    found = []
    for each in (job, other):
        models, losses = co2_forecast.train(args, each)
        found.append((losses, *co2_forecast.forecast(args, each, models)))
    for one, another in zip(*found, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, another)


def test_the_mean_is_the_next_input(path):
    """The forecast is that of a plain loop, which skips the missing month of the context."""
    args, job = job_of(path)
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    models = jax.vmap(lambda key: co2_forecast.init_model(key, args))(keys)
    means, draws = co2_forecast.forecast(args, job, models)
    assert (means.shape, draws.shape) == ((2, 60, len(job.origins)), (2, 3, 60, len(job.origins)))
    assert (draws[:, 0] != draws[:, 1]).all()
    model, n = jax.tree.map(lambda a: a[1], models), 1
    origin, by = job.origins[n], job.by
    (layer,), state, changes = model.rnn.layers, None, []
    for t in range(origin - args.window, origin + 59):
        x = by.xs[t] if t < origin else changes[-1]
        if t >= origin or by.seen[t]:
            state, _ = jrnn.rnn(layer.forward, jnp.concatenate([x, by.month[t]])[None], state)
        if t >= origin - 1:
            changes.append(jrnn.readout(model.readout, state)[:1])
    expected = job.series.ppm[origin - 1] + np.cumsum(by.mean + by.std * np.concatenate(changes))
    np.testing.assert_allclose(means[1, :, n], expected, atol=1e-3)


def test_how_much_of_the_series_the_interval_contains(ppm):
    series, origins = co2_data.Series(FIRST, season(400)), np.array([325, 330])
    job = co2_data.Job(series, co2_data.changes(series, 1, 320), 320, origins)
    truth = series.ppm[origins + np.arange(60)[:, None]]
    draws = truth + np.linspace(-1, 1, 5)[:, None, None] * np.ones((2, 1, 60, 2))
    draws[0, :, :, 1] += 0.9  # of the draws between 0.1 and 1.7 above it, 80 % do not contain it
    np.testing.assert_allclose(co2_data.covered(job, draws), 0.75)


def test_the_better_forecast_is_named():
    record = {"options": {"cell": "gru"}, "covered": [0.5] * 12 + [1.0] * 48}
    record |= {"errors": [[1.0] * 12 + [6.0] * 48, [1.2] * 12 + [6.2] * 48]}
    found = co2_forecast.table(record | {"naive": [1.2] * 12 + [2.0] * 48})
    assert "| gru | 1.100 (0.100) | 5.100 (0.100) | 50 % | 90 % |" in found
    assert "| seasonal naive | 1.200 | 1.840 |" in found
    assert "Over 12 months the better forecast is: gru." in found
    assert "Over 60 months the better forecast is: seasonal naive." in found
    found = co2_forecast.table(record | {"naive": [1.05] * 12 + [9.0] * 48})
    assert "Over 12 months the better forecast is: neither, by one standard error." in found
    assert "Over 60 months the better forecast is: gru." in found


@pytest.mark.parametrize("cell", ["rnn", pytest.param("lstm", marks=pytest.mark.slow)])
def test_a_toy_run(cell, path, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--data", path, "--out", out, "--cell", cell, "--difference=12", *TOY]
    status, text, bar = run(capsys, *options)
    assert (status, "loss " in bar) == (0, True)
    assert (out / "co2_forecast.md").read_text() in text
    assert (out / "co2_forecast.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "co2_forecast.json").read_text())
    assert (record["part"], record["options"]["cell"], record["months"]) == ("test", cell, [400, 4])
    assert np.shape(record["errors"]) == (2, 60)
    assert record["errors"][0] != record["errors"][1]  # two seeds


def test_the_record_of_torch_has_the_recipe_of_the_example():
    from test_co2_forecast_full import torch_record

    recipe, args = torch_record()["recipe"], vars(co2_forecast.Settings.parse([]))
    assert recipe.keys() >= {"noise", "steps", "hidden_size", "learning_rate", "window"}
    assert recipe == {name: args[name] for name in recipe}


def test_a_series_that_is_too_short(tmp_path, capsys):
    path = tmp_path / "short.csv"
    path.write_text(text_of(season(290)))
    status, _, error = run(capsys, "--data", path, "--out", tmp_path)
    assert status == 1
    assert "data: expected more than 122 months of training and 60 after them; got 232" in error


@pytest.mark.parametrize("option", ["--window=23", "--difference=2", "--noise=nan", "--draws=0"])
def test_options_that_are_none(option, capsys):
    with pytest.raises(SystemExit):
        co2_forecast.main([option])
    assert option.split("=")[0] in unboxed(capsys.readouterr().err)


@pytest.mark.parametrize("option", ["--seeds", "--steps", "--hidden-size", "--draws"])
def test_sizes_that_cannot_fit(option, path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(co2_forecast, "evaluate", lambda *args: pytest.fail("training began"))
    options = ["--data", path, "--out", tmp_path, *TOY, f"{option}={2**31 - 1}"]
    status, _, error = run(capsys, *options)
    assert (status, error.startswith("error: memory: expected at least ")) == (1, True)
    assert option in error.split("Give a smaller ")[1]
