"""Time and memory on this device, by the programs and turns of the other benchmarks.

`benchmarks.kernel` measures the recurrences, `benchmarks.train_step` the training step of the
character model, and `benchmarks.scaling` the growth with T and B. A *task* is one call of them, of
a few programs; tasks that are worth most run first. A task that fails is run again with fewer
rivals.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from benchmarks import backends, kernel, scaling
from benchmarks.cases import CASES, TOY_CASES, Case, data
from benchmarks.device.runner import Context, words
from benchmarks.rivals import autodiff, available

ROUNDS = ["--rounds", "5"]
TOY_STEPS = ["--rounds", "4"]  # of the training, where the first three are not timed
SLOWER_SCANS = {"naive", "hoisted"}  # on a GPU, than the one that is unrolled
Record = dict[str, Any]
Tasks = Mapping[str, Callable[[list[str]], Iterator[Record]]]  # by name, functions of the rivals


class Group(NamedTuple):
    """The programs that are measured in turn."""

    row: int
    cell: str = "rnn"
    dtype: str = "float32"
    gradient: bool = True
    route: str = "batch"

    def __str__(self) -> str:
        what = "forward + backward" if self.gradient else "forward"
        return f"{self.cell}, row {self.row}, {self.route}, {self.dtype}, {what}"


GROUPS = [
    *map(Group, (2, 1, 4, 3, 5, 6)),  # the character model first, nearly a matmul last
    *(Group(row, cell) for row in (2, 1) for cell in ("lstm", "gru")),
    *(Group(row, dtype="bfloat16") for row in (2, 1)),
    *(Group(row, gradient=False) for row in (2, 1)),
    *(Group(2, cell, dtype="bfloat16") for cell in ("lstm", "gru")),
    Group(2, route="vmap"),
]
TOY_GROUPS = [Group(1), Group(1, "lstm")]
START = Case(64, 64, 256, 512)


def sweep(axis: str, start: Case, points: tuple[int, ...]) -> scaling.Sweep:
    """Shapes that differ from the first along one axis."""
    rest = ", ".join(f"{name} = {n}" for name, n in start._asdict().items() if name != axis)
    return scaling.Sweep(axis, rest, {n: start._replace(**{axis: n}) for n in points})


SWEEPS = [sweep("T", START, (64, 256, 1024, 4096)), sweep("B", START, (16, 64, 256, 1024))]
TOY_SWEEPS = [sweep("T", TOY_CASES[1], (5, 10))]


class References(dict[str, Any]):
    """The expected results by activation, compiled when they are needed."""

    def __init__(self, group: Group, given: Any) -> None:
        self.group, self.given = group, given

    def __missing__(self, activation: str) -> Any:
        scan = partial(autodiff.naive, cell=autodiff.CELLS[self.group.cell][activation])
        self[activation] = kernel.reference(self.given, scan, self.group.gradient)
        return self[activation]


def recurrences(context: Context) -> Iterator[Record | str]:
    """Yield a record per group and program."""
    toy = ["--toy"] * context.options["toy"]

    def measure(group: Group, rivals: list[str]) -> Iterator[Record]:
        args = kernel.parse(["--cell", group.cell, *ROUNDS, *toy])
        args.rivals, args.backends = rivals, backends.wanted(None)
        case = (TOY_CASES if toy else CASES)[group.row]
        given = data(case, group.cell)
        expected, key = References(group, given), group._asdict()
        yield from kernel.measure_group(args, case, given, expected, key)

    groups = TOY_GROUPS if toy else GROUPS
    tasks = {str(group): partial(measure, group) for group in groups}
    yield from in_order(context, kernel.RIVALS, tasks)


def training(context: Context) -> Iterator[Record | str]:
    """Yield a record per length of the chunks and program."""
    from benchmarks import train_step  # needs the extra `examples`

    args = train_step.parse(["--toy", *TOY_STEPS] if context.options["toy"] else [])

    def measure(row: int, rivals: list[str]) -> Iterator[Record]:
        args.rivals = rivals
        yield from train_step.measure(args, row)

    tasks = {f"row {row}": partial(measure, row) for row in args.rows}
    yield from in_order(context, train_step.RIVALS, tasks)


def growth(context: Context) -> Iterator[Record | str]:
    """Yield a record per size and program: jrnn and the best of the scans."""
    toy = context.options["toy"]
    args = scaling.parse(ROUNDS + ["--toy"] * toy)

    def measure(of: scaling.Sweep, at: int, case: Case, rivals: list[str]) -> Iterator[Record]:
        args.rivals = rivals
        yield from scaling.measure_point(args, of, at, case, set(SLOWER_SCANS))

    tasks = {
        f"{of.axis} = {at:,}": partial(measure, of, at, case)
        for of in (TOY_SWEEPS if toy else SWEEPS)
        for at, case in of.points.items()
    }
    yield from in_order(context, scaling.RIVALS, tasks)


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
