"""The pictures of the documentation: they are there, pages show them, and a command draws each."""

import json
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pictures
import pytest
from pictures import elman_lstm, fixed_points, forecast, gradient_flow, influence, memory, speed
from pictures.__main__ import main
from PIL import Image, ImageColor
from programs import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / "docs").rglob("*.md")]
pytestmark = pytest.mark.usefixtures("float32")


def is_a_picture(path):
    """It is legible, and a card with round corners, on a page of any colour."""
    with Image.open(path) as image:
        width, height = image.size
        pixels = np.asarray(image.convert("RGBA"))
    legible = width == 2 * 700 and 600 <= height <= 1300
    edges = [pixels[y, x, 3] for y in (0, -1) for x in (0, -1)] + [pixels[height // 2, 0, 3]]
    card = ImageColor.getrgb(pictures.CARD) == tuple(pixels[height // 2, 0, :3])
    corners = edges == [0, 0, 0, 0, 255]
    return legible and card and corners and path.stat().st_size < 150_000


def test_every_picture_is_there():
    there = {path.stem for path in pictures.FOLDER.glob("*.png")}
    assert there == set(pictures.PICTURES)
    assert all(is_a_picture(pictures.FOLDER / f"{name}.png") for name in there)


def faults_of_images(page, text):
    """The images of a page that are not there, say too little or have no program."""
    for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)", text):
        path = (page.parent / target).resolve()
        if not path.is_file():
            yield f"{target} is not there"
        if len(alt.split()) < 8:
            yield f"{target}: say what is seen, not {alt!r}"
        if path.parent == pictures.FOLDER and path.stem not in pictures.PICTURES:
            yield f"{target}: no program draws it"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_images_of_a_page(page):
    assert not list(faults_of_images(page, page.read_text(encoding="utf-8")))


def test_an_image_that_is_wrong_is_found():
    text = "![](pictures/speed.png) and ![Time of jrnn](pictures/none.png)"
    assert len(list(faults_of_images(ROOT / "docs/page.md", text))) == 4


def test_the_command(tmp_path, capsys):
    style = dict(matplotlib.rcParams)
    assert main(["speed", "--out", str(tmp_path / "new")]) == 0
    assert is_a_picture(tmp_path / "new" / "speed.png")
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'speed.png'}\n"
    assert dict(matplotlib.rcParams) == style
    with pytest.raises(SystemExit):
        main(["sped"])
    assert "NAME: expected speed, memory, gradient_flow" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_in_a_shell(tmp_path):
    """From any folder, and of the picture that has the name of an example."""
    command = [sys.executable, ROOT / "docs/pictures", "gradient_flow", "--out", tmp_path]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert is_a_picture(tmp_path / "gradient_flow.png")


# --- what they show ------------------------------------------------------------------------------


def lines_of(panel):
    return {line.get_label(): line.get_ydata() for line in panel.lines}


def numbers(text):
    return [float(x) for x in re.findall(r"\d+(?:\.\d+)?", re.sub(r"(\d),(\d{3})", r"\1\2", text))]


def test_the_recorded_times_are_those_of_the_benchmarks():
    recorded = json.loads((pictures.FOLDER / "speed.json").read_text())
    assert {"commands", "machine", "versions", "date"} <= recorded.keys()
    page = (ROOT / "benchmarks/README.md").read_text()
    assert all(command in page for command in recorded["commands"])
    table = [[numbers(cell) for cell in line.split("|")] for line in page.splitlines()]
    for row in recorded["rows"]:
        ms, ratio = row["ms"], row["ratio"]
        floor = ms["matmul floor"] / ms["jrnn, native"]
        assert ratio["matmul floor"] == pytest.approx(floor, abs=0.01)
        cells = [row["shape"], [ms["jrnn, native"]], *([x] for x in ratio.values())]
        assert any(all(cell in line for cell in cells) for line in table), row


def test_speed():
    rows = json.loads((pictures.FOLDER / "speed.json").read_text())["rows"]
    (panel,) = speed.draw().axes
    assert len(panel.get_yticks()) == len(rows) == 14
    for program in speed.LOOKS:
        drawn = next(line for line in panel.lines if line.get_label() == program).get_xdata()
        ratios = [row["ratio"].get(program) for row in rows]
        np.testing.assert_array_equal(np.array(drawn, float), np.array(ratios, float))


@pytest.mark.optimized
def test_memory():
    (panel,) = memory.draw(lengths=(64, 256)).axes
    plain, own, remat, states = lines_of(panel).values()
    assert (plain > 1.5 * own).all()
    assert (own > states).all()
    assert (remat < own).all()
    assert remat[1] / remat[0] < own[1] / own[0]  # sqrt(T), and T


@pytest.mark.slow
def test_gradient_flow():
    (panel,) = gradient_flow.draw().axes
    at_20 = (np.nan_to_num(line)[20] for line in lines_of(panel).values())
    orthogonal, orthogonal_after, gaussian, gaussian_after = at_20
    assert gaussian < 1e-3 * gaussian_after
    assert gaussian_after < orthogonal_after < 0.1 * orthogonal


@pytest.mark.slow
def test_influence():
    before, after, bar = influence.draw().axes
    lags = [np.arange(1, 101) - panel.lines[0].get_xdata() for panel in (before, after)]
    assert np.median(lags[0]) <= 3 < 8 < np.median(lags[1])
    colors = [panel.images[0].norm for panel in (before, after)]
    assert len({(norm.vmin, norm.vmax) for norm in colors}) == 1
    np.testing.assert_allclose(bar.get_ylim(), (colors[0].vmin, colors[0].vmax))


@pytest.mark.slow
def test_elman_and_lstm():
    curve, gradient = elman_lstm.draw().axes
    errors, norms = lines_of(curve), lines_of(gradient)
    assert errors["Elman"][-1] > 0.1 > 0.02 > errors["LSTM"][-1]
    assert norms["Elman, after"][-1] < 1e-6 < 0.1 < norms["LSTM, after"][-1]


@pytest.mark.slow
def test_fixed_points():
    (panel,) = fixed_points.draw().axes
    labels = [text.get_text() for text in panel.get_legend().get_texts()]
    assert "stable (2)" in labels
    assert any(label.startswith("1 unstable direction") for label in labels)
    assert any(label.startswith("slow point") for label in labels)


@pytest.mark.slow
def test_forecast():
    """Over the first year the network is better than the seasonal naive forecast."""
    series, errors = (lines_of(panel) for panel in forecast.draw().axes)
    assert series.keys() == {"observed", "LSTM", "seasonal naive"}
    assert errors["LSTM"][:12].mean() < errors["seasonal naive"][:12].mean()
