"""The benchmarks run at toy size, and do not time what they should not."""

import itertools
import json
import re
import subprocess
import sys
from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import parameters, together
from cover import in_tiers
from jaxprs import named
from programs import ROOT

import jrnn
from benchmarks import cases, kernel, machine, report, rivals, train_step
from benchmarks.measuring import FLOAT32_TOLERANCE, Program, compare, time_in_turn
from benchmarks.rivals import autodiff, jrnn_itself
from benchmarks.rivals.autodiff import matmul_of_rounded
from benchmarks.train_step import check_losses
from docs import scaling as scaling_model
from docs.scaling import HIDDEN, KERNEL, LINKS, Shape, hidden_mesh, hidden_split
from jrnn import native


def run(program, out, *options):
    """The program's result, with JAX as its users have it, on two devices."""
    command = [sys.executable, "-W", "error", "-m", f"benchmarks.{program}", "--toy", "--out", out]
    command += options
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (out / f"{program}.md").read_text()
    assert " ".join(options) in text  # the command
    assert "GLIBC_TUNABLES" in text
    found = json.loads((out / f"{program}.json").read_text())["results"]
    return [r for r in found if isinstance(r, dict)], text


CPUINFO = """processor\t: 0
vendor_id\t: {vendor}
cpu family\t: 6
model\t\t: 143
model name\t: {name}
flags\t\t: fpu avx2 {flags}
bugs\t\t: spectre_v1

processor\t: 1
model name\t: {name}
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd40\n"


def test_the_processor_and_its_vector_units(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    for flags, units in {
        "": "AVX2",
        "avx512f": "AVX-512, AVX2",
        "avx512f avx512_bf16 amx_bf16": "AMX, AVX-512 of bfloat16, AVX-512, AVX2",
    }.items():
        cpuinfo.write_text(CPUINFO.format(vendor="GenuineIntel", name="Intel(R) X", flags=flags))
        assert machine.processor(cpuinfo) == f"Intel(R) X, family 6, model 143 ({units})"
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    cpuinfo.write_text(ARM)
    assert machine.processor(cpuinfo) == "aarch64 (SVE, NEON)"
    assert machine.processor(tmp_path / "missing") == "aarch64"
    assert machine.processor() in machine.description()


def test_a_page_is_printed_and_written(tmp_path, capsys):
    def results(args):
        yield "a machine"
        yield from report.in_order({"one": lambda rivals: [record(1, "jrnn", 2.0)]}, [], None)

    args = Namespace(program="kernel", out=tmp_path)
    assert report.run(args, results) == 0
    written, printed = (tmp_path / "kernel.md").read_text(), capsys.readouterr().out
    assert f"\n\n{report.LEGEND}\n\n- a machine\n\n## rnn: batch, float32\n" in written
    said = "a machine\n1 of 1: one\nrnn: batch, float32, row 1, jrnn: gradient ms 2\n"
    assert printed.startswith(said)
    assert printed.endswith(f"\n{written}\nkernel.md and kernel.json are in {tmp_path}\n")
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d UTC\.$", written, re.M)
    kept = json.loads((tmp_path / "kernel.json").read_text())
    assert kept["results"] == ["a machine", record(1, "jrnn", 2.0)]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_children")
def test_kernel(tmp_path):
    options = ["--rivals", "autodiff", "--devices", "2", "--rounds", "1", "--rows", "1"]
    records, text = run("kernel", tmp_path, *options, "--routes", "batch", "vmap", "mesh")
    found = {(r["table"], r["program"], *r["values"]) for r in records}
    names = [("ms", "MB", "compile s", "error"), ("ms",)]
    for what, scan, route, dtype in itertools.product(
        ("forward", "gradient"),
        ("naive", "hoisted", "hoisted x4", "jrnn"),
        ("batch", "vmap", "mesh"),
        ("float32", "bfloat16"),
    ):
        titles, floor = ([f"{what} {name}" for name in each] for each in names)
        assert (f"rnn: {route}, {dtype}", scan, *titles) in found
        assert (f"rnn: {route}, {dtype}", "matmul floor", *floor) in found
    assert any(program == "jrnn batch" for _, program, *_ in found)
    assert all(x > 0 for r in records for title, x in r["values"].items() if "error" not in title)
    for table in {r["table"] for r in records}:
        assert f"## {table}\n\n| T, B, I, H | program | forward ms | over jrnn |" in text
    own = {
        f"jrnn ({backend})" for backend in ("native", "xla") if native.enabled() or backend == "xla"
    }
    table = text.split("## rnn: batch, float32")[1].split("##")[0]
    there = {line.split(" | ")[1] for line in table.splitlines() if line.startswith("| 7, 4")}
    assert there == own | {"naive", "hoisted", "hoisted x4", "best autodiff", "matmul floor"}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_children")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_kernel_of_a_gated_cell(tmp_path, cell):
    """Every program is compared with the naive scan of the cell before it is timed."""
    options = ["--rivals", "autodiff", "--devices", "2", "--rounds", "1", "--rows", "1"]
    options += ["--routes", "batch", "mesh", "ends", "--dtypes", "float32", "--cell", cell]
    records, _ = run("kernel", tmp_path, *options)
    found = {(r["table"].split(",")[0], r["program"]) for r in records}
    programs = ("batch", "jrnn, a user's cell"), ("mesh", "jrnn"), ("ends", "naive")
    assert {(f"{cell}: {route}", name) for route, name in programs} <= found
    errors = [x for r in records for title, x in r["values"].items() if "error" in title]
    assert max(errors) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_floor_counts_the_matmuls_of_every_gate(cell):
    case, gates = cases.TOY_CASES[1], {"rnn": 1, "lstm": 4, "gru": 3}[cell]
    T, B, I, H = case
    group = cases.Group(case, cell=cell)
    assert group._replace(gradient=False).flops() == gates * 2 * T * B * (H * H + I * H)
    assert group.flops() == gates * 2 * T * B * (3 * H * H + 2 * I * H)
    w_ih, w_hh, b_h, *rest = cases.data(case, cell)[0]
    assert (w_ih.shape, w_hh.shape) == ((I, gates * H), (H, gates * H))
    assert b_h.shape == (gates * H,)
    assert rest == [None] * (cell == "gru")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_children")
def test_a_mesh_that_does_not_divide_the_batch_is_said(tmp_path, capfd):
    options = ["--rounds", "1", "--rows", "2", "--routes", "batch", "mesh", "--dtypes", "float32"]
    command = [sys.executable, "-m", "benchmarks.kernel", "--toy", "--out", tmp_path, *options]
    done = subprocess.run([*command, "--rivals", "autodiff", "--devices", "2"], cwd=ROOT)
    assert done.returncode == 1
    text = (tmp_path / "kernel.md").read_text()
    assert "\n- rnn (5, 1, 2, 6) mesh float32 forward, jrnn: " in text
    assert "\n## rnn: batch, float32\n" in text


@pytest.mark.slow
@pytest.mark.usefixtures("quick_children")
def test_train_step(tmp_path):
    records, text = run("train_step", tmp_path, "--rounds", "5", "--rivals", "autodiff")
    steps, parts = records[:4], records[4:]
    assert [r["program"] for r in steps] == ["jrnn", "naive", "hoisted", "hoisted x4"]
    assert [r["program"] for r in parts] == ["recurrence", "readout and loss", "optimiser"]
    for r in parts:
        share = r["values"]["minimum ms"] / steps[0]["values"]["minimum ms"]
        assert r["values"]["of the step"] == pytest.approx(share)
    for r in steps:
        rate = 1e3 * 5 * 4 / r["values"]["median ms"]
        assert r["values"]["characters/s"] == pytest.approx(rate)
    assert "| 5, 4, 8 | best autodiff | " in text


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_the_final_losses(tmp_path, monkeypatch):
    monkeypatch.setattr(train_step, "LEARNED", 5)
    monkeypatch.setattr(train_step, "use_cpu_cores", lambda n: None)  # there are two devices
    options = ["--toy", "--rounds", "5", "--rivals", "autodiff"]
    records = [r for r in train_step.results(train_step.parse(options)) if isinstance(r, dict)]
    bits = [r["values"]["validation bits"] for r in records[:4]]
    assert bits == pytest.approx([bits[0]] * 4, rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_children")
def test_scaling(tmp_path):
    records, text = run("scaling", tmp_path)
    losses = [r for r in records if r["table"] == "losses"]
    assert [r["program"] for r in losses] == ["jrnn", "jrnn without"] * 2
    assert all(r["values"]["gradient MB"] > 0 for r in losses)
    there = {r["program"] for r in records if r["table"] == "rnn: remat, float32"}
    assert there == {"jrnn", "jrnn without", "matmul floor"}
    assert "| 16, 1, 32, 256 | jrnn without " in text
    assert "| loss | program | gradient MB | over jrnn |" in text


def a_program(result):
    return Program("a rival", lambda: result, lambda x: x)


def test_what_differs_is_not_timed():
    right = np.linspace(-1, 1, 100)
    assert compare(a_program({"hs": right}), {"hs": right}, FLOAT32_TOLERANCE) == 0
    refused = r"hs of a rival: expected the common result to 1e-05 .*; got 0.001. Not timed."
    with pytest.raises(ValueError, match=refused):
        compare(a_program({"hs": 1.001 * right}), {"hs": right}, FLOAT32_TOLERANCE)
    with pytest.raises(ValueError, match=r"got nan\. Not timed\."):
        compare(a_program({"hs": right * np.nan}), {"hs": right}, FLOAT32_TOLERANCE)
    with pytest.raises(ValueError, match=r"hs of a rival: expected shape \[100\]; got \[99\]"):
        compare(a_program({"hs": right[1:]}), {"hs": right}, FLOAT32_TOLERANCE)


def test_losses_that_differ_are_not_timed():
    check_losses({"jrnn": 4.0, "torch": 4.00001}, 0, 1e-5)
    with pytest.raises(ValueError, match=r"loss 1 of torch: expected jrnn's, 4\.0+, to 1e-05; got"):
        check_losses({"jrnn": 4.0, "torch": 4.0001}, 0, 1e-5)


def test_a_row_that_does_not_exist(capsys):
    with pytest.raises(SystemExit, match="2"):
        kernel.parse(["--rows", "11"])
    said = capsys.readouterr().err
    assert "argument --rows: invalid choice: 11 (choose from 1, 2, 3, 4, 5, 6, 10)" in said


def test_rounded_operands_have_rounded_gradients():
    keys = jax.random.split(jax.random.key(0), 3)
    a, w, g = (jax.random.normal(key, (4, 4), jnp.float32) for key in keys)
    c, pull = jax.vjp(matmul_of_rounded, a, w)
    da, dw = pull(g)
    a, w, g = (np.asarray(x.astype(jnp.bfloat16), np.float64) for x in (a, w, g))
    for found, right in ((c, a @ w), (da, g @ w.T), (dw, a.T @ g)):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, right, atol=1e-6)


def record(row, program, ms, what="gradient", MB=None, **more):
    key = {"table": "rnn: batch, float32", "axis": "T, B", "place": f"row {row}"}
    size = {f"{what} MB": MB} if MB else {}
    return {"program": program, "values": {f"{what} ms": ms, **size}, **key, **more}


def lines_of(table):
    """The cells of each line by shape and program."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return {(line[0], line[1]): line[2:] for line in lines[2:]}


