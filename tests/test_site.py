"""The site: one page for each public name; it builds strictly, links resolve, no host is needed."""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from programs import ROOT

import jrnn
from website.pages import content, linked

INTERNAL = ("arrays", "cells", "checks", "extras", "files", "kernel", "lengths", "loss")
INTERNAL += (
    "orbax_manager",
    "primitives",
    "pytree_json",
    "types",
)  # users meet their names as jrnn.name
OF_PACKAGE = {
    f"jrnn.native.{name}" for name in ("Library", "available", "call", "is_off", "library")
}
PAGES = [ROOT / "README.md", ROOT / "examples/README.md", *(ROOT / "docs").rglob("*.md")]


def public_names():
    """Everything that a user may call, by the name to import it."""
    for name in vars(jrnn):
        value = getattr(jrnn, name)
        if not name.startswith("_") and not inspect.ismodule(value) and name != "version":
            yield f"jrnn.{name}"
    for module in pkgutil.iter_modules(jrnn.__path__):
        if module.name in INTERNAL or module.name.startswith("_"):
            continue
        home = f"jrnn.{module.name}"
        for name, value in vars(importlib.import_module(home)).items():
            if not name.startswith("_") and getattr(value, "__module__", "").startswith(home):
                yield f"{home}.{name}"
    yield "jrnn.cells.leaky.leaky"  # to name the rate network in a stack or a loss
    yield "jrnn.sampling.sample_token"


def reference():
    pages = [path.read_text() for path in (ROOT / "docs/reference").glob("*.md")]
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page, re.M)]


def test_every_public_name_is_in_the_reference_once():
    names = reference()
    assert sorted(names) == sorted(set(public_names()) - OF_PACKAGE)
    assert len(names) > 100


def test_every_name_on_a_page_is_in_the_reference():
    homes = {name[:n] for name in reference() for n in range(len(name)) if name[n] == "."}
    known = homes | set(reference())
    for page in PAGES:
        for name in re.findall(r"(?<![\w./-])jrnn(?:\.[a-zA-Z_]\w*)+", page.read_text()):
            parts = name.split(".")  # the rest may be a method or a field
            starts = {".".join(parts[:n]) for n in range(2, len(parts) + 1)}
            assert name in known or starts & set(reference()), f"{page.name}: {name}"


@pytest.mark.parametrize("name", sorted(public_names()))
def test_every_field_of_a_class_is_explained(name):
    """In its docstring, which the reference and `help` show: comments are in neither."""
    home, _, last = name.rpartition(".")
    value = getattr(importlib.import_module(home), last)
    fields = getattr(value, "_fields", None) or getattr(value, "__dataclass_fields__", ())
    explained = re.findall(r"^ {4}(\w+): \S", inspect.getdoc(value) or "", re.M)
    assert [field for field in fields if field not in explained] == []


@pytest.mark.parametrize("name", sorted(public_names()))
def test_products_in_docstrings_are_no_emphasis(name):
    """T*B*H in Markdown is a B in italics."""
    home, _, last = name.rpartition(".")
    doc = inspect.getdoc(getattr(importlib.import_module(home), last)) or ""
    text = re.sub(r"`[^`]*`", "", doc)
    assert not re.search(r"\w(\*\*?)[^*\n]+\1[\w-]", text)


