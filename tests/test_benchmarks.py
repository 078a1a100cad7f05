"""The benchmarks run at toy size, and do not time what they should not."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import claims, japanese_vowels, rivals
from benchmarks.measuring import FLOAT32_TOLERANCE, Program, compare, time_in_turn
from benchmarks.rivals.autodiff import matmul_of_rounded
from benchmarks.train_step import check_losses

ROOT = Path(__file__).parents[1]


def run(program, out, *options):
    """The program's result, with JAX as its users have it, on two devices."""
    command = [sys.executable, "-W", "error", "-m", f"benchmarks.{program}", "--toy", "--out", out]
    command += ["--rivals", "autodiff", "--devices", "2", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (out / f"{program}.md").read_text()
    assert f"--rivals autodiff --devices 2 {' '.join(options)}" in text  # the command
    assert "GLIBC_TUNABLES" in text
    assert all((path.read_bytes()[:4] == b"\x89PNG") for path in out.glob("*.png"))
    return json.loads((out / f"{program}.json").read_text()), text


@pytest.mark.slow
def test_kernel(tmp_path):
    result, text = run("kernel", tmp_path, "--rounds", "1", "--rows", "1")
    records = result["records"]
    found = {(r["route"], r["dtype"], r["gradient"], r["program"]) for r in records}
    for gradient in (False, True):
        for scan in ("naive", "hoisted", "hoisted x4"):
            for route in ("native", "vmap", "mesh"):
                assert (route, "float32", gradient, scan) in found
                assert (route, "bfloat16", gradient, f"{scan} mixed") in found
    assert ("vmap", "float32", True, "jrnn native") in found
    assert all(0 < r["minimum_ms"] <= r["median_ms"] for r in records)
    assert all(r["compile_seconds"] > 0 and r["temporary_bytes"] > 0 for r in records)
    assert {r["devices"] for r in records if r["route"] == "mesh"} == {2}
    charts = {f"kernel_{route}_{d}" for route, d in {(r["route"], r["dtype"]) for r in records}}
    assert {path.stem for path in tmp_path.glob("*.png")} == charts
    assert "| row | T, B, I, H | jrnn | naive | hoisted | hoisted x4 | matmul floor |" in text
    said = [claim["claim"] for claim in result["claims"]]
    assert "forward + backward: best autodiff / jrnn" in said
    assert all(f"- {claim}: " in text for claim in said)


@pytest.mark.slow
def test_a_mesh_that_does_not_divide_the_batch_is_said(tmp_path, capfd):
    options = ["--rounds", "1", "--rows", "2", "--routes", "native", "mesh", "--dtypes", "float32"]
    command = [sys.executable, "-m", "benchmarks.kernel", "--toy", "--out", tmp_path, *options]
    subprocess.run([*command, "--rivals", "autodiff", "--devices", "2"], cwd=ROOT, check=True)
    assert "row 2: no mesh, 2 device(s) do not split a batch of 1" in capfd.readouterr().out


@pytest.mark.slow
def test_train_step(tmp_path):
    result, text = run("train_step", tmp_path, "--rounds", "5")
    scans = ["naive", "hoisted", "hoisted x4"]
    names = ["jrnn", *scans, *(f"{name}, 2 devices" for name in ["jrnn", *scans])]
    assert [r["program"] for r in result["records"]] == names
    for r in result["records"]:
        rate = 1e3 * r["length"] * r["batch_size"] / r["median_ms"]
        assert r["characters_per_second"] == pytest.approx(rate)
    assert "best autodiff, 2 devices / jrnn, 2 devices: " in text


@pytest.mark.slow
def test_scaling(tmp_path):
    result, text = run("scaling", tmp_path, "--rounds", "1")
    records = result["records"]
    assert {r["axis"] for r in records} == {"T", "B", "H", "devices", "remat", "O"}
    assert {r["at"] for r in records if r["axis"] == "devices"} == {1, 2}
    assert any(r["row"].endswith("bfloat16") for r in records)
    assert "- T: jrnn's time at 10 / at 5: " in text
    assert "- readout_cross_entropy, O = 40: temporary bytes / those of the logits: " in text


def a_program(result):
    return Program("a rival", lambda: result, lambda x: x)


def test_what_differs_is_not_timed():
    right = np.linspace(-1, 1, 100)
    assert compare(a_program({"hs": right}), {"hs": right}, FLOAT32_TOLERANCE) == {"hs": 0}
    refused = r"hs of a rival: expected the common result to 1e-05 .*; got 0.001. Not timed."
    with pytest.raises(ValueError, match=refused):
        compare(a_program({"hs": 1.001 * right}), {"hs": right}, FLOAT32_TOLERANCE)
    with pytest.raises(ValueError, match=r"got nan\. Not timed\."):
        compare(a_program({"hs": right * np.nan}), {"hs": right}, FLOAT32_TOLERANCE)
    with pytest.raises(ValueError, match=r"hs of a rival: expected shape \[100\]; got \[99\]"):
        compare(a_program({"hs": right[1:]}), {"hs": right}, FLOAT32_TOLERANCE)


def test_losses_that_differ_are_not_timed():
    check_losses({"jrnn": 4.0, "torch": 4.00001}, 0)
    with pytest.raises(ValueError, match=r"loss 1 of torch: expected jrnn's, 4\.0+, to 1e-05; got"):
        check_losses({"jrnn": 4.0, "torch": 4.0001}, 0)


def test_a_rival_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    expected = (
        r"--rivals: expected flax to be installed; got ModuleNotFoundError: .*flax.*\. "
        r"Install the rivals: pip install -r benchmarks/requirements.txt; or name those that are "
        r"wanted: --rivals autodiff, for example\."
    )
    with pytest.raises(ValueError, match=expected):
        rivals.load("flax")


def test_japanese_vowels_beside_torch():
    own, torch = [0.96, 0.98, 0.97], [0.94, 0.95, 0.96]
    record = {"model": "mean-both", "jrnn": own, "torch": torch}
    text = japanese_vowels.table([record | {"jrnn_seconds": 1.25, "torch_seconds": 100.0}])
    errors = [np.std(a, ddof=1) / 3**0.5 for a in (own, torch)]
    ratio = 0.02 / np.hypot(*errors)
    assert text.splitlines()[2] == (
        f"| mean-both | 97.0 ({100 * errors[0]:.1f}) | 95.0 ({100 * errors[1]:.1f}) "
        f"| {ratio:+.1f} | 1.25 | 100 |"
    )


def test_japanese_vowels_without_torch(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert japanese_vowels.main(["--out", str(tmp_path)]) == 1
    assert "--rivals: expected torch to be installed; got" in capsys.readouterr().err


def test_a_row_that_does_not_exist():
    command = [sys.executable, "-m", "benchmarks.kernel", "--rows", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "argument --rows: 7 (choose from 1, 2, 3, 4, 5, 6)" in done.stderr


def test_rounded_operands_have_rounded_gradients():
    keys = jax.random.split(jax.random.key(0), 3)
    a, w, g = (jax.random.normal(key, (4, 4), jnp.float32) for key in keys)
    c, pull = jax.vjp(matmul_of_rounded, a, w)
    da, dw = pull(g)
    a, w, g = (np.asarray(x.astype(jnp.bfloat16), np.float64) for x in (a, w, g))
    for found, right in ((c, a @ w), (da, g @ w.T), (dw, a.T @ g)):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, right, atol=1e-6)


def record(row, program, ms, **more):
    key = {"route": "native", "dtype": "float32", "gradient": True, "activation": "tanh"}
    rest = {"floor_ms": 1.0, "compile_seconds": None, "temporary_bytes": None}
    return {"row": row, "program": program, "minimum_ms": ms, **key, **rest, **more}


def test_claims():
    records = [
        record(1, "jrnn", 2.0, temporary_bytes=30),
        record(1, "jrnn relu", 1.0, activation="relu"),
        record(1, "naive", 6.0, temporary_bytes=120),
        record(1, "hoisted", 4.0, temporary_bytes=100),
        record(1, "haiku relu", 2.5, activation="relu"),  # 2.5 times jrnn's relu
        record(2, "jrnn", 2.0),
        record(2, "naive", 1.0),
    ]
    said = {claim.text: claim for claim in claims.of_kernel(records)}
    best = said["forward + backward: best autodiff / jrnn"]
    assert best.ratios == {1: 2.0, 2: 0.5}
    assert best.geometric_mean == pytest.approx(1)
    assert best.lost == [2]
    assert str(best).endswith("2.000 (row 1), 0.500 (row 2); geometric mean 1.000; behind at 2")
    assert said["forward + backward: haiku relu / jrnn"].ratios == {1: 2.5}
    everyone = said["forward + backward: best of autodiff and JAX libraries / jrnn"]
    assert everyone.ratios == {1: 2.0, 2: 0.5}
    memory = said["forward + backward: jrnn's temporary bytes / the smallest autodiff's"]
    assert memory.ratios == {1: 0.3}
    assert memory.lost == []
    assert said["forward + backward: matmul floor / jrnn"].ratios == {1: 0.5, 2: 0.5}
    assert not any("torch" in text or "keras" in text for text in said)


def test_programs_take_turns():
    order = []
    programs = [
        Program(name, lambda name=name: order.append(name), lambda x: x) for name in ("a", "b")
    ]
    times = time_in_turn(programs, rounds=2)
    turns = [order[0], *(b for a, b in itertools.pairwise(order) if a != b)]
    assert turns == ["a", "b", "a", "b", "a"]  # estimates of both, then a b, then b a
    assert all(0 < t.minimum <= t.median for t in times.values())
