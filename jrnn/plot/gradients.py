"""Plot gradients by lag and by step, Lyapunov exponents and influence. The state s_t is h_t, of an
LSTM h_t and c_t.

A curve over lags is called vanishing if it falls to at most half of its first value, and exploding
if it rises to at least twice the first, at the last lag that half of the losses reach: at longer
lags a median would be over few of them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from jrnn import checks
from jrnn.diagnostics import GradientFlow
from jrnn.plot import _colors
from jrnn.plot._axes import axes_of, count_in_whole_numbers, draw_curve

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
        `[2]`, the two `Axes`, logarithmic if the curves span a factor of 30. Zeros are not drawn.

    Raises:
        ValueError: not a `GradientFlow`, or not two axes.
        ImportError: matplotlib is missing.
    """
    checks.result_of("flow", flow, GradientFlow, "gradient_flow")
    over_lags, over_steps = panels = axes_of(axes, 2, (12, 4.5))
    lags, band = np.asarray(flow.lags), _positive_or_nan(flow.percentiles)
    low, median, high = band
    far = np.asarray(flow.counts) >= flow.counts[0] / 2
    over_lags.fill_between(lags, low, high, alpha=0.3, label="10th to 90th percentile")
    draw_curve(over_lags, lags, median, label="median over steps and batch")
    over_lags.set(
        xlabel="lag l (steps)",
        ylabel=r"$\|dJ_t / ds_{t-l}\|$ (nats per unit of state)",
        title=f"Loss of one step, by lag\n{_describe_trend(np.asarray(flow.percentiles[1])[far])}",
    )
    uses = _positive_or_nan(flow.uses)
    label = r"$\|\sum_b h_{k-1}^T \delta_k\|$"
    draw_curve(over_steps, np.arange(1, len(uses) + 1), uses, label=label)
    over_steps.set(
        xlabel="step k",
        ylabel="norm (nats per unit of weight)",
        title=f"All losses, through the use of w_hh at step k\n{_describe_largest(uses)}",
    )
    for panel, drawn in ((over_lags, band), (over_steps, uses)):
        panel.legend()
        if np.isfinite(drawn).any() and np.nanmax(drawn) > 30 * np.nanmin(drawn):
            panel.set_yscale("log")
        count_in_whole_numbers(panel.xaxis)
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
    (axes,) = axes_of(axes, 1, (6, 4.5))
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
    count_in_whole_numbers(axes.xaxis)
    return axes


def plot_influence(table: Any, axes: "Axes | None" = None) -> "Axes":
    """Plot the influence of every state on the loss of every step as an image.

    Args:
        table: `[T, T]`, from `jrnn.diagnostics.influence`.
        axes: a `matplotlib.axes.Axes`; None for a new figure.

    Returns:
        The `Axes`, with a colour bar of the range of the norms, from 1 to 12 decades.

    Raises:
        ValueError: another shape.
        ImportError: matplotlib is missing.
    """
    table = _of_rank("table", table, 2, "[T, T]", "influence")
    (axes,) = axes_of(axes, 1, (7, 6))
    from matplotlib.colors import LogNorm
    from matplotlib.patheffects import withStroke

    T, own = len(table), np.diagonal(table)  # norms at k = t; 0 for a step without a loss
    top = table[(table > 0) & np.isfinite(table)].max(initial=0) or 1.0
    shown = np.ma.masked_where(np.triu(np.ones((T, T), bool), 1) | (own[:, None] == 0), table)
    least = top / 10**DECADES
    shown = np.ma.maximum(shown, least)  # also values that underflowed to 0
    drawn = shown.compressed()
    low = drawn[drawn > 0].min(initial=top)  # of no NaN
    norm = LogNorm(min(low, top / 10), top)
    extent = (0.5, T + 0.5, T + 0.5, 0.5)
    image = axes.imshow(shown, norm=norm, extent=extent, interpolation="nearest")
    label = r"$\|dJ_t / ds_k\|$ (nats per unit of state)"
    axes.figure.colorbar(image, ax=axes, label=label, extend="min" if low == least else "neither")
    t = np.flatnonzero((own > 0) & np.isfinite(own))
    ratios = table[t] / own[t, None]
    first = np.argmax(ratios >= REACH, axis=1)
    label = f"the first k with {REACH:.0%} of the norm at k = t"
    line = draw_curve(axes, first + 1, t + 1, color=_colors.BLACK, linewidth=1, label=label)
    line.set_path_effects([withStroke(linewidth=3, foreground="white")])  # seen on every colour
    lags = [l for l in range(T) if 2 * (t >= l).sum() >= len(t) > 0]
    medians = [np.median(ratios[t >= l, t[t >= l] - l]) for l in lags]
    axes.set(
        xlabel="step k of the state",
        ylabel="step t of the loss",
        title=f"Influence of step k on the loss of step t\n{_describe_trend(np.array(medians))}",
    )
    axes.legend(loc="upper right")
    count_in_whole_numbers(axes.xaxis, axes.yaxis)
    return axes


# --- titles --------------------------------------------------------------------------------------


def _describe_trend(curve: np.ndarray) -> str:
    """Describe how a median by lag changes from its first to its last value."""
    curve = curve[~np.isnan(curve)]
    if len(curve) < 2 or not 0 < curve[0] < np.inf:
        return "no two lags to compare"
    last, ratio = len(curve) - 1, curve[-1] / curve[0]
    if ratio <= 0.5:
        left = f"{ratio:.2g} of lag 0 is left" if ratio else "below the floating range"
        return f"vanishing: {left} at lag {last}"
    if ratio >= 2:
        times = f"{ratio:.2g}" if ratio < 100 else f"{ratio:,.0f}"
        return f"exploding: {times} times lag 0 at lag {last}"
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


# --- arrays -------------------------------------------------------------------------------------


def _of_rank(argument: str, x: Any, rank: int, axes: str, source: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != rank or not x.size or len(set(x.shape)) > 1:
        repair = f"Call jrnn.diagnostics.{source}."
        checks.refuse(argument, f"an array {axes}", f"shape {list(x.shape)}", repair)
    return x


def _positive_or_nan(x: Any) -> np.ndarray:
    """x in float64, with NaN (not drawn) for values that have no logarithm."""
    x = np.asarray(x, np.float64)
    return np.where((x > 0) & np.isfinite(x), x, np.nan)
