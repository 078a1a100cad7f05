"""Draw the figures of the derivation: python docs/figures/draw.py [FOLDER].

Each figure has a panel of its own, so that it can be read on a light and on a dark page. The
colours are those of Okabe and Ito, darker, which the colour-blind can tell apart.
"""

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

WIDTH = 7.0  # inches; 100 pixels each where the page shows it
PANEL, INK, GREY = "#f7f5f0", "#202020", "#8a8a8a"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#b87400", "#007a5a", "#c44e00"
COLORS = {3: BLUE, 2: ORANGE, 1: GREEN}  # of the losses
STATE, LOSS = "#dcebf5", "#f8e3d4"
STYLE = {
    "font.size": 12,
    "mathtext.fontset": "cm",
    "svg.fonttype": "path",  # the same on every machine
    "svg.hashsalt": "jrnn",
    "savefig.facecolor": PANEL,
}


def canvas(height, xlim, ylim):
    """A figure of the width of a page, and its axes without a frame."""
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=xlim, ylim=ylim)
    axes.axis("off")
    return figure, axes


def box(axes, x, y, text, *, width=0.9, height=0.62, edge=INK, fill="white", size=17, line=1.4):
    """A rounded box with a text in its middle."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, fc=fill, ec=edge, lw=line, zorder=3)
    )
    axes.text(x, y, text, ha="center", va="center", size=size, color=INK, zorder=4)


def arrow(axes, start, end, label="", *, color=INK, shift=(0, 0), size=16, style="-", line=1.5):
    """An arrow, with its label next to its middle."""
    drawn = {"arrowstyle": "-|>", "color": color, "lw": line, "ls": style, "shrinkA": 0}
    axes.annotate("", end, start, arrowprops=drawn | {"shrinkB": 0, "mutation_scale": 13}, zorder=4)
    if label:
        x, y = ((a + b) / 2 + s for a, b, s in zip(start, end, shift, strict=True))
        axes.text(x, y, label, ha="center", va="center", size=size, color=color)


def unrolled():
    """Three steps of the network: the same three weights at every step."""
    figure, axes = canvas(4.3, (0, 8.2), (-0.5, 4.55))
    states = {0: 0.85, 1: 2.75, 2: 4.75, 3: 6.75}
    box(axes, states[0], 1.35, "$h_0$", edge=GREY)
    for t in (1, 2, 3):
        x = states[t]
        for y, name in ((0, "x"), (1.35, "h"), (2.7, "o"), (3.95, "J")):
            fill = {"h": STATE, "J": LOSS}.get(name, "white")
            box(axes, x, y, f"${name}_{t}$", fill=fill)
        arrow(axes, (x, 0.31), (x, 1.04), "$w_{ih}$", color=GREEN, shift=(0.4, 0))
        arrow(axes, (x, 1.66), (x, 2.39), "$w_{ho}$", color=ORANGE, shift=(0.42, 0))
        arrow(axes, (x, 3.01), (x, 3.64))
        arrow(
            axes,
            (states[t - 1] + 0.45, 1.35),
            (x - 0.45, 1.35),
            "$w_{hh}$",
            color=BLUE,
            shift=(0, 0.24),
        )
        axes.text(x + 0.52, 3.95, f"$y_{t}$", ha="left", va="center", size=17)
    arrow(axes, (states[3] + 0.45, 1.35), (8.0, 1.35), color=BLUE, style="--")
    for y, text in ((0, "input"), (2.7, "logits"), (3.95, "loss, label")):
        axes.text(0.12, y, text, va="center", size=13, color="#555555")
    axes.text(0.12, 1.98, "state", va="center", size=13, color="#555555")
    return figure


def paths():
    """The paths from the losses of three steps to w_hh: each alone, and added on the way."""
    figure, axes = canvas(7.1, (0, 7), (-0.15, 6.95))
    top, bottom = 3.7, 0.0
    _frame_of_paths(axes, top, "The double sum: one path for each loss $t$ and each use $k$")
    # x of the start and of the end, and the height at which the path goes back; longer: higher.
    lanes = {
        (3, 3): (0.2, 0.2, None),
        (3, 2): (0.0, 0.2, 1.4),
        (3, 1): (-0.2, 0.0, 1.6),
        (2, 2): (0.0, 0.0, None),
        (2, 1): (-0.2, 0.2, 1.4),
        (1, 1): (-0.2, -0.2, None),
    }
    for (t, k), (start, end, lane) in lanes.items():
        start, end, lane = _x(t) + start, _x(k) + end, top + (lane or 1.5)
        color, line = COLORS[t], 2
        xs, ys = [start, start, end, end], [top + 2.27, lane, lane, top + 0.6]
        axes.plot(xs, ys, color=color, lw=line, zorder=4)
        arrow(axes, (end, top + 0.6), (end, top + 0.44), color=color, line=line)
    _frame_of_paths(
        axes,
        bottom,
        r"The recursion: errors are added, times $\varphi'(a_t)$, and go back together",
    )
    for t in (3, 2, 1):
        x = _x(t)
        arrow(axes, (x, bottom + 2.27), (x, bottom + 1.72), color=COLORS[t], line=2)
        axes.text(x - 0.12, bottom + 2.12, f"$dhs_{t}$", size=15, ha="right", va="center")
        axes.text(x, bottom + 1.5, r"$\oplus$", size=26, ha="center", va="center", zorder=4)
        arrow(axes, (x, bottom + 1.3), (x, bottom + 0.44), line=2)
        axes.text(x + 0.12, bottom + 0.72, rf"$h_{t - 1}^\top\delta_{t}$", size=16, va="center")
    for t in (3, 2):
        ends = (_x(t) - 0.2, bottom + 1.5), (_x(t - 1) + 0.2, bottom + 1.5)
        label = rf"$\delta_{t}w_{{hh}}^\top$"
        arrow(axes, *ends, label, shift=(0, 0.28), line=2, size=16)
    return figure


def _x(t):
    return 1.3 + 2.2 * (t - 1)


def _frame_of_paths(axes, bottom, title):
    axes.text(0.2, bottom + 3.02, title, size=14, va="center", color=INK)
    for t in (1, 2, 3):
        box(axes, _x(t), bottom + 2.52, f"$J_{t}$", width=0.9, height=0.5, fill=LOSS, size=17)
        box(axes, _x(t), bottom + 1.5, "", width=1.1, height=0.96, edge=GREY)
        axes.text(_x(t) + 0.36, bottom + 1.78, f"$h_{t}$", size=17, ha="center", zorder=4)
    box(axes, _x(2), bottom + 0.2, "$dw_{hh}$", width=5.6, height=0.46, fill=STATE, size=17)


def both_passes():
    """Chavan's diagram of both passes, in his notation, with dL/dZ and dL/dy_3 corrected."""
    figure, axes = canvas(6.6, (0, 7), (0.1, 6.75))
    rows = [
        (r"$L = -\log Z_m$", r"$L$", {}),
        (
            r"$Z = \mathrm{softmax}(y_3)$",
            r"$\partial L/\partial Z = (0,\ldots,\,-1/Z_m,\ldots,\,0)$",
            {"edge": RED, "line": 2.6},
        ),
        (
            r"$y_3 = W_{hy}\,h_3$",
            r"$\partial L/\partial y_3 = Z - 1_m$",
            {"edge": RED, "line": 2.6},
        ),
    ]
    for t in (3, 2, 1):
        back = (
            r"$\partial L/\partial h_3 = W_{hy}^\top\,(Z - 1_m)$"
            if t == 3
            else rf"$\partial L/\partial h_{t} = W_{{hh}}^\top\,[(1-h_{t + 1}^2)\odot"
            rf"\partial L/\partial h_{t + 1}]$"
        )
        rows.append((rf"$h_{t} = \tanh(W_{{hh}}\,h_{t - 1} + W_{{xh}}\,x_{t} + b_h)$", back, {}))
    rows.append((r"$h_0 = 0$", "a constant: no gradient", {"edge": GREY}))
    left, right, heights = 1.72, 5.22, [5.85 - 0.88 * n for n in range(len(rows))]
    axes.text(left, 6.45, "forward", ha="center", va="center", size=14, color=BLUE)
    axes.text(
        right, 6.45, "backward (thick: corrected)", ha="center", va="center", size=14, color=RED
    )
    for n, ((forward, backward, marked), y) in enumerate(zip(rows, heights, strict=True)):
        last = n == len(rows) - 1
        edge = {"edge": GREY} if last else {}
        box(axes, left, y, forward, width=3.2, height=0.56, size=15, **edge)
        box(axes, right, y, backward, width=3.4, height=0.56, size=15, **marked)
        if n:
            above = heights[n - 1]
            arrow(axes, (left, y + 0.27), (left, above - 0.27), color=BLUE)
            dashed = {"style": "--"} if last else {}
            arrow(axes, (right, above - 0.27), (right, y + 0.27), color=RED, **dashed)
    return figure


FIGURES = {"unrolled": unrolled, "paths": paths, "both_passes": both_passes}


def main(folder):
    """Draw every figure into a folder, as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in FIGURES.items():
            draw().savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
