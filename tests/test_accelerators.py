"""Counting the operations of compiled programs; no accelerator's compiler is needed for that."""

import re
from argparse import Namespace
from itertools import product

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from programs import ROOT

from benchmarks import accelerators, report
from benchmarks.hlo import loop_operations

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
    assert [n - m for n, m in zip(after, before, strict=True)] == [forward, backward]


def test_trips_that_are_not_in_the_text_are_refused():
    unknown = HLO.replace("%n = s32[]{:T(128)} constant(3)", "%n = s32[] get-tuple-element(%arg.1)")
    with pytest.raises(ValueError, match=r"hlo: expected the number of trips .*; got none: %while"):
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
    assert forward[1] == 0
    assert forward[0] >= 64  # a step is an operation at least
    assert min(both) >= 64


def test_twice_the_trips_are_twice_the_operations():
    short, long = (counted(jax.grad(f), shapes) for f, shapes in map(scanned, (64, 128)))
    assert long == tuple(2 * n for n in short)
    nested, longer = (counted(jax.grad(f), s) for f, s in (scanned(64, 8), scanned(128, 8)))
    assert longer == tuple(2 * n for n in nested)


# --- the program ---------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The options, and a program that changes nothing outside."""
    monkeypatch.setattr(accelerators, "RIVALS", ["autodiff"])
    monkeypatch.setattr(accelerators, "ENVIRONMENT", {})
    return Namespace(program="accelerators", toy=True, minutes=None, out=tmp_path)


def test_a_missing_compiler_is_an_error_and_the_page_has_the_command_that_installs_it(
    monkeypatch, small
):
    def fails(target, jitted, *args):
        raise RuntimeError(f"no plugin of {target[0]}")

    monkeypatch.setattr(accelerators, "compile_for", fails)
    assert report.run(small, accelerators.results) == 1
    text = (small.out / "accelerators.md").read_text()
    assert "- **rnn; lstm; gru: lines of the page say why**\n" in text
    assert "- rnn, jrnn: RuntimeError: no plugin of cuda\n" in text
    (install,) = re.findall(r"; pip install .*-r (.*)$", text, re.M)
    packages = set(re.findall(r"^([\w-]+)==", (ROOT / install).read_text(), re.M))
    assert {"libtpu", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12", "flax", "dm-haiku"} <= packages


@pytest.mark.usefixtures("float32")
def test_every_program_is_counted_for_both_devices(monkeypatch, small):
    """By this machine's own compiler: all of the program but the accelerators' compilers."""

    def compile_here(target, jitted, *args):
        return jitted.lower(*args).compile()

    monkeypatch.setattr(accelerators, "compile_for", compile_here)
    monkeypatch.setattr(accelerators, "CELLS", ["rnn", "lstm"])
    assert report.run(small, accelerators.results) == 0
    head, *lines = (
        (small.out / "accelerators.md").read_text().strip().split("\n\n")[-1].splitlines()
    )
    assert head == "| T, B, I, H | program | H100 | TPU v5e |"
    cells = [line.strip("| ").split(" | ") for line in lines[1:]]
    programs = {(cell.split(",")[0], name) for cell, name, *_ in cells}
    assert programs >= set(product(("rnn", "lstm"), ("jrnn", "naive", "hoisted")))
    for case, name, h100, tpu in cells:
        assert case.endswith(", 7, 4, 3, 5")
        assert h100 == tpu
        forward, backward, both = (float(n) for n in re.split(r" [+=] ", h100))
        assert both == pytest.approx(forward + backward, abs=0.02)
        if name in ("naive", "hoisted"):  # each has a loop each way
            assert min(forward, backward) >= 1
