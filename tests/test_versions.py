"""An older version loads beside this one, and what is slower, larger or wrong does not pass."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jrnn
from benchmarks import kernel
from benchmarks.rivals import jrnn_itself, old

ROOT = Path(__file__).parents[1]
TOY = ["--toy", "--rows", "1", "--routes", "batch", "--dtypes", "float32", "--rounds", "1"]


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A directory that holds jrnn/."""
    folder = tmp_path_factory.mktemp("older")
    shutil.copytree(ROOT / "jrnn", folder / "jrnn", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Exit status, and the JSON, if any."""
    monkeypatch.setattr(kernel, "use_cpu_cores", lambda devices: None)  # there are two

    def run(older, *options):
        status = kernel.main(["--old", str(older), *TOY, "--out", str(tmp_path), *options])
        written = tmp_path / "kernel.json"
        if not written.is_file():
            return status, None
        kept = json.loads(written.read_text())
        return status, kept | {"records": kept["records"][1:]}  # without the machine

    return run


# --- the older version ---------------------------------------------------------------------------


def write(folder, **files):
    """A package jrnn of these modules."""
    (folder / "jrnn").mkdir()
    for name, text in files.items():
        (folder / f"jrnn/{name}.py").write_text(text)
    return folder


OTHER = {
    "__init__": "from importlib.metadata import version\n"
    "import jrnn.part\n"
    "from jrnn.part import Kind, late\n"
    "__version__ = version('jrnn')\n"
    "own = jrnn.part.Kind is Kind\n",
    "part": "from typing import NamedTuple\n"
    "from jax.export import register_namedtuple_serialization\n"
    "class Kind(NamedTuple):\n"
    "    x: float\n"
    "register_namedtuple_serialization(Kind, serialized_name='jrnn.RNNParams')\n"
    "def late():\n"
    "    import jrnn.later as one\n"
    "    from jrnn.later import here\n"
    "    return one.here, here, one.__name__\n",
    "later": "here = 'the other version'\n",
}


def test_the_older_version_shares_nothing(tmp_path):
    """Also what it imports later, and what it registers with JAX by the names of this one."""
    write(tmp_path, **OTHER)
    before = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "jrnn"}
    path = list(sys.path)
    for _ in range(2):  # as often as one likes
        with old.loaded(str(tmp_path)) as other:
            assert other.own
            here, again, name = other.late()
            assert here == again == "the other version"
            assert name == f"{other.__name__}.later"
        assert not [m for m in sys.modules if m.startswith("jrnn_old")]
    after = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "jrnn"}
    assert before == after
    assert sys.path == path


def test_a_revision_of_git(tmp_path, monkeypatch):
    write(tmp_path, __init__="what = 'committed'\n")
    monkeypatch.setattr(old, "ROOT", tmp_path)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "jrnn/__init__.py").write_text("what = 'in the working tree'\n")
    with old.loaded("HEAD") as other:
        assert other.what == "committed"
    with old.loaded(str(tmp_path)) as other:
        assert other.what == "in the working tree"
    with old.loaded(None) as other:
        assert other is None


def test_no_older_version(tmp_path, monkeypatch, capsys, run):
    expected = "--old: expected a git revision of this repository, or a directory, that has jrnn/"
    refused = f"{expected}.*; got 'no-such-revision' "
    with pytest.raises(ValueError, match=refused), old.loaded("no-such-revision"):
        pass
    assert run(tmp_path) == (1, None)  # a directory without jrnn/
    assert f"error: {expected}" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")  # no git at all
    refused = f"{expected}.*; got 'HEAD' .*'git'"
    with pytest.raises(ValueError, match=refused), old.loaded("HEAD"):
        pass


# --- the run -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_a_tree_beside_itself(older, run, capsys):
    status, kept = run(older, "--routes", "batch", "vmap-grad")
    printed = capsys.readouterr().out
    found = {(r["route"], r["gradient"], r["program"]): r for r in kept["records"]}
    passes = [("batch", False), ("batch", True), ("vmap-grad", True)]
    programs = ("jrnn", "old", "old again", "matmul floor")
    assert found.keys() == {(*p, name) for p in passes for name in programs}
    for route, gradient in passes:
        own, other = (found[route, gradient, name] for name in ("jrnn", "old"))
        assert own["temporary_bytes"] == other["temporary_bytes"] > 0
        assert 0 < own["minimum_ms"] <= own["median_ms"]
    assert not any("bytes" in line for line in kept["faults"])
    assert status == bool(kept["faults"])  # the times of a busy machine decide it
    assert all(f"- **{line}**" in printed for line in kept["faults"])
    assert "| 7, 4, 3, 5 | old again | " in printed


@pytest.mark.slow
def test_all_of_it_as_users_have_it(older, tmp_path):
    command = [sys.executable, "-W", "error", "-m", "benchmarks.kernel", "--old", older, "--toy"]
    command += ["--rounds", "1", "--devices", "2", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    kept = json.loads((tmp_path / "kernel.json").read_text())
    assert done.stderr == "".join(f"error: {fault}\n" for fault in kept["faults"])
    assert done.returncode == bool(kept["faults"])
    assert {r["route"] for r in kept["records"][1:]} == set(kernel.ROUTES)
    assert "row 2: no vmap-weights, 4 parts do not split a batch of 1" in done.stdout


@pytest.mark.usefixtures("float32")
def test_nothing_to_measure(older, run, capsys):
    assert run(older, "--rows", "2", "--routes", "vmap-weights") == (1, None)
    said = capsys.readouterr()
    assert "row 2: no vmap-weights, 4 parts do not split a batch of 1" in said.out
    assert "error: the options: expected a row that can be measured; got none" in said.err


def changed(monkeypatch, more):
    """This version, whose states are `more(states, xs)`, states being a function of xs."""
    right = jrnn_itself.states

    def states(network, params, xs, **options):
        if network is not jrnn.rnn:
            return right(network, params, xs, **options)
        return more(lambda xs: right(network, params, xs, **options), xs)

    monkeypatch.setattr(jrnn_itself, "states", states)


def many_times(states, xs):
    """The same states, and three hundred times the work: more than any pause of a busy machine."""

    def again(xs, _):
        return xs + 0 * states(xs).sum(), None

    return states(jax.lax.scan(again, xs, None, length=300)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_a_slower_version_fails(older, run, monkeypatch):
    changed(monkeypatch, many_times)
    status, kept = run(older)
    assert status == 1
    # Which groups are slower by more than the noise depends on what else the machine does.
    assert any(line.startswith("geometric mean of minimum_ms: ") for line in kept["faults"])


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("route", ["batch", pytest.param("vmap-grad", marks=pytest.mark.slow)])
def test_a_wrong_version_is_refused(route, older, run, monkeypatch):
    changed(monkeypatch, lambda states, xs: 1.0001 * states(xs))
    monkeypatch.setattr(kernel, "time_beside_matmul", lambda *_: pytest.fail("it is timed"))
    status, kept = run(older, "--routes", route)
    assert (status, kept["records"]) == (1, [])
    what = "hs" if route == "batch" else "b_h"
    assert f"ValueError: {what} of jrnn (xla): expected the common result" in kept["lines"][0]


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_bfloat16_is_compared_more_strictly_than_with_a_rival(older, run, monkeypatch):
    changed(monkeypatch, lambda states, xs: states(xs) * 1.05)
    status, kept = run(older, "--dtypes", "bfloat16")
    assert (status, kept["records"]) == (1, [])
    assert "expected the common result to 0.02 of its norm; got 0.04" in kept["lines"][0]


# --- the verdict ---------------------------------------------------------------------------------


def records(row=2, route="batch", new=1.0, again=1.0, more=0, compile=1.0):
    """A group: times and compile times over old's, and bytes more than old's."""
    key = {"row": row, "route": route, "dtype": "float32", "gradient": True}

    def of(program, ratio, bytes=0, seconds=1.0):
        figures = {"minimum_ms": 7 * ratio, "temporary_bytes": 5_000_000 + bytes}
        return key | figures | {"program": program, "compile_seconds": 2 * seconds}

    return [of("jrnn", new, more, compile), of("old", 1.0), of("old again", again)]


def test_a_group_is_slower_by_more_than_noise():
    at = "batch, row 2, float32, gradient"
    assert old.worse(records(new=1.02)) == []
    said = [f"{at}: 1.040 times the time; the noise is 0.000"]
    assert old.worse(records(new=1.04)) == said
    for noise in (1.02, 1 / 1.02):
        assert old.worse(records(new=1.06, again=noise)) == []
        assert len(old.worse(records(new=1.08, again=noise))) == 1
    assert old.worse([r for r in records(new=9) if r["program"] == "jrnn"]) == []


def test_what_memory_may_grow():
    at = "batch, row 2, float32, gradient"
    assert old.worse(records(more=1)) == [f"{at}: 1 more temporary bytes"]
    assert old.worse(records(more=-1)) == []
    for small in ({"row": 1}, {"route": "vmap-grad"}):
        assert old.worse(records(more=1_000_000, **small)) == []
        assert len(old.worse(records(more=1_000_001, **small))) == 1


def test_the_geometric_means():
    slow, fast = records(new=1.03), records(row=3, new=0.99)
    assert old.worse([*slow, *fast]) == []
    slower = [*slow, *records(row=3, new=1.03)]
    assert old.worse(slower) == ["geometric mean of minimum_ms: 1.030, above 1.02"]
    compiled = [*records(compile=1.06), *records(row=3, compile=1.06)]
    assert old.worse(compiled) == ["geometric mean of compile_seconds: 1.060, above 1.05"]
    assert old.worse([]) == []
