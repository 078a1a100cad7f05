"""Write the results of a run of the character model, and report where they are."""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
from char_data import Data
from char_model import Model
from char_out import BEST, CHECKPOINTS, CURVE, METRICS, MODEL, RunDirectory, last_step
from char_record import Record, Row
from char_report import report, write_curve, write_metrics
from char_run import manifest_of
from jax.sharding import Mesh

from jrnn.model_file import save_model
from jrnn.training import TrainState


def settings_of(args: argparse.Namespace, data: Data, mesh: Mesh) -> dict[str, Any]:
    """The settings in every model file of a run."""
    model = {"characters": data.alphabet.characters}
    model |= {"cell": args.cell, "activation": args.activation}
    return model | manifest_of(args, data, mesh)


def write_model(path: Path, model: Model, settings: dict[str, Any], row: Row) -> None:
    """Write a model file with its step and its bits per character."""
    bits = row["validation_bits"]
    measured = {"step": row["step"], "validation_bits": bits if np.isfinite(bits) else None}
    save_model(path, jax.device_get(model)._asdict(), settings | measured)


def write_results(
    folder: Path,
    settings: dict[str, Any],
    state: TrainState,
    record: Record,
    counts: dict[str, float],
    data: Data,
) -> None:
    """Write the models, the metrics and the curve, and print the result of the last state."""
    folder.mkdir(parents=True, exist_ok=True)  # it may have been removed since
    write_model(folder / MODEL, state.params, settings, record.rows[-1])
    if not (record.best_is_written and (folder / BEST).exists()):
        write_model(folder / BEST, record.best_model, settings, record.best_row)
    report(record.rows, counts, data)  # even if the rest fails
    if state.nonfinite:
        print(f"  {int(state.nonfinite):,} batches were skipped: no finite loss or gradient")
    write_metrics(folder / METRICS, record.rows)
    write_curve(folder / CURVE, record.rows, counts)


def place_results(args: argparse.Namespace, directory: RunDirectory, record: Record) -> bool:
    """Move the files to their places and print these; return whether all was saved."""
    step = int(record.rows[-1]["step"])
    place = directory.end(finished=step == args.steps)
    print(f"\nin {place}")
    last, best = (MODEL, record.rows[-1], "the last state"), (BEST, record.best_row, "the best")
    for name, row, which in (last, best):
        bits = f"{row['validation_bits']:,.3f} bits per character"
        worse = ", worse than guessing" if record.is_worse_than_guessing(row) else ""
        print(f"  {name:18s} step {row['step']:,}: {bits}, {which}{worse}")
    print(f"  {METRICS}, {CURVE}, {CHECKPOINTS}\n")
    return step == args.steps or say_where_it_stopped(args, directory, step)


def say_where_it_stopped(args: argparse.Namespace, directory: RunDirectory, step: int) -> bool:
    """Report where a run was interrupted; return whether `--resume` can continue there."""
    saved = last_step(directory.checkpoints)
    print(f"interrupted after step {step:,} of {args.steps:,}; ", end="")
    print("all of it is saved, and" if saved == step else "no checkpoint of it was written")
    if saved is not None:
        print(f"--resume goes on from {directory.checkpoints / str(saved)}")
    if (args.out / MODEL).exists():
        print(f"what the run before it left, which had finished, is still in {args.out}")
    return saved == step
