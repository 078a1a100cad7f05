"""The losses of 60 training steps are those of torch from the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recipe
from mutations import mutated

import jrnn
from jrnn import interop
from jrnn.interop._weights import of_two_biases

pytestmark = pytest.mark.usefixtures("float32")
RECORD = recipe.recorded()
NETWORKS = {"lstm": jrnn.lstm, "gru": jrnn.gru}


def losses(kind, params):
    """Truncated BPTT with Adam: the state goes on from batch to batch, the gradient does not."""
    readout = recipe.weights(kind)[1]
    readout = jrnn.ReadoutParams(jnp.asarray(readout["weight"].T), jnp.asarray(readout["bias"]))
    optimizer = optax.adam(**recipe.ADAM)

    def mean_loss(trained, state, ids, labels):
        state, hs = NETWORKS[kind](trained[0], ids, state)
        return jnp.mean(jrnn.softmax_cross_entropy(jrnn.readout(trained[1], hs), labels)), state

    def step(carry, batch):
        trained, moments, state = carry
        value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)
        (loss, state), gradient = value_and_grad(trained, state, *batch)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(trained, updates), moments, state), loss

    trained = (params, readout)
    zeros = jnp.zeros((recipe.B, recipe.H), jnp.float32)
    state = jrnn.LSTMState(zeros, zeros) if kind == "lstm" else zeros
    carry = (trained, optimizer.init(trained), state)
    return jax.jit(lambda *args: jax.lax.scan(step, *args)[1])(carry, recipe.batches())


@pytest.mark.parametrize("kind", NETWORKS)
def test_losses_are_those_of_torch(kind):
    [(params, _)] = interop.from_torch(recipe.weights(kind)[0])
    found = losses(kind, params)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, RECORD[kind], rtol=0, atol=1e-4)
    assert RECORD[kind][-1] < RECORD[kind][0] - 0.8  # it learned something


def test_a_bias_inside_of_the_reset_gate_is_no_bias_outside():
    """The tolerance is small enough to see where b_hn stands."""
    wrong = mutated(of_two_biases, "!= 3 * H", "> 0", user=interop._torch)
    [(params, _)] = wrong.from_torch(recipe.weights("gru")[0])
    assert np.abs(losses("gru", params) - np.array(RECORD["gru"])).max() > 1e-2
