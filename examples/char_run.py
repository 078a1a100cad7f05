"""A training run of the character model: its loop, its record, its checkpoints, how it stops."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from char_data import Data, training_chunks
from char_model import Model, init_model, make_evaluate, make_loss, make_optimizer
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

import jrnn
from jrnn.arrays import named_leaves
from jrnn.checkpoint import Checkpoint, Checkpoints, restore
from jrnn.checks import refuse
from jrnn.parallel import own_part, whole_batch
from jrnn.training import StepMetrics, TrainState, init_train_state, make_train_step

READ_EVERY = 10  # steps; reading waits for the device
# What a run cannot change on its way, but as another run.
FIXED = ["hidden_size", "batch_size", "length", "activation", "w_hh_init", "schedule", "seed"]
OF_THE_PROCESS = ["out", "resume", "coordinator", "processes", "process", "cluster"]


class StopFlag:
    """Set by Ctrl-C or SIGTERM and read between steps: inside one the donated buffers are lost.

    Of several processes whichever gets the signal stops all, at the same step: SIGTERM is caught by
    JAX's runtime, and Ctrl-C is made one.
    """

    signum: int | None = None

    def __enter__(self) -> "StopFlag":
        """Take the signals over."""
        self._alone = jax.process_count() == 1
        caught = [signal.SIGINT, signal.SIGTERM] if self._alone else [signal.SIGINT]
        self._previous = {signum: signal.signal(signum, self._set) for signum in caught}
        return self

    def _set(self, signum: int, frame: Any) -> None:
        self.signum = signum
        print("\nstopping after this step, and saving", file=sys.stderr, flush=True)
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def is_set(self, step: int) -> bool:
        """Whether the run is to stop after this step."""
        if self._alone:
            return self.signum is not None
        return bool(multihost_utils.reached_preemption_sync_point(step))

    def __exit__(self, *exception: object) -> None:
        """Give the signals back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)


class Record:
    """The metrics of a run: a row per evaluation; the time is that of all steps but first ones."""

    def __init__(self, step_characters: int, evaluate: Callable[[Model], float]) -> None:
        """Nothing is recorded yet."""
        self.rows: list[dict[str, float]] = []
        self._step_characters, self._evaluate = step_characters, evaluate
        self._metrics: list[StepMetrics] = []  # since the last reading, on the device
        self._losses: list[float] = []  # since the last row
        self.bits = np.nan  # per character, of the last loss that was read
        self._seconds, self._timed, self._started = 0.0, 0, 0.0

    def add(self, metrics: StepMetrics) -> None:
        """Keep a step's metrics, on the device: reading them would wait for it."""
        self._metrics.append(metrics)
        if self._started:
            self._timed += 1
        else:  # the first step compiles
            metrics.loss.block_until_ready()
            self._started = time.perf_counter()

    def read(self, step: int, nonfinite: str) -> None:
        """Read what has been kept up to a step.

        Raises:
            ValueError: a loss or a gradient was not finite, and that is to end the run.
        """
        metrics, self._metrics = jax.device_get(self._metrics), []
        for number, m in enumerate(metrics, step - len(metrics) + 1):
            if nonfinite == "stop" and not np.isfinite([m.loss, m.grad_norm]).all():
                refuse_nonfinite(number, m)
            self._losses.append(float(m.loss))
            self.bits = self._losses[-1] / np.log(2)

    def evaluate(self, step: int, model: Model) -> float:
        """Close a row, of which all has been read; the bits per character of the validation."""
        if self.rows and self.rows[-1]["step"] == step:  # a run that had ended is resumed
            return self.rows[-1]["validation_bits"]
        self._stop_the_clock()
        losses = np.array(self._losses)
        if not np.isfinite(losses).any():
            repair = "Lower --learning-rate or --clip. Nothing in --out was changed."
            refuse(f"training, up to step {step:,}", "a finite loss", "none", repair)
        validation_bits = self._evaluate(model)
        self.rows.append(
            {
                "step": step,
                "characters": step * self._step_characters,
                "train_bits": float(losses[np.isfinite(losses)].mean() / np.log(2)),
                "validation_bits": validation_bits,
                "characters_per_second": self._timed * self._step_characters / self._seconds,
            }
        )
        self._losses, self._started = [], time.perf_counter()
        return validation_bits

    def _stop_the_clock(self) -> None:
        if self._started:
            now = time.perf_counter()
            self._seconds, self._started = self._seconds + now - self._started, now

    def to_json(self) -> dict[str, Any]:
        """For the manifest of a checkpoint."""
        self._stop_the_clock()
        clock = {"seconds": self._seconds, "timed": self._timed}
        return {"rows": self.rows, "losses": self._losses, **clock}

    def from_json(self, saved: dict[str, Any]) -> None:
        """Go on with the record of a checkpoint."""
        self.rows, self._losses = saved["rows"], saved["losses"]
        self._seconds, self._timed = saved["seconds"], saved["timed"]


def refuse_nonfinite(step: int, metrics: StepMetrics) -> None:
    """Say where, and how large the gradients were."""
    norms = ", ".join(f"{name} {norm:.3g}" for name, norm in named_leaves(metrics.grad_norms))
    came = f"the loss {metrics.loss:.3g} and gradients of the norms {norms}"
    repair = (
        "Nothing was changed by it: --resume goes on from before it, with a lower --learning-rate "
        "or --clip; --nonfinite skip leaves such batches out."
    )
    refuse(f"training, step {step:,}", "a finite loss and gradient", came, repair)


# --- the loop ------------------------------------------------------------------------------------


