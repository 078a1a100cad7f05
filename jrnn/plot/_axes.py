"""The axes of a plot: those of the user, or those of a new figure."""

from typing import Any

import numpy as np

from jrnn import checks
from jrnn.extras import install


def axes_of(axes: Any, count: int, size: tuple[float, float]) -> np.ndarray:
    """The axes to draw on.

    Args:
        axes: those of the user, or None.
        count: how many the plot needs.
        size: of a new figure, in inches.

    Returns:
        `[count]` axes.

    Raises:
        ValueError: another number of axes.
        ImportError: matplotlib is missing.
    """
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


def draw_curve(axes: Any, x: Any, y: np.ndarray, **look: Any) -> Any:
    """Draw a curve, with a dot where a point has no neighbour: a line alone does not show it.

    Args:
        axes: to draw on.
        x: `[n]`.
        y: `[n]`, NaN where nothing is drawn.
        **look: options of `Axes.plot`.

    Returns:
        The line.
    """
    there = np.pad(np.isfinite(y), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    dots = {"marker": ".", "markevery": alone} if alone.any() else {}
    (line,) = axes.plot(x, y, **dots, **look)
    return line


def count_in_whole_numbers(*axes: Any) -> None:
    """Put ticks at integers alone, as for steps, lags and units.

    Args:
        axes: the x or y axes, such as `panel.xaxis`.
    """
    for axis in axes:
        axis.get_major_locator().set_params(integer=True)
