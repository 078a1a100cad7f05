"""Train a character-level language model on real text, and sample from it.

    python examples/char_lm.py                                  # CPython's language reference
    python examples/char_lm.py --text book.txt notes.txt        # your own
    python examples/char_lm.py --sample 500 --prompt "The "     # from the model that is in --out

The network reads a character and predicts the next one. The text is cut into streams that are read
side by side, in chunks: the hidden state crosses the cut between two chunks, the gradient does not
(truncated BPTT). The last tenth of the text is held out, and what count models reach on the same
characters is printed beside the network's figure. Ctrl-C ends the training, not what it has made.
"""

import argparse
import csv
import hashlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ngram import witten_bell
from tqdm import tqdm

import jrnn
from jrnn.model_file import load_model, save_model
from jrnn.text import UNKNOWN, Alphabet, chunks, contiguous_streams, read_text
from jrnn.training import TrainState, init_train_state, make_train_step

EVALUATION_CHUNK = 256
MOST_NGRAM_CHARACTERS = 5_000_000  # count models beyond this would outgrow memory, not improve


class Model(NamedTuple):
    """The trainable parameters."""

    rnn: jrnn.RNNParams
    readout: jrnn.ReadoutParams


# --- the network ---------------------------------------------------------------------------------


def init_model(key: jax.Array, args: argparse.Namespace, vocabulary: int) -> Model:
    """`w_hh` orthogonal, the rest by LeCun's rule, biases zero."""
    key_rnn, key_readout = jax.random.split(key)
    return Model(
        jrnn.init_rnn(key_rnn, vocabulary, args.hidden_size),
        jrnn.init_readout(key_readout, args.hidden_size, vocabulary),
    )


def make_loss(activation: str) -> Any:
    """The mean cross-entropy of a chunk in nats, and the state that the next chunk starts from."""

    def loss(model: Model, h0: jax.Array, batch: Any, key: jax.Array) -> Any:
        del key  # nothing here is random
        xs, labels = batch
        h_last, hs = jrnn.rnn(model.rnn, xs, h0, activation=activation)
        losses = jrnn.softmax_cross_entropy(jrnn.readout(model.readout, hs), labels)
        return losses.mean(), h_last

    return loss


def make_evaluate(activation: str) -> Any:
    """Mean bits per character over streams, the state carried from zero; unknown ones not counted."""

    @jax.jit
    def chunk_nats(model: Model, h0: jax.Array, xs: Any, labels: Any, weights: Any) -> Any:
        h_last, hs = jrnn.rnn(model.rnn, xs, h0, activation=activation)
        logits = jrnn.readout(model.readout, hs)
        return jrnn.softmax_cross_entropy(logits, labels, weights).sum(), h_last

    def evaluate(model: Model, streams: np.ndarray) -> float:
        h = jnp.zeros((streams.shape[1], model.rnn.w_hh.shape[0]))
        nats = counted = 0.0
        for xs, labels in chunks(streams, EVALUATION_CHUNK):
            padding = ((0, EVALUATION_CHUNK - len(xs)), (0, 0))
            xs, labels = np.pad(xs, padding), np.pad(labels, padding)  # one shape, one program
            chunk, h = chunk_nats(model, h, xs, labels, labels != 0)
            nats, counted = nats + float(chunk), counted + (labels != 0).sum()
        return nats / counted / np.log(2)

    return evaluate


def make_optimizer(args: argparse.Namespace) -> optax.GradientTransformation:
    """Adam on clipped gradients; a schedule that warms up and decays, unless told otherwise."""
    schedule = args.learning_rate
    if args.schedule == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, args.learning_rate, args.steps // 20, args.steps
        )
    return optax.chain(optax.clip_by_global_norm(args.clip), optax.adam(schedule))


# --- the data ------------------------------------------------------------------------------------


class Data(NamedTuple):
    """A text as integers, its last tenth held out."""

    sha256: str
    alphabet: Alphabet
    train: np.ndarray  # [N] ids
    validation: np.ndarray  # [M] ids
    streams: np.ndarray  # [N // B, B] the training part
    validation_streams: np.ndarray  # [M // B, B]


def load_data(args: argparse.Namespace) -> Data:
    """Read and encode the text; say what there is of it."""
    if args.text:
        source, text = ", ".join(args.text), read_text(args.text)
    else:
        from pydoc_data.topics import topics

        source = f"the language reference of Python {sys.version.split()[0]}"
        text = "\n".join(topics[name] for name in sorted(topics))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    train, validation = text[: int(len(text) * 0.9)], text[int(len(text) * 0.9) :]
    alphabet = Alphabet.of(train)
    ids, validation_ids = alphabet.encode(train), alphabet.encode(validation)
    data = Data(
        sha256,
        alphabet,
        ids,
        validation_ids,
        contiguous_streams(ids, args.batch_size, least=args.length + 1),
        contiguous_streams(validation_ids, args.batch_size),
    )
    print(f"text        {source}: {len(text):,} characters, sha256 {sha256[:16]}")
    print(f"alphabet    {len(alphabet.characters) - 1} characters in the training part")
    unknown = alphabet.unknown(validation)
    if unknown:
        print(
            f"            the validation part has {(validation_ids == 0).sum():,} characters that "
            f"the training part lacks ({_quote(unknown)}): read as U+FFFD, not counted"
        )
    return data