def test_every_page_is_in_the_navigation():
    navigation = json.dumps(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages - set(re.findall(r'"([^"]*\.md)"', navigation)) == set()


def test_the_first_page_has_the_program_of_the_readme():
    """On GitHub, where the page is as it is, a link leads to it."""
    program = re.search(r"^```python\n.*?^```$", (ROOT / "README.md").read_text(), re.S | re.M)[0]
    page, own = content("docs/index.md"), (ROOT / "docs/index.md").read_text()
    assert program in page
    assert "README.md#example" in own
    assert "README.md#example" not in page
    assert page.count("which of four inputs") == own.count("which of four inputs") == 1


def test_examples_import_only_what_a_user_may():
    """They are copied: no module of the package that is internal, except the name of a cell."""
    for path in (ROOT / "examples").rglob("*.py"):
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
        internal = {n for n in names if n.startswith(tuple(f"jrnn.{m}" for m in INTERNAL))}
        assert internal <= set(reference()), path.name


def test_a_module_of_an_example_has_a_page():
    """The page of the example links to it, and so do modules to theirs."""
    example, targets = linked("examples/perceptual_decision.py")
    assert "[`perceptual_network.py`](perceptual_network.py.md)" in example.split("~~~")[0]
    assert "[`devices.py`](devices.py.md)" in example.split("~~~")[0]
    assert {"examples/perceptual_network.py", "examples/devices.py"} <= targets
    _, further = linked("examples/char_model/__init__.py")
    assert "examples/char_model/model.py" in further


class Page(HTMLParser):
    """The links, anchors, loaded files and plain text of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.loaded, self.text, self.code = [], set(), [], "", 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.code += tag in ("code", "script", "style")
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag in ("script", "img", "iframe", "source") and attributes.get("src"):
            self.loaded.append(attributes["src"])
        elif tag == "link" and attributes["rel"] not in ("canonical", "next", "prev"):
            self.loaded.append(attributes["href"])

    def handle_endtag(self, tag):
        self.code -= tag in ("code", "script", "style")

    def handle_data(self, data):
        self.text += "" if self.code else data


def build(root):
    return subprocess.run(
        [sys.executable, "-m", "website"], cwd=root, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository, so that no test writes into it."""
    root = tmp_path_factory.mktemp("clone") / "jrnn"
    ignored = shutil.ignore_patterns(".*", "out", "build", "__pycache__", "*.so*")
    return Path(shutil.copytree(ROOT, root, ignore=ignored))


@pytest.fixture(scope="module")
def folder(clone):
    """The built site, moved, so that the next build does not change it."""
    run = build(clone)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Warning" not in run.stdout + run.stderr
    return (clone / "out/site").rename(clone.parent / "site")


@pytest.fixture(scope="module")
def site(folder):
    return {path: Page(path) for path in folder.rglob("*.html")}


@pytest.mark.slow
def test_every_link_and_anchor_of_the_site_resolves(site, folder):
    broken, checked = [], 0
    for path, page in site.items():
        if path.name == "404.html":  # for a server, which gives it at any address
            continue
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            checked += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = site[target].anchors if target in site else ()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                broken.append(f"{path.relative_to(folder)}: {link}")
    assert broken == []
    assert checked > 1000


@pytest.mark.slow
def test_the_site_loads_nothing_from_another_host(site, folder):
    assert [url for page in site.values() for url in page.loaded if urlsplit(url).netloc] == []
    styles = "".join(path.read_text() for path in folder.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", styles) == []


@pytest.mark.slow
def test_equations_are_mathml(site, folder):
    page = site[folder / "derivation.html"]
    assert {"eq-1", "eq-9", "eq-13"} <= page.anchors
    left = [p for p, page in site.items() if re.search(r"\$\$|\\(frac|tag|mathrm)\b", page.text)]
    assert left == []
    assert "<math" in (folder / "derivation.html").read_text()


@pytest.mark.slow
def test_the_search_knows_the_api_and_the_pages(folder):
    index = (folder / "search.js").read_text()
    index = json.loads(index.removeprefix("var __index = ").removesuffix(";"))
    items = {item["location"]: item["title"] for item in index["items"]}
    assert {"jrnn.readout_cross_entropy", "Dale's law"} <= set(items.values())
    assert not any(".py.html" in place for place in items)  # code would drown the rest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("[x](cells.md#no-such-heading)", "anchor does not exist"),
        ("[x](../jrnn/no_such_file.py)", "no_such_file.py, which does not exist"),
        ("$$\\nosuchcommand{x}$$", "nosuchcommand"),
        ("$\\frac{1$", "frac{1"),
        ("::: jrnn.no_such_name", "no_such_name"),
    ],
)
def test_a_wrong_page_stops_the_build(clone, fault, error):
    page = clone / "docs/inside.md"
    text = page.read_text()
    page.write_text(f"{text}\n{fault}\n")
    try:
        run = build(clone)
    finally:
        page.write_text(text)
    assert run.returncode == 1
    assert error in run.stdout + run.stderr
