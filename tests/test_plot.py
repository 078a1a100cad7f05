"""Pictures: what is drawn, what the titles say, and what is left alone."""

import builtins
import io
import itertools
import subprocess
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from cover import in_tiers
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from refusals import refused

from jrnn import plot
from jrnn.derivation import LSTMGates
from jrnn.diagnostics import FixedPoints, GradientFlow, PrincipalComponents


def flow(median, uses=(1.0, 2.0, 4.0), counts=None, band=2.0):
    median = np.asarray(median, float)
    percentiles = np.stack([median / band, median, median * band])
    counts = np.full(len(median), 9) if counts is None else np.asarray(counts)
    return GradientFlow(np.arange(len(median)), percentiles, np.asarray(uses, float), counts)


def drawn(axes):
    file = io.BytesIO()
    axes.figure.savefig(file, format="png", dpi=20)
    return file.getvalue().startswith(b"\x89PNG")


def words(axes):
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    return axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), legend


DECAY = 0.5 ** (np.arange(101) / 10)
TENDENCIES = {
    "vanishing": (DECAY, "vanishing: 0.00098 of lag 0 is left at lag 100"),
    "in a step": ([1, 0.25], "vanishing: 0.25 of lag 0 is left at lag 1"),
    "exploding": (1 / DECAY, "exploding: 1,024 times lag 0 at lag 100"),
    "kept": (DECAY[:10], "within a factor of 2 of lag 0 at lag 9"),
    "there and back": ([1, 0.1, 1], "within a factor of 2 of lag 0 at lag 2"),
    "underflow": ([1e-30, 0, 0], "vanishing: below the floating range at lag 2"),
    "overflow": ([1, 4, np.inf], "exploding: inf times lag 0 at lag 2"),
    "no loss that far": ([1, 0.4, np.nan], "vanishing: 0.4 of lag 0 is left at lag 1"),
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


@in_tiers(lambda _: [{"name": "overflow"}], name=TENDENCIES)
def test_gradient_flow_is_drawn(name):
    assert drawn(plot.plot_gradient_flow(flow(TENDENCIES[name][0]))[0])


def test_gradient_flow_draws_the_numbers():
    over_lags, over_steps = plot.plot_gradient_flow(flow(DECAY))
    np.testing.assert_array_equal(over_lags.lines[0].get_xydata(), np.c_[np.arange(101), DECAY])
    np.testing.assert_array_equal(over_steps.lines[0].get_xydata(), [[1, 1], [2, 2], [3, 4]])
    assert (over_lags.get_yscale(), over_steps.get_yscale()) == ("log", "linear")


def test_the_title_is_of_lags_that_half_of_the_losses_reach():
    few_at_the_end = flow([1, 0.4, 0.3, 90], counts=[10, 9, 5, 4])
    (title, *_) = words(plot.plot_gradient_flow(few_at_the_end)[0])
    assert title.endswith("vanishing: 0.3 of lag 0 is left at lag 2")


def test_a_wide_band_is_drawn_on_a_logarithmic_axis():
    over_lags, _ = plot.plot_gradient_flow(flow([1, 1, 1], band=100))
    assert over_lags.get_yscale() == "log"


def test_lines_are_seen_by_colour_blind_readers():
    """No red on green; the line over an image has a border, which is seen on every colour."""
    (line,) = plot.plot_influence(table()).lines
    assert (line.get_color(), len(line.get_path_effects())) == ("#000000", 1)
    by_unit, constants = plot.plot_forget_gate(gate())[1:]
    assert {panel.lines[0].get_color() for panel in (by_unit, constants)} == {"#D55E00"}


@in_tiers(lambda _: [{"value": np.inf}], value=[0.0, np.nan, np.inf])
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
        "Influence of step k on the loss of step t\nvanishing: 0.0098 of lag 0 is left at lag 20"
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


@pytest.mark.parametrize("lossless", [(), range(10), range(39)])
def test_the_titles_of_an_influence_table_and_of_its_flow_agree(lossless):
    """Both end at the last lag that half of the losses reach."""
    norms = table(lossless=lossless)
    lags = np.arange(40)
    by_lag = [np.diagonal(norms, -l)[norms.diagonal()[l:] > 0] for l in lags]
    counts = [len(norms) for norms in by_lag]
    median = [np.median(norms) for norms in by_lag if len(norms)]
    median += [np.nan] * (40 - len(median))
    title = plot.plot_gradient_flow(flow(median, counts=counts))[0].get_title()
    assert plot.plot_influence(norms).get_title().split("\n")[1] == title.split("\n")[1]


def test_points_without_neighbours_are_seen():
    """Those of the losses at the ends of sequences, or of one step alone."""
    gaps = [1.0, np.nan, 2.0, 3.0, 0.0, 4.0]
    over_lags, over_steps = plot.plot_gradient_flow(flow([0.5], gaps))
    influence = plot.plot_influence(table(6, lossless=[0, 1, 3]))
    over_time = plot.plot_forget_gate(gate(T=1))[0]
    for panel, expected in (
        (over_lags, [True]),
        (over_steps, [True, False, False, False, False, True]),
        (influence, [False] * 3),
        (over_time, [True]),
    ):
        line = panel.lines[0]
        seen = line.get_markevery() if line.get_marker() == "." else [False] * len(expected)
        assert list(seen) == expected
        assert drawn(panel)


def test_the_colours_of_an_influence_table_span_its_norms():
    for norms, low, extend in (
        (table(), 0.5 ** (39 / 3), "neither"),
        (table(5), 0.1, "neither"),  # one decade at least
        (table(half_life=0.5), 1e-12, "min"),
    ):
        (image,) = plot.plot_influence(norms).images
        assert image.norm.vmin == pytest.approx(low)
        assert image.norm.vmax == 1
        assert image.colorbar.extend == extend


def test_ticks_of_few_steps_are_whole_numbers():
    few = np.array([1, 0.8, 0.5])
    panels = (
        *plot.plot_gradient_flow(flow(few, few)),
        plot.plot_lyapunov_exponents(few),
        plot.plot_influence(table(2)),
        plot.plot_forget_gate(gate(T=3))[0],
        plot.plot_principal_components(COMPONENTS, PATHS)[0],
    )
    for panel in panels:
        ticks = panel.get_xticks()
        np.testing.assert_array_equal(ticks, np.round(ticks))
    np.testing.assert_array_equal(panels[3].get_yticks() % 1, 0)


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


def test_a_mask_leaves_out_padding():
    f, lengths = gate(B=4), np.array([40, 25, 1, 50])
    f[40:, 0], f[25:, 1] = 0.123, 7.0  # what padding holds matters nowhere
    mask = np.arange(50)[:, None] < lengths
    assert "3 steps (median), 100 at most" in plot.plot_forget_gate(f, mask=mask)[2].get_title()
    states = np.random.default_rng(1).normal(size=(50, 4, 3))
    given = np.where(mask[..., None], states, 1e6)
    for plane in (
        plot.plot_principal_components(COMPONENTS, given, mask=mask)[1],
        plot.plot_fixed_points(THREE, COMPONENTS, given, mask=jnp.asarray(mask))[0],
    ):
        for b, n in enumerate(lengths):
            x = plane.lines[b].get_xdata()
            np.testing.assert_array_equal(x[:n], states[:n, b, 0])
            assert np.isnan(x[n:]).all()
        assert drawn(plane)
    first_steps_out = np.arange(50)[:, None] >= np.array([0, 3, 0, 0])
    _, plane = plot.plot_principal_components(COMPONENTS, states, mask=first_steps_out)
    np.testing.assert_array_equal(plane.lines[-1].get_xdata()[:2], states[[0, 3], [0, 1], 0])
    assert plane.get_title() == "States\n4 sequences of 47 to 50 steps"
    assert words(plane)[3] == ["first step drawn"]
    _, plane = plot.plot_principal_components(COMPONENTS, states[:, 0], mask=mask[:, 0])
    assert plane.get_title() == "States\n1 sequence of 40 steps"


def test_units_of_nan_alone_are_left_out():
    f = gate()
    f[..., 1] = np.nan
    _, by_unit, constants = plot.plot_forget_gate(f)
    assert words(by_unit)[3] == ["3 units", "median"]
    assert by_unit.get_title().endswith("from 0.37 to 0.99")
    assert constants.get_title().endswith("time constant 4 steps (median), 100 at most")


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


# --- states --------------------------------------------------------------------------------------

# Of three state variables, the first two components: the third varies by a tenth of the whole.
COMPONENTS = PrincipalComponents(
    np.zeros(3), np.eye(3)[:, :2], np.array([6.0, 3.0]), np.array(10.0)
)
PATHS = np.random.default_rng(0).normal(size=(20, 4, 3))


def points(moduli, places):
    """Fixed points with these eigenvalues `[P, 3]` at these places `[P, 3]`."""
    P, values = len(places), np.array(moduli, complex).reshape(-1, 3)
    places = np.array(places, float).reshape(-1, 3)
    jacobians = np.stack([np.diag(v.real) for v in values]) if P else np.zeros((0, 3, 3))
    counts = np.ones(P, int)
    return FixedPoints(places, places[:, :2], np.zeros(P), jacobians, values, counts)


THREE = points(
    [[0.9, 0.5, 0.1], [1.2, 0.5, 0.1], [1.3, 1.1, 0.1]], [[1, 2, 0], [0, 0, 5], [-1, -2, 0]]
)


def test_fixed_points():
    slow = points([[0.9, 0.5, 0.1]] * 2, [[0.5, 0.5, 0], [0.2, 0.1, 0]])
    panels = plot.plot_fixed_points(THREE, COMPONENTS, PATHS, slow)
    assert panels.shape == (2,)
    title, x, y, legend = words(panels[0])
    assert title == "Fixed points\n1 stable, 2 unstable"
    assert (x, y) == tuple(f"component {i} ({p} % of the variance)" for i, p in ((1, 60), (2, 30)))
    assert legend == [
        "slow point (2)",
        "stable (1)",
        "1 unstable direction (1)",
        "more unstable directions (1)",
    ]
    *paths, slow_line, stable, saddle, more = panels[0].lines
    assert len(paths) == 4
    np.testing.assert_array_equal(paths[1].get_xydata(), PATHS[:, 1, :2])
    np.testing.assert_array_equal(slow_line.get_xydata(), slow.states[:, :2])
    for line, place in zip((stable, saddle, more), THREE.states, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), place[None, :2])
    assert len({line.get_color() for line in (slow_line, stable, saddle, more)}) == 4
    assert len({line.get_marker() for line in (stable, saddle, more)}) == 3
    title, x, y, legend = words(panels[1])
    assert title == "Eigenvalues of the Jacobian\nlargest modulus 1.3"
    assert legend[0] == r"$|\lambda|=1$"
    np.testing.assert_array_equal(panels[1].lines[2].get_xydata()[:, 0], [1.2, 0.5, 0.1])
    assert drawn(panels[0])


