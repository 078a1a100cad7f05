"""A run of the character model as functions of its settings: train it, and evaluate it."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
from command import option, refuse
from jax.sharding import Mesh
from networks import CELLS, Model

import jrnn
from jrnn.checkpoint import Checkpoint, Checkpoints
from jrnn.parallel import check_agreement, own_part

from .data import Data, baselines, load_data
from .devices import choose_devices
from .directory import BEST, RunDirectory
from .loop import attempt, ignore, run_steps
from .model import check_memory, kernel_of_training, make_evaluate
from .record import Row
from .results import place_results, write_model, write_results
from .sample import check_sampling, read_model
from .settings import Settings, resolved
from .signals import StopFlag

OPTIONS_OF_SIZE = "--layers, --hidden-size, --batch-size or --length"
# Settings that a resumed run cannot change.
FIXED = ["cell", "layers", "hidden_size", "batch_size", "length", "activation", "w_hh_init"]
FIXED += ["schedule", "seed"]
BEFORE = {"cell": "rnn", "layers": 1}  # settings that runs of earlier versions did not record
KERNEL_BEFORE = "XLA"  # of version 0.1, which recorded none
OF_THE_PROCESS = ["out", "resume", "overwrite", "coordinator", "processes", "process", "cluster"]


class Trained(NamedTuple):
    """The result of `train`."""

    model: Model  # the last state's
    best: Model  # the one with the lowest bits per character in an evaluation
    rows: list[Row]  # an evaluation each
    finished: bool  # not interrupted
    saved: bool  # all of it is in --out


def train(
    settings: Settings, on_metrics: Callable[[Row], Any] = ignore, *, stop: StopFlag | None = None
) -> Trained:
    """Train, and write models, metrics, curve and checkpoints to `settings.out`.

    `on_metrics` is called with the row of each evaluation, in process 0. Within a `with` block of
    `stop` a signal ends the run saved; without it a signal is Python's. A text or a checkpoint that
    does not fit, and a loss that is not finite, are ValueErrors; files raise OSErrors.
    """
    settings, stop = resolved(replace(settings, sample=None)), stop or StopFlag()
    check_utf8(settings.out)
    mesh = choose_devices(settings.devices, settings.batch_size)
    speaks = jax.process_index() == 0
    directory = RunDirectory(settings.out, resume=settings.resume, overwrite=settings.overwrite)
    with directory:
        data = load_data(settings.text, settings.batch_size, settings.length, settings.out)
        state_size = CELLS[settings.cell or "rnn"].states * settings.layers * settings.hidden_size
        check_sampling(settings, data.alphabet, state_size)
        check_memory(settings, len(data.alphabet.characters), mesh, OPTIONS_OF_SIZE)
        manifest = manifest_of(settings, data, mesh)
        if jax.process_count() > 1:
            options = {option(name): value for name, value in manifest["options"].items()}
            check_agreement(options | {"the text's SHA-256": data.sha256})
        place = directory.resumable
        resumed = find_checkpoint(settings, manifest, place) if settings.resume else None
        counts = baselines(data) if speaks else {}
        described = {"characters": data.alphabet.characters, "cell": settings.cell}
        described |= {"activation": settings.activation} | manifest
        print(f"cell        {settings.cell}\ndevices     {manifest['machine']['devices']}")
        print(f"kernel      {manifest['kernel']}")
        directory.begin(resumed)

        def write_best(model: Model, row: Row) -> bool:
            path = directory.unfinished / BEST
            attempt(settings, checkpoints.wait)  # a part of one may fill the disk
            return not speaks or attempt(settings, lambda: write_model(path, model, described, row))

        hooks = write_best, on_metrics if speaks else ignore
        with stop.deferred():
            with Checkpoints(directory.checkpoints, keep=settings.keep) as checkpoints:
                saving = checkpoints, manifest, resumed
                state, record = run_steps(settings, data, mesh, stop, *saving, *hooks)
                if speaks:
                    write_results(directory.unfinished, described, state, record, counts)
            saved = place_results(settings, directory, record) if speaks else True
    return Trained(state.params, record.best_model, record.rows, record.is_finished, saved)


def evaluate(settings: Settings) -> float:
    """Bits per character of the model in `settings.out` on the last tenth of its text.

    A ValueError is raised if there is no such model, or if `settings.text` is another text.
    """
    model, described = read_model(settings)
    mesh = choose_devices(settings.devices, settings.batch_size)
    data = load_data(settings.text, settings.batch_size, settings.length, settings.out)
    if data.sha256 != (own := described.get("text_sha256")):
        expected = f"the text that the model was trained on, of SHA-256 {own}"
        refuse("--text", expected, data.sha256, "The model knows the alphabet of that text.")
    settings = replace(settings, activation=described["activation"])
    return make_evaluate(settings, own_part(data.validation_streams), mesh)(model)


def check_utf8(out: Path) -> None:
    """Refuse a directory whose name is not UTF-8: the C++ code of orbax would write to another."""
    absolute = os.path.realpath(out)
    if os.fsencode(absolute) != absolute.encode(errors="replace"):
        repair = "Use ASCII characters only, or a UTF-8 locale such as LC_ALL=C.UTF-8."
        refuse("--out", "a path in UTF-8", ascii(absolute), repair)


# --- identity of a run ---------------------------------------------------------------------------


def manifest_of(settings: Settings, data: Data, mesh: Mesh) -> dict[str, Any]:
    """The settings in a checkpoint and in a model file."""
    options = {k: v for k, v in vars(settings).items() if k not in OF_THE_PROCESS}
    options["text"] = settings.text and list(settings.text)  # as JSON has it
    return {
        "options": options,
        "kernel": kernel_of_training(settings, len(data.alphabet.characters), mesh),
        "text_sha256": data.sha256,
        "machine": {
            "devices": f"{mesh.size} {mesh.devices[0].device_kind}",
            "processes": jax.process_count(),
            "cores of a process": jrnn.native.cpu_cores(),
            "versions": {"jrnn": jrnn.__version__, "jax": jax.__version__},
        },
    }


def find_checkpoint(settings: Settings, new: dict[str, Any], directory: Path) -> Checkpoint | None:
    """Find the checkpoint to resume by a run of a manifest; refuse one of another run."""
    with Checkpoints(directory) as checkpoints:
        found = checkpoints.latest(say=lambda text: print(text, file=sys.stderr, flush=True))
    if found is None:
        print(f"no checkpoint in {directory}: the run starts from its beginning")
        return None
    name = f"checkpoint {found.path}"
    old = found.manifest | {"options": BEFORE | found.manifest["options"]}
    was, now = (
        {option(k): m["options"][k] for k in FIXED} | {"text of SHA-256": m["text_sha256"]}
        for m in (old, new)
    )
    for key, value in was.items():
        if value != now[key]:
            repair = "Resume with what it was made with, or train anew into another --out."
            refuse(name, f"the run of {key} {now[key]}", value, repair)
    if found.step > settings.steps:
        repair = "Give at least as many --steps."
        refuse(name, f"at most {settings.steps:,} steps", f"{found.step:,}", repair)
    print(f"resumed     {name}, after step {found.step:,} of {settings.steps:,}")
    for what in ("options", "machine"):
        for key, value in old[what].items():
            if value != new[what].get(key):
                print(f"            {key}: was {value}, is {new[what].get(key)}")
    if old["machine"] != new["machine"]:
        same = "the same run to rounding, not bit for bit"
        devices = {m["machine"]["devices"].split()[0] for m in (old, new)}
        if settings.dropout and len(devices) > 1:
            same = "another run, since each device draws its own dropout"
        print(f"            another machine: {same}")
    if (kernel := old.get("kernel", KERNEL_BEFORE)) != new["kernel"]:
        print(f"            kernel: was {kernel}, is {new['kernel']}: ", end="")
        print("the results agree only up to rounding")
        if kernel == "XLA":
            print("            JRNN_NATIVE=0 resumes it without the native kernel")
    return found
