"""Influence of every state on every loss, before and after training."""

from typing import Any

from matplotlib.figure import Figure

from jrnn import plot
from pictures import figure
from pictures.trained import before_and_after

DECADES = 8  # of the colours
START = "gaussian"


def draw() -> Figure:
    """Draw two tables with the same colours, and one colour bar."""
    drawn = figure(3.6)
    panels, measured = drawn.subplots(1, 2, sharey=True), before_and_after(START)
    top = max(m.influence.max() for m in measured)
    for panel, m, when in zip(panels, measured, ("Before", "After"), strict=True):
        image: Any = plot.plot_influence(m.influence, panel).images[0]
        image.set_clim(top / 10**DECADES, top)
        image.colorbar.remove()
        panel.set(title=f"{when} training")
        panel.grid(False)
        handles = panel.get_legend_handles_labels()
        panel.get_legend().remove()
    panels[1].set_ylabel("")
    label = r"gradient norm $\|dJ_t / dh_k\|$"
    drawn.colorbar(image, ax=panels, label=label, extend="min", shrink=0.8)
    drawn.legend(*handles, loc="outside upper center", borderaxespad=1)
    return drawn
