"""Forecast monthly CO2 at Mauna Loa: a network that runs freely, and the seasonal naive forecast.

    pip install --no-deps statsmodels==0.15.0   # contains the data, 12 MB; not imported
    python examples/co2_forecast.py             # an Elman network, five seeds: under half a minute
    python examples/co2_forecast.py --cell lstm
    python examples/co2_forecast.py --validate

The network reads the change of each month and the month of the next one, and predicts the mean and
the standard deviation of the next change. It learns from the first 80 % of the series, with noise
on the changes that it reads. A missing month leaves its state as it is and is no target. It
forecasts the last 20 % from each month that has 60 months after it: it reads ten years, and
continues with its own means (the forecast) or its own draws (the interval). The naive forecast
repeats the last year, plus the mean yearly rise of the same ten years. The settings were chosen
with --validate, which learns from the first 80 % of the training part and forecasts the rest of it;
the last 20 % of the series were not used.
"""

import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import command
import jax
import jax.numpy as jnp
import numpy as np
import optax
from co2_data import LONGEST, YEAR, Changes, Job, absolute_errors, covered, levels, load, naive
from command import mean_and_error, refuse
from devices import on_devices, require_memory
from matplotlib.figure import Figure
from networks import CELLS, Model
from tqdm import tqdm

import jrnn

HORIZONS = (12, LONGEST)  # months
WEIGHT_DECAY = 0.01
BLOCK = 100  # steps of training in one call
OPTIONS_OF_SIZE = "--seeds, --steps, --hidden-size, --window, --batch-size or --draws"


@dataclass(frozen=True)
class Settings(command.Checked):
    """Forecast monthly CO2 at Mauna Loa by a network that runs freely."""

    out: Path = Path("out/co2_forecast")  # directory
    data: Path | None = None  # CSV file: a header, then YYYYMMDD,ppm; None: that of statsmodels
    validate: bool = False  # judge by the training part
    cell: Literal["rnn", "gru", "lstm"] = "rnn"  # rnn: an Elman network
    difference: Literal[1, 12] = 1  # months
    seeds: command.Positive = 5  # how many: 0, 1, ...
    steps: command.Positive = 2000
    hidden_size: command.Positive = 32
    window: command.Positive = 120  # months that are read
    batch_size: command.Positive = 8
    learning_rate: command.PositiveFloat = 3e-3  # decays to 0
    noise: command.NotNegativeFloat = 0.3  # deviation, added to the changes
    draws: command.Positive = 100  # for the interval

    def __post_init__(self) -> None:
        """Refuse settings that are none."""
        super().__post_init__()
        if self.window < 2 * YEAR:
            repair = "The naive forecast needs two years."
            refuse("--window", f"at least {2 * YEAR} months", self.window, repair)


# --- the training --------------------------------------------------------------------------------


def window_starts(settings: Settings, end: int, seed: int) -> np.ndarray:
    """`[steps, batch_size]` random first months of windows, whose last target is before `end`."""
    rng = np.random.default_rng(seed)
    return rng.integers(
        settings.difference, end - settings.window, (settings.steps, settings.batch_size)
    )


def init_model(key: jax.Array, settings: Settings) -> Model:
    """One layer, and a readout of the mean and the logarithm of the deviation, as jrnn draws it."""
    key_stack, key_readout = jax.random.split(key)
    return Model(
        jrnn.init_stack(key_stack, 1 + YEAR, [settings.hidden_size], cell=settings.cell),
        jrnn.init_readout(key_readout, settings.hidden_size, 2),
    )


def make_train(settings: Settings, by: Changes, optimizer: Any) -> Any:
    """`(state, (starts [steps, batch_size], keys [steps])) -> (state, losses)`, for all seeds."""
    inputs, xs, seen = map(jnp.asarray, (by.inputs(), by.xs, by.seen))

    def loss(model: Model, starts: jax.Array, key: jax.Array) -> jax.Array:
        at = starts[None] + jnp.arange(settings.window)[:, None]
        noise = settings.noise * jax.random.normal(key, at.shape, jnp.float32)
        read = inputs[at].at[..., 0].add(noise)
        known = seen[at] & seen[at + 1]
        given = (model.rnn, model.readout, read, xs[at + 1])
        total, _ = jrnn.rnn_loss(*given, mask=seen[at], loss=jrnn.gaussian_nll, weights=known)
        return total / known.sum()

    def step(state: Any, drawn: Any) -> Any:
        model, opt_state = state
        value, grads = jax.value_and_grad(loss)(model, *drawn)
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return (optax.apply_updates(model, updates), opt_state), value

    return jax.jit(jax.vmap(partial(jax.lax.scan, step)))


