"""`benchmarks.kernel` measures jrnn with the native kernel and with XLA."""

import jax
import pytest
from native_built import built

from benchmarks import cases, kernel, machine, measuring, report
from benchmarks.measuring import FLOAT32_TOLERANCE, compare, compile_program, time_in_turn
from benchmarks.rivals import jrnn_itself as backends
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
    calls, turns, compared = {}, [], []

    def compiled(name, function, args, arrays):
        text = jax.jit(function).lower(*args).compile().as_text()
        calls[name] = text.count('custom_call_target="jrnn_native_')
        return compile_program(name, function, args, arrays)

    def in_turn(programs, rounds):
        turns.append({p.name: calls[p.name] for p in programs[1:]})  # behind the matmul
        return time_in_turn(programs, rounds)

    def checked(program, *rest):
        compared.append(program.name)
        return compare(program, *rest)

    monkeypatch.setattr(kernel, "compile_program", compiled)
    monkeypatch.setattr(measuring, "time_in_turn", in_turn)
    monkeypatch.setattr(kernel, "compare", checked)
    args = kernel.parse(options("--backends", "native", "xla", "--rounds", "1"))
    args.devices = None
    monkeypatch.setattr(kernel, "use_cpu_cores", lambda devices: None)  # there are two
    with backends.using("xla"):  # whatever the option is
        records = [r for task in kernel.tasks(args).values() for r in task([])]
        assert not native.enabled()
    own = ["jrnn (native)", "jrnn (xla)"]
    assert [list(turn.items()) for turn in turns] == [[(own[0], n), (own[1], 0)] for n in (1, 2)]
    assert compared == own * 2
    assert [r["label"] for r in records if "label" in r] == own * 2
    assert {r["program"] for r in records} == {"jrnn", "matmul floor"}
    assert all(r["error"] < FLOAT32_TOLERANCE for r in records if "error" in r)


@built
@pytest.mark.usefixtures("float32")
def test_a_program_is_measured_with_the_backends_that_compute_it():
    def found(cell, dtype, names):
        group = cases.Group(1, cases.TOY_CASES[1], "vmap", dtype, cell=cell)
        labels = []
        for one in kernel.recurrences(group, ["autodiff"]):
            params, xs, _ = kernel.arguments(group, one)
            computed = backends.computing(one, (one.own(params), xs), names)
            labels += [one._replace(backend=name).label for name in computed]
        return labels

    scans = ["naive", "hoisted", "hoisted x4"]
    both = ["jrnn batch (native)", "jrnn batch (xla)", "jrnn (native)", "jrnn (xla)"]
    assert found("rnn", "float32", ["native", "xla"]) == [*both, *scans]
    assert found("gru", "float32", ["native", "xla"]) == [*both, *scans]
    assert found("gru", "float32", ["native"]) == [*both[::2], *scans]
    rounds = native.library().has_bfloat16
    own = both if rounds else [*both[1::2], "jrnn without (native)", "jrnn without (xla)"]
    assert found("rnn", "bfloat16", ["native", "xla"])[:4] == own


@built
@pytest.mark.usefixtures("float32")
def test_what_no_named_backend_computes_is_left_out_and_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(dispatch, "why_not", lambda spec, dtype: "it is not served")
    words = options("--cell", "lstm", "--backends", "native", "--out", str(tmp_path))
    assert kernel.main(words) == 1
    printed = capsys.readouterr()
    at = "lstm, row 1 (7, 4, 3, 5) batch float32 {}: left out, since native does not compute it"
    for what in ("forward", "forward + backward"):
        assert f"\n{at.format(what)}\n" in printed.out
    assert "error: no row was measured: the lines above say why" in printed.err


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
            assert f"a batch in at most {machine.cores()} slice" in machine.native_kernel()
        with backends.using("xla"):
            assert "; it is turned off. Allocator" in sentence()
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "There was no compiler.")
    assert "No native kernel: There was no compiler. Allocator" in sentence()


def test_one_device_has_every_core_and_no_mesh():
    args = kernel.parse([])
    assert (args.devices, args.routes) == (1, ["batch", "vmap", "ends"])
    assert kernel.parse(["--devices", "2"]).routes == ["batch", "vmap", "mesh", "ends"]


def record(program, backend, ms, temporary_bytes=None):
    key = {"table": "rnn: batch, float32", "axis": "T", "place": "4", "gradient": True}
    figures = {"minimum_ms": ms, "temporary_bytes": temporary_bytes, "compile_seconds": None}
    label = f"{program} ({backend})" if backend else program
    return {"program": program, "label": label, **key, **figures}


@pytest.mark.parametrize(("first", "ms"), [("native", 2.0), ("xla", 3.0)])
def test_ratios_are_over_the_first_backend(first, ms):
    own = [record("jrnn", "native", 2.0, 30), record("jrnn", "xla", 3.0, 20)]
    records = [*(own if first == "native" else own[::-1]), record("naive", None, 6.0)]
    cells = {name: row for (_, name), row in report.cells(records).items()}
    assert cells["best autodiff"]["gradient ms"] == (6.0, 6 / ms)
    assert cells["jrnn (xla)"]["gradient ms"] == (3.0, 3 / ms)
    assert cells["jrnn (native)"]["gradient ms"] == (2.0, 2 / ms)
    memory = cells["jrnn (native)"]["gradient MB"].ratio / cells["jrnn (xla)"]["gradient MB"].ratio
    assert memory == 1.5
