"""The network of `perceptual_decision.py`, and the trials that it learns.

A rate network of excitatory and inhibitory neurons, after Song, Yang and Wang, Training
excitatory-inhibitory recurrent neural networks for cognitive tasks, PLoS Computational Biology 12,
2016, with their numbers; (29) with noise and Dale's law:

    v_t = (1 - alpha) v_{t-1} + alpha (h_{t-1} w_hh + u_t w_in + b + sqrt(2 / alpha) sigma xi_t)
    h_t = relu(v_t)              z_t = h_t w_ho + b_o
    w_hh = sign * relu(free w_hh), 0 on the diagonal: each neuron excites or inhibits all others

The random dots move to the left or to the right with some coherence. Two inputs are the evidence
for each side; a third is 1 from the start of the motion. After the motion the output of the side
must be high.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jrnn
from jrnn.cells.leaky import leaky

DT, TAU = 20, 100  # ms
ALPHA = DT / TAU
FIXATION, DECISION = 100, 300  # ms, before and after the motion
SHORTEST, MEAN, LONGEST = 80, 330, 1500  # ms of motion: exponential, and cut
STEPS = (FIXATION + LONGEST + DECISION) // DT
COHERENCES = (1, 2, 4, 8, 16)  # % of the dots
HIGH, LOW = 1.0, 0.2  # of the outputs
EXCITATORY = 0.8  # the share of the neurons
NOISE, INPUT_NOISE = 0.15, 0.01  # standard deviations of v and of the inputs
RATE_CELL = leaky("relu", "input", learned=False)


class Free(NamedTuple):
    """The parameters that are learned; the network has their rectified values."""

    w_in: jax.Array  # [3, H]
    w_hh: jax.Array  # [H, H]
    b_h: jax.Array  # [H]
    w_ho: jax.Array  # [H, 2]
    b_o: jax.Array  # [2]


class Model(NamedTuple):
    """A network that obeys Dale's law."""

    w_in: jax.Array  # [3, H]
    recurrent: jrnn.LeakyParams  # without w_ih: it reads currents [H]
    readout: jrnn.ReadoutParams


class Trials(NamedTuple):
    """Trials of `STEPS` steps each."""

    inputs: jax.Array  # [T, B, 3] u: evidence for right, for left, and the cue
    targets: jax.Array  # [T, B, 2] z: right, left
    counted: jax.Array  # [T, B] whether the loss counts the step
    last: jax.Array  # [B] the last step of the decision, where the answer is read


def signs(H: int) -> np.ndarray:
    """`[H]`: 1 for excitatory neurons, -1 for inhibitory ones."""
    return np.where(np.arange(H) < EXCITATORY * H, 1.0, -1.0).astype(np.float32)


def init_free(key: jax.Array, H: int) -> Free:
    """Draw free parameters: w_hh from a gamma distribution, balanced, with spectral radius 1.5."""
    key_in, key_hh, key_out = jax.random.split(key, 3)
    sign = signs(H)
    w_hh = np.array(jax.random.gamma(key_hh, 2.0, (H, H))) * (1 - np.eye(H, dtype=np.float32))
    w_hh[sign < 0] *= (sign > 0).sum() / (sign < 0).sum()
    w_hh *= 1.5 / np.abs(np.linalg.eigvals(sign[:, None] * w_hh)).max()
    return Free(
        jax.random.uniform(key_in, (3, H)),
        jnp.asarray(w_hh),
        jnp.zeros(H),
        jax.random.uniform(key_out, (H, 2)) / (0.4 * H),
        jnp.zeros(2),
    )


def model_of(free: Free) -> Model:
    """Apply the constraints: Dale's law, no neuron feeds itself, outputs of excitatory ones."""
    H = len(free.b_h)
    sign = jnp.asarray(signs(H))[:, None]
    w_hh = sign * jax.nn.relu(free.w_hh) * (1 - jnp.eye(H))
    w_ih: Any = None  # the inputs are currents
    recurrent = jrnn.LeakyParams(w_ih, w_hh, free.b_h, jnp.full(H, ALPHA), None)
    w_ho = jax.nn.relu(free.w_ho) * (sign > 0)
    return Model(jax.nn.relu(free.w_in), recurrent, jrnn.ReadoutParams(w_ho, free.b_o))


