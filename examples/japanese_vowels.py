"""Classify nine speakers by two vowels: sequences of different lengths, one label each.

    pip install --no-deps aeon==1.6.0           # contains the data, 6 MB; not imported
    python examples/japanese_vowels.py          # four models, five seeds each: under two minutes
    python examples/japanese_vowels.py --cell lstm
    python examples/japanese_vowels.py --validate

Nine men say /ae/; each utterance is 7 to 29 steps of 12 LPC cepstrum coefficients (Kudo, Toyama &
Shimbo, Multidimensional curve classification using passing-through regions, 1999, who report 94.1 %
on the 370 utterances of the test part after training on 270, and 96.2 % for a hidden Markov model).
The network reads each utterance to its own end, forward or in both directions, and its readout gets
the last state or the mean of the states over time. All seeds of a model train in parallel, with
`jax.vmap`. The settings were chosen with --validate, which trains on four fifths of the training
set and evaluates on the other fifth; the test set was not used.
"""

import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import command
import jax
import jax.numpy as jnp
import numpy as np
import optax
from command import mean_and_error, refuse
from devices import on_devices, require_memory
from installed import installed_data
from matplotlib.figure import Figure
from networks import CELLS, Model, output_of
from tqdm import tqdm
from ts_data import Sequences, read_ts

import jrnn

NAME = "JapaneseVowels"
DATA = "aeon", f"aeon/datasets/data/{NAME}"  # a folder in a package
ModelName = Literal["last-forwards", "last-both", "mean-forwards", "mean-both"]
MODELS = get_args(ModelName)  # readout-directions
OPTIONS_OF_SIZE = "--seeds, --epochs, --hidden-size or --batch-size"


@dataclass(frozen=True)
class Settings(command.Checked):
    """Classify nine speakers by two vowels."""

    out: Path = Path("out/japanese_vowels")  # directory
    data: Path | None = None
    """folder of JapaneseVowels_TRAIN.ts and _TEST.ts; None: that of aeon"""
    validate: bool = False  # judge by a fifth of the training part
    cell: Literal["rnn", "gru", "lstm"] = "rnn"  # rnn: an Elman network
    models: tuple[ModelName, ...] = MODELS
    seeds: command.Positive = 5  # how many: 0, 1, ...
    epochs: command.Positive = 60
    hidden_size: command.Positive = 64
    batch_size: command.Positive = 10
    learning_rate: command.PositiveFloat = 3e-3  # of AdamW
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: command.PositiveFloat = 0.01

    def __post_init__(self) -> None:
        """Refuse no model at all."""
        super().__post_init__()
        if not self.models:
            refuse("--models", "at least one", "none", "Leave the option out for all.")


# --- the network ---------------------------------------------------------------------------------


def init_model(key: jax.Array, name: str, cell: Any, sizes: tuple[int, int, int]) -> Model:
    """One layer of a cell, in one direction or both, as jrnn draws it; `sizes` are I, H and O."""
    I, H, O = sizes
    both = name.endswith("-both")
    key_stack, key_readout = jax.random.split(key)
    return Model(
        jrnn.init_stack(key_stack, I, [H], cell=cell, bidirectional=both),
        jrnn.init_readout(key_readout, 2 * H if both else H, O),
    )


def logits(name: str, model: Model, xs: jax.Array, lengths: jax.Array) -> jax.Array:
    """Logits `[N, O]` from the last state or from the mean of all states."""
    (state,), hs = jrnn.stack(model.rnn, xs, None, lengths)
    last = name.startswith("last-")
    h = output_of(state) if last else jrnn.mean_over_time(hs, lengths)
    return jrnn.readout(model.readout, h)


# --- the data ------------------------------------------------------------------------------------


def load_data(settings: Settings) -> tuple[Sequences, Sequences]:
    """Load the training and the evaluation set, standardised with the training set."""
    folder = installed_data(*DATA) if settings.data is None else settings.data
    train = read_ts(folder / f"{NAME}_TRAIN.ts")
    if settings.validate:
        held_out = np.arange(len(train.labels)) % 5 == 4  # the file is ordered by speaker
        train, test = train.take(~held_out), train.take(held_out)
    else:
        test = read_ts(folder / f"{NAME}_TEST.ts")
    if (train.classes, train.xs.shape[2]) != (test.classes, test.xs.shape[2]):
        expected = "two parts with the same classes and channels"
        refuse("data", expected, folder, "They belong together.")
    if settings.batch_size > len(train.labels):
        expected = f"at most the {len(train.labels)} sequences of training"
        refuse("--batch-size", expected, settings.batch_size, "Take a smaller one.")
    return standardised(train, train), standardised(test, train)


