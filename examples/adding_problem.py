"""The adding problem: which networks and initial weights learn over hundreds of steps?

    python examples/adding_problem.py                          # T = 100, 4 starts: under a minute
    python examples/adding_problem.py --lengths 200 --starts relu-identity --learning-rate 1e-4
    python examples/adding_problem.py --cell lstm              # T = 200, 400; or --cell gru

Each step has two inputs: a number u, uniform in [0, 1], and a marker m, which is 1 at one step of
the first half and at one step of the second half, else 0. The target, after the last step, is

    y = sum_t m_t u_t                    E (y - 1)^2 = 2/12 = 0.167, the error of guessing 1

(Hochreiter & Schmidhuber, Long short-term memory, 1997; also Le, Jaitly & Hinton, A simple way to
initialize recurrent networks of rectified linear units, 2015). No sequence is used twice, so the
training error is the error on new sequences. Training stops when the mean error over a block of
steps is below --goal. The plots show the learning curves and how far back the output depends on the
state, before and after training. Each run adds a row to the table in --out, or replaces the row
with the same length, start and learning rate. Ctrl-C loses only the current run.

Each cell has its own starts and defaults. The start of an Elman network is an activation and a
w_hh, that of a GRU or an LSTM the biases of its gates: `default`, those of `jrnn.init_gru` and
`jrnn.init_lstm`, or `chrono`, with which the units remember for 1 to T steps (Tallec & Ollivier,
Can recurrent neural networks warp time?, 2018).
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import command
import jax
import jax.numpy as jnp
import numpy as np
import optax
from adding_networks import (
    BIASES,
    STARTS,
    W_HH_INITS,
    draw_batch,
    init_model,
    mean_squared_error,
    sensitivity,
)
from command import refuse
from devices import on_devices, require_memory
from matplotlib.figure import Figure
from networks import CELLS, Model, kernel_of
from tqdm import tqdm

import jrnn

GUESSING = 2 / 12
OPTIONS_OF_SIZE = "--hidden-size, --batch-size, --lengths or --block"
LINES = {"relu": "-", "tanh": "--", "gru": "-.", "lstm": (0, (4, 1, 1, 1, 1, 1))}
FOUR = ("relu-identity", "relu-orthogonal", "relu-spectral", "tanh-orthogonal")
ELMAN = {"lengths": (100,), "starts": FOUR, "hidden_size": 128, "learning_rate": 1e-3}
GATED = {"lengths": (200, 400), "hidden_size": 64, "learning_rate": 5e-3}
RECIPES: dict[str, dict[str, Any]] = {
    "rnn": ELMAN,
    "gru": GATED | {"starts": ("gru-chrono",)},
    "lstm": GATED | {"starts": ("lstm-chrono",)},
}

Row = dict[str, Any]  # the results of a run


@dataclass(frozen=True)
class Settings(command.Checked):
    """The adding problem: which networks and initial weights learn over hundreds of steps?

    Options that are 0 or empty have the values of the cell's recipe.
    """

    cell: Literal["rnn", "gru", "lstm"] = "rnn"  # rnn: an Elman network
    out: Path = Path("out/adding_problem")  # directory
    lengths: tuple[command.Positive, ...] = ()  # T; rnn: 100; gru, lstm: 200 400
    starts: tuple[str, ...] = ()
    """activation-w_hh, or cell-biases, or all; rnn: four; gru: gru-chrono; lstm: lstm-chrono"""
    steps: command.Positive = 3000  # of each training, at most
    block: command.Positive = 100  # steps whose error is averaged
    goal: command.PositiveFloat = 0.01  # learned below it
    hidden_size: command.NotNegative = 0  # H; rnn: 128; gru, lstm: 64
    batch_size: command.Positive = 64
    learning_rate: command.NotNegativeFloat = 0.0  # of Adam; rnn: 1e-3; gru, lstm: 5e-3
    clip: command.PositiveFloat = 1.0  # gradient norm
    seed: command.NotNegative = 0

    def __post_init__(self) -> None:
        """Replace 0 and empty values by those of the recipe; refuse settings that are none."""
        super().__post_init__()
        own = tuple(name for name, start in STARTS.items() if start.cell == self.cell)
        given = {name: getattr(self, name) or value for name, value in RECIPES[self.cell].items()}
        if "all" in given["starts"]:
            given["starts"] = own
        for name, value in given.items():
            object.__setattr__(self, name, value)
        if not set(self.starts) <= set(own):
            expected = f"all, or some of {', '.join(own)}, with --cell {self.cell}"
            refuse("--starts", expected, " ".join(self.starts), "Each cell has its own.")
        if min(self.lengths) < 2:
            refuse("--lengths", "at least 2", min(self.lengths), "Two steps are marked.")
        if self.steps % self.block:
            expected = f"a multiple of --block, {self.block}"
            refuse("--steps", expected, self.steps, "The error is the mean of a block.")


# --- the training --------------------------------------------------------------------------------


def make_train_block(
    settings: Settings, T: int, loss: Callable[..., Any], key: jax.Array
) -> tuple[Callable[[Model], Any], Callable[[Any, int], Any]]:
    """Make the initial training state, and a compiled loop of `--block` steps."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(settings.clip), optax.adam(settings.learning_rate)
    )

    def step(state: Any, n: jax.Array) -> Any:
        model, opt_state = state
        batch = draw_batch(jax.random.fold_in(key, n), T, settings.batch_size)
        error, grads = jax.value_and_grad(loss)(model, *batch)
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return (optax.apply_updates(model, updates), opt_state), error

    @jax.jit
    def train_block(state: Any, first: int) -> Any:
        state, errors = jax.lax.scan(step, state, first + jnp.arange(settings.block))
        return state, errors.mean()

    return lambda model: (model, optimizer.init(model)), train_block


