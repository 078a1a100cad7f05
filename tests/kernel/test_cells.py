"""Every cell on every path: values and every gradient against the oracle, in float64.

Each pair of two options is in a case; NaN stands wherever a step does not count.
"""

from functools import cache, partial
from itertools import combinations

import faults
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from calls import (
    Call,
    axes,
    both,
    cell_of,
    expected,
    make_call,
    mapped,
    nth,
    on_floats,
    parts,
    results,
    unroll,
)
from cases import B, I, assert_close
from cells import CELLS
from cover import pairs, pairwise
from rounding import assert_within, float32_bounds, in_float32, in_float64

from jrnn import kernel
from jrnn.kernel import reference
from jrnn.kernel.backends.xla import XLA, Schedule

CHUNKS = XLA(Schedule(3, 3, 2))  # two chunks of 3 steps and a rest, in blocks of 2
ROUTES = {
    "chosen": {},
    "chunks": {"backend": CHUNKS},
    "reference": {"backend": reference.Reference()},
    "segments": {"remat": faults.Segments()},  # of 2 steps, two side by side
    "rule": {},
    "one": {},
    "vmap": {},
    "vmap of grad": {},
}
OPTIONS = {
    "route": ROUTES,
    "ends": [None, "lengths", "mask"],
    "resets": [None, "zero", "state"],
    "inputs": ["vectors", "ids", "added"],
    "start": ["None", "[H]", "[B, H]"],
    "reverse": [False, True],
    "recurrent_mask": [False, True],
    "bias": [True, False],
    "clip_delta": [None, 0.5],
}
MORE = {
    "zoneout": {"z": ["bool", "float", "[B, H]", "[H]"]},
    "lstm": {"start": ["None", "[H]", "[B, H]", "mixed"]},
}
NAMES = ["tanh", *CELLS]
FACTORS = {name: OPTIONS | MORE.get(name, {}) for name in NAMES}
FACTORS["tanh"] = {"name": list(oracle.ACTIVATIONS)} | OPTIONS
COVER = [{"name": name} | case for name in NAMES for case in pairwise(FACTORS[name])]
# Quick: a cell of one state and block, one of several. All others where their cost is no matter.
QUICK = ("tanh", "lstm")
BOTH_TIERS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in NAMES]
EVERYTHING = {"ends": "lengths", "resets": "state", "recurrent_mask": True, "z": "float"}


def id_of(case):
    return " ".join(map(str, case.values()))


def assert_exact(name, route, clip_delta=None, **options):
    call = make_call(name, batch=route != "one", **options)
    spec = kernel.Spec(cell_of(name), clip_delta=clip_delta, **ROUTES[route])
    if route == "vmap of grad":
        each = (expected(name, nth(call, b), clip_delta) for b in range(B))
        assert_close(of_each_sequence(spec, call), jax.tree.map(lambda *x: np.stack(x), *each))
        return
    more = {"run": reference.unroll} if route == "rule" else {}
    run = partial(mapped, axes=axes(call)) if route == "vmap" else unroll
    assert_close(results(spec, call, run, **more), expected(name, call, clip_delta))


def of_each_sequence(spec, call):
    """`vmap` of the gradient: no sequence's is added to another's."""

    def one(arguments, d_last, dhs):
        return results(spec, Call(arguments, d_last, dhs, call.reverse))

    return jax.vmap(one, (axes(call), 0, 1))(call.arguments, call.d_last, call.dhs)


def test_every_pair_of_options_is_in_a_case():
    for name, factors in FACTORS.items():
        own = list(oracle.ACTIVATIONS) if name == "tanh" else [name]
        found = set().union(*(pairs(case) for case in COVER if case["name"] in own))
        for a, b in combinations(factors, 2):
            assert {((a, x), (b, y)) for x in factors[a] for y in factors[b]} <= found
    print(f"{len(COVER)} cases of {len(NAMES)} cells")
    assert len(COVER) >= 180


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("case", COVER, ids=id_of)
def test_every_gradient(case):
    assert_exact(**case)


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("name", "route"),
    [*(("lstm", route) for route in ROUTES)]
    + [(name, route) for name in NAMES if name != "lstm" for route in ("chosen", "one")],
)
def test_every_gradient_compiled(name, route):
    assert_exact(name, route, 0.5, **EVERYTHING, reverse=True)


