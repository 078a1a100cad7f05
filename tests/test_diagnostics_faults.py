"""Planted faults: each comparison of the diagnostics has to see those that it is there for."""

import pytest
from flows import (
    determinant_differs,
    flow_differs,
    growth_differs,
    influence_differs,
    rotation_differs,
    spectrum_differs,
)
from mutations import mutated, planted

from jrnn.diagnostics import exponents, flow


def at_another_step(n):
    """The text of the arguments of a step, moved by n steps."""
    moved = "rows(jax.tree.map(lambda x: jnp.roll(x, {}, 0), run.{}))"
    return f"{moved.format(n, 'at')}), {moved.format(n, 'before')})"


ROOT = "jnp.sqrt(jnp.square(x / top).sum(axis))"
STEP = "rows(run.at)), rows(run.before))"
OF_BOTH = {
    flow._one_step_back: {
        "w_hh not transposed": ("run.step, run.w_hh", "run.step, run.w_hh.T"),
        "phi' missing": ("vjp(rows(e))", "[(rows(e)[0] @ run.w_hh.T,)]"),
        "phi' of the step before": (STEP, at_another_step(1)),
        "phi' of the step after": (STEP, at_another_step(-1)),
        "no step back": ("_shift(x.reshape(*lead, x.shape[-1]))", "x.reshape(*lead, x.shape[-1])"),
    },
    flow.norm: {
        "no root": (ROOT, "jnp.square(x / top).sum(axis)"),
        "sum for norm": (ROOT, "jnp.abs(x / top).sum(axis)"),
    },
}
LATER = "jax.tree.map(jnp.add, e_k, later)"
OF_FLOW = {
    flow._gradient_flow: {
        "lags off by one": ("next_lag, (e, counted)", "next_lag, (one_step_back(e), counted)"),
        "states before the first counted": ("_shift(counted)), found", "counted), found"),
        "deltas: w_hh not transposed": ("run.w_hh, before)", "run.w_hh.T, before)"),
        "deltas: phi' missing": (
            f"vjp({LATER})",
            "(lambda d: (before[0].mT @ d, (d @ run.w_hh.T,)))(e_k[0] + later[0])",
        ),
        "deltas: of one loss only": (LATER, "e_k"),
        "deltas: in the order of time": ("reverse=True", "reverse=False"),
        "uses: h_t for h_{t-1}": ("(run.at, run.before, e)", "(run.at, run.after, e)"),
        "uses: norms before the sum over b": (
            "norm(use)",
            "jax.vmap(lambda at, s, d: norm("
            "jax.vjp(partial(run.step, at=at), run.w_hh, s)[1](d)[0]))"
            f"(at, before, {LATER}).sum()",
        ),
    },
    flow._losses: {
        "losses of weight 0 counted": (
            "jnp.broadcast_to(weights.astype(bool),",
            "jnp.broadcast_to(True,",
        ),
    },
    flow._percentiles: {
        "the 80th for the 90th": ("0.9]", "0.8]"),
        "a rank too far": ("(count - 1)", "count"),
    },
}
OF_INFLUENCE = {
    flow._influence: {
        "lags off by one": ("lax.scan(next_lag, e,", "lax.scan(next_lag, one_step_back(e),"),
        "transposed": ("jnp.where(lag >= 0, table, 0)", "jnp.where(lag >= 0, table, 0).T"),
        "a row per lag": ("jnp.take_along_axis(by_lag, jnp.maximum(lag, 0), axis=0)", "by_lag.T"),
        "not cut": ("jnp.where(lag >= 0, table, 0)", "table"),
    },
}
CHANGES = "jax.vmap(change, 1, 1)(q)"
AT_ANOTHER_STATE = (
    "jax.linearize(after, before)",
    "after(before), jax.linearize(after, after(before))[1]",
)
OF_EXPONENTS = {
    rotation_differs: {
        "QR's signs kept": ("jnp.abs(jnp.diagonal(r))", "jnp.diagonal(r)"),
        "no log": ("jnp.log(jnp.where", "(jnp.where"),
        "base 2": ("jnp.log(jnp.where", "jnp.log2(jnp.where"),
        "QR never kept": (
            "q, r = jnp.linalg.qr(changes)",
            "q, r = changes, jnp.linalg.qr(changes)[1]",
        ),
        "a sum": ("jnp.mean(", "jnp.sum("),
    },
    spectrum_differs: {"warm-up averaged": (">= warmup", ">= 0")},
    determinant_differs: {
        "phi' missing": (CHANGES, "params.w_hh.T @ q"),
        "phi' of another step": AT_ANOTHER_STATE,
    },
    growth_differs: {
        "w_hh not transposed": (CHANGES, "jax.jacfwd(after)(before).T @ q"),
        "phi' missing": (CHANGES, "params.w_hh.T @ q"),
        "phi' of another step": AT_ANOTHER_STATE,
    },
}


def assert_sees(check, wrong, *case):
    with pytest.raises(AssertionError):
        check(wrong, *case)


def test_a_copy_without_a_fault():
    influence_differs(mutated(flow.norm, ROOT, ROOT, user=flow))


@planted(OF_BOTH)
def test_planted_fault(fault):
    wrong = mutated(*fault, user=flow)
    assert_sees(flow_differs, wrong)
    assert_sees(influence_differs, wrong)


@planted(OF_FLOW)
def test_planted_fault_in_the_flow(fault):
    assert_sees(flow_differs, mutated(*fault), "floats")


@planted(OF_INFLUENCE)
def test_planted_fault_in_the_influence(fault):
    assert_sees(influence_differs, mutated(*fault))


@planted(OF_EXPONENTS)
def test_planted_fault_in_the_exponents(fault):
    check, *texts = fault
    assert_sees(check, mutated(exponents._lyapunov_exponents, *texts))