def test_the_table_of_ratios():
    """Each program over jrnn's with the same activation, the best of several, and the means."""
    records = [
        record(1, "jrnn", 2.0, MB=30),
        record(1, "jrnn", 1.0, "forward"),
        record(1, "jrnn relu", 1.0, over="jrnn relu"),
        record(1, "naive", 6.0, MB=120),
        record(1, "hoisted", 4.0, MB=90),
        record(1, "hoisted", 3.0, "forward"),
        record(1, "haiku relu", 2.5, over="jrnn relu"),  # 2.5 times jrnn's relu
        record(1, "keras", 3.0),
        record(1, "matmul floor", 1.0),
        record(2, "jrnn", 2.0),
        record(2, "naive", 1.0),
    ]
    found = {key: line["gradient ms over jrnn"] for key, line in report.lines_of(records).items()}
    assert {name: ratio for (shape, name), ratio in found.items() if shape == "row 1"} == {
        "jrnn": 1, "jrnn relu": 1, "naive": 3, "hoisted": 2, "haiku relu": 2.5, "keras": 1.5,
        "matmul floor": 0.5, "best autodiff": 2, "best JAX library": 1.5,
        "best other JAX program": 1.5,
    }  # fmt: skip
    assert found["row 2", "best autodiff"] == 0.5
    lines = lines_of(report.compared(records))
    assert lines["row 1", "hoisted"] == ["4", "2", "90", "3", "3", "3"]
    assert lines["row 1", "best autodiff"] == ["4", "2", "90", "3", "3", "3"]
    assert lines["geometric mean", "naive"][:2] == ["", "1.22"]  # of 3 and 0.5
    assert lines["geometric mean", "best autodiff"][:2] == ["", "1"]
    assert "torch" not in report.compared(records)


