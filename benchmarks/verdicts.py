"""The bounds of `benchmarks.versions`, and its table.

A record is one shape in one mode, dtype and pass. It has repeats, each with the figures of three
programs: "old", "old again", the same compiled once more, and "new". A ratio is to "old" of the
same repeat, of minima.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.report import grouped, number

MEAN_TIME = 1.02  # the geometric mean of all records
MEAN_COMPILE = 1.05
TIME = 1.03  # one record: this and two standard deviations of old again / old, in every repeat
NOISY = 0.05  # an A/A deviation that leaves a record a loose bound
MORE_BYTES = 1_000_000  # that row 1 and gradients of single sequences may need; all else, none

HEADER = ["row", "mode", "dtype", "pass", "old ms", "new ms", "new/old", "A/A dev", "old MB"]
HEADER += ["new MB", "old s", "new s", "verdict"]
WIDTHS = [3, 12, 8, 8, 7, 7, 7, 7, 8, 8, 6, 6, 10]


def ratios(record: dict[str, Any], program: str) -> list[float]:
    """Its time over old's in each repeat."""
    return [r[program]["minimum_ms"] / r["old"]["minimum_ms"] for r in record["repeats"]]


def deviation(record: dict[str, Any]) -> float:
    """The standard deviation of old again / old, whose mean is known: 1."""
    return float(np.sqrt(np.mean(np.log(ratios(record, "old again")) ** 2)))


def least(record: dict[str, Any], program: str, quantity: str) -> float:
    """Over the repeats."""
    return min(repeat[program][quantity] for repeat in record["repeats"])


def failures(record: dict[str, Any]) -> list[str]:
    """The figures of one record that are above their bounds: "time", "bytes"."""
    failed = []
    if min(ratios(record, "new")) > TIME + 2 * deviation(record):
        failed.append("time")
    small = record["row"] == 1 or record["mode"] == "vmap-grad"
    more = least(record, "new", "temporary_bytes") - least(record, "old", "temporary_bytes")
    if more > (MORE_BYTES if small else 0):
        failed.append("bytes")
    return failed


# --- all records ---------------------------------------------------------------------------------


def mean_time(records: Sequence[dict[str, Any]], program: str = "new") -> float:
    """Geometric mean of the time over old's, of each record the median of its repeats."""
    return _geometric([float(np.median(ratios(r, program))) for r in records])


def mean_compile(records: Sequence[dict[str, Any]], program: str = "new") -> float:
    """Geometric mean of the compile time over old's, of each the least of the repeats."""
    seconds = "compile_seconds"
    return _geometric([least(r, program, seconds) / least(r, "old", seconds) for r in records])


def _geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def failed_means(records: Sequence[dict[str, Any]]) -> list[str]:
    """The geometric means that are above their bound."""
    time, compile_time = mean_time(records), mean_compile(records)
    means = ("time", time, MEAN_TIME), ("compile time", compile_time, MEAN_COMPILE)
    return [f"{name} {mean:.3f}, above {bound}" for name, mean, bound in means if mean > bound]


# --- text ----------------------------------------------------------------------------------------


def line(cells: Sequence[Any], widths: Sequence[int] = WIDTHS) -> str:
    """One line of a table in Markdown, in columns on a screen too."""
    padded = (str(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def head(header: Sequence[str] = HEADER, widths: Sequence[int] = WIDTHS) -> str:
    """The first two lines of it."""
    return "\n".join([line(header, widths), line(["-" * width for width in widths], widths)])


def record_line(record: dict[str, Any]) -> str:
    """The line of a record."""
    failed = failures(record)

    def both(quantity: str, unit: float = 1) -> list[str]:
        return [number(least(record, program, quantity), unit) for program in ("old", "new")]

    return line(
        [
            record["row"],
            record["mode"],
            record["dtype"],
            "gradient" if record["gradient"] else "forward",
            *both("minimum_ms"),
            f"{np.median(ratios(record, 'new')):.3f}",
            f"{deviation(record):.3f}",
            *both("temporary_bytes", 1e6),
            *both("compile_seconds"),
            f"FAIL {' '.join(failed)}" if failed else "PASS",
        ]
    )


def means_table(records: Sequence[dict[str, Any]]) -> str:
    """The geometric means by mode and of all, next to those of old again / old."""
    groups = {mode: found for (mode,), found in grouped(list(records), ("mode",)).items()}
    header = ["geometric mean", "time new/old", "A/A", "compile new/old", "A/A"]
    widths = [14, 12, 5, 15, 5]
    lines = []
    for name, found in (groups | {"all": records}).items():
        means = [
            mean(found, program)
            for mean in (mean_time, mean_compile)
            for program in ("new", "old again")
        ]
        lines.append(line([name, *(f"{mean:.3f}" for mean in means)], widths))
    return "\n".join([head(header, widths), *lines])


def sentence(records: Sequence[dict[str, Any]]) -> str:
    """PASS, or FAIL and how many records and which means; and where it was too noisy to tell."""
    failed = sum(bool(failures(record)) for record in records)
    said = [f"{failed} of {len(records)} lines"] if failed else []
    said += [f"geometric mean of {mean}" for mean in failed_means(records)]
    verdict = f"FAIL: {'; '.join(said)}." if said else f"PASS: {len(records)} lines, and the means."
    noisy = sum(deviation(record) > NOISY for record in records)
    if noisy:
        verdict += (
            f" {noisy} of {len(records)} lines have an A/A deviation above {NOISY}, so a loose "
            "bound: measure them again while nothing else runs."
        )
    return verdict
