"""`python -m benchmarks.device` at toy size: what is wrong is said, and a page comes out always."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import typing
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracle_cells as elements
import pytest
from jax import lax

import jrnn
from benchmarks import report, train_step
from benchmarks.device import __main__ as command
from benchmarks.device import gradients, measured, page, runner
from benchmarks.device.gradients import CELLS, TOY, Cell, Check, compared, oracle
from benchmarks.device.runner import Context, Part, run
from benchmarks.rivals import autodiff
from jrnn.cells.elman import ActivationName
from jrnn.cells.leaky import Leak

pytestmark = pytest.mark.slow  # it runs the whole command again and again

ROOT = Path(__file__).parents[1]
TOY_OPTIONS = {"toy": True, "rivals": ["autodiff"]}


def context(seconds=3600, **options):
    return Context(TOY_OPTIONS | options, time.monotonic() + seconds)


def by_kind(found):
    """(records, lines)."""
    found = list(found)
    return [r for r in found if isinstance(r, dict)], [r for r in found if isinstance(r, str)]


# --- gradients -----------------------------------------------------------------------------------


def test_every_cell_and_activation_of_the_package_is_compared():
    cells = {n.removeprefix("init_") for n in dir(jrnn) if n.startswith("init_")}
    cells = {n for n in cells if hasattr(jrnn, f"{n}_cell")}
    runs = [cell.run if isinstance(cell.run, partial) else partial(cell.run) for cell in CELLS]
    assert {run.func.__name__ for run in runs} == cells
    names = [run.keywords.get("activation", "tanh") for run in runs if run.func is jrnn.rnn]
    assert sorted(names) == sorted(typing.get_args(ActivationName))
    leaks = [
        (run.keywords.get("leak", "state"), cell.init.keywords.get("learned", False))
        for cell, run in zip(CELLS, runs, strict=True)
        if run.func is jrnn.leaky
    ]
    assert sorted(leaks) == sorted(itertools.product(typing.get_args(Leak), (False, True)))


def test_the_oracle_is_that_of_the_tests_and_loads_nothing_of_the_package():
    folder = ROOT / "tests/kernel"
    assert Path(oracle.__file__) == folder / "oracle.py"
    code = "import sys, oracle; assert not {'jax', 'jrnn', 'benchmarks'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


EVERY = list(gradients.checks(toy=False))
FORMS = [*gradients.ALWAYS, *gradients.OTHERS]
OTHERS = "lengths, resets, recurrent mask"


def test_each_cell_comes_in_the_forms_that_it_has_and_all_of_them_before_the_rest():
    made = [(check.cell.name, *check[1:]) for check in EVERY]
    assert len(made) == len(set(made))
    forms = {c.name: [form for name, form, *_ in made if name == c.name] for c in CELLS}
    assert set(forms["rnn"]) == set(FORMS)
    for cell in CELLS:
        others = gradients.OF_GATES.get(cell.name, [])
        assert set(forms[cell.name]) >= {*FORMS[:2], *others}
    assert {c.precision for c in EVERY if "bfloat16" in c.form} == {"default"}
    assert {(c.cell.name, c.precision, c.case) for c in EVERY} >= {
        *((name, "default", gradients.FULL) for name in ("rnn", "lstm", "gru")),
        *((name, "highest", gradients.SMALL) for name in ("rnn", "lstm", "gru")),
    }
    first = EVERY[: 2 * len(CELLS)]
    assert {c.cell.name for c in first} == {cell.name for cell in CELLS}


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    ("cell", "form"),
    [
        *((CELLS[0], form) for form in FORMS),
        *((c, form) for c in CELLS for form in FORMS if form in gradients.OF_GATES.get(c.name, [])),
        *((cell, OTHERS) for cell in CELLS[1:]),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_every_form_of_the_package_passes(cell, form):
    found = compared(Check(cell, form, TOY, "default" if "bfloat16" in form else "highest"))
    assert found["passed"], found
    params = cell.init(jax.random.key(0), 3, 4)._asdict()
    biases = {"b_h", "b_hn"} & set(params)
    states = range(2 if cell.name == "lstm" else 1)
    outputs = {"hs", *(f"{name} {n}" for name in ("last", "start") for n in states)}
    names = {name for name, p in params.items() if p is not None}
    outputs |= {f"params {name}" for name in names - (biases if form == "no bias" else set())}
    outputs |= set() if "ids" in form else {"xs"}
    outputs |= {f"reset_state {n}" for n in states} if "lengths" in form else set()
    outputs |= {"recurrent_mask"} if "mask" in form else set()
    assert found["errors"].keys() == outputs
    assert any(e["error"] > 0 for e in found["errors"].values())


def scanned(step, params, xs, h0, *ends):
    def both(s, x):
        s = step(params, x, s)
        return s, s

    return lax.scan(both, h0, xs)


ALPHA = 0.25


def leaky(params, x, s):
    a = x @ params.w_ih + s @ params.w_hh + params.b_h
    return (1 - ALPHA) * s + ALPHA * jnp.tanh(a)


def leaky_bias_outside(params, x, s):
    """The bias has lost its factor, as in a compiler's fault that is known."""
    a = x @ params.w_ih + s @ params.w_hh
    return (1 - ALPHA) * s + ALPHA * jnp.tanh(a) + params.b_h