def train(settings: Settings, job: Job) -> tuple[Model, np.ndarray]:
    """Train all seeds in parallel; return the models and the losses `[seeds, steps]` in nats."""
    schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
    keys = jax.vmap(jax.random.key)(jnp.arange(settings.seeds))
    # Not in a jit: batches of QR factorisations in one program can block (jaxlib 0.10.2).
    models = jax.vmap(partial(init_model, settings=settings))(keys)
    keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, 1), settings.steps))(keys)
    state = models, jax.vmap(optimizer.init)(models)
    starts = np.stack([window_starts(settings, job.end, seed) for seed in range(settings.seeds)])
    train_block, losses = make_train(settings, job.by, optimizer), []
    with tqdm(total=settings.steps, desc=settings.cell, unit="step") as bar:
        for first in range(0, settings.steps, BLOCK):
            block = slice(first, first + BLOCK)
            state, values = train_block(state, (starts[:, block], keys[:, block]))
            losses.append(np.asarray(values))
            bar.update(losses[-1].shape[1])
            bar.set_postfix_str(f"loss {losses[-1].mean():.4f}")
    return state[0], np.concatenate(losses, 1)


# --- the forecast --------------------------------------------------------------------------------


def mean_of(_: jax.Array | None, outputs: jax.Array) -> jax.Array:
    """The next input is the mean."""
    return outputs[..., :1]


def draw_of(key: jax.Array | None, outputs: jax.Array) -> jax.Array:
    """The next input is a draw."""
    assert key is not None  # noqa: S101
    mean, log_std = jnp.split(outputs, 2, -1)
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)


def forecast(settings: Settings, job: Job, models: Model) -> tuple[np.ndarray, np.ndarray]:
    """Means `[seeds, LONGEST, N]` and draws `[seeds, draws, LONGEST, N]` in ppm."""
    by, origins = job.by, job.origins
    inputs, seen = by.inputs(), by.seen
    at = origins - settings.window + np.arange(settings.window)[:, None]
    months = by.month[origins - 1 + np.arange(LONGEST)[:, None]]  # known in advance
    keys = jax.random.split(jax.random.key(settings.seeds), settings.draws)

    def run(model: Model) -> tuple[jax.Array, jax.Array]:
        states, _ = jrnn.stack(model.rnn, inputs[at][:-1], mask=seen[at][:-1])
        last = jnp.asarray(by.xs[origins - 1])[None]
        given = (model.rnn, model.readout, last, LONGEST, states, months)
        _, means = jrnn.generate(*given, draw=mean_of)
        _, draws = jax.vmap(lambda key: jrnn.generate(*given, key, draw=draw_of))(keys)
        return means[..., 0], draws[..., 0]

    found = jax.jit(jax.vmap(run))(models)
    means, draws = (levels(job.series, origins, np.asarray(changes), by) for changes in found)
    return means, draws


def check_memory(settings: Settings, job: Job) -> None:
    """Refuse a training of all seeds that does not fit on the device."""
    H, (blocks, states) = settings.hidden_size, CELLS[settings.cell][-2:]
    network = 4 * blocks * H * (1 + YEAR + H) + settings.window * settings.batch_size * states * H
    starts = 2 * settings.steps * (settings.batch_size + 1)  # 64-bit integers, and keys
    draws = settings.draws * LONGEST * len(job.origins)
    what = "each seed's parameters, their gradient, its two moments, states, windows and draws"
    require_memory(settings.seeds * (network + starts + draws), what, OPTIONS_OF_SIZE)


# --- results -------------------------------------------------------------------------------------


