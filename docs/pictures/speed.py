"""Time of a gradient: jrnn, its rivals and the matmul floor, from the figures in `speed.json`."""

import json
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jrnn.plot import _colors as colors
from pictures import FOLDER, figure

LOOKS: dict[str, dict[str, Any]] = {
    "matmul floor": {"color": "gray", "marker": "|", "markersize": 11, "markeredgewidth": 2},
    "jrnn, XLA": {"color": colors.BLACK, "marker": "D", "fillstyle": "none"},
    "best autodiff": {"color": colors.BLUE, "marker": "o"},
    "flax": {"color": colors.SKY, "marker": "s"},
    "haiku": {"color": colors.GREEN, "marker": "^"},
    "keras": {"color": colors.ORANGE, "marker": "v"},
    "torch": {"color": colors.VERMILION, "marker": "X"},
}
# Programs with nearly the same time are drawn below each other.
SHIFTS = {"best autodiff": -0.27, "flax": -0.09, "haiku": 0.09, "keras": 0.27}
MARKS = {"linestyle": "none", "markersize": 5}
GAP = 1.2  # rows between two kinds of networks
TICKS = (0.3, 0.5, 1, 2, 3, 5, 10, 20)


def draw() -> Figure:
    """Draw one line for each shape, and one mark for each program."""
    rows = json.loads((FOLDER / "speed.json").read_text())["rows"]
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    heights = [n + GAP * cells.index(row["cell"]) for n, row in enumerate(rows)]
    drawn = figure(6)
    panel = drawn.subplots()
    panel.axvline(1, color=colors.BLACK, linewidth=2, label="jrnn, native")
    for program, look in LOOKS.items():
        ratios = [row["ratio"].get(program) for row in rows]  # None is not drawn
        y = np.array(heights) + SHIFTS.get(program, 0)
        panel.plot(ratios, y, label=program, **{**MARKS, **look})
    for cell in cells:
        first = heights[[row["cell"] for row in rows].index(cell)]
        panel.text(0.01, first - 0.75, cell, weight="bold", transform=panel.get_yaxis_transform())
    panel.set_yticks(heights, [", ".join(map(str, row["shape"])) for row in rows])
    panel.set(xscale="log", xlabel="time / time of jrnn, native", ylabel="T, B, I, H")
    panel.set_xticks(TICKS, [f"{x:g}" for x in TICKS])
    panel.minorticks_off()
    panel.set_ylim(heights[-1] + 0.7, -1.5)
    title = "Time of the gradient on a CPU, divided by that of jrnn"
    place: Any = {"loc": "outside upper center", "borderaxespad": 1}
    drawn.legend(**place, ncols=4, title=title, title_fontsize=11)
    return drawn