def test_fixed_points_that_are_not_there_or_alone():
    none = points([], [])
    panels = plot.plot_fixed_points(none, COMPONENTS)
    assert panels[0].get_title() == "Fixed points\nnone found"
    assert panels[0].get_legend() is None
    assert drawn(panels[0])
    alone = plot.plot_fixed_points(THREE, COMPONENTS, PATHS[:, 0])
    assert len(alone[0].lines) == 1 + 3
    assert drawn(alone[0])


def test_no_legend_covers_a_point():
    panels = plot.plot_fixed_points(THREE, COMPONENTS, PATHS)
    panels[0].figure.canvas.draw()
    for panel in panels:
        legend = panel.get_legend().get_window_extent()
        for line in panel.lines[-3:]:
            assert not any(
                legend.contains(*xy) for xy in panel.transData.transform(line.get_xydata())
            )


def test_principal_components():
    explained, plane = plot.plot_principal_components(COMPONENTS, PATHS)
    assert explained.get_title() == "Principal components\n2 explain 90 %"
    np.testing.assert_allclose(explained.lines[0].get_xydata(), [[1, 60], [2, 90]])
    title, x, _, legend = words(plane)
    assert (title, x) == (
        "States\n4 sequences of 20 steps",
        "component 1 (60 % of the variance)",
    )
    assert legend == ["after the first step"]
    np.testing.assert_array_equal(plane.lines[-1].get_xydata(), PATHS[0, :, :2])
    assert drawn(plane)
    many = np.zeros((2, 130, 3))
    _, plane = plot.plot_principal_components(COMPONENTS._replace(variances=np.ones(2)), many)
    assert len(plane.lines) == plot.states.PATHS + 1
    assert plane.get_title() == "States\n100 of 130 sequences of 2 steps"
    assert drawn(plane)
    still = COMPONENTS._replace(variances=np.zeros(2), total=np.zeros(()))
    assert drawn(plot.plot_principal_components(still, many)[0])


