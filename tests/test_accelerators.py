"""Counting the operations of compiled programs; no accelerator's compiler is needed for that."""

import json
import re
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import accelerators, compilers
from benchmarks.hlo import loop_operations

ROOT = Path(__file__).parents[1]

# A loop of 4 trips around one of 3, and a second loop, in the forms that the compilers write.
HLO = """HloModule jit_f, is_scheduled=true

%fused (p: f32[2,8]) -> f32[2,8] {
  %p = f32[2,8]{1,0} parameter(0)
  ROOT %tanh.1 = f32[2,8]{1,0} tanh(%p)
}

%inner (arg: (s32[], f32[2,8])) -> (s32[], f32[2,8]) {
  %arg = (s32[]{:T(128)}, f32[2,8]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %h = f32[2,8]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%arg), index=1
  %one = s32[]{:T(128)} constant(1)
  %flat = f32[16]{0} bitcast(%h)
  %fusion.2 = (f32[2,8]{1,0:T(8,128)(2,1)}, /*index=1*/f32[]) fusion(%h), kind=kLoop, calls=%fused
  %copy-start = (f32[2,8]{1,0}, f32[2,8]{1,0}, u32[]{:S(2)}) copy-start(%h)
  %copy-done = f32[2,8]{1,0} copy-done(%copy-start)
  %i.next = s32[]{:T(128)} add(%i, %one)
  ROOT %tuple.1 = (s32[], f32[2,8]{1,0}) tuple(%i.next, %copy-done)
}

%until (arg.1: (s32[], f32[2,8])) -> pred[] {
  %n = s32[]{:T(128)} constant(3)
  %arg.1 = (s32[], f32[2,8]) parameter(0)
  %i.1 = s32[] get-tuple-element(%arg.1), index=0
  ROOT %lt.8 = pred[]{:T(512)} compare(%i.1, %n), direction=LT, metadata={op_name="while/cond/lt"}
}

%called (p.2: f32[2,8]) -> f32[2,8] {
  %p.2 = f32[2,8]{1,0} parameter(0)
  %dot.1 = f32[2,8]{1,0} custom-call(%p.2), custom_call_target="gemm"
  ROOT %negate.1 = f32[2,8]{1,0} negate(%dot.1)
}

%outer (arg.2: (s32[], f32[2,8])) -> (s32[], f32[2,8]) {
  %arg.2 = (s32[], f32[2,8]{1,0}) parameter(0)
  %while.1 = (s32[], f32[2,8]{1,0}) while(%arg.2), condition=%until, body=%inner
  %h.2 = f32[2,8]{1,0} get-tuple-element(%while.1), index=1
  %call.1 = f32[2,8]{1,0} call(%h.2), to_apply=%called
  ROOT %tuple.2 = (s32[], f32[2,8]{1,0}) tuple(%i, %call.1)
}

ENTRY %main (x: f32[2,8]) -> f32[2,8] {
  %x = f32[2,8]{1,0} parameter(0)
  %outside = f32[2,8]{1,0} fusion(%x), kind=kLoop, calls=%fused
  %start = (s32[], f32[2,8]{1,0}) tuple(%zero, %outside)
  %while.2 = (s32[], f32[2,8]{1,0}) while(%start), condition=%any, body=%outer, \
metadata={op_name="jit(f)/jvp()/while"}, backend_config={"known_trip_count":{"n":"4"}}
  %while.3 = (s32[], f32[2,8]{1,0}) while(%while.2), condition=%until, body=%inner, \
metadata={op_name="jit(f)/transpose(jvp())/while"}
  ROOT %result = f32[2,8]{1,0} get-tuple-element(%while.3), index=1
}
"""
INNER = 3  # the fusion, the start of the copy, the addition
CALLED = 2


def test_operations_are_counted_as_often_as_they_run():
    assert loop_operations(HLO) == (4 * (3 * INNER + CALLED), 3 * INNER)


@pytest.mark.parametrize(
    ("line", "forward", "backward"),
    [
        ("%more = f32[2,8]{1,0} negate(%h)", 4 * 3, 3),
        ("%more = (f32[2,8]{1,0}, (f32[], s32[])) custom-call(%h), to_apply=%fused", 4 * 3, 3),
        ("%more-done = f32[2,8]{1,0} all-reduce-done(%h)", 0, 0),
        ("%more = f32[] constant(0)", 0, 0),
    ],
)
def test_one_more_line_in_a_body(line, forward, backward):
    longer = HLO.replace("  %i.next =", f"  {line}\n  %i.next =")
    before, after = loop_operations(HLO), loop_operations(longer)
    assert (after.forward - before.forward, after.backward - before.backward) == (forward, backward)


