"""Measure `remat=True`.

    python -m benchmarks.scaling --rows remat losses

remat    the gradient of h_last with and without it, of one long sequence
losses   the temporary bytes of long losses with and without it, compiled and not run
"""

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import jrnn
from benchmarks import report
from benchmarks.cases import Case, Group
from benchmarks.kernel import measure_group
from benchmarks.measuring import compile_program
from benchmarks.report import Record, Tasks
from benchmarks.rivals import jrnn_itself
from jrnn.parallel import use_cpu_cores

ROWS = ["remat", "losses"]


def losses(toy: bool) -> Iterator[Record]:
    """The gradient of a character model over T steps, and of a forecast by two layers."""
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
            gradient = jax.grad(partial(cost, loss, remat))
            compiled = compile_program(name, gradient, (model, data), lambda g: {})
            yield {"table": "losses", "axis": "loss", "place": place, "program": name} | {
                "gradient": True,
                "temporary_bytes": compiled.temporary_bytes,
                "compile_seconds": compiled.compile_seconds,
            }


def cost(loss: Any, remat: bool, model: Any, data: Any) -> Any:
    """A loss of a network and its readout, with the data as its own targets."""
    return loss(*model, data, data, remat=remat)[0]


def tasks(args: argparse.Namespace) -> Tasks:
    """A task for each row."""
    use_cpu_cores()
    args.backends = jrnn_itself.wanted(None)
    group = Group("remat", Case(16 if args.toy else 65_536, 1, 32, 256), "remat")
    found: Tasks = {
        "remat": partial(measure_group, args, group),
        "losses": lambda rivals: losses(args.toy),
    }
    return {row: found[row] for row in args.rows or ROWS}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    return report.parse(report.parser("scaling", __doc__, ROWS, rounds=5), argv)


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 after bad input."""
    return report.run("scaling", parse(argv), tasks)


if __name__ == "__main__":
    sys.exit(main())
