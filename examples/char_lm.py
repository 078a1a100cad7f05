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
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from char_data import Data, baselines, load_data, quote, training_chunks
from char_report import report, write_curve, write_metrics
from tqdm import tqdm

import jrnn
from jrnn.checks import sampling_options
from jrnn.model_file import load_model, save_model
from jrnn.text import Alphabet, chunks
from jrnn.training import TrainState, init_train_state, make_train_step

EVALUATION_CHUNK = 256
W_HH_INITS = {
    "orthogonal": jax.nn.initializers.orthogonal(),
    "gaussian": jax.nn.initializers.normal(0.01),
}


class Model(NamedTuple):
    """The trainable parameters."""

    rnn: jrnn.RNNParams
    readout: jrnn.ReadoutParams


# --- the network ---------------------------------------------------------------------------------


def init_model(key: jax.Array, args: argparse.Namespace, vocabulary: int) -> Model:
    """`w_hh` orthogonal unless told otherwise, the rest by LeCun's rule, biases zero."""
    key_rnn, key_readout = jax.random.split(key)
    w_hh_init = W_HH_INITS[args.w_hh_init]
    return Model(
        jrnn.init_rnn(key_rnn, vocabulary, args.hidden_size, w_hh_init=w_hh_init),
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
    """Bits per character over streams, the state carried from zero, unknown ones not counted."""

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


# --- the training --------------------------------------------------------------------------------


class StopFlag:
    """Set by Ctrl-C and read between steps: inside a step the donated buffers would be lost."""

    def __enter__(self) -> "StopFlag":
        """Take over SIGINT."""
        self.raised = False
        self._previous = signal.signal(signal.SIGINT, self._raise)
        return self

    def _raise(self, signum: int, frame: Any) -> None:
        self.raised = True
        signal.signal(signal.SIGINT, self._previous)  # a second Ctrl-C stops at once

    def __exit__(self, *exception: object) -> None:
        """Give SIGINT back."""
        signal.signal(signal.SIGINT, self._previous)


class Record:
    """The metrics of a run: a row per evaluation, timed without the evaluations."""

    def __init__(self, step_characters: int) -> None:
        """Start the clock."""
        self.rows: list[dict[str, float]] = []
        self._losses: list[jax.Array] = []
        self._step_characters = step_characters
        self._seconds, self._started = 0.0, time.perf_counter()

    def add(self, loss: jax.Array) -> None:
        """Keep a loss, on the device: reading it would wait for it."""
        self._losses.append(loss)

    def evaluate(self, step: int, validation_bits: Callable[[], float]) -> None:
        """Close a row."""
        train_bits = float(np.mean(jax.device_get(self._losses))) / np.log(2)
        self._seconds += time.perf_counter() - self._started
        characters = step * self._step_characters
        self.rows.append(
            {
                "step": step,
                "characters": characters,
                "train_bits": train_bits,
                "validation_bits": validation_bits(),
                "characters_per_second": characters / self._seconds,
            }
        )
        self._losses, self._started = [], time.perf_counter()


def train(args: argparse.Namespace, data: Data) -> tuple[TrainState, list[dict[str, float]], bool]:
    """Run the training: the last state, the rows of metrics, and whether Ctrl-C cut it short."""
    key_model, key_state = jax.random.split(jax.random.key(args.seed))
    model = init_model(key_model, args, len(data.alphabet.characters))
    print(jrnn.summary(model), end="\n\n")
    optimizer = make_optimizer(args)
    zeros = jnp.zeros((args.batch_size, args.hidden_size))
    state = init_train_state(model, optimizer, zeros, key_state)
    train_step = make_train_step(make_loss(args.activation), optimizer)
    evaluate = make_evaluate(args.activation)

    step_characters = args.length * args.batch_size
    record, source = Record(step_characters), training_chunks(data.streams, args.length)
    with (
        StopFlag() as stop,
        tqdm(total=args.steps * step_characters, unit="char", unit_scale=True) as bar,
    ):
        for step in range(1, args.steps + 1):
            batch, first = next(source)
            if first:
                state = state._replace(carry=jnp.zeros_like(zeros))
            state, metrics = train_step(state, batch)
            record.add(metrics.loss)
            bar.update(step_characters)
            if step % 10 == 0:
                bar.set_postfix_str(f"{float(metrics.loss) / np.log(2):.3f} bits/char")
            if step % args.eval_every == 0 or step == args.steps or stop.raised:
                record.evaluate(step, lambda: evaluate(state.params, data.validation_streams))
            if stop.raised:
                break
    return state, record.rows, stop.raised


# --- the commands --------------------------------------------------------------------------------


def run_training(args: argparse.Namespace) -> int:
    """Train, and leave metrics, curve and model in `--out`."""
    args.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=args.out).close()  # an OSError now, not after the training
    data = load_data(args.text, args.batch_size, args.length)
    check_prompt(args.prompt, data.alphabet)
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


def check_prompt(prompt: str, alphabet: Alphabet) -> None:
    """Refuse a prompt that the network cannot read."""
    unknown = alphabet.unknown(prompt)
    if unknown:
        raise ValueError(
            f"--prompt: expected characters of the training text; got {quote(unknown)}. "
            f"The model knows: {alphabet.characters[1:]!r}"
        )


def write_samples(args: argparse.Namespace, model: Model, settings: Any, length: int) -> None:
    """Stream one sample, or print several one after the other."""
    alphabet = Alphabet(settings["characters"])
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
    characters = settings.get("characters", "")
    if len(characters) != len(rnn_params.w_ih) or "activation" not in settings:
        raise ValueError(
            f"model file {path}: expected a character model, its activation and an alphabet of "
            f"{len(rnn_params.w_ih)} characters; got the settings {sorted(settings)} and "
            f"{len(characters)} characters. Train the model again."
        )
    check_prompt(args.prompt, Alphabet(characters))
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
    training.add_argument("--steps", type=positive, default=3000)
    training.add_argument("--hidden-size", type=positive, default=256)
    training.add_argument(
        "--w-hh-init", choices=W_HH_INITS, default="orthogonal", help="gaussian: deviation 0.01"
    )
    training.add_argument("--length", type=positive, default=64, help="steps in a chunk")
    training.add_argument("--batch-size", type=positive, default=32, help="streams")
    training.add_argument("--learning-rate", type=float, default=8e-3)
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
        sampling_options(args.temperature, args.top_k, args.top_p)
        return run_sampling(args) if args.sample else run_training(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
