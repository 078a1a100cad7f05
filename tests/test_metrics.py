"""Rows of metrics in a CSV file, and when a run should stop."""

import csv
import errno
import os

import pytest

from jrnn.metrics import csv_writer, early_stopping, write_csv

ROWS = [{"step": n, "loss": 1 / n, "note": f'a "b", {n}'} for n in (1, 2, 3)]


def read(path):
    with path.open(newline="") as file:
        return [
            {"step": int(r["step"]), "loss": float(r["loss"]), "note": r["note"]}
            for r in csv.DictReader(file)
        ]


def test_a_table_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "metrics.csv"
    write_csv(path, ROWS)
    assert read(path) == ROWS
    write_csv(path, ROWS[:1])
    assert read(path) == ROWS[:1]
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_rows_are_there_as_soon_as_they_are_written(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("an older run")
    write = csv_writer(path)
    assert path.read_text() == "an older run"
    for n, row in enumerate(ROWS, 1):
        write(row)
        assert read(path) == ROWS[:n]
    whole = path.read_bytes()
    write_csv(path, ROWS)
    assert path.read_bytes() == whole


def test_a_resumed_run_writes_its_earlier_rows_first(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("rows of steps that were lost")
    write = csv_writer(path, ROWS[:2])
    write(ROWS[2])
    assert read(path) == ROWS


def test_rows_of_other_names_are_refused(tmp_path):
    path = tmp_path / "metrics.csv"
    write = csv_writer(path)
    write(ROWS[0])
    before = path.read_bytes()
    expected = r"^row: expected the columns \['step', 'loss', 'note'\]; got \['loss'\]\. All rows"
    with pytest.raises(ValueError, match=expected):
        write({"loss": 1.0})
    for rows in ([*ROWS, {"loss": 1.0}], [*ROWS, dict(reversed(ROWS[0].items()))]):
        for refused in (csv_writer, write_csv):
            with pytest.raises(ValueError, match=r"^row: expected the columns"):
                refused(path, rows)
    with pytest.raises(ValueError, match=r"^rows: expected at least one; got none\. Write"):
        write_csv(path, [])
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "nowhere" / "metrics.csv"
    with pytest.raises(OSError, match="No such file") as caught:
        csv_writer(path)(ROWS[0])
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(path))


NAN = float("nan")


@pytest.mark.parametrize(
    ("history", "patience", "min_delta", "stops"),
    [
        ([], 1, 0, False),
        ([1.0], 1, 0, False),
        ([3.0, 2.0, 1.0], 1, 0, False),
        ([1.0, 1.0], 1, 0, True),  # equal is no better
        ([1.0, 2.0, 3.0], 3, 0, False),
        ([1.0, 2.0, 3.0, 1.5], 3, 0, True),
        ([1.0, 2.0, 0.5], 2, 0, False),
        ([3.0, 2.95, 2.91], 2, 0.1, True),  # each by less than 0.1, and both together too
        ([3.0, 2.95, 2.89], 2, 0.1, False),
        ([NAN, NAN], 2, 0, True),
        ([NAN, 5.0], 2, 0, False),
        ([1.0, NAN, 2.0], 2, 0, True),
        ([1.0, 2.0, 0.5, 3.0], 2, 0, False),  # the best of all is what counts
    ],
)
def test_early_stopping(history, patience, min_delta, stops):
    assert early_stopping(history, patience, min_delta) == stops


def test_options_of_early_stopping():
    with pytest.raises(ValueError, match=r"^patience: expected an integer >= 1; got 0\. 1 stops"):
        early_stopping([1.0], 0)
    for min_delta in (-1.0, NAN):
        expected = rf"^min_delta: expected a number >= 0; got {min_delta}\. 0 takes"
        with pytest.raises(ValueError, match=expected):
            early_stopping([1.0], 1, min_delta)