def make_trials(key: jax.Array, coherence: jax.Array, motion: jax.Array) -> Trials:
    """Trials of given signed coherences `[B]` in % and lengths of motion `[B]` in ms."""
    begin = FIXATION // DT
    end = begin + motion.astype(jnp.int32) // DT
    last = end + DECISION // DT - 1
    t = jnp.arange(STEPS)[:, None]
    moving, decided = (t >= begin) & (t < end), (t >= end) & (t <= last)
    evidence = (1 + 3.2 * jnp.stack([coherence, -coherence], -1) / 100) / 2  # [B, 2]
    cue = jnp.broadcast_to(t >= begin, moving.shape)
    inputs = jnp.concatenate([moving[..., None] * evidence, cue[..., None]], -1)
    noise = math.sqrt(2 / ALPHA) * INPUT_NOISE * jax.random.normal(key, inputs.shape)
    chosen = jnp.stack([coherence > 0, coherence <= 0], -1) & decided[..., None]
    return Trials(
        jax.nn.relu(inputs + noise), jnp.where(chosen, HIGH, LOW), (t < begin) | decided, last
    )


def random_trials(key: jax.Array, coherences: jax.Array, count: int) -> Trials:
    """Trials with coherences that are drawn from `[n]`, to either side, and random lengths."""
    keys = jax.random.split(key, 4)
    coherence = jax.random.choice(keys[0], jnp.asarray(coherences, jnp.float32), (count,))
    coherence *= jax.random.rademacher(keys[1], (count,), jnp.float32)
    return make_trials(keys[2], coherence, random_motion(keys[3], count))


def random_motion(key: jax.Array, count: int) -> jax.Array:
    """`[count]` lengths of motion in ms."""
    return jnp.clip(SHORTEST + MEAN * jax.random.exponential(key, (count,)), None, LONGEST)


def draw_noise(key: jax.Array, trials: Trials, H: int) -> jax.Array:
    """`[T, B, H]`: xi of every step, scaled for a_t."""
    xi = jax.random.normal(key, (*trials.counted.shape, H))
    return math.sqrt(2 / ALPHA) * NOISE * xi


def run(recurrent: jrnn.LeakyParams, xs: jax.Array) -> jax.Array:
    """The rates `[T, B, H]`, with jrnn's gradient."""
    return jrnn.leaky(recurrent, xs, leak="input", activation="relu")[1]


def run_plain(recurrent: Any, xs: jax.Array) -> jax.Array:
    """The same by a plain scan, which JAX differentiates."""

    def step(v: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        a = x_t + jax.nn.relu(v) @ recurrent.w_hh + recurrent.b_h
        v = v + recurrent.alpha * (a - v)
        return v, jax.nn.relu(v)

    return lax.scan(step, jnp.zeros_like(xs[0]), xs)[1]


def loss(
    free: Free, trials: Trials, noise: jax.Array, run: Callable[..., jax.Array] = run
) -> jax.Array:
    """The mean squared error of the outputs over the steps that count."""
    model = model_of(free)
    z = jrnn.readout(model.readout, run(model.recurrent, trials.inputs @ model.w_in + noise))
    errors = jnp.square(z - trials.targets).mean(-1)
    return errors.mean(where=trials.counted)


def answers(free: Free, trials: Trials, noise: jax.Array) -> jax.Array:
    """`[B]`: whether the network chooses the right side."""
    model = model_of(free)
    hs = run(model.recurrent, trials.inputs @ model.w_in + noise)
    z = jrnn.readout(model.readout, hs[trials.last, jnp.arange(hs.shape[1])])
    return z[:, 0] > z[:, 1]
