"""The pages of the derivation: equations, links to the functions that compute them, figures."""

import ast
import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ("derivation", "gates", "exercises", "sources")
PAGES = {
    name: re.sub(r"^```.*?^```\n", "", (DOCS / f"{name}.md").read_text(), flags=re.M | re.S)
    for name in NAMES
}
TO_FUNCTION = re.compile(r"\[`(\w+)`\]\(([^)]+\.py)\)")
LINKS = sorted({link for page in PAGES.values() for link in TO_FUNCTION.findall(page)})


def defined(path):
    return {node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")}


@pytest.mark.parametrize(("name", "path"), LINKS)
def test_a_link_leads_to_the_file_that_defines_the_function(name, path):
    assert name in defined(DOCS / path)


def cited(path):
    """The numbers of the equations that a file cites: (9), and all of (11)-(13)."""
    found = re.findall(r"\((\d+)\)(?:-\((\d+)\))?", path.read_text())
    return {n for first, last in found for n in range(int(first), int(last or first) + 1)}


def equations():
    """(number, paths): each numbered equation or row, with the links of its section."""
    for page in (PAGES["derivation"], PAGES["gates"]):
        for section in page.split("\n## "):
            paths = {path for _, path in TO_FUNCTION.findall(section)}
            yield from ((int(n), paths) for n in re.findall(r"\\tag\{(\d+)\}\$\$$", section, re.M))
    for row in re.findall(r"^\| \(.*", PAGES["derivation"], re.M):
        paths = {path for _, path in TO_FUNCTION.findall(row)}
        yield from ((int(n), paths) for n in re.findall(r"\((\d+)\)", row))


def test_every_equation_has_a_number_and_links_to_a_file_that_cites_it():
    found = list(equations())
    assert {n for n, _ in found} == set(range(1, 35))
    for n, paths in found:
        assert any(n in cited(DOCS / path) for path in paths), (n, paths)


def test_every_number_is_given_once():
    tags = re.findall(r"\\tag\{(\d+)\}", PAGES["derivation"] + PAGES["gates"])
    assert sorted(map(int, tags)) == [*range(1, 15), *range(23, 28)]


@pytest.mark.parametrize("name", NAMES)
def test_formulas_are_read_alike_by_every_renderer(name):
    """A formula ends on its line, and no Markdown takes the backslash from a punctuation mark."""
    for line in re.sub(r"`[^`]*`", "", PAGES[name]).splitlines():
        assert line.count("$") % 2 == 0, line
        for formula in re.findall(r"\$+([^$]+)\$+", line):
            assert not re.search(r"\\[^a-zA-Z ]", formula), formula
            assert formula.count("{") == formula.count("}"), formula


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_exist(name):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", PAGES[name]):
        assert target.startswith("http") or (DOCS / target).exists(), target


def texts(svg):
    """The texts of a figure, which matplotlib draws as paths and keeps as comments."""
    return sorted(re.findall(r"<!-- (.*?) -->", svg.read_text()))


def test_the_figures_are_those_that_the_program_draws(tmp_path):
    program = runpy.run_path(str(DOCS / "figures/draw.py"))
    program["main"](tmp_path)
    drawn = {path.name: texts(path) for path in tmp_path.iterdir()}
    assert all(len(labels) >= 10 for labels in drawn.values())
    assert drawn == {path.name: texts(path) for path in (DOCS / "figures").glob("*.svg")}
    shown = re.findall(
        r"!\[([^\]]+)\]\(figures/(\w+\.svg)\)", PAGES["derivation"] + PAGES["sources"]
    )
    assert {name for _, name in shown} == drawn.keys()
    assert all(len(alt) >= 60 for alt, _ in shown)
