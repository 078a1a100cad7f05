"""The gates that a program keeps for its backward pass are those that another computes again."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close
from cells import cell_of
from cover import in_tiers

from jrnn import kernel
from jrnn.kernel import step, transforms
from jrnn.kernel.types import Cotangents, Residuals
from jrnn.kernel.weight_gradients import no_sums


@in_tiers(
    lambda _: [{"name": "lstm", "B": 3}, {"name": "mgu", "B": 1}],
    name=["lstm", "gru", "mgu", "leaky"],
    B=[1, 3],
)
@pytest.mark.usefixtures("without_native")
def test_gates_that_are_kept_are_those_that_are_computed_again(name, B):
    """With lengths, resets and NaN in the padding; mgu has no adjoint and keeps its blocks."""
    cell, rng = cell_of(name), np.random.default_rng(0)
    T, I, H, G = 6, 3, 5, step.number_of_blocks(cell)
    X, Y = len(cell.x_blocks), len(cell.h_blocks)
    shapes = (I, X * H), (H, Y * H), (G * H,)
    weights = kernel.Weights(*(jnp.asarray(rng.normal(size=shape)) for shape in shapes))
    lengths, resets = np.arange(T - B, T) + 1, rng.random((T, B)) < 0.3
    xs = np.where(
        np.arange(T)[:, None, None] < lengths[:, None], rng.normal(size=(T, B, I)), np.nan
    )
    unit = {name: jnp.full(H, 0.3) for name in cell.unit}
    spec = kernel.Spec(cell)
    inputs, *_ = kernel.in_reading_order(
        spec, weights, xs, lengths=lengths, resets=resets, unit=unit
    )
    rest = inputs.start, jnp.asarray(rng.normal(size=(T, B, H)))

    @partial(jax.jit, static_argnums=0)
    def gradient(keep):
        keeping = spec._replace(keep_gates=keep)
        _, hs, kept = transforms.forward(keeping, weights, inputs)
        residuals = Residuals(weights, inputs, hs, kept)
        sums = no_sums(weights)
        return kept, transforms.backward(keeping, residuals, Cotangents(*rest), sums)

    (few, computed), (many, kept) = gradient(False), gradient(True)
    assert len(many) - len(few) == len(step.read_of_blocks(cell, (xs,) * G))
    assert_close(kept, computed, rtol=1e-12)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept._replace(dxs=None)))
