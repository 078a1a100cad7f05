"""Wrong backward passes, one fault each: the comparison with the oracle must see them all."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import RTOL, differences, make_case, value_and_cotangents
from jax import lax

from jrnn import bptt
from jrnn.bptt import chunks, gradients, plain, segments
from jrnn.bptt.gradients import Sums, of_parameters
from jrnn.bptt.loops import rows
from jrnn.bptt.step import Cotangents
from jrnn.cell import elman

SOUND = plain.backward


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

    def faulty(recurrence, residuals, cotangents, sums):
        params, (xs, h0, *_), hs = residuals
        dh_last, dhs = cotangents

        def step(c, outputs):
            dhs_t, h_tm1, h_t = outputs
            delta = derivative(h_tm1, h_t) * (dhs_t + link * c)
            return delta @ transposed(params.w_hh), delta

        h_tm1s = jnp.concatenate([h0[None], hs[:-1]])
        dh0, deltas = lax.scan(step, last * dh_last, (before(dhs), h_tm1s, hs), reverse=reverse)
        deltas = after(deltas)
        dw_ih = jnp.einsum("tbi,tbh->hi", xs, deltas)
        dw_hh = jnp.einsum("tbi,tbh->hi", h_tm1s, deltas)
        sums = jax.tree.map(jnp.add, sums, Sums(dw_ih, dw_hh, deltas.sum((0, 1))))
        return Cotangents(dh0, bptt.Entry()), sums, deltas @ params.w_ih.T

    return faulty


def h0_gradient(change):
    """A sound backward pass but for the gradient of h_0."""

    def faulty(*arguments):
        c_0, sums, dxs = SOUND(*arguments)
        return c_0._replace(h=change(c_0.h)), sums, dxs

    return faulty


def scale_gradient(of, by):
    """A sound network but for the gradient of one parameter, multiplied by an array or a number."""

    @jax.custom_vjp
    def scaled(x):
        return x

    scaled.defvjp(lambda x: (x, None), lambda _, d: (d * by,))

    def run(recurrence, params, xs, h0):
        if of == "xs":
            return bptt.run(recurrence, params, bptt.whole(params, scaled(xs), h0))
        params = params._replace(**{of: scaled(getattr(params, of))})
        return bptt.run(recurrence, params, bptt.whole(params, xs, h0))

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
    "deltas one step late": backward(after=lambda deltas: jnp.roll(deltas, 1, 0)),
    "dh0 zero": h0_gradient(jnp.zeros_like),
    "dh0 0.1 % large": h0_gradient(lambda d: 1.001 * d),
}
WEIGHT_FAULTS = {
    "b_h 0.1 % large": scale_gradient("b_h", 1.001),
    "one entry of w_hh zero": scale_gradient("w_hh", ONE_ENTRY),
    "w_ih halved": scale_gradient("w_ih", 0.5),
    "dx zero at the last step": scale_gradient("xs", LAST_STEP),
}
SOUND_STEP_BACK, SOUND_SUMS = chunks._step_back, gradients.add_weight_gradients
SOUND_STATES_ENTERING, SOUND_OVER_TIME = gradients.states_entering, chunks.over_time


def step_back(*, c=lambda c: c, deltas=lambda d: d, given=lambda g: g, residuals=lambda r: r):
    """(9) of a chunk, with a place for a fault in what goes in and what comes out."""

    def faulty(recurrence, schedule, w, r, g, start, K, c_in):
        c_out, d = SOUND_STEP_BACK(recurrence, schedule, w, residuals(r), given(g), start, K, c_in)
        return c(c_out), deltas(d)

    return faulty


def over_time(fault):
    """The loop over chunks of the backward pass, with another one in its place."""

    def faulty(T, K, body, state, reverse=False):
        run = fault if T == 7 and reverse else SOUND_OVER_TIME
        return run(T, K, body, state, reverse)

    return faulty


def without_the_rest(T, K, body, state, reverse):
    return SOUND_OVER_TIME(T // K * K, K, body, state, reverse)


def in_the_order_of_time(T, K, body, state, reverse):
    return SOUND_OVER_TIME(T, K, body, state)


def sums(change):
    """(11) and (12) of a chunk from changed arguments: sums, deltas, xs, states before."""
    return lambda recurrence, *arguments: SOUND_SUMS(recurrence, *change(*arguments))


def nothing_before(sums, deltas, xs, previous):
    return jax.tree.map(jnp.zeros_like, sums), deltas, xs, previous


CHUNK_FAULTS = {
    "w_hh not transposed": (
        "_step_back",
        lambda r, schedule, w, *rest: SOUND_STEP_BACK(r, schedule, w.T, *rest),
    ),
    "link cut at the border of a chunk": (
        "_step_back",
        step_back(c=partial(jax.tree.map, jnp.zeros_like)),
    ),
    "link 0.1 % weak at the border of a chunk": (
        "_step_back",
        step_back(c=lambda c: c._replace(h=0.999 * c.h)),
    ),
    "deltas one step late": ("_step_back", step_back(deltas=lambda d: jnp.roll(d, 1, 1))),
    "deltas of the examples shifted": ("_step_back", step_back(deltas=lambda d: jnp.roll(d, 1, 2))),
    "cotangents one step late": (
        "_step_back",
        step_back(given=lambda g: g._replace(dhs=jnp.roll(g.dhs, 1, 0))),
    ),
    "phi' of the step before": (
        "_step_back",
        step_back(residuals=lambda r: r._replace(hs=jnp.roll(r.hs, 1, 0))),
    ),
    "chunks in the order of time": ("over_time", over_time(in_the_order_of_time)),
    "rest of the sequence dropped": ("over_time", over_time(without_the_rest)),
    "sums forgotten at the border of a chunk": ("add_weight_gradients", sums(nothing_before)),
}
SUM_FAULTS = {
    "x of the examples shifted": sums(lambda s, d, x, h: (s, d, jnp.roll(x, 1, 1), h)),
    "mean over the batch for the sum": sums(lambda s, d, x, h: (s, d / 3, x, h)),
}
CHUNK_ENTERING_FAULTS = {
    "h_0 before every chunk": lambda i, hs, t, K: (
        SOUND_STATES_ENTERING(i, hs, t, K).at[0].set(i.h0)
    ),
    "h_t for h_{t-1} before a chunk": lambda i, hs, t, K: (
        SOUND_STATES_ENTERING(i, hs, t, K).at[0].set(rows(hs, t, 1)[0])
    ),
}
ENTERING_FAULTS = {
    "h_t for h_{t-1} in dw_hh": lambda i, hs, t, K: rows(hs, t, K),
    "h_0 left out of dw_hh": lambda i, *rest: SOUND_STATES_ENTERING(
        i._replace(h0=jnp.zeros_like(i.h0)), *rest
    ),
    "h_{t-2} for h_{t-1} in dw_hh": lambda i, hs, *rest: SOUND_STATES_ENTERING(
        i, jnp.roll(hs, 1, 0).at[0].set(i.h0), *rest
    ),
}


def worst_difference(run=None):
    case = make_case()  # 7 steps: two chunks of 3 and a rest, in blocks of 2
    recurrence = bptt.Recurrence(elman("tanh"), schedule=bptt.Schedule(3, 3, block=2))
    found = value_and_cotangents(partial(run or kernel, recurrence), case)
    expected = oracle.rnn(case.params, case.xs, case.h0, "tanh", case.dh_last, case.dhs)
    return max(differences(found, expected).values())


def kernel(recurrence, params, xs, h0):
    return bptt.run(recurrence, params, bptt.whole(params, xs, h0))


@pytest.fixture(params=[chunks, plain], ids=["chunks", "plain"])
def form(request, monkeypatch):
    """The module whose backward pass a batch goes through."""
    monkeypatch.setattr(chunks, "backward", request.param.backward)
    return request.param


@pytest.mark.usefixtures("uncompiled", "form")
def test_no_fault():
    assert worst_difference() <= RTOL


@pytest.mark.usefixtures("uncompiled")
def test_the_copies_without_a_fault(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "backward", backward())
        assert worst_difference() <= RTOL
    monkeypatch.setattr(chunks, "_step_back", step_back())
    monkeypatch.setattr(chunks, "over_time", over_time(SOUND_OVER_TIME))
    monkeypatch.setattr(chunks, "add_weight_gradients", sums(lambda *arguments: arguments))
    assert worst_difference() <= RTOL


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("fault", BACKWARD_FAULTS)
def test_fault_in_the_rule(monkeypatch, fault):
    monkeypatch.setattr(chunks, "backward", BACKWARD_FAULTS[fault])
    assert worst_difference() > 10 * RTOL


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("fault", CHUNK_FAULTS)
def test_fault_in_the_chunks(monkeypatch, fault):
    monkeypatch.setattr(chunks, *CHUNK_FAULTS[fault])
    assert worst_difference() > 10 * RTOL


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("fault", SUM_FAULTS)
def test_fault_in_the_sums(monkeypatch, form, fault):
    monkeypatch.setattr(form, "add_weight_gradients", SUM_FAULTS[fault])
    assert worst_difference() > 10 * RTOL


@pytest.mark.usefixtures("uncompiled")
def test_fault_in_dx(monkeypatch, form):
    sound = form.input_gradients
    monkeypatch.setattr(form, "input_gradients", lambda *given: jnp.roll(sound(*given), 1, 1))
    assert worst_difference() > 10 * RTOL


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("fault", CHUNK_ENTERING_FAULTS)
def test_fault_in_the_state_before_a_chunk(monkeypatch, fault):
    monkeypatch.setattr(gradients, "states_entering", CHUNK_ENTERING_FAULTS[fault])
    assert worst_difference() > 10 * RTOL


@pytest.mark.usefixtures("uncompiled", "form")
@pytest.mark.parametrize("fault", ENTERING_FAULTS)
def test_fault_in_the_states_before(monkeypatch, fault):
    monkeypatch.setattr(gradients, "states_entering", ENTERING_FAULTS[fault])
    assert worst_difference() > 10 * RTOL


SOUND_SIDE_BY_SIDE = segments._side_by_side
SEGMENT_FAULTS = {
    "the states after the segments": (
        "_side_by_side",
        lambda r, p, i: SOUND_SIDE_BY_SIDE(r, p, i._replace(h0=jnp.roll(i.h0, -1, 0))),
    ),
    "h_0 in front of every segment": (
        "_side_by_side",
        lambda r, p, i: SOUND_SIDE_BY_SIDE(r, p, i._replace(h0=i.h0 * 0 + i.h0[:1])),
    ),
    "segments in another order": (
        "_side_by_side",
        lambda r, p, i: SOUND_SIDE_BY_SIDE(r, p, i)[::-1],
    ),
    "link cut between segments": ("reaching_h0", lambda marks, c_0, dh: jnp.zeros_like(c_0)),
    "sums 0.1 % small": (
        "of_parameters",
        lambda params, xs, sums: jax.tree.map(lambda d: 0.999 * d, of_parameters(params, xs, sums)),
    ),
}


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("fault", [None, *SEGMENT_FAULTS])
def test_fault_in_the_segments(monkeypatch, fault):
    def remade(recurrence, params, xs, h0):
        return bptt.run(recurrence, params, bptt.whole(params, xs, h0), remat=True)

    monkeypatch.setattr(segments, "_sizes", lambda inputs: (2, 2))  # one pair, one, and a rest
    if fault:
        monkeypatch.setattr(segments, *SEGMENT_FAULTS[fault])
    assert (worst_difference(remade) > 10 * RTOL) == (fault is not None)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("fault", WEIGHT_FAULTS)
def test_fault_in_one_gradient(fault):
    assert worst_difference(WEIGHT_FAULTS[fault]) > 10 * RTOL
