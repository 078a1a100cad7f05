"""The pictures of the documentation; each module draws the one of its name.

    python docs/pictures                     # all, in about two minutes on two cores
    python docs/pictures speed memory        # these two

The forecast needs its data: pip install --no-deps statsmodels==0.15.0

Every picture is 7 inches wide with letters of 9 to 11 points: legible where a page shows it 700
pixels wide. Its background is white, on light and on dark pages.
"""

import importlib
import io
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image

from jrnn.plot import _colors as colors

FOLDER = Path(__file__).parent
PICTURES = (
    "speed",
    "memory",
    "gradient_flow",
    "influence",
    "elman_lstm",
    "fixed_points",
    "forecast",
)
WIDTH = 7  # inches
STYLE: Any = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=[colors.BLUE, colors.VERMILION, colors.GREEN, colors.ORANGE]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": 200,  # two pixels for each of a page
}


def figure(height: float) -> Figure:
    """A new figure, `height` inches high."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def write(name: str, folder: Path) -> Path:
    """Draw a picture, and write it as a PNG of 256 colours, a third as large as one of all."""
    path, file = folder / f"{name}.png", io.BytesIO()
    with matplotlib.rc_context(STYLE):
        importlib.import_module(f"pictures.{name}").draw().savefig(file, format="png")
    Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    return path