RIGHT_LEAKY = elements.Cell(  # of a fixed alpha that is no parameter
    lambda a, s, unit, data: [(1 - ALPHA) * s[0] + ALPHA * np.tanh(a[0])],
    lambda d, a, s, unit, data: (
        [ALPHA * d[0] / np.cosh(a[0]) ** 2],
        [(1 - ALPHA) * d[0]],
        {},
        {},
    ),
)


@jax.custom_jvp
def slightly_more(w):
    return w


slightly_more.defjvp(lambda primals, tangents: (primals[0], 1.001 * tangents[0]))


def off_by_a_thousandth(params, *data, **options):
    return jrnn.rnn(params._replace(w_hh=slightly_more(params.w_hh)), *data, **options)


def b_hn_outside_of_the_reset(params, *data, **options):
    H = len(params.b_hn)
    b_h = params.b_h.at[2 * H :].add(params.b_hn)
    return jrnn.gru(params._replace(b_h=b_h, b_hn=None), *data, **options)


CASES = [
    (Cell("leaky", jrnn.init_rnn, partial(scanned, leaky), RIGHT_LEAKY), None),
    (Cell("leaky", jrnn.init_rnn, partial(scanned, leaky_bias_outside), RIGHT_LEAKY), "hs"),
    (Cell("rnn", jrnn.init_rnn, off_by_a_thousandth, oracle.elman("tanh")), "params w_hh"),
    (Cell("rnn", jrnn.init_rnn, jrnn.rnn, oracle.elman("relu")), "hs"),
    (Cell("gru", jrnn.init_gru, b_hn_outside_of_the_reset, oracle.CELLS["gru"]), "params b_hn"),
]


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    ("cell", "wrong"), CASES, ids=["right", "bias", "0.1 %", "activation", "b_hn"]
)
def test_a_line_in_the_table_is_a_cell_and_a_wrong_one_is_found(cell, wrong):
    found = compared(Check(cell, FORMS[0], TOY, "highest"))
    assert found["passed"] == (wrong is None)
    errors = found["errors"]
    if wrong:
        assert errors[wrong]["error"] > errors[wrong]["bound"]
        assert found["of_bound"] > 100


@pytest.mark.usefixtures("float32")
def test_a_form_that_fails_does_not_hide_the_others_and_the_page_says_it():
    def fails(*arguments, **options):
        raise RuntimeError("INTERNAL: a compiler's error")

    cells = [Cell("fails", jrnn.init_rnn, fails, oracle.elman("tanh")), CELLS[0]]
    records, _ = by_kind(gradients.gradients(context(), cells))
    assert {r["cell"] for r in records if r["passed"]} == {"rnn"}
    assert {r["cell"] for r in records if not r["passed"]} == {"fails"}
    part = {"name": "gradients", "title": "Gradients", "state": "done", "lines": []}
    text = page.markdown(a_page([part | {"records": records, "reason": "", "seconds": 1.0}]))
    assert "WRONG: fails vectors" in text.split("## Gradients")[0]
    assert (
        "| fails | vectors | 6, 2, 3, 4 | highest |  |  |  |  | **FAIL**: RuntimeError: INT" in text
    )


def test_what_there_is_no_time_for_is_said():
    records, lines = by_kind(gradients.gradients(context(seconds=0)))
    assert not records
    assert lines[0].startswith("Left out for lack of time: ")
    for part in (measured.recurrences, measured.training, measured.growth):
        records, lines = by_kind(part(context(seconds=0)))
        assert not records
        assert any(line.startswith("Left out for lack of time: ") for line in lines)


