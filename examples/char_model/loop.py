"""The loop of a training run, and its checkpoints."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from networks import Model
from tqdm import tqdm

import jrnn
from jrnn.checkpoint import Checkpoint, Checkpoints, restore
from jrnn.parallel import own_part, whole_batch
from jrnn.text import training_chunks
from jrnn.training import TrainState, init_train_state, make_train_step

from .data import Data
from .model import init_model, make_evaluate, make_loss, make_optimizer
from .record import Record, Row
from .settings import Settings
from .signals import StopFlag

READ_EVERY = 10  # steps; reading blocks


def ignore(*given: Any) -> None:
    """A hook that does nothing."""


class Saved(NamedTuple):
    """The content of a checkpoint."""

    state: TrainState
    best_model: Model


def restore_saved(checkpoint: Checkpoint, like: Saved) -> Saved:
    """Restore a checkpoint; in version 0.1 the best model is that of the state."""
    if any(name.startswith("best_model.") for name in checkpoint.arrays):
        return restore(checkpoint, like)
    state = restore(checkpoint, like.state)
    return Saved(state, jax.tree.map(jnp.copy, state.params))


def run_steps(
    settings: Settings,
    data: Data,
    mesh: Mesh,
    stop: StopFlag,
    checkpoints: Checkpoints | None = None,
    manifest: dict[str, Any] | None = None,
    resumed: Checkpoint | None = None,
    write_best: Callable[[Model, Row], Any] = ignore,
    on_metrics: Callable[[Row], Any] = ignore,
) -> tuple[TrainState, Record]:
    """Train from the beginning or from a checkpoint, until the end or until `stop` is set."""
    state, train_step = make_training(settings, data, mesh)
    print(jrnn.summary(state.params), end="\n\n", flush=True)
    evaluate = make_evaluate(settings, own_part(data.validation_streams), mesh)
    start, done = (evaluate, state.params, write_best, on_metrics), 0
    record = Record(settings, len(data.alphabet.characters), *start)
    if resumed is not None:
        saved, done = restore_saved(resumed, Saved(state, record.best_model)), resumed.step
        state = saved.state
        if settings.nonfinite == "stop":  # retry the step that stopped the run
            state = state._replace(nonfinite=jnp.zeros_like(state.nonfinite))
        record.from_json(resumed.manifest["record"], saved.best_model, done)
    source = training_chunks(own_part(data.streams), settings.length, done)
    save = partial(save_to, checkpoints, manifest or {}, settings, record)

    def read(step: int, *, evaluate: bool = False) -> float | None:
        try:
            record.read(step, state)
            return record.evaluate(step, state.params) if evaluate else None
        except ValueError:
            save(int(state.step), state, None, True)
            raise

    last = record.is_finished  # a run that has stopped early
    characters = settings.length * settings.batch_size
    span = {"total": settings.steps * characters, "initial": done * characters}
    with tqdm(**span, unit="char", unit_scale=True, disable=jax.process_index() > 0) as bar:
        for step in range(done + 1, 1 + (done if last else settings.steps)):
            batch, first = next(source)
            if first:
                read(step - 1)  # a stopped run keeps its last carry
                state = state._replace(carry=jax.tree.map(jnp.zeros_like, state.carry))
            state, metrics = train_step(state, whole_batch(batch, mesh))
            record.add(metrics)
            bar.update(characters)
            last, score = stop.is_set(step) or step == settings.steps, None
            closes = step % settings.eval_every == 0 or step == settings.steps
            saves = step % settings.checkpoint_every == 0
            if step % READ_EVERY == 0 or closes or saves or last:
                score = read(step, evaluate=closes)
                bar.set_postfix_str(f"{record.bits:.3f} bits/char")
                last = last or record.is_finished
            if saves or last:
                save(step, state, score, last)
            if last:
                break
    record.evaluate(int(state.step), state.params)  # the row of the stop, not in a checkpoint
    return state, record


def save_to(
    checkpoints: Checkpoints | None,
    manifest: dict[str, Any],
    settings: Settings,
    record: Record,
    step: int,
    state: TrainState,
    score: float | None,
    last: bool,
) -> None:
    """Write a checkpoint; raise or report an OSError, as configured.

    It waits for the last checkpoint, so that later writes find a free disk.
    """
    if checkpoints is None:
        return
    whole, saved = manifest | {"record": record.to_json()}, Saved(state, record.best_model)
    attempt(settings, checkpoints.wait)  # for the previous one
    # A step that is not finite stops the run at the one before, which it may have saved.
    attempt(settings, lambda: checkpoints.save(step, saved, whole, score, exist_ok=True))
    if last:
        attempt(settings, checkpoints.wait)


def attempt(settings: Settings, write: Callable[[], None]) -> bool:
    """Write; raise or report an OSError, as configured. Return whether it was written."""
    try:
        write()
    except OSError as error:
        if settings.on_save_error == "stop":
            raise
        print(f"\n{error}; the training goes on", file=sys.stderr, flush=True)
        return False
    return True


def make_training(settings: Settings, data: Data, mesh: Mesh) -> tuple[TrainState, Any]:
    """Make the state before the first step, and the training step."""
    key_model, key_state = jax.random.split(jax.random.key(settings.seed))
    model = init_model(key_model, settings, len(data.alphabet.characters))
    optimizer, zeros = make_optimizer(settings), jrnn.zero_state(model.rnn, settings.batch_size)
    state = init_train_state(model, optimizer, zeros, key_state, mesh=mesh)
    loss = make_loss(settings)
    return state, make_train_step(loss, optimizer, mesh=mesh, nonfinite=settings.nonfinite)