def standardised(part: Sequences, by: Sequences) -> Sequences:
    """Scale channels to mean 0 and deviation 1 over the steps of `by`; the padding stays 0."""
    steps = by.xs[inside(by)]
    xs = (part.xs - steps.mean(0)) / steps.std(0)
    return part._replace(xs=np.where(inside(part)[..., None], xs, 0))


def inside(part: Sequences) -> np.ndarray:
    """`[T, N]`: whether a step is not padding."""
    return np.asarray(jrnn.sequence_mask(part.lengths, len(part.xs)))


def epoch_orders(seed: int, epochs: int, count: int, batch_size: int) -> np.ndarray:
    """`[epochs, batches, batch_size]` random sequence numbers; an incomplete batch is dropped."""
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(count) for _ in range(epochs)])
    batches = count // batch_size
    return orders[:, : batches * batch_size].reshape(epochs, batches, batch_size)


# --- the training --------------------------------------------------------------------------------


def make_optimizer(settings: Settings, batches: int) -> optax.GradientTransformation:
    """AdamW; by default the learning rate decays to 0 over all epochs."""
    schedule = settings.learning_rate
    if settings.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.epochs * batches)
    return optax.adamw(schedule, weight_decay=settings.weight_decay)


def make_train_epoch(name: str, data: Sequences, optimizer: Any) -> Any:
    """`(state, order [batches, batch_size]) -> (state, mean loss)`, mapped over seeds."""
    xs, lengths, labels = (jnp.asarray(a) for a in data[:3])

    def loss(model: Model, chosen: jax.Array) -> jax.Array:
        o = logits(name, model, xs[:, chosen], lengths[chosen])
        return jrnn.softmax_cross_entropy(o, labels[chosen]).mean()

    def step(state: Any, chosen: jax.Array) -> Any:
        model, opt_state = state
        value, grads = jax.value_and_grad(loss)(model, chosen)
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return (optax.apply_updates(model, updates), opt_state), value

    @jax.jit
    @jax.vmap
    def train_epoch(state: Any, order: jax.Array) -> Any:
        state, losses = jax.lax.scan(step, state, order)
        return state, losses.mean()

    return train_epoch


def make_predict(name: str, data: Sequences) -> Any:
    """`models -> [seeds, N]`: the predicted classes."""
    xs, lengths = jnp.asarray(data.xs), jnp.asarray(data.lengths)
    return jax.jit(jax.vmap(lambda model: logits(name, model, xs, lengths).argmax(-1)))


def check_memory(settings: Settings, train: Sequences) -> None:
    """Refuse a training of all seeds that does not fit on the device."""
    (T, N, I), H = train.xs.shape, settings.hidden_size
    blocks, states = CELLS[settings.cell][-2:]
    network = 4 * blocks * (I * H + H * H) + T * settings.batch_size * states * H
    order = 2 * settings.epochs * N  # 64-bit integers
    what = "each seed's parameters, their gradient, its two moments, states and order of sequences"
    require_memory(settings.seeds * (network + order), what, OPTIONS_OF_SIZE)


