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
import io
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from char_data import Data, baselines, load_data, quote, training_chunks
from char_report import report, write_curve, write_metrics
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jrnn
from jrnn.cell import ActivationName
from jrnn.checks import refuse, sampling_options
from jrnn.model_file import load_model, save_model
from jrnn.parallel import BATCH, batch_mesh, mean, use_cpu_cores
from jrnn.text import Alphabet, chunks
from jrnn.training import TrainState, init_train_state, make_train_step

try:  # all that a run needs, before it begins
    import matplotlib as matplotlib
    import safetensors as safetensors
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f"{error.name} is missing: pip install -e '.[train]'")

EVALUATION_CHUNK = 256
ACTIVATIONS = ["tanh", "relu", "sigmoid", "identity"]
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


def make_loss(activation: ActivationName) -> Any:
    """The mean cross-entropy of a chunk in nats, and the state that the next chunk starts from."""

    def loss(model: Model, h0: jax.Array, batch: Any, key: jax.Array) -> Any:
        del key  # nothing here is random
        xs, labels = batch
        h_last, hs = jrnn.rnn(model.rnn, xs, h0, activation=activation)
        losses = jrnn.softmax_cross_entropy(jrnn.readout(model.readout, hs), labels)
        return mean(losses.sum(), labels.size), h_last

    return loss


def make_evaluate(
    activation: ActivationName, streams: np.ndarray, mesh: Mesh
) -> Callable[[Model], float]:
    """Bits per character over streams, the state carried from zero, unknown ones not counted."""
    states, ids = P(BATCH), P(None, BATCH)  # [B, H], [T, B]

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), states, ids, ids), out_specs=(P(), states))
    def chunk_nats(model: Model, h0: jax.Array, xs: jax.Array, labels: jax.Array) -> Any:
        h_last, hs = jrnn.rnn(model.rnn, xs, h0, activation=activation)
        logits = jrnn.readout(model.readout, hs)
        losses = jrnn.softmax_cross_entropy(logits, labels, labels != 0)
        return jax.lax.psum(losses.sum(), BATCH), h_last

    def evaluate(model: Model) -> float:
        shape = streams.shape[1], model.rnn.w_hh.shape[0]
        h = jnp.zeros(shape, device=NamedSharding(mesh, states))
        nats = 0.0
        for xs, labels in chunks(streams, EVALUATION_CHUNK):
            padding = ((0, EVALUATION_CHUNK - len(xs)), (0, 0))
            xs, labels = np.pad(xs, padding), np.pad(labels, padding)  # one shape, one program
            chunk, h = chunk_nats(model, h, xs, labels)
            nats += float(chunk)
        return nats / np.count_nonzero(streams[1:]) / np.log(2)

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
        print("\nstopping after this step, and saving", file=sys.stderr, flush=True)

    def __exit__(self, *exception: object) -> None:
        """Give SIGINT back."""
        signal.signal(signal.SIGINT, self._previous)


class Record:
    """The metrics of a run: a row per evaluation; the time is that of the steps after the first."""

    def __init__(self, step_characters: int, evaluate: Callable[[Model], float]) -> None:
        """Nothing is recorded yet."""
        self.rows: list[dict[str, float]] = []
        self._step_characters, self._evaluate = step_characters, evaluate
        self._losses: list[jax.Array] = []
        self._seconds = self._started = 0.0

    def add(self, loss: jax.Array) -> None:
        """Keep a loss, on the device: reading it would wait for it."""
        self._losses.append(loss)
        if not self._started:  # the first step compiles
            loss.block_until_ready()
            self._started = time.perf_counter()

    def evaluate(self, step: int, model: Model) -> None:
        """Close a row."""
        train_bits = float(np.mean(jax.device_get(self._losses))) / np.log(2)
        if not np.isfinite(train_bits):
            repair = "Lower --learning-rate or --clip. Nothing in --out was changed."
            refuse(f"training, up to step {step:,}", "a finite loss", train_bits, repair)
        self._seconds += time.perf_counter() - self._started
        self.rows.append(
            {
                "step": step,
                "characters": step * self._step_characters,
                "train_bits": train_bits,
                "validation_bits": self._evaluate(model),
                "characters_per_second": (step - 1) * self._step_characters / self._seconds,
            }
        )
        self._losses, self._started = [], time.perf_counter()


