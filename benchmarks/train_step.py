"""Compare the training step of the character model with its rivals, on the same data, in turn.

    python -m benchmarks.train_step                          # speed: 60 steps of each
    python -m benchmarks.train_step --rows 2 --rounds 1500   # and the final loss of each
    python -m benchmarks.train_step --cell lstm --hidden-size 512   # or gru; with torch alone

The recipe: H = 256, chunks over 32 streams, Adam at 2e-3, gradients clipped to norm 1, the state
carried over the chunks. Row 1 uses chunks of 64, as `examples/char_lm.py`, row 2 chunks of 128. All
programs start from the same parameters and read the same characters. A round is one training step
of each. The first losses must agree. Every JAX library uses the same optax optimiser and donates
its buffers; jrnn's step is that of `examples/char_lm.py`. With several devices, jrnn and the plain
scans also split the batch over them, as the example does.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import measuring, report
from benchmarks.rivals import CharacterModel, character_models, load
from jrnn.checks import refuse

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from char_model.data import load_data as load_data
from char_model.model import CELLS, Model, make_evaluate, make_loss, make_optimizer
from char_model.model import init_model as init_model
from char_model.model import zero_state as zero_state
from char_model.settings import Settings as Settings
from char_model.settings import resolved as resolved

from jrnn.parallel import batch_mesh, mean, use_cpu_cores
from jrnn.text import training_chunks as training_chunks
from jrnn.training import init_train_state, make_train_step

RIVALS = ["autodiff", "flax", "haiku", "keras", "equinox", "torch"]
RECIPE: dict[str, Any] = {"learning_rate": 2e-3, "schedule": "constant"}
LENGTHS = {1: 64, 2: 128}  # steps per chunk
TOY: dict[str, Any] = {"length": 5, "hidden_size": 8, "batch_size": 4}
# Before the first update only rounding differs. Then Adam divides small gradients, which are mostly
# rounding, by their own size.
TOLERANCES = [1e-5, 1e-3, 1e-3]
ROUNDED_TOLERANCES = [1e-2, 2e-2, 2e-2]  # if float32 matmuls are rounded by default
LEARNED = 1000  # rounds from which the final losses are measured


# --- the programs --------------------------------------------------------------------------------


class Jrnn:
    """The training step of `examples/char_lm.py`; on a mesh also that of a plain scan."""

    def __init__(
        self, params: Any, args: Settings, devices: int = 1, network: CharacterModel | None = None
    ) -> None:
        optimizer = make_optimizer(args)
        mesh = batch_mesh(devices) if devices > 1 else None
        zeros = zero_state(params[0], args.batch_size)
        self.state = init_train_state(params, optimizer, zeros, jax.random.key(0), mesh=mesh)

        def loss_of_scan(own: Any, h0: Any, batch: Any, key: Any) -> Any:
            ids, labels = batch
            losses, h = _losses(network, own, ids, labels, h0)
            return mean(losses.sum(), losses.size), h

        loss = loss_of_scan if network else make_loss(args)
        self.train_step = make_train_step(loss, optimizer, mesh=mesh)

    def step(self, batch: Any, first: bool) -> float:
        if first:
            zeros = jax.tree.map(jnp.zeros_like, self.state.carry)
            self.state = self.state._replace(carry=zeros)
        self.state, metrics = self.train_step(self.state, batch)
        jax.block_until_ready(self.state)
        return float(metrics.loss)

    def model(self) -> Any:
        """The learned (parameters of the network, ReadoutParams)."""
        return self.state.params


class Rival:
    """A model of a JAX library, trained as its users would."""

    def __init__(self, network: CharacterModel, args: Settings) -> None:
        optimizer = make_optimizer(args)
        self.network = network
        self.zeros = jnp.zeros((args.batch_size, args.hidden_size))
        own = jax.tree.map(jnp.array, network.own)  # a copy, because it is donated
        self.state = (own, optimizer.init(own), self.zeros)

        def loss(own: Any, *batch: Any) -> Any:
            losses, h = _losses(network, own, *batch)
            return losses.mean(), h

        def train_step(state: Any, ids: Any, labels: Any) -> Any:
            own, optimizer_state, h0 = state
            (cost, h), grads = jax.value_and_grad(loss, has_aux=True)(own, ids, labels, h0)
            updates, optimizer_state = optimizer.update(grads, optimizer_state, own)
            return (optax.apply_updates(own, updates), optimizer_state, h), cost

        self.train_step = jax.jit(train_step, donate_argnums=0)

    def step(self, batch: Any, first: bool) -> float:
        if self.network.batch_first:
            batch = [a.T for a in batch]
        if first:
            self.state = (*self.state[:2], jnp.zeros_like(self.zeros))
        self.state, loss = self.train_step(self.state, *batch)
        jax.block_until_ready(self.state)
        return float(loss)

    def model(self) -> Any:
        """The learned (RNNParams, ReadoutParams)."""
        return self.network.common(self.state[0])


def _losses(network: Any, own: Any, ids: Any, labels: Any, h0: Any) -> tuple[Any, Any]:
    logits, h = network.logits(own, ids, h0)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels), h


def programs(model: Any, args: Settings, rivals: list[str], devices: int = 1) -> dict[str, Any]:
    """All programs by name; on several devices also jrnn and the plain scans, split over them."""
    found: dict[str, Any] = {"jrnn": Jrnn(model, args)}
    split = {f"jrnn, {devices} devices": Jrnn(model, args, devices)} if devices > 1 else {}
    for rival in rivals:
        if rival == "torch":
            options = (args.batch_size, args.learning_rate, args.clip)
            found[rival] = load(rival).Trainer(model, *options)
            continue
        for name, network in character_models(rival, model).items():
            found[name] = Rival(network, args)
            if split and rival == "autodiff":
                split[f"{name}, {devices} devices"] = Jrnn(network.own, args, devices, network)
    return found | split


# --- the measurement -----------------------------------------------------------------------------


def recipe(toy: bool, row: int, cell: str = "rnn", hidden_size: int = 256) -> Settings:
    """The settings of `examples/char_lm.py`."""
    given = RECIPE | {"cell": cell, "length": LENGTHS[row], "hidden_size": hidden_size}
    return resolved(Settings(**given | (TOY if toy else {})))


def model_and_chunks(args: Settings) -> tuple[Any, Any]:
    """The common initial parameters, and the text."""
    data = load_data(None, args.batch_size, args.length, tempfile.gettempdir())
    model = init_model(jax.random.key(0), args, len(data.alphabet.characters))
    if args.cell == "gru":  # torch's second bias stays 0, as it does not exist in other networks
        model = model._replace(rnn=model.rnn._replace(b_hn=None))
    return model, data


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One record per row and program."""
    use_cpu_cores(options.devices)
    return [record for row in options.rows for record in measure_row(options, row)]


