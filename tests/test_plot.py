"""Pictures: what is drawn, what the titles say, and what is left alone."""

import builtins
import io
import subprocess
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jrnn import plot
from jrnn.derivation import LSTMGates
from jrnn.diagnostics import GradientFlow


def flow(median, uses=(1.0, 2.0, 4.0)):
    median = np.asarray(median, float)
    percentiles = np.stack([median / 2, median, median * 2])
    return GradientFlow(np.arange(len(median)), percentiles, np.asarray(uses, float))


def drawn(axes):
    file = io.BytesIO()
    axes.figure.savefig(file, format="png", dpi=20)
    return file.getvalue().startswith(b"\x89PNG")


def words(axes):
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    return axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), legend


DECAY = 0.5 ** (np.arange(101) / 10)  # half-life 10
TENDENCIES = {
    "vanishing": (DECAY, "half-life 10 steps: vanishing, 0.001 of lag 0 is left at lag 100"),
    "in a step": ([1, 0.25], "half-life 1 step: vanishing, 0.2 of lag 0 is left at lag 1"),
    "exploding": (1 / DECAY, "doubling time 10 steps: exploding, 1e+03 times lag 0 at lag 100"),
    "kept": (DECAY[:10], "within a factor of 2 of lag 0 at lag 9"),
    "there and back": ([1, 0.1, 1], "within a factor of 2 of lag 0 at lag 2"),
    "underflow": ([1e-30, 0, 0], "half-life 1 step: vanishing, below the floating range at lag 2"),
    "overflow": ([1, 4, np.inf], "doubling time 1 step: exploding, inf times lag 0 at lag 2"),
    "no loss that far": ([1, 0.4, np.nan], "half-life 1 step: vanishing, 0.4 of lag 0 is left at"),
    "one lag": ([1], "no two lags to compare"),
    "no loss": ([0, 0], "no two lags to compare"),
}


@pytest.mark.parametrize("name", TENDENCIES)
def test_gradient_flow(name):
    curve, text = TENDENCIES[name]
    panels = plot.plot_gradient_flow(flow(curve))
    assert panels.shape == (2,)
    title, x, y, legend = words(panels[0])
    assert title.startswith("Loss of one step, by lag\n")
    assert text in title
    assert (x, "nats" in y) == ("lag l (steps)", True)
    assert legend == ["10th to 90th percentile", "median over steps and batch"]
    title, x, y, legend = words(panels[1])
    assert title.endswith("largest at k = 3, 2 times the median")
    assert (x, "nats" in y, len(legend)) == ("step k", True, 1)
    assert drawn(panels[0])


def test_gradient_flow_draws_the_numbers():
    over_lags, over_steps = plot.plot_gradient_flow(flow(DECAY))
    np.testing.assert_array_equal(over_lags.lines[0].get_xydata(), np.c_[np.arange(101), DECAY])
    np.testing.assert_array_equal(over_steps.lines[0].get_xydata(), [[1, 1], [2, 2], [3, 4]])
    assert (over_lags.get_yscale(), over_steps.get_yscale()) == ("log", "linear")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_nothing_to_draw(value):
    panels = plot.plot_gradient_flow(flow([value, value], [value] * 3))
    assert panels[1].get_title().endswith("no norm above 0")
    assert drawn(panels[0])
    assert drawn(plot.plot_influence(np.full((3, 3), value)))
    assert drawn(plot.plot_lyapunov_exponents(np.full(3, value)))


EXPONENTS = {
    "shrinking": (
        [-0.1, -0.5],
        "largest -0.1 per step: changes halve in 6.93 steps",
        r"$\lambda_i$",
    ),
    "growing": ([0.1, -0.5], "largest 0.1 per step: changes double in 6.93 steps", r"$\lambda_i$"),
    "kept": ([0.0], "largest exponent 0", r"$\lambda_i$"),
    "lost": ([-1.0, -np.inf, -np.inf], "changes halve in", r"$\lambda_i$ (2 more at $-\infty$)"),
}


