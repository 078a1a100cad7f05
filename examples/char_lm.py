"""Train a character-level language model on real text, and sample from it.

    python examples/char_lm.py                                  # CPython's language reference
    python examples/char_lm.py --cell lstm                      # an LSTM; gru, a GRU
    python examples/char_lm.py --text book.txt notes.txt        # your own
    python examples/char_lm.py --sample 500 --prompt "The "     # from the model in --out

The network reads a character and predicts the next one. The text is split into streams that are
read in parallel, in chunks. The hidden state passes from chunk to chunk, the gradient does not
(truncated BPTT). The last tenth of the text is the validation set; the results of n-gram models on
the same characters are printed for comparison. Ctrl-C stops the training and saves everything.
"""

import char_streams

if __name__ == "__main__":
    char_streams.open_closed()  # before an import opens a file

import argparse
import contextlib
import io
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from char_data import baselines, load_data, quote
from char_devices import choose_devices, describe_devices, join
from char_model import ACTIVATIONS, W_HH_INITS, Model, activations_of, check_memory
from char_out import BEST, MODEL, UNFINISHED, RunDirectory, find_model
from char_record import Row
from char_results import place_results, settings_of, write_model, write_results
from char_run import find_checkpoint, manifest_of, train
from char_signals import StopFlag
from command import not_negative, on_devices, positive, positive_float, require_memory
from networks import CELLS, cell_name

import jrnn
from jrnn.cells.kinds import cell_of
from jrnn.checkpoint import Checkpoints
from jrnn.checks import network, readout_arguments, refuse, sampling_options
from jrnn.files import check_utf8
from jrnn.model_file import load_model
from jrnn.parallel import check_agreement, use_cpu_cores
from jrnn.text import Alphabet

OPTIONS_OF_SIZE = "--hidden-size, --batch-size or --length"


# --- the commands --------------------------------------------------------------------------------


def run_training(args: argparse.Namespace, stop: StopFlag) -> int:
    """Train, and write models, metrics, curve and checkpoints to `--out`."""
    check_utf8("--out", args.out)
    mesh, speaks = choose_devices(args.devices, args.batch_size), jax.process_index() == 0
    with RunDirectory(args.out, resume=args.resume, overwrite=args.overwrite) as directory:
        data = load_data(args.text, args.batch_size, args.length, args.out)
        check_sampling(args, data.alphabet, CELLS[args.cell].states * args.hidden_size)
        check_memory(args, len(data.alphabet.characters), mesh, OPTIONS_OF_SIZE)
        if jax.process_count() > 1:
            options = {f"--{k}": v for k, v in manifest_of(args, data, mesh)["options"].items()}
            check_agreement(options | {"the text's SHA-256": data.sha256})
        resumed = find_checkpoint(args, data, mesh, directory.resumable) if args.resume else None
        counts = baselines(data) if speaks else {}
        settings = settings_of(args, data, mesh)
        print(f"cell        {args.cell}\ndevices     {describe_devices(mesh)}")
        print(f"kernel      {settings['kernel']}")
        directory.begin(resumed)

        def write_best(model: Model, row: Row) -> None:
            if speaks:
                write_model(directory.unfinished / BEST, model, settings, row)

        with stop.deferred():
            with Checkpoints(directory.checkpoints, keep=args.keep) as checkpoints:
                state, record = train(args, data, mesh, stop, checkpoints, resumed, write_best)
                if speaks:
                    write_results(directory.unfinished, settings, state, record, counts, data)
            saved = place_results(args, directory, record) if speaks else True
    if stop.signum is not None or state.step < args.steps:
        return 130 if stop.signum == signal.SIGINT else int(not saved)
    print("a sample:\n")
    if speaks:
        write_samples(args, jax.device_get(state.params), settings, length=300)
    return 0


def check_sampling(args: argparse.Namespace, alphabet: Alphabet, state_size: int) -> None:
    """Refuse a prompt with unknown characters, and samples that do not fit into memory."""
    unknown = alphabet.unknown(args.prompt)
    if unknown:
        known = alphabet.characters[1:]
        known = repr(known) if len(known) <= 200 else f"{len(known):,} others"
        expected = "characters of the training text"
        refuse("--prompt", expected, quote(unknown), f"The model knows {known}.")
    held = args.sample or 0 if args.num_samples > 1 else 0  # a single sample is printed as it grows
    numbers = args.num_samples * (state_size + 2 * len(alphabet.characters) + held)
    require_memory(numbers, f"{args.num_samples:,} samples", "--num-samples or --sample")


def start_of(alphabet: Alphabet) -> str:
    """The first input of a sample without a prompt: a character of the training text.

    It is a newline, or else a space, or else the first character of the alphabet.
    """
    known = alphabet.characters[1:]  # all but U+FFFD
    return next(character for character in "\n " + known if character in known)