def train(
    args: argparse.Namespace,
    data: Data,
    mesh: Mesh,
    stop: StopFlag,
    checkpoints: Checkpoints | None = None,
    resumed: Checkpoint | None = None,
) -> tuple[TrainState, Record]:
    """Run the training, from its beginning or a checkpoint, until its end or the flag."""
    state, train_step = make_training(args, data, mesh)
    step_characters = args.length * args.batch_size
    evaluate = make_evaluate(args.activation, own_part(data.validation_streams), mesh)
    record, done = Record(step_characters, evaluate), 0
    if resumed is not None:
        state, done = restore(resumed, state), resumed.step
        if args.nonfinite == "stop":  # what had stopped the run is to be tried anew
            state = state._replace(nonfinite=jnp.zeros_like(state.nonfinite))
        record.from_json(resumed.manifest["record"])
    source = training_chunks(own_part(data.streams), args.length, done)
    save = make_save(args, manifest_of(args, data, mesh), record, checkpoints)

    def read(step: int) -> None:
        try:
            record.read(step, args.nonfinite)
        except ValueError:
            save(int(state.step), state, None, True)
            raise

    with progress_bar(done, args.steps, step_characters) as bar:
        for step in range(done + 1, args.steps + 1):
            batch, first = next(source)
            if first:
                read(step - 1)  # a run that has stopped keeps the carry that it stopped with
                state = state._replace(carry=jnp.zeros_like(state.carry))
            state, metrics = train_step(state, whole_batch(batch, mesh))
            record.add(metrics)
            bar.update(step_characters)
            last, score = stop.is_set(step) or step == args.steps, None
            closes, saves = step % args.eval_every == 0, step % args.checkpoint_every == 0
            if step % READ_EVERY == 0 or closes or saves or last:
                read(step)
                bar.set_postfix_str(f"{record.bits:.3f} bits/char")
            if closes or step == args.steps:
                score = record.evaluate(step, state.params)
            if saves or last:
                save(step, state, score, last)
            if last:
                break
    record.evaluate(int(state.step), state.params)  # of where it was stopped; not for a checkpoint
    return state, record


def progress_bar(done: int, steps: int, step_characters: int) -> Any:
    """Of characters; of several processes one shows it."""
    total, initial = steps * step_characters, done * step_characters
    hidden = jax.process_index() > 0
    return tqdm(total=total, initial=initial, unit="char", unit_scale=True, disable=hidden)


def make_save(
    args: argparse.Namespace,
    manifest: dict[str, Any],
    record: Record,
    checkpoints: Checkpoints | None,
) -> Callable[[int, TrainState, float | None, bool], None]:
    """Writing a checkpoint, which raises an OSError or says it, as told.

    The last one is waited for: what is written next has the disk for itself.
    """

    def attempt(write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if args.on_save_error == "stop":
                raise
            print(f"\n{error}; the training goes on", file=sys.stderr, flush=True)

    def save(step: int, state: TrainState, score: float | None, last: bool) -> None:
        if checkpoints is None:
            return
        whole = manifest | {"record": record.to_json()}
        attempt(checkpoints.wait)  # for the one before
        attempt(lambda: checkpoints.save(step, state, whole, score))
        if last:
            attempt(checkpoints.wait)

    return save


def make_training(args: argparse.Namespace, data: Data, mesh: Mesh) -> tuple[TrainState, Any]:
    """The state before the first step, and the step."""
    key_model, key_state = jax.random.split(jax.random.key(args.seed))
    model = init_model(key_model, args, len(data.alphabet.characters))
    print(jrnn.summary(model), end="\n\n", flush=True)
    optimizer = make_optimizer(args)
    zeros = jnp.zeros((args.batch_size, args.hidden_size))
    state = init_train_state(model, optimizer, zeros, key_state, mesh=mesh)
    loss = make_loss(args.activation)
    return state, make_train_step(loss, optimizer, mesh=mesh, nonfinite=args.nonfinite)


# --- what a run is -------------------------------------------------------------------------------


def describe_devices(mesh: Mesh) -> str:
    """Their number and kind."""
    return f"{mesh.size} {mesh.devices[0].platform}"


def manifest_of(args: argparse.Namespace, data: Data, mesh: Mesh) -> dict[str, Any]:
    """What a checkpoint and a model file say beside the arrays."""
    options = {k: v for k, v in vars(args).items() if k not in OF_THE_PROCESS}
    return {
        "options": options,
        "text_sha256": data.sha256,
        "machine": {
            "devices": describe_devices(mesh),
            "processes": jax.process_count(),
            "cores of a process": len(os.sched_getaffinity(0)),
            "versions": {"jrnn": jrnn.__version__, "jax": jax.__version__},
        },
    }


def find_checkpoint(
    args: argparse.Namespace, data: Data, mesh: Mesh, checkpoints: Checkpoints
) -> Checkpoint | None:
    """The checkpoint to go on from, if that is asked for; never one of another run."""
    found = checkpoints.latest(say=lambda text: print(text, file=sys.stderr, flush=True))
    if not args.resume:
        make_room(args, found, checkpoints)
        return None
    if found is None:
        print(f"no checkpoint in {checkpoints.directory}: the run starts from its beginning")
        return None
    name, old, new = f"checkpoint {found.path}", found.manifest, manifest_of(args, data, mesh)
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
    return found


def make_room(args: argparse.Namespace, found: Checkpoint | None, checkpoints: Checkpoints) -> None:
    """A new run takes the place of one that has ended, not of one that has not."""
    if found is None:
        return
    if found.step < found.manifest["options"]["steps"]:
        repair = "Take --resume to go on with it, or another --out, or remove that directory."
        expected = "a directory without an unfinished run"
        refuse("--out", expected, f"one at step {found.step:,} in {found.path.parent}", repair)
    checkpoints.clear()
