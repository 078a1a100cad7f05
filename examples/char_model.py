"""The character model: parameters, loss, evaluation, optimiser."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from command import require_memory
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from networks import CELLS, kernel_of, zero_state

import jrnn
from jrnn import ActivationName
from jrnn.cells.kinds import cell_of
from jrnn.parallel import BATCH, mean, whole_batch
from jrnn.text import chunks

EVALUATION_CHUNK = 256
ACTIVATIONS = ["tanh", "relu", "sigmoid", "identity"]  # of --cell rnn; the others have their own
W_HH_INITS = {
    "orthogonal": jax.nn.initializers.orthogonal(),
    "gaussian": jax.nn.initializers.normal(0.01),
}


class Model(NamedTuple):
    """The trainable parameters."""

    rnn: Any  # of a class in `CELLS`
    readout: jrnn.ReadoutParams


def init_model(key: jax.Array, args: argparse.Namespace, vocabulary: int) -> Model:
    """Initialise each block of `w_hh` by --w-hh-init, the rest with LeCun normal, biases 0.

    The bias of the forget gate of an LSTM is 1.
    """
    key_rnn, key_readout = jax.random.split(key)
    w_hh_init = W_HH_INITS[args.w_hh_init]
    return Model(
        CELLS[args.cell].init(key_rnn, vocabulary, args.hidden_size, w_hh_init=w_hh_init),
        jrnn.init_readout(key_readout, args.hidden_size, vocabulary),
    )


def activations_of(cell: str) -> list[str] | list[None]:
    """The activations that go with a choice of --cell, the default first."""
    return ACTIVATIONS if cell == "rnn" else [None]


def check_memory(args: argparse.Namespace, vocabulary: int, mesh: Mesh, options: str) -> None:
    """Refuse a training that does not fit on the devices; `options` determine its size."""
    O, H, B = vocabulary, args.hidden_size, args.batch_size // mesh.size
    _, _, blocks, states = CELLS[args.cell]
    parameters = blocks * (O * H + H * H + H) + H * O + O
    what = "the parameters, their gradient, its two moments, and the states of a chunk"
    numbers = 4 * parameters + args.length * B * states * H
    require_memory(numbers, what, options, len(mesh.local_devices))


def make_loss(activation: ActivationName | None) -> Any:
    """The mean cross-entropy of a chunk in nats, and the state for the next chunk."""

    def loss(model: Model, state: Any, batch: Any, key: jax.Array) -> Any:
        del key  # the loss is not random
        xs, labels = batch
        state, hs = jrnn.unroll(cell_of(model.rnn, activation), model.rnn, xs, state)
        losses = jrnn.softmax_cross_entropy(jrnn.readout(model.readout, hs), labels)
        return mean(losses.sum(), labels.size), state

    return loss


def kernel_of_training(args: argparse.Namespace, vocabulary: int, mesh: Mesh) -> str:
    """The kernel of a training step, on each device."""
    ids = jax.ShapeDtypeStruct((args.length, args.batch_size), np.int32)
    key = jax.random.key(0)
    model = jax.eval_shape(lambda: init_model(key, args, vocabulary))
    state = jax.eval_shape(lambda: zero_state(model.rnn, args.batch_size))
    split = (P(), P(BATCH), P(None, BATCH), P())
    loss = jax.shard_map(
        make_loss(args.activation), mesh=mesh, in_specs=split, out_specs=split[:2], check_vma=False
    )
    return kernel_of(loss, model, state, (ids, ids), key, platform=mesh.devices.flat[0].platform)


def make_evaluate(
    activation: ActivationName | None, streams: np.ndarray, mesh: Mesh
) -> Callable[[Model], float]:
    """Bits per character over streams, from a state of zeros, without unknown characters.

    Each process passes its own streams.
    """
    states, ids = P(BATCH), P(None, BATCH)  # [B, H], [T, B]

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), states, ids, ids), out_specs=(P(), states))
    def chunk_nats(model: Model, state: Any, xs: jax.Array, labels: jax.Array) -> Any:
        state, hs = jrnn.unroll(cell_of(model.rnn, activation), model.rnn, xs, state)
        logits = jrnn.readout(model.readout, hs)
        losses = jrnn.softmax_cross_entropy(logits, labels, labels != 0)
        return jax.lax.psum(losses.sum(), BATCH), state

    judged = int(np.sum(multihost_utils.process_allgather(np.count_nonzero(streams[1:]))))

    def evaluate(model: Model) -> float:
        batch_size = streams.shape[1] * jax.process_count()
        state = zero_state(model.rnn, batch_size, NamedSharding(mesh, states))
        nats = 0.0
        for batch in chunks(streams, EVALUATION_CHUNK):
            padding = ((0, EVALUATION_CHUNK - len(batch[0])), (0, 0))
            padded = [np.pad(ids, padding) for ids in batch]  # one shape, so only one compilation
            chunk, state = chunk_nats(model, state, *whole_batch(padded, mesh))
            nats += float(chunk)
        return nats / judged / np.log(2)

    return evaluate


def make_optimizer(args: argparse.Namespace) -> optax.GradientTransformation:
    """Adam on clipped gradients, by default with warm-up and decay of the learning rate."""
    schedule = args.learning_rate
    if args.schedule == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, args.learning_rate, args.steps // 20, args.steps
        )
    return optax.chain(optax.clip_by_global_norm(args.clip), optax.adam(schedule))