def test_colours_by_condition():
    """Of a batch sorted by condition each is drawn, in its own colour."""
    coherence = np.repeat([-0.4, 0.1, 0.4], 100)
    states = np.broadcast_to(coherence[:, None], (4, 300, 3))
    sides = np.array(["left", "right"])[(coherence > 0).astype(int)]
    for condition, names in ((coherence, ["-0.4", "0.1", "0.4"]), (sides, ["left", "right"])):
        for plane in (
            plot.plot_principal_components(COMPONENTS, states, condition=condition)[1],
            plot.plot_fixed_points(THREE, COMPONENTS, states, condition=condition)[0],
        ):
            assert words(plane)[3][: len(names)] == names
            paths = plane.lines[:99]  # 33 of each
            looks = {(line.get_xdata()[0], tuple(line.get_color())) for line in paths}
            assert sorted(x for x, _ in looks) == [-0.4, 0.1, 0.4]
            assert len({color for _, color in looks}) == len(names)
            assert drawn(plane)


@pytest.mark.parametrize("rare", [1, 99])
def test_each_condition_has_its_share_of_the_paths(rare):
    """In whatever order the conditions come; one that is rare is drawn as well."""
    for condition in (np.arange(198) % 2, np.arange(198) < rare):
        states = np.broadcast_to(condition[:, None].astype(float), (4, 198, 3))
        lines = plot.plot_principal_components(COMPONENTS, states, condition=condition)[1].lines
        x = [line.get_xdata()[0] for line in lines[:-1]]
        assert x.count(1.0) == max(1, round(condition.sum() * 100 / 198))
        assert x.count(0.0) == round((198 - condition.sum()) * 100 / 198)


