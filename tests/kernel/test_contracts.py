"""chex states the contract between the parts: tracing names a wrong shape or dtype."""

import re
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn import kernel
from jrnn.cells import StepCotangents, UncheckedCell
from jrnn.kernel.reference import Reference
from jrnn.kernel.types import BackwardCarry
from jrnn.loss import blockwise, softmax

NAMED = re.compile("shape|type|differ|dimension|axis")
T, B, I, H = 5, 3, 2, 4
WEIGHTS = kernel.Weights(np.ones((I, H)), np.ones((H, H)), np.ones(H))
XS = np.ones((T, B, I))
TANH = UncheckedCell("tanh", lambda blocks, before, unit, data: (jnp.tanh(blocks[0]),))


def shorter(x):
    return x[..., :-1]


def narrower(x):
    return x.astype(jnp.float32)


WRONG = pytest.mark.parametrize("wrong", [shorter, narrower])


def derivative(cell=TANH, **spec):
    spec = kernel.Spec(cell, **spec)
    return jax.grad(lambda weights: kernel.unroll(spec, weights, XS)[1].sum())


def gradient(**spec):
    return jax.make_jaxpr(derivative(**spec))(WEIGHTS)


def lowered(**spec):
    """Backends are chosen when a program is lowered."""
    return jax.jit(derivative(**spec)).lower(WEIGHTS)


def test_what_fits_is_traced():
    gradient()
    lowered()


@WRONG
@pytest.mark.parametrize("name", ["w_hh", "w_ih", "b"])
def test_the_weights(name, wrong):
    weights = WEIGHTS._replace(**{name: wrong(getattr(WEIGHTS, name))})
    inputs, *_ = kernel.in_reading_order(kernel.Spec(TANH), WEIGHTS, XS)
    with pytest.raises(AssertionError, match=NAMED):
        kernel.transforms.unroll(kernel.Spec(TANH), weights, inputs)


@WRONG
def test_the_states_and_flags_of_a_call(wrong):
    spec = kernel.Spec(TANH)
    inputs, *_ = kernel.in_reading_order(spec, WEIGHTS, XS, lengths=np.array([1, 2, 3]))
    start = inputs._replace(start=(wrong(inputs.start[0]),))
    flags = inputs._replace(steps=inputs.steps._replace(valid=wrong(inputs.steps.valid)))
    for given in (start, flags):
        with pytest.raises(AssertionError, match=NAMED):
            kernel.transforms.unroll(spec, WEIGHTS, given)


@WRONG
def test_the_step_of_a_cell(wrong):
    cell = UncheckedCell("wrong", lambda a, before, unit, data: (wrong(jnp.tanh(a[0])),))
    with pytest.raises(AssertionError, match=NAMED):
        gradient(cell=cell)


@WRONG
@pytest.mark.parametrize("part", ["blocks", "before", "unit"])
def test_the_adjoint_of_a_cell(part, wrong):
    def adjoint(d_after, blocks, before, unit, data, after):
        found = StepCotangents((d_after[0],), (d_after[0],), {})
        spoiled = {"k": wrong(d_after[0])} if part == "unit" else (wrong(d_after[0]),)
        return found._replace(**{part: spoiled})

    cell = UncheckedCell("wrong", TANH.step, adjoint)
    with pytest.raises(AssertionError, match=NAMED):
        gradient(cell=cell)


@dataclass(frozen=True)
class Wrong(Reference):
    """A backend with one wrong part."""

    part: str
    change: object

    def forward(self, spec, weights, inputs):
        found = super().forward(spec, weights, inputs)
        if self.part == "last":
            return found._replace(last=(self.change(found.last[0]),))
        return found._replace(hs=self.change(found.hs)) if self.part == "hs" else found

    def backward(self, spec, residuals, cotangents, sums):
        found = super().backward(spec, residuals, cotangents, sums)
        if self.part == "dxs":
            return found._replace(dxs=self.change(found.dxs))
        if self.part == "w_hh":
            return found._replace(sums=found.sums._replace(w_hh=self.change(found.sums.w_hh)))
        if self.part == "start":
            states = (self.change(found.carry.states[0]),)
            return found._replace(carry=BackwardCarry(states, found.carry.constants))
        return found


@WRONG
@pytest.mark.parametrize("part", ["last", "hs", "dxs", "w_hh", "start"])
def test_the_passes_of_a_backend(part, wrong):
    with pytest.raises(AssertionError, match=NAMED):
        lowered(backend=Wrong(part, wrong))


@WRONG
def test_the_readout_and_the_losses(wrong):
    params, hs = jrnn.ReadoutParams(jnp.ones((H, 6)), jnp.ones(6)), jnp.ones((T, H))
    labels = jnp.ones((T, 6))
    calls = [
        lambda: softmax.assert_states_fit(params, wrong(hs)),
        lambda: softmax.assert_states_fit(params._replace(b_o=wrong(params.b_o)), hs),
        lambda: blockwise.cost(None, softmax.cross_entropy, params, wrong(hs), labels, None),
    ]
    for call in calls:
        with pytest.raises(AssertionError, match=NAMED):
            call()
    for spoiled in (labels[..., :-1], labels > 0):
        with pytest.raises(AssertionError, match=NAMED):
            softmax.cross_entropy(jnp.ones((T, 6)), spoiled)


@pytest.mark.slow
def test_the_asserts_leave_nothing_in_the_program():
    with_asserts = str(gradient())
    jax.clear_caches()
    chex.disable_asserts()
    try:
        assert str(gradient()) == with_asserts
    finally:
        chex.enable_asserts()
