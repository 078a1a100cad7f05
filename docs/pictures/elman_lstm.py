"""An Elman network next to an LSTM of the same size at the adding problem."""

from typing import Any, Literal

import adding_problem
import numpy as np
from matplotlib.figure import Figure

from jrnn.plot import _colors as colors
from pictures import figure

Cell = Literal["rnn", "lstm"]
T, H, STEPS, BLOCK = 100, 32, 1000, 20
NETWORKS: dict[str, tuple[Cell, str]] = {  # cell, start
    "Elman": ("rnn", "tanh-orthogonal"),
    "LSTM": ("lstm", "lstm-chrono"),
}
COLORS = {"Elman": colors.VERMILION, "LSTM": colors.BLUE}


def train(cell: Cell, start: str) -> dict[str, Any]:
    """Train one network as `examples/adding_problem.py` does."""
    given: Any = {"lengths": (T,), "hidden_size": H, "steps": STEPS, "block": BLOCK}
    return adding_problem.run(adding_problem.Settings(cell, starts=(start,), **given), T, start)


def draw() -> Figure:
    """Draw the learning curves, and the gradient of the output by lag."""
    drawn = figure(3.9)
    curve, memory = drawn.subplots(1, 2)
    for name, network in NETWORKS.items():
        row, color = train(*network), COLORS[name]
        errors = np.array(row["errors"], float)
        curve.plot(BLOCK * np.arange(1, len(errors) + 1), errors, color=color, label=name)
        for when, line in (("before", "--"), ("after", "-")):
            norms = adding_problem.above_zero(row[when])
            memory.plot(norms, color=color, linestyle=line, label=f"{name}, {when}")
    curve.axhline(adding_problem.GUESSING, color="gray", linestyle=":", label="guessing")
    curve.set(yscale="log", xlabel="training step", ylabel="mean squared error")
    curve.set_title(f"Adding problem, T = {T}, H = {H}")
    memory.set(yscale="log", xlabel="lag l (steps)")
    memory.set_ylabel(r"$\|do_T / ds_{T-l}\|$, 1 at lag 0")
    memory.set_title("Gradient before and after training")
    curve.legend()
    memory.legend(loc="lower left")
    return drawn