def test_labels_of_eigenvalues_do_not_touch():
    spectrum = plot.plot_fixed_points(THREE, COMPONENTS, PATHS)[1]
    spectrum.figure.canvas.draw()
    labels = [label.get_window_extent() for label in spectrum.get_xticklabels()]
    assert all(a.x1 + 5 < b.x0 for a, b in itertools.pairwise(labels))


@pytest.mark.parametrize("background", ["white", "black"])
def test_conditions_are_seen_on_any_background(background):
    text = {"white": "black", "black": "white"}[background]
    with matplotlib.rc_context({"axes.facecolor": background, "axes.labelcolor": text}):
        plane = plot.plot_principal_components(COMPONENTS, PATHS, condition=np.arange(4))[1]
    light = [np.dot(line.get_color()[:3], (0.21, 0.72, 0.07)) for line in plane.lines[:4]]
    assert np.abs(np.array(light) - (background == "white")).min() > 0.2
    assert [line.get_linewidth() for line in plane.get_legend().get_lines()[:4]] == [2] * 4


def test_axes_of_the_user():
    figure = Figure()
    first, second, third, fourth = figure.subplots(2, 2).ravel()
    assert list(plot.plot_gradient_flow(flow(DECAY), [first, second])) == [first, second]
    assert plot.plot_lyapunov_exponents(np.ones(3), third) is third
    assert plot.plot_influence(table(), axes=fourth) is fourth
    assert all(isinstance(a, Axes) for a in (first, second, third, fourth))


