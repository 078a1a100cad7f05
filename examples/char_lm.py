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
import contextlib
import io
import logging
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from char_data import Data, baselines, load_data, quote
from char_model import ACTIVATIONS, W_HH_INITS, Model, check_memory
from char_report import report, write_curve, write_metrics
from char_run import Record, StopFlag, describe_devices, find_checkpoint, manifest_of, train
from command import not_negative, on_devices, positive, positive_float, require_memory
from jax.sharding import Mesh

import jrnn
from jrnn.checkpoint import Checkpoints
from jrnn.checks import refuse, sampling_options
from jrnn.model_file import load_model, save_model
from jrnn.parallel import batch_mesh, check_agreement, use_cpu_cores
from jrnn.text import Alphabet
from jrnn.training import TrainState

OPTIONS_OF_SIZE = "--hidden-size, --batch-size or --length"
HEARTBEAT_SECONDS = 30  # after which the others of several processes end where one is gone


# --- devices and processes -----------------------------------------------------------------------


def join(args: argparse.Namespace) -> None:
    """Make several processes one run, by JAX's own runtime; before JAX makes its devices."""
    flags = (args.coordinator, args.processes, args.process)
    if args.cluster or any(flag is not None for flag in flags):
        if not args.cluster and None in flags:
            repair = "Give all three, or --cluster, where Slurm, MPI or the cloud knows them."
            came = dict(zip(("--coordinator", "--processes", "--process"), flags, strict=True))
            refuse("processes", "a coordinator, their number and one's own", came, repair)
        jax.distributed.initialize(*flags, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


def choose_devices(devices: int | Literal["all"] | None, batch_size: int) -> Mesh:
    """The mesh of `--devices`, which must divide the streams; of several processes, all."""
    if jax.process_count() > 1:
        if devices not in (None, "all"):
            refuse("--devices", "all, with several processes", devices, "Leave it out.")
        devices = "all"
    if devices is None:
        there = range(1, len(jax.devices()) + 1)
        devices = max(n for n in there if batch_size % n == 0)
    mesh = batch_mesh(None if devices == "all" else devices)
    if batch_size % mesh.size:
        repair = "Take another batch size, or other --devices."
        refuse("--batch-size", f"a multiple of the {mesh.size} devices", batch_size, repair)
    return mesh


# --- the commands --------------------------------------------------------------------------------


def run_training(args: argparse.Namespace) -> int:
    """Train, and leave metrics, curve, model and checkpoints in `--out`."""
    mesh = choose_devices(args.devices, args.batch_size)
    args.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=args.out).close()  # an OSError now, not after the training
    data = load_data(args.text, args.batch_size, args.length, args.out)
    check_sampling(args, data.alphabet, args.hidden_size)
    check_memory(args, len(data.alphabet.characters), mesh, OPTIONS_OF_SIZE)
    if jax.process_count() > 1:
        options = {f"--{k}": v for k, v in manifest_of(args, data, mesh)["options"].items()}
        check_agreement(options | {"the text's SHA-256": data.sha256})
    with Checkpoints(args.out / "checkpoints", keep=args.keep) as checkpoints:
        resumed = find_checkpoint(args, data, mesh, checkpoints)
        counts = baselines(data) if jax.process_index() == 0 else {}
        print(f"devices     {describe_devices(mesh)}")
        with StopFlag() as stop:
            state, record = train(args, data, mesh, stop, checkpoints, resumed)
            if jax.process_index() == 0:
                finish(args, data, mesh, state, record, counts)
    step = int(state.step)
    if step < args.steps:
        print(f"interrupted after step {step:,} of {args.steps:,}; all of it is saved, and")
        print("--resume goes on with it")
        return 130 if stop.signum == signal.SIGINT else 0
    print("a sample:\n")
    if jax.process_index() == 0:
        settings = settings_of(args, data, mesh)
        write_samples(args, jax.device_get(state.params), settings, length=300)
    return 0


def finish(
    args: argparse.Namespace,
    data: Data,
    mesh: Mesh,
    state: TrainState,
    record: Record,
    counts: dict[str, float],
) -> None:
    """Write the model, the metrics and the curve, and say how good it is."""
    model, settings = jax.device_get(state.params), settings_of(args, data, mesh)
    save_model(args.out / "model.safetensors", model.rnn, model.readout, settings)
    write_metrics(args.out / "metrics.csv", record.rows)
    write_curve(args.out / "curve.png", record.rows, counts)
    report(record.rows, counts, data)
    if state.nonfinite:
        print(f"  {int(state.nonfinite):,} batches were skipped: no finite loss or gradient")
    print(f"\nmodel.safetensors, metrics.csv and curve.png are in {args.out}")


