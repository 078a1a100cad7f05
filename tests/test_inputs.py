"""Integers as inputs: token ids, or features; and the shapes that cannot tell."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, make_case, parameters

import jrnn
from jrnn import derivation, diagnostics, native
from jrnn.testing import check_against_scan

T, B, I, H, O = 3, 4, 4, 2, 5  # B = I: ids [T, B] look like features [T, I]
CASE = make_case(T=T, B=B, I=I, H=H)
P = CASE.params
IDS = np.random.default_rng(0).integers(0, 2, (T, B)).astype(np.int8)  # spikes, as well
ONE_HOT = np.eye(I)[IDS]
READOUT = parameters(jrnn.init_readout, H, O)
LABELS = np.arange(T * B).reshape(T, B) % O
STACK = parameters(jrnn.init_stack, I, (H, H), bidirectional=True)

objective = partial(jrnn.rnn_cross_entropy, P, READOUT)
flow = partial(diagnostics.gradient_flow, P, READOUT)
trajectory = partial(derivation.trajectory, P, READOUT)
LEAKY = parameters(jrnn.init_leaky, I, H, alpha=0.5)
WITH_DT = jrnn.cells.leaky.leaky("tanh", "state", learned=False, unequal=True)

# Calls in which nothing but xs has an axis of a batch, or might have one.
OPEN = {
    "rnn": partial(jrnn.rnn, P),
    "a state for all": partial(jrnn.rnn, P, h0=np.zeros(H)),
    "a length for all": partial(jrnn.rnn, P, lengths=T),
    "resets for all": partial(jrnn.rnn, P, resets=np.ones(T, bool), reset_state=np.zeros(H)),
    "a mask for all": partial(jrnn.rnn, P, recurrent_mask=np.ones(H)),
    "stack": partial(jrnn.stack, STACK),
    "a stack's state for all": lambda xs, **inputs: jrnn.stack(
        STACK, xs, (None, np.zeros(2 * H)), **inputs
    ),
    "rnn_scan": partial(derivation.rnn_scan, P),
    "one step": lambda xs, **inputs: jrnn.rnn_cell(P, np.zeros(H), xs[0], **inputs),
}
# Calls in which something else has.
OF_A_BATCH = {
    "h0": partial(jrnn.rnn, P, h0=np.ones((B, H))),
    "lengths": partial(jrnn.rnn, P, lengths=np.full(B, T)),
    "resets": partial(jrnn.rnn, P, resets=np.ones((T, B), bool)),
    "reset_state": partial(jrnn.rnn, P, reset_state=np.zeros((B, H))),
    "recurrent_mask": partial(jrnn.rnn, P, recurrent_mask=np.ones((B, H))),
    "a state of a stack": partial(jrnn.stack, STACK, h0=(None, np.zeros((B, 2 * H)))),
    "a reset state of a stack": partial(
        jrnn.stack, STACK, reset_state=(np.zeros((B, 2 * H)), None)
    ),
    "labels": partial(objective, labels=LABELS),
    "labels as shares": partial(objective, labels=np.ones((T, B, O))),
    "rnn_scan": partial(derivation.rnn_scan, P, h0=np.zeros((B, H))),
    "trajectory": partial(trajectory, labels=LABELS),
    "gradient_flow": partial(flow, labels=LABELS),
    "dt": partial(jrnn.leaky, LEAKY, dt=np.ones((T, B))),
    "data": partial(jrnn.unroll, WITH_DT, LEAKY, data={"dt": np.ones((T, B, H))}),
    "one step": lambda xs: jrnn.rnn_cell(P, np.zeros((B, H)), xs[0]),
    "dt of one step": lambda xs: jrnn.leaky_cell(LEAKY, np.zeros(H), xs[0], np.ones(B)),
}
# Calls that one sequence alone fits.
OF_ONE = {
    "labels": partial(objective, labels=LABELS[:, 0]),
    "labels as shares": partial(objective, labels=np.ones((T, O))),
    "trajectory": partial(trajectory, labels=LABELS[:, 0]),
    "gradient_flow": partial(flow, labels=LABELS[:, 0]),
}


def shapes(f, xs, **inputs):
    """Of what it returns: those of a batch, or of one sequence."""
    return jax.eval_shape(partial(f, xs, **inputs))


@pytest.mark.parametrize("name", OPEN)
def test_where_shapes_cannot_tell_the_caller_says(name):
    f = OPEN[name]
    with pytest.raises(ValueError, match=r"expected integers whose shape says whether") as refusal:
        f(IDS)
    assert 'Give inputs="ids", or inputs="features"; or cast features by .astype("float64").' in (
        str(refusal.value)
    )
    assert shapes(f, IDS, inputs="ids") == shapes(f, ONE_HOT)
    of_features = shapes(f, IDS.astype(float))
    assert of_features != shapes(f, ONE_HOT)
    assert shapes(f, IDS, inputs="features") == of_features
    assert shapes(f, IDS.astype(bool), inputs="features") == of_features


def test_the_refusal_shows_both_readings():
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        jrnn.rnn(P, IDS)
    assert str(refusal.value) == (
        "xs: expected integers whose shape says whether they are token ids or features; "
        "got int8[3, 4]: ids [T, B] of 4 sequences, or features [T, I] of one. "
        'Give inputs="ids", or inputs="features"; or cast features by .astype("float64").'
    )
    with pytest.raises(ValueError, match=r"x_t: .* ids \[B\] of 4 .* features \[I\] of one\. Give"):
        jrnn.rnn_cell(P, np.zeros(H), IDS[0])


@pytest.mark.parametrize("name", OF_A_BATCH)
def test_another_argument_of_a_batch_says_that_they_are_ids(name):
    assert shapes(OF_A_BATCH[name], IDS) == shapes(OF_A_BATCH[name], ONE_HOT)


@pytest.mark.parametrize("name", OF_ONE)
def test_integers_that_only_features_fit_are_asked_about(name):
    """They are not read as features either, until somebody says so."""
    with pytest.raises(ValueError, match=r'inputs="features"'):
        OF_ONE[name](IDS)
    of_features = shapes(OF_ONE[name], IDS.astype(float))
    assert shapes(OF_ONE[name], IDS, inputs="features") == of_features


def test_the_values_are_those_of_what_is_read():
    assert_close(jrnn.rnn(P, IDS, inputs="ids"), jrnn.rnn(P, ONE_HOT))
    assert_close(jrnn.rnn(P, IDS, CASE.h0), jrnn.rnn(P, ONE_HOT, CASE.h0))
    assert_close(jrnn.rnn(P, IDS, inputs="features"), jrnn.rnn(P, IDS.astype(float)))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, bool])
def test_features_of_any_dtype(dtype):
    pixels = np.arange(T * B * I).reshape(T, B, I).astype(dtype)
    assert_close(
        jrnn.rnn(P, pixels, CASE.h0, inputs="features"), jrnn.rnn(P, pixels.astype(float), CASE.h0)
    )
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), P)
    _, hs = shapes(partial(jrnn.rnn, narrow), pixels, inputs="features")
    assert hs.dtype == jnp.bfloat16
    assert_close(
        jrnn.rnn_cell(P, CASE.h0, pixels[0], inputs="features"),
        jrnn.rnn_cell(P, CASE.h0, pixels[0].astype(float)),
    )


def test_features_have_a_gradient_if_they_are_floats():
    cost = lambda xs: jrnn.rnn(P, xs, inputs="features")[1].sum()
    assert jax.grad(cost, allow_int=True)(IDS).dtype == jax.dtypes.float0
    assert_close(
        jax.grad(cost)(IDS.astype(float)),
        jax.grad(lambda xs: jrnn.rnn(P, xs)[1].sum())(IDS.astype(float)),
    )


def test_mapped_integers():
    """`vmap` takes an axis away: of spikes [N, T, I] it leaves [T, I], of ids [N, T] only [T]."""
    spikes = np.stack([IDS, 1 - IDS])
    with pytest.raises(ValueError, match=r"got int8\[3, 4\]: ids \[T, B\]"):
        jax.vmap(jrnn.rnn, (None, 0))(P, spikes)
    read = jax.vmap(partial(jrnn.rnn, inputs="features"), (None, 0))(P, spikes)
    assert_close(read, jax.vmap(jrnn.rnn, (None, 0))(P, spikes.astype(float)))
    assert_close(jax.vmap(jrnn.rnn, (None, 1), (0, 1))(P, IDS), jrnn.rnn(P, ONE_HOT))


def test_traced_integers():
    with pytest.raises(ValueError, match=r"got int8\[3, 4\]: ids \[T, B\]"):
        jax.eval_shape(jrnn.rnn, P, IDS)
    assert jax.eval_shape(partial(jrnn.rnn, inputs="ids"), P, IDS)[0].shape == (B, H)
    assert jax.eval_shape(partial(jrnn.rnn, inputs="features"), P, IDS)[0].shape == (H,)


@pytest.mark.parametrize(
    ("params", "inputs"),
    [(P, "ids"), pytest.param(STACK, "features", marks=pytest.mark.thorough)],
)
def test_the_check_against_the_scan_reads_them_alike(params, inputs):
    with pytest.raises(ValueError, match="integers whose shape says whether"):
        check_against_scan(params, IDS)
    found = check_against_scan(params, IDS, inputs=inputs)
    assert ("gradient.xs" in found) == (inputs == "features")


OUTSIDE = jnp.asarray([[1, 2**32 + 1], [0, -(2**32)]])  # in 32 bits rows 1 and 0


@pytest.mark.parametrize("turned_on", [True, False])
def test_ids_of_64_bits_out_of_range_are_no_silent_neighbours(turned_on):
    @jax.jit
    def states_and_gradient(ids):
        hs, vjp = jax.vjp(lambda params: jrnn.rnn(params, ids)[1], P)
        return hs, vjp(jnp.ones_like(hs))[0]

    with native.turned(turned_on):
        hs, d = states_and_gradient(OUTSIDE)
    assert np.isnan(hs).all((0, 2)).tolist() == [False, True]
    assert np.isfinite(hs[:, 0]).all()
    assert np.isfinite(d.w_ih).all()  # the gradients of what is outside are in no row


def test_ids_of_64_bits_out_of_range_in_a_step_and_in_a_prompt():
    h = jax.jit(jrnn.rnn_cell)(P, np.zeros((2, H)), OUTSIDE[0])
    readout = parameters(jrnn.init_readout, H, I)
    _, tokens = jax.jit(lambda ids: jrnn.generate(P, readout, ids, 2, temperature=0))(OUTSIDE)
    assert np.isnan(h).all(1).tolist() == [False, True]
    assert (np.asarray(tokens) < 0).all(0).tolist() == [False, True]
