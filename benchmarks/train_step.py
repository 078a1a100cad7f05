"""Compare the training step of the character model with its rivals, on the same data, in turn.

    python -m benchmarks.train_step                          # speed: 60 steps of each
    python -m benchmarks.train_step --rows 2 --rounds 1500   # and the final loss of each
    python -m benchmarks.train_step --cell lstm --hidden-size 512   # or gru; with torch alone

The recipe: H = 256, chunks over 32 streams, Adam at 2e-3, gradients clipped to norm 1, the state
carried over the chunks. Row 1 uses chunks of 64, as `examples/char_lm.py`, row 2 chunks of 128. All
programs start from the same parameters and read the same characters, on one device. A round is one
training step of each. The first losses must agree. The rivals are autodiff and torch; others are
ignored. The plain scans use the optax optimiser of jrnn, whose step is that of
`examples/char_lm.py`, and donate their buffers, too. A second table has the parts of jrnn's step,
each alone.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jrnn
from benchmarks import machine, measuring, report
from benchmarks.report import Results
from benchmarks.rivals import NAMES, load
from benchmarks.rivals.autodiff import scans
from jrnn.checks import refuse

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from char_model import model as char_model
from char_model.data import load_data
from char_model.settings import Settings, resolved

from jrnn.parallel import batch_mesh, use_cpu_cores
from jrnn.text import training_chunks
from jrnn.training import TrainState, init_train_state, make_train_step

LENGTHS = {1: 64, 2: 128}  # steps per chunk
TOY: dict[str, Any] = {"length": 5, "hidden_size": 8, "batch_size": 4}
# Before the first update only rounding differs. Then Adam divides small gradients, which are mostly
# rounding, by their own size.
TOLERANCES = [1e-5, 1e-3, 1e-3]
ROUNDED_TOLERANCES = [1e-2, 2e-2, 2e-2]  # if float32 matmuls are rounded by default
LEARNED = 1000  # rounds from which the final losses are measured


class Trainer:
    """A training step of JAX with its state, which has `params` and a `carry` over the chunks."""

    def __init__(self, train_step: Callable[..., Any], state: Any) -> None:
        self.train_step = train_step  # (state, batch) -> (state, loss or metrics)
        self.state = state

    def step(self, batch: Any, first: bool) -> float:
        if first:
            zeros = jax.tree.map(jnp.zeros_like, self.state.carry)
            self.state = self.state._replace(carry=zeros)
        self.state, found = self.train_step(self.state, batch)
        jax.block_until_ready(self.state)
        return float(getattr(found, "loss", found))

    def model(self) -> Any:
        """The learned parameters."""
        return self.state.params


def plain_step(scan: Callable[..., Any], optimizer: optax.GradientTransformation) -> Any:
    """A plain scan of an Elman network with a linear layer, trained as its users would."""

    def loss(model: Any, h0: Any, batch: Any) -> Any:
        ids, labels = batch
        hs = scan(model.rnn, ids, h0)
        logits = hs @ model.readout.w_ho + model.readout.b_o
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), hs[-1]

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: TrainState, batch: Any) -> Any:
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (found, h), grads = value_and_grad(state.params, state.carry, batch)
        updates, kept = optimizer.update(grads, state.opt_state, state.params)
        learned = optax.apply_updates(state.params, updates)
        return state._replace(params=learned, opt_state=kept, carry=h), found

    return train_step


def programs(model: Any, args: Settings, rivals: list[str]) -> dict[str, Any]:
    """All programs by name; that of jrnn is the training step of `examples/char_lm.py`."""
    optimizer = char_model.make_optimizer(args)
    steps = {"jrnn": make_train_step(char_model.make_loss(args), optimizer)}
    if "autodiff" in rivals:
        steps |= {name: plain_step(scan, optimizer) for name, scan in scans("rnn").items()}
    zeros = jrnn.zero_state(model.rnn, args.batch_size)
    found: dict[str, Any] = {
        name: Trainer(step, init_train_state(model, optimizer, zeros, jax.random.key(0)))
        for name, step in steps.items()
    }
    if "torch" in rivals:
        found["torch"] = load("torch").Trainer(model, args)
    return found


def parts(model: Any, args: Settings, batch: Any) -> list[measuring.Program]:
    """The parts of a training step of jrnn, each as a program of its own."""
    zeros, (ids, labels) = jrnn.zero_state(model.rnn, args.batch_size), batch
    hs = char_model.apply(args, model.rnn, ids, zeros)[1]
    optimizer = char_model.make_optimizer(args)

    def recurrence(rnn: Any, hs: Any) -> Any:
        return jnp.vdot(char_model.apply(args, rnn, ids, zeros)[1], hs)

    def loss(readout: Any, hs: Any) -> Any:
        return jrnn.readout_cross_entropy(readout, hs, labels) / labels.size

    functions: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "recurrence": (jax.grad(recurrence), (model.rnn, hs)),
        "readout and loss": (jax.value_and_grad(loss, (0, 1)), (model.readout, hs)),
        "optimiser": (optimizer.update, (model, optimizer.init(model), model)),
    }
    return [measuring.compile_program(k, f, args, dict) for k, (f, args) in functions.items()]


def measure_row(options: argparse.Namespace, row: int, rivals: list[str]) -> Results:
    """One record per program; its first steps, which compile and are compared, do not count."""
    recipe: dict[str, Any] = {"cell": options.cell, "learning_rate": 2e-3, "schedule": "constant"}
    recipe |= {"length": LENGTHS[row], "hidden_size": options.hidden_size}
    args = resolved(Settings(**recipe | (TOY if options.toy else {})))
    data = load_data(None, args.batch_size, args.length, tempfile.gettempdir())
    model = char_model.init_model(jax.random.key(0), args, len(data.alphabet.characters))
    if args.cell == "gru":  # torch's second bias stays 0, as it does not exist in other networks
        model = model._replace(rnn=model.rnn._replace(b_hn=None))
    running = programs(model, args, rivals)
    seconds = train(running, training_chunks(data.streams, args.length), options.rounds)
    evaluate = char_model.make_evaluate(args, data.validation_streams, batch_mesh(1))
    key = {"axis": "T, B, H", "place": f"{args.length}, {args.batch_size}, {args.hidden_size}"}
    for name, program in running.items():
        values = of_seconds(timed := seconds[name][len(TOLERANCES) :])
        values["characters/s"] = args.length * args.batch_size / median(timed)
        if options.rounds >= LEARNED:
            values["validation bits"] = evaluate(jax.device_get(program.model()))
        yield key | {"table": "training step", "program": name, "values": values}
    batch = next(training_chunks(data.streams, args.length))[0]
    step = min(seconds["jrnn"][len(TOLERANCES) :])
    for name, timed in measuring.time_in_turn(parts(model, args, batch), 10).items():
        values = {**of_seconds(timed), "of the step": min(timed) / step}
        yield key | {"table": "parts of jrnn's step", "program": name, "values": values}


def of_seconds(timed: list[float]) -> dict[str, float]:
    """Their median and minimum, in milliseconds."""
    return {"median ms": 1e3 * median(timed), "minimum ms": 1e3 * min(timed)}


def train(running: dict[str, Any], source: Any, rounds: int) -> dict[str, list[float]]:
    """Train all programs, a step of each in turn; return the seconds of every step of each."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for n in range(rounds):
        batch, first = next(source)
        steps = {name: partial(program.step, batch, first) for name, program in running.items()}
        losses = measuring.one_round(steps, n, seconds)
        if n < len(TOLERANCES):
            exact = jax.default_backend() == "cpu"
            check_losses(losses, n, (TOLERANCES if exact else ROUNDED_TOLERANCES)[n])
    return seconds


def check_losses(losses: dict[str, float], n: int, tolerance: float) -> None:
    """Refuse to time programs with different losses."""
    for name, loss in losses.items():
        if not abs(loss - losses["jrnn"]) <= tolerance * abs(losses["jrnn"]):
            expected = f"jrnn's, {losses['jrnn']:.6f}, to {tolerance:g}"
            refuse(f"loss {n + 1} of {name}", expected, f"{loss:.6f}", "Not timed.")


def results(options: argparse.Namespace) -> Results:
    """The results of all rows."""
    use_cpu_cores(1)  # one device, with all cores
    yield f"{machine.description()} {options.rounds} rounds."
    rows = options.rows or ([1] if options.toy else LENGTHS)
    tasks = {f"row {row}": partial(measure_row, options, row) for row in rows}
    known = ["autodiff", "torch"] if options.cell == "rnn" else ["torch"]
    rivals = [name for name in options.rivals if name in known]
    yield from report.in_order(tasks, rivals, options.minutes)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser("train_step", __doc__, list(LENGTHS), NAMES, rounds=60)
    parser.add_argument("--cell", choices=list(char_model.CELLS), default="rnn")
    parser.add_argument("--hidden-size", type=report.positive, default=256)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(report.run(parse(), results))
