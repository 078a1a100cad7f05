"""A network of excitatory and inhibitory neurons learns a perceptual decision.

    python examples/perceptual_decision.py              # about a minute on two cores

The network of `perceptual_network.py` learns to tell to which side random dots move. The program
measures how often it chooses the right side for each coherence, finds the fixed points that hold
its decision and the slow points between them, and compares the time of a gradient with that of a
plain scan. It writes all into one picture and a JSON file.
"""

import dataclasses
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import command
import jax
import jax.numpy as jnp
import numpy as np
import optax
from command import refuse
from devices import on_devices, require_memory
from matplotlib.figure import Figure
from perceptual_network import (
    COHERENCES,
    DT,
    FIXATION,
    RATE_CELL,
    STEPS,
    Free,
    answers,
    draw_noise,
    init_free,
    loss,
    make_trials,
    model_of,
    random_motion,
    random_trials,
    run,
    run_plain,
    signs,
)
from tqdm import tqdm

import jrnn
from jrnn import diagnostics, plot

OPTIONS_OF_SIZE = "--hidden-size or --batch-size"
BLOCK = 50  # steps in one call
DECIDING = (0.0, 0.0, 1.0)  # the input after the motion: the cue alone
DRAWN_MOTION = 800  # ms of motion in the drawn paths


@dataclass(frozen=True)
class Settings(command.Checked):
    """A network of excitatory and inhibitory neurons learns a perceptual decision."""

    out: Path = Path("out/perceptual_decision")  # folder
    hidden_size: command.Positive = 100  # neurons, of which a fifth are inhibitory
    batch_size: command.Positive = 64  # trials in a step
    steps: command.Positive = 1500  # of the training
    learning_rate: command.PositiveFloat = 2e-3  # of Adam, which decays to 0
    clip: command.PositiveFloat = 1.0  # gradient norm
    tests: command.Positive = 1000  # trials for each coherence and side
    starts: command.Positive = 256  # of the search for fixed points
    speed: command.PositiveFloat = 1e-3  # of slow points, at most
    seed: command.NotNegative = 0  # of everything random

    def __post_init__(self) -> None:
        """Refuse a network without an inhibitory neuron."""
        super().__post_init__()
        if signs(self.hidden_size).min() > 0:
            repair = "A fifth of the neurons are inhibitory, and one must be."
            refuse("--hidden-size", "at least 5", self.hidden_size, repair)


class Inside(NamedTuple):
    """The states of a trained network."""

    paths: jax.Array  # [T, B, H] v without noise
    components: diagnostics.PrincipalComponents
    points: diagnostics.FixedPoints
    slow: diagnostics.FixedPoints


# --- the training --------------------------------------------------------------------------------


def train(settings: Settings) -> tuple[Free, list[float]]:
    """Train a network.

    Returns:
        The free parameters, and the loss of every step.
    """
    key_init, key = jax.random.split(jax.random.key(settings.seed))
    schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(settings.clip), optax.adam(schedule))
    free = init_free(key_init, settings.hidden_size)
    state, losses = (free, optimizer.init(free)), []

    def step(state: Any, n: jax.Array) -> tuple[Any, jax.Array]:
        free, opt_state = state
        key_trials, key_noise = jax.random.split(jax.random.fold_in(key, n))
        trials = random_trials(key_trials, jnp.asarray(COHERENCES), settings.batch_size)
        noise = draw_noise(key_noise, trials, settings.hidden_size)
        value, grads = jax.value_and_grad(loss)(free, trials, noise)
        updates, opt_state = optimizer.update(grads, opt_state, free)
        return (optax.apply_updates(free, updates), opt_state), value

    block = jax.jit(partial(jax.lax.scan, step))
    with tqdm(total=settings.steps, unit="step") as bar:
        for first in range(0, settings.steps, BLOCK):
            numbers = jnp.arange(first, min(first + BLOCK, settings.steps))
            state, values = block(state, numbers)
            losses += values.tolist()
            bar.update(len(numbers))
            bar.set_postfix_str(f"loss {np.mean(losses[-BLOCK:]):.4f}")
    return state[0], losses


