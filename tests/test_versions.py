"""An older version loads beside this one, and what is slower, larger or wrong does not pass."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

import jrnn
from benchmarks import old_version, verdicts, versions
from benchmarks.cases import TOY_CASES
from benchmarks.versions import Line

ROOT = Path(__file__).parents[1]
TOY = ["--toy", "--rows", "1", "--modes", "batch", "--dtypes", "float32", "--repeats", "1"]


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A directory that holds jrnn/."""
    folder = tmp_path_factory.mktemp("older")
    shutil.copytree(ROOT / "jrnn", folder / "jrnn", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(older, out, *options):
    """Exit status, and what is printed."""
    return versions.main(["--old", str(older), *TOY, "--rounds", "1", "--out", str(out), *options])


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
        with old_version.loaded(str(tmp_path)) as old:
            assert old.own
            here, again, name = old.late()
            assert here == again == "the other version"
            assert name == f"{old.__name__}.later"
        assert not [m for m in sys.modules if m.startswith("jrnn_old")]
    after = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "jrnn"}
    assert before == after
    assert sys.path == path


def test_a_revision_of_git(tmp_path, monkeypatch):
    write(tmp_path, __init__="what = 'committed'\n")
    monkeypatch.setattr(old_version, "ROOT", tmp_path)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "jrnn/__init__.py").write_text("what = 'in the working tree'\n")
    with old_version.loaded("HEAD") as old:
        assert old.what == "committed"
    with old_version.loaded(str(tmp_path)) as old:
        assert old.what == "in the working tree"
    assert old_version.git("describe", "--always", "--dirty").endswith("-dirty")


def test_no_older_version(tmp_path, monkeypatch, capsys):
    expected = "--old: expected a git revision of this repository, or a directory, that has jrnn/"
    refused = f"{expected}.*; got 'no-such-revision' "
    with pytest.raises(ValueError, match=refused), old_version.loaded("no-such-revision"):
        pass
    assert run(tmp_path, tmp_path) == 1  # a directory without jrnn/
    assert f"error: {expected}" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")  # no git at all
    assert old_version.git("describe") == ""
    refused = f"{expected}.*; got 'HEAD' .*'git'"
    with pytest.raises(ValueError, match=refused), old_version.loaded("HEAD"):
        pass


# --- the run -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_a_tree_beside_itself(older, tmp_path, capsys):
    status = run(older, tmp_path, "--modes", "batch", "vmap-grad")
    printed = capsys.readouterr().out
    first, _, table = printed.partition("\n\n")
    assert first.startswith(f"old: {older}; new: this tree")
    assert f"jax {jax.__version__}" in first
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:5]]
    assert [line[:4] for line in lines] == [
        ["1", "batch", "float32", "forward"],
        ["1", "batch", "float32", "gradient"],
        ["1", "vmap-grad", "float32", "gradient"],
    ]
    kept = json.loads((tmp_path / "versions.json").read_text())
    assert "bytes" not in "".join(line[-1] for line in lines)
    for record, line in zip(kept["records"], lines, strict=True):
        (repeat,) = record["repeats"]
        assert repeat["old"]["temporary_bytes"] == repeat["new"]["temporary_bytes"] > 0
        assert 0 < repeat["old"]["minimum_ms"] <= repeat["old"]["median_ms"]
        assert line[4] == f"{repeat['old']['minimum_ms']:.3g}"
        assert line[6] == f"{repeat['new']['minimum_ms'] / repeat['old']['minimum_ms']:.3f}"
    assert status == kept["verdict"].startswith("FAIL")  # the times of a busy machine decide it
    assert kept["verdict"] in printed
    assert "| all " in printed


