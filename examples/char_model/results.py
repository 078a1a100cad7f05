"""The results of a training run: models, a table, a plot, and where they are."""

import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
from command import write_whole
from networks import Model

from jrnn.metrics import write_csv
from jrnn.model_file import save_model
from jrnn.training import TrainState

from .directory import BEST, CHECKPOINTS, CURVE, METRICS, MODEL, RunDirectory, last_step
from .record import Record, Row
from .settings import Settings


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
) -> None:
    """Write the models, the metrics and the curve, and print the result of the last state."""
    folder.mkdir(parents=True, exist_ok=True)  # it may have been removed since
    write_model(folder / MODEL, state.params, settings, record.rows[-1])
    if not (record.best_is_written and (folder / BEST).exists()):
        write_model(folder / BEST, record.best_model, settings, record.best_row)
    report(record.rows, counts, settings["text_sha256"])  # even if the rest fails
    if state.nonfinite:
        print(f"  {int(state.nonfinite):,} batches were skipped: not finite")
    write_csv(folder / METRICS, record.rows)
    write_curve(folder / CURVE, record.rows, counts)


def write_curve(path: Path, rows: list[Row], counts: dict[str, float]) -> None:
    """Plot the learning curve as PNG, with horizontal lines for the n-gram models."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    million = [row["characters"] / 1e6 for row in rows]
    axes.plot(million, [row["train_bits"] for row in rows], label="network, training part")
    axes.plot(million, [row["validation_bits"] for row in rows], label="network, validation part")
    best = min(counts, key=counts.__getitem__)
    for name, style in {"2-gram": ":", "3-gram": "--", best: "-."}.items():
        label = f"{name}, validation part"
        axes.axhline(counts[name], color="gray", linestyle=style, label=label)
    axes.set(xlabel="characters read (millions)", ylabel="cross-entropy (bits per character)")
    last = rows[-1]["validation_bits"]
    axes.set_title(f"Character model: {last:.3f} bits per character on held-out text")
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_whole(path, picture.getvalue())


def report(rows: list[Row], counts: dict[str, float], sha256: str) -> None:
    """Print the result of the network and of the n-gram models."""
    network = rows[-1]["validation_bits"]
    print(f"\nvalidation, bits per character (text {sha256[:16]})")
    for name, bits in (counts | {"network": network}).items():
        print(f"  {name:8s} {bits:6.3f}")
    for name in ("3-gram", min(counts, key=counts.__getitem__)):
        difference = network - counts[name]
        side = "above" if difference > 0 else "below"
        print(f"  the network is {abs(difference):.3f} {side} the {name}")
    print(f"  trained at {rows[-1]['characters_per_second']:,.0f} characters/s")


def place_results(settings: Settings, directory: RunDirectory, record: Record) -> bool:
    """Move the files to their places and print these; return whether all was saved."""
    step, place = int(record.rows[-1]["step"]), directory.end(finished=record.is_finished)
    if record.is_finished and step < settings.steps:
        print(f"\nstopped early after step {step:,} of {settings.steps:,}: the last ", end="")
        print(f"{settings.patience} evaluations were not better than the best before them")
    print(f"\nin {place}")
    last, best = (MODEL, record.rows[-1], "the last state"), (BEST, record.best_row, "the best")
    for name, row, which in (last, best):
        bits = f"{row['validation_bits']:,.3f} bits per character"
        worse = ", worse than guessing" if record.is_worse_than_guessing(row) else ""
        print(f"  {name:18s} step {row['step']:,}: {bits}, {which}{worse}")
    print(f"  {METRICS}, {CURVE}, {CHECKPOINTS}\n")
    return record.is_finished or say_where_it_stopped(settings, directory, step)


def say_where_it_stopped(settings: Settings, directory: RunDirectory, step: int) -> bool:
    """Report where a run was interrupted; return whether `--resume` can continue there."""
    saved = last_step(directory.checkpoints)
    print(f"interrupted after step {step:,} of {settings.steps:,}; ", end="")
    print("all of it is saved, and" if saved == step else "no checkpoint of it was written")
    if saved is not None:
        print(f"--resume goes on from {directory.checkpoints / str(saved)}")
    if (settings.out / MODEL).exists():
        print(f"what the run before it left, which had finished, is still in {settings.out}")
    return saved == step