# --- second order --------------------------------------------------------------------------------


def slope(spec, call, **options):
    """The gradient of a function of every output and every gradient that is not linear."""
    floats, others = parts(call.arguments)

    def cost(floats):
        call_of = call._replace(arguments=both(floats, others))
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(results(spec, call_of, **options)))

    return jax.jit(jax.grad(cost))(floats)


OTHER_ROUTES = [(name, route) for name in QUICK for route in ("chunks", "reference", "segments")]


@pytest.mark.parametrize(
    ("name", "route"),
    [*((name, "chosen") for name in QUICK)]
    + [pytest.param(name, "chosen", marks=pytest.mark.slow) for name in NAMES if name not in QUICK]
    + [pytest.param(*other, marks=pytest.mark.slow) for other in OTHER_ROUTES],
)
def test_differentiating_twice(name, route):
    call = clean(make_call(name, **EVERYTHING, reverse=route == "chosen"))
    spec = kernel.Spec(cell_of(name), **ROUTES[route])
    by_scan = slope(kernel.Spec(cell_of(name)), call, run=reference.unroll_by_scan)
    assert_close(slope(spec, call), by_scan, rtol=1e-9)


def clean(call):
    """Zero where nothing counts: the scan, as JAX differentiates it, lets NaN through."""
    return on_floats(np.nan_to_num, call)


# --- in float32 and with rounded operands ---------------------------------------------------------


@cache
def in_float32_with_bounds(name, batch):
    call = in_float32(make_call(name, batch=batch, **EVERYTHING))
    return call, *float32_bounds(name, call)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("name", "route"),
    [*(("tanh", route) for route in ROUTES if route != "vmap of grad"), ("lstm", "chosen")]
    + [pytest.param(name, "chosen", marks=pytest.mark.slow) for name in CELLS if name != "lstm"],
)
def test_float32_is_as_near_as_plain_scans_are(name, route):
    call, right, bounds = in_float32_with_bounds(name, route != "one")
    spec = kernel.Spec(cell_of(name), **ROUTES[route])
    run = partial(mapped, axes=axes(call)) if route == "vmap" else unroll
    more = {"run": reference.unroll} if route == "rule" else {}
    found = results(spec, call, run, **more)
    assert_within(found, right, bounds)
    with pytest.raises(AssertionError):
        assert_within(jax.tree.map(lambda x: x * np.float32(1.001), found), right, bounds)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ["leaky", "rate"])
def test_a_slow_leak_in_float32(name):
    """No derivative is found by dividing by alpha, here 1e-3."""
    call = make_call(name, **EVERYTHING)
    call.arguments["unit"]["alpha"][:] = 1e-3
    call = in_float32(call)
    right, bounds = float32_bounds(name, call)
    assert_within(results(kernel.Spec(cell_of(name)), call), right, bounds)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("route", ["chosen", "segments"])
@pytest.mark.parametrize("name", BOTH_TIERS)
def test_operands_are_rounded_and_nothing_else(name, route):
    """In float64 with operands in float32; a coarser rounding would show."""
    call = make_call(name, **EVERYTHING)
    spec = kernel.Spec(cell_of(name), compute_dtype=jnp.dtype(jnp.float32), **ROUTES[route])
    assert_close(widened(results(spec, call)), expected(name, call), rtol=2e-6)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", BOTH_TIERS)
def test_the_error_with_bfloat16_operands(name):
    """Of each array in norm, with weights of the size in which they are drawn."""
    call = make_call(name, **EVERYTHING)
    call.arguments["w_ih"] /= I**0.5
    call.arguments["w_hh"] /= 2  # of norm 1
    call = in_float32(call)
    found = results(kernel.Spec(cell_of(name), compute_dtype=jnp.dtype(jnp.bfloat16)), call)
    assert found[0][1].dtype == jnp.bfloat16
    right = expected(name, in_float64(call))
    for a, b in zip(jax.tree.leaves(widened(found)), jax.tree.leaves(right), strict=True):
        assert np.linalg.norm(a - b) <= 1e-2 * np.linalg.norm(b)


def widened(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
