"""How far a gradient goes in T, B and H until the memory ends, and what it takes on the way.

Each size is twice the one before. XLA says what a program needs before it runs: one that needs more
than `--memory-share` of what is free is not run. A size whose time can be foreseen to pass what is
left is not begun.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jrnn
from benchmarks import kernel
from benchmarks.cases import TOY_CASES, Case, data
from benchmarks.device.runner import Context
from benchmarks.measuring import (
    Program,
    as_program,
    compare,
    compile_anew,
    figures,
    time_in_turn,
    time_once,
    tolerance,
)
from benchmarks.rivals import autodiff

SHARE = {"cpu": 0.25}  # of the free memory, if `--memory-share` does not say; a CPU is shared
OTHERS_SHARE = 0.9
SLOW_SECONDS = 0.2  # programs that take as long have one turn, not three
PROGRAMS = ("jrnn", "hoisted")
CALLS = 5  # of each program at a size: one that is timed roughly, and the turns


class Axis(NamedTuple):
    """What grows, from where."""

    name: str
    start: Case

    def at(self, n: int) -> Case:
        """The start with its size doubled n times."""
        return self.start._replace(**{self.name: getattr(self.start, self.name) * 2**n})


AXES = [
    Axis("T", Case(64, 256, 256, 512)),
    Axis("B", Case(64, 64, 256, 512)),
    Axis("H", Case(16, 64, 256, 512)),
]


class TooLargeError(Exception):
    """A program does not fit into what may be used."""


def growth(context: Context) -> Iterator[dict[str, Any] | str]:
    """A record per axis, size and program; a line for the end of each axis."""
    limit, said = usable_bytes(context.options["memory_share"])
    yield said
    axes = [Axis("T", TOY_CASES[1])] if context.options["toy"] else AXES
    for n, axis in enumerate(axes):
        # What is left is shared among the axes that are left.
        until = context.left() * (1 - 1 / (len(axes) - n))
        yield from along(axis, context, until, limit)


def usable_bytes(share: float | None) -> tuple[float, str]:
    """Of the device, and a sentence that says of what it is a share."""
    device = jax.devices()[0]
    share = share or SHARE.get(device.platform, OTHERS_SHARE)
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        free, whose = (
            stats["bytes_limit"] - stats.get("bytes_in_use", 0),
            "JAX's allocator has free",
        )
    elif device.platform == "cpu":
        free, whose = _available(), "this machine has free"
    else:
        raise RuntimeError(f"{device.device_kind} does not say how much memory it has")
    limit = share * free
    said = f"At most {limit / 1e9:,.1f} GB, {share:.0%} of the {free / 1e9:,.1f} GB that {whose}."
    return limit, said


def along(axis: Axis, context: Context, until: float, limit: float) -> Iterator[Any]:
    """Larger and larger, until every program has come to its end or `until` seconds are left."""
    alive, last, n = list(PROGRAMS), 0.0, 0
    while alive and not (context.options["toy"] and n == 2):
        case = axis.at(n)
        size = f"{axis.name} = {getattr(case, axis.name):,}"
        foreseen = CALLS * last * (4 if axis.name == "H" else 2)
        if context.left() - until < foreseen or context.left() <= 0:
            yield f"{axis.name} ends before {size} for lack of time (foreseen: {foreseen:.0f} s)."
            return
        ready: list[Program] = []
        for name in list(alive):
            try:
                ready.append(checked(name, axis, n, limit))
            except Exception as error:  # too large, or out of memory all the same
                kind = "" if isinstance(error, TooLargeError) else f"{type(error).__name__}: "
                yield f"{name} ends before {size}: {kind}{str(error)[:200]}"
                alive.remove(name)
        if not ready:
            return
        last = sum(map(time_once, ready))
        times = time_in_turn(ready, 1 if last > SLOW_SECONDS else 3)
        for program in ready:
            yield {
                "axis": axis.name,
                "at": getattr(case, axis.name),
                "case": list(case),
                "row": f"{axis.name} from {axis.start}, float32",
                "program": program.name,
                "activation": "tanh",
                **figures(program, times[program.name]),
            }
        n += 1


def checked(name: str, axis: Axis, n: int, limit: float) -> Program:
    """Compiled; made and called once, if it fits; compared where the axis starts."""
    case = axis.at(n)
    (one,) = (
        r for r in kernel.recurrences(case, "native", "float32", ["autodiff"]) if r.name == name
    )
    shapes = jax.eval_shape(lambda: arguments(case))
    compiled, seconds = compile_anew(kernel.cost_and_gradient(one), shapes)
    memory = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    if needed > limit:
        raise TooLargeError(f"it would need {needed / 1e9:,.1f} GB")
    given = data(case) if n == 0 else None
    args = (
        jax.tree.map(jnp.asarray, tuple(given))
        if given
        else jax.jit(arguments, static_argnums=0)(case)
    )
    program = as_program(name, compiled, seconds, args, partial(kernel.gradient_arrays, one))
    if given:
        expected = kernel.reference(given, autodiff.naive, gradient=True)
        compare(program, expected, tolerance("float32"))
    return program


def arguments(case: Case) -> tuple[jrnn.RNNParams, jax.Array, jax.Array]:
    """Parameters, xs and y, made on the device."""
    T, B, I, H = case
    keys = jax.random.split(jax.random.key(0), 4)
    w_ih, w_hh = (jax.random.normal(k, (n, H)) / n**0.5 for k, n in zip(keys, (I, H), strict=False))
    params = jrnn.RNNParams(w_ih, w_hh, jnp.full(H, 0.1))
    return params, jax.random.normal(keys[2], (T, B, I)), jax.random.normal(keys[3], (T, B, H))


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/meminfo does not say what memory is available")
