"""The metrics of a training run of the character model, one row per evaluation."""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from command import refuse
from networks import Model

from jrnn.metrics import early_stopping
from jrnn.training import StepMetrics, TrainState

from .settings import Settings

Row = dict[str, float]


class Record:
    """The metrics of a run, one row per evaluation; the time excludes first steps.

    The model of the best row (the lowest validation bits per character) is kept too.
    """

    def __init__(
        self,
        settings: Settings,
        alphabet_size: int,
        evaluate: Callable[[Model], float],
        model: Model,
        write_best: Callable[[Model, Row], bool],
        on_metrics: Callable[[Row], Any],
    ) -> None:
        """Start; `write_best` is called with each new best model, `on_metrics` with each row."""
        self.rows: list[Row] = []
        self._write_best, self._on_metrics = write_best, on_metrics
        self.best_model = jax.tree.map(jnp.copy, model)  # a training step donates its buffers
        self.best_is_written = False
        self._best_since = 0  # step; earlier rows have no saved model
        self.evenly = float(np.log2(alphabet_size - 1))  # bits of a uniform guess, without U+FFFD
        self._settings, self._evaluate = settings, evaluate
        self._step_characters = settings.length * settings.batch_size
        self._metrics: list[StepMetrics] = []  # since the last `read`, on the device
        self._losses: list[float] = []  # since the last row
        self.bits = np.nan  # per character, from the last loss that was read
        self._seconds, self._timed, self._started = 0.0, 0, 0.0

    @property
    def is_finished(self) -> bool:
        """Whether the run has made all its steps, or stops early."""
        every, patience = self._settings.eval_every, self._settings.patience
        history = [r["validation_bits"] for r in self.rows if r["step"] % every == 0]
        if patience is not None and early_stopping(history, patience):
            return True
        return bool(self.rows) and self.rows[-1]["step"] == self._settings.steps

    def add(self, metrics: StepMetrics) -> None:
        """Keep the metrics of a step on the device, since reading would block."""
        self._metrics.append(metrics)
        if self._started:
            self._timed += 1
        else:  # the first step compiles
            metrics.loss.block_until_ready()
            self._started = time.perf_counter()

    def read(self, step: int, state: TrainState) -> None:
        """Read the kept metrics up to a step, that of the state; refuse NaN or inf, as configured.

        A state that has stopped counts no more steps, so the next step is the one that stopped it.
        """
        stopped = self._settings.nonfinite == "stop" and int(state.nonfinite) > 0
        metrics, self._metrics = jax.device_get(self._metrics), []
        for number, m in enumerate(metrics, step - len(metrics) + 1):
            if stopped and number > int(state.step):
                _refuse_nonfinite(number, m)
            self._losses.append(float(m.loss))
            self.bits = self._losses[-1] / np.log(2)

    def evaluate(self, step: int, model: Model) -> float:
        """Complete a row after `read`; return the validation bits per character."""
        if self.rows and self.rows[-1]["step"] == step:  # resumed at the end of a run
            return self.rows[-1]["validation_bits"]
        self._stop_the_clock()
        losses = np.array(self._losses)
        if not np.isfinite(losses).any():
            repair = "--resume goes on from before it, with a lower --learning-rate or --clip."
            refuse(f"training, up to step {step:,}", "a finite loss", "none", repair)
        row: Row = {"step": step, "characters": step * self._step_characters}
        row["train_bits"] = float(losses[np.isfinite(losses)].mean() / np.log(2))
        row["validation_bits"] = validation_bits = self._evaluate(model)
        row["characters_per_second"] = self._timed * self._step_characters / self._seconds
        self.rows.append(row)
        if self.best_row is row:
            self.best_model = jax.tree.map(jnp.copy, model)
            self.best_is_written = self._write_best(self.best_model, row)
        self._say_if_worse_than_guessing()
        self._on_metrics(dict(row))
        self._losses, self._started = [], time.perf_counter()
        return validation_bits

    @property
    def best_row(self) -> Row:
        """The first row with the lowest bits, of those with a saved model."""
        rows = [row for row in self.rows if row["step"] >= self._best_since]
        return min(rows, key=lambda row: np.nan_to_num(row["validation_bits"], nan=np.inf))

    def is_worse_than_guessing(self, row: Row) -> bool:
        """Whether the training has diverged: random weights are 0.4 bits above a uniform guess."""
        return not row["validation_bits"] <= self.evenly + 1

    def _say_if_worse_than_guessing(self) -> None:
        *before, row = self.rows
        said = before and self.is_worse_than_guessing(before[-1])
        if said or not self.is_worse_than_guessing(row) or jax.process_index() > 0:
            return
        text = f"{row['validation_bits']:,.1f} bits per character on the validation part, where "
        text += f"guessing all characters evenly takes {self.evenly:.1f}: the training has blown "
        text += "up. Lower --learning-rate or --clip."
        if before:
            bits, step = self.best_row["validation_bits"], self.best_row["step"]
            text += f" The best model, {bits:.3f} bits at step {step:,}, is kept too."
        print(f"\nstep {row['step']:,}: {text}", file=sys.stderr, flush=True)

    def _stop_the_clock(self) -> None:
        if self._started:
            now = time.perf_counter()
            self._seconds, self._started = self._seconds + now - self._started, now

    def to_json(self) -> dict[str, Any]:
        """The record as JSON, for the manifest of a checkpoint."""
        self._stop_the_clock()
        clock = {"seconds": self._seconds, "timed": self._timed}
        return {"rows": self.rows, "losses": self._losses, "best_since": self._best_since} | clock

    def from_json(self, saved: dict[str, Any], best_model: Model, step: int) -> None:
        """Load the record of a checkpoint; version 0.1 has only the model of its last step."""
        self.rows, self._losses = saved["rows"], saved["losses"]
        self._seconds, self._timed = saved["seconds"], saved["timed"]
        self.best_model, self._best_since = best_model, saved.get("best_since", step)
        if self.rows and self.rows[-1]["step"] >= self._best_since:
            self.best_is_written = self._write_best(self.best_model, self.best_row)


def _refuse_nonfinite(step: int, metrics: StepMetrics) -> None:
    """Raise an error with the step and the norms of the gradients."""
    named = jax.tree_util.tree_leaves_with_path(metrics.grad_norms)
    name = partial(jax.tree_util.keystr, simple=True, separator=".")
    norms = ", ".join(f"{name(path)} {norm:.3g}" for path, norm in named)
    came = f"the loss {metrics.loss:.3g} and gradients of the norms {norms}"
    if np.isfinite([metrics.loss, metrics.grad_norm]).all():
        came = f"an update or a state that is not, from {came}"
    repair = "Nothing was changed by it: --resume goes on from before it, with a lower "
    repair += "--learning-rate or --clip; --nonfinite skip leaves such batches out."
    refuse(f"training, step {step:,}", "a finite loss, gradient, update and state", came, repair)