# --- the other parts -----------------------------------------------------------------------------


@pytest.mark.usefixtures("float32")
def test_recurrences_without_rivals_that_are_missing_or_wrong(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.setattr(measured, "TOY_GROUPS", measured.TOY_GROUPS[:1])
    sine = autodiff.elman(jnp.sin)
    wrong = {"hoisted": lambda params, xs, cell: autodiff.naive(params, xs, cell=sine)}
    monkeypatch.setattr(autodiff, "SCANS", autodiff.SCANS | wrong)
    records, lines = by_kind(measured.recurrences(context(rivals=["autodiff", "flax"])))
    assert {r["program"] for r in records} == {"jrnn", "naive", "hoisted x4", "matmul floor"}
    missing, wrong = lines
    assert missing.startswith("flax is left out: --rivals: expected flax to be installed; got")
    at = "rnn, row 1 (7, 4, 3, 5) batch float32 forward + backward"
    assert wrong.startswith(f"{at}: b_h of hoisted: expected the common result")
    for r in records[:-1]:
        assert 0 < r["minimum_ms"] <= r["median_ms"]
        assert r["error"] < 1e-5


@pytest.mark.usefixtures("float32")
def test_an_lstm_is_timed_too(monkeypatch):
    """With the cheapest rivals: none."""
    monkeypatch.setattr(measured, "TOY_GROUPS", measured.TOY_GROUPS[1:])
    records, lines = by_kind(measured.recurrences(context(rivals=[])))
    assert {r["program"] for r in records} >= {"jrnn"}
    assert lines == []
    assert {(r["cell"], r["gradient"]) for r in records} == {("lstm", True)}


def test_what_is_worth_most_is_measured_first():
    first = [(group.cell, group.row) for group in measured.GROUPS[:10]]
    assert first[:6] == [("rnn", row) for row in (2, 1, 4, 3, 5, 6)]
    assert set(first[6:]) == {(cell, row) for cell in ("lstm", "gru") for row in (1, 2)}
    assert len(set(measured.GROUPS)) == len(measured.GROUPS)


def tried(seconds=3600, rivals=("autodiff", "flax"), known=("autodiff", "flax"), **tasks):
    given = context(seconds, rivals=list(rivals))
    return by_kind(measured.in_order(given, list(known), tasks))


def test_a_task_that_fails_is_run_with_fewer_rivals():
    asked = []

    def fails_with_any(rivals):
        asked.append(rivals)
        yield {"program": "before"}
        if rivals:
            raise RuntimeError(f"{rivals[-1]} is too large")

    records, lines = tried(a=fails_with_any, b=lambda rivals: iter([{"program": "b"}]))
    assert asked == [["autodiff", "flax"], ["autodiff"], []]
    assert lines == [
        "a, jrnn, autodiff, flax: RuntimeError: flax is too large",
        "a, jrnn, autodiff: RuntimeError: autodiff is too large",
    ]
    assert records[-1] == {"program": "b"}


def test_jrnn_that_fails_alone_fails_the_part_after_all_others():
    def fails(rivals):
        raise ValueError("w_hh of jrnn: expected the common result")
        yield

    tasks = {"a": fails, "b": lambda rivals: iter([{"program": "b"}])}
    seen = []

    def see(found):
        for one in found:
            seen.append(one)

    with pytest.raises(RuntimeError, match=r"^a: the lines of this part say why"):
        see(measured.in_order(context(), ["autodiff"], tasks))
    assert seen[-1] == {"program": "b"}


def test_a_task_that_would_not_end_in_time_is_left_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])

    def takes(seconds, rivals):
        now[0] += seconds
        yield {"program": f"{seconds}"}

    tasks = {name: partial(takes, seconds) for name, seconds in (("a", 2), ("b", 5), ("c", 1))}
    given = Context(TOY_OPTIONS, 10)
    records, lines = by_kind(measured.in_order(given, ["autodiff"], tasks | {"d": tasks["a"]}))
    assert [r["program"] for r in records] == ["2", "5"]  # 3 seconds are left, less than 5
    assert lines == ["Left out for lack of time: c; d."]


