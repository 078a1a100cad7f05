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

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from char_model.devices import on_devices, require_memory
from char_model.model import CELLS
from co2_data import LONGEST, YEAR, Changes, Job, absolute_errors, covered, levels, load, naive
from command import exit_status, positive, positive_float
from matplotlib.figure import Figure
from tqdm import tqdm

import jrnn

HORIZONS = (12, LONGEST)  # months
WEIGHT_DECAY = 0.01
BLOCK = 100  # steps of training in one call
OPTIONS_OF_SIZE = "--seeds, --steps, --hidden-size, --window, --batch-size or --draws"


class Model(NamedTuple):
    """The trainable parameters."""

    stack: jrnn.StackParams
    readout: jrnn.ReadoutParams  # of the mean and the logarithm of the standard deviation


# --- the training --------------------------------------------------------------------------------


def window_starts(args: argparse.Namespace, end: int, seed: int) -> np.ndarray:
    """`[steps, batch_size]` random first months of windows, whose last target is before `end`."""
    rng = np.random.default_rng(seed)
    return rng.integers(args.difference, end - args.window, (args.steps, args.batch_size))


def init_model(key: jax.Array, args: argparse.Namespace) -> Model:
    """One layer, as jrnn draws it."""
    key_stack, key_readout = jax.random.split(key)
    return Model(
        jrnn.init_stack(key_stack, 1 + YEAR, [args.hidden_size], cell=args.cell),
        jrnn.init_readout(key_readout, args.hidden_size, 2),
    )


def make_train(args: argparse.Namespace, by: Changes, optimizer: Any) -> Any:
    """`(state, (starts [steps, batch_size], keys [steps])) -> (state, losses)`, for all seeds."""
    inputs, xs, seen = map(jnp.asarray, (by.inputs(), by.xs, by.seen))

    def loss(model: Model, starts: jax.Array, key: jax.Array) -> jax.Array:
        at = starts[None] + jnp.arange(args.window)[:, None]
        noise = args.noise * jax.random.normal(key, at.shape, jnp.float32)
        read = inputs[at].at[..., 0].add(noise)
        known = seen[at] & seen[at + 1]
        given = (model.stack, model.readout, read, xs[at + 1])
        total, _ = jrnn.rnn_loss(*given, mask=seen[at], loss=jrnn.gaussian_nll, weights=known)
        return total / known.sum()

    def step(state: Any, drawn: Any) -> Any:
        model, opt_state = state
        value, grads = jax.value_and_grad(loss)(model, *drawn)
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return (optax.apply_updates(model, updates), opt_state), value

    return jax.jit(jax.vmap(partial(jax.lax.scan, step)))


def train(args: argparse.Namespace, job: Job) -> tuple[Model, np.ndarray]:
    """Train all seeds in parallel; return the models and the losses `[seeds, steps]` in nats."""
    schedule = optax.cosine_decay_schedule(args.learning_rate, args.steps)
    optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
    keys = jax.vmap(jax.random.key)(jnp.arange(args.seeds))
    # Not in a jit: batches of QR factorisations in one program can block (jaxlib 0.10.2).
    models = jax.vmap(partial(init_model, args=args))(keys)
    keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, 1), args.steps))(keys)
    state = models, jax.vmap(optimizer.init)(models)
    starts = np.stack([window_starts(args, job.end, seed) for seed in range(args.seeds)])
    train_block, losses = make_train(args, job.by, optimizer), []
    with tqdm(total=args.steps, desc=args.cell, unit="step") as bar:
        for first in range(0, args.steps, BLOCK):
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


def forecast(args: argparse.Namespace, job: Job, models: Model) -> tuple[np.ndarray, np.ndarray]:
    """Means `[seeds, LONGEST, N]` and draws `[seeds, draws, LONGEST, N]` in ppm."""
    by, origins = job.by, job.origins
    inputs, seen = by.inputs(), by.seen
    at = origins - args.window + np.arange(args.window)[:, None]
    months = by.month[origins - 1 + np.arange(LONGEST)[:, None]]  # known in advance
    keys = jax.random.split(jax.random.key(args.seeds), args.draws)

    def run(model: Model) -> tuple[jax.Array, jax.Array]:
        states, _ = jrnn.stack(model.stack, inputs[at][:-1], mask=seen[at][:-1])
        last = jnp.asarray(by.xs[origins - 1])[None]
        given = (model.stack, model.readout, last, LONGEST, states, months)
        _, means = jrnn.generate(*given, draw=mean_of)
        _, draws = jax.vmap(lambda key: jrnn.generate(*given, key, draw=draw_of))(keys)
        return means[..., 0], draws[..., 0]

    found = jax.jit(jax.vmap(run))(models)
    means, draws = (levels(job.series, origins, np.asarray(changes), by) for changes in found)
    return means, draws


