"""The metrics of a training run: rows of numbers in a CSV file, and when to stop.

A row is a mapping of names to numbers, such as `{"step": 100, "loss": 1.2}`. A hook is a function
of a row: `print`, `csv_writer(path)`, or the logging function of an experiment tracker.
"""

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

from jrnn import checks
from jrnn.files import naming, write_whole

Row = Mapping[str, Any]


def write_csv(path: str | PathLike[str], rows: Sequence[Row]) -> None:
    """Write rows as CSV, with a header, atomically: an older file stays until the new one is whole.

    Args:
        path: the file.
        rows: at least one; all have the same names.

    Raises:
        OSError: it cannot be written; the message names the file.
        ValueError: no rows, or rows of different names.
    """
    if not rows:
        checks.refuse("rows", "at least one", "none", "Write them after the first evaluation.")
    columns = list(rows[0])
    write_whole(path, _csv([columns]) + _csv(_values(rows, columns)))


def csv_writer(path: str | PathLike[str], rows: Sequence[Row] = ()) -> Callable[[Row], None]:
    """Make a hook that adds each row to a CSV file, which can be read while the run continues.

    Args:
        path: the file; the first row replaces an older one.
        rows: of the run so far, if it was resumed; they are written before the first row.

    Returns:
        `write(row)`. It raises an OSError that names the file if that cannot be written, which then
        ends with the row before; and a ValueError for a row of other names.

    Raises:
        ValueError: rows of different names.
    """
    before, columns = list(rows), list(rows[0]) if rows else []
    _values(before, columns)
    begun = False

    def write(row: Row) -> None:
        nonlocal begun, columns
        if not begun:
            write_csv(path, [*before, row])
            begun, columns = True, list(row)
            return
        line = _csv(_values([row], columns))
        with naming(path, f", writing {len(line):,} bytes"):
            size = os.path.getsize(path)
            try:
                with open(path, "ab") as file:
                    file.write(line)
            except OSError:
                os.truncate(path, size)  # no part of a row
                raise

    return write


def early_stopping(history: Sequence[float], patience: int, min_delta: float = 0.0) -> bool:
    """Decide whether a run should stop: its last values are no better than earlier ones.

        while not early_stopping([row["validation_loss"] for row in rows], patience=5):

    (Goodfellow, Bengio and Courville, Deep Learning, 2016, algorithm 7.1.)

    Args:
        history: a value for each evaluation so far, lower is better; NaN is never better.
        patience: how many values in a row may be no better.
        min_delta: a value is better if it is lower than the best so far by more than this.

    Returns:
        True if the last `patience` values or more are no better than the best before them.

    Raises:
        ValueError: a patience below 1, or a negative or NaN `min_delta`.
    """
    if patience < 1:
        checks.refuse(
            "patience", "an integer >= 1", patience, "1 stops at the first that is worse."
        )
    if not min_delta >= 0:
        checks.refuse("min_delta", "a number >= 0", min_delta, "0 takes any lower value as better.")
    best, since = float("inf"), 0
    for value in history:
        if value < best - min_delta:
            best, since = float(value), 0
        else:
            since += 1
    return since >= patience


def _values(rows: Sequence[Row], columns: list[str]) -> list[list[Any]]:
    for row in rows:
        if list(row) != columns:
            repair = "All rows have the same names, in one order."
            checks.refuse("row", f"the columns {columns}", list(row), repair)
    return [list(row.values()) for row in rows]


def _csv(lines: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()
