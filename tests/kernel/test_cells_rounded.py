"""Every cell in float32, and with rounded operands of its matmuls: as near as plain scans are."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import EVERYTHING, expected, make_call
from cases import assert_close
from cells import NAMES, cell_of, parts_of
from rounding import assert_within, float32_bounds, in_float32
from routes import ROUTES, program

from jrnn import kernel
from jrnn.cells import CellOfActivation

# Quick: a cell of one state and block, one of several. All others where their cost is no matter.
TWO = ("tanh", "lstm")
OTHER_ROUTES = [x for x in ROUTES if x not in ("chosen", "segments", "vmap of grad")]
OTHERS = [name for name in NAMES if name not in TWO]
BOTH_TIERS = [*TWO, *(pytest.param(name, marks=pytest.mark.thorough) for name in OTHERS)]


BFLOAT16 = jnp.dtype(jnp.bfloat16)


# --- in float32 ----------------------------------------------------------------------------------


@cache
def in_float32_with_bounds(name, batch):
    call = in_float32(make_call(name, batch=batch, **EVERYTHING))
    return call, *float32_bounds(cell_of(name, **EVERYTHING), name, call)


@pytest.mark.parametrize(
    ("name", "route"),
    [("tanh", "chosen"), ("tanh", "segments"), ("lstm", "chosen")]
    + [pytest.param("tanh", route, marks=pytest.mark.thorough) for route in OTHER_ROUTES]
    + [pytest.param(name, "chosen", marks=pytest.mark.thorough) for name in OTHERS],
)
def test_float32_is_as_near_as_plain_scans_are(name, route):
    call, right, bounds = in_float32_with_bounds(name, route != "one")
    found = program(kernel.Spec(cell_of(name, **EVERYTHING), **ROUTES[route]), call, route)(call)
    assert_within(found, right, bounds)
    with pytest.raises(AssertionError):
        assert_within(jax.tree.map(lambda x: x * np.float32(1.001), found), right, bounds)


# --- a leak of 1e-3 ------------------------------------------------------------------------------


def slow_leak(name, learned):
    """In float32."""
    call = make_call(name, **EVERYTHING | {"learned": learned})
    call.arguments["unit"] = {
        k: np.full_like(x, np.log(1e3) if learned else 1e-3)
        for k, x in call.arguments["unit"].items()
    }
    return in_float32(call)


def _by_division(cell):
    """phi' from the states: phi = (h_t - (1 - alpha) h_{t-1}) / alpha."""

    def adjoint(d_after, gates, before, unit, data, after):
        alpha = -jnp.expm1(-jnp.exp(-unit["log_tau"]) * data["dt"])
        phi = (after[0] - (1 - alpha) * before[0]) / alpha
        return cell.adjoint(d_after, (phi,), before, unit, data, after)

    return CellOfActivation(**parts_of(cell) | {"adjoint": adjoint})


@pytest.mark.parametrize(
    "dtype", [None, pytest.param(BFLOAT16, marks=pytest.mark.thorough)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("learned", [True, pytest.param(False, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", ["leaky", "rate"])
def test_a_slow_leak(name, learned, dtype):
    """No derivative is found by dividing by alpha, here 1e-3."""
    cell, call = cell_of(name, learned, "step"), slow_leak(name, learned)
    right, bounds = float32_bounds(cell, name, call, dtype)
    found = program(kernel.Spec(cell, compute_dtype=dtype), call)(call)
    assert_within(found, right, bounds)
    if name == "leaky" and learned and dtype is None:  # bfloat16 rounds more than the division
        wrong = kernel.Spec(_by_division(cell))
        with pytest.raises(AssertionError):
            assert_within(program(wrong, call)(call), right, bounds)


# --- rounded operands ----------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["chosen", pytest.param("segments", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", BOTH_TIERS)
def test_operands_are_rounded_and_nothing_else(name, route):
    """In float64 with operands in float32; a coarser rounding would show."""
    cell, call = cell_of(name, **EVERYTHING), make_call(name, **EVERYTHING)
    spec = kernel.Spec(cell, compute_dtype=jnp.dtype(jnp.float32), **ROUTES[route])
    assert_close(widened(program(spec, call)(call)), expected(name, call), rtol=2e-6)


@pytest.mark.parametrize("name", BOTH_TIERS)
def test_the_error_with_bfloat16_operands(name):
    cell, call = cell_of(name, **EVERYTHING), in_float32(make_call(name, **EVERYTHING))
    found = program(kernel.Spec(cell, compute_dtype=BFLOAT16), call)(call)
    assert found[0][1].dtype == BFLOAT16
    assert_within(found, *float32_bounds(cell, name, call, BFLOAT16))


def widened(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