def check_memory(args: argparse.Namespace, job: Job) -> None:
    """Refuse a training of all seeds that does not fit on the device."""
    H, (_, _, blocks, states) = args.hidden_size, CELLS[args.cell]
    network = 4 * blocks * H * (1 + YEAR + H) + args.window * args.batch_size * states * H
    starts = 2 * args.steps * (args.batch_size + 1)  # 64-bit integers, and keys
    draws = args.draws * LONGEST * len(job.origins)
    what = "each seed's parameters, their gradient, its two moments, states, windows and draws"
    require_memory(args.seeds * (network + starts + draws), what, OPTIONS_OF_SIZE)


# --- results -------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace, job: Job) -> tuple[dict[str, Any], Any]:
    """Train, forecast, and compare; return the record, and the forecasts for the figure."""
    began = time.perf_counter()
    models, losses = train(args, job)
    means, draws = forecast(args, job, models)
    simple = naive(job.series, job.origins, args.window // YEAR)
    record = {
        "part": "validation" if args.validate else "test",
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "months": [len(job.series.ppm), int(np.isnan(job.series.ppm).sum())],  # all, missing
        "origins": len(job.origins),
        "seconds": time.perf_counter() - began,
        "loss": losses[:, -BLOCK:].mean(1).tolist(),  # [seeds]
        "errors": absolute_errors(job.series, job.origins, means).tolist(),  # [seeds, LONGEST]
        "naive": absolute_errors(job.series, job.origins, simple).tolist(),  # [LONGEST]
        "covered": covered(job, draws).tolist(),  # [LONGEST]
    }
    return record, (means, draws, simple)


def mean_and_error(values: Any) -> tuple[float, float]:
    """The mean over seeds, and its standard error (NaN for one seed)."""
    values = np.asarray(values)
    n = len(values)
    return values.mean(), values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan


def table(record: dict[str, Any]) -> str:
    """Make a Markdown table, and sentences that name the better forecast."""
    errors, simple = np.array(record["errors"]), np.array(record["naive"])
    header = ["forecast", *(f"error over {h} months, ppm" for h in HORIZONS)]
    header += [f"80 % interval, {h} months" for h in HORIZONS]
    cell, own = record["options"]["cell"], [errors[:, :h].mean(1) for h in HORIZONS]
    cells = [cell, *("{:.3f} ({:.3f})".format(*mean_and_error(values)) for values in own)]
    cells += [f"{100 * np.mean(record['covered'][:h]):.0f} %" for h in HORIZONS]
    rows = [header, ["---"] * len(header), cells]
    rows.append(["seasonal naive", *(f"{simple[:h].mean():.3f}" for h in HORIZONS), "", ""])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
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


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],  # None with python -OO
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("out/co2_forecast"), help="directory")
    parser.add_argument("--data", type=Path, help="CSV file: a header, then YYYYMMDD,ppm")
    parser.add_argument("--validate", action="store_true", help="judge by the training part")
    parser.add_argument("--cell", choices=CELLS, default="rnn", help="rnn: an Elman network")
    parser.add_argument("--difference", type=int, choices=[1, YEAR], default=1, help="months")
    parser.add_argument("--seeds", type=positive, default=5, help="how many: 0, 1, ...")
    parser.add_argument("--steps", type=positive, default=2000)
    parser.add_argument("--hidden-size", type=positive, default=32)
    parser.add_argument("--window", type=positive, default=120, help="months that are read")
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("--learning-rate", type=positive_float, default=3e-3, help="decays to 0")
    parser.add_argument("--noise", type=float, default=0.3, help="deviation, added to the changes")
    parser.add_argument("--draws", type=positive, default=100, help="for the interval")
    args = parser.parse_args(argv)
    if not 0 <= args.noise < np.inf:
        parser.error(f"argument --noise: expected a number from 0; got {args.noise}")
    if args.window < 2 * YEAR:
        parser.error(f"argument --window: expected at least {2 * YEAR} months; got {args.window}")
    return args


def results(args: argparse.Namespace) -> str:
    """Write the record, the table and the figure; return the table."""
    args.out.mkdir(parents=True, exist_ok=True)
    with on_devices(OPTIONS_OF_SIZE):
        job = load(args)
        check_memory(args, job)
        record, forecasts = evaluate(args, job)
    (args.out / "co2_forecast.json").write_text(json.dumps(record, indent=1) + "\n")
    (args.out / "co2_forecast.md").write_text(table(record) + "\n")
    draw(record, job, forecasts, args.out / "co2_forecast.png")
    return f"\n{table(record)}\n\nco2_forecast.md, .json and .png are in {args.out}"


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, 1 after bad input, or 130 after Ctrl-C."""
    args = parse(argv)
    return exit_status(lambda: results(args), "not all is written")


if __name__ == "__main__":
    sys.exit(main())
