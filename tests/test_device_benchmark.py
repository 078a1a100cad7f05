"""`python -m benchmarks.device` at toy size: what is wrong is said, and a page comes out always."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import typing
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path

import cells
import jax.numpy as jnp
import oracle
import pytest
from faults.parts import StatesCrossResets
from programs import ROOT

import jrnn
from benchmarks import device, gradients, kernel, machine, report, train_step
from benchmarks.cases import CASES
from benchmarks.gradients import CELLS, TOY, Check, compared
from benchmarks.rivals import autodiff
from jrnn.cells.elman import ActivationName
from jrnn.cells.leaky import Leak

pytestmark = pytest.mark.slow  # it runs whole commands again and again


def by_kind(found):
    """(records, lines)."""
    found = list(found)
    return [r for r in found if isinstance(r, dict)], [r for r in found if isinstance(r, str)]


# --- gradients -----------------------------------------------------------------------------------


def test_every_cell_and_activation_of_the_package_is_compared():
    names = {n.removeprefix("init_") for n in dir(jrnn) if n.startswith("init_")}
    names = {n for n in names if hasattr(jrnn, f"{n}_cell")}
    assert {cell.split(",")[0].replace("rate", "leaky") for cell in CELLS} == names
    made = [options["name"] for options in CELLS.values()]
    assert set(made) >= set(typing.get_args(ActivationName))
    leaks = {name: kind for name, (phi, kind) in cells.LEAKS.items() if phi == "tanh"}
    assert set(leaks.values()) == set(typing.get_args(Leak))
    for name, learned in itertools.product(leaks, (False, True)):
        assert any((c["name"], c.get("learned", False)) == (name, learned) for c in CELLS.values())


def test_the_oracle_is_that_of_the_tests_and_loads_nothing_of_the_package():
    folder = ROOT / "tests/kernel"
    assert Path(oracle.__file__) == folder / "oracle.py"
    code = "import sys, oracle; assert not {'jax', 'jrnn', 'benchmarks'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


EVERY = list(gradients.checks(toy=False))
FORMS = [*gradients.ALWAYS, *gradients.OTHERS]


def test_each_cell_comes_in_the_forms_that_it_has_and_all_of_them_before_the_rest():
    assert len(EVERY) == len(set(EVERY))
    forms = {cell: {check.form for check in EVERY if check.cell == cell} for cell in CELLS}
    assert forms["rnn"] == set(FORMS)
    for cell in CELLS:
        assert forms[cell] >= {*FORMS[:2], *gradients.OF_GATES.get(cell, [])}
    assert {c.precision for c in EVERY if "bfloat16" in c.form} == {None}
    often = ("rnn", "lstm", "gru")
    assert {(c.cell, c.precision, c.case) for c in EVERY} >= {
        *((name, None, gradients.FULL) for name in often),
        *((name, "highest", gradients.SMALL) for name in often),
    }
    assert {c.cell for c in EVERY[: 2 * len(CELLS)]} == set(CELLS)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    ("cell", "form"),
    [
        *(("rnn", form) for form in FORMS),
        *((cell, form) for cell, forms in gradients.OF_GATES.items() for form in forms),
        *((cell, "lengths, resets, recurrent mask") for cell in list(CELLS)[1:]),
    ],
)
def test_every_form_of_the_package_passes(cell, form):
    check = Check(cell, form, TOY, None if "bfloat16" in form else "highest")
    found = gradients.recorded(float("inf"), check)
    assert found["result"] == "pass", found
    states = range(2 if cell == "lstm" else 1)
    names = {"hs", "w_ih", "w_hh", *(f"{name} {n}" for name in ("last", "start") for n in states)}
    names |= set() if form == "no bias" else {"b"}
    names |= set() if "ids" in form else {"xs"}
    names |= {f"reset_state {n}" for n in states} if "lengths" in form else set()
    names |= {"recurrent_mask"} if "mask" in form else set()
    if CELLS[cell]["name"] in cells.LEAKS:
        names.add("unit log_tau" if "learned" in cell else "unit alpha")
    assert found["errors"].keys() == names
    assert any(e["error"] > 0 for e in found["errors"].values())


def spec_of(check, **changes):
    """The spec of a check, of which parts of the cell or of the kernel are replaced."""
    spec = check.spec()
    parts = {name: changes.pop(name) for name in ("step", "adjoint") if name in changes}
    return spec._replace(cell=replace(spec.cell, **parts), **changes)


def off_by_a_thousandth(adjoint, *given):
    found = adjoint(*given)
    return found._replace(blocks=tuple(1.001 * d for d in found.blocks))


@pytest.mark.usefixtures("float32", "without_native")  # which has no masking of Python
@pytest.mark.parametrize(
    ("fault", "wrong"), [("none", None), ("0.1 %", "b"), ("reset", "hs"), ("activation", "hs")]
)
def test_what_is_wrong_is_found(fault, wrong):
    check = Check("rnn", "lengths, resets", TOY, "highest")
    changes = {
        "none": {},
        "0.1 %": {"adjoint": partial(off_by_a_thousandth, check.spec().cell.adjoint)},
        "reset": {"masking": StatesCrossResets()},
        "activation": {"cell": Check("rnn, relu", *check[1:]).spec().cell},
    }[fault]
    spec = check.spec()._replace(**changes) if "cell" in changes else spec_of(check, **changes)
    found = compared(check, spec)
    assert (found["result"] == "pass") == (wrong is None)
    if wrong:
        assert found["of_bound"] > 100
        assert found["errors"][wrong]["error"] > found["errors"][wrong]["bound"]


@pytest.mark.usefixtures("float32")
def test_a_check_that_fails_does_not_hide_the_others_and_the_page_says_it(tmp_path, monkeypatch):
    def fails(check, spec):
        if check.cell == "gru":
            raise RuntimeError("INTERNAL: a |\n bad\n\n value")
        return compared(check, spec)

    monkeypatch.setattr(gradients, "compared", fails)
    monkeypatch.setattr(gradients, "CELLS", {name: CELLS[name] for name in ("rnn", "gru")})
    args = Namespace(program="gradients", toy=True, minutes=None, out=tmp_path)
    assert report.run(args, gradients.results) == 1
    page = json.loads((tmp_path / "gradients.json").read_text())
    assert page["fault"] == "1 of 2 comparisons are WRONG: gru vectors 6, 2, 3, 4 highest"
    text = (tmp_path / "gradients.md").read_text()
    assert f"- **{page['fault']}**\n" in text.split("## Comparisons")[0]
    why = r"**FAIL**: RuntimeError: INTERNAL: a \| bad value"
    assert f"| gru | vectors | 6, 2, 3, 4 | highest |  |  |  |  |  | {why} |" in text
    assert re.search(r"\| rnn \| vectors .* \| pass \|", text)
    assert len(report.words(ValueError("long " * 1000))) < 400


def test_what_there_is_no_time_for_is_said():
    records, _ = by_kind(gradients.results(Namespace(toy=True, minutes=0)))
    assert [r["result"] for r in records] == ["left out for lack of time"] * 10


# --- tasks ---------------------------------------------------------------------------------------


def tried(rivals=("autodiff", "flax"), minutes=None, **tasks):
    return by_kind(report.in_order(tasks, list(rivals), minutes))


def test_a_task_that_fails_is_run_with_fewer_rivals(monkeypatch):
    monkeypatch.setattr(report, "load", lambda name: None)
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


def test_jrnn_that_fails_alone_is_a_fault_after_all_others(tmp_path, capsys):
    def fails(rivals):
        raise ValueError("w_hh of jrnn: expected the common result")
        yield

    tasks = {"a": fails, "b": lambda rivals: iter([{"table": "B", "program": "b"}])}
    args = Namespace(out=tmp_path, program="name")
    assert report.run(args, lambda args: report.in_order(tasks, [], None)) == 1
    page = json.loads((tmp_path / "name.json").read_text())
    line = "a, jrnn: ValueError: w_hh of jrnn: expected the common result"
    assert page["results"] == [line, {"table": "B", "program": "b"}]
    assert page["fault"] == "a: lines of the page say why"
    assert "error: a: lines of the page say why" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    def interrupted(rivals):
        yield {"table": "A", "program": "a"}
        raise KeyboardInterrupt

    args, tasks = Namespace(out=tmp_path, program="name"), {"a": interrupted, "b": interrupted}
    assert report.run(args, lambda args: report.in_order(tasks, [], None)) == 130
    page = json.loads((tmp_path / "name.json").read_text())
    assert page["results"] == [{"table": "A", "program": "a"}]
    assert page["fault"] == "interrupted: Ctrl-C, or a signal to end"
    assert "| a |" in (tmp_path / "name.md").read_text()


def test_a_task_that_would_not_end_in_time_is_left_out(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])

    def takes(seconds, rivals):
        now[0] += seconds
        yield {"program": f"{seconds}"}

    tasks = {name: partial(takes, n) for name, n in (("a", 2), ("b", 5), ("c", 1), ("d", 2))}
    records, lines = tried((), 10 / 60, **tasks)
    assert [r["program"] for r in records] == ["2", "5"]  # 3 seconds are left, less than 5
    assert lines == ["Left out for lack of time: c; d."]
    assert capsys.readouterr().out == "1 of 4: a\n2 of 4: b\n"


@pytest.mark.usefixtures("float32")
def test_a_rival_that_is_missing_or_wrong_is_said_and_the_rest_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.delitem(sys.modules, "benchmarks.rivals.flax", raising=False)
    monkeypatch.setitem(autodiff.CELLS, "sine", (lambda x, h, states: (jnp.sin(x + h),), 1))
    wrong = {"hoisted": lambda params, xs, cell: autodiff.SCANS["naive"](params, xs, cell="sine")}
    monkeypatch.setattr(autodiff, "SCANS", autodiff.SCANS | wrong)
    args = kernel.parse(["--toy", "--device", "--rounds", "1", "--rivals", "autodiff", "flax"])
    group = next(kernel.groups(args))
    tasks = {str(group): partial(kernel.measure_group, args, group)}
    records, lines = tried(**tasks)
    assert {r["program"] for r in records} == {"jrnn", "naive", "hoisted x4", "matmul floor"}
    missing, wrong = lines
    assert re.match("flax is left out: ModuleNotFoundError: .*flax", missing)
    assert missing.endswith("(benchmarks/requirements.txt has it)")
    assert wrong.startswith(f"{group}: b_h of hoisted: expected the common result")


def test_what_is_worth_most_is_measured_first():
    first = [(group.cell, group.case) for group in kernel.DEVICE[:10]]
    assert first[:6] == [("rnn", CASES[row]) for row in (2, 1, 4, 3, 5, 6)]
    assert set(first[6:]) == {(cell, CASES[row]) for cell in ("lstm", "gru") for row in (1, 2)}
    assert len(set(kernel.DEVICE)) == len(kernel.DEVICE)


def test_losses_may_differ_by_more_where_matmuls_are_rounded():
    losses = {"jrnn": 4.0, "torch": 4.01}
    exact, rounded = train_step.TOLERANCES[0], train_step.ROUNDED_TOLERANCES[0]
    train_step.check_losses(losses, 0, rounded)
    with pytest.raises(ValueError, match=r"to 1e-05; got 4\.01"):
        train_step.check_losses(losses, 0, exact)
    with pytest.raises(ValueError, match=r"to 0\.01; got 4\.1"):
        train_step.check_losses({"jrnn": 4.0, "torch": 4.1}, 0, rounded)


# --- commands that end in every way --------------------------------------------------------------

PROGRAM = """
import json, os, pathlib, signal, subprocess, sys, time
how, out = sys.argv[1], pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
found = {"table": "A", "value": 1.5, "pid": os.getpid()}
if how == "hangs":
    found["pid"] = subprocess.Popen(["sleep", "3600"]).pid
