"""The charts of the benchmarks."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.backends import label, own

COLOURS = [f"C{n}" for n in range(10)]  # matplotlib's default colours


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # optional: tables need no matplotlib

    return Figure(figsize=(width, height), layout="constrained")


def kernel(path: Path, records: list[dict[str, Any]], title: str) -> None:
    """Plot every rival's time divided by jrnn's, by row; one panel per pass."""
    figure = _figure(11, 8)
    panels = figure.subplots(2, 1, sharex=True)
    for panel, gradient in zip(panels, (False, True), strict=True):
        ratios = _ratios([r for r in records if r["gradient"] == gradient])
        _bars(panel, ratios)
        panel.set_title(f"{title}, {'forward + backward' if gradient else 'forward'}")
    cases = {r["row"]: ", ".join(map(str, r["case"])) for r in records}
    panels[1].set_xticks(range(len(cases)), [f"row {n}\n{case}" for n, case in cases.items()])
    panels[1].set_xlabel("T, B, I, H")
    figure.savefig(path, dpi=120)


def _ratios(records: list[dict[str, Any]]) -> dict[str, dict[Any, float]]:
    """program -> row -> its time divided by jrnn's with the same activation."""
    first: dict[tuple[Any, str], dict[str, Any]] = {}  # by the first of jrnn's backends
    found: dict[str, dict[Any, float]] = {}
    for r in records:
        first.setdefault((r["row"], r["program"]), r)
    for r in records:
        base = first[r["row"], own(r["activation"])]
        if r is not base:
            name = label(r["program"], r.get("backend"))
            found.setdefault(name, {})[r["row"]] = r["minimum_ms"] / base["minimum_ms"]
    return found


def _bars(panel: Any, ratios: dict[str, dict[Any, float]]) -> None:
    rows = list(dict.fromkeys(row for by_row in ratios.values() for row in by_row))
    width = 0.85 / max(len(ratios), 1)
    for n, (name, by_row) in enumerate(ratios.items()):
        at = np.array([rows.index(row) for row in by_row]) + (n + 0.5) * width - 0.425
        heights = np.array(list(by_row.values()))
        bars = panel.bar(at, heights - 1, width, 1, label=name, color=COLOURS[n % 10])
        panel.bar_label(bars, [f"{h:.2f}" for h in heights], fontsize=6, rotation=90, padding=2)
    panel.axhline(1, color="black", linewidth=1)
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter("{x:g}")
    panel.margins(y=0.2)
    panel.set_ylabel("time / jrnn's time, log scale\n(above 1: jrnn is faster)")
    panel.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def train_step(path: Path, records: list[dict[str, Any]]) -> None:
    """Plot characters per second, one panel per row."""
    rows = list(dict.fromkeys(r["row"] for r in records))
    figure = _figure(5.5 * len(rows) + 1, 4.5)
    panels = figure.subplots(1, len(rows), squeeze=False)[0]
    for panel, row in zip(panels, rows, strict=True):
        _rates(panel, [r for r in records if r["row"] == row])
    figure.savefig(path, dpi=120)


def _rates(panel: Any, records: list[dict[str, Any]]) -> None:
    names = [r["program"] for r in records]
    rates = [r["characters_per_second"] for r in records]
    colours = ["black" if name.startswith("jrnn") else COLOURS[0] for name in names]
    panel.bar_label(panel.barh(names, rates, color=colours), fmt="{:,.0f}", padding=3)
    panel.invert_yaxis()
    panel.margins(x=0.2)
    size = f"T = {records[0]['length']}, B = {records[0]['batch_size']}"
    panel.set_title(f"row {records[0]['row']}: {size}, H = {records[0]['hidden_size']}")
    panel.set_xlabel("characters per second, median step")