REFUSED = {
    "points": (
        lambda: plot.plot_fixed_points(np.ones((2, 3)), COMPONENTS),
        "points: expected a FixedPoints; got ndarray. Call jrnn.diagnostics.fixed_points.",
    ),
    "slow points": (
        lambda: plot.plot_fixed_points(THREE, COMPONENTS, None, 1e-3),
        "slow: expected a FixedPoints; got float. Call jrnn.diagnostics.fixed_points.",
    ),
    "components": (
        lambda: plot.plot_fixed_points(THREE, np.eye(3)),
        "components: expected a PrincipalComponents; got ndarray. "
        "Call jrnn.diagnostics.principal_components.",
    ),
    "one component": (
        lambda: plot.plot_principal_components(
            COMPONENTS._replace(directions=np.ones((3, 1))), PATHS
        ),
        "components: expected two or more; got 1. They span the plane of the picture.",
    ),
    "components of other states": (
        lambda: plot.plot_principal_components(COMPONENTS, np.ones((5, 4))),
        "states: expected as many features as the components have, 3; got 4.",
    ),
    "conditions of another batch": (
        lambda: plot.plot_principal_components(
            COMPONENTS, np.ones((5, 4, 3)), condition=np.ones(5)
        ),
        "condition: expected shape [B] = [4]; got shape [5]. It is the condition of each sequence.",
    ),
    "too many conditions": (
        lambda: plot.plot_fixed_points(
            THREE, COMPONENTS, np.ones((5, 20, 3)), condition=np.arange(20)
        ),
        "condition: expected at most 12 different values; got 20. Group them",
    ),
    "conditions of NaN": (
        lambda: plot.plot_principal_components(
            COMPONENTS, np.ones((5, 2, 3)), condition=np.array([1, np.nan])
        ),
        "condition: expected numbers or labels; got NaN. Leave its sequences out",
    ),
    "no sequences": (
        lambda: plot.plot_principal_components(COMPONENTS, np.ones((5, 0, 3))),
        "states: expected arrays [..., H] with equal leading axes; got float64[5, 0, 3].",
    ),
    "conditions of nothing": (
        lambda: plot.plot_fixed_points(THREE, COMPONENTS, condition=np.arange(3)),
        "condition: expected None without states; got one. It gives paths their colours.",
    ),
    "a mask of nothing": (
        lambda: plot.plot_fixed_points(THREE, COMPONENTS, mask=np.ones((5, 4), bool)),
        "mask: expected None without states; got one. It says which steps are drawn.",
    ),
    "lengths for a mask": (
        lambda: plot.plot_principal_components(
            COMPONENTS, np.ones((5, 4, 3)), mask=np.array([5, 4, 3, 2])
        ),
        "mask: expected bool[5, 4], as states; got int64[4]. "
        "True where a step counts; see jrnn.sequence_mask.",
    ),
    "a mask of other gates": (
        lambda: plot.plot_forget_gate(gate(), mask=np.ones(50, bool)),
        "mask: expected bool[50, 3], as f; got bool[50]. ",
    ),
    "states of one step": (
        lambda: plot.plot_principal_components(COMPONENTS, np.ones(3)),
        "states: expected arrays [T, H] or [T, B, H]; got shape [] before the features. ",
    ),
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
test_refused = refused(REFUSED)


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
        lambda: plot.plot_fixed_points(THREE, COMPONENTS),
        lambda: plot.plot_principal_components(COMPONENTS, PATHS),
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
