"""The fixed points by which the network of `examples/perceptual_decision.py` decides."""

from matplotlib.figure import Figure
from perceptual_decision import Settings, look_inside, train

from jrnn import plot
from pictures import figure

SETTINGS = Settings(steps=600, batch_size=32)


def draw(settings: Settings = SETTINGS) -> Figure:
    """Train the network, and draw its states with the fixed and the slow points."""
    free, _ = train(settings)
    inside = look_inside(settings, free)
    drawn, not_shown = figure(4.4), figure(4.4)
    panels = [drawn.subplots(), not_shown.subplots()]  # the second has the eigenvalues
    plot.plot_fixed_points(inside.points, inside.components, inside.paths, inside.slow, panels)
    return drawn