def settings_of(args: argparse.Namespace, data: Data, mesh: Mesh) -> dict[str, Any]:
    """What a model file says beside the arrays."""
    alphabet = {"characters": data.alphabet.characters, "activation": args.activation}
    return alphabet | manifest_of(args, data, mesh)


def check_sampling(args: argparse.Namespace, alphabet: Alphabet, hidden_size: int) -> None:
    """Refuse a prompt that the network cannot read, and more samples than can be drawn at once."""
    unknown = alphabet.unknown(args.prompt)
    if unknown:
        known = alphabet.characters[1:]
        known = repr(known) if len(known) <= 200 else f"{len(known):,} others"
        expected = "characters of the training text"
        refuse("--prompt", expected, quote(unknown), f"The model knows {known}.")
    held = args.sample or 0 if args.num_samples > 1 else 0  # a single one is shown as it grows
    numbers = args.num_samples * (hidden_size + 2 * len(alphabet.characters) + held)
    require_memory(numbers, f"{args.num_samples:,} samples", "--num-samples or --sample")


def start_of(alphabet: Alphabet) -> str:
    """What a sample without a prompt goes on after, which the network has read in its training.

    A newline; if the text had none a space; if it had neither, the first of the alphabet.
    """
    known = alphabet.characters[1:]  # all but U+FFFD
    return next(character for character in "\n " + known if character in known)


def write_samples(args: argparse.Namespace, model: Model, settings: Any, length: int) -> None:
    """Stream one sample, or print several one after the other."""
    alphabet = Alphabet(settings["characters"])
    never = jnp.asarray(model.readout.b_o).at[0].set(-jnp.inf)  # U+FFFD is for reading only
    blocks = jrnn.sampling.generate(
        model.rnn,
        model.readout._replace(b_o=never),
        jax.random.key(args.seed),
        alphabet.encode(args.prompt or start_of(alphabet)),
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
    I = max(2, len(rnn_params.w_ih))  # U+FFFD and what it can write
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
    check_sampling(args, Alphabet(characters), len(rnn_params.w_hh))
    write_samples(args, Model(rnn_params, readout_params), settings, length=args.sample)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],  # there is none with python -OO
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("out/char_lm"), help="directory")
    parser.add_argument("--seed", type=not_negative, default=0)
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
    training.add_argument(
        "--nonfinite",
        choices=["stop", "skip"],
        default="stop",
        help="what a loss or gradient that is not finite does to the run, or to its batch",
    )
    saving = parser.add_argument_group("checkpoints")
    saving.add_argument("--resume", action="store_true", help="go on from the last one in --out")
    saving.add_argument("--checkpoint-every", type=positive, default=500, help="steps")
    saving.add_argument("--keep", type=positive, default=3, help="the last ones, and the best")
    saving.add_argument(
        "--on-save-error",
        choices=["continue", "stop"],
        default="continue",
        help="what a full disk does to the run",
    )
    several = parser.add_argument_group("several processes, of one or more machines")
    several.add_argument(
        "--coordinator", type=host_and_port, metavar="HOST:PORT", help="of process 0"
    )
    several.add_argument("--processes", type=positive, help="their number")
    several.add_argument("--process", type=not_negative, help="the number of this one, from 0")
    several.add_argument(
        "--cluster", action="store_true", help="let JAX ask Slurm, MPI or the cloud for all that"
    )
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
    sampling.add_argument(
        "--prompt",
        default="",
        help="text to continue; without one, a newline, which is not shown; in a text without any, "
        "a space, or else its first character by code point",
    )
    return parser.parse_args(argv)


def number_or_all(text: str) -> int | str:
    """A number of devices, or all of them, for argparse."""
    return text if text == "all" else positive(text)


def host_and_port(text: str) -> str:
    """An address, for argparse."""
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, a port below 65,536; got {text!r}")
    return text


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 1 after bad input, 130 after Ctrl-C."""
    args = parse(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # whatever the terminal cannot show, escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs what it also raises
    try:
        sampling_options(args.temperature, args.top_k, args.top_p)
        join(args)
        silent = contextlib.redirect_stdout(io.StringIO())  # one process speaks
        with (
            on_devices(f"--num-samples, {OPTIONS_OF_SIZE}"),
            silent if jax.process_index() > 0 else contextlib.nullcontext(),
        ):
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
