"""Plot the states of a network: their principal components, and fixed points among them."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jrnn import checks
from jrnn.diagnostics import FixedPoints, PrincipalComponents, project
from jrnn.plot import _colors
from jrnn.plot._axes import axes_of, count_in_whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PATHS = 100  # sequences that are drawn, about
CONDITIONS = 12  # colours that are told apart, at most
KINDS = (  # by the number of unstable directions
    ("stable", _colors.SKY, "o"),
    ("1 unstable direction", _colors.VERMILION, "X"),
    ("more unstable directions", _colors.ORANGE, "^"),
)
SLOW = _colors.GREEN


def plot_principal_components(
    components: PrincipalComponents,
    states: Any,
    axes: Any = None,
    *,
    condition: Any = None,
    mask: Any = None,
) -> np.ndarray:
    """Plot how much each principal component explains, and the states along the first two.

    Args:
        components: the result of `jrnn.diagnostics.principal_components`, of two at least.
        states: `[T, H]` or `[T, B, H]`, or a tuple of such arrays; of more than 100 sequences about
            100 are drawn, chosen at random, of each condition its share and one at least.
        axes: two `matplotlib.axes.Axes`, for the variances and the states; None for a new figure.
        condition: `[B]` numbers or labels, at most 12 different ones: each has its own colour.
        mask: `[T]` or `[T, B]` bool, the steps that are drawn, as in
            `jrnn.diagnostics.principal_components`; None: all.

    Returns:
        `[2]`, the two `Axes`.

    Raises:
        ValueError: not `PrincipalComponents`, one component alone, other states, a mask of another
            shape, not two axes, or conditions that are NaN, not one for each sequence, or too many.
        ImportError: matplotlib is missing.
    """
    paths, kinds = _paths(components, states, condition, mask)
    explained, plane = panels = axes_of(axes, 2, (12, 4.8))
    share = np.cumsum(_shares(components))
    explained.plot(np.arange(1, len(share) + 1), share, marker=".")
    explained.set(
        xlabel="components",
        ylabel="cumulative variance explained (%)",
        ylim=(0, 105),
        title=f"Principal components\n{_dimensions(share)}",
    )
    count_in_whole_numbers(explained.xaxis)
    _draw_paths(plane, paths, kinds)
    begins = np.isfinite(paths).all(0).argmax(0)
    starts = np.take_along_axis(paths, begins[None, None], 1)[:, 0]
    (first,) = plane.plot(*starts, linestyle="none", marker="o", markersize=4)
    first.set_label("first step drawn" if begins.any() else "after the first step")
    shape = jax.tree.leaves(states)[0].shape[:-1]
    _label(plane, components, f"States\n{_describe_paths(shape, mask, paths.shape[-1])}")
    _add_legend(plane)
    return panels


def plot_fixed_points(
    points: FixedPoints,
    components: PrincipalComponents,
    states: Any = None,
    slow: FixedPoints | None = None,
    axes: Any = None,
    *,
    condition: Any = None,
    mask: Any = None,
) -> np.ndarray:
    """Plot fixed points along two principal components, and their eigenvalues.

    Args:
        points: the result of `jrnn.diagnostics.fixed_points`.
        components: of `jrnn.diagnostics.principal_components`, of the same state variables; two
            at least. If you replace its directions, set the labels of the first `Axes`, too.
        states: None, or `[T, H]` or `[T, B, H]`, or a tuple of such arrays, whose paths are drawn
            as well, chosen as in `plot_principal_components`.
        slow: None, or slow points, the result of `fixed_points` with a `speed`.
        axes: two `matplotlib.axes.Axes`, for the states and the eigenvalues; None for a new figure.
        condition: of the `states`, as in `plot_principal_components`.
        mask: of the `states`, as in `plot_principal_components`.

    Returns:
        `[2]`, the two `Axes`.

    Raises:
        ValueError: not `FixedPoints` or `PrincipalComponents`, one component alone, other states,
            not two axes, or a condition or a mask as `plot_principal_components`.
        ImportError: matplotlib is missing.
    """
    checks.result_of("points", points, FixedPoints, "fixed_points")
    checks.result_of("slow", points if slow is None else slow, FixedPoints, "fixed_points")
    places = _along_two(components, points.states)
    if states is None and condition is not None:
        checks.refuse("condition", "None without states", "one", "It gives paths their colours.")
    if states is None and mask is not None:
        checks.refuse("mask", "None without states", "one", "It says which steps are drawn.")
    drawn = None if states is None else _paths(components, states, condition, mask)
    plane, spectrum = panels = axes_of(axes, 2, (12, 5.2))
    if drawn is not None:
        _draw_paths(plane, *drawn)
    if slow is not None:
        label = f"slow point ({len(slow.speeds)})"
        plane.plot(*_along_two(components, slow.states), ".", color=SLOW, markersize=4, label=label)
    turn = np.linspace(0, 2 * np.pi, 361)
    spectrum.plot(np.cos(turn), np.sin(turn), color="gray", linestyle="--", label=r"$|\lambda|=1$")
    edge = plane.xaxis.label.get_color()  # of text: it contrasts with the background
    for kind, (label, color, marker) in enumerate(KINDS):
        chosen = np.minimum(points.unstable, len(KINDS) - 1) == kind
        if chosen.any():
            values = points.eigenvalues[chosen].ravel()
            spectrum.plot(values.real, values.imag, marker, color=color, label=label, markersize=5)
            label = f"{label} ({chosen.sum()})"
            look: dict[str, Any] = {"markeredgecolor": edge, "markersize": 11, "zorder": 3}
            plane.plot(*places[:, chosen], marker, color=color, label=label, **look)
    _label(plane, components, f"Fixed points\n{_describe_points(points)}")
    spectrum.set(
        xlabel=r"real part of $\lambda$",
        ylabel=r"imaginary part of $\lambda$",
        title=f"Eigenvalues of the Jacobian\n{_describe_eigenvalues(points)}",
        aspect="equal",
    )
    spectrum.locator_params(nbins=5)  # of more the labels along x would touch
    for panel in panels:
        _add_legend(panel)
    return panels


def _draw_paths(axes: "Axes", paths: np.ndarray, kinds: np.ndarray | None) -> None:
    """Draw paths `[2, T, B]`, with a colour for each of their kinds `[B]`."""
    look: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.6, "zorder": 1}
    if kinds is None:
        axes.plot(*paths, color="gray", **look)
        return
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    values = np.unique(kinds)
    dark = np.mean(to_rgb(axes.xaxis.label.get_color())) > 0.5  # as for light text
    low, high = (0.3, 1.0) if dark else (0.0, 0.85)  # the others are next to the background
    colors = colormaps["viridis"](np.linspace(low, high, len(values)))
    for value, color in zip(values, colors, strict=True):
        first, *_ = axes.plot(*paths[..., kinds == value], color=color, **look)
        first.set_label(f"{value:g}" if kinds.dtype.kind == "f" else str(value))


def _add_legend(axes: "Axes") -> None:
    """Add the legend in a free band at the top, where it covers no point."""
    rows = -(-len(axes.get_legend_handles_labels()[0]) // 2)
    if rows:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + (0.04 + 0.08 * rows) * (high - low))
        legend = axes.legend(loc="upper center", ncols=2, fontsize="small")
        for line in legend.get_lines():  # a thin path shows its colour, a short sample does not
            line.set(linewidth=2, alpha=1)


def _label(axes: "Axes", components: PrincipalComponents, title: str) -> None:
    share = _shares(components)
    x, y = (f"component {i + 1} ({share[i]:.0f} % of the variance)" for i in range(2))
    axes.set(xlabel=x, ylabel=y, title=title)


# --- titles --------------------------------------------------------------------------------------


def _dimensions(share: np.ndarray) -> str:
    if share[-1] < 90:
        return f"{len(share)} explain {share[-1]:.0f} %"
    n = int(np.argmax(share >= 90)) + 1
    return f"{n} explain{'s' * (n == 1)} {share[n - 1]:.0f} %"


def _describe_paths(shape: tuple[int, ...], mask: Any, count: int) -> str:
    T, B = shape[0], int(np.prod(shape[1:]))
    counts = T if mask is None else np.asarray(mask).sum(0)
    steps = " to ".join(map(str, sorted({int(np.min(counts)), int(np.max(counts))})))
    drawn = f"{count} of {B}" if count < B else f"{B}"
    return f"{drawn} sequence{'s' * (B != 1)} of {steps} steps"


def _describe_points(points: FixedPoints) -> str:
    stable, total = int((points.unstable == 0).sum()), len(points.unstable)
    return f"{stable} stable, {total - stable} unstable" if total else "none found"


def _describe_eigenvalues(points: FixedPoints) -> str:
    if not len(points.unstable):
        return "none"
    return f"largest modulus {np.abs(points.eigenvalues).max():.3g}"


# --- arrays --------------------------------------------------------------------------------------


def _shares(components: PrincipalComponents) -> np.ndarray:
    """`[n]`: the variance along each component in % of all."""
    total = max(float(components.total), float(np.finfo(np.float64).tiny))
    return 100 * np.asarray(components.variances, np.float64) / total


def _along_two(components: PrincipalComponents, states: Any) -> np.ndarray:
    """`[2, ...]`."""
    checks.result_of("components", components, PrincipalComponents, "principal_components")
    n = components.directions.shape[1]
    if n < 2:
        checks.refuse("components", "two or more", n, "They span the plane of the picture.")
    return np.moveaxis(np.asarray(project(components, states), np.float64)[..., :2], -1, 0)


def _paths(
    components: PrincipalComponents, states: Any, condition: Any, mask: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """`[2, T, B]`, NaN at steps that do not count, and the conditions `[B]`; B about `PATHS`."""
    paths = _along_two(components, states)
    if paths.ndim not in (2, 3):
        came = f"shape {list(paths.shape[1:])} before the features"
        checks.refuse("states", "arrays [T, H] or [T, B, H]", came, "Time is the first axis.")
    checks.states_alike(states, mask)
    if mask is not None:
        paths = np.where(np.asarray(mask), paths, np.nan)
    paths = paths.reshape(*paths.shape[:2], -1)
    B = paths.shape[-1]
    if condition is None:
        return paths[..., _chosen(np.zeros(B))], None
    kinds = np.asarray(condition)
    if kinds.shape != (B,):
        repair = "It is the condition of each sequence."
        checks.refuse("condition", f"shape [B] = [{B}]", f"shape {list(kinds.shape)}", repair)
    if kinds.dtype.kind == "f" and np.isnan(kinds).any():
        repair = "Leave its sequences out, or give them a number of their own."
        checks.refuse("condition", "numbers or labels", "NaN", repair)
    if (count := len(np.unique(kinds))) > CONDITIONS:
        repair = "Group them, for example by jnp.sign or jnp.round."
        checks.refuse("condition", f"at most {CONDITIONS} different values", count, repair)
    chosen = _chosen(kinds)
    return paths[..., chosen], kinds[chosen]


def _chosen(kinds: np.ndarray) -> np.ndarray:
    """The sequences that are drawn, of kinds `[B]`: every n-th may all be of one condition."""
    share, rng = min(1, PATHS / len(kinds)), np.random.default_rng(0)
    groups = [np.flatnonzero(kinds == value) for value in np.unique(kinds)]
    counts = [max(1, round(share * len(group))) for group in groups]
    picks = [rng.choice(g, n, replace=False) for g, n in zip(groups, counts, strict=True)]
    return np.sort(np.concatenate(picks))
