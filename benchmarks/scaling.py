"""Measure `remat=True`.

    python -m benchmarks.scaling

The gradient of h_last with and without it, of one long sequence; and the temporary bytes of long
losses with and without it, compiled and not run.
"""

import argparse
import sys
from functools import partial

import jax
import jax.numpy as jnp

import jrnn
from benchmarks import machine, report
from benchmarks.cases import Case, Group
from benchmarks.kernel import measure_group
from benchmarks.measuring import compile_program
from benchmarks.report import Results, Tasks
from jrnn.parallel import use_cpu_cores


def losses(toy: bool) -> Results:
    """The gradients of a character model and of a forecast, with the data as their own targets."""
    key, long, T = jax.random.key(0), 16 if toy else 1_000_000, 16 if toy else 16_384
    network = jrnn.init_rnn(key, 100, 64)
    stack = jrnn.init_stack(key, 16, (64, 64), cell="gru", layer_norm=True)
    ids = jax.ShapeDtypeStruct((long, 1), jnp.int32)
    xs = jax.ShapeDtypeStruct((T, 8, 16), jnp.float32)
    of_ids = partial(jrnn.rnn_cross_entropy, inputs="ids")
    of_numbers = partial(jrnn.rnn_loss, loss=jrnn.gaussian_nll)
    for place, loss, params, O, data in (
        (f"rnn_cross_entropy, T = {long:,}, B = 1, H = 64", of_ids, network, 100, ids),
        (f"rnn_loss, T = {T:,}, B = 8, H = 64", of_numbers, stack, 32, xs),
    ):
        model = params, jrnn.init_readout(key, 64, O)
        for name, remat in (("jrnn", True), ("jrnn without", False)):
            gradient = jax.grad(partial(loss, remat=remat), (0, 1), has_aux=True)
            compiled = compile_program(name, gradient, (*model, data, data), lambda g: {})
            values = {f"gradient {title}": x for title, x in compiled.costs.items()}
            record = {"table": "losses", "axis": "loss", "place": place, "program": name}
            yield record | {"values": values}


def results(args: argparse.Namespace) -> Results:
    """The recurrence, then the losses."""
    use_cpu_cores()
    yield f"{machine.description()} {args.rounds} rounds."
    group = Group(Case(16 if args.toy else 65_536, 1, 32, 256), "remat")
    tasks: Tasks = {
        "remat": partial(measure_group, args, group),
        "losses": lambda rivals: losses(args.toy),
    }
    yield from report.in_order(tasks, [], args.minutes)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser("scaling", __doc__)
    parser.set_defaults(rounds=5)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(report.run(parse(), results))
