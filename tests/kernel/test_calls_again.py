"""What a call costs that was made before: no trace and no compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import make_case, parameters
from compilations import assert_second_calls_compile_nothing

import jrnn

pytestmark = pytest.mark.usefixtures("without_native")


def cost(params, xs, h0=None):
    h_last, hs = jrnn.rnn(params, xs, h0)
    return jnp.sum(h_last) + jnp.sum(hs**2)


def test_an_eager_call_compiles_once():
    case = make_case(T=11, B=2, I=3, H=9)
    logits, labels = np.ones((11, 2, 5)), np.ones((11, 2), int)
    readout = parameters(jrnn.init_readout, 9, 5)
    stack = parameters(jrnn.init_stack, 3, (9, 8), bidirectional=True)
    lengths, key = np.array([11, 4]), jax.random.key(1)
    calls = {
        "rnn": lambda: jrnn.rnn(case.params, case.xs, case.h0),
        "rnn_cell": lambda: jrnn.rnn_cell(case.params, case.h0, case.xs[0]),
        "readout": lambda: jrnn.readout(readout, case.dhs),
        "stack": lambda: jrnn.stack(stack, case.xs, None, lengths, key=key, dropout=0.5),
        "mean": lambda: jrnn.mean_over_time(case.dhs, lengths),
        "dropout mask": lambda: jrnn.dropout_mask(key, 0.5, (11, 2)),
        "loss": lambda: jrnn.softmax_cross_entropy(logits, labels),
        "fused loss": lambda: jrnn.readout_cross_entropy(readout, case.dhs, labels),
        "fused grad": lambda: jax.grad(jrnn.readout_cross_entropy)(readout, case.dhs, labels),
        "grad": lambda: jax.grad(cost)(case.params, case.xs, case.h0),
        "loss grad": lambda: jax.grad(lambda o: jrnn.softmax_cross_entropy(o, labels).sum())(
            logits
        ),
    }
    assert_second_calls_compile_nothing(calls)


def test_one_trace_per_shape():
    traces = []

    def identity(a):
        traces.append(a.shape)
        return a

    case = make_case(T=9)
    make = lambda: jrnn.Activation(identity, jnp.ones_like)
    jrnn.rnn(case.params, case.xs, activation=make())
    phi = make()  # equal to the one before, but its making calls the function, too
    first = len(traces)
    for _ in range(3):
        jrnn.rnn(case.params, case.xs, activation=phi)
    assert len(traces) == first
    jrnn.rnn(case.params, case.xs[:, 1:], activation=phi)
    assert len(traces) > first
