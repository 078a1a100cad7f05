"""Time and memory on this device, by the programs and turns of the other benchmarks.

`benchmarks.kernel` measures the recurrences and their growth with T and B, `benchmarks.train_step`
the training step of the character model. A *task* is one call of them, of a few programs; tasks
that are worth most run first. A task that fails is run again with fewer rivals.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from benchmarks import kernel
from benchmarks.cases import CASES, TOY_CASES, Case
from benchmarks.device.runner import Context, words
from benchmarks.kernel import Group
from benchmarks.rivals import available, jrnn_itself

ROUNDS = 5
SLOWER_SCANS = {"naive", "hoisted"}  # on a GPU, than the one that is unrolled
Record = dict[str, Any]
Tasks = Mapping[str, Callable[[list[str]], Iterable[Record]]]  # by name, functions of the rivals


def group(
    row: int, cell: str = "rnn", dtype: str = "float32", gradient: bool = True, route: str = "batch"
) -> Group:
    """The programs of one row of `benchmarks.kernel`."""
    return Group(row, CASES[row], route, dtype, gradient, cell)


GROUPS = [
    *map(group, (2, 1, 4, 3, 5, 6)),  # the character model first, nearly a matmul last
    *(group(row, cell) for row in (2, 1) for cell in ("lstm", "gru")),
    *(group(row, dtype="bfloat16") for row in (2, 1)),
    *(group(row, gradient=False) for row in (2, 1)),
    *(group(2, cell, dtype="bfloat16") for cell in ("lstm", "gru")),
    group(2, route="vmap"),
]
TOY_GROUPS = [group(1, cell)._replace(case=TOY_CASES[1]) for cell in ("rnn", "lstm")]
START = Case(64, 64, 256, 512)
SIZES = {"T": (64, 256, 1024, 4096), "B": (16, 64, 256, 1024)}


def of_group(context: Context, one: Group, without: set[str], rivals: list[str]) -> list[Record]:
    """Compile, compare and time the programs of a group."""
    options = Namespace(rounds=ROUNDS, toy=context.options["toy"], rivals=rivals)
    options.backends = jrnn_itself.wanted(None)
    return kernel.measure_group(options, one, without=without)


def recurrences(context: Context) -> Iterator[Record | str]:
    """Yield a record per group and program."""
    groups = TOY_GROUPS if context.options["toy"] else GROUPS
    tasks = {f"{one.cell}, {one}": partial(of_group, context, one, set()) for one in groups}
    yield from in_order(context, kernel.RIVALS, tasks)


def training(context: Context) -> Iterator[Record | str]:
    """Yield a record per length of the chunks and program."""
    from benchmarks import train_step  # needs the extra `examples`

    args = train_step.parse(["--toy", "--rounds", "4"] if context.options["toy"] else [])

    def measure(row: int, rivals: list[str]) -> list[Record]:
        args.rivals = rivals
        return train_step.measure_row(args, row)

    tasks = {f"row {row}": partial(measure, row) for row in args.rows}
    yield from in_order(context, train_step.RIVALS, tasks)


def growth(context: Context) -> Iterator[Record | str]:
    """Yield a record per size and program: jrnn and the best of the scans."""
    toy = context.options["toy"]
    start, sizes = (TOY_CASES[1], {"T": (5, 10)}) if toy else (START, SIZES)

    def point(axis: str, at: int, rivals: list[str]) -> Iterator[Record]:
        rest = ", ".join(f"{name} = {n}" for name, n in start._asdict().items() if name != axis)
        one = Group(rest, start._replace(**{axis: at}), "batch", "float32", True)
        for record in of_group(context, one, SLOWER_SCANS, rivals):
            yield record | {"axis": axis, "at": at}

    tasks = {f"{axis} = {at:,}": partial(point, axis, at) for axis in sizes for at in sizes[axis]}
    yield from in_order(context, ["autodiff"], tasks)


def in_order(context: Context, known: list[str], tasks: Tasks) -> Iterator[Record | str]:
    """Run tasks, in the order of their worth, while there is time for one as long as the longest.

    Yields:
        Records; lines about rivals and tasks that are left out.

    Raises:
        RuntimeError: a task failed without any rival; after all others.
    """
    rivals, lines = available([name for name in context.options["rivals"] if name in known])
    yield from lines
    # All of them, the plain scans, none.
    fewer = [rivals, [name for name in rivals if name == "autodiff"], []]
    tries = [chosen for n, chosen in enumerate(fewer) if chosen not in fewer[:n]]
    longest, failed = 0.0, []
    for n, (name, measure) in enumerate(tasks.items()):
        if context.left() <= longest:
            yield f"Left out for lack of time: {'; '.join(list(tasks)[n:])}."
            break
        start = time.monotonic()
        for chosen in tries:
            try:
                yield from measure(chosen)
                break
            except Exception as error:  # in compilation, memory, or the comparison
                yield f"{name}, {', '.join(['jrnn', *chosen])}: {words(error)}"
        else:
            failed.append(name)
        longest = max(longest, time.monotonic() - start)
    if failed:
        raise RuntimeError(f"{'; '.join(failed)}: the lines of this part say why")
