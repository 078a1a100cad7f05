"""The adding problem: which initial weights learn dependencies over hundreds of steps?

    python examples/adding_problem.py                          # T = 100, four starts: four minutes
    python examples/adding_problem.py --lengths 200 --starts relu-identity --learning-rate 1e-4

Each step has two inputs: a number u, uniform in [0, 1], and a marker m, which is 1 at one step of
the first half and at one step of the second half, else 0. The target, after the last step, is

    y = sum_t m_t u_t                    E (y - 1)^2 = 2/12 = 0.167, the error of guessing 1

(Hochreiter & Schmidhuber, Long short-term memory, 1997; also Le, Jaitly & Hinton, A simple way to
initialize recurrent networks of rectified linear units, 2015). No sequence is used twice, so the
training error is the error on new sequences. Training stops when the mean error over a block of
steps is below --goal. The plots show the learning curves and how far back the output depends on the
state, before and after training. Each run adds a row to the table in --out, or replaces the row
with the same length, start and learning rate. Ctrl-C loses only the current run.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from char_model import Model
from command import not_negative, on_devices, positive, positive_float, require_memory
from matplotlib.figure import Figure
from tqdm import tqdm

import jrnn
from jrnn import ActivationName, diagnostics, initializers
from jrnn.checks import refuse

GUESSING = 2 / 12
W_HH_INITS = {
    "identity": initializers.identity(),
    "orthogonal": jax.nn.initializers.orthogonal(),
    "spectral": initializers.spectral_radius(1.0),
    "uniform": initializers.hidden_uniform,
}
ACTIVATIONS: tuple[ActivationName, ...] = ("relu", "tanh")
STARTS = {f"{phi}-{init}": (phi, init) for phi in ACTIVATIONS for init in W_HH_INITS}
OPTIONS_OF_SIZE = "--hidden-size, --batch-size, --lengths or --block"
MEASURED = 16  # sequences per curve by lag

Row = dict[str, Any]  # the results of a run


# --- the problem and the network -----------------------------------------------------------------


@partial(jax.jit, static_argnums=(1, 2))
def draw_batch(key: jax.Array, T: int, B: int) -> tuple[jax.Array, jax.Array]:
    """Sequences `[T, B, 2]` of numbers and markers, and the sums `[B]` of the marked numbers."""
    key_u, key_first, key_second = jax.random.split(key, 3)
    u = jax.random.uniform(key_u, (T, B))
    first = jax.random.randint(key_first, (B,), 0, T // 2)
    second = jax.random.randint(key_second, (B,), T // 2, T)
    t = jnp.arange(T)[:, None]
    m = ((t == first) | (t == second)).astype(u.dtype)
    return jnp.stack([u, m], axis=-1), jnp.sum(m * u, axis=0)


def init_model(key: jax.Array, init: str, hidden_size: int) -> Model:
    """Initialise `w_hh` by name, `w_ih` small enough for sums over many steps, biases 0."""
    key_rnn, key_readout = jax.random.split(key)
    w_ih_init, w_hh_init = initializers.hidden_uniform, W_HH_INITS[init]
    return Model(
        jrnn.init_rnn(key_rnn, 2, hidden_size, w_ih_init=w_ih_init, w_hh_init=w_hh_init),
        jrnn.init_readout(key_readout, hidden_size, 1),
    )


def mean_squared_error(
    model: Model, xs: jax.Array, targets: jax.Array, activation: ActivationName
) -> Any:
    """The mean squared error of the output after the last step."""
    h_last, _ = jrnn.rnn(model.rnn, xs, activation=activation)
    outputs = jrnn.readout(model.readout, h_last)[:, 0]
    return optax.squared_error(outputs, targets).mean()


def sensitivity(model: Model, key: jax.Array, T: int, activation: ActivationName) -> np.ndarray:
    """`[T]`: the median of ||do_T / dh_{T-l}|| over sequences, relative to lag 0.

    The diagnostics need a cross-entropy. With logits (o, 0) and labels (-1, 1), whose sum is 0, the
    cross-entropy of the last step is o itself.
    """
    xs, _ = draw_batch(key, T, MEASURED)
    w_ho = model.readout.w_ho
    logits = jrnn.ReadoutParams(jnp.concatenate([w_ho, jnp.zeros_like(w_ho)], axis=1), None)
    labels = jnp.broadcast_to(jnp.asarray([-1, 1], xs.dtype), xs.shape)
    last = jnp.broadcast_to(jnp.arange(T)[:, None] == T - 1, xs.shape[:2])
    flow = diagnostics.gradient_flow(
        model.rnn, logits, xs, labels, weights=last, activation=activation, max_lag=T - 1
    )
    median = np.asarray(flow.percentiles[1], np.float64)
    return median / median[0]


# --- the training --------------------------------------------------------------------------------


def make_train_block(
    args: argparse.Namespace, T: int, activation: ActivationName, key: jax.Array
) -> tuple[Callable[[Model], Any], Callable[[Any, int], Any]]:
    """Make the initial training state, and a compiled loop of `--block` steps."""
    optimizer = optax.chain(optax.clip_by_global_norm(args.clip), optax.adam(args.learning_rate))

    def step(state: Any, n: jax.Array) -> Any:
        model, opt_state = state
        batch = draw_batch(jax.random.fold_in(key, n), T, args.batch_size)
        error, grads = jax.value_and_grad(mean_squared_error)(model, *batch, activation)
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return (optax.apply_updates(model, updates), opt_state), error

    @jax.jit
    def train_block(state: Any, first: int) -> Any:
        state, errors = jax.lax.scan(step, state, first + jnp.arange(args.block))
        return state, errors.mean()

    return lambda model: (model, optimizer.init(model)), train_block


def run(args: argparse.Namespace, T: int, start: str) -> Row:
    """Train one network until its error is below the goal or not finite, or until --steps."""
    activation, init = STARTS[start]
    key_model, key_data, key_measured = jax.random.split(jax.random.key(args.seed), 3)
    model = init_model(key_model, init, args.hidden_size)
    before = sensitivity(model, key_measured, T, activation)
    begin, train_block = make_train_block(args, T, activation, key_data)
    state, errors, began = begin(model), [], time.perf_counter()
    with tqdm(total=args.steps, desc=f"T = {T}, {start}", unit="step") as bar:
        while bar.n < args.steps:
            state, error = train_block(state, bar.n)
            errors.append(float(error))
            bar.set_postfix_str(f"error {errors[-1]:.4f}")
            bar.update(args.block)
            if not args.goal <= errors[-1] < np.inf:
                break
    after = sensitivity(state[0], key_measured, T, activation)
    return {
        "length": T,
        "start": start,
        "learned": errors[-1] < args.goal,
        "steps": bar.n,
        "error": finite(errors[-1:])[0],
        "seconds": time.perf_counter() - began,
        "errors": finite(errors),
        "before": finite(before),
        "after": finite(after),
        "options": {k: str(v) if k == "out" else v for k, v in vars(args).items()},
        "versions": {"jrnn": jrnn.__version__, "jax": jax.__version__},
    }


def finite(values: Any) -> list[float | None]:
    """Values for JSON, with None for values that are not finite."""
    return [float(x) if np.isfinite(x) else None for x in values]


# --- results -------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """Make a Markdown table with a row per run."""
    header = ["T", "start", "rate", "learned", "steps", "mean squared error", "seconds"]
    header += ["left at the first step: before", "after"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        error = "no number" if row["error"] is None else f"{row['error']:.4f}"
        left = [f"{row[k][-1]:.0e}" if row[k][-1] is not None else "-" for k in ("before", "after")]
        cells = [row["length"], row["start"], f"{row['options']['learning_rate']:g}"]
        cells += ["yes" if row["learned"] else "no", f"{row['steps']:,}", error]
        lines.append([*cells, f"{row['seconds']:.0f}", *left])
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


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
            panel.set(ylabel=r"$\|do_T/dh_{T-l}\|$ over that at lag 0")
            panel.set_title(f"T = {T}: what the output depends on, {when}")
    named = {label: line for panel in grid[:, 0] for line, label in legend_of(panel)}
    figure.legend(named.values(), named.keys(), loc="outside right center")
    figure.savefig(path, dpi=100)


def style(row: Row) -> dict[str, Any]:
    """One colour per w_hh, one line style per activation."""
    activation, init = STARTS[row["start"]]
    label = f"{row['start']}, {row['options']['learning_rate']:g}"
    colour, line = f"C{list(W_HH_INITS).index(init)}", "-" if activation == "relu" else "--"
    return {"color": colour, "linestyle": line, "label": label}


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


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],  # None with python -OO
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = ["relu-identity", "relu-orthogonal", "relu-spectral", "tanh-orthogonal"]
    parser.add_argument("--out", type=Path, default=Path("out/adding_problem"), help="directory")
    parser.add_argument("--lengths", nargs="+", type=positive, default=[100], help="T")
    parser.add_argument(
        "--starts", nargs="+", choices=[*STARTS, "all"], default=defaults, help="activation-w_hh"
    )
    parser.add_argument("--steps", type=positive, default=3000, help="of each training, at most")
    parser.add_argument("--block", type=positive, default=100, help="steps whose error is averaged")
    parser.add_argument("--goal", type=positive_float, default=0.01, help="learned below it")
    parser.add_argument("--hidden-size", type=positive, default=128)
    parser.add_argument("--batch-size", type=positive, default=64)
    parser.add_argument("--learning-rate", type=positive_float, default=1e-3, help="of Adam")
    parser.add_argument("--clip", type=positive_float, default=1.0, help="gradient norm")
    parser.add_argument("--seed", type=not_negative, default=0)
    args = parser.parse_args(argv)
    args.starts = list(STARTS) if "all" in args.starts else args.starts
    if min(args.lengths) < 2:
        parser.error("argument --lengths: at least 2: two steps are marked")
    if args.steps % args.block:
        parser.error(f"argument --steps: a multiple of --block, {args.block}")
    return args


def check_memory(args: argparse.Namespace) -> None:
    """Refuse a training that does not fit on the device."""
    T, B, H = max(args.lengths), args.batch_size, args.hidden_size
    what = "the parameters, their gradient, its two moments, and the states of a batch"
    require_memory(4 * (H * H + 5 * H + 1) + T * B * H, what, OPTIONS_OF_SIZE)


def run_all(args: argparse.Namespace) -> None:
    """Run every length and start; write the results after each run."""
    args.out.mkdir(parents=True, exist_ok=True)
    rows = earlier_rows(args.out / "adding_problem.json")
    for T in args.lengths:
        for start in args.starts:
            row = run(args, T, start)
            rows[order(row)] = row
            write(args.out, [rows[key] for key in sorted(rows)])


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, 1 after bad input, or 130 after Ctrl-C."""
    args = parse(argv)
    try:
        with on_devices(OPTIONS_OF_SIZE):
            check_memory(args)
            run_all(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: the runs that had ended are in {args.out}", file=sys.stderr)
        return 130
    print(f"\n{(args.out / 'adding_problem.md').read_text()}")
    print(f"adding_problem.md, .json and .png are in {args.out}")
    return 0


def order(row: Row) -> tuple[int, int, float]:
    """The key of a row: its length, start and learning rate, in the order of the table."""
    return row["length"], list(STARTS).index(row["start"]), row["options"]["learning_rate"]


def write(out: Path, rows: list[Row]) -> None:
    """Write the table, all results, and the plot."""
    (out / "adding_problem.json").write_text(json.dumps(rows, indent=1) + "\n")
    (out / "adding_problem.md").write_text(table(rows) + "\n")
    draw(rows, out / "adding_problem.png")


if __name__ == "__main__":
    sys.exit(main())