def evaluate(settings: Settings, job: Job) -> tuple[dict[str, Any], Any]:
    """Train, forecast, and compare; return the record, and the forecasts for the figure."""
    began = time.perf_counter()
    models, losses = train(settings, job)
    means, draws = forecast(settings, job, models)
    simple = naive(job.series, job.origins, settings.window // YEAR)
    record = {
        "part": "validation" if settings.validate else "test",
        "options": asdict(settings),
        "months": [len(job.series.ppm), int(np.isnan(job.series.ppm).sum())],  # all, missing
        "origins": len(job.origins),
        "seconds": time.perf_counter() - began,
        "loss": losses[:, -BLOCK:].mean(1).tolist(),  # [seeds]
        "errors": absolute_errors(job.series, job.origins, means).tolist(),  # [seeds, LONGEST]
        "naive": absolute_errors(job.series, job.origins, simple).tolist(),  # [LONGEST]
        "covered": covered(job, draws).tolist(),  # [LONGEST]
    }
    return record, (means, draws, simple)


def table(record: dict[str, Any]) -> str:
    """Make a Markdown table, and sentences that name the better forecast."""
    errors, simple = np.array(record["errors"]), np.array(record["naive"])
    header = ["forecast", *(f"error over {h} months, ppm" for h in HORIZONS)]
    header += [f"80 % interval, {h} months" for h in HORIZONS]
    cell, own = record["options"]["cell"], [errors[:, :h].mean(1) for h in HORIZONS]
    cells = [cell, *("{:.3f} ({:.3f})".format(*mean_and_error(values)) for values in own)]
    cells += [f"{100 * np.mean(record['covered'][:h]):.0f} %" for h in HORIZONS]
    other_cells = ["seasonal naive", *(f"{simple[:h].mean():.3f}" for h in HORIZONS), "", ""]
    lines = [command.markdown(header, [cells, other_cells])]
    for h, values in zip(HORIZONS, own, strict=True):
        (mean, error), other = mean_and_error(values), simple[:h].mean()
        better = cell if mean < other else "seasonal naive"
        if abs(mean - other) <= error:
            better = "neither, by one standard error"
        lines.append(f"\nOver {h} months the better forecast is: {better}.")
    return "\n".join(lines)


def draw(record: dict[str, Any], job: Job, forecasts: Any, path: Path) -> None:
    """Plot the forecasts from the first origin, their errors, and the errors of all origins."""
    figure = Figure(figsize=(16, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    means, draws, simple = (x[..., 0] for x in forecasts)  # from the first origin
    origin, ppm, cell = job.origins[0], job.series.ppm, record["options"]["cell"]
    years = (job.series.first + np.arange(len(ppm)) + 0.5) / YEAR
    shown, ahead = slice(origin - 2 * YEAR, origin + LONGEST), slice(origin, origin + LONGEST)
    low, high = np.quantile(draws[0], (0.1, 0.9), axis=0)
    left.plot(years[shown], ppm[shown], color="black", label="observed")
    for panel, minus in ((left, 0), (middle, ppm[ahead])):
        label = f"80 % of {len(draws[0])} draws"
        band = (low - minus, high - minus)
        panel.fill_between(years[ahead], *band, alpha=0.25, color="C0", linewidth=0, label=label)
        panel.plot(years[ahead], means[0] - minus, color="C0", label=f"{cell}, seed 0")
        panel.plot(years[ahead], simple - minus, "--", color="C1", label="seasonal naive")
    left.legend(loc="upper left")  # of both
    middle.axhline(0, color="black", linewidth=1)
    left.set(title="CO2 and forecasts from one origin", xlabel="year", ylabel="ppm")
    middle.set(title="The same forecasts minus the observed", xlabel="year", ylabel="ppm")
    months, errors = np.arange(1, LONGEST + 1), np.array(record["errors"])
    right.plot(months, errors.mean(0), color="C0", label=f"{cell}: mean and range of the seeds")
    right.fill_between(months, errors.min(0), errors.max(0), alpha=0.25, color="C0", linewidth=0)
    right.plot(months, record["naive"], "--", color="C1", label="seasonal naive")
    right.set(xlabel="months ahead", ylabel="mean absolute error (ppm)", ylim=(0, None))
    right.set_title(f"Errors of {record['origins']} origins, {record['part']} part")
    right.legend(loc="upper left")
    figure.savefig(path, dpi=100)


# --- the command ---------------------------------------------------------------------------------


def results(settings: Settings) -> str:
    """Write the record, the table and the figure; return the table."""
    settings.out.mkdir(parents=True, exist_ok=True)
    with on_devices(OPTIONS_OF_SIZE):
        job = load(settings)
        check_memory(settings, job)
        record, forecasts = evaluate(settings, job)
    command.write_results(settings.out / "co2_forecast", record, table(record))
    draw(record, job, forecasts, settings.out / "co2_forecast.png")
    return f"\n{table(record)}\n\nco2_forecast.md, .json and .png are in {settings.out}"


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, 1 after bad input, or 130 after Ctrl-C."""
    settings = Settings.parse(argv)
    return command.exit_status(lambda: results(settings), "not all is written")


if __name__ == "__main__":
    sys.exit(main())
