"""The logits of a classifier are those that torch computed from the same weights, packed."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn import interop

pytestmark = pytest.mark.usefixtures("float32")
RECORD = dict(np.load(Path(__file__).parents[1] / "recorded/classifier.npz"))


def weights(module):
    """The state dict of a module of the model."""
    start = f"{module}."
    return {name.removeprefix(start): x for name, x in RECORD.items() if name.startswith(start)}


def logits(stack, xs, lengths=RECORD["lengths"]):
    linear = weights("linear")
    readout = jrnn.ReadoutParams(jnp.asarray(linear["weight"].T), jnp.asarray(linear["bias"]))
    states, _ = jrnn.stack(stack, xs, None, lengths)
    forward, backward = states[-1]
    return jrnn.readout(readout, jnp.concatenate([forward.h, backward.h], -1))


def test_the_logits_are_those_of_torch():
    stack = interop.from_torch(weights("lstm"), stack=True)
    table, ids = weights("embedding")["weight"], RECORD["ids"]
    np.testing.assert_allclose(logits(stack, table[ids]), RECORD["logits"], atol=1e-6)
    unpacked = logits(stack, table[ids], lengths=None)
    assert np.abs(unpacked - RECORD["logits"]).max() > 1e-3


def test_an_embedding_is_a_part_of_w_ih():
    stack = interop.from_torch(weights("lstm"), stack=True)
    table = weights("embedding")["weight"]
    first = stack.layers[0]
    first = first._replace(
        forward=first.forward._replace(w_ih=table @ first.forward.w_ih),
        backward=first.backward._replace(w_ih=table @ first.backward.w_ih),
    )
    stack = stack._replace(layers=(first, *stack.layers[1:]))
    np.testing.assert_allclose(logits(stack, RECORD["ids"]), RECORD["logits"], atol=1e-6)
