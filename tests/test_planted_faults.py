"""Wrong backward passes, one fault each: the comparison with the oracle must see them all."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import RTOL, differences, make_case, value_and_cotangents
from jax import lax

from jrnn import bptt
from jrnn.cell import elman

SOUND = bptt._states_from_preactivations_bwd


def backward(
    *,
    derivative=lambda h_tm1, h_t: 1 - h_t**2,
    transposed=lambda w: w.T,
    link=1.0,
    reverse=True,
    last=1.0,
    before=lambda dhs: dhs,
    after=lambda deltas: deltas,
):
    """The backward pass of a tanh network once more, with a place for each fault."""

    def bwd(cell, precision, residuals, cotangents):
        h0, hs, w_hh = residuals
        dh_last, dhs = cotangents

        def step(c, outputs):
            dhs_t, h_tm1, h_t = outputs
            delta = derivative(h_tm1, h_t) * (dhs_t + link * c)
            return delta @ transposed(w_hh), delta

        outputs = (before(dhs), jnp.concatenate([h0[None], hs[:-1]]), hs)
        dh0, deltas = lax.scan(step, last * dh_last, outputs, reverse=reverse)
        return after(deltas), dh0, None, None

    return bwd


def change(**changed):
    """A sound backward pass whose results, by place, are changed afterwards."""

    def bwd(cell, precision, residuals, cotangents):
        found = SOUND(cell, precision, residuals, cotangents)
        found = dict(zip(["a", "h0", "hs", "w_hh"], found, strict=True))
        return tuple(changed[name](d) if name in changed else d for name, d in found.items())

    return bwd


def scale_gradient(of, by):
    """A sound network but for the gradient of one parameter, multiplied by an array or a number."""

    @jax.custom_vjp
    def scaled(x):
        return x

    scaled.defvjp(lambda x: (x, None), lambda _, d: (d * by,))

    def run(cell, precision, params, xs, h0):
        if of == "xs":
            return bptt.run(cell, precision, params, scaled(xs), h0)
        params = params._replace(**{of: scaled(getattr(params, of))})
        return bptt.run(cell, precision, params, xs, h0)

    return run


ONE_ENTRY = np.ones((4, 4))
ONE_ENTRY[1, 2] = 0
LAST_STEP = np.ones((7, 1, 1))
LAST_STEP[-1] = 0

BACKWARD_FAULTS = {
    "w_hh not transposed": backward(transposed=lambda w: w),
    "phi' missing": backward(derivative=lambda h_tm1, h_t: jnp.ones_like(h_t)),
    "phi' of the step before": backward(derivative=lambda h_tm1, h_t: 1 - h_tm1**2),
    "phi' of tanh as 1 - h": backward(derivative=lambda h_tm1, h_t: 1 - h_t),
    "link through time cut": backward(link=0.0),
    "link through time 0.1 % weak": backward(link=0.999),
    "Jacobians in the order of time": backward(reverse=False),
    "cotangent of h_last dropped": backward(last=0.0),
    "cotangent of h_last doubled": backward(last=2.0),
    "cotangents of hs one step late": backward(before=lambda dhs: jnp.roll(dhs, 1, 0)),
    "last cotangent of hs dropped": backward(before=lambda dhs: dhs * LAST_STEP),
    "mean over the batch for the sum": backward(after=lambda deltas: deltas / 3),
    "deltas rounded to float32": backward(after=lambda d: d.astype(jnp.float32).astype(d.dtype)),
    "deltas one step late": change(a=lambda a: jnp.roll(a, 1, 0)),
    "dh0 zero": change(h0=jnp.zeros_like),
    "dh0 0.1 % large": change(h0=lambda d: 1.001 * d),
}
WEIGHT_FAULTS = {
    "b_h 0.1 % large": scale_gradient("b_h", 1.001),
    "one entry of w_hh zero": scale_gradient("w_hh", ONE_ENTRY),
    "w_ih halved": scale_gradient("w_ih", 0.5),
    "dx zero at the last step": scale_gradient("xs", LAST_STEP),
}
PREVIOUS_FAULTS = {
    "h_t for h_{t-1} in dw_hh": lambda hs, h0: hs,
    "h_0 left out of dw_hh": lambda hs, h0: jnp.concatenate([jnp.zeros_like(h0)[None], hs[:-1]]),
    "h_{t-2} for h_{t-1} in dw_hh": lambda hs, h0: jnp.concatenate([h0[None], h0[None], hs[:-2]]),
}


def worst_difference(run=bptt.run):
    case = make_case()
    found = value_and_cotangents(lambda *a: run(elman("tanh"), None, *a), case)
    expected = oracle.rnn(case.params, case.xs, case.h0, "tanh", case.dh_last, case.dhs)
    return max(differences(found, expected).values())


def plant(monkeypatch, bwd):
    rule = jax.custom_vjp(lambda cell, precision, a, h0, hs, w_hh: (hs[-1], hs), (0, 1))
    rule.defvjp(bptt._states_from_preactivations_fwd, bwd)
    monkeypatch.setattr(bptt, "_states_from_preactivations", rule)


def test_no_fault():
    assert worst_difference() <= RTOL


def test_the_copy_without_a_fault(monkeypatch):
    plant(monkeypatch, backward())
    assert worst_difference() <= RTOL


@pytest.mark.parametrize("fault", BACKWARD_FAULTS)
def test_fault_in_the_rule(monkeypatch, fault):
    plant(monkeypatch, BACKWARD_FAULTS[fault])
    assert worst_difference() > 10 * RTOL


@pytest.mark.parametrize("fault", WEIGHT_FAULTS)
def test_fault_in_one_gradient(fault):
    assert worst_difference(WEIGHT_FAULTS[fault]) > 10 * RTOL


@pytest.fixture
def forget_traces():
    """`jax.checkpoint` remembers what it traced, by the function that it wraps."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("forget_traces")
@pytest.mark.parametrize("fault", PREVIOUS_FAULTS)
def test_fault_in_the_states_before(monkeypatch, fault):
    monkeypatch.setattr(bptt, "_previous", PREVIOUS_FAULTS[fault])
    assert worst_difference() > 10 * RTOL
