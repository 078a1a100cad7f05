"""Networks without w_ih: what works with them, and what refuses them by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import assert_close, parameters

import jrnn
from jrnn import derivation, diagnostics, interop, model_file
from jrnn.training import init_train_state, make_train_step

T, B, H, O = 6, 3, 4, 5
PARAMS = parameters(jrnn.init_rnn, None, H)
READOUT = parameters(jrnn.init_readout, H, O)
XS = np.random.default_rng(2).normal(size=(T, B, H))
LABELS = np.zeros(T, int)
ONE = XS[:, 0]


def test_a_file_keeps_that_there_are_none(tmp_path):
    assert PARAMS.w_ih is None
    model_file.save_model(tmp_path / "m.safetensors", PARAMS, {}, kinds={})
    params, _ = model_file.load_model(tmp_path / "m.safetensors")
    assert params.w_ih is None
    assert_close(jrnn.rnn(params, XS), jrnn.rnn(PARAMS, XS), rtol=0.0)
    assert "w_ih" not in jrnn.summary(PARAMS)


def test_the_gradient_is_checked_and_seen():
    jrnn.testing.check_against_scan(PARAMS, XS)
    exponents = diagnostics.lyapunov_exponents(PARAMS, ONE, n=2)
    assert np.isfinite(np.asarray(exponents)).all()


def test_noise_for_each_step_is_trained_through():
    """The recipe of docs/cells.md: inputs and noise are added before the recurrence."""
    w_in = jax.random.normal(jax.random.key(3), (2, H))
    inputs = jax.random.normal(jax.random.key(4), (T, B, 2))

    def loss(params, carry, inputs, key):
        rnn, w_in, scale = params
        noise = scale * jax.random.normal(key, (T, B, H))
        _, hs = jrnn.rnn(rnn, inputs @ w_in + noise)
        return (hs**2).mean(), carry

    optimizer = optax.sgd(0.3)
    params = PARAMS, w_in, jnp.full((), 0.5)
    state = init_train_state(params, optimizer, jnp.zeros(()), jax.random.key(5))
    step = make_train_step(loss, optimizer)
    losses = []
    for _ in range(60):
        state, metrics = step(state, inputs)
        losses.append(float(metrics.loss))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert float(state.params[2]) < 0.5  # the noise is learned, too


NEED_THEM = {
    "generate": lambda: jrnn.sampling.generate(
        PARAMS, READOUT, jax.random.key(0), np.array([0]), 3
    ),
    "trajectory": lambda: derivation.trajectory(PARAMS, READOUT, ONE, LABELS),
    "recursion": lambda: derivation.gradients_recursion(PARAMS, READOUT, ONE, LABELS),
    "sensitivity": lambda: derivation.gradients_sensitivity(PARAMS, READOUT, ONE, LABELS),
    "sensitivity, init": lambda: derivation.sensitivity_init(PARAMS, READOUT),
    "torch": lambda: interop.to_torch([(PARAMS, None)]),
    "linen": lambda: interop.to_linen(PARAMS),
    "nnx": lambda: interop.to_nnx(PARAMS),
    "haiku": lambda: interop.to_haiku(PARAMS),
    "keras": lambda: interop.to_keras(PARAMS),
}


@pytest.mark.parametrize("name", NEED_THEM)
def test_refused_by_name(name):
    with pytest.raises(ValueError, match=r"params: expected RNNParams with w_ih; got w_ih"):
        NEED_THEM[name]()