def choose_devices(devices: int | Literal["all"] | None, batch_size: int) -> Mesh:
    """The mesh of `--devices`, which must divide the streams."""
    if devices is None:
        there = range(1, len(jax.devices()) + 1)
        devices = max(n for n in there if batch_size % n == 0)
    mesh = batch_mesh(None if devices == "all" else devices)
    if batch_size % mesh.size:
        repair = "Take another batch size, or other --devices."
        refuse("--batch-size", f"a multiple of the {mesh.size} devices", batch_size, repair)
    return mesh


def describe_devices(mesh: Mesh) -> str:
    """Their number and kind."""
    return f"{mesh.size} {mesh.devices[0].platform}"


def train(
    args: argparse.Namespace, data: Data, mesh: Mesh, stop: StopFlag
) -> tuple[TrainState, Record]:
    """Run the training until its end or the flag."""
    key_model, key_state = jax.random.split(jax.random.key(args.seed))
    model = init_model(key_model, args, len(data.alphabet.characters))
    print(jrnn.summary(model), end="\n\n", flush=True)
    optimizer = make_optimizer(args)
    zeros = jnp.zeros((args.batch_size, args.hidden_size))
    state = init_train_state(model, optimizer, zeros, key_state, mesh=mesh)
    train_step = make_train_step(make_loss(args.activation), optimizer, mesh=mesh)

    step_characters = args.length * args.batch_size
    evaluate = make_evaluate(args.activation, data.validation_streams, mesh)
    record, source = Record(step_characters, evaluate), training_chunks(data.streams, args.length)
    with tqdm(total=args.steps * step_characters, unit="char", unit_scale=True) as bar:
        for step in range(1, args.steps + 1):
            batch, first = next(source)
            if first:
                state = state._replace(carry=jnp.zeros_like(state.carry))
            state, metrics = train_step(state, batch)
            record.add(metrics.loss)
            bar.update(step_characters)
            if step % 10 == 0:
                bar.set_postfix_str(f"{float(metrics.loss) / np.log(2):.3f} bits/char")
            if stop.raised:
                break
            if step % args.eval_every == 0 and step < args.steps:
                record.evaluate(step, state.params)
    return state, record


# --- the commands --------------------------------------------------------------------------------


def run_training(args: argparse.Namespace) -> int:
    """Train, and leave metrics, curve and model in `--out`."""
    mesh = choose_devices(args.devices, args.batch_size)
    args.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=args.out).close()  # an OSError now, not after the training
    data = load_data(args.text, args.batch_size, args.length)
    check_prompt(args.prompt, data.alphabet)
    counts = baselines(data)
    print(f"devices     {describe_devices(mesh)}")
    with StopFlag() as stop:
        state, record = train(args, data, mesh, stop)
        step = int(state.step)
        record.evaluate(step, state.params)
        model, settings = jax.device_get(state.params), settings_of(args, data, mesh)
        save_model(args.out / "model.safetensors", model.rnn, model.readout, settings)
        write_metrics(args.out / "metrics.csv", record.rows)
        write_curve(args.out / "curve.png", record.rows, counts)
    report(record.rows, counts, data)
    print(f"\nmodel.safetensors, metrics.csv and curve.png are in {args.out}")
    if step < args.steps:
        print(f"interrupted after step {step:,} of {args.steps:,}; all of it is saved")
        return 130
    print("a sample:\n")
    write_samples(args, model, settings, length=300)
    return 0


