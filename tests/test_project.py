"""README and docs run, docstrings match signatures, and importing is cheap."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest
from programs import ROOT, in_a_new_process

import jrnn

DOCS = sorted(
    str(path.relative_to(ROOT / "docs").with_suffix(""))
    for folder in ("docs", "docs/tutorials")
    for path in (ROOT / folder).glob("*.md")
)
QUICK = ("coming_from",)  # of few programs
MODULES = ["jrnn", *(f"jrnn.{m.name}" for m in pkgutil.iter_modules(jrnn.__path__))]


def public_functions():
    """Functions and classes that a user may call: the package's own and its submodules' names."""
    helpers = (
        "jrnn.arrays",
        "jrnn.checks",
        "jrnn.kernel",
        "jrnn.cells",
        "jrnn.primitives",
        "jrnn._network",
        "jrnn.derivation._checks",
    )  # internal
    for name in MODULES:
        module = sys.modules[name] if name in sys.modules else importlib.import_module(name)
        for attribute, value in vars(module).items():
            home = getattr(value, "__module__", "")
            own = home.startswith("jrnn") and not home.startswith(helpers)
            if not own or attribute.startswith("_"):
                continue
            if inspect.isfunction(value):
                yield f"{home}.{attribute}", value
            for name, method in vars(value).items() if inspect.isclass(value) else ():
                method = getattr(method, "__func__", method)
                if name == "set_view":  # indented as nnx.view_info reads it
                    continue
                if inspect.isfunction(method) and method.__module__ == home and name[0] != "_":
                    yield f"{home}.{attribute}.{name}", method


FUNCTIONS = dict(public_functions())


def test_the_public_names():
    assert {
        "jrnn._rnn.rnn",
        "jrnn.loss.softmax.readout",
        "jrnn.sampling.generate",
    } <= FUNCTIONS.keys()
    assert len(FUNCTIONS) >= 15


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_docstring_against_signature(name):
    function = FUNCTIONS[name]
    doc = inspect.getdoc(function)
    assert doc, f"{name} has no docstring"
    parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
    section = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", doc, re.S | re.M)
    documented = re.findall(r"^    (\w+): ", section[1], re.M) if section else []
    assert documented == parameters, f"the Args of {name}"
    assert re.search(r"^(Returns|Yields|Raises):\n    \S", doc, re.M)


def test_docstrings_give_shapes_and_errors():
    for name in (
        "_rnn.rnn",
        "_rnn.rnn_cell",
        "loss.softmax.readout",
        "loss.softmax.softmax_cross_entropy",
        "loss.blockwise.readout_cross_entropy",
    ):
        doc = inspect.getdoc(FUNCTIONS[f"jrnn.{name}"])
        assert re.search(r"`\[.*\]`", doc), name
        assert "Raises:\n    ValueError: " in doc, name
        assert re.search(r"\(\d+\)", doc), f"{name} cites no equation"


def python_blocks(path):
    return "\n".join(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.S | re.M))


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(f"docs/{name}", marks=[] if name in QUICK else pytest.mark.slow)
        for name in DOCS
        if name != "index"  # the site inserts the README's program
    ],
)
def test_code_in_the_docs_runs(name, capsys):
    path = f"{name}.md"
    code = python_blocks(ROOT / path)
    assert code.count("\n") >= 10
    exec(compile(code, path, "exec"), {"__name__": path})


def test_code_in_the_docs_that_does_not_run_here():
    """It needs another library, which it names; `tests/interop/record_peers.py` runs that page."""
    tagged = {}
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        blocks = re.findall(r"^```python (\w+)\n(.*?)^```", path.read_text(), re.S | re.M)
        assert not blocks or path.name == "coming_from.md"
        for library, code in blocks:
            tagged[library] = tagged.get(library, "") + code
    assert tagged.keys() == {"torch", "flax", "equinox", "haiku", "keras", "onnx"}
    for library, code in tagged.items():
        assert re.search(rf"^(import|from) {library}", code, re.M), library


@pytest.mark.usefixtures("float32")
def test_readme_session():
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted >= 5
    assert result.failed == 0


@pytest.mark.usefixtures("float32")
def test_the_example_of_the_readme_learns_and_is_short(capsys):
    code = python_blocks(ROOT / "README.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 21
    exec(compile(code, "README.md", "exec"), {"__name__": "README.md"})
    costs = re.findall(r"step \d+: ([\d.]+) nats", capsys.readouterr().out)
    assert len(costs) == 5
    assert float(costs[-1]) < 0.5 < 1.3 < float(costs[0])


def test_ci_runs_the_command_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^Run the tests:\n\n    (.*)$", readme, re.M)[1]
    sed = re.search(r"\$\((sed .*)\)", (ROOT / ".ci/run").read_text())[1]
    found = subprocess.run(["bash", "-c", sed], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == command
    assert command.endswith("python -m pytest && .venv/bin/python -m pytest -m optimized")


def test_no_test_draws_what_another_one_would_have_drawn():
    """A module's generator is its RNG, which `conftest.data_of_its_own` sets before each test."""
    texts = [path.read_text() for path in ROOT.glob("tests/**/*.py")]
    names = re.findall(r"^(\w+) = np\.random\.default_rng\(\d*\)$", "\n".join(texts), re.M)
    assert len(names) >= 8
    assert set(names) == {"RNG"}


def test_what_is_missing_is_brought_by_an_extra_of_the_clone():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = set()
    for folder in ("jrnn", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert "pip install 'jrnn" not in text, f"{path}: jrnn is on no index"
            named |= set(re.findall(r"(?:\binstall\(['\"]|-e '\.\[)(\w+)['\"\]]", text))
    assert named == {"train", "plot", "examples", "nnx", "equinox"}
    assert named <= extras["optional-dependencies"].keys()


def test_importing_is_cheap_and_brings_no_extra():
    code = """
import sys, time
start = time.process_time()
import jax, jax.numpy
of_jax = time.process_time() - start
extras = {"matplotlib", "tqdm", "orbax", "safetensors", "flax", "equinox"}
import jrnn
print((time.process_time() - start) / of_jax - 1)
print(*sorted({m.split(".")[0] for m in sys.modules} & extras))
"""
    for _ in range(5):  # the fastest: what is measured is the import, not the machine
        share, *extras = in_a_new_process(code)
        assert extras == []
        if float(share) < 0.5:
            return
    pytest.fail(f"{share} of the processor time of jax's own import")


def test_importing_changes_no_setting():
    code = """
import os, jax
values = {n: getattr(jax.config, n) for n in ("jax_enable_x64", "jax_default_matmul_precision")}
environment = dict(os.environ)
import jrnn
assert environment == dict(os.environ)
assert values == {n: getattr(jax.config, n) for n in values}
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""
    assert in_a_new_process(code) == ["False"]