@pytest.mark.usefixtures("float32")
@in_tiers(rival=["flax", "haiku", "keras", "torch"], cell=["gru", "lstm", "rnn"])
def test_a_rival_computes_the_same(rival, cell):
    """Its states and gradients, from the parameters in its own form; what is wrong is refused."""
    pytest.importorskip(rival, reason="the rivals are in benchmarks/requirements.txt")
    case = cases.TOY_CASES[1]
    for gradient in (False, True):
        group = cases.Group(case, gradient=gradient, cell=cell)
        if rival == "torch":
            programs, kinds = [rivals.load(rival).program(group)], ["tanh"]
        else:
            found = rivals.load(rival).recurrences(group)
            programs = [kernel.program(group, one) for one in found]
            kinds = [one.kind for one in found]
        assert programs or (rival, cell) == ("haiku", "gru")
        for program, kind in zip(programs, kinds, strict=True):
            right = kernel.expected(case, cell, kind, gradient)
            assert compare(program, right, FLOAT32_TOLERANCE) < FLOAT32_TOLERANCE


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("route", ["vmap", "mesh", "ends", "remat"])
def test_a_route_is_compared_with_the_plain_scan(route):
    args = kernel.parse(["--toy", "--rounds", "1"])
    group = cases.Group(cases.TOY_CASES[1], route)
    *records, _ = kernel.measure_group(args, group, [])  # without the floor
    assert {r["program"] for r in records} >= {"jrnn"}
    assert all(r["values"]["gradient error"] < FLOAT32_TOLERANCE for r in records)