def settings_of(args: argparse.Namespace, data: Data, mesh: Mesh) -> dict[str, Any]:
    """What a model file says beside the arrays."""
    return {
        "characters": data.alphabet.characters,
        "activation": args.activation,
        "text_sha256": data.sha256,
        "devices": describe_devices(mesh),
        "options": {k: str(v) if k == "out" else v for k, v in vars(args).items()},
        "versions": {"jrnn": jrnn.__version__, "jax": jax.__version__},
    }


def check_prompt(prompt: str, alphabet: Alphabet) -> None:
    """Refuse a prompt that the network cannot read."""
    unknown = alphabet.unknown(prompt)
    if unknown:
        known = alphabet.characters[1:]
        known = repr(known) if len(known) <= 200 else f"{len(known):,} others"
        expected = "characters of the training text"
        refuse("--prompt", expected, quote(unknown), f"The model knows {known}.")


def write_samples(args: argparse.Namespace, model: Model, settings: Any, length: int) -> None:
    """Stream one sample, or print several one after the other."""
    alphabet = Alphabet(settings["characters"])
    never = jnp.asarray(model.readout.b_o).at[0].set(-jnp.inf)  # U+FFFD is for reading only
    blocks = jrnn.sampling.generate(
        model.rnn,
        model.readout._replace(b_o=never),
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
    if not path.exists():
        refuse("--out", "a directory with a model.safetensors", args.out, "Train a model first.")
    rnn_params, readout_params, settings = load_model(path)
    characters, activation = settings.get("characters"), settings.get("activation")
    I = len(rnn_params.w_ih)
    if (
        not isinstance(characters, str)
        or len(characters) != I
        or activation not in ACTIVATIONS
        or readout_params.b_o is None
    ):
        alphabet = f"{len(characters)} characters" if isinstance(characters, str) else "no alphabet"
        expected = f"a character model, its activation and an alphabet of {I} characters"
        came = f"{alphabet}, activation {activation!r}"
        refuse(f"model file {path}", expected, came, "Train the model again.")
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
    parser.add_argument("--seed", type=seed, default=0)
    training = parser.add_argument_group("training")
    training.add_argument("--text", nargs="+", metavar="FILE", help="UTF-8 text to train on")
    training.add_argument("--steps", type=positive, default=3000)
    training.add_argument("--hidden-size", type=positive, default=256)
    training.add_argument(
        "--w-hh-init", choices=W_HH_INITS, default="orthogonal", help="gaussian: deviation 0.01"
    )
    training.add_argument("--length", type=positive, default=64, help="steps in a chunk")
    training.add_argument("--batch-size", type=positive, default=32, help="streams")
    training.add_argument(
        "--devices",
        type=number_or_all,
        metavar="N|all",
        help="CPU cores, or GPUs, to split the batch over; None: as many as divide it",
    )
    training.add_argument("--learning-rate", type=positive_float, default=8e-3)
    training.add_argument("--schedule", choices=["cosine", "constant"], default="cosine")
    training.add_argument("--clip", type=positive_float, default=1.0, help="gradient norm")
    training.add_argument("--activation", choices=ACTIVATIONS, default="tanh")
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
    if not 1 <= int(text) < 2**31:
        raise ValueError
    return int(text)


def number_or_all(text: str) -> int | str:
    """A number of devices, or all of them, for argparse."""
    return text if text == "all" else positive(text)


def seed(text: str) -> int:
    """A seed of a random key, for argparse."""
    if not 0 <= int(text) < 2**31:
        raise ValueError
    return int(text)


def positive_float(text: str) -> float:
    """A finite number above 0, for argparse."""
    if not 0 < float(text) < float("inf"):
        raise ValueError
    return float(text)


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 1 after bad input, 130 after Ctrl-C."""
    args = parse(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # whatever the terminal cannot show, escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sampling_options(args.temperature, args.top_k, args.top_p)
        return run_sampling(args) if args.sample else run_training(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before or after the training; during it there is a flag
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    use_cpu_cores()  # before JAX makes its devices
    sys.exit(main())
