"""`benchmarks.kernel` measures jrnn with the native kernel and with XLA."""

import jax
import pytest
from native_built import built

from benchmarks import cases, kernel, machine, measuring, report
from benchmarks.measuring import FLOAT32_TOLERANCE, compare, compile_program, time_in_turn
from benchmarks.rivals import jrnn_itself
from jrnn import native
from jrnn.kernel import dispatch


@built
@pytest.mark.slow
@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("gradient", [False, True])
def test_both_backends_are_compared_and_timed_in_one_process(gradient, monkeypatch):
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
    args = kernel.parse(["--toy", "--rounds", "1"])
    group = cases.Group(cases.TOY_CASES[1], gradient=gradient)
    records = list(kernel.measure_group(args, group, []))
    own = ["jrnn (native)", "jrnn (xla)"]
    assert turns == [{own[0]: 1 + gradient, own[1]: 0}]
    assert compared == own
    assert [r["label"] for r in records if "label" in r] == own
    assert {r["program"] for r in records} == {"jrnn", "matmul floor"}
    errors = [x for r in records for title, x in r["values"].items() if "error" in title]
    assert max(errors) < FLOAT32_TOLERANCE


@built
@pytest.mark.usefixtures("float32")
def test_a_program_is_measured_with_the_backends_that_compute_it(monkeypatch):
    def found(cell, dtype):
        group = cases.Group(cases.TOY_CASES[1], "vmap", dtype, cell=cell)
        labels = []
        for one in kernel.recurrences(group, ["autodiff"]):
            params, xs, _ = kernel.arguments(group, one)
            computed = jrnn_itself.backends(one, (one.own(params), xs))
            labels += [one._replace(backend=name).label for name in computed]
        return labels

    scans = ["naive", "hoisted", "hoisted x4"]
    both = ["jrnn batch (native)", "jrnn batch (xla)", "jrnn (native)", "jrnn (xla)"]
    assert found("rnn", "float32") == [*both, *scans]
    assert found("gru", "float32") == [*both, *scans]
    with native.turned(False):
        assert found("gru", "float32") == [*both[1::2], *scans]
    rounds = native.library().has_bfloat16
    own = both if rounds else [*both[1::2], "jrnn without (native)", "jrnn without (xla)"]
    assert found("rnn", "bfloat16")[:4] == own
    monkeypatch.setattr(dispatch, "why_not", lambda spec, dtype: "it is not served")
    assert found("lstm", "float32") == [*both[1::2], *scans]


def test_the_native_kernel_is_described(monkeypatch):
    if native.available():
        with native.turned(True):
            assert "Native kernel: AVX" in machine.native_kernel()
            assert f", on {machine.cores()} core(s)." in machine.native_kernel()
        with native.turned(False):
            assert machine.native_kernel().endswith("; it is turned off.")
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "There was no compiler.")
    assert machine.native_kernel() == "No native kernel: There was no compiler."
    assert (machine.native_kernel() in machine.description()) == (jax.default_backend() == "cpu")


def record(program, backend, ms, MB=None):
    key = {"table": "rnn: batch, float32", "axis": "T", "place": "4"}
    label = f"{program} ({backend})" if backend else program
    return {"program": program, "label": label, **key, "values": {"ms": ms, "MB": MB}}


@pytest.mark.parametrize(("first", "ms"), [("native", 2.0), ("xla", 3.0)])
def test_ratios_are_over_the_first_backend(first, ms):
    own = [record("jrnn", "native", 2.0, 30), record("jrnn", "xla", 3.0, 20)]
    records = [*(own if first == "native" else own[::-1]), record("naive", None, 6.0)]
    lines = {name: line for (_, name), line in report.lines_of(records).items()}
    for name, value in (("best autodiff", 6.0), ("jrnn (xla)", 3.0), ("jrnn (native)", 2.0)):
        assert (lines[name]["ms"], lines[name]["ms over jrnn"]) == (value, value / ms)
    of_native, of_xla = (lines[f"jrnn ({name})"]["MB over jrnn"] for name in ("native", "xla"))
    assert of_native / of_xla == 1.5