@pytest.mark.usefixtures("float32")
def test_a_rival_whose_result_is_wrong_is_left_out(monkeypatch):
    right = autodiff.recurrences

    def wrong(group):
        first, *others = right(group)
        states = lambda params, xs: 1.01 * first.states(params, xs)
        return [first._replace(name="wrong", states=states), *others]

    monkeypatch.setattr(autodiff, "recurrences", wrong)
    args = kernel.parse(["--toy", "--rows", "1", "--rounds", "1", "--rivals", "autodiff"])
    group = cases.Group(cases.TOY_CASES[1], gradient=False)
    said, *records = kernel.measure_group(args, group, ["autodiff"])
    found = {r["program"] for r in records}
    assert found >= {"jrnn", "hoisted", "matmul floor"}
    assert "wrong" not in found
    assert (
        "hs of wrong: expected the common result to 1e-05 of its norm; got 0.01. Not timed" in said
    )
    own = jrnn_itself.recurrences(group)[0]
    worse = own._replace(states=lambda params, xs: 1.01 * own.states(params, xs))
    monkeypatch.setattr(jrnn_itself, "recurrences", lambda group: [worse])
    with pytest.raises(ValueError, match="hs of jrnn"):
        list(kernel.measure_group(args, group, []))


def test_programs_take_turns():
    order = []
    programs = [
        Program(name, lambda name=name: order.append(name), lambda x: x) for name in ("a", "b")
    ]
    times = time_in_turn(programs, rounds=2)
    turns = [order[0], *(b for a, b in itertools.pairwise(order) if a != b)]
    assert turns == ["a", "b", "a", "b", "a"]  # estimates of both, then a b, then b a
    assert all(t > 0 for each in times.values() for t in each)