@pytest.mark.parametrize("name", EXPONENTS)
def test_lyapunov_exponents(name):
    values, text, label = EXPONENTS[name]
    axes = plot.plot_lyapunov_exponents(jnp.asarray(values))
    title, x, y, legend = words(axes)
    assert text in title
    assert (x, "nats per step" in y) == ("i", True)
    assert legend == [label, "0: changes of the state are kept"]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), np.arange(1, len(values) + 1))
    assert drawn(axes)


def table(T=40, half_life=3, lossless=()):
    lag = np.subtract.outer(np.arange(T), np.arange(T))
    norms = np.tril(0.5 ** (np.maximum(lag, 0) / half_life))
    norms[list(lossless)] = 0
    return norms


def test_influence():
    norms = table(lossless=[7])
    norms[30, 0] = 0  # underflow: as dark as it gets, unlike what is above the diagonal
    axes = plot.plot_influence(norms)
    title, x, y, legend = words(axes)
    assert title == (
        "Influence of step k on the loss of step t\n"
        "half-life 3 steps: vanishing, 0.01 of lag 0 is left at lag 19"
    )
    assert (x, y) == ("step k of the state", "step t of the loss")
    assert legend == ["the first k with 1% of the norm at k = t"]
    shown = axes.images[0].get_array()
    lossless = np.arange(40)[:, None] == 7
    above = np.triu(np.ones((40, 40), bool), 1)
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), above | lossless)
    assert shown[30, 0] == 1e-12
    np.testing.assert_array_equal(shown[20, :21], norms[20, :21])
    k, t = axes.lines[0].get_data()
    assert 8 not in t  # steps count from 1
    assert dict(zip(t, k, strict=True))[40] == 40 - 19  # 0.5 ** (19 / 3) >= 0.01 > 0.5 ** (20 / 3)
    (bar,) = (a for a in axes.figure.axes if a is not axes)
    assert "nats" in bar.get_ylabel()
    assert drawn(axes)


def test_influence_of_a_broken_network():
    norms = table()
    norms[20:] = np.nan
    norms[10, :5] = np.inf
    assert drawn(plot.plot_influence(norms))


def gate(T=50, B=3, taus=(1.0, 2.0, 4.0, 100.0)):
    """A constant gate for each unit, of which the time constants are known."""
    return np.broadcast_to(np.exp(-1 / np.array(taus)), (T, B, len(taus))).copy()


def test_forget_gate():
    f = gate()
    f[:, 0] **= 0.5  # of one sequence every time constant is twice as long
    f[:, 1] **= 1.5
    panels = plot.plot_forget_gate(f)
    assert panels.shape == (3,)
    title, x, y, legend = words(panels[0])
    medians = np.median(f[0]), np.median(f[-1])
    assert title == "Forget gate over time\nmedian {:.2g} at first, {:.2g} at last".format(*medians)
    assert (x, y) == ("step t", "forget gate f (1: nothing is forgotten)")
    assert legend == ["10th to 90th percentile", "median over units and batch"]
    np.testing.assert_array_equal(panels[0].lines[0].get_xdata(), np.arange(1, 51))
    np.testing.assert_allclose(panels[0].lines[0].get_ydata(), medians[0])
    title, x, y, legend = words(panels[1])
    assert title == f"Forget gate by unit\nfrom {f[..., 0].mean():.2g} to {f[..., 3].mean():.2g}"
    assert legend == ["4 units", "median"]
    assert sum(bar.get_height() for bar in panels[1].patches) == 4
    title, x, y, legend = words(panels[2])
    assert title == "Memory of the units\ntime constant 3 steps (median), 100 at most"
    assert (x.endswith("(steps)"), y, legend) == (True, "units", ["4 units", "median"])
    assert sum(bar.get_height() for bar in panels[2].patches) == 4
    assert (panels[2].get_xscale(), panels[2].lines[0].get_xdata()[0]) == ("log", pytest.approx(3))
    assert drawn(panels[0])


def test_forget_gate_of_one_sequence_with_padding():
    f = gate(B=1)[:, 0]
    f[40:] = np.nan
    panels = plot.plot_forget_gate(f)
    assert panels[0].lines[0].get_xdata()[-1] == 40
    assert "3 steps (median), 100 at most" in panels[2].get_title()
    batch = gate()
    batch[40:, 1] = np.nan
    assert "3 steps (median), 100 at most" in plot.plot_forget_gate(batch)[2].get_title()


