"""The parts that measure this device, by the programs and turns of the other benchmarks.

`benchmarks.kernel` measures the recurrences, `benchmarks.scaling` their growth with T and B, and
`benchmarks.train_step` the training step of the character model. A *task* is one call of them, of a
few programs; tasks that are worth most run first. A task that fails is run again with fewer rivals.
"""

import os
import shutil
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax

from benchmarks import kernel, machine, scaling
from benchmarks.cases import CASES, TOY_CASES, Case, Group
from benchmarks.device.runner import Context, words
from benchmarks.rivals import available, jrnn_itself
from benchmarks.scaling import Sweep

ROUNDS = 5
SLOWER_SCANS = {"naive", "hoisted"}  # on a GPU, than the one that is unrolled
Record = dict[str, Any]
Tasks = Mapping[str, Callable[[list[str]], Iterable[Record | str]]]  # by name, of the rivals

GROUPS = [
    *(Group(row, CASES[row]) for row in (2, 1, 4, 3, 5, 6)),  # nearly a matmul last
    *(Group(row, CASES[row], cell=cell) for row in (2, 1) for cell in ("lstm", "gru")),
    *(Group(row, CASES[row], dtype="bfloat16") for row in (2, 1)),
    *(Group(row, CASES[row], gradient=False) for row in (2, 1)),
    *(Group(2, CASES[2], dtype="bfloat16", cell=cell) for cell in ("lstm", "gru")),
    Group(2, CASES[2], "vmap"),
]
TOY_GROUPS = [Group(1, TOY_CASES[1], cell=cell) for cell in ("rnn", "lstm")]
START = Case(64, 64, 256, 512)
SWEEPS = [
    Sweep("T", "B = 64, I = 256, H = 512", {T: START._replace(T=T) for T in (64, 256, 1024, 4096)}),
    Sweep("B", "T = 64, I = 256, H = 512", {B: START._replace(B=B) for B in (16, 64, 256, 1024)}),
]
TOY_SWEEPS = [Sweep("T", "B = 4, I = 3, H = 5", {T: Case(T, 4, 3, 5) for T in (5, 10)})]
NVIDIA = [  # fields of `nvidia-smi --help-query-gpu`
    *("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm"),
    *("clocks.mem", "power.draw", "power.limit", "temperature.gpu", "utilization.gpu"),
]


def facts(context: Context) -> Iterator[Record | str]:
    """Yield the machine, then its GPUs."""
    yield {
        "machine": machine.description(),
        "memory": {k: int(v) for k, v in (jax.devices()[0].memory_stats() or {}).items() if v},
        "load": os.getloadavg()[0] - 1,  # without this process
    }
    if (n := jax.device_count()) > 1:
        yield f"The first of {n} devices runs all; the training step is also split over them."
    yield from nvidia_smi()


def nvidia_smi() -> Iterator[Record | str]:
    """Clocks, power and temperature from nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        yield "No nvidia-smi here: no clocks, no power."
        return
    query = ["nvidia-smi", f"--query-gpu={','.join(NVIDIA)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except subprocess.SubprocessError as error:
        yield f"No clocks, no power: {words(error)}"
        return
    for n, line in enumerate(said.stdout.strip().splitlines()):
        yield {"gpu": n} | dict(zip(NVIDIA, line.split(", "), strict=True))


def options(context: Context, rivals: list[str]) -> Namespace:
    """The options of the kernel's measurements."""
    toy, backends = context.options["toy"], jrnn_itself.wanted(None)
    return Namespace(rounds=ROUNDS, toy=toy, rivals=rivals, backends=backends)


def recurrences(context: Context) -> Iterator[Record | str]:
    """Yield a record per group and program."""

    def measure(group: Group, rivals: list[str]) -> list[Record | str]:
        wrong: list[Record | str] = []
        found = kernel.measure_group(options(context, rivals), group, say=wrong.append)
        return [*wrong, *found]

    groups = TOY_GROUPS if context.options["toy"] else GROUPS
    yield from in_order(context, kernel.RIVALS, {str(g): partial(measure, g) for g in groups})


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

    def measure(sweep: Sweep, at: int, rivals: list[str]) -> list[Record | str]:
        wrong: list[Record | str] = []
        of_point = options(context, rivals), sweep, at, SLOWER_SCANS
        found = scaling.measure_point(*of_point, say=wrong.append)
        return [*wrong, *found]

    sweeps = TOY_SWEEPS if context.options["toy"] else SWEEPS
    points = [(sweep, at) for sweep in sweeps for at in sweep.points]
    tasks = {f"{sweep.axis} = {at:,}": partial(measure, sweep, at) for sweep, at in points}
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