# --- the model of docs/scaling.md ----------------------------------------------------------------


def test_the_page_shows_the_tables_that_the_program_prints(capsys):
    scaling_model.main([])
    tables = capsys.readouterr().out.strip().split("\n\n")
    page = (ROOT / "docs/scaling.md").read_text()
    assert len(tables) == 2
    assert all(table in page for table in tables)


@pytest.mark.usefixtures("float32")
@pytest.mark.slow
def test_the_measurements_are_timed(monkeypatch, capsys):
    """Those of toy size, on the two devices of the tests."""
    tiny = Shape(3, 2, 5, 8)
    for name, shape in {"KERNEL": tiny, "CHARACTER": tiny._replace(O=5, inputs=0)}.items():
        monkeypatch.setattr(scaling_model, name, shape)
    monkeypatch.setattr(scaling_model, "WIDTHS", (8, 16))
    monkeypatch.setattr(scaling_model.parallel, "use_cpu_cores", lambda: None)  # there are two
    scaling_model.main(["--measure"])
    printed = capsys.readouterr().out
    assert "cpu device(s)" in printed
    times = re.findall(r"'(.*)': '([\d.e-]+) ms'", printed)
    names = ["batch: character model", "batch: row 2", "hidden: H = 8", "hidden: H = 16"]
    assert [name for name, _ in times] == names
    assert all(float(ms) > 0 for _, ms in times)


def scaling_case(shape):
    T, B, I, H, O, inputs = shape
    keys = jax.random.split(jax.random.key(0), 3)
    params = parameters(jrnn.init_rnn, I, H, dtype=np.float32)
    if O:
        params = params, parameters(jrnn.init_readout, H, O, dtype=np.float32)
    xs = jax.random.normal(keys[2], (T, B, I), np.float32) if inputs else jnp.zeros((T, B), int)
    return params, xs, jnp.zeros((B, H), np.float32)


@pytest.mark.parametrize("shape", [Shape(3, 2, 5, 7), Shape(3, 2, 5, 7, 11, inputs=0)], ids=str)
def test_the_bytes_of_the_parameters(shape):
    params, _, _ = scaling_case(shape)
    assert shape.parameter_bytes() == sum(leaf.nbytes for leaf in jax.tree.leaves(params))


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("inputs", [0, 2, 3])
def test_the_flop_of_a_training_step(inputs):
    """Every matmul of a loop that is written out, and of its gradient by autodiff."""
    shape = Shape(3, 2, 5, 7, 11, inputs)
    (rnn, readout), xs, h = scaling_case(shape)

    def cost(given):
        rnn, readout, h = given["rnn"], given["readout"], given["h"]
        total = 0.0
        for x in given.get("xs", xs):
            u = x @ rnn.w_ih if inputs else rnn.w_ih[x]
            h = jnp.tanh(u + h @ rnn.w_hh + rnn.b_h)
            total += jnp.sum(h @ readout.w_ho + readout.b_o)
        return total

    given = {"rnn": rnn, "readout": readout, "h": h} | ({"xs": xs} if inputs == 3 else {})
    flops = 0
    for matmul in named(jax.make_jaxpr(jax.grad(cost))(given), "dot_general"):
        left, (contracted, _) = matmul.invars[0].aval, matmul.params["dimension_numbers"][0]
        flops += 2 * matmul.outvars[0].aval.size * left.shape[contracted[0]]
    assert flops == shape.flops()