def scaling(path: Path, records: list[dict[str, Any]]) -> None:
    """Plot time by size, one panel per sweep and dtype, one colour per line."""
    panels: dict[str, list[dict[str, Any]]] = {}
    for r in records:
        panels.setdefault(f"{r['axis']}, {r['row'].split(', ')[-1]}", []).append(r)
    columns = min(len(panels), 3)
    shape = (-(-len(panels) // columns), columns)
    figure = _figure(5.5 * columns, 4.5 * shape[0])
    axes = figure.subplots(*shape, squeeze=False).ravel()
    for panel, (title, found) in zip(axes, panels.items(), strict=False):
        _lines(panel, found)
        panel.set_title(title)
        panel.set_xlabel("T" if found[0]["axis"] == "remat" else found[0]["axis"])
    for panel in axes[len(panels) :]:
        panel.remove()
    figure.savefig(path, dpi=120)


def device(
    path: Path,
    title: str,
    recurrences: list[dict[str, Any]],
    training: list[dict[str, Any]],
    growth: list[dict[str, Any]],
) -> None:
    """Plot all results of one machine: ratios, characters per second, time by T, B and H.

    Missing results have no panel.
    """
    tables = {
        f"{cell}, {dtype}, {'forward + backward' if gradient else 'forward'}": found
        for cell, gradient, dtype in (
            ("rnn", True, "float32"),
            ("lstm", True, "float32"),
            ("gru", True, "float32"),
            ("rnn", True, "bfloat16"),
            ("rnn", False, "float32"),
        )
        if (found := _of(recurrences, cell=cell, gradient=gradient, dtype=dtype, route="batch"))
    }
    rows = list(dict.fromkeys(r["row"] for r in training))
    axes = list(dict.fromkeys(r["axis"] for r in growth))
    heights = [3.2] * len(tables) + [3.6] * bool(rows) + [3.6] * bool(axes)
    if not heights:
        return
    figure = _figure(12, sum(heights) + 0.5)
    figure.suptitle(title)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    strips = iter(np.asarray(parts).ravel())
    for name, found in tables.items():
        panel = next(strips).subplots()
        _bars(panel, _ratios(found))
        panel.set_title(name)
        cases = {r["row"]: ", ".join(map(str, r["case"])) for r in found}
        panel.set_xticks(range(len(cases)), [f"row {n}\n{case}" for n, case in cases.items()])
    if rows:
        panels = next(strips).subplots(1, len(rows), squeeze=False)[0]
        for panel, row in zip(panels, rows, strict=True):
            _rates(panel, _of(training, row=row))
    if axes:
        panels = next(strips).subplots(1, len(axes), squeeze=False)[0]
        for panel, axis in zip(panels, axes, strict=True):
            _lines(panel, _of(growth, axis=axis))
            panel.set_xlabel(axis)
    figure.savefig(path, dpi=120)


def _of(records: list[dict[str, Any]], **key: Any) -> list[dict[str, Any]]:
    return [r for r in records if all(r[name] == value for name, value in key.items())]


def _lines(panel: Any, records: list[dict[str, Any]]) -> None:
    rows = list(dict.fromkeys(r["row"] for r in records))
    for n, row in enumerate(rows):
        lines = _own_and_best_other([r for r in records if r["row"] == row])
        for name, by_point in lines.items():
            style = "-o" if name == "jrnn" else "--x"
            label = f"{name}: {row.rsplit(', ', 1)[0]}"
            at, times = list(by_point), list(by_point.values())
            panel.plot(at, times, style, color=COLOURS[n % 10], label=label)
    panel.set_xscale("log", base=2)
    panel.set_xticks(points := sorted({r["at"] for r in records}), [f"{n:,}" for n in points])
    panel.minorticks_off()
    panel.set_yscale("log")
    panel.set_ylabel("ms, forward + backward")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)


def _own_and_best_other(records: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """jrnn's times by point, and the best time of the other programs."""
    others = {r["program"] for r in records} - {"jrnn"}
    name = others.pop() if len(others) == 1 else "best autodiff"
    found: dict[str, dict[int, float]] = {}
    for r in records:
        line = found.setdefault("jrnn" if r["program"] == "jrnn" else name, {})
        line[r["at"]] = min(line.get(r["at"], np.inf), r["minimum_ms"])
    return found