@pytest.mark.slow
def test_all_of_it_as_users_have_it(older, tmp_path):
    command = [sys.executable, "-W", "error", "-m", "benchmarks.versions", "--old", older, "--toy"]
    command += ["--repeats", "1", "--rounds", "1", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    kept = json.loads((tmp_path / "versions.json").read_text())
    assert done.returncode == kept["verdict"].startswith("FAIL")
    assert {r["mode"] for r in kept["records"]} == set(versions.MODES)
    assert {(r["row"], r["dtype"]) for r in kept["records"]} == {
        (row, dtype) for row in TOY_CASES for dtype in versions.DTYPES
    }
    assert "row 2: no vmap-weights, 4 networks do not split a batch of 1" in done.stdout


@pytest.mark.usefixtures("float32")
def test_nothing_to_measure(older, tmp_path, capsys):
    assert run(older, tmp_path, "--rows", "2", "--modes", "vmap-weights") == 1
    said = capsys.readouterr()
    assert "row 2: no vmap-weights, 4 networks do not split a batch of 1" in said.out
    assert "error: --rows: expected one that a mode can measure; got rows [2]" in said.err


def rnn_and_more(more):
    """A version whose states are `more(states, xs)`, states being a function of xs."""

    def rnn(params, xs, **options):
        return None, more(lambda xs: jrnn.rnn(params, xs, **options)[1], xs)

    return SimpleNamespace(rnn=rnn, RNNParams=jrnn.RNNParams)


def many_times(states, xs):
    """The same states, and three hundred times the work: more than any pause of a busy machine."""

    def again(xs, _):
        return xs + 0 * states(xs).sum(), None

    return states(jax.lax.scan(again, xs, None, length=300)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_a_slower_version_fails(older, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(versions, "jrnn", rnn_and_more(many_times))
    assert run(older, tmp_path) == 1
    printed = capsys.readouterr().out
    assert printed.count("FAIL time") == 2  # forward and gradient
    assert "\nFAIL: 2 of 2 lines; geometric mean of time " in printed


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("mode", ["batch", pytest.param("vmap-grad", marks=pytest.mark.slow)])
def test_a_wrong_version_is_refused(mode, older, tmp_path, monkeypatch, capsys):
    wrong = rnn_and_more(lambda states, xs: 1.0001 * states(xs))
    monkeypatch.setattr(versions, "jrnn", wrong)
    monkeypatch.setattr(versions, "time_in_turn", lambda *_: pytest.fail("it is timed"))
    assert run(older, tmp_path, "--modes", mode) == 1
    what, which = ("hs", "forward") if mode == "batch" else ("w_ih", "gradient")
    expected = f"error: {what} of the new version ({mode}, row 1, float32, {which}): expected "
    assert expected in capsys.readouterr().err


@pytest.mark.usefixtures("float32")
def test_bfloat16_is_compared_more_strictly_than_with_a_rival(older):
    wrong = rnn_and_more(lambda states, xs: states(xs) * 1.05)
    line = Line("batch", 1, TOY_CASES[1], "bfloat16", False)
    with pytest.raises(ValueError, match=r"to 0\.02 of its norm; got 0\.0[45]"):
        versions.repeat(jrnn, wrong, line, 1)


# --- the verdict ---------------------------------------------------------------------------------


def record(row=2, mode="batch", new=(1.0,), again=(1.0,), more=0, compile=(1.0,)):
    """Times and compile times over old's in the repeats, and bytes more than old's."""

    def figures(ratio, bytes=0, seconds=1.0):
        ms, temporary = 7 * ratio, 5_000_000 + bytes
        return {"minimum_ms": ms, "temporary_bytes": temporary, "compile_seconds": 2 * seconds}

    repeats = [
        {"old": figures(1), "old again": figures(a), "new": figures(n, more, c)}
        for n, a, c in itertools.zip_longest(new, again, compile, fillvalue=1.0)
    ]
    key = {"row": row, "mode": mode, "dtype": "float32", "gradient": True}
    return key | {"repeats": repeats}


def test_a_line_is_slower_if_it_is_so_in_every_repeat():
    assert verdicts.failures(record(new=(1.04, 1.04, 1.04))) == ["time"]
    assert verdicts.failures(record(new=(1.5, 1.5, 1.02))) == []
    noise = (1.02, 1 / 1.02, 1.02)  # a deviation of 0.02: 1.07 is the bound
    assert verdicts.deviation(record(again=noise)) == pytest.approx(0.0198, abs=1e-4)
    assert verdicts.failures(record(new=(1.06, 1.08, 1.08), again=noise)) == []
    assert verdicts.failures(record(new=(1.08, 1.08, 1.08), again=noise)) == ["time"]
    apart = (1.05, 1.05, 1.05)  # two programs of one version that differ always are noise too
    assert verdicts.failures(record(new=(1.1, 1.1, 1.1), again=apart)) == []


def test_what_memory_may_grow():
    assert verdicts.failures(record(more=1)) == ["bytes"]
    assert verdicts.failures(record(more=-1)) == []
    for small in ({"row": 1}, {"mode": "vmap-grad"}):
        assert verdicts.failures(record(more=1_000_000, **small)) == []
        assert verdicts.failures(record(more=1_000_001, **small)) == ["bytes"]


def test_the_geometric_means():
    slow, fast = record(new=(1.03, 1.02, 1.03)), record(new=(0.99, 0.99, 2.0))  # medians
    assert verdicts.mean_time([slow, fast]) == pytest.approx((1.03 * 0.99) ** 0.5)
    assert verdicts.failed_means([slow, fast]) == []
    assert verdicts.failed_means([slow]) == ["time 1.030, above 1.02"]
    assert verdicts.failed_means([record(compile=(9.0, 1.04, 9.0))]) == []  # minima
    compiled = record(compile=(9.0, 1.06, 9.0))
    assert verdicts.failed_means([compiled]) == ["compile time 1.060, above 1.05"]
    table = verdicts.means_table([slow, compiled, record(mode="vmap", again=(1.5,))])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert lines[2:] == [
        ["batch", "1.015", "1.000", "1.030", "1.000"],
        ["vmap", "1.000", "1.500", "1.000", "1.000"],
        ["all", "1.010", "1.145", "1.020", "1.000"],
    ]


def test_the_last_sentence():
    assert verdicts.sentence([record(), record()]) == "PASS: 2 lines, and the means."
    assert verdicts.sentence([record(), record(more=1)]) == "FAIL: 1 of 2 lines."
    slow = record(new=(1.03, 1.02, 1.03))
    assert verdicts.sentence([slow]) == "FAIL: geometric mean of time 1.030, above 1.02."
    slower = record(new=(1.04, 1.04, 1.04), again=(1.0, 1.0, 1.0))
    expected = "FAIL: 1 of 1 lines; geometric mean of time 1.040, above 1.02."
    assert verdicts.sentence([slower]) == expected
    said = verdicts.sentence([record(), record(again=(1.06, 1.05, 1.06))])
    assert said.startswith("PASS: 2 lines, and the means. 1 of 2 lines have an A/A deviation above")