def training_chunks(streams: np.ndarray, length: int) -> Iterator[tuple[Any, bool]]:
    """Chunks without end; True with the first of each pass, where the state starts from zero."""
    while True:
        for i, batch in enumerate(chunks(streams, length)):
            if len(batch[0]) == length:
                yield batch, i == 0


def baselines(data: Data) -> dict[str, float]:
    """Bits per character of count models on the characters that the network is judged by."""
    n, batch = data.validation_streams.shape
    judged = np.arange(n * batch).reshape(batch, n)[:, 1:].ravel()  # no label for a first one
    judged = judged[data.validation[judged] != 0]
    train = data.train[-MOST_NGRAM_CHARACTERS:]
    if len(train) < len(data.train):
        print(f"            (n-grams counted on the last {len(train):,} characters)")
    probabilities = witten_bell(train, data.validation, len(data.alphabet.characters), orders=6)
    return {f"{n}-gram": float(-np.log2(p[judged]).mean()) for n, p in enumerate(probabilities, 1)}


# --- the training --------------------------------------------------------------------------------


class StopFlag:
    """Set by Ctrl-C and read between steps: inside a step the donated buffers would be lost."""

    def __init__(self) -> None:
        """Take over SIGINT until `restore`."""
        self.raised = False
        self._previous = signal.signal(signal.SIGINT, self._raise)

    def _raise(self, signum: int, frame: Any) -> None:
        self.raised = True
        self.restore()  # a second Ctrl-C stops at once

    def restore(self) -> None:
        """Give SIGINT back."""
        signal.signal(signal.SIGINT, self._previous)


def train(args: argparse.Namespace, data: Data) -> tuple[TrainState, list[dict[str, float]], bool]:
    """Run the training: the last state, a row of metrics per evaluation, and whether it was cut."""
    key_model, key_state = jax.random.split(jax.random.key(args.seed))
    model = init_model(key_model, args, len(data.alphabet.characters))
    print(jrnn.summary(model), end="\n\n")
    optimizer = make_optimizer(args)
    zeros = jnp.zeros((args.batch_size, args.hidden_size))
    state = init_train_state(model, optimizer, zeros, key_state)
    train_step = make_train_step(make_loss(args.activation), optimizer)
    evaluate = make_evaluate(args.activation)

    rows: list[dict[str, float]] = []
    losses: list[jax.Array] = []
    seconds, stop = 0.0, StopFlag()
    source = training_chunks(data.streams, args.length)
    step_characters = args.length * args.batch_size
    bar = tqdm(total=args.steps * step_characters, unit="char", unit_scale=True)
    started = time.perf_counter()
    for step in range(1, args.steps + 1):
        batch, first = next(source)
        if first:
            state = state._replace(carry=jnp.zeros_like(zeros))
        state, metrics = train_step(state, batch)
        losses.append(metrics.loss)
        bar.update(step_characters)
        if step % 10 == 0:  # reading a loss waits for it
            bar.set_postfix_str(f"{float(metrics.loss) / np.log(2):.3f} bits/char")
        if step % args.eval_every == 0 or step == args.steps or stop.raised:
            train_bits = float(np.mean(jax.device_get(losses))) / np.log(2)
            seconds += time.perf_counter() - started
            rows.append(
                {
                    "step": step,
                    "characters": step * step_characters,
                    "train_bits": train_bits,
                    "validation_bits": evaluate(state.params, data.validation_streams),
                    "characters_per_second": step * step_characters / seconds,
                }
            )
            losses, started = [], time.perf_counter()
        if stop.raised:
            break
    bar.close()
    stop.restore()
    return state, rows, stop.raised


# --- what is left behind -------------------------------------------------------------------------


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """The rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_curve(path: Path, rows: list[dict[str, float]], counts: dict[str, float]) -> None:
    """The learning curve as PNG, with the count models as levels."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    million = [row["characters"] / 1e6 for row in rows]
    axes.plot(million, [row["train_bits"] for row in rows], label="network, training part")
    axes.plot(million, [row["validation_bits"] for row in rows], label="network, validation part")
    best = min(counts, key=counts.__getitem__)
    for name, style in {"2-gram": ":", "3-gram": "--", best: "-."}.items():
        label = f"{name}, validation part"
        axes.axhline(counts[name], color="gray", linestyle=style, label=label)
    last = rows[-1]["validation_bits"]
    axes.set(
        xlabel="characters read (millions)",
        ylabel="cross-entropy (bits per character)",
        title=f"Character model: {last:.3f} bits per character on held-out text",
    )
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def report(rows: list[dict[str, float]], counts: dict[str, float], data: Data) -> None:
    """The network's figure beside the count models'."""
    network = rows[-1]["validation_bits"]
    best = min(counts, key=counts.__getitem__)
    print(f"\nvalidation, bits per character (text {data.sha256[:16]})")
    for name, bits in [*counts.items(), ("network", network)]:
        print(f"  {name:8s} {bits:6.3f}")
    for name in ("3-gram", best):
        difference = network - counts[name]
        side = "above" if difference > 0 else "below"
        print(f"  the network is {abs(difference):.3f} {side} the {name}")
    print(f"  trained at {rows[-1]['characters_per_second']:,.0f} characters/s")


