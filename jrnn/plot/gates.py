"""Plot the gates of a network."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jrnn import checks
from jrnn.plot import _colors
from jrnn.plot._axes import axes_of, count_in_whole_numbers, draw_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_forget_gate(f: Any, axes: Any = None, *, mask: Any = None) -> np.ndarray:
    """Plot how much a network forgets: its forget gate over time, and by unit.

    The time constant of a unit is -1 / (the mean of log f over steps and sequences): after so many
    steps 1/e of its memory is left.

    Args:
        f: `[T, H]` or `[T, B, H]` in [0, 1], such as `jrnn.diagnostics.gates(...).f` of an LSTM, or
            `.z` of a GRU. NaN values are left out, and units of them alone.
        axes: three `matplotlib.axes.Axes`, for steps, units and time constants; None for a new
            figure.
        mask: `[T]` or `[T, B]` bool, the steps that count, as in
            `jrnn.diagnostics.principal_components`; None: all.

    Returns:
        `[3]`, the `Axes`. Time constants of 0 or infinity are not drawn; the legend gives their
        number.

    Raises:
        ValueError: another shape, also of the mask, values outside [0, 1], or not three axes.
        ImportError: matplotlib is missing.
    """
    f, steps = _gate(f, mask)
    over_steps, over_units, constants = panels = axes_of(axes, 3, (15, 4.5))
    by_unit = np.nanmean(f, (0, 1))
    with np.errstate(divide="ignore"):
        taus = 1 / np.abs(np.nanmean(np.log(f), (0, 1)))
    low, median, high = np.nanpercentile(f.reshape(len(f), -1), (10, 50, 90), axis=1)
    over_steps.fill_between(steps, low, high, alpha=0.3, label="10th to 90th percentile")
    draw_curve(over_steps, steps, median, label="median over units and batch")
    over_steps.set(
        xlabel="step t",
        ylabel="forget gate f (1: nothing is forgotten)",
        ylim=(0, 1),
        title=f"Forget gate over time\nmedian {median[0]:.2g} at first, {median[-1]:.2g} at last",
    )
    bins = np.linspace(0, 1, 41)
    over_units.hist(by_unit, bins=bins, label=_units(len(by_unit)))
    over_units.axvline(np.median(by_unit), color=_colors.VERMILION, linewidth=1, label="median")
    over_units.set(
        xlabel="mean of f over steps and batch",
        ylabel="units",
        xlim=(0, 1),
        title=f"Forget gate by unit\nfrom {by_unit.min():.2g} to {by_unit.max():.2g}",
    )
    _plot_time_constants(constants, taus)
    for panel in panels:
        panel.legend()
    count_in_whole_numbers(over_steps.xaxis, over_units.yaxis, constants.yaxis)
    return panels


def _plot_time_constants(axes: "Axes", taus: np.ndarray) -> None:
    drawn = taus[(taus > 0) & np.isfinite(taus)]
    lost = len(taus) - len(drawn)
    label = _units(len(drawn)) + (f" ({lost} more at 0 or infinity)" if lost else "")
    low, high = (drawn.min() / 1.1, drawn.max() * 1.1) if len(drawn) else (1, 2)
    scale = "log" if high > 30 * low else "linear"
    spaced = np.geomspace if scale == "log" else np.linspace
    axes.hist(drawn, bins=list(spaced(low, high, 31)), label=label)
    axes.axvline(np.median(taus), color=_colors.VERMILION, linewidth=1, label="median")
    axes.set(
        xscale=scale,
        xlabel=r"time constant $-1 / \overline{\log f}$ (steps)",
        ylabel="units",
        title=f"Memory of the units\n{_describe_memory(taus)}",
    )


def _units(n: int) -> str:
    return f"{n} unit{'s' * (n != 1)}"


def _describe_memory(taus: np.ndarray) -> str:
    return f"time constant {np.median(taus):.3g} steps (median), {taus.max():.3g} at most"


def _gate(f: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """f in float64 as `[T, B, H]` without steps or units of NaN alone, the numbers of the steps."""
    expected, repair = "an array [T, H] or [T, B, H]", "Call jrnn.diagnostics.gates(...).f, or .z."
    if isinstance(f, tuple):  # all gates of one sequence have the shape of one gate of a batch
        checks.refuse("f", expected, type(f).__name__, repair)
    f = np.asarray(f, np.float64)
    if f.ndim not in (2, 3) or not f.size:
        checks.refuse("f", expected, f"shape {list(f.shape)}", repair)
    if mask is not None:
        checks.states_alike(f, mask, "f")
        f = np.where(np.asarray(mask)[..., None], f, np.nan)
    outside = f[(f < 0) | (f > 1)]
    if outside.size:
        checks.refuse("f", "numbers from 0 to 1", float(outside[0]), repair)
    f = f.reshape(len(f), -1, f.shape[-1])
    counted = ~np.isnan(f).all((1, 2))
    if not counted.any():
        checks.refuse("f", "numbers from 0 to 1", "NaN alone", repair)
    f = f[..., ~np.isnan(f).all((0, 1))]
    return f[counted], np.flatnonzero(counted) + 1
