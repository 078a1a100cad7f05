"""Gradient norm by lag, before and after training, from two initial w_hh."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jrnn.plot import _colors as colors
from pictures import figure
from pictures.trained import before_and_after

STARTS = {"orthogonal": colors.BLUE, "gaussian": colors.VERMILION}
LINES = {"before": "--", "after": "-"}
LOWEST = 1e-10  # share of the largest norm that is drawn


def draw() -> Figure:
    """Draw two lines for each start, with a band after training."""
    drawn = figure(4)
    panel, top = drawn.subplots(), 0.0
    for start, color in STARTS.items():
        for (when, line), m in zip(LINES.items(), before_and_after(start), strict=True):
            low, median, high = np.where(m.flow.percentiles > 0, m.flow.percentiles, np.nan)
            look: Any = {"color": color, "linestyle": line, "label": f"{start} $w_{{hh}}$, {when}"}
            panel.plot(m.flow.lags, median, linewidth=2, **look)
            if when == "after":
                panel.fill_between(m.flow.lags, low, high, color=color, alpha=0.15, linewidth=0)
            top = max(top, float(np.nanmax(high)))
    panel.set(yscale="log", ylim=(LOWEST * top, 3 * top), xlabel="lag l (steps)")
    panel.set_ylabel(r"gradient norm $\|dJ_t / dh_{t-l}\|$")
    panel.set_title("Gradient norm by lag, before and after training")
    panel.legend()
    return drawn