def write_samples(args: argparse.Namespace, model: Model, settings: Any, length: int) -> None:
    """Stream one sample, or print several one after the other."""
    alphabet = Alphabet(settings["characters"])
    w_ho, b_o = model.readout
    b_o = jnp.zeros_like(w_ho[0]) if b_o is None else jnp.asarray(b_o)
    never = b_o.at[0].set(-jnp.inf)  # never write U+FFFD
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
    """Sample from a model in `--out`."""
    path = find_model(args.out, BEST if args.best else MODEL)
    params, settings = load_model(path)
    name = f"model file {path}"
    model = as_model(name, params)
    settings = check_settings(name, model, settings)
    for option in ("cell", "activation"):
        if (asked := getattr(args, option)) not in (None, settings[option]):
            repair = "Leave it out, or train such a model."
            refuse(f"--{option}", f"{settings[option]}, the one of {name}", asked, repair)
    states = CELLS[settings["cell"]].states
    check_sampling(args, Alphabet(settings["characters"]), states * len(model.rnn.w_hh))
    if path.resolve().parent.name == UNFINISHED:
        note = f"{path} is read: step {settings.get('step')} of a run that has not finished"
        print(note, file=sys.stderr)
    write_samples(args, model, settings, length=args.sample)
    return 0


def as_model(name: str, params: Any) -> Model:
    """Check the parameters of a model file, which may belong to any network."""
    kinds, came = [kind.params.__name__ for kind in CELLS.values()], type(params).__name__
    found = {part: type(x).__name__ for part, x in params.items()} if came == "dict" else came
    if found not in [{"rnn": kind, "readout": "ReadoutParams"} for kind in kinds]:
        expected = f"a character model, rnn of {', '.join(kinds)} and readout of ReadoutParams"
        refuse(name, expected, found, "Train the model again.")
    model = Model(**params)
    network(cell_of(model.rnn), model.rnn)
    readout_arguments(model.readout, model.rnn.w_hh.T)  # [..., H], like states
    return model


def check_settings(name: str, model: Model, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse settings of another model; return them with the cell, which old ones do not have."""
    cell = cell_name(model.rnn)
    settings = {"cell": cell, "activation": None} | dict(settings)
    characters, activation = settings.get("characters"), settings["activation"]
    I = max(2, len(model.rnn.w_ih))  # U+FFFD and at least one other character
    known = isinstance(characters, str) and len(characters) == I
    if not known or settings["cell"] != cell or activation not in activations_of(cell):
        alphabet = f"{len(characters)} characters" if isinstance(characters, str) else "no alphabet"
        expected = f"a character model, cell {cell!r}, its activation and an alphabet of {I} "
        came = f"{alphabet}, cell {settings['cell']!r}, activation {activation!r}"
        refuse(name, f"{expected}characters", came, "Train the model again.")
    return settings


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],  # None with python -OO
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("out/char_lm"), help="directory")
    parser.add_argument("--seed", type=not_negative, default=0)
    training = parser.add_argument_group("training")
    training.add_argument("--text", nargs="+", metavar="FILE", help="UTF-8 text to train on")
    training.add_argument("--steps", type=positive, default=3000)
    training.add_argument("--cell", choices=CELLS, help="network; None: rnn, an Elman network")
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
    training.add_argument("--activation", choices=ACTIVATIONS, help="of an rnn; None: tanh")
    training.add_argument("--eval-every", type=positive, default=100, help="steps")
    training.add_argument(
        "--nonfinite",
        choices=["stop", "skip"],
        default="stop",
        help="what a loss or gradient that is not finite does to the run, or to its batch",
    )
    saving = parser.add_argument_group("checkpoints")
    what_is_there = saving.add_mutually_exclusive_group()
    what_is_there.add_argument(
        "--resume", action="store_true", help="go on from the last one in --out"
    )
    what_is_there.add_argument(
        "--overwrite",
        action="store_true",
        help="give up an unfinished run in --out, and a finished one even if this is interrupted",
    )
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
    sampling.add_argument("--best", action="store_true", help=f"from {BEST}, not {MODEL}")
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
    args = parser.parse_args(argv)
    if not args.sample:  # a model file says its own
        args.cell = args.cell or "rnn"
        known = activations_of(args.cell)
        args.activation = args.activation or known[0]
        if args.activation not in known:
            expected = f"none with --cell {args.cell}, which has its own"
            parser.error(f"argument --activation: expected {expected}; got {args.activation!r}")
    return args


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
    """Run the program; return 0, 1 after bad input or a failed write, or 130 after Ctrl-C."""
    args = parse(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # escape characters that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.getLogger("absl").setLevel(
        logging.CRITICAL
    )  # orbax also raises the errors that it logs
    with StopFlag() as stop, char_streams.guarded("stderr", spare=True):
        try:
            with char_streams.guarded("stdout", spare=not args.sample) as output:
                status = run(args, stop)
        except BrokenPipeError:  # the reader of the sample has closed the pipe
            return 1
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:  # before or after training; during it StopFlag is used
            print("interrupted", file=sys.stderr)
            return 128 + (stop.signum or signal.SIGINT)
        if output.error is not None and not isinstance(output.error, BrokenPipeError):
            print(f"{output.error}; the run did without it", file=sys.stderr)
        return status


def run(args: argparse.Namespace, stop: StopFlag) -> int:
    """Run the command; return the exit status."""
    sampling_options(args.temperature, args.top_k, args.top_p)
    join(args)
    silent = contextlib.redirect_stdout(io.StringIO())  # only one process prints
    with (
        on_devices(f"--num-samples, {OPTIONS_OF_SIZE}"),
        silent if jax.process_index() > 0 else contextlib.nullcontext(),
    ):
        return run_sampling(args) if args.sample else run_training(args, stop)


if __name__ == "__main__":
    use_cpu_cores()  # before JAX creates its devices
    status = main()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to do or print
    sys.exit(status)
