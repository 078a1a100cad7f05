"""Increase T, B and H of a gradient until the memory is full, and measure each size.

XLA reports the memory of a program before it runs; a program that needs more than `--memory-share`
of the free memory is not run. A size is skipped if its predicted time exceeds the remaining time.
"""

import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jrnn
from benchmarks import kernel
from benchmarks.cases import TOY_CASES, Case, data
from benchmarks.device.runner import Context, words
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

SHARE = {"cpu": 0.25}  # of the free memory, by default; a CPU is shared
OTHERS_SHARE = 0.9
SLOW_SECONDS = 0.2  # slower programs have one turn instead of three
PROGRAMS = ("jrnn", "hoisted")
CALLS = 5  # per program and size: one rough timing, and the turns


class Axis(NamedTuple):
    """A growing axis, with its start."""

    name: str
    start: Case
    factor: int  # between two sizes

    def at(self, n: int) -> Case:
        """The start with its size multiplied n times."""
        return self.start._replace(**{self.name: getattr(self.start, self.name) * self.factor**n})

    def rest(self) -> str:
        """The fixed sizes."""
        sizes = self.start._asdict()
        return ", ".join(f"{name} = {sizes[name]}" for name in sizes if name != self.name)


AXES = [
    Axis("T", Case(64, 64, 256, 512), 4),
    Axis("B", Case(64, 16, 256, 512), 4),
    Axis("H", Case(16, 64, 256, 256), 2),
]


class TooLargeError(Exception):
    """A program does not fit into the usable memory."""


def growth(context: Context) -> Iterator[dict[str, Any] | str]:
    """Yield a record per axis, size and program, and a line for the end of each axis."""
    limit, said = usable_bytes(context.options["memory_share"])
    yield said
    axes = [Axis("T", TOY_CASES[1], 2)] if context.options["toy"] else AXES
    for n, axis in enumerate(axes):
        # Share the remaining time among the remaining axes.
        until = context.left() * (1 - 1 / (len(axes) - n))
        yield from along(axis, context, until, limit)


def usable_bytes(share: float | None) -> tuple[float, str]:
    """The usable bytes of the device, and a sentence about their share."""
    device = jax.devices()[0]
    share = share or SHARE.get(device.platform, OTHERS_SHARE)
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
        whose = "JAX's allocator has free"
    elif device.platform == "cpu":
        free, whose = _available(), "this machine has free"
    else:
        raise RuntimeError(f"{device.device_kind} does not say how much memory it has")
    limit = share * free
    said = f"At most {limit / 1e9:,.1f} GB, {share:.0%} of the {free / 1e9:,.1f} GB that {whose}."
    return limit, said


def along(axis: Axis, context: Context, until: float, limit: float) -> Iterator[Any]:
    """Increase the size until every program has failed or `until` seconds are left."""
    alive, last, compilation, n = list(PROGRAMS), 0.0, 0.0, 0
    while alive and not (context.options["toy"] and n == 2):
        size = f"{axis.name} = {getattr(axis.at(n), axis.name):,}"
        foreseen = compilation + CALLS * last * axis.factor ** (2 if axis.name == "H" else 1)
        if context.left() - until < foreseen or context.left() <= 0:
            about = f": it would take about {foreseen:.0f} s" if foreseen else ""
            yield f"{axis.name} ends before {size} for lack of time{about}."
            return
        point = Point(axis.at(n), compared=n == 0)
        ready: list[Program] = []
        start = time.monotonic()
        for name in list(alive):
            try:
                ready.append(point.program(name, limit))
            except Exception as error:  # too large, or out of memory anyway
                why = str(error) if isinstance(error, TooLargeError) else words(error)
                yield f"{name} ends before {size}: {why}"
                alive.remove(name)
        if not ready:
            return
        compilation = time.monotonic() - start
        last = sum(map(time_once, ready))
        times = time_in_turn(ready, 1 if last > SLOW_SECONDS else 3, context.left)
        for program in ready:
            yield {
                "axis": axis.name,
                "at": getattr(axis.at(n), axis.name),
                "case": list(axis.at(n)),
                "row": f"{axis.rest()}, float32",
                "program": program.name,
                "activation": "tanh",
                **figures(program, times[program.name]),
            }
        n += 1


class Point:
    """One size, with arrays that are created once, and only if a program fits."""

    def __init__(self, case: Case, compared: bool) -> None:
        self.case, self.compared = case, compared

    def program(self, name: str, limit: float) -> Program:
        """Compile a program; call it once if it fits, and compare it at the first size."""
        scans = kernel.recurrences(self.case, "batch", "float32", ["autodiff"])
        (one,) = (r for r in scans if r.name == name)
        shapes = jax.eval_shape(lambda: arguments(self.case))
        compiled, seconds = compile_anew(kernel.cost_and_gradient(one), shapes)
        m = compiled.memory_analysis()
        needed = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes
        if needed > limit:
            raise TooLargeError(f"it would need {needed / 1e9:,.1f} GB")
        arrays = lambda result: kernel.gradient_arrays(one, self.arguments[0], result)  # noqa: E731
        program = as_program(name, compiled, seconds, self.arguments, arrays)
        if self.compared:
            compare(program, self.expected, tolerance("float32"))
        else:
            program.call()
        return program

    @cached_property
    def arguments(self) -> tuple[Any, ...]:
        if self.compared:
            return jax.tree.map(jnp.asarray, tuple(data(self.case)))
        return jax.jit(arguments, static_argnums=0)(self.case)

    @cached_property
    def expected(self) -> Any:
        return kernel.expected(self.case, "rnn", "tanh", True)


def arguments(case: Case) -> tuple[jrnn.RNNParams, jax.Array, jax.Array]:
    """Parameters, xs and y, created on the device."""
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