@pytest.mark.usefixtures("float32")
def test_training():
    records, lines = by_kind(measured.training(context(rivals=[])))
    assert records[0]["program"] == "jrnn"
    assert all(r["program"].startswith("jrnn") for r in records)
    rate = 1e3 * records[0]["length"] * records[0]["batch_size"] / records[0]["median_ms"]
    assert records[0]["characters_per_second"] == pytest.approx(rate)
    assert lines == []


@pytest.mark.usefixtures("float32")
def test_growth_and_the_page_of_it(tmp_path):
    records, lines = by_kind(measured.growth(context()))
    programs = {(r["at"], r["program"]) for r in records}
    names = ("jrnn", "hoisted x4", "matmul floor")
    assert programs == {(at, name) for at in (5, 10) for name in names}
    assert lines == []
    part = {"name": "growth", "title": "Growth", "state": "done", "reason": "", "seconds": 1.0}
    whole = a_page([part | {"records": records, "lines": lines}])
    whole["chart"] = page.chart(tmp_path, whole)
    assert (tmp_path / "device.png").read_bytes()[:4] == b"\x89PNG"
    report.write(tmp_path, "device", whole, page.markdown(whole))
    assert json.loads((tmp_path / "device.json").read_text()) == whole
    text = (tmp_path / "device.md").read_text()
    assert "](device.png)" in text
    for at in (5, 10):
        own, *_, scan, floor = (r for r in records if r["at"] == at)
        assert floor["program"] == "matmul floor"
        ms, ratio = scan["minimum_ms"], scan["minimum_ms"] / own["minimum_ms"]
        assert f"| {at} | hoisted x4 | {ms:.3g} | {ratio:.2f} |" in text


def test_losses_may_differ_by_more_where_matmuls_are_rounded():
    losses = {"jrnn": 4.0, "torch": 4.01}
    train_step.check_losses(losses, 0, exact=False)
    with pytest.raises(ValueError, match=r"to 1e-05; got 4\.01"):
        train_step.check_losses(losses, 0, exact=True)
    with pytest.raises(ValueError, match=r"to 0\.01; got 4\.1"):
        train_step.check_losses({"jrnn": 4.0, "torch": 4.1}, 0, exact=False)


# --- the runner, with parts that end in every way ------------------------------------------------


PART = {"name": "a part", "title": "A part", "state": "done", "reason": "", "lines": []}


def a_part(name, weight=1.0):
    return Part(name, f"The part {name}", f"device_parts:{name}", weight)


def a_page(parts):
    start = {"name": "a machine", "command": "a command", "date": "a day", "chart": "No chart."}
    return start | {"parts": parts}


def run_parts(*parts, seconds=600, options=None):
    """The results, and the page that was written last."""
    written = []
    results = run(parts, options or {}, seconds, lambda found, *_: written.append(as_page(found)))
    return results, written


def as_page(results):
    # In JSON and back: what is written, nothing else.
    return json.loads(json.dumps(a_page(results)))


def test_a_part_that_ends_badly_loses_nothing_and_stops_nobody():
    names = [
        "raises",
        "crashes",
        "is_killed",
        "leaves",
        "no_such_part",
        "misses_something",
        "right",
    ]
    results, written = run_parts(*map(a_part, names))
    raises, crashes, killed, leaves, missing, left_out, right = results
    assert [r["state"] for r in results] == ["failed"] * 5 + ["left out", "done"]
    assert left_out["reason"] == "it needs no_such_library, which is not installed"
    assert raises["reason"] == "ValueError: a bad value and more"
    assert 'device_parts.py", line' in raises["details"]
    assert crashes["reason"].startswith("its process ended: SIGSEGV")
    assert "the driver's last words" in crashes["reason"]
    assert killed["reason"] == "its process ended: SIGKILL"
    assert leaves["reason"] == "its process ended: exit status 3"
    assert missing["reason"].startswith("AttributeError: module 'device_parts' has no attribute")
    assert all(r["records"] == [{"cell": "before"}] for r in (raises, crashes, leaves))
    assert (right["records"], right["lines"]) == ([{"cell": "right", "value": 1.5}], ["a line"])
    # Each record was written before the next thing happened.
    first = [(p["parts"][0]["state"], p["parts"][0]["records"]) for p in written]
    assert first[:2] == [("running", []), ("running", [{"cell": "before"}])]