def run(settings: Settings, T: int, start: str) -> Row:
    """Train one network until its error is below the goal or not finite, or until --steps."""
    network = STARTS[start].run
    loss = partial(mean_squared_error, network)
    key_model, key_data, key_measured = jax.random.split(jax.random.key(settings.seed), 3)
    model = init_model(key_model, start, T, settings.hidden_size)
    before = sensitivity(network, model, key_measured, T)
    batch = jax.eval_shape(lambda: draw_batch(key_data, T, settings.batch_size))
    kernel = kernel_of(loss, model, *batch)
    begin, train_block = make_train_block(settings, T, loss, key_data)
    state, errors, began = begin(model), [], time.perf_counter()
    with tqdm(total=settings.steps, desc=f"T = {T}, {start}", unit="step") as bar:
        while bar.n < settings.steps:
            state, error = train_block(state, bar.n)
            errors.append(float(error))
            bar.set_postfix_str(f"error {errors[-1]:.4f}")
            bar.update(settings.block)
            if not settings.goal <= errors[-1] < np.inf:
                break
    after = sensitivity(network, state[0], key_measured, T)
    return {
        "length": T,
        "start": start,
        "learned": errors[-1] < settings.goal,
        "steps": bar.n,
        "error": finite(errors[-1:])[0],
        "seconds": time.perf_counter() - began,
        "errors": finite(errors),
        "before": finite(before),
        "after": finite(after),
        "options": asdict(settings),
        "versions": {"jrnn": jrnn.__version__, "jax": jax.__version__},
        "kernel": kernel,
    }


def finite(values: Any) -> list[float | None]:
    """Values for JSON, with None for values that are not finite."""
    return [float(x) if np.isfinite(x) else None for x in values]


# --- results -------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """Make a Markdown table with a row per run."""
    header = ["T", "start", "H", "batch", "rate", "clip"]
    header += ["learned", "steps", "mean squared error", "seconds"]
    header += ["left at the first step: before", "after"]
    lines = []
    for row in rows:
        error = "no number" if row["error"] is None else f"{row['error']:.4f}"
        left = [f"{row[k][-1]:.0e}" if row[k][-1] is not None else "-" for k in ("before", "after")]
        cells = [row["length"], row["start"], row["options"]["hidden_size"]]
        cells += [f"{row['options'][k]:g}" for k in ("batch_size", "learning_rate", "clip")]
        cells += ["yes" if row["learned"] else "no", f"{row['steps']:,}", error]
        lines.append([*cells, f"{row['seconds']:.0f}", *left])
    return command.markdown(header, lines)


