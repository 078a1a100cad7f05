"""Weights of other libraries: jrnn computes what those did when `record_peers.py` ran them."""

from pathlib import Path

import answers
import jax
import numpy as np
import pytest
from cases import assert_close
from mutations import mutated, planted

import jrnn
from jrnn import interop
from jrnn.interop import _weights

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


# --- planted faults ------------------------------------------------------------------------------

MODULES = {
    name: getattr(interop, f"_{name}") for name in ("torch", "haiku", "keras", "equinox", "onnx")
}
MODULES |= dict.fromkeys(("linen", "nnx"), interop._flax)
ONNX_LSTM, ONNX_GRU = (f"onnx {kind}, lengths, 2 directions" for kind in ("LSTM", "GRU"))
GRU = "GRUParams(w_ih, w_hh, b_h, b_hn)"
# The text that is replaced, by what, and networks whose outputs differ then.
FAULTS = {
    _weights.in_out: {
        "untransposed": (
            "w_hh.T, *",
            "jnp.concatenate(jnp.split(w_hh, G), 1), *",
            ("torch RNN", "torch GRU", "equinox LSTMCell"),
        ),
    },
    _weights.of_two_biases: {
        "one bias": ("b_x + b_s", "b_x", ("torch LSTM", ONNX_LSTM)),
        "b_hn outside": ("!= 3 * H", "> 0", ("torch GRU", "torch GRU, start None", "keras GRU")),
    },
    _weights.network: {
        "no b_hn": (GRU, GRU.replace("b_hn", "None"), ("torch GRU", "linen GRUCell", "keras GRU")),
        "b_hn outside": (
            GRU,
            "GRUParams(w_ih, w_hh, b_h.at[-len(b_hn) :].add(b_hn), None)",
            ("linen GRUCell",),
        ),
        "i f o g": (
            "LSTMParams(w_ih, w_hh",
            'LSTMParams(w_ih, reorder(w_hh, "ifgo", "ifog")',
            ("haiku LSTM", "nnx OptimizedLSTMCell"),
        ),
    },
    _weights.reorder: {
        "z r n": ("for gate in wanted", "for gate in order", ("keras GRU", ONNX_GRU))
    },
    interop.from_equinox: {
        "no b_hn": ('jnp.asarray(arrays["bias_n"])', "None", ("equinox GRUCell",)),
        "b_hn outside": (
            "network(*weights)._replace(b_hn=",
            "(lambda b: network(*weights[:2], weights[2].at[-len(b) :].add(b)))(",
            ("equinox GRUCell",),
        ),
    },
    interop.from_haiku: {
        "one bias": ("sum(biases[1:], biases[0])", "biases[0]", ("haiku VanillaRNN",)),
        "f + 1 forgotten": ("_forget(b, 1)", "b", ("haiku LSTM",)),
    },
    interop.from_torch: {
        "directions": (
            "(layer[0], layer[1] if",
            "(layer[1], layer[0] if",
            (PACKED.format("LSTM"),),
        ),
    },
    interop.from_onnx: {
        "directions": ("direction(0), direction(1)", "direction(1), direction(0)", (ONNX_GRU,)),
    },
}


@pytest.mark.usefixtures("uncompiled")
@planted(FAULTS)
def test_planted_faults_are_found(fault, monkeypatch):
    *fault, names = fault
    for name in names:
        question, answer = RUNS[name]
        wrong = mutated(*fault, user=MODULES[question.library.split(",")[0]])
        monkeypatch.setattr(answers, "interop", wrong)
        found = answers.by_jrnn(question._replace(dhs=None))
        assert answers.differences(found.hs, answer.hs)[""] > 0.02
