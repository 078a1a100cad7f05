"""Plot the results of `jrnn.diagnostics`; each title states the main finding.

matplotlib comes with the extra `plot` and is imported when a plot is made. Without `axes`, a plot
is a new `matplotlib.figure.Figure` that pyplot does not manage: it uses no window, no backend and
no global state. Save it with `axes.figure.savefig(...)`. The state s_t is h_t, of an LSTM h_t and
c_t.

A curve over lags is called vanishing if its last value is at most half of its first, and exploding
if it is at least twice the first. Its half-life (doubling time) is the first lag at which it has
halved (doubled).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from jrnn import checks
from jrnn.diagnostics import GradientFlow
from jrnn.extras import install

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REACH = 0.01  # share of the norm at k = t that marks how far back a loss depends on states
DECADES = 12  # range of the colours of an influence table


def plot_gradient_flow(flow: GradientFlow, axes: Any = None) -> Any:
    """Plot the gradient norm by lag, and the contribution of each step to dw_hh.

    Args:
        flow: the result of `jrnn.diagnostics.gradient_flow`.
        axes: two `matplotlib.axes.Axes`, for lags and for steps; None for a new figure.

    Returns:
        `[2]`, the two `Axes`, logarithmic if a curve spans a factor of 30. Zeros are not drawn.

    Raises:
        ValueError: not a `GradientFlow`, or not two axes.
        ImportError: matplotlib is missing.
    """
    if not isinstance(flow, GradientFlow):
        repair = "Call jrnn.diagnostics.gradient_flow."
        checks.refuse("flow", "a GradientFlow", type(flow).__name__, repair)
    over_lags, over_steps = panels = _axes(axes, 2, (12, 4.5))
    lags, (low, median, high) = np.asarray(flow.lags), _positive_or_nan(flow.percentiles)
    over_lags.fill_between(lags, low, high, alpha=0.3, label="10th to 90th percentile")
    over_lags.plot(lags, median, label="median over steps and batch")
    over_lags.set(
        xlabel="lag l (steps)",
        ylabel=r"$\|dJ_t / ds_{t-l}\|$ (nats per unit of state)",
        title=f"Loss of one step, by lag\n{_describe_trend(np.asarray(flow.percentiles[1]))}",
    )
    uses = _positive_or_nan(flow.uses)
    over_steps.plot(np.arange(1, len(uses) + 1), uses, label=r"$\|\sum_b h_{k-1}^T \delta_k\|$")
    over_steps.set(
        xlabel="step k",
        ylabel="norm (nats per unit of weight)",
        title=f"All losses, through the use of w_hh at step k\n{_describe_largest(uses)}",
    )
    for panel, curve in ((over_lags, median), (over_steps, uses)):
        panel.legend()
        if np.isfinite(curve).any() and np.nanmax(curve) > 30 * np.nanmin(curve):
            panel.set_yscale("log")
    return panels


def plot_lyapunov_exponents(exponents: Any, axes: "Axes | None" = None) -> "Axes":
    """Plot a Lyapunov spectrum.

    Args:
        exponents: `[n]`, from `jrnn.diagnostics.lyapunov_exponents`.
        axes: a `matplotlib.axes.Axes`; None for a new figure.

    Returns:
        The `Axes`. Exponents of -inf are not drawn; the legend gives their number.

    Raises:
        ValueError: another shape.
        ImportError: matplotlib is missing.
    """
    exponents = _of_rank("exponents", exponents, 1, "[n]", "lyapunov_exponents")
    (axes,) = _axes(axes, 1, (6, 4.5))
    lost = int(np.isneginf(exponents).sum())
    label = r"$\lambda_i$" + (f" ({lost} more at $-\\infty$)" if lost else "")
    shown = np.where(np.isfinite(exponents), exponents, np.nan)
    axes.plot(np.arange(1, len(shown) + 1), shown, marker=".", label=label)
    axes.axhline(0.0, color="gray", linestyle="--", label="0: changes of the state are kept")
    axes.set(
        xlabel="i",
        ylabel=r"Lyapunov exponent $\lambda_i$ (nats per step)",
        title=f"Lyapunov exponents\n{_describe_growth(float(exponents.max()))}",
    )
    axes.legend()
    return axes


def plot_influence(table: Any, axes: "Axes | None" = None) -> "Axes":
    """Plot the influence of every state on the loss of every step as an image.

    Args:
        table: `[T, T]`, from `jrnn.diagnostics.influence`.
        axes: a `matplotlib.axes.Axes`; None for a new figure.

    Returns:
        The `Axes`, with a colour bar of up to 12 decades.

    Raises:
        ValueError: another shape.
        ImportError: matplotlib is missing.
    """
    table = _of_rank("table", table, 2, "[T, T]", "influence")
    (axes,) = _axes(axes, 1, (7, 6))
    from matplotlib.colors import LogNorm

    T, own = len(table), np.diagonal(table)  # norms at k = t; 0 for a step without a loss
    top = table[(table > 0) & np.isfinite(table)].max(initial=0) or 1.0
    shown = np.ma.masked_where(np.triu(np.ones((T, T), bool), 1) | (own[:, None] == 0), table)
    shown = np.ma.maximum(shown, top / 10**DECADES)  # also values that underflowed to 0
    norm = LogNorm(top / 10**DECADES, top)
    extent = (0.5, T + 0.5, T + 0.5, 0.5)
    image = axes.imshow(shown, norm=norm, extent=extent, interpolation="nearest")
    label = r"$\|dJ_t / ds_k\|$ (nats per unit of state)"
    axes.figure.colorbar(image, ax=axes, label=label, extend="min")
    t = np.flatnonzero((own > 0) & np.isfinite(own))
    ratios = table[t] / own[t, None]
    first = np.argmax(ratios >= REACH, axis=1)
    label = f"the first k with {REACH:.0%} of the norm at k = t"
    axes.plot(first + 1, t + 1, color="red", linewidth=1, label=label)
    # Only lags that half of the steps have; at longer lags a median would be over few steps.
    lags = range((T + 1) // 2)
    medians = [np.median(ratios[t >= l, t[t >= l] - l]) for l in lags if (t >= l).any()]
    axes.set(
        xlabel="step k of the state",
        ylabel="step t of the loss",
        title=f"Influence of step k on the loss of step t\n{_describe_trend(np.array(medians))}",
    )
    axes.legend(loc="upper right")
    return axes


def plot_forget_gate(f: Any, axes: Any = None) -> np.ndarray:
    """Plot how much a network forgets: its forget gate over time, and by unit.

    The time constant of a unit is -1 / (the mean of log f over steps and sequences): after so many
    steps 1/e of its memory is left.

    Args:
        f: `[T, H]` or `[T, B, H]` in [0, 1], such as `jrnn.diagnostics.gates(...).f` of an LSTM, or
            `.z` of a GRU. NaN values are left out: put NaN in the padding.
        axes: three `matplotlib.axes.Axes`, for steps, units and time constants; None for a new
            figure.

    Returns:
        `[3]`, the `Axes`. Time constants of 0 or infinity are not drawn; the legend gives their
        number.

    Raises:
        ValueError: another shape, values outside [0, 1], or not three axes.
        ImportError: matplotlib is missing.
    """
    f, steps = _gate(f)
    over_steps, over_units, constants = panels = _axes(axes, 3, (15, 4.5))
    by_unit = np.nanmean(f, (0, 1))
    with np.errstate(divide="ignore"):
        taus = 1 / np.abs(np.nanmean(np.log(f), (0, 1)))
    low, median, high = np.nanpercentile(f.reshape(len(f), -1), (10, 50, 90), axis=1)
    over_steps.fill_between(steps, low, high, alpha=0.3, label="10th to 90th percentile")
    over_steps.plot(steps, median, label="median over units and batch")
    over_steps.set(
        xlabel="step t",
        ylabel="forget gate f (1: nothing is forgotten)",
        ylim=(0, 1),
        title=f"Forget gate over time\nmedian {median[0]:.2g} at first, {median[-1]:.2g} at last",
    )
    bins = np.linspace(0, 1, 41)
    over_units.hist(by_unit, bins=bins, label=_units(len(by_unit)))
    over_units.axvline(np.median(by_unit), color="red", linewidth=1, label="median")
    over_units.set(
        xlabel="mean of f over steps and batch",
        ylabel="units",
        xlim=(0, 1),
        title=f"Forget gate by unit\nfrom {by_unit.min():.2g} to {by_unit.max():.2g}",
    )
    _plot_time_constants(constants, taus)
    for panel in panels:
        panel.legend()
    for panel in (over_units, constants):
        panel.yaxis.get_major_locator().set_params(integer=True)
    return panels


def _plot_time_constants(axes: "Axes", taus: np.ndarray) -> None:
    drawn = taus[(taus > 0) & np.isfinite(taus)]
    lost = len(taus) - len(drawn)
    label = _units(len(drawn)) + (f" ({lost} more at 0 or infinity)" if lost else "")
    low, high = (drawn.min() / 1.1, drawn.max() * 1.1) if len(drawn) else (1, 2)
    scale = "log" if high > 30 * low else "linear"
    spaced = np.geomspace if scale == "log" else np.linspace
    axes.hist(drawn, bins=list(spaced(low, high, 31)), label=label)
    axes.axvline(np.median(taus), color="red", linewidth=1, label="median")
    axes.set(
        xscale=scale,
        xlabel=r"time constant $-1 / \overline{\log f}$ (steps)",
        ylabel="units",
        title=f"Memory of the units\n{_describe_memory(taus)}",
    )


# --- titles --------------------------------------------------------------------------------------


def _describe_trend(curve: np.ndarray) -> str:
    """Describe how a median by lag changes from its first to its last value."""
    curve = curve[~np.isnan(curve)]
    if len(curve) < 2 or not 0 < curve[0] < np.inf:
        return "no two lags to compare"
    last, ratio = len(curve) - 1, curve[-1] / curve[0]
    if ratio <= 0.5:
        left = f"{ratio:.1g} of lag 0 is left" if ratio else "below the floating range"
        n = int(np.argmax(curve <= curve[0] / 2))
        return f"half-life {n} step{'s' * (n > 1)}: vanishing, {left} at lag {last}"
    if ratio >= 2:
        n = int(np.argmax(curve >= 2 * curve[0]))
        end = f"{ratio:.1g} times lag 0 at lag {last}"
        return f"doubling time {n} step{'s' * (n > 1)}: exploding, {end}"
    return f"within a factor of 2 of lag 0 at lag {last}"


def _describe_largest(uses: np.ndarray) -> str:
    if not np.isfinite(uses).any():
        return "no norm above 0"
    ratio = np.nanmax(uses) / np.nanmedian(uses)
    return f"largest at k = {np.nanargmax(uses) + 1}, {ratio:.3g} times the median"


def _describe_growth(exponent: float) -> str:
    if not np.isfinite(exponent) or exponent == 0:
        return f"largest exponent {exponent:g}"
    does = "halve" if exponent < 0 else "double"
    steps = np.log(2) / abs(exponent)
    return f"largest {exponent:.3g} per step: changes {does} in {steps:.3g} steps"


def _units(n: int) -> str:
    return f"{n} unit{'s' * (n != 1)}"


def _describe_memory(taus: np.ndarray) -> str:
    return f"time constant {np.median(taus):.3g} steps (median), {taus.max():.3g} at most"


# --- axes and arrays -----------------------------------------------------------------------------


def _axes(axes: Any, count: int, size: tuple[float, float]) -> np.ndarray:
    """`[count]` axes: those of the user, or those of a new figure."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"pictures need matplotlib: {install('plot')}") from error
    if axes is None:
        axes = Figure(figsize=size, layout="constrained").subplots(1, count)
    found = np.array(axes, dtype=object).ravel()
    if len(found) != count:
        checks.refuse("axes", f"{count} matplotlib Axes", len(found), "None makes them.")
    return found


