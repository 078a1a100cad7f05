"""An older version of jrnn against this one, in one process: time, memory, compile time.

    python -m benchmarks.versions --old v0.1.0          # a git revision
    python -m benchmarks.versions --old ../older --rows 1 2 --modes batch mesh

batch         a batch [T, B, I]
vmap          `jax.vmap` of one sequence over [B, T, I]
vmap-grad     `jax.vmap` of the gradient of one sequence: a gradient for each
vmap-weights  `jax.vmap` over four networks, of which each reads a quarter of the batch
mesh          the batch split over two devices by `jax.shard_map`, the gradient summed at the end
ends          a batch with lengths and resets
remat         a batch, with `remat=True`

Each is the states, and the gradient in the parameters of sum(hs * y). In each repeat the old
version is compiled twice (A/A) and the new one once, their results are compared, and the three are
timed in turn: new/old is judged by how much the two programs of the old version differ. Both run
XLA's loops: the native kernel of a revision is not built.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from benchmarks import kernel, machine, report, verdicts
from benchmarks.cases import CASES, TOY_CASES, Case, data, ends
from benchmarks.measuring import Program, compare, figures, time_in_turn, tolerance
from benchmarks.old_version import git, loaded
from benchmarks.rivals import Recurrence
from jrnn import native
from jrnn.checks import refuse
from jrnn.native import cpu_cores as cores
from jrnn.parallel import use_cpu_cores

MODES = {  # and the rows that are measured where `--rows` does not say: a quarter of an hour
    "batch": [1, 2, 3, 4, 5, 6],
    "vmap": [1, 2, 4],
    "vmap-grad": [1, 2],
    "vmap-weights": [1, 2],
    "mesh": [1, 2, 4],
    "ends": [1, 2, 3],
    "remat": [1, 2, 5],
}
DTYPES = ["float32", "bfloat16"]
# The networks of vmap-weights: the same, times this.
MEMBERS = np.array([1, 0.9, 0.8, 0.7], np.float32)
REPEAT_SECONDS = 5.0  # a repeat begins no other round after them
# Two programs that round operands to 8 bits, each 0.004 to 0.007 away from float32.
BFLOAT16_TOLERANCE = 0.02


# --- the programs --------------------------------------------------------------------------------


class Line(NamedTuple):
    """The case of one line of the table."""

    mode: str
    row: int
    case: Case
    dtype: str
    gradient: bool

    def __str__(self) -> str:
        what = "gradient" if self.gradient else "forward"
        return f"{self.mode}, row {self.row}, {self.dtype}, {what}"


def program(version: Any, name: str, at: Line) -> Program:
    """A version's, compiled, by its public names alone."""
    given = _data(at.case)
    found = recurrence(version, name, at)
    if at.mode == "vmap-grad":
        each = partial(jax.vmap, in_axes=(None, 0, 0))
        return kernel.program(found._replace(batch_first=True), given, at.gradient, 1, each)
    devices = jax.device_count() if at.mode == "mesh" else 1
    if at.mode == "vmap":
        found = kernel.under_vmap(found)
    elif at.mode == "vmap-weights":
        found = over_weights(found)
    return kernel.program(found, given, at.gradient, devices)


_data = cache(data)  # the initialiser would be compiled anew with every program


def recurrence(version: Any, name: str, at: Line) -> Recurrence:
    """The recurrence of a batch or of one sequence."""
    options: dict[str, Any] = {}
    if at.dtype == "bfloat16":
        options["compute_dtype"] = jnp.bfloat16
    if at.mode == "ends":
        options |= ends(at.case)._asdict()
    if at.mode == "remat":
        options["remat"] = True

    def states(params: Any, xs: Any) -> Any:
        return version.rnn(params, xs, **options)[1]

    dtype = jnp.dtype(at.dtype)
    return Recurrence(name, states, lambda params: version.RNNParams(*params), state_dtype=dtype)


