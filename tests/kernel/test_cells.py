"""Every cell on every path: values and every gradient against the oracle, in float64.

Quick: each option is in a case of every cell, and each route in cases of three. Thorough: each
pair of two options, on each route. NaN stands wherever a step does not count.
"""

from itertools import chain, combinations, cycle, product

import jax
import numpy as np
import oracle
import pytest
from calls import EVERYTHING, both, expected, make_call, nth, parts, results
from cases import B, assert_close, sines
from cells import CELLS, NAMES, OF_THE_PACKAGE, cell_of, parts_of
from cover import each, pairs, pairwise
from routes import ROUTES, clean, program

from jrnn import kernel
from jrnn.cells import Cell
from jrnn.kernel import reference

OPTIONS = {
    "ends": [None, "lengths", "mask"],
    "resets": [None, "zero", "state"],
    "inputs": ["vectors", "ids", "added"],
    "start": ["None", "[H]", "[B, H]"],
    "reverse": [False, True],
    "recurrent_mask": [False, True],
    "bias": [True, False],
    "clip_delta": [None, 0.5],
    "by_hand": [True, False],
}
SECOND = {"second": OPTIONS["start"]}
LEAK = {"learned": [False, True], "dt": [None, "step", "[H]"]}
FACTORS = {
    "elman": {"name": list(oracle.ACTIVATIONS)} | OPTIONS,
    "lstm": {"name": ["lstm"]} | OPTIONS | SECOND,
    "gru": {"name": ["gru"]} | OPTIONS,
    "leaky": {"name": ["leaky", "leaky sigmoid"]} | OPTIONS | LEAK,
    "rate": {"name": ["rate", "rate sigmoid"]} | OPTIONS | LEAK,
    "mgu": {"name": ["mgu"]} | OPTIONS | {"by_hand": [False]},
    "coupled": {"name": ["coupled"]} | OPTIONS | SECOND,
    "zoneout": {"name": ["zoneout"]}
    | OPTIONS
    | {"z": ["step", "[B, H]", "[H]"], "z_float": [False, True]},
}
turn = cycle(ROUTES)
QUICK = {
    cell: [case | {"route": next(turn)} for case in each(factors)]
    for cell, factors in FACTORS.items()
}
FULL = {
    cell: [case | {"route": route} for case, route in product(pairwise(factors), ROUTES)]
    for cell, factors in FACTORS.items()
}


def id_of(case):
    return " ".join(map(str, case.values()))


def assert_exact(name, route, clip_delta=None, by_hand=True, **options):
    """Compiled; and the padding, NaN or zero, changes no bit."""
    call = make_call(name, batch=route != "one", **options)
    cell = cell_of(name, **options, by_hand=by_hand)
    run = program(kernel.Spec(cell, clip_delta=clip_delta, **ROUTES[route]), call, route)
    if route == "vmap of grad":
        each = (expected(name, nth(call, b), clip_delta) for b in range(B))
        right = jax.tree.map(lambda *x: np.stack(x), *each)
    else:
        right = expected(name, call, clip_delta)
    found = run(call)
    assert_close(found, right)
    jax.tree.map(np.testing.assert_array_equal, run(clean(call)), found)


def all_pairs(factors):
    levels = {name: [(name, x) for x in of] for name, of in factors.items()}
    return {pair for a, b in combinations(levels.values(), 2) for pair in product(a, b)}


def test_every_option_and_every_pair_of_options_is_in_a_case():
    for cell, factors in FACTORS.items():
        for name, levels in factors.items():
            assert {case[name] for case in QUICK[cell]} == set(levels)
        for route in ROUTES:
            on_route = [case for case in FULL[cell] if case["route"] == route]
            assert all_pairs(factors) <= set().union(*map(pairs, on_route))
    for route in ROUTES:
        assert sum(case["route"] == route for case in chain(*QUICK.values())) >= 3
    quick, full = (sum(map(len, cases.values())) for cases in (QUICK, FULL))
    print(f"{len(FACTORS)} cells: {quick} cases in the quick tier, {full} more in the thorough one")
    assert quick >= 25
    assert full >= 900


@pytest.mark.parametrize("case", [*chain(*QUICK.values())], ids=id_of)
def test_every_gradient(case):
    assert_exact(**case)


@pytest.mark.thorough
@pytest.mark.parametrize("case", [*chain(*FULL.values())], ids=id_of)
def test_every_gradient_on_every_route(case):
    assert_exact(**case)


COMPILED = [("lstm", route) for route in ROUTES if route not in ("reference", "vmap")]
COMPILED += [(name, "chosen") for name in ("tanh", "gru", "leaky", "rate", "mgu")]
LIKE_THEM = [("lstm", "reference"), ("lstm", "vmap"), ("coupled", "chosen"), ("zoneout", "chosen")]
LIKE_THEM += [(name, "one") for name in NAMES if name != "lstm"]


@pytest.mark.parametrize(
    ("name", "route"),
    [pytest.param(*case, marks=pytest.mark.optimized) for case in COMPILED]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in LIKE_THEM],
)
def test_every_gradient_compiled(name, route):
    assert_exact(name, route, 0.5, **EVERYTHING, reverse=True)


# --- second order --------------------------------------------------------------------------------


def slope(spec, call, **options):
    """The gradient of a function of every output and every gradient that is not linear."""
    floats, others = parts(call.arguments)

    def cost(floats):
        call_of = call._replace(arguments=both(floats, others))
        return sines(results(spec, call_of, **options))

    return jax.jit(jax.grad(cost))(floats)


QUICK_TWICE = [("tanh", "chosen"), ("lstm", "chosen")]
TWICE = [(name, route) for name in NAMES for route in ("chosen", "chunks", "reference", "segments")]


@pytest.mark.parametrize(
    ("name", "route"),
    [
        pytest.param(*case, marks=[] if case in QUICK_TWICE else pytest.mark.thorough)
        for case in TWICE
    ],
)
def test_differentiating_twice(name, route):
    call = clean(make_call(name, **EVERYTHING, reverse=route == "chosen"))
    cell = cell_of(name, **EVERYTHING)
    by_scan = slope(kernel.Spec(cell), call, run=reference.unroll_by_scan)
    assert_close(slope(kernel.Spec(cell, **ROUTES[route]), call), by_scan, rtol=1e-9)


# --- the checks of a user's cell -----------------------------------------------------------------


@pytest.mark.parametrize("name", CELLS | OF_THE_PACKAGE)
def test_the_check_of_a_users_own_is_passed(name):
    Cell(**parts_of((CELLS | OF_THE_PACKAGE)[name]))
