"""A batch of no sequences: results of size 0, and gradients of what sequences share are zeros."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from cases import H, I, O, T, parameters
from cover import in_tiers

import jrnn
from jrnn.loss import blockwise


def total(tree):
    return sum(jnp.sum(x.astype(jnp.float64) ** 2) for x in jax.tree.leaves(tree))


def example(ids):
    """Parameters of ones, and inputs [T, 0], labels [T, 0]."""
    params = jrnn.RNNParams(np.ones((I, H)), np.ones((H, H)), np.ones(H))
    readout = jrnn.ReadoutParams(np.ones((H, O)), np.ones(O))
    stack = parameters(jrnn.init_stack, I, (H, H), bidirectional=True, layer_norm=True)
    xs = np.zeros((T, 0), int) if ids else np.zeros((T, 0, I))
    return (params, readout, stack, np.ones(H)), xs, np.zeros((T, 0), int)


def costs(xs, labels, options):
    """Of every function with every option, each of `(params, readout, stack, state [H])`."""
    lengths, resets, weights = np.zeros(0, int), np.zeros((T, 0), bool), np.zeros((T, 0))
    marks, no_states = (lengths, resets), np.zeros((T, 0, H))
    narrow = {**options, "compute_dtype": jnp.float32}
    loss = jrnn.readout_cross_entropy
    no_sequences, no_batches = xs.swapaxes(0, 1), np.zeros((2, *xs.shape), xs.dtype)  # to be mapped

    def rnn(at, xs, **more):
        return jrnn.rnn(at[0], xs, **options, **more)

    def states(at):
        return jrnn.rnn(at[0], xs, at[3], *marks, at[3], at[3], reverse=True, **narrow)

    def losses(at):
        each = jrnn.softmax_cross_entropy(jrnn.readout(at[1], no_states), labels, weights)
        mapped = jax.vmap(partial(loss, at[1]))(no_states.swapaxes(0, 1), labels.T)
        return each, mapped, loss(at[1], no_states, labels), loss(at[1], no_states[0], labels[0])

    def gradients(at):
        return jax.vmap(jax.grad(lambda params, x: total(jrnn.rnn(params, x))), (None, 0))(
            at[0], no_sequences
        )

    return {
        "plain": lambda at: rnn(at, xs),
        "states": states,
        "stack": lambda at: jrnn.stack(at[2], xs, None, *marks, **narrow),
        "objective": lambda at: jrnn.rnn_cross_entropy(
            *at[:2], xs, labels, at[3], *marks, at[3], weights=weights, **narrow
        ),
        "losses": losses,
        "no sequences mapped": lambda at: jax.vmap(lambda x: rnn(at, x))(no_sequences),
        "empty batches mapped": lambda at: jax.vmap(lambda x: rnn(at, x))(no_batches),
        "the gradient of each": gradients,
        "the mean": lambda at: jrnn.mean_over_time(rnn(at, xs)[1], lengths),
    }


@in_tiers(lambda _: [{"ids": True, "remat": False}], ids=[False, True], remat=[False, True])
def test_gradients_are_zeros(monkeypatch, ids, remat):
    monkeypatch.setattr(blockwise, "CLASSES", 3)
    at, xs, labels = example(ids)

    @jax.jit
    def run(at):
        return {
            name: (f(at), jax.grad(lambda at, f=f: total(f(at)))(at))
            for name, f in costs(xs, labels, {"remat": remat}).items()
        }

    for name, (outputs, gradients) in run(at).items():
        assert all(not np.asarray(x).any() for x in jax.tree.leaves(outputs) if x.size), name
        assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, at), name
        assert not any(np.asarray(d).any() for d in jax.tree.leaves(gradients)), name