def measure_row(options: argparse.Namespace, row: int) -> list[dict[str, Any]]:
    """One record per program."""
    args = recipe(options.toy, row, options.cell, options.hidden_size)
    model, data = model_and_chunks(args)
    devices = 1 if args.batch_size % jax.device_count() else jax.device_count()
    running = programs(model, args, options.rivals, devices=devices)
    seconds = train(running, training_chunks(data.streams, args.length), options.rounds)
    evaluate = make_evaluate(args, data.validation_streams, batch_mesh(1))
    records = []
    for name, program in running.items():
        records.append(record(row, args, name, seconds[name]))
        if options.rounds >= LEARNED:
            learned = Model(*jax.tree.map(jnp.asarray, tuple(program.model())))
            records[-1]["validation_bits"] = evaluate(learned)
    return records


def record(row: int, args: Settings, name: str, seconds: list[float]) -> dict[str, Any]:
    """The record of one program without its first steps, which compile and are compared."""
    timed = seconds[len(TOLERANCES) :]
    return {
        "row": row,
        "program": name,
        "cell": args.cell,
        "activation": args.activation,
        "length": args.length,
        "batch_size": args.batch_size,
        "hidden_size": args.hidden_size,
        "minimum_ms": 1e3 * min(timed),
        "median_ms": 1e3 * float(np.median(timed)),
        "characters_per_second": args.length * args.batch_size / float(np.median(timed)),
        "first_step_seconds": seconds[0],
    }


def train(running: dict[str, Any], source: Any, rounds: int) -> dict[str, list[float]]:
    """Train all programs; return the seconds of every step of each."""
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for n in report.progress(range(rounds), lambda n: "training step"):
        batch, first = next(source)
        losses = one_round(running, batch, first, n, seconds)
        if n < len(TOLERANCES):
            check_losses(losses, n, jax.default_backend() == "cpu")
    return seconds


def one_round(
    running: dict[str, Any], batch: Any, first: bool, n: int, seconds: dict[str, list[float]]
) -> dict[str, float]:
    """Run a step of each program, the nth first; return losses, append to `seconds`."""
    steps = {name: partial(program.step, batch, first) for name, program in running.items()}
    return measuring.one_round(steps, n, seconds)


def check_losses(losses: dict[str, float], n: int, exact: bool = True) -> None:
    """Refuse to time programs with different losses."""
    tolerance = (TOLERANCES if exact else ROUNDED_TOLERANCES)[n]
    for name, loss in losses.items():
        if not abs(loss - losses["jrnn"]) <= tolerance * abs(losses["jrnn"]):
            expected = f"jrnn's, {losses['jrnn']:.6f}, to {tolerance:g}"
            refuse(f"loss {n + 1} of {name}", expected, f"{loss:.6f}", "Not timed.")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser(__doc__, "train_step", RIVALS, rounds=60)
    parser.add_argument("--cell", choices=list(CELLS), default="rnn")
    parser.add_argument("--hidden-size", type=report.positive, default=256)
    options = report.parse(parser, argv, list(LENGTHS), [1])
    if options.cell != "rnn":
        if options.rivals not in (RIVALS, ["torch"]):
            parser.error(f"argument --rivals: with --cell {options.cell} torch is the only one")
        options.rivals = ["torch"]
    if options.rounds <= len(TOLERANCES):
        parser.error(f"argument --rounds: at least {len(TOLERANCES) + 1}: the first ones compile")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 after bad input."""
    return report.run("train_step", parse(argv), measure, report.train_step_tables)


if __name__ == "__main__":
    sys.exit(main())
