"""The exercises: each stub fails its test, each solution passes it, wrong answers fail it."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import in_tiers
from programs import ROOT

from jrnn import derivation

FOLDER = ROOT / "docs/exercises"


def load(name):
    spec = importlib.util.spec_from_file_location(f"exercises_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checks():
    return load("checks")  # here, because it makes arrays


STUBS, SOLUTIONS = load("stubs"), load("solutions")
CHECKS = re.findall(r"^def (test_\w+)", (FOLDER / "checks.py").read_text(), re.M)


def test_each_row_of_the_page_is_an_exercise():
    page = (ROOT / "docs/exercises.md").read_text()
    rows = re.findall(r"^\| (\d) \|.*\[`(\w+)`\]\([^)]*\) \|$", page, re.M)
    assert [f"test_{n}_{name}" for n, name in rows] == CHECKS
    assert len(rows) == 8


@pytest.mark.parametrize("check", CHECKS)
def test_a_stub_fails(checks, check):
    with pytest.raises(NotImplementedError):
        getattr(checks, check)(STUBS)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_a_solution_passes(checks, check):
    getattr(checks, check)(SOLUTIONS)


def changed(function, change):
    return lambda *args: change(function(*args))


def without_a_rule(rnn, xs, h0):
    """The states by a scan that JAX differentiates."""

    def step(h, x_t):
        h = jnp.tanh(x_t @ rnn.w_ih + h @ rnn.w_hh + rnn.b_h)
        return h, h

    return jax.lax.scan(step, h0, xs)[1]


def through_the_state_alone(rnn, readout, carry, x_t, label):
    """The step forward in time without the paths through earlier steps."""
    start = derivation.sensitivity_init(rnn, readout, carry.h)._replace(total=carry.total)
    return derivation.sensitivity_step(rnn, readout, start, x_t, label)


def window_of_one(*args):
    return derivation.gradients_truncated(*args, window=1)


def double_loop(rnn, readout, xs, labels, inner=None):
    """The right gradient by two loops over steps; XLA counts the body of each once."""
    f = derivation.trajectory(rnn, readout, xs, labels)
    T, H = f.hs.shape
    inner = inner or (lambda t, body, start: jax.lax.fori_loop(0, T, body, start))

    def of_loss(t, deltas):
        def back(j, carry):
            deltas, dh = carry
            k = t - j
            delta = jnp.where(k >= 0, f.dphis[k] * dh, 0)
            return deltas.at[jnp.maximum(k, 0)].add(delta), delta @ rnn.w_hh.T

        return inner(t, back, (deltas, f.dhs[t]))[0]

    deltas = jax.lax.fori_loop(0, T, of_loss, jnp.zeros((T, H)))
    exact = derivation.gradients_recursion(rnn, readout, xs, labels)
    h_tm1s = jnp.concatenate([jnp.zeros((1, H)), f.hs[:-1]])
    of_weights = exact.rnn._replace(w_hh=h_tm1s.T @ deltas)
    return exact._replace(rnn=of_weights)


def loop_of_unknown_length(*args):
    return double_loop(*args, inner=lambda t, body, start: jax.lax.fori_loop(0, t + 1, body, start))


def by_numpy(*args):
    """Right, but out of the reach of JAX."""
    found = derivation.gradients_recursion(*args)
    return jax.tree.map(np.asarray, found)


WRONG = {
    "the diagonal alone": (
        "test_1",
        lambda p: jnp.diag(p * (1 - p)),
        "is right on the diagonal alone",
    ),
    "labels that sum to 1": ("test_2", lambda p, y: p - y, "is p - y"),
    "the Jacobian transposed": (
        "test_3",
        changed(derivation.state_jacobian, lambda jacobian: jacobian.T),
        "the answer for t = 1 is the transpose",
    ),
    "the Jacobian of a step too late": (
        "test_3",
        lambda rnn, hs, t: derivation.state_jacobian(rnn, hs, t + 1),
        "the answer for t = 1 is that of step t + 1",
    ),
    "a Jacobian without an axis": ("test_3", lambda rnn, hs, t: hs[t], "the shapes of the answer"),
    "the immediate derivative": ("test_4", window_of_one, "terms with k = t alone"),
    "the sum over losses alone": ("test_5", window_of_one, "terms with k = t alone"),
    "the right gradient, slowly": ("test_5", derivation.gradients_double_sum, "multiplications"),
    "two loops": ("test_5", double_loop, "multiplications of 32 steps, compared with 16"),
    "a loop of unknown length": ("test_5", loop_of_unknown_length, "a loop of unknown length"),
    "NumPy": ("test_5", by_numpy, "the gradient is right; its operations"),
    "no rule of one's own": ("test_6", without_a_rule, "loop"),
    "no path through earlier steps": ("test_7", through_the_state_alone, "after step 2 .rnn"),
    "c without its gradient": (
        "test_8",
        changed(
            derivation.lstm_recursion, lambda g: g._replace(state=g.state._replace(c=jnp.zeros(4)))
        ),
        "the answer .state.c",
    ),
}


FASTEST = ("the diagonal alone", "the Jacobian transposed", "a Jacobian without an axis")


@in_tiers(lambda _: [{"name": name} for name in FASTEST], name=WRONG)
def test_a_wrong_answer_fails(checks, name):
    number, answer, text = WRONG[name]
    (check,) = (check for check in CHECKS if check.startswith(number))
    answers = SimpleNamespace(**{check.removeprefix(f"{number}_"): answer})
    with pytest.raises(AssertionError, match=re.escape(text)):
        getattr(checks, check)(answers)


@pytest.mark.slow
@pytest.mark.parametrize(("option", "outcome"), [([], "1 failed"), (["--solutions"], "8 passed")])
def test_the_command_of_the_page(option, outcome):
    page = (ROOT / "docs/exercises.md").read_text()
    command = re.search(r"^    \.venv/bin/python (-m pytest .*)$", page, re.M)[1]
    command = [sys.executable, *shlex.split(command, comments=True), *option]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert outcome in run.stdout.splitlines()[-1], run.stdout
    assert ("NotImplementedError" in run.stdout) == (not option)
    assert not (FOLDER / ".pytest_cache").exists()  # the site would take its README for a page


@pytest.mark.slow
def test_the_output_says_what_is_wrong_and_where(tmp_path):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    stubs = (FOLDER / "stubs.py").read_text()
    for code in ("jnp.diag(p * (1 - p))", "2 * p - y"):
        stubs = stubs.replace("raise NotImplementedError", f"return {code}", 1)
    (tmp_path / "stubs.py").write_text(stubs)
    command = [sys.executable, "-m", "pytest", "checks.py", "-k", "1 or 2"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    _, first, second, _ = re.split(
        r"^_{5,} .* _{5,}$|^=+ short test summary.*$", run.stdout, flags=re.M
    )
    assert first.strip().splitlines()[0].endswith("in test_1_softmax_jacobian")
    assert first.strip().splitlines()[2:] == [
        "E   AssertionError: the answer is right on the diagonal alone"
    ]
    _, _, wrong, found, _, right = second.strip().splitlines()
    assert wrong == "E   AssertionError: the answer is wrong by up to 0.66:"
    assert found.startswith("E   [ 1.318")
    assert right.startswith("E   [ 0.659")