def over_weights(one: Recurrence) -> Recurrence:
    """`MEMBERS`, of which each reads its part of the batch."""

    def own(params: Any) -> Any:
        return one.own(jax.tree.map(lambda p: jnp.asarray(np.multiply.outer(MEMBERS, p)), params))

    def states(params: Any, xs: Any) -> Any:
        T, B, I = xs.shape
        parts = xs.reshape(T, len(MEMBERS), B // len(MEMBERS), I)
        return jax.vmap(one.states, (0, 1), 1)(params, parts).reshape(T, B, -1)

    return one._replace(own=own, states=states)


# --- the measurement -----------------------------------------------------------------------------


def lines(args: argparse.Namespace) -> Iterator[Line]:
    """All that is asked for."""
    cases = TOY_CASES if args.toy else CASES
    for mode in args.modes:
        for row in args.rows if args.rows_said else [r for r in args.rows if r in MODES[mode]]:
            if left_out(mode, row, cases[row]):
                continue
            passes = [True] if mode == "vmap-grad" else [False, True]
            for dtype, gradient in itertools.product(args.dtypes, passes):
                yield Line(mode, row, cases[row], dtype, gradient)


def left_out(mode: str, row: int, case: Case) -> bool:
    """Whether the batch cannot be split as the mode asks; said, if so."""
    if mode == "mesh":
        return kernel.left_out(row, case)
    if mode == "vmap-weights" and case.B % len(MEMBERS):
        print(f"row {row}: no {mode}, {len(MEMBERS)} networks do not split a batch of {case.B}")
        return True
    return False


def measure(old: Any, new: Any, at: Line, args: argparse.Namespace) -> dict[str, Any]:
    """The record of a line; a ValueError where old and new differ."""
    repeats = [repeat(old, new, at, args.rounds, n) for n in range(args.repeats)]
    return at._asdict() | {"case": list(at.case), "repeats": repeats}


def repeat(old: Any, new: Any, at: Line, rounds: int, n: int = 0) -> dict[str, dict[str, Any]]:
    """The figures of the programs by name: compiled, the nth first, compared, timed in turn."""
    versions = [("old", old), ("old again", old), ("new", new)]
    first = n % len(versions)
    in_turn = [*versions[first:], *versions[:first]]
    programs = {name: program(version, name, at) for name, version in in_turn}
    expected = programs["old"].arrays(programs["old"].call())
    allowed = tolerance(at.dtype)
    if at.dtype == "bfloat16":
        allowed = min(allowed, BFLOAT16_TOLERANCE)
    compare(programs["new"]._replace(name=f"the new version ({at})"), expected, allowed)
    del expected  # a gradient for each sequence is large
    end = time.monotonic() + REPEAT_SECONDS
    times = time_in_turn([*programs.values()], rounds, lambda: end - time.monotonic())
    return {name: figures(p, times[name]) for name, p in programs.items()}


# --- the program ---------------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = report.parser(__doc__, "versions", [], rounds=4)
    parser.set_defaults(devices=min(2, cores()))
    what = "git revision, or directory that holds jrnn/"
    parser.add_argument("--old", required=True, metavar="REV", help=what)
    rows = "; ".join(f"{mode}: {' '.join(map(str, rows))}" for mode, rows in MODES.items())
    what = f"without --rows, of these rows: {rows}"
    parser.add_argument("--modes", nargs="+", choices=MODES, default=[*MODES], help=what)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    what = "times that the programs are compiled anew and timed"
    parser.add_argument("--repeats", type=report.positive, default=3, help=what)
    args = report.parse(parser, argv, list(CASES), list(TOY_CASES))
    args.rows_said = parser.parse_args(argv).rows is not None
    return args


def versions_and_date(old: str) -> str:
    """Which versions, as git knows them, and when."""
    commits = ("rev-parse", "--short", f"{old}^{{commit}}"), ("describe", "--always", "--dirty")
    names = [f" ({commit})" if commit else "" for commit in itertools.starmap(git, commits)]
    return f"old: {old}{names[0]}; new: this tree{names[1]}; {time.strftime('%Y-%m-%d %H:%M')}."


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, or 1 if a bound is not kept, or after bad input."""
    args = parse(argv)
    records = []
    try:
        use_cpu_cores(args.devices)
        with native.turned(False), loaded(args.old) as old:
            about = versions_and_date(args.old)
            print(f"{about} {machine.sentence(machine.description())}\n\n{verdicts.head()}")
            for at in lines(args):
                records.append(measure(old, jrnn, at, args))
                print(verdicts.record_line(records[-1]), flush=True)
        if not records:
            came = f"rows {args.rows} with modes {args.modes}"
            refuse("--rows", "one that a mode can measure", came, "The lines above say why.")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return write(args, about, records)


def write(args: argparse.Namespace, about: str, records: list[dict[str, Any]]) -> int:
    """Means and verdict on the screen, all in files; the exit status."""
    means, sentence = verdicts.means_table(records), verdicts.sentence(records)
    print(f"\n{means}\n\n{sentence}")
    table = "\n".join([verdicts.head(), *map(verdicts.record_line, records)])
    result = {"about": about, "records": records, "verdict": sentence}
    report.write(args, "versions", result, [about, table, means, sentence])
    print(f"versions.md and versions.json are in {args.out}")
    return int(sentence.startswith("FAIL"))


if __name__ == "__main__":
    sys.exit(main())
