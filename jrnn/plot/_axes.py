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


def count_in_whole_numbers(*axes: Any) -> None:
    """Put ticks at integers alone, as for steps, lags and units.

    Args:
        axes: the x or y axes, such as `panel.xaxis`.
    """
    for axis in axes:
        axis.get_major_locator().set_params(integer=True)
