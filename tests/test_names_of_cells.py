"""What is given as a cell, and is none, is refused by name by every function that takes a cell."""

import re

import jax
import numpy as np
import pytest
from cases import B, H, I, O, T, parameters

import jrnn
from jrnn import diagnostics, testing

PARAMS = parameters(jrnn.init_leaky, I, H, alpha=0.2)
STACK = jrnn.StackParams((jrnn.LayerParams(PARAMS, None, None),))
NEXT = jrnn.ReadoutParams(np.ones((H, I)), None)
READOUT = jrnn.ReadoutParams(np.ones((H, O)), None)
XS, LABELS, IDS = np.ones((T, B, I)), np.zeros((T, B), np.int64), np.zeros((T, B), np.int64)
KEY = jax.random.key(0)
BY_CELL = {
    "init_cell": lambda cell: jrnn.init_cell(cell, KEY, I, H),
    "unroll": lambda cell: jrnn.unroll(cell, PARAMS, XS),
    "stack": lambda cell: jrnn.stack(STACK, XS, cell=(cell,)),
    "stack_step": lambda cell: jrnn.stack_step(STACK, None, XS[0], cell=(cell,)),
    "rnn_loss": lambda cell: jrnn.rnn_cross_entropy(PARAMS, READOUT, XS, LABELS, cell=cell),
    "generate": lambda cell: jrnn.generate(PARAMS, NEXT, IDS, 3, key=KEY, cell=cell),
    "check_against_scan": lambda cell: testing.check_against_scan(PARAMS, XS, cell=cell),
    "gates": lambda cell: diagnostics.gates(PARAMS, XS, cell=cell),
    "trajectory": lambda cell: diagnostics.trajectory(PARAMS, XS, cell=cell),
    "influence": lambda cell: diagnostics.influence(
        PARAMS, READOUT, XS[:, 0], LABELS[:, 0], cell=cell
    ),
    "gradient_flow": lambda cell: diagnostics.gradient_flow(PARAMS, READOUT, XS, LABELS, cell=cell),
    "fixed_points": lambda cell: diagnostics.fixed_points(
        PARAMS, XS[0, 0], np.ones((3, H)), cell=cell
    ),
    "lyapunov_exponents": lambda cell: diagnostics.lyapunov_exponents(PARAMS, XS[:, 0], cell=cell),
}
NO_CELL = {
    "a name": (
        "leaky",
        "cell: expected a jrnn.Cell; got 'leaky'. RNNParams, LSTMParams and GRUParams need none; "
        '(29) is jrnn.cells.leaky.leaky("tanh", "input").',
    ),
    "parameters": (
        PARAMS,
        "cell: expected a jrnn.Cell; got LeakyParams. These are parameters; "
        "unroll(cell, params, xs) has the cell first.",
    ),
    "a class": (jrnn.Cell, "cell: expected a jrnn.Cell; got Cell. jrnn.Cell(...) makes one"),
    "a function": (
        jrnn.leaky_cell,
        "cell: expected a jrnn.Cell; got leaky_cell. RNNParams, LSTMParams and GRUParams need "
        'none; (29) is jrnn.cells.leaky.leaky("tanh", "input").',
    ),
    "a module": (
        jrnn.cells.leaky,
        "cell: expected a jrnn.Cell; got jrnn.cells.leaky. RNNParams, LSTMParams and",
    ),
}


@pytest.mark.parametrize("function", BY_CELL)
@pytest.mark.parametrize("given", NO_CELL)
def test_what_is_no_cell_is_refused(function, given):
    cell, message = NO_CELL[given]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        BY_CELL[function](cell)
    assert message in str(error.value)


def test_the_cell_after_the_parameters_is_refused():
    rate = jrnn.cells.leaky.leaky("relu", "input", learned=False)
    with pytest.raises(ValueError, match=r"got LeakyParams\. These are parameters; unroll\(cell"):
        jrnn.unroll(PARAMS, rate, XS)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_the_cell_that_a_leaky_network_is_told_to_give_is_code_that_works(activation):
    with pytest.raises(ValueError, match=r"cell: expected jrnn\.cells.* for \(28\)") as error:
        jrnn.stack(STACK, XS, activation=activation)
    code = re.search(r"expected (.*) for \(28\)", str(error.value)).group(1)
    jrnn.stack(STACK, XS, cell=eval(code, {"jrnn": jrnn}))