def run(name: str, settings: Settings, train: Sequences, test: Sequences) -> dict[str, Any]:
    """Train all seeds of a model."""
    sizes = train.xs.shape[2], settings.hidden_size, len(train.classes)
    optimizer = make_optimizer(settings, len(train.labels) // settings.batch_size)
    keys = jax.vmap(jax.random.key)(jnp.arange(settings.seeds))
    models = jax.vmap(partial(init_model, name=name, cell=settings.cell, sizes=sizes))(keys)
    state = models, jax.vmap(optimizer.init)(models)
    count = len(train.labels)
    orders = np.stack(
        [
            epoch_orders(s, settings.epochs, count, settings.batch_size)
            for s in range(settings.seeds)
        ]
    )
    train_epoch, predict = make_train_epoch(name, train, optimizer), make_predict(name, test)
    losses, accuracies, began = [], [], time.perf_counter()
    with tqdm(range(settings.epochs), desc=name, unit="epoch") as bar:
        for epoch in bar:
            state, loss = train_epoch(state, orders[:, epoch])
            predicted = np.asarray(predict(state[0]))
            losses.append(np.asarray(loss))
            accuracies.append((predicted == test.labels).mean(1))
            bar.set_postfix_str(f"loss {losses[-1].mean():.4f}")
    return {
        "cell": settings.cell,
        "model": name,
        "seconds": time.perf_counter() - began,
        "losses": np.array(losses).tolist(),  # [epochs, seeds]
        "accuracies": np.array(accuracies).tolist(),
        "confusion": confusion(predicted, test).tolist(),
    }


def confusion(predicted: np.ndarray, test: Sequences) -> np.ndarray:
    """`[O, O]`: how often, over all seeds, a class (row) is predicted as another (column)."""
    O = len(test.classes)
    pairs = test.labels * O + predicted
    return np.bincount(pairs.ravel(), minlength=O * O).reshape(O, O)


# --- results -------------------------------------------------------------------------------------


def table(records: list[dict[str, Any]], part: str) -> str:
    """Make a Markdown table with a row per model."""
    header = ["cell", "model", f"accuracy, {part} part", "standard error", "seeds", "seconds"]
    rows = []
    for record in records:
        last = record["accuracies"][-1]
        mean, error = mean_and_error(last)
        seeds = ", ".join(f"{100 * a:.1f}" for a in last)
        cells = [record["cell"], record["model"], f"{100 * mean:.1f} %", f"{100 * error:.1f}"]
        rows.append([*cells, seeds, f"{record['seconds']:.0f}"])
    return command.markdown(header, rows)


def best_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record with the highest accuracy after the last epoch."""
    return max(records, key=lambda record: np.mean(record["accuracies"][-1]))


def draw(records: list[dict[str, Any]], classes: list[str], part: str, path: Path) -> None:
    """Plot loss and errors by epoch (mean and range over seeds), and the best model's errors."""
    figure = Figure(figsize=(16, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for record in records:
        for panel, values in (
            (left, np.array(record["losses"])),
            (middle, 100 * (1 - np.array(record["accuracies"]))),
        ):
            epochs = np.arange(1, len(values) + 1)
            (line,) = panel.plot(epochs, values.mean(1), label=record["model"])
            panel.fill_between(
                epochs, values.min(1), values.max(1), alpha=0.15, color=line.get_color()
            )
    left.set(yscale="log", xlabel="epoch", ylabel="cross-entropy (nats)")
    left.set_title("Loss, training part (mean and range of the seeds)")
    middle.set(xlabel="epoch", ylabel="error (%)", ylim=(0, 20))
    middle.set_title(f"Errors, {part} part")
    left.legend()
    best = best_of(records)
    counts = np.array(best["confusion"])
    mistakes = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    right.imshow(
        mistakes, cmap="Reds", vmax=2 * max(1, mistakes.max())
    )  # light, because text is on it
    for (i, j), count in np.ndenumerate(counts):
        if count:
            right.text(j, i, count, ha="center", va="center", color="gray" if i == j else "black")
    ticks = {"ticks": range(len(classes)), "labels": classes}
    right.set_xticks(**ticks)
    right.set_yticks(**ticks)
    right.set(xlabel="told", ylabel="speaker")
    right.set_title(f"Who is told as whom, {part} part:\n{best['cell']} {best['model']}, all seeds")
    figure.savefig(path, dpi=100)


def write(settings: Settings, records: list[dict[str, Any]], classes: list[str], part: str) -> None:
    """Write all results, the table, and the plot."""
    result = {"part": part, "options": asdict(settings), "records": records}
    command.write_results(settings.out / "japanese_vowels", result, table(records, part))
    draw(records, classes, part, settings.out / "japanese_vowels.png")


# --- the command ---------------------------------------------------------------------------------


def results(settings: Settings) -> str:
    """Run every model and write all results; return the table."""
    part = "validation" if settings.validate else "test"
    settings.out.mkdir(parents=True, exist_ok=True)
    with on_devices(OPTIONS_OF_SIZE):
        train, test = load_data(settings)
        check_memory(settings, train)
        records = [run(name, settings, train, test) for name in settings.models]
    write(settings, records, train.classes, part)
    return f"\n{table(records, part)}\n\njapanese_vowels.md, .json and .png are in {settings.out}"


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, 1 after bad input, or 130 after Ctrl-C."""
    settings = Settings.parse(argv)
    return command.exit_status(lambda: results(settings), "not all is written")


if __name__ == "__main__":
    sys.exit(main())