def draw(rows: list[Row], path: Path) -> None:
    """Plot three panels per length: learning curves, and sensitivity before and after."""
    lengths = sorted({row["length"] for row in rows})
    figure = Figure(figsize=(16, 4.4 * len(lengths)), layout="constrained")
    grid = figure.subplots(len(lengths), 3, squeeze=False)
    for T, panels in zip(lengths, grid, strict=True):
        curve, before, after = panels
        for row in (row for row in rows if row["length"] == T):
            errors, block = np.array(row["errors"], float), row["options"]["block"]
            curve.plot(block * np.arange(1, len(errors) + 1), errors, **style(row))
            before.plot(above_zero(row["before"]), **style(row))
            after.plot(above_zero(row["after"]), **style(row))
        curve.axhline(GUESSING, color="gray", linestyle=":", label="guessing 1: 0.167")
        curve.set(yscale="log", ylim=(3e-3, 1), xlabel="training step", ylabel="mean squared error")
        curve.set_title(f"T = {T}: error on new sequences")
        for panel, when in ((before, "before"), (after, "after")):
            panel.set(yscale="log", ylim=(1e-12, 1e2), xlabel="lag l (steps)")
            panel.set(ylabel=r"$\|do_T/ds_{T-l}\|$ over that at lag 0")
            panel.set_title(f"T = {T}: what the output depends on, {when}")
    named = {label: line for panel in grid[:, 0] for line, label in legend_of(panel)}
    figure.legend(named.values(), named.keys(), loc="outside right center")
    figure.savefig(path, dpi=100)


def style(row: Row) -> dict[str, Any]:
    """One colour per initialisation, one line style per kind of network."""
    kind, init = row["start"].split("-")
    label = f"{row['start']}, {row['options']['learning_rate']:g}"
    colour = f"C{[*W_HH_INITS, *BIASES].index(init)}"
    return {"color": colour, "linestyle": LINES[kind], "label": label}


def above_zero(values: list[float | None]) -> np.ndarray:
    """Values with NaN (not drawn) for those that have no logarithm."""
    found = np.array(values, float)
    return np.where(found > 0, found, np.nan)


def legend_of(panel: Any) -> Any:
    """The lines of a panel and their labels."""
    return zip(*panel.get_legend_handles_labels(), strict=True)


def earlier_rows(path: Path) -> dict[tuple[int, int, float], Row]:
    """The rows of earlier runs in `--out`."""
    if not path.exists():
        return {}
    try:
        return {order(row): row for row in json.loads(path.read_text())}
    except (ValueError, KeyError, TypeError):
        refuse("--out", "a directory with rows of this program", path, "Name another one.")


# --- the command ---------------------------------------------------------------------------------


def check_memory(settings: Settings) -> None:
    """Refuse a training that does not fit on the device."""
    T, B, H = max(settings.lengths), settings.batch_size, settings.hidden_size
    blocks, states = CELLS[settings.cell][-2:]
    what = "the parameters, their gradient, its two moments, and the states of a batch"
    parameters = blocks * (2 * H + H * H + H) + H + 1
    require_memory(4 * parameters + T * B * states * H, what, OPTIONS_OF_SIZE)


def run_all(settings: Settings) -> None:
    """Run every length and start; write the results after each run."""
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "adding_problem.json"
    earlier_rows(path)  # refuse another file before the first run
    for T in settings.lengths:
        for start in settings.starts:
            row = run(settings, T, start)
            rows = earlier_rows(path) | {order(row): row}  # another process may have added some
            write(settings.out, [rows[key] for key in sorted(rows)])


def results(settings: Settings) -> str:
    """Run everything; return the table."""
    with on_devices(OPTIONS_OF_SIZE):
        check_memory(settings)
        run_all(settings)
    table = (settings.out / "adding_problem.md").read_text()
    return f"\n{table}\nadding_problem.md, .json and .png are in {settings.out}"


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, 1 after bad input, or 130 after Ctrl-C."""
    settings = Settings.parse(argv)
    return command.exit_status(
        lambda: results(settings), f"the runs that had ended are in {settings.out}"
    )


def order(row: Row) -> tuple[int, int, float]:
    """The key of a row: its length, start and learning rate, in the order of the table."""
    return row["length"], list(STARTS).index(row["start"]), row["options"]["learning_rate"]


def write(out: Path, rows: list[Row]) -> None:
    """Write the table, all results, and the plot."""
    command.write_results(out / "adding_problem", rows, table(rows))
    draw(rows, out / "adding_problem.png")


if __name__ == "__main__":
    sys.exit(main())
