"""An Elman network next to an LSTM of the same size at the adding problem."""

from typing import Any

import adding_problem
import numpy as np
from matplotlib.figure import Figure

from jrnn.plot import _colors as colors
from pictures import figure

T, H, STEPS, BLOCK = 100, 32, 1000, 20
NETWORKS = {  # cell, start, learning rate
    "Elman": ("rnn", "tanh-orthogonal", "1e-3"),
    "LSTM": ("lstm", "lstm-chrono", "5e-3"),
}
COLORS = {"Elman": colors.VERMILION, "LSTM": colors.BLUE}


def train(cell: str, start: str, learning_rate: str) -> dict[str, Any]:
    """Train one network as `examples/adding_problem.py` does."""
    options = [f"--lengths={T}", f"--hidden-size={H}", f"--steps={STEPS}", f"--block={BLOCK}"]
    options += [f"--cell={cell}", f"--starts={start}", f"--learning-rate={learning_rate}"]
    return adding_problem.run(adding_problem.parse(options), T, start)


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