def test_what_a_ring_sends():
    n, size = 4, 8
    parts = np.arange(n)[:, None] * np.ones((n, n)) + np.arange(n)  # [device, piece]
    total, sent = parts.sum(0), np.zeros(n)
    for turn in range(2 * (n - 1)):
        moving = [(d, (d - turn) % n) for d in range(n)]  # each device sends one piece on
        values = [parts[d, piece] for d, piece in moving]
        for (d, piece), value in zip(moving, values, strict=True):
            after = (d + 1) % n
            parts[after, piece] = value + (parts[after, piece] if turn < n - 1 else 0)
            sent[d] += size / n
    np.testing.assert_array_equal(parts, np.tile(total, (n, 1)))
    assert set(sent) == {scaling_model.all_reduce_bytes(n, size)}


def test_the_time_of_a_wavefront():
    """A chunk of a layer begins when the layer has done the one before, and the layer below it."""
    layer, L, K = Shape(12, 4, 8, 8, inputs=3), 3, 2
    link = LINKS[0]
    tick = scaling_model.alone(layer, link.device) * K / 12 + 2 * link.send(4 * K * 4 * 8)
    done = np.zeros((L + 1, 12 // K + 1))
    for layer_above, chunk in itertools.product(range(1, L + 1), range(1, 12 // K + 1)):
        begins = max(done[layer_above - 1, chunk], done[layer_above, chunk - 1])
        done[layer_above, chunk] = begins + tick
    assert scaling_model.layers(layer, link, L, K) == pytest.approx(done[-1, -1])


@pytest.mark.usefixtures("float32")
def test_the_hidden_split():
    """jrnn's states and gradients; in each time step one exchange of [B, H] in each direction."""
    T, B, I, H = 5, 3, 4, 8
    params, xs, _ = scaling_case(Shape(T, B, I, H))
    mesh = hidden_mesh(2)

    split = lambda params: hidden_split(params, xs, mesh)
    whole = lambda params: jrnn.rnn(params, xs)[1]
    gradient, expected = (jax.grad(lambda p, f=f: jnp.sum(f(p) ** 2)) for f in (split, whole))
    states, right_states, found, right = together(split, whole, gradient, expected)(params)
    np.testing.assert_allclose(states, right_states, atol=1e-6)
    for d, right_d in zip(found, right, strict=True):
        np.testing.assert_allclose(d, right_d, rtol=1e-5, atol=1e-5)

    loops = named(jax.make_jaxpr(gradient)(params), "scan")
    assert [loop.params["length"] for loop in loops] == [T, T]
    for loop, name in zip(loops, ("all_gather", "reduce_scatter"), strict=True):
        (exchange,) = named(loop.params["jaxpr"], name)
        assert HIDDEN in str(exchange.params["axis_name"])
        arrays = [exchange.invars[0].aval, exchange.outvars[0].aval]
        sizes = [4 * array.size for array in arrays]
        assert max(sizes) - min(sizes) == scaling_model.all_gather_bytes(2, 4 * B * H)


def test_what_pays_and_what_does_not():
    """The slower link never does better, and a split halves a part of the work only."""
    nvlink, pcie, ndr, ethernet, _ = LINKS
    for ways in (scaling_model.batch, scaling_model.hidden):
        times = [ways(KERNEL, link, 8) for link in (nvlink, pcie, ndr, ethernet)]
        assert times == sorted(times)
    halves = scaling_model.alone(KERNEL, nvlink.device, 2)
    assert halves < scaling_model.alone(KERNEL, nvlink.device) < 2 * halves
