"""A training run of the character model: its loop and its checkpoints."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from char_data import Data, training_chunks
from char_devices import describe_devices
from char_model import (
    Model,
    init_model,
    kernel_of_training,
    make_evaluate,
    make_loss,
    make_optimizer,
)
from char_record import Record, Row
from char_signals import StopFlag
from jax.sharding import Mesh
from networks import zero_state
from tqdm import tqdm

import jrnn
from jrnn.checkpoint import Checkpoint, Checkpoints, restore
from jrnn.checks import refuse
from jrnn.parallel import own_part, whole_batch
from jrnn.training import TrainState, init_train_state, make_train_step

READ_EVERY = 10  # steps; reading blocks
# Options that a resumed run cannot change.
FIXED = [
    "cell",
    "hidden_size",
    "batch_size",
    "length",
    "activation",
    "w_hh_init",
    "schedule",
    "seed",
]
BEFORE = {"cell": "rnn"}  # options that runs of earlier versions did not record
KERNEL_BEFORE = "XLA"  # of version 0.1, which recorded none
OF_THE_PROCESS = ["out", "resume", "overwrite", "coordinator", "processes", "process", "cluster"]


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


# --- the loop ------------------------------------------------------------------------------------


def train(
    args: argparse.Namespace,
    data: Data,
    mesh: Mesh,
    stop: StopFlag,
    checkpoints: Checkpoints | None = None,
    resumed: Checkpoint | None = None,
    write_best: Callable[[Model, Row], None] = lambda model, row: None,
) -> tuple[TrainState, Record]:
    """Train from the beginning or from a checkpoint, until the end or until `stop` is set."""
    state, train_step = make_training(args, data, mesh)
    step_characters = args.length * args.batch_size
    evaluate = make_evaluate(args.activation, own_part(data.validation_streams), mesh)

    def try_to_write_best(model: Model, row: Row) -> bool:
        return attempt(args, lambda: write_best(model, row))

    alphabet_size, done = len(data.alphabet.characters), 0
    record = Record(step_characters, alphabet_size, evaluate, state.params, try_to_write_best)
    if resumed is not None:
        saved, done = restore_saved(resumed, Saved(state, record.best_model)), resumed.step
        state = saved.state
        if args.nonfinite == "stop":  # retry the step that stopped the run
            state = state._replace(nonfinite=jnp.zeros_like(state.nonfinite))
        record.from_json(resumed.manifest["record"], saved.best_model, done)
    source = training_chunks(own_part(data.streams), args.length, done)
    save = make_save(args, manifest_of(args, data, mesh), record, checkpoints)

    def read(step: int, *, evaluate: bool = False) -> float | None:
        try:
            record.read(step, args.nonfinite)
            return record.evaluate(step, state.params) if evaluate else None
        except ValueError:
            save(int(state.step), state, None, True)
            raise

    with progress_bar(done, args.steps, step_characters) as bar:
        for step in range(done + 1, args.steps + 1):
            batch, first = next(source)
            if first:
                read(step - 1)  # a stopped run keeps its last carry
                state = state._replace(carry=jax.tree.map(jnp.zeros_like, state.carry))
            state, metrics = train_step(state, whole_batch(batch, mesh))
            record.add(metrics)
            bar.update(step_characters)
            last, score = stop.is_set(step) or step == args.steps, None
            closes = step % args.eval_every == 0 or step == args.steps
            saves = step % args.checkpoint_every == 0 or last
            if step % READ_EVERY == 0 or closes or saves:
                score = read(step, evaluate=closes)
                bar.set_postfix_str(f"{record.bits:.3f} bits/char")
            if saves:
                save(step, state, score, last)
            if last:
                break
    record.evaluate(int(state.step), state.params)  # the row of the stop, not in a checkpoint
    return state, record


def progress_bar(done: int, steps: int, step_characters: int) -> Any:
    """A progress bar of characters, in one process only."""
    total, initial = steps * step_characters, done * step_characters
    hidden = jax.process_index() > 0
    return tqdm(total=total, initial=initial, unit="char", unit_scale=True, disable=hidden)


def make_save(
    args: argparse.Namespace,
    manifest: dict[str, Any],
    record: Record,
    checkpoints: Checkpoints | None,
) -> Callable[[int, TrainState, float | None, bool], None]:
    """Make a function that writes a checkpoint and raises or reports an OSError, as configured.

    It waits for the last checkpoint, so that later writes find a free disk.
    """

    def save(step: int, state: TrainState, score: float | None, last: bool) -> None:
        if checkpoints is None:
            return
        whole = manifest | {"record": record.to_json()}
        attempt(args, checkpoints.wait)  # for the previous one
        saved = Saved(state, record.best_model)
        attempt(args, lambda: checkpoints.save(step, saved, whole, score))
        if last:
            attempt(args, checkpoints.wait)

    return save


def attempt(args: argparse.Namespace, write: Callable[[], None]) -> bool:
    """Write; raise or report an OSError, as configured. Return whether it was written."""
    try:
        write()
    except OSError as error:
        if args.on_save_error == "stop":
            raise
        print(f"\n{error}; the training goes on", file=sys.stderr, flush=True)
        return False
    return True


def make_training(args: argparse.Namespace, data: Data, mesh: Mesh) -> tuple[TrainState, Any]:
    """Make the state before the first step, and the training step."""
    key_model, key_state = jax.random.split(jax.random.key(args.seed))
    model = init_model(key_model, args, len(data.alphabet.characters))
    print(jrnn.summary(model), end="\n\n", flush=True)
    optimizer = make_optimizer(args)
    zeros = zero_state(model.rnn, args.batch_size)
    state = init_train_state(model, optimizer, zeros, key_state, mesh=mesh)
    loss = make_loss(args.activation)
    return state, make_train_step(loss, optimizer, mesh=mesh, nonfinite=args.nonfinite)


# --- identity of a run ---------------------------------------------------------------------------


def manifest_of(args: argparse.Namespace, data: Data, mesh: Mesh) -> dict[str, Any]:
    """The settings in a checkpoint and in a model file."""
    options = {k: v for k, v in vars(args).items() if k not in OF_THE_PROCESS}
    return {
        "options": options,
        "kernel": kernel_of_training(args, len(data.alphabet.characters), mesh),
        "text_sha256": data.sha256,
        "machine": {
            "devices": describe_devices(mesh),
            "processes": jax.process_count(),
            "cores of a process": len(os.sched_getaffinity(0)),
            "versions": {"jrnn": jrnn.__version__, "jax": jax.__version__},
        },
    }


def find_checkpoint(
    args: argparse.Namespace, data: Data, mesh: Mesh, directory: Path
) -> Checkpoint | None:
    """Find the checkpoint to resume; refuse one of another run."""
    with Checkpoints(directory) as checkpoints:
        found = checkpoints.latest(say=lambda text: print(text, file=sys.stderr, flush=True))
    if found is None:
        print(f"no checkpoint in {directory}: the run starts from its beginning")
        return None
    name, new = f"checkpoint {found.path}", manifest_of(args, data, mesh)
    old = found.manifest | {"options": BEFORE | found.manifest["options"]}
    was, now = (
        {f"--{k.replace('_', '-')}": m["options"][k] for k in FIXED}
        | {"text of SHA-256": m["text_sha256"]}
        for m in (old, new)
    )
    for key, value in was.items():
        if value != now[key]:
            repair = "Resume with what it was made with, or train anew into another --out."
            refuse(name, f"the run of {key} {now[key]}", value, repair)
    if found.step > args.steps:
        repair = "Give at least as many --steps."
        refuse(name, f"at most {args.steps:,} steps", f"{found.step:,}", repair)
    print(f"resumed     {name}, after step {found.step:,} of {args.steps:,}")
    for what in ("options", "machine"):
        for key, value in old[what].items():
            if value != new[what].get(key):
                print(f"            {key}: was {value}, is {new[what].get(key)}")
    if old["machine"] != new["machine"]:
        print("            another machine: the same run to rounding, not bit for bit")
    say_another_kernel(old.get("kernel", KERNEL_BEFORE), new["kernel"])
    return found


def say_another_kernel(was: str, now: str) -> None:
    """Report that a run continues with another kernel, and how it continues with its own."""
    if was != now:
        print(f"            kernel: was {was}, is {now}: the results agree only up to rounding")
        if was == "XLA":
            print("            JRNN_NATIVE=0 resumes it without the native kernel")
