"""The adding problem: its data, its networks and their starts, and what the output depends on."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from networks import CELLS, Model, output_of

import jrnn
from jrnn import ActivationName, initializers

MEASURED = 16  # sequences per curve by lag
W_HH_INITS = {
    "identity": initializers.identity(),
    "orthogonal": jax.nn.initializers.orthogonal(),
    "spectral": initializers.spectral_radius(1.0),
    "uniform": initializers.hidden_uniform,
}
ACTIVATIONS: tuple[ActivationName, ...] = ("relu", "tanh")
GATED: tuple[Literal["gru", "lstm"], ...] = ("gru", "lstm")
BIASES = ("default", "chrono")


@partial(jax.jit, static_argnums=(1, 2))
def draw_batch(key: jax.Array, T: int, B: int) -> tuple[jax.Array, jax.Array]:
    """Sequences `[T, B, 2]` of numbers and markers, and the sums `[B]` of the marked numbers."""
    key_u, key_first, key_second = jax.random.split(key, 3)
    u = jax.random.uniform(key_u, (T, B))
    first = jax.random.randint(key_first, (B,), 0, T // 2)
    second = jax.random.randint(key_second, (B,), T // 2, T)
    t = jnp.arange(T)[:, None]
    m = ((t == first) | (t == second)).astype(u.dtype)
    return jnp.stack([u, m], axis=-1), jnp.sum(m * u, axis=0)


class Start(NamedTuple):
    """A kind of network and how it is initialised."""

    cell: str
    run: Callable[..., Any]  # parameters, xs, state -> state, hs
    init: Callable[[jax.Array, int, int], Any]  # key, T, H -> parameters


def init_elman(init: str, key: jax.Array, T: int, hidden_size: int) -> jrnn.RNNParams:
    """Initialise `w_hh` by name, `w_ih` small enough for sums over many steps, the bias 0."""
    w_ih_init, w_hh_init = initializers.hidden_uniform, W_HH_INITS[init]
    return jrnn.init_rnn(key, 2, hidden_size, w_ih_init=w_ih_init, w_hh_init=w_hh_init)


def init_gated(
    cell: Literal["gru", "lstm"], biases: str, key: jax.Array, T: int, hidden_size: int
) -> Any:
    """Initialise a GRU or an LSTM, with biases by name; weights as jrnn draws them."""
    params = CELLS[cell].init(key, 2, hidden_size)
    if biases == "default":
        return params
    b_h, chrono = params.b_h, initializers.chrono(T + 1, cell)
    return params._replace(b_h=chrono(jax.random.fold_in(key, 1), b_h.shape, b_h.dtype))


STARTS = {
    f"{phi}-{init}": Start("rnn", partial(jrnn.rnn, activation=phi), partial(init_elman, init))
    for phi in ACTIVATIONS
    for init in W_HH_INITS
} | {
    f"{cell}-{biases}": Start(cell, CELLS[cell].run, partial(init_gated, cell, biases))
    for cell in GATED
    for biases in BIASES
}


def init_model(key: jax.Array, start: str, T: int, hidden_size: int) -> Model:
    """Initialise a network by the name of its start, and its readout."""
    key_rnn, key_readout = jax.random.split(key)
    return Model(
        STARTS[start].init(key_rnn, T, hidden_size), jrnn.init_readout(key_readout, hidden_size, 1)
    )


def mean_squared_error(
    run: Callable[..., Any], model: Model, xs: jax.Array, targets: jax.Array
) -> Any:
    """The mean squared error of the output after the last step; `run` is that of a `Start`."""
    state, _ = run(model.rnn, xs)
    outputs = jrnn.readout(model.readout, output_of(state))[:, 0]
    return optax.squared_error(outputs, targets).mean()


def sensitivity(run: Callable[..., Any], model: Model, key: jax.Array, T: int) -> np.ndarray:
    """`[T]`: the median of ||do_T / ds_{T-l}|| over sequences, relative to lag 0.

    s is the whole state, h and c of an LSTM. The derivative in s_t is that in a number that is
    added to s_t, which is 0.
    """
    xs, _ = draw_batch(key, T, MEASURED)
    slopes = _slopes(run, model, xs)
    norms = np.linalg.norm(np.asarray(slopes, np.float64), axis=-1)  # squares have a wide range
    median = np.median(norms, axis=1)[::-1]
    return median / median[0]


@partial(jax.jit, static_argnums=0)
def _slopes(run: Callable[..., Any], model: Model, xs: jax.Array) -> jax.Array:
    """`[T, B, S]`: do_T / ds_t of each sequence, for a state of S numbers."""
    start = jrnn.zero_state(model.rnn, xs.shape[1])

    def step(state: Any, given: Any) -> Any:
        x_t, added = given
        state, _ = run(model.rnn, x_t[None], state)
        return jax.tree.map(jnp.add, state, added), None

    def sum_of_outputs(added: Any) -> jax.Array:
        state, _ = jax.lax.scan(step, start, (xs, added))
        return jrnn.readout(model.readout, output_of(state)).sum()

    added = jax.tree.map(lambda s: jnp.zeros((len(xs), *s.shape), s.dtype), start)
    return jnp.concatenate(jax.tree.leaves(jax.grad(sum_of_outputs)(added)), axis=-1)
