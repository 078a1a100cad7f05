"""What a user's type checker must accept and refuse (mypy reads this file, nobody runs it)."""

import jax
import jax.numpy as jnp
import optax

import jrnn
from jrnn.parallel import batch_mesh, mean, use_cpu_cores
from jrnn.training import StepMetrics, TrainState, init_train_state, make_train_step

key = jax.random.key(0)
params: jrnn.RNNParams = jrnn.init_rnn(key, 5, 4, bias=False, dtype=jnp.float32)
readout: jrnn.ReadoutParams = jrnn.init_readout(key, 4, 3)
xs = jnp.zeros((7, 2, 5))
uniform = jrnn.initializers.hidden_uniform
jrnn.init_rnn(key, 5, 4, w_ih_init=uniform, w_hh_init=jrnn.initializers.spectral_radius(0.9))
layers: list[jrnn.interop.Layer] = jrnn.interop.from_torch(jrnn.interop.to_torch([(params, None)]))
ported: jrnn.StackParams = jrnn.interop.from_torch(jrnn.interop.to_torch(layers), stack=True)

h_last, hs = jrnn.rnn(params, xs, activation="relu")
states: jax.Array = hs
softsign = jrnn.Activation(lambda a: a / (1 + abs(a)), lambda h: (1 - abs(h)) ** 2)
jrnn.rnn(params, xs, jnp.zeros(4), activation=softsign)
jrnn.rnn(params, xs, activation="gelu")  # type: ignore[arg-type]
jrnn.rnn(params, xs, jnp.zeros(4), "relu")  # type: ignore[arg-type]
jrnn.rnn(readout, xs)  # type: ignore[arg-type]
params._replace(b_h=None)

stack: jrnn.StackParams = jrnn.init_stack(key, 5, (4, 6), bidirectional=True)
h_lasts, ys = jrnn.stack(stack, xs, (None, jnp.zeros(12)), key=key, dropout=0.1)
last: jax.Array = h_lasts[-1]
mean_state: jax.Array = jrnn.mean_over_time(ys, jnp.array([7, 3]))
jrnn.stack(stack, xs, jnp.zeros(8))  # type: ignore[arg-type]
jrnn.stack(params, xs)  # type: ignore[arg-type]

h: jax.Array = jrnn.rnn_cell(params, jnp.zeros(4), xs[0])
losses: jax.Array = jrnn.softmax_cross_entropy(jrnn.readout(readout, hs), jnp.zeros((7, 2), int))
total: jax.Array = jrnn.readout_cross_entropy(readout, hs, jnp.zeros((7, 2), int), None)
table: str = jrnn.summary(params)
worst: float = max(jrnn.testing.check_against_scan(params, xs).values())


def loss(
    params: jrnn.RNNParams, h: jax.Array, batch: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A user's loss."""
    h_last, hs = jrnn.rnn(params, batch, h)
    return mean(jnp.sum(hs**2), hs.size), h_last


state: TrainState = init_train_state(params, optax.adam(1e-3), jnp.zeros((2, 4)), key)
metrics: StepMetrics
state, metrics = make_train_step(loss, optax.adam(1e-3))(state, xs)
use_cpu_cores()
make_train_step(loss, optax.adam(1e-3), mesh=batch_mesh(2))(state, xs)
