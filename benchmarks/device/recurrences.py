"""The six rows of `benchmarks.kernel` on this device, and two of LSTM and GRU, for jrnn and rivals.

Programs, comparison before timing, and turns are those of `benchmarks.kernel`. The most informative
table is first. A rival that is missing, does not compile or gives a different result costs one
line.
"""

import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import kernel
from benchmarks.cases import CASES, TOY_CASES, Case, Data, data
from benchmarks.device.runner import Context, words
from benchmarks.hlo import loop_operations
from benchmarks.measuring import (
    Program,
    compare,
    figures,
    time_beside_matmul,
    time_once,
    tolerance,
)
from benchmarks.rivals import available, load, own

ORDER = [2, 1, 4, 3, 5, 6]  # of the rows: the character model first, nearly a matmul last
GATED_ROWS = [2, 1]  # of LSTM and GRU
GROUP_SECONDS = 4  # for the turns of one table row
ROUNDS = (1, 7)  # smallest and largest number of turns
CALLS = 3  # at least, per timed program: two show how long a turn is
SLOW_SECONDS = 3  # a slower rival is not timed, since a turn is several calls


class Table(NamedTuple):
    """The programs of one table."""

    gradient: bool
    dtype: str
    route: str  # batch, vmap
    cell: str = "rnn"

    def rows(self) -> list[int]:
        """The rows in their order."""
        return ORDER if self.cell == "rnn" else GATED_ROWS


TABLES = [
    Table(True, "float32", "batch"),
    Table(True, "float32", "batch", "lstm"),
    Table(True, "float32", "batch", "gru"),
    Table(True, "bfloat16", "batch"),
    Table(False, "float32", "batch"),
    Table(True, "float32", "vmap"),
    Table(False, "bfloat16", "batch"),
    Table(True, "bfloat16", "vmap"),
    Table(False, "float32", "vmap"),
    Table(False, "bfloat16", "vmap"),
]
TOY = 3  # of these, with --toy


class Row:
    """Data of one case and references of its results, created on demand."""

    def __init__(self, case: Case, cell: str = "rnn") -> None:
        self.case, self.cell = case, cell
        self.given = data(case, cell)

    def expected(self, activation: str, gradient: bool) -> Any:
        return kernel.expected(self.case, self.cell, activation, gradient)


def recurrences(context: Context) -> Iterator[dict[str, Any] | str]:
    """Yield a record per table, row and program."""
    toy = context.options["toy"]
    row = functools.cache(lambda n, cell: Row((TOY_CASES if toy else CASES)[n], cell))
    rivals, lines = available([r for r in context.options["rivals"] if r in kernel.RIVALS])
    yield from lines
    for n, table in enumerate(TABLES[:TOY] if toy else TABLES):
        rows = [1] if toy else table.rows()
        for number in rows:
            if context.left() <= 0:
                after = "; ".join(_title(t) for t in TABLES[n + 1 :]) or "nothing"
                yield (
                    f"Left out for lack of time: {_title(table)} from row {number} on (the order "
                    f"is {', '.join(map(str, rows))}), and {after}."
                )
                return
            yield from measured(context, table, number, row(number, table.cell), rivals)


def _title(table: Table) -> str:
    cell = "" if table.cell == "rnn" else f"{table.cell}, "
    what = "forward + backward" if table.gradient else "forward"
    return f"{cell}{table.route}, {table.dtype}, {what}"


def measured(
    context: Context, table: Table, number: int, row: Row, rivals: list[str]
) -> Iterator[dict[str, Any] | str]:
    """Compile and compare the programs of one table row, then time them in turn."""
    ready: dict[str, tuple[Program, str, float]] = {}
    late: list[str] = []
    seconds = 0.0
    for name, activation, make in candidates(table, row.case, row.given, rivals):
        at = f"row {number}, {_title(table)}: {name} is left out"
        if context.left() <= CALLS * seconds:  # the compiled programs need the rest
            late.append(name)
            continue
        if ready and own(activation) not in (*ready, name):
            yield f"{at}: {own(activation)} has no time to set it against."
            continue
        try:
            program, expected = make(), row.expected(activation, table.gradient)
            error = max(compare(program, expected, tolerance(table.dtype)).values())
            once = time_once(program)
        except Exception as failure:  # in compilation, memory, or the comparison
            yield f"{at}: {words(failure)}"
            if name == "jrnn":
                return
            continue
        if once > SLOW_SECONDS and name != own(activation):
            yield f"{at}: a call takes {once:.1f} s."
            continue
        seconds += once
        ready[name] = program, activation, error
    if late:
        yield f"Left out for lack of time: row {number}, {_title(table)}: {', '.join(late)}."
    if "jrnn" not in ready:
        return
    rounds = int(np.clip(GROUP_SECONDS / max(seconds, 1e-3), *ROUNDS))
    programs = [program for program, _, _ in ready.values()]
    toy = context.options["toy"]
    times, speed = time_beside_matmul(programs, rounds, toy, context.left)
    for name, (program, activation, error) in ready.items():
        yield {
            "row": number,
            "platform": jax.default_backend(),
            **table._asdict(),
            "case": list(row.case),
            "program": name,
            "activation": activation,
            **figures(program, times[name]),
            "floor_ms": 1e3 * row.case.flops(table.gradient, table.cell) / speed,
            "error": error,
            "operations_per_step": operations_per_step(program, row.case.T),
        }


def candidates(
    table: Table, case: Case, given: Data, rivals: list[str]
) -> Iterator[tuple[str, str, Callable[[], Program]]]:
    """Yield (name, activation, function that compiles it) of every program, jrnn's first.

    If a rival fails to list its programs, it becomes one program that fails to compile.
    """
    seen = set()
    for rival in ["", *(name for name in rivals if name != "torch")]:
        try:
            wanted = [rival] if rival else []
            found = kernel.recurrences(case, table.route, table.dtype, wanted, table.cell)
        except Exception as error:
            yield rival, "tanh", partial(_fail, error)
            continue
        for one in found:
            if one.name not in seen:
                seen.add(one.name)
                make = partial(kernel.program, one, given, table.gradient, 1)
                yield one.name, one.activation, make
    if "torch" in rivals and table.route == "batch":
        yield "torch", "tanh", partial(_torch, table, case, given)


def _fail(error: Exception) -> Program:
    raise error


def _torch(table: Table, case: Case, given: Data) -> Program:
    torch = load("torch")
    device = torch.device_like_jax()
    (program,) = torch.programs(case, given, table.gradient, device, table.dtype, table.cell)
    return program


def operations_per_step(program: Program, T: int) -> float | None:
    """Operations per step of a program on a GPU; None on a TPU, where they are not launches."""
    if program.hlo is None or jax.default_backend() == "tpu":
        return None
    try:
        return sum(loop_operations(program.hlo())) / T
    except ValueError:  # the trip count of a loop is not in the text
        return None
