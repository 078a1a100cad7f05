"""Installing with pip: a wheel has the library, or a build that fails leaves the pure package."""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile

import pytest
from programs import ROOT

from jrnn.native import FILE

NOT_SHIPPED = (".git", ".venv", "build", "dist", "out", ".*_cache", "__pycache__")
BACKEND = "import scikit_build_core.build as backend; "
# The gradient of a batch, by the native kernel and by XLA.
USE = """
import jax, jax.numpy as jnp, numpy as np, jrnn
params = jrnn.init_rnn(jax.random.key(0), 8, 16)
xs = jax.random.normal(jax.random.key(1), (12, 4, 8))
gradient = jax.jit(jax.grad(lambda p: jrnn.rnn(p, xs)[1].sum()))
print(jrnn.native.why_not(), "jrnn_native" in gradient.lower(params).as_text())
here = gradient(params)
jax.config.update("jrnn_native", False)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), here, gradient(params))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"),
        reason="the library is built for Linux on x86-64 only",
    ),
]


def run(*command, cwd=None, check=True, **environment):
    """Run a program that sees nothing of this process's packages."""
    base = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CXX", "CXXFLAGS")}
    ran = subprocess.run(command, cwd=cwd, env=base | environment, capture_output=True, text=True)
    assert ran.returncode == 0 or not check, ran.stdout + ran.stderr
    return ran


def new_environment(folder):
    """Its Python."""
    venv.create(folder, with_pip=True)
    return folder / "bin/python"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An environment with what a build requires, as pip makes one for each."""
    python = new_environment(tmp_path_factory.mktemp("builder"))
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    run(python, "-m", "pip", "install", *requires)
    ask = BACKEND + "print(*backend.get_requires_for_build_wheel())"
    more = run(python, "-c", ask, cwd=ROOT, PATH=str(python.parent)).stdout.split()
    run(python, "-m", "pip", "install", *more)  # CMake and ninja: that PATH has none
    return python


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A clone, in which somebody has worked: a library of other sources is left there."""
    source = tmp_path_factory.mktemp("source") / "jrnn"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SHIPPED))
    (source / "jrnn" / FILE).write_text("of an older build")
    (source / "native/__pycache__").mkdir()
    (source / "native/__pycache__/source_hash.pyc").touch()
    return source


def make_wheel(python, source, folder, **environment):
    """What pip says, and the wheel or None."""
    command = (python, "-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation")
    ran = run(*command, "-w", folder, check=False, **environment)
    (wheel,) = folder.glob("*.whl") if ran.returncode == 0 else (None,)
    return ran, wheel


@pytest.fixture(scope="module")
def sdist(python, source):
    run(python, "-c", BACKEND + "backend.build_sdist('dist')", cwd=source)
    (path,) = (source / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(python, sdist, tmp_path_factory):
    """The wheel with the library, made from the source distribution."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler here")
    ran, wheel = make_wheel(python, sdist, tmp_path_factory.mktemp("w"), JRNN_REQUIRE_NATIVE="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return wheel


def failing(kind, python, folder):
    """The environment of a build that fails."""
    if kind == "no compiler":
        return {"PATH": str(python.parent)}
    compiler = folder / "c++"
    if kind == "an old compiler":  # which the first test of CMake finds good
        refused = 'case "$*" in *-march=x86-64-v*) exit 1; esac'
        compiler.write_text(f'#!/bin/sh\n{refused}\nexec {shutil.which("c++") or "false"} "$@"\n')
        compiler.chmod(0o755)
    return {"CXX": "/bin/false" if kind == "a compiler that fails" else str(compiler)}


@pytest.mark.parametrize(
    "kind",
    ["no compiler", "no such compiler", "a compiler that fails", "an old compiler"],
)
def test_a_build_that_fails_leaves_the_pure_package(kind, python, source, tmp_path):
    environment = failing(kind, python, tmp_path)
    _, wheel = make_wheel(python, source, tmp_path, JRNN_REQUIRE_NATIVE="0", **environment)
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if FILE in name]
    assert {"jrnn/__init__.py", "jrnn/kernel/backends/native.py", "jrnn/py.typed"} <= set(names)
    ran, _ = make_wheel(python, source, tmp_path, JRNN_REQUIRE_NATIVE="1", **environment)
    assert ran.returncode != 0
    assert "CMake" in ran.stdout + ran.stderr


def test_the_source_distribution_has_what_a_build_needs_and_nothing_that_it_leaves(sdist):
    with tarfile.open(sdist) as file:
        names = {name.split("/", 1)[1] for name in file.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in ROOT.glob("native/*/*.[chs]*")}
    assert len(sources) > 10
    needed = {"pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "native/source_hash.py"}
    assert sources | needed | {"jrnn/py.typed", "tests/conftest.py"} <= names
    assert not [name for name in names if FILE in name or "__pycache__" in name]


def test_an_editable_installation_comes_after_every_other_path(python, source, tmp_path):
    """Two clones and one environment: the one in which Python runs, or of PYTHONPATH, is used."""
    environment = {"CXX": "/bin/false", "JRNN_REQUIRE_NATIVE": "0"}
    command = ("install", "--no-deps", "--no-build-isolation", "--editable", source)
    run(python, "-m", "pip", *command, **environment)
    other = tmp_path / "other/jrnn"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    ask = (python, "-c", "from importlib.util import find_spec; print(find_spec('jrnn').origin)")
    assert run(*ask, cwd=tmp_path).stdout == f"{source}/jrnn/__init__.py\n"
    assert run(*ask, cwd=other.parent).stdout == f"{other}/__init__.py\n"
    by_variable = run(*ask, cwd=tmp_path, PYTHONPATH=str(other.parent)).stdout
    assert by_variable == f"{other}/__init__.py\n"


def test_a_wheel_runs_in_an_environment_without_a_compiler(wheel, source, tmp_path):
    """From any folder, and from a clone, whose package Python reads in the place of the wheel's."""
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    python = new_environment(tmp_path / "user")
    run(python, "-m", "pip", "install", wheel, PATH=str(python.parent))
    for folder in (tmp_path, source):
        ran = run(python, "-c", USE, cwd=folder, PATH=str(python.parent))
        assert ran.stdout == "None True\n"