def test_forget_gate_that_is_closed_or_open():
    f = gate(taus=(2.0, 3.0, 1.0))
    f[..., 0], f[..., 1] = 0, 1
    panels = plot.plot_forget_gate(f)
    assert panels[2].get_title().endswith("time constant 1 steps (median), inf at most")
    assert words(panels[2])[3] == ["1 unit (2 more at 0 or infinity)", "median"]
    assert panels[2].get_xscale() == "linear"
    assert drawn(panels[0])
    assert drawn(plot.plot_forget_gate(np.ones((2, 3)))[0])
    assert drawn(plot.plot_forget_gate(np.zeros((1, 1)))[0])


def test_axes_of_the_user():
    figure = Figure()
    first, second, third, fourth = figure.subplots(2, 2).ravel()
    assert list(plot.plot_gradient_flow(flow(DECAY), [first, second])) == [first, second]
    assert plot.plot_lyapunov_exponents(np.ones(3), third) is third
    assert plot.plot_influence(table(), axes=fourth) is fourth
    assert all(isinstance(a, Axes) for a in (first, second, third, fourth))


REFUSED = {
    "flow": (
        lambda: plot.plot_gradient_flow(np.ones((3, 4))),
        "flow: expected a GradientFlow; got ndarray. Call jrnn.diagnostics.gradient_flow.",
    ),
    "one panel for two": (
        lambda: plot.plot_gradient_flow(flow(DECAY), Figure().subplots()),
        "axes: expected 2 matplotlib Axes; got 1. None makes them.",
    ),
    "a table of exponents": (
        lambda: plot.plot_lyapunov_exponents(np.ones((2, 2))),
        "exponents: expected an array [n]; got shape [2, 2]. "
        "Call jrnn.diagnostics.lyapunov_exponents.",
    ),
    "no exponent": (lambda: plot.plot_lyapunov_exponents([]), "exponents: expected an array [n]"),
    "a gate of one step": (
        lambda: plot.plot_forget_gate(np.ones(3)),
        "f: expected an array [T, H] or [T, B, H]; got shape [3]. "
        "Call jrnn.diagnostics.gates(...).f, or .z.",
    ),
    "all gates": (
        lambda: plot.plot_forget_gate(LSTMGates(*[gate()[:, 0]] * 4)),
        "f: expected an array [T, H] or [T, B, H]; got LSTMGates. "
        "Call jrnn.diagnostics.gates(...).f, or .z.",
    ),
    "a gate of tanh": (
        lambda: plot.plot_forget_gate(np.full((2, 3), -0.5)),
        "f: expected numbers from 0 to 1; got -0.5. ",
    ),
    "padding alone": (
        lambda: plot.plot_forget_gate(np.full((2, 3), np.nan)),
        "f: expected numbers from 0 to 1; got NaN alone. ",
    ),
    "half a table": (
        lambda: plot.plot_influence(np.ones((2, 3))),
        "table: expected an array [T, T]; got shape [2, 3]. Call jrnn.diagnostics.influence.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, text = REFUSED[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert text in str(error.value)


def test_without_matplotlib(monkeypatch):
    original = builtins.__import__

    def missing(name, *args):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    for call in (
        lambda: plot.plot_gradient_flow(flow(DECAY)),
        lambda: plot.plot_lyapunov_exponents(np.ones(3)),
        lambda: plot.plot_influence(table()),
        lambda: plot.plot_forget_gate(gate()),
    ):
        with pytest.raises(
            ImportError, match=r"need matplotlib: pip install -e '\.\[plot\]', in the clone of jrnn"
        ):
            call()


def test_matplotlib_comes_late_and_keeps_its_settings():
    code = """
import sys
import numpy as np
from jrnn import plot
from jrnn.derivation import LSTMGates
assert "matplotlib" not in sys.modules
axes = plot.plot_lyapunov_exponents(np.ones(3))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    before = dict(matplotlib.rcParams)
    plot.plot_influence(table())
    assert before == dict(matplotlib.rcParams)
