"""`benchmarks.kernel` measures jrnn with the native kernel and with XLA."""

import pytest
from native_built import built

from benchmarks import backends, cases, claims, kernel, machine, report
from benchmarks.measuring import FLOAT32_TOLERANCE, compare, time_in_turn
from jrnn import native
from jrnn.kernel import dispatch


def options(*words):
    toy = ["--toy", "--rows", "1", "--routes", "batch", "--dtypes", "float32", "--devices", "2"]
    return [*toy, "--rivals", "autodiff", *words]


@built
@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_both_backends_are_compared_and_timed_in_one_process(monkeypatch):
    """They are what they are called, and each is compared with the plain scan."""
    turns, compared = [], []

    def in_turn(programs, rounds, left):
        turns.append({p.name: p.hlo().count('custom_call_target="jrnn_native_') for p in programs})
        return time_in_turn(programs, rounds, left)

    def checked(program, *rest):
        compared.append(program.name)
        return compare(program, *rest)

    monkeypatch.setattr(kernel, "time_in_turn", in_turn)
    monkeypatch.setattr(kernel, "compare", checked)
    args = kernel.parse(options("--backends", "native", "xla", "--rounds", "1"))
    args.rivals = []
    with backends.using("xla"):  # whatever the option is
        records = list(kernel.measure(args))
        assert not native.enabled()
    own = ["jrnn (native)", "jrnn (xla)"]
    assert [list(turn.values())[1:] for turn in turns] == [[1, 0], [2, 0]]  # behind the matmul
    assert [list(turn)[1:] for turn in turns] == [own, own]
    assert compared == own * 2
    assert [r["backend"] for r in records] == ["native", "xla"] * 2
    assert {r["program"] for r in records} == {"jrnn"}
    assert all(r["error"] < FLOAT32_TOLERANCE for r in records)


@built
@pytest.mark.usefixtures("float32")
def test_a_program_is_measured_with_the_backends_that_compute_it():
    def found(cell, dtype, names):
        case, given = cases.TOY_CASES[1], cases.data(cases.TOY_CASES[1], cell)
        programs = kernel.recurrences(case, "vmap", dtype, ["autodiff"], cell)
        return [r.label for one in programs for r in kernel.by_backend(one, given, names)]

    scans = ["naive", "hoisted", "hoisted x4"]
    both = ["jrnn batch (native)", "jrnn batch (xla)", "jrnn (native)", "jrnn (xla)"]
    assert found("rnn", "float32", ["native", "xla"]) == [*both, *scans]
    assert found("gru", "float32", ["native", "xla"]) == [*both, *scans]
    assert found("gru", "float32", ["native"]) == [*both[::2], *scans]
    half = found("rnn", "bfloat16", ["native", "xla"])[:4]
    own = ["jrnn batch (xla)", "jrnn (xla)", "jrnn float32 (native)", "jrnn float32 (xla)"]
    assert half == own


@built
@pytest.mark.usefixtures("float32")
def test_what_no_named_backend_computes_is_left_out_and_said(capsys, monkeypatch):
    monkeypatch.setattr(dispatch, "serves", lambda spec, dtype: False)
    assert kernel.main(options("--cell", "lstm", "--backends", "native")) == 1
    printed = capsys.readouterr()
    at = "row 1 (7, 4, 3, 5) batch float32: left out, since native does not compute it"
    assert printed.out.splitlines() == [at, at]  # forward, and forward + backward
    assert "error: the options: expected a row that can be measured; got none." in printed.err


def test_the_backends_that_are_measured(monkeypatch):
    monkeypatch.setattr(native, "enabled", lambda: True)
    assert backends.wanted(None) == ["native", "xla"]
    monkeypatch.setattr(native, "enabled", lambda: False)
    assert backends.wanted(None) == ["xla"]
    monkeypatch.setattr(native, "available", lambda: True)  # turned off, but asked for
    assert backends.wanted(["xla", "native", "xla"]) == ["xla", "native"]
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "There was no compiler.")
    refused = r"--backends: expected a native kernel that can run here; got There was no compiler\."
    with pytest.raises(ValueError, match=refused):
        backends.wanted(["native"])


def test_the_native_kernel_is_described(monkeypatch):
    def sentence():
        return machine.sentence(machine.description() | {"backend": "cpu"})

    if native.available():
        with backends.using("native"):
            assert "Native kernel: AVX" in sentence()
            found = machine.native_kernel()
            assert found["slices"] == machine.cores()
        with backends.using("xla"):
            assert machine.native_kernel() == found | {"enabled": False}
            assert "; it is turned off. Allocator" in sentence()
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "There was no compiler.")
    assert "No native kernel: There was no compiler. Allocator" in sentence()


def test_one_device_has_every_core_and_no_mesh():
    args = kernel.parse([])
    assert (args.devices, args.routes) == (1, ["batch", "vmap", "ends"])
    assert kernel.parse(["--devices", "2"]).routes == ["batch", "vmap", "mesh", "ends"]


def record(program, backend, ms, temporary_bytes=None):
    key = {"row": 1, "route": "batch", "dtype": "float32", "gradient": True, "activation": "tanh"}
    figures = {"minimum_ms": ms, "temporary_bytes": temporary_bytes, "compile_seconds": None}
    return {"program": program, "backend": backend, **key, **figures, "floor_ms": 1.0}


@pytest.mark.parametrize(("first", "ms"), [("native", 2.0), ("xla", 3.0)])
def test_ratios_are_over_the_first_backend(first, ms):
    own = [record("jrnn", "native", 2.0, 30), record("jrnn", "xla", 3.0, 20)]
    records = [*(own if first == "native" else own[::-1]), record("naive", None, 6.0)]
    said = {claim.text: claim.ratios for claim in claims.of_kernel(records)}
    assert said["forward + backward: best autodiff / jrnn"] == {1: 6 / ms}
    assert said["forward + backward: jrnn, xla / jrnn, native"] == {1: 1.5}
    memory = "forward + backward: temporary bytes of jrnn, native / of jrnn, xla"
    assert said[memory] == {1: 1.5}
    ((_, table),) = report.kernel_tables([r | {"case": [4, 3, 2, 1]} for r in records])
    columns = {"native": "jrnn (native) | jrnn (xla)", "xla": "jrnn (xla) | jrnn (native)"}
    cells = {"native": "2 | 3 (1.50) | 6 (3.00)", "xla": "3 | 2 (0.67) | 6 (2.00)"}
    assert f"| row | T, B, I, H | {columns[first]} | naive | matmul floor |" in table
    assert f"| 1 | 4, 3, 2, 1 | {cells[first]} | 1 |" in table