def _of_rank(argument: str, x: Any, rank: int, axes: str, source: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != rank or not x.size or len(set(x.shape)) > 1:
        repair = f"Call jrnn.diagnostics.{source}."
        checks.refuse(argument, f"an array {axes}", f"shape {list(x.shape)}", repair)
    return x


def _gate(f: Any) -> tuple[np.ndarray, np.ndarray]:
    """f in float64 as `[T, B, H]`, without the steps of NaN alone, and the numbers of the steps."""
    expected, repair = "an array [T, H] or [T, B, H]", "Call jrnn.diagnostics.gates(...).f, or .z."
    if isinstance(f, tuple):  # all gates of one sequence have the shape of one gate of a batch
        checks.refuse("f", expected, type(f).__name__, repair)
    f = np.asarray(f, np.float64)
    if f.ndim not in (2, 3) or not f.size:
        checks.refuse("f", expected, f"shape {list(f.shape)}", repair)
    outside = f[(f < 0) | (f > 1)]
    if outside.size:
        checks.refuse("f", "numbers from 0 to 1", float(outside[0]), repair)
    f = f.reshape(len(f), -1, f.shape[-1])
    counted = ~np.isnan(f).all((1, 2))
    if not counted.any():
        checks.refuse("f", "numbers from 0 to 1", "NaN alone", repair)
    return f[counted], np.flatnonzero(counted) + 1


def _positive_or_nan(x: Any) -> np.ndarray:
    """x in float64, with NaN (not drawn) for values that have no logarithm."""
    x = np.asarray(x, np.float64)
    return np.where((x > 0) & np.isfinite(x), x, np.nan)