def test_trips_that_are_not_in_the_text_are_refused():
    unknown = HLO.replace("%n = s32[]{:T(128)} constant(3)", "%n = s32[] get-tuple-element(%arg.1)")
    with pytest.raises(ValueError, match=r"hlo: expected the number of trips .*; got none of whi"):
        loop_operations(unknown)


# --- compiled programs ---------------------------------------------------------------------------


def scanned(T, chunk=1):
    """A recurrence of T steps, in an outer loop of T / chunk trips, and its arguments."""

    def cost(w, xs):
        def step(h, x):
            h = jnp.tanh(h @ w + x)
            return h, h

        xs = xs.reshape(T // chunk, chunk, 3, 16)
        return jnp.sum(lax.scan(lambda h, x: lax.scan(step, h, x), xs[0, 0], xs)[1])

    shapes = jax.ShapeDtypeStruct((16, 16), "float32"), jax.ShapeDtypeStruct((T, 3, 16), "float32")
    return cost, shapes


def counted(f, shapes):
    return loop_operations(jax.jit(f).lower(*shapes).compile().as_text())


def test_a_forward_pass_has_no_backward_loop_and_a_gradient_has_both():
    cost, shapes = scanned(64, chunk=8)
    forward = counted(cost, shapes)
    both = counted(jax.grad(cost), shapes)
    assert forward.backward == 0
    assert forward.forward >= 64  # a step is an operation at least
    assert min(both) >= 64


def test_twice_the_trips_are_twice_the_operations():
    short, long = (counted(jax.grad(f), shapes) for f, shapes in map(scanned, (64, 128)))
    assert long == tuple(2 * n for n in short)
    nested, longer = (counted(jax.grad(f), s) for f, s in (scanned(64, 8), scanned(128, 8)))
    assert longer == tuple(2 * n for n in nested)


# --- the program ---------------------------------------------------------------------------------


def test_a_missing_compiler_is_an_error_with_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setattr(compilers, "_installed", lambda module: module != "libtpu")
    assert accelerators.main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: TPU v5e: expected its compiler, libtpu; got no libtpu. pip")
    assert compilers.INSTALL in error
    monkeypatch.setattr(compilers, "_installed", lambda module: False)
    with pytest.raises(ValueError, match=r"^H100: .* got no jax_plugins.xla_cuda12 and no nvidia"):
        compilers.prepare()


def test_what_is_installed():
    assert compilers._installed("jax.numpy")
    assert not compilers._installed("jax.no_such_module")
    assert not compilers._installed("no_such_package.module")


def test_the_command_installs_what_is_looked_for():
    requirements = (ROOT / compilers.INSTALL.split()[-1]).read_text()
    packages = re.findall(r"^([\w-]+)==", requirements, re.M)
    assert {"libtpu", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12"} < set(packages)
    assert {"flax", "dm-haiku"} < set(packages)


@pytest.mark.usefixtures("float32")
@pytest.mark.slow
def test_every_library_is_compiled_for_both_devices(monkeypatch, tmp_path, capsys):
    """By this machine's own compiler: all of the program but the accelerators' compilers."""

    def compile_here(device, jitted, *args):
        compiled = jitted.lower(*args).compile()
        temporary = compiled.memory_analysis().temp_size_in_bytes
        return compilers.Program(compiled.as_text(), temporary if device == "H100" else None)

    monkeypatch.setattr(compilers, "prepare", lambda: None)
    monkeypatch.setattr(compilers, "compile_for", compile_here)
    monkeypatch.setattr(accelerators, "RIVALS", ["autodiff"])
    monkeypatch.setattr(accelerators.cases, "CASES", {1: accelerators.cases.TOY_CASES[1]})
    assert accelerators.main(["--rows", "1", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "accelerators.md").read_text()
    assert text.strip() in capsys.readouterr().out
    records = json.loads((tmp_path / "accelerators.json").read_text())["records"]
    found = {(r["program"], r["cell"], r["library"]) for r in records}
    assert len(found) == len(records)
    libraries = ["jrnn", "naive", "hoisted", "hoisted x4"]
    programs = [*product(("batch", "vmap"), ("rnn", "lstm", "gru")), ("train step", "rnn")]
    assert found == {(*program, name) for program, name in product(programs, libraries)}
    for record in records:
        counts = record["H100"]
        assert counts["both"] == counts["forward"] + counts["backward"]
        assert f"= {counts['both']:.2f} |" in text
        assert record["TPU v5e"]["temporary_bytes"] is None
    assert text.count("(1.00)") >= 3  # of the rival that bytes are compared with, itself