@pytest.mark.parametrize("failing", command.PARTS, ids=lambda part: part.name)
def test_each_part_can_fail_and_the_page_names_it(failing, tmp_path):
    part = failing._replace(function="device_parts:raises_before_all")
    results, _ = run_parts(part)
    report.write(tmp_path, "device", as_page(results), page.markdown(as_page(results)))
    text = (tmp_path / "device.md").read_text()
    short, section = text.split(f"\n## {part.title}\n")
    assert f"- {part.title}: **failed**: AttributeError: module" in short
    assert f"| {part.title} | **failed**: AttributeError: module" in short
    assert "**failed**: AttributeError: module" in section


def test_what_is_said_breaks_no_table():
    part = {"name": "gradients", "title": "Gradients", "seconds": 1.0, "lines": [], "records": []}
    ended = {"state": "failed", "reason": runner.words(ValueError("a |\n bad\n\n value"))}
    text = page.markdown(a_page([part | ended]))
    assert "| Gradients | **failed**: ValueError: a \\| bad value | 1 | 0 |" in text
    assert len(runner.words(ValueError("long " * 1000))) < 400


def test_a_page_that_cannot_be_written_is_an_error_that_names_it(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert command.main(["--toy", "--out", str(tmp_path / "file/folder")]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("# an unknown device\n\n    python -m benchmarks.device --toy")
    assert "Not a directory" in said.err
    assert f"{tmp_path}/file/folder" in said.err


def test_an_error_while_writing_is_no_error_of_the_part_and_leaves_no_process():
    found = []

    def full(results, *_):
        found.extend(results[0]["records"])
        if found:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run([a_part("hangs_with_a_child")], {}, 600, full)
    wait_for_the_end_of(found[0]["pid"])


def test_a_part_that_hangs_is_ended():
    (result,) = run_parts(a_part("hangs"), seconds=1)[0]
    assert result["state"] == "stopped"
    assert result["reason"].startswith("it did not end within ")


def test_a_part_knows_its_time_and_leaves_the_rest_to_those_after_it():
    parts = a_part("asks_for_time", 1), a_part("right", 10_000)
    results = run_parts(*parts, seconds=600, options={"what": "all"})[0]
    assert [r["state"] for r in results] == ["done", "done"]
    assert results[0]["lines"] == ["left out for lack of time, all"]
    (result,) = run_parts(a_part("right"), seconds=1e-9)[0]
    assert (result["state"], result["reason"]) == ("left out", "there was no time left for it")


def test_ctrl_c_ends_the_part_and_its_children():
    written = []

    def interrupted(results, *_):
        written.append(as_page(results))
        if results[0]["state"] == "running" and results[0]["records"]:
            raise KeyboardInterrupt

    results = run([a_part("hangs_with_a_child"), a_part("right")], {}, 600, interrupted)
    assert [r["state"] for r in results] == ["interrupted", "not started"]
    assert written[-1]["parts"][0]["state"] == "interrupted"
    wait_for_the_end_of(results[0]["records"][0]["pid"])


def wait_for_the_end_of(pid):
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.01)  # it has been sent SIGKILL, which cannot be refused


# --- the command ---------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "benchmarks.device", "--toy", "--rivals", "autodiff"]
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def test_a_signal_in_the_middle_after_the_terminal_has_gone(tmp_path):
    words = [*COMMAND, "--out", str(tmp_path)]
    process = subprocess.Popen(words, cwd=ROOT, env=os.environ | QUICK, stdout=subprocess.PIPE)
    process.stdout.close()  # whatever is said from now on fails
    try:
        while not any(part["records"] for part in parts_in(tmp_path)):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        process.wait()
    finally:
        process.kill()
    assert process.returncode == 130
    parts = parts_in(tmp_path)
    (n,) = (n for n, part in enumerate(parts) if part["state"] == "interrupted")
    assert [p["state"] for p in parts] == [
        *(["done"] * n + ["interrupted"] + ["not started"] * (len(parts) - n - 1))
    ]
    assert any(part["records"] for part in parts)
    text = (tmp_path / "device.md").read_text()
    assert f"| {parts[n]['title']} | **interrupted**: Ctrl-C, or a signal to end |" in text
    assert f"## {parts[-1]['title']}\n\nnot started\n" in text


def parts_in(folder):
    path = folder / "device.json"
    return json.loads(path.read_text())["parts"] if path.exists() else []


def test_the_whole_command(tmp_path, monkeypatch, capfd):
    """Of its parts the cheapest; the others run above."""
    monkeypatch.setenv(*next(iter(QUICK.items())))
    words = ["--toy", "--rivals", "flax", "--parts", "device", "--out", str(tmp_path)]
    assert command.main([*words, "--name", "the machine's name"]) == 0
    found = json.loads((tmp_path / "device.json").read_text())
    text = (tmp_path / "device.md").read_text()
    assert text == f"{page.markdown(found)}\n"
    assert text.startswith(f"# the machine's name\n\n    {found['command']}\n\n{found['date']}. 1 ")
    assert found["command"].startswith("python -m benchmarks.device --toy --rivals flax --parts ")
    (part,) = found["parts"]
    assert part["state"] == "done"
    assert part["records"][0]["machine"]["processor"] in text
    assert "- No nvidia-smi here: no clocks, no power." in text
    said = capfd.readouterr().out
    assert said.startswith("The device: running\nThe device: No nvidia-smi here")
    assert "\nThe device: done\n" in said


def test_a_busy_machine_is_said():
    record = {"machine": {"cores": 4}, "load": 2.5}
    part = {"name": "device", "state": "done", "records": [record]}
    (said,) = page.in_short(part)
    assert said == "**The machine was busy: load 2.5 on 4 cores. Times mean little.**"
    assert not list(page.in_short(part | {"records": [record | {"load": 1.5}]}))


@pytest.mark.parametrize("status", [0, 9])
def test_what_nvidia_smi_says(status, tmp_path, monkeypatch):
    values = [f"value {n}" for n in range(len(measured.NVIDIA))]
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{', '.join(values)}'\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (found,) = measured.nvidia_smi()
    if status:
        assert found.startswith("No clocks, no power: CalledProcessError: Command ")
        return
    assert list(found.values()) == [0, *values]
    said = "\n".join(page.section(PART | {"records": [found]}))
    assert "| gpu | name | driver_version | memory.total |" in said
    assert "| 0 | value 0 | value 1 | value 2 |" in said


def a_record(program, ms, cell="rnn"):
    key = {"row": 2, "table": f"{cell}: batch, float32", "axis": "T, B, I, H", "gradient": True}
    figures = {"minimum_ms": ms, "median_ms": ms, "compile_seconds": 1.0, "temporary_bytes": 1000}
    more = {
        "matmul_gflops": 2e5,
        "error": 1e-6,
        "program": program,
    }
    return key | {"place": "4, 3, 2, 1"} | figures | more


def test_each_cell_has_tables_and_ratios_and_a_panel_of_its_own(tmp_path):
    of_rnn = [a_record("jrnn", 2.0), a_record("naive", 3.0), a_record("torch", 0.5)]
    of_lstm = [a_record("jrnn", 8.0, "lstm"), a_record("naive", 4.0, "lstm")]
    part = {"name": "recurrences", "title": "Recurrences", "state": "done", "reason": ""}
    whole = a_page([part | {"seconds": 1.0, "records": of_rnn + of_lstm, "lines": []}])
    text = page.markdown(whole)
    for cell, ms, ratio in (("rnn", 3, "1.50"), ("lstm", 4, "0.50")):
        assert f"### {cell}: batch, float32\n" in text
        assert f"| 4, 3, 2, 1 | naive | {ms} | {ratio} | 0.001 | 1.00 | 1 | 1.00 | 1e-06 |" in text
    assert "- rnn: batch, float32, torch over jrnn: gradient ms 0.25, gradient MB" in text
    assert "runs at 200,000 GFLOP/s" in text
    said = command.sentence(of_lstm[0])
    assert said == "lstm: batch, float32, 4, 3, 2, 1: 8 ms"
    assert page.chart(tmp_path, whole) == ""


def test_without_matplotlib_the_chart_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    record = {"table": "T: B = 1", "axis": "T", "place": "1", "program": "jrnn", "minimum_ms": 1.0}
    said = page.chart(tmp_path, a_page([{"name": "growth", "records": [record]}]))
    assert said.startswith("No chart: ModuleNotFoundError: ")
    code = """
import sys
from benchmarks.device import __main__, gradients, measured
assert not {m.split(".")[0] for m in sys.modules} & {"matplotlib", "tqdm", "flax", "torch"}
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("words", [["--minutes", "0"], ["--parts", "all"]], ids=str)
def test_bad_options(words, capsys):
    with pytest.raises(SystemExit):
        command.parse(words)
    assert f"argument {words[0]}: invalid" in capsys.readouterr().err
