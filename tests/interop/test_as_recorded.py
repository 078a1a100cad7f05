"""Weights of other libraries: jrnn computes what those did when `record_peers.py` ran them."""

from pathlib import Path

import answers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close

import jrnn

RECORD = Path(__file__).parents[1] / "recorded/peers.npz"
RUNS, ABOUT = answers.load(RECORD)
PACKED = "torch {}, packed, 2 layers, 2 directions"


@pytest.mark.parametrize("name", RUNS)
def test_as_recorded(name):
    question, answer = RUNS[name]
    assert_close(answers.by_jrnn(question), answer, answers.TOLERANCE)


def test_the_record():
    assert set(RUNS) >= {PACKED.format(kind) for kind in ("RNN", "RNN, relu", "LSTM", "GRU")}
    assert {question.library for question, _ in RUNS.values()} == set(answers.EXPORTS)
    for name, (question, answer) in RUNS.items():
        leaves = jax.tree.leaves((question.weights, question.xs, question.start, answer))
        assert all(x.dtype == np.float32 and x.any() for x in leaves)
        if question.library != "onnx":
            weights = jax.tree.map(np.shape, answer.gradients["weights"])
            assert weights == jax.tree.map(np.shape, question.weights)
            assert answer.gradients["start"].keys() == question.start.keys()
        assert answer.last.keys() == ({"h", "c"} if "LSTM" in name else {"h"})
        if question.lengths is not None:
            T = len(question.xs)
            assert {1, T} < set(question.lengths.tolist())
            for b, n in enumerate(question.lengths):
                assert not answer.hs[n:, b].any()
    assert not RUNS["torch LSTM, start None"][0].start
    assert {"command", "sizes", "versions"} == ABOUT.keys()
    assert RECORD.stat().st_size < 100_000


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_two_layers_in_two_directions_are_a_stack(kind):
    question, answer = RUNS[PACKED.format(kind)]
    stack = jrnn.interop.from_torch(question.weights, stack=True)
    last, hs = jrnn.stack(stack, question.xs, of_a_stack(question.start), question.lengths)
    assert_close((last, hs), (of_a_stack(answer.last), answer.hs), answers.TOLERANCE)


def of_a_stack(states):
    """The states of two layers in two directions, as `jrnn.stack` has them."""
    h, c = states["h"], states.get("c")
    if c is None:
        return tuple(np.concatenate(h[n : n + 2], -1) for n in (0, 2))
    each = [jrnn.LSTMState(*state) for state in zip(h, c, strict=True)]
    return tuple(each[:2]), tuple(each[2:])


# --- faults --------------------------------------------------------------------------------------


def changed(change):
    """A fault of each network's parameters."""
    return lambda layers: [tuple(p and change(p) for p in layer) for layer in layers]


def blocks(name, order):
    """The blocks of a parameter in another order."""

    def change(params):
        parts = jnp.split(getattr(params, name), len(order), -1)
        return params._replace(**{name: jnp.concatenate([parts[k] for k in order], -1)})

    return changed(change)


def untransposed(params):
    H = len(params.w_hh)
    gates = jnp.split(params.w_hh, params.w_hh.shape[1] // H, 1)
    return params._replace(w_hh=jnp.concatenate([gate.T for gate in gates], 1))


def forget_by_one(params):
    H = len(params.w_hh)
    return params._replace(b_h=params.b_h.at[H : 2 * H].add(-1))


def n_outside_of_the_reset_gate(params):
    b_hn = jnp.zeros_like(params.b_hn)
    return params._replace(b_h=params.b_h.at[-len(b_hn) :].add(params.b_hn), b_hn=b_hn)


def swapped(layers):
    return [(backward, forward) for forward, backward in layers]


FAULTS = {
    "untransposed": (changed(untransposed), ("torch RNN", "torch GRU", "equinox LSTMCell")),
    "one bias": (
        changed(lambda params: params._replace(b_h=params.b_h / 2)),
        ("haiku VanillaRNN", "torch LSTM", "onnx LSTM, lengths, 2 directions"),
    ),
    "no b_hn": (
        changed(lambda params: params._replace(b_hn=None)),
        ("torch GRU", "linen GRUCell", "keras GRU", "equinox GRUCell"),
    ),
    "b_hn outside": (
        changed(n_outside_of_the_reset_gate),
        ("torch GRU", "torch GRU, start None", "linen GRUCell", "keras GRU", "equinox GRUCell"),
    ),
    "z r n": (blocks("w_ih", (1, 0, 2)), ("keras GRU", "onnx GRU, lengths, 2 directions")),
    "i f o g": (blocks("w_hh", (0, 1, 3, 2)), ("haiku LSTM", "nnx OptimizedLSTMCell")),
    "f + 1 forgotten": (changed(forget_by_one), ("haiku LSTM",)),
    "directions": (swapped, (PACKED.format("LSTM"), "onnx GRU, lengths, 2 directions")),
}


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("fault", "name"), [(fault, name) for fault, (_, names) in FAULTS.items() for name in names]
)
def test_planted_faults_are_found(fault, name, monkeypatch):
    question, answer = RUNS[name]
    library = question.library.split(",")[0]
    right, plant = answers.IMPORTS[library], FAULTS[fault][0]
    monkeypatch.setitem(answers.IMPORTS, library, lambda weights: plant(right(weights)))
    found = answers.by_jrnn(question._replace(dhs=None))
    assert answers.differences(found.hs, answer.hs)[""] > 0.02