# --- the measurements ----------------------------------------------------------------------------


def psychometric(settings: Settings, free: Free) -> dict[int, float]:
    """How often the network chooses the right side, by the signed coherence in %."""
    key = jax.random.key(settings.seed + 1)

    @jax.jit
    def share(coherence: jax.Array, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 3)
        motion = random_motion(keys[0], settings.tests)
        trials = make_trials(keys[1], jnp.full(settings.tests, coherence), motion)
        return answers(free, trials, draw_noise(keys[2], trials, settings.hidden_size)).mean()

    signed = [-c for c in reversed(COHERENCES)] + list(COHERENCES)
    return {c: float(share(float(c), jax.random.fold_in(key, n))) for n, c in enumerate(signed)}


def right(shares: dict[int, float], coherence: int) -> float:
    """The share of correct answers at a coherence, over both sides."""
    return (shares[coherence] + 1 - shares[-coherence]) / 2


def look_inside(settings: Settings, free: Free) -> Inside:
    """Find the points at which the network holds its decision, and the slow points."""
    model = model_of(free)
    coherence = jnp.asarray([s * c for c in COHERENCES for s in (1, -1)], jnp.float32)
    motion = jnp.full(len(coherence), DRAWN_MOTION)
    trials = make_trials(jax.random.key(settings.seed), coherence, motion)
    inputs = trials.inputs[: int(trials.last[0]) + 1]
    paths = diagnostics.trajectory(model.recurrent, inputs @ model.w_in, cell=RATE_CELL)
    find = partial(
        diagnostics.fixed_points,
        model.recurrent,
        jnp.asarray(DECIDING) @ model.w_in,
        paths[FIXATION // DT :],
        starts=settings.starts,
        cell=RATE_CELL,
    )
    components = diagnostics.principal_components(paths, min(10, settings.hidden_size))
    return Inside(paths, components, find(), find(speed=settings.speed, merge=0.01))


def compare_times(settings: Settings, free: Free, rounds: int = 20) -> dict[str, float]:
    """Milliseconds of the gradient of a batch, medians, and the difference of the gradients."""
    keys = jax.random.split(jax.random.key(settings.seed + 2))
    trials = random_trials(keys[0], jnp.asarray(COHERENCES), settings.batch_size)
    given = free, trials, draw_noise(keys[1], trials, settings.hidden_size)
    runs = {"jrnn": run, "plain scan": run_plain}
    gradients = {name: jax.jit(jax.grad(partial(loss, run=how))) for name, how in runs.items()}
    grads = [jax.device_get(gradient(*given)) for gradient in gradients.values()]
    times: dict[str, list[float]] = {name: [] for name in gradients}
    for _ in range(rounds):  # by turns, so that both have the same machine
        for name, gradient in gradients.items():
            began = time.perf_counter()
            jax.block_until_ready(gradient(*given))
            times[name].append(1000 * (time.perf_counter() - began))
    apart = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(*grads, strict=True)]
    return {n: float(np.median(t)) for n, t in times.items()} | {"difference": float(max(apart))}


# --- results -------------------------------------------------------------------------------------


