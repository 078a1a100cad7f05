"""The character model: its loss, evaluation and optimiser."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from devices import require_memory
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from networks import CELLS as CELLS
from networks import Model as Model
from networks import kernel_of

import jrnn
from jrnn.parallel import BATCH, mean, whole_batch
from jrnn.text import chunks

from .settings import Settings

EVALUATION_CHUNK = 256
W_HH_INITS = {
    "orthogonal": jax.nn.initializers.orthogonal(),
    "gaussian": jax.nn.initializers.normal(0.01),
}


def layers_of(params: Any) -> list[Any]:
    """The parameters of the network of each layer, of a `StackParams` or of a network alone."""
    stack = isinstance(params, jrnn.StackParams)
    return [layer.forward for layer in params.layers] if stack else [params]


def cell_name(params: Any) -> str:
    """The choice of --cell that has parameters of this class."""
    first = layers_of(params)[0]
    return next(name for name, kind in CELLS.items() if isinstance(first, kind.params))


def init_model(key: jax.Array, settings: Settings, vocabulary: int) -> Model:
    """Initialise each block of `w_hh` by --w-hh-init, the rest with LeCun normal, biases 0.

    The bias of the forget gate of an LSTM is 1.
    """
    key_rnn, key_readout = jax.random.split(key)
    cell, H, n = settings.cell or "rnn", settings.hidden_size, settings.layers
    init: Any = {"w_hh_init": W_HH_INITS[settings.w_hh_init]}
    if n == 1:
        rnn = CELLS[cell].init(key_rnn, vocabulary, H, **init)
    else:
        rnn = jrnn.init_stack(key_rnn, vocabulary, [H] * n, cell=cell, **init)
    return Model(rnn, jrnn.init_readout(key_readout, H, vocabulary))


def check_memory(settings: Settings, vocabulary: int, mesh: Mesh, options: str) -> None:
    """Refuse a training that does not fit on the devices; `options` determine its size."""
    O, H, L, B = vocabulary, settings.hidden_size, settings.layers, settings.batch_size // mesh.size
    blocks, states = CELLS[settings.cell or "rnn"][-2:]
    parameters = blocks * ((O + (L - 1) * H) * H + L * (H * H + H)) + H * O + O
    what = "the parameters, their gradient, its two moments, and the states of a chunk"
    numbers = 4 * parameters + settings.length * B * states * L * H
    require_memory(numbers, what, options, len(mesh.local_devices))


def apply(
    settings: Settings, rnn: Any, xs: jax.Array, state: Any, key: jax.Array | None = None
) -> tuple[Any, jax.Array]:
    """The state after a chunk of ids `[T, B]`, and hs `[T, B, H]`; the key is for dropout."""
    options: Any = {"activation": settings.activation} if settings.activation else {}
    if isinstance(rnn, jrnn.StackParams):
        return jrnn.stack(rnn, xs, state, key=key, dropout=settings.dropout, **options)
    return CELLS[cell_name(rnn)].run(rnn, xs, state, **options)


def make_loss(settings: Settings) -> Any:
    """The mean cross-entropy of a chunk in nats, and the state for the next chunk."""

    def loss(model: Model, state: Any, batch: Any, key: jax.Array) -> Any:
        xs, labels = batch
        state, hs = apply(settings, model.rnn, xs, state, key)
        return mean(jrnn.readout_cross_entropy(model.readout, hs, labels), labels.size), state

    return loss


def kernel_of_training(settings: Settings, vocabulary: int, mesh: Mesh) -> str:
    """The kernel of a training step, on each device."""
    ids = jax.ShapeDtypeStruct((settings.length, settings.batch_size), np.int32)
    key = jax.random.key(0)
    model = jax.eval_shape(lambda: init_model(key, settings, vocabulary))
    zeros = partial(jrnn.zero_state, batch_size=settings.batch_size)
    state = jax.eval_shape(zeros, model.rnn)
    split = (P(), P(BATCH), P(None, BATCH), P())
    loss = jax.shard_map(
        make_loss(settings), mesh=mesh, in_specs=split, out_specs=split[:2], check_vma=False
    )
    return kernel_of(loss, model, state, (ids, ids), key, platform=mesh.devices.flat[0].platform)


def make_evaluate(settings: Settings, streams: np.ndarray, mesh: Mesh) -> Callable[[Model], float]:
    """Bits per character over streams, from a state of zeros, without unknown characters.

    Each process passes its own streams.
    """
    states, ids = P(BATCH), P(None, BATCH)  # [B, H], [T, B]

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), states, ids, ids), out_specs=(P(), states))
    def chunk_nats(model: Model, state: Any, xs: jax.Array, labels: jax.Array) -> Any:
        state, hs = apply(settings, model.rnn, xs, state)
        nats = jrnn.readout_cross_entropy(model.readout, hs, labels, labels != 0)
        return jax.lax.psum(nats, BATCH), state

    zeros = jax.jit(
        partial(jrnn.zero_state, batch_size=streams.shape[1] * jax.process_count()),
        out_shardings=NamedSharding(mesh, states),
    )
    judged = int(np.sum(multihost_utils.process_allgather(np.count_nonzero(streams[1:]))))

    def evaluate(model: Model) -> float:
        state, nats = zeros(model.rnn), 0.0
        for batch in chunks(streams, EVALUATION_CHUNK):
            padding = ((0, EVALUATION_CHUNK - len(batch[0])), (0, 0))
            padded = [np.pad(ids, padding) for ids in batch]  # one shape, so only one compilation
            chunk, state = chunk_nats(model, state, *whole_batch(padded, mesh))
            nats += float(chunk)
        return nats / judged / np.log(2)

    return evaluate


def make_optimizer(settings: Settings) -> optax.GradientTransformation:
    """Adam on clipped gradients, by default with warm-up and decay of the learning rate."""
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0, rate, settings.steps // 20, settings.steps)
    return optax.chain(optax.clip_by_global_norm(settings.clip), optax.adam(rate))