(out / "program.json").write_text(json.dumps({"results": ["a line", found]}))
if how == "crashes":
    print("the driver's last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
if how == "misses":
    import no_such_library
if how == "lacks":
    sys.modules["tyro"] = None
    sys.path.insert(0, "examples")
    import char_model
if how == "hangs":
    time.sleep(3600)
sys.exit({"leaves": 3, "raises": "a bad value\\nand more"}.get(how, 0))
"""


@pytest.fixture
def make_parts(tmp_path, monkeypatch):
    """A function that makes parts whose programs end in the ways that are named."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def make(**weights):
        made = {how: (f"python {program} {how}", weight) for how, weight in weights.items()}
        monkeypatch.setattr(device, "PARTS", made)

    return make


def measured(tmp_path, *words):
    """The exit status and the page of a run of all parts."""
    status = report.run(device.parse(["--out", str(tmp_path / "out"), *words]), device.results)
    page = json.loads((tmp_path / "out/device.json").read_text())
    assert (tmp_path / "out/device.md").read_text() == f"{report.text(page)}\n"
    records, lines = by_kind(page["results"])
    return status, page | {"records": records, "lines": lines}


def test_a_part_that_ends_badly_loses_nothing_and_stops_nobody(tmp_path, make_parts):
    make_parts(raises=1, crashes=1, leaves=1, misses=1, lacks=1, right=1)
    status, page = measured(tmp_path)
    assert status == 1
    assert [r["value"] for r in page["records"]] == [1.5] * 6
    said = " ".join(page["lines"])
    assert "raises: **failed: exit status 1: a bad value / and more**, " in said
    assert "crashes: **failed: SIGSEGV: the driver's last words**, " in said
    assert "leaves: **failed: exit status 3**, " in said
    assert "misses: left out: exit status 1: " in said
    assert "No module named 'no_such_library', " in said
    assert "lacks: left out: exit status 1: " in said
    assert "tyro is missing: " in said
    assert "right: done, " in said
    assert page["fault"] == "raises, crashes, leaves: lines of the page say why"


def test_a_part_that_hangs_is_ended_with_its_children(tmp_path, make_parts):
    make_parts(hangs=1, right=1e6)
    status, page = measured(tmp_path, "--minutes", "4")
    assert status == 1
    assert "hangs: **stopped: it did not end within 12 s**, " in " ".join(page["lines"])
    assert len(page["records"]) == 2
    wait_for_the_end_of(page["records"][0]["pid"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_ctrl_c_or_a_full_disk_ends_the_part_and_its_children(
    error, tmp_path, monkeypatch, make_parts, capsys
):
    make_parts(hangs=1, right=1)
    right = report.write

    def interrupted(out, name, page):
        right(out, name, page)
        if isinstance(page["results"][-1], dict) and not page["fault"]:
            raise error

    monkeypatch.setattr(report, "write", interrupted)
    status, page = measured(tmp_path)
    assert page["lines"][-2:] == ["hangs: begins", "a line"]
    if error is KeyboardInterrupt:
        assert status == 130
        assert page["fault"] == "interrupted: Ctrl-C, or a signal to end"
    else:
        assert status == 1
        assert "error: [Errno 28] No space left on device" in capsys.readouterr().err
    wait_for_the_end_of(page["records"][0]["pid"])


def test_a_part_for_which_no_time_is_left(tmp_path, make_parts):
    make_parts(right=1)
    status, page = measured(tmp_path, "--minutes", "0")
    assert (status, page["records"]) == (0, [])
    assert "right: left out, there was no time left for it" in page["lines"]


def test_a_page_that_cannot_be_written_is_an_error_that_names_it(tmp_path, make_parts, capsys):
    make_parts(right=1)
    (tmp_path / "file").touch()
    args = device.parse(["--out", str(tmp_path / "file/folder")])
    assert report.run(args, device.results) == 1
    said = capsys.readouterr()
    assert "# device\n\n    python " in said.out
    assert "Not a directory" in said.err
    assert f"{tmp_path}/file/folder" in said.err


def wait_for_the_end_of(pid):
    stat, end = Path(f"/proc/{pid}/stat"), time.monotonic() + 60
    while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)  # it has been sent SIGKILL, which cannot be refused


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_children")
def test_the_whole_command(tmp_path):
    words = ["--toy", "--rivals", "autodiff", "--name", "the machine's name"]
    status, page = measured(tmp_path, *words)
    text = report.text(page)
    assert status == 0, text
    assert text.startswith("# the machine's name\n\n    python ")
    assert machine.processor() in text
    tables = {r["table"] for r in page["records"]}
    of_cells = {f"{cell}: batch, float32" for cell in ("rnn", "lstm")}
    assert tables == {"Comparisons", *of_cells, "training step", "parts of jrnn's step"}
    for name in device.PARTS:
        assert any(line.startswith(f"{name}: done, ") for line in page["lines"])


@pytest.mark.usefixtures("quick_children")
def test_a_signal_in_the_middle_after_the_terminal_has_gone(tmp_path):
    words = [sys.executable, "-m", "benchmarks.device", "--toy", "--out", str(tmp_path)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    process.stdout.close()  # whatever is said from now on fails
    path = tmp_path / "device.json"
    try:
        while not (path.exists() and by_kind(json.loads(path.read_text())["results"])[0]):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        process.wait()
    finally:
        process.kill()
    assert process.returncode == 130
    text = (tmp_path / "device.md").read_text()
    assert text.startswith(f"# device\n\n    {' '.join(['python', *words[1:]])}\n")
    assert "**interrupted: Ctrl-C, or a signal to end**" in text


def test_a_busy_machine_is_said(monkeypatch):
    monkeypatch.setattr(device, "PARTS", {})
    monkeypatch.setattr(device, "cores", lambda: 4)
    for load, said in ((2.5, 1), (1.5, 0)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0, 0))
        args = device.parse([])
        lines = list(device.results(args))
        assert lines == ["**The machine was busy: load 2.5 on 4 cores. Times mean little.**"][:said]


@pytest.mark.parametrize("status", [0, 9])
def test_what_nvidia_smi_says(status, tmp_path, monkeypatch):
    values = [f"value {n}" for n in range(len(machine.NVIDIA))]
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{', '.join(values)}'\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if status:
        assert machine.gpus().startswith("No clocks, no power: Command ")
    else:
        assert machine.gpus() == f"{', '.join(values)}."


def a_record(program, ms, cell="rnn"):
    key = {"table": f"{cell}: batch, float32", "axis": "T, B, I, H", "place": "4, 3, 2, 1"}
    return key | {"program": program, "values": {"ms": ms, "MB": 0.001, "error": 1e-6}}


def test_each_cell_has_a_table_of_its_own(tmp_path):
    of_rnn = [a_record("jrnn", 2.0), a_record("naive", 3.0), a_record("torch", 0.5)]
    records = [*of_rnn, a_record("jrnn", 8.0, "lstm"), a_record("naive", 4.0, "lstm")]
    args = Namespace(out=tmp_path, program="device")
    assert report.run(args, lambda args: (each for each in records)) == 0
    text = (tmp_path / "device.md").read_text()
    for cell, ms, ratio in (("rnn", 3, "1.5"), ("lstm", 4, "0.5")):
        assert f"\n## {cell}: batch, float32\n" in text
        assert f"| 4, 3, 2, 1 | naive | {ms} | {ratio} | 0.001 | 1 | 1e-06 |" in text
    assert report.sentence(records[3]) == "lstm: batch, float32, 4, 3, 2, 1, jrnn: ms 8"


def test_the_package_alone_is_enough():
    code = """
import sys
from benchmarks import device, gradients, kernel, scaling
assert not {m.split(".")[0] for m in sys.modules} & {"matplotlib", "tqdm", "flax", "torch"}
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_bad_options(capsys):
    with pytest.raises(SystemExit):
        device.parse(["--parts", "all"])
    assert "argument --parts: invalid" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        device.parse(["--rivals", "equinox"])
    assert "argument --rivals: invalid" in capsys.readouterr().err