def _quote(characters: list[str]) -> str:
    shown = ", ".join(f"{c!r} U+{ord(c):04X}" for c in characters[:10])
    return shown + (f" and {len(characters) - 10} more" if len(characters) > 10 else "")


# --- the commands --------------------------------------------------------------------------------


def run_training(args: argparse.Namespace) -> int:
    """Train, and leave metrics, curve and model in `--out`."""
    args.out.mkdir(parents=True, exist_ok=True)
    data = load_data(args)
    counts = baselines(data)
    state, rows, interrupted = train(args, data)
    model = jax.device_get(state.params)
    settings = {
        "characters": data.alphabet.characters,
        "activation": args.activation,
        "text_sha256": data.sha256,
        "validation_bits": rows[-1]["validation_bits"],
        "options": {k: str(v) if k == "out" else v for k, v in vars(args).items()},
        "versions": {"jrnn": jrnn.__version__, "jax": jax.__version__},
    }
    save_model(args.out / "model.safetensors", model.rnn, model.readout, settings)
    write_metrics(args.out / "metrics.csv", rows)
    write_curve(args.out / "curve.png", rows, counts)
    report(rows, counts, data)
    print(f"\nmodel.safetensors, metrics.csv and curve.png are in {args.out}")
    if interrupted:
        print(f"interrupted after step {rows[-1]['step']:,} of {args.steps:,}; all of it is saved")
        return 130
    print("a sample:\n")
    write_samples(args, model, settings, length=300)
    return 0


def write_samples(args: argparse.Namespace, model: Model, settings: Any, length: int) -> None:
    """Stream one sample, or print several one after the other."""
    alphabet = Alphabet(settings["characters"])
    unknown = alphabet.unknown(args.prompt)
    if unknown:
        known = alphabet.characters[1:]
        raise ValueError(
            f"--prompt: expected characters of the training text; got {_quote(unknown)}. "
            f"The model knows: {known!r}"
        )
    blocks = jrnn.sampling.generate(
        model.rnn,
        model.readout,
        jax.random.key(args.seed),
        alphabet.encode(args.prompt or "\n"),
        length,
        num_samples=args.num_samples,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        activation=settings["activation"],
    )
    if args.num_samples == 1:
        print(args.prompt, end="")
        for block in blocks:
            print(alphabet.decode(block[0]), end="", flush=True)
        print()
        return
    for i, sample in enumerate(np.concatenate(list(blocks), axis=1), 1):
        print(f"--- sample {i}\n{args.prompt}{alphabet.decode(sample)}")


def run_sampling(args: argparse.Namespace) -> int:
    """Sample from the model in `--out`."""
    path = args.out / "model.safetensors"
    rnn_params, readout_params, settings = load_model(path)
    if not {"characters", "activation"} <= settings.keys():
        raise ValueError(f"model file {path}: expected a character model; got {sorted(settings)}.")
    write_samples(args, Model(rnn_params, readout_params), settings, length=args.sample)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("out/char_lm"), help="directory")
    parser.add_argument("--seed", type=int, default=0)
    training = parser.add_argument_group("training")
    training.add_argument("--text", nargs="+", metavar="FILE", help="UTF-8 text to train on")
    training.add_argument("--steps", type=positive, default=2000)
    training.add_argument("--hidden-size", type=positive, default=256)
    training.add_argument("--length", type=positive, default=128, help="steps in a chunk")
    training.add_argument("--batch-size", type=positive, default=32, help="streams")
    training.add_argument("--learning-rate", type=float, default=4e-3)
    training.add_argument("--schedule", choices=["cosine", "constant"], default="cosine")
    training.add_argument("--clip", type=float, default=1.0, help="gradient norm")
    training.add_argument(
        "--activation", choices=["tanh", "relu", "sigmoid", "identity"], default="tanh"
    )
    training.add_argument("--eval-every", type=positive, default=100, help="steps")
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument(
        "--sample", type=positive, metavar="N", help="draw N characters, no training"
    )
    sampling.add_argument("--num-samples", type=positive, default=1)
    sampling.add_argument("--temperature", type=float, default=0.7, help="0 is greedy")
    sampling.add_argument("--top-k", type=positive, help="keep the K likeliest characters")
    sampling.add_argument(
        "--top-p", type=float, help="keep the likeliest with probability P in all"
    )
    sampling.add_argument("--prompt", default="", help="text to continue")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """An integer above 0, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 1 after bad input, 130 after Ctrl-C."""
    args = parse(argv)
    try:
        return run_sampling(args) if args.sample else run_training(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