def draw(
    settings: Settings, losses: list[float], shares: dict[int, float], inside: Inside, path: Path
) -> None:
    """Plot the loss, the psychometric curve, and the fixed points with their eigenvalues."""
    figure = Figure(figsize=(13, 10), layout="constrained")
    (training, curve), below = figure.subplots(2, 2)
    training.plot(losses, linewidth=0.5, alpha=0.5, label="one step")
    blocks = [np.mean(losses[n : n + BLOCK]) for n in range(0, len(losses), BLOCK)]
    training.plot(BLOCK * (np.arange(len(blocks)) + 0.5), blocks, label=f"mean of {BLOCK} steps")
    title = f"Training\nmean squared error {blocks[-1]:.3f} at the end"
    training.set(xlabel="step", ylabel="mean squared error", yscale="log", title=title)
    training.legend()
    coherence, share = np.array(list(shares)), np.array(list(shares.values()))
    error = 1.96 * np.sqrt(np.maximum(share * (1 - share), 1e-9) / settings.tests)
    curve.errorbar(coherence, 100 * share, 100 * error, marker="o", capsize=3)
    curve.axhline(50, color="gray", linestyle="--", linewidth=0.8)
    curve.set(
        xlabel="coherence (%), above 0 to the right",
        ylabel='answers "right" (%), with 95 % intervals',
        title=f"Psychometric curve\n{100 * right(shares, COHERENCES[-1]):.1f} % correct at 16 %",
    )
    plot.plot_fixed_points(inside.points, inside.components, inside.paths, inside.slow, below)
    figure.savefig(path, dpi=100)


def record(
    settings: Settings,
    losses: list[float],
    shares: dict[int, float],
    inside: Inside,
    times: dict[str, float],
    readout: jrnn.ReadoutParams,
) -> dict[str, Any]:
    """All results, for a JSON file."""
    points = inside.points
    z = np.asarray(jrnn.readout(readout, points.outputs))
    places = np.asarray(diagnostics.project(inside.components, points.states))
    return {
        "settings": dataclasses.asdict(settings),
        "losses": losses,
        "right": shares,
        "correct": {c: right(shares, c) for c in COHERENCES},
        "points": [
            {
                "unstable": int(points.unstable[i]),
                "starts": int(points.starts[i]),
                "outputs": z[i].tolist(),
                "components": places[i, :2].tolist(),
                "modulus": float(np.abs(points.eigenvalues[i, 0])),
            }
            for i in range(len(z))
        ],
        "slow points": len(inside.slow.speeds),
        "milliseconds of a gradient": times,
    }


def report(found: dict[str, Any]) -> str:
    """The results in words."""
    correct = ", ".join(f"{c} %: {100 * p:.1f}" for c, p in found["correct"].items())
    lines = [f"correct answers (%) by coherence: {correct}"]
    for point in found["points"]:
        kind = "stable" if point["unstable"] == 0 else f"unstable in {point['unstable']}"
        z = ", ".join(f"{x:.2f}" for x in point["outputs"])
        lines.append(f"fixed point, {kind}: outputs {z}; |lambda| at most {point['modulus']:.3f}")
    times = found["milliseconds of a gradient"]
    lines.append(
        f"gradient of a batch: jrnn {times['jrnn']:.1f} ms, plain scan {times['plain scan']:.1f} ms"
        f" (they differ by {times['difference']:.0e})"
    )
    return "\n".join(lines)


# --- the command ---------------------------------------------------------------------------------


def results(settings: Settings) -> str:
    """Train, look inside, and write the results; return the report."""
    H, numbers = settings.hidden_size, STEPS * settings.batch_size * settings.hidden_size
    settings.out.mkdir(parents=True, exist_ok=True)
    with on_devices(OPTIONS_OF_SIZE):
        require_memory(4 * H * H + 2 * numbers, "the states of a batch", OPTIONS_OF_SIZE)
        free, losses = train(settings)
        shares, inside = psychometric(settings, free), look_inside(settings, free)
        times = compare_times(settings, free)
    found = record(settings, losses, shares, inside, times, model_of(free).readout)
    command.write_results(settings.out / "perceptual_decision", found)
    draw(settings, losses, shares, inside, settings.out / "perceptual_decision.png")
    return f"\n{report(found)}\nperceptual_decision.json and .png are in {settings.out}"


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, 1 after bad input, or 130 after Ctrl-C."""
    settings = Settings.parse(argv)
    return command.exit_status(lambda: results(settings), "nothing is written")


if __name__ == "__main__":
    sys.exit(main())
