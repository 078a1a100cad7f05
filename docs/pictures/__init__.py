"""The pictures of the documentation; each module draws the one of its name.

    python docs/pictures                     # all, in about two minutes on two cores
    python docs/pictures speed memory        # these two

The forecast needs its data: pip install --no-deps statsmodels==0.15.0

Every picture is 7 inches wide with letters of 9 to 11 points: legible where a page shows it 700
pixels wide. It is a light card with round corners, which suits light and dark pages of GitHub; on
dark pages of the site, `assets/site.css` makes the card dark.
"""

import importlib
import io
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

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
DPI = 200  # two pixels for each of a page
CARD = "#f7f5f0"  # that of docs/figures
MARGIN, RADIUS = 0.12, 0.12  # inches
STYLE: Any = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=[colors.BLUE, colors.VERMILION, colors.GREEN, colors.ORANGE]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.facecolor": CARD,
    "figure.facecolor": CARD,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": DPI,
}


def figure(height: float) -> Figure:
    """A new figure, `height` inches high."""
    drawn, (x, y) = Figure(figsize=(WIDTH, height)), (MARGIN / WIDTH, MARGIN / height)
    drawn.set_layout_engine("constrained", rect=(x, y, 1 - 2 * x, 1 - 2 * y))
    return drawn


def write(name: str, folder: Path) -> Path:
    """Draw a picture, and write it as a PNG of 256 colours, a third as large as one of all.

    The last colour is transparent: that of the corners.
    """
    path, file = folder / f"{name}.png", io.BytesIO()
    with matplotlib.rc_context(STYLE):
        importlib.import_module(f"pictures.{name}").draw().savefig(file, format="png")
    found = Image.open(file).convert("RGB").quantize(255, dither=Image.Dither.NONE)
    corners = Image.new("1", found.size, 1)
    (width, height), radius = found.size, RADIUS * DPI
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, width - 1, height - 1), radius, 0)
    found.putpalette([*(found.getpalette() or ()), 255, 255, 255])
    found.paste(255, mask=corners)
    found.save(path, optimize=True, transparency=255)
    return path
