"""Programs that are compiled, compared and then timed in turn.

Everything is blocked on. Each round gives every program a turn, each round another one first, so
that a slow minute of the machine falls on all of them. A turn repeats a short program until it has
lasted 20 ms. Minimum and median are over all calls; ratios are of minima, which other load on the
machine disturbs least.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.checks import refuse

TURN_SECONDS = 0.02
PAUSE_SECONDS = 0.005  # OpenMP's threads, which torch uses, spin for a moment after their work
# Of the 2-norm of a difference over the 2-norm of the array. float32 rounds to 6e-8, and the errors
# of hundreds of steps come to 1e-6; a wrong gradient is off by 1e-3 at least.
FLOAT32_TOLERANCE = 1e-5
# Operands of 8 bits. Nor is a float32 matmul of a GPU or TPU, by default, one of 24 bits.
ROUNDED_TOLERANCE = 0.1


def tolerance(dtype: str) -> float:
    """What the results of this dtype, here, may differ by."""
    exact = dtype == "float32" and jax.default_backend() == "cpu"
    return FLOAT32_TOLERANCE if exact else ROUNDED_TOLERANCE


class Program(NamedTuple):
    """A compiled program and its arguments, ready to be called."""

    name: str
    call: Callable[[], Any]  # returns when the result is there
    arrays: Callable[[Any], dict[str, Any]]  # the result, in names and axes common to all
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    hlo: Callable[[], str] | None = None  # the compiled program's text


class Times(NamedTuple):
    """Seconds of one call."""

    minimum: float
    median: float


def figures(program: Program, times: Times) -> dict[str, Any]:
    """What is measured of every program, whatever it computes."""
    return {
        "minimum_ms": 1e3 * times.minimum,
        "median_ms": 1e3 * times.median,
        "compile_seconds": program.compile_seconds,
        "temporary_bytes": program.temporary_bytes,
    }


def compile_program(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], arrays: Callable[[Any], Any]
) -> Program:
    """Trace and compile with empty caches, and read what XLA says of the memory."""
    compiled, seconds = compile_anew(function, args)
    return as_program(name, compiled, seconds, args, arrays)


def as_program(
    name: str, compiled: Any, seconds: float, args: tuple[Any, ...], arrays: Callable[[Any], Any]
) -> Program:
    """A compiled function with its arguments."""
    memory = compiled.memory_analysis()
    return Program(
        name,
        lambda: jax.block_until_ready(compiled(*args)),
        arrays,
        seconds,
        None if memory is None else memory.temp_size_in_bytes,
        compiled.as_text,
    )


def compile_anew(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, float]:
    """The compiled function, of arrays or `jax.ShapeDtypeStruct`, and seconds with empty caches."""
    jax.clear_caches()
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    return compiled, time.perf_counter() - start


def matmul_size(toy: bool) -> int:
    """Rows of a square matmul that a device runs at its full speed."""
    return 64 if toy else 2048 if jax.default_backend() == "cpu" else 8192


def matmul_program(size: int) -> Program:
    """A square float32 matmul, whose speed is the floor's."""
    a = jnp.ones((size, size), jnp.float32)
    return compile_program(f"matmul {size}", jnp.matmul, (a, a), lambda c: {"c": c})


def compare(
    program: Program, expected: dict[str, np.ndarray], tolerance: float
) -> dict[str, float]:
    """Call it once; the relative error of every array, or a ValueError."""
    result = program.arrays(program.call())
    errors = {}
    for name, right in expected.items():
        found, right = np.asarray(result[name], np.float64), np.asarray(right, np.float64)
        if found.shape != right.shape:
            came = f"{list(found.shape)}"
            refuse(f"{name} of {program.name}", f"shape {list(right.shape)}", came, "Not timed.")
        errors[name] = float(np.linalg.norm(found - right) / np.linalg.norm(right))
        if not errors[name] <= tolerance:
            said = f"the common result to {tolerance:g} of its norm"
            refuse(f"{name} of {program.name}", said, f"{errors[name]:.2g}", "Not timed.")
    return errors


def time_in_turn(
    programs: Sequence[Program], rounds: int, left: Callable[[], float] = lambda: np.inf
) -> dict[str, Times]:
    """Seconds of every program, by name; only the first round begins without seconds left."""
    seconds: dict[str, list[float]] = {program.name: [] for program in programs}
    calls = {program.name: _calls_of_a_turn(program) for program in programs}
    for n in range(rounds):
        if n and left() <= 0:
            break
        first = n % len(programs)
        for program in (*programs[first:], *programs[:first]):
            time.sleep(PAUSE_SECONDS)
            for _ in range(calls[program.name]):
                seconds[program.name].append(time_once(program))
    return {name: Times(min(s), float(np.median(s))) for name, s in seconds.items()}


def _calls_of_a_turn(program: Program) -> int:
    program.call()
    return int(np.clip(TURN_SECONDS / time_once(program), 1, 50))


def time_once(program: Program) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    program.call()
    return time.perf_counter() - start
