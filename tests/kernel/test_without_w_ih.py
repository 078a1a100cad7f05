"""Without w_ih the inputs take the place of x_t w_ih, as projections that the user has computed."""

import jax
import jax.numpy as jnp
import numpy as np
from cases import LAW_RTOL, B, H, O, T, assert_close, make_case, parameters
from refusals import refused

import jrnn
from jrnn import derivation


def test_parameters_without():
    params = jrnn.init_rnn(jax.random.key(0), None, H)
    assert params.w_ih is None
    assert params.w_hh.shape == (H, H)
    whole = jrnn.init_rnn(jax.random.key(0), 3, H)
    assert_close(params.w_hh, whole.w_hh, 0.0)
    assert "w_ih" not in jrnn.summary(params)


def test_the_gradient_of_the_inputs_is_delta():
    case = make_case(h0="None")
    added = case.xs @ case.params.w_ih
    params = case.params._replace(w_ih=None)
    run = lambda xs, b: jrnn.rnn(params._replace(b_h=b), xs)
    (_, hs), vjp = jax.vjp(run, added, params.b_h)
    delta, db = vjp((jnp.asarray(case.dh_last), jnp.asarray(case.dhs)))
    assert_close(delta.sum((0, 1)), db, LAW_RTOL)
    last = (1 - hs[-1] ** 2) * (case.dh_last + case.dhs[-1])
    assert_close(delta[-1], last, LAW_RTOL)


def test_the_cell_and_the_scan():
    case = make_case()
    params, added = case.params._replace(w_ih=None), case.xs @ case.params.w_ih
    found = jrnn.rnn_cell(params, case.h0, added[0])
    assert_close(found, jrnn.rnn_cell(case.params, case.h0, case.xs[0]), LAW_RTOL)
    scan = jrnn.derivation.rnn_scan(params, added, case.h0)
    assert_close(scan, jrnn.rnn(params, added, case.h0), LAW_RTOL)
    jrnn.testing.check_against_scan(params, added, case.h0)


def test_the_first_layer_of_a_stack():
    case = make_case()
    first = jrnn.LayerParams(case.params, None, None)
    above = jrnn.LayerParams(parameters(jrnn.init_rnn, H, 6), None, None)
    bare = first._replace(forward=case.params._replace(w_ih=None))
    found = jrnn.stack(jrnn.StackParams((bare, above)), case.xs @ case.params.w_ih)
    assert_close(found, jrnn.stack(jrnn.StackParams((first, above)), case.xs), LAW_RTOL)


# --- what is refused -----------------------------------------------------------------------------

BARE = parameters(jrnn.init_rnn, None, H)
LAYER = jrnn.LayerParams(make_case().params, None, None)
REFUSED = {
    "ids": (
        lambda: jrnn.rnn(BARE, np.zeros((T, B), np.int32)),
        "xs: expected floats to add to a_t, since w_ih is None; got int32",
    ),
    "an id": (
        lambda: jrnn.rnn_cell(BARE, np.zeros((B, H)), np.zeros(B, np.int32)),
        "x_t: expected floats to add to a_t, since w_ih is None; got int32",
    ),
    "inputs of another width": (
        lambda: jrnn.rnn(BARE, np.zeros((T, B, H + 1))),
        "got float64[7, 3, 5]. Without w_ih they are added to a_t, which has 4 numbers.",
    ),
    "above the first layer": (
        lambda: jrnn.stack(
            jrnn.StackParams((LAYER, jrnn.LayerParams(BARE, None, None))), make_case().xs
        ),
        "w_ih",
    ),
}
READOUT = parameters(jrnn.init_readout, H, O)
DERIVATION = (BARE, READOUT, np.zeros((T, H)), np.zeros(T, int))
NEED_THEM = {
    "generate": lambda: jrnn.sampling.generate(
        BARE, READOUT, jax.random.key(0), np.zeros(1, int), 3
    ),
    "trajectory": lambda: derivation.trajectory(*DERIVATION),
    "recursion": lambda: derivation.gradients_recursion(*DERIVATION),
    "sensitivity": lambda: derivation.gradients_sensitivity(*DERIVATION),
    "sensitivity, init": lambda: derivation.sensitivity_init(BARE, READOUT),
}
NEEDED = "params: expected RNNParams with w_ih; got w_ih"
test_refused = refused(REFUSED | {name: (call, NEEDED) for name, call in NEED_THEM.items()})
