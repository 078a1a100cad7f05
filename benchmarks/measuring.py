"""Compile programs, compare their results, and time them in turn.

Every call blocks until its result is ready. Each round runs every program, and each round starts
with a different one, so a slow period of the machine affects all programs. A turn repeats a short
program for 20 ms. Minimum and median are over all calls; ratios use minima, which other load on the
machine changes least.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.checks import refuse

TURN_SECONDS = 0.02
PAUSE_SECONDS = 0.005  # torch's OpenMP threads spin briefly after their work
# Bounds of the 2-norm of a difference divided by the 2-norm of the array. float32 rounds to 6e-8,
# and hundreds of steps accumulate 1e-6; a wrong gradient differs by at least 1e-3.
FLOAT32_TOLERANCE = 1e-5
# Of millions of pre-activations one may round to the other side of 0, where relu' jumps: 1e-5 and
# 1e-3 of a gradient's norm were seen from one unit at one step.
RELU_TOLERANCE = 3e-3
# For 8-bit operands, and for float32 matmuls that a GPU or TPU rounds by default.
ROUNDED_TOLERANCE = 0.1


def tolerance(dtype: str, activation: str = "tanh") -> float:
    """The tolerance of results in this dtype on this device."""
    if dtype != "float32" or jax.default_backend() != "cpu":
        return ROUNDED_TOLERANCE
    return RELU_TOLERANCE if activation == "relu" else FLOAT32_TOLERANCE


class Program(NamedTuple):
    """A compiled program with its arguments."""

    name: str
    call: Callable[[], Any]  # returns when the result is ready
    arrays: Callable[[Any], dict[str, Any]]  # the result with common names and axes
    costs: Mapping[str, float] = {}  # of compilation and memory, by their titles in a table


def compile_program(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], arrays: Callable[[Any], Any]
) -> Program:
    """Trace and compile with empty caches, and read XLA's memory analysis."""
    jax.clear_caches()
    start = time.perf_counter()
    compiled: Any = jax.jit(function).lower(*args).compile()
    costs = {"compile s": time.perf_counter() - start}
    if memory := compiled.memory_analysis():
        costs = {"MB": memory.temp_size_in_bytes / 1e6, **costs}
    return Program(name, lambda: jax.block_until_ready(compiled(*args)), arrays, costs)


def compare(program: Program, expected: dict[str, np.ndarray], tolerance: float) -> float:
    """Call a program once; return the largest relative error, or raise ValueError."""
    result, largest = program.arrays(program.call()), 0.0
    for name, right in expected.items():
        found, right = np.asarray(result[name], np.float64), np.asarray(right, np.float64)
        what = f"{name} of {program.name}"
        if found.shape != right.shape:
            refuse(what, f"shape {[*right.shape]}", f"{[*found.shape]}", "Not timed.")
        error = float(np.linalg.norm(found - right) / np.linalg.norm(right))
        if not error <= tolerance:
            said = f"the common result to {tolerance:g} of its norm"
            refuse(what, said, f"{error:.2g}", "Not timed.")
        largest = max(largest, error)
    return largest


def time_in_turn(programs: Sequence[Program], rounds: int) -> dict[str, list[float]]:
    """Time every program; return the seconds of its calls by its name."""
    calls = {program.name: program.call for program in programs}
    repeats = {name: _calls_of_a_turn(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = defaultdict(list)
    for n in range(rounds):
        one_round(calls, n, seconds, repeats)
    return seconds


def one_round(
    calls: Mapping[str, Callable[[], Any]],
    n: int,
    seconds: dict[str, list[float]],
    repeats: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Call each in turn, the nth first; return the last results, append to `seconds`."""
    names, results = list(calls), {}
    first = n % len(names)
    for name in (*names[first:], *names[:first]):
        time.sleep(PAUSE_SECONDS)
        for _ in range(repeats[name] if repeats else 1):
            start = time.perf_counter()
            results[name] = calls[name]()
            seconds[name].append(time.perf_counter() - start)
    return results


def time_beside_matmul(
    programs: list[Program], rounds: int, toy: bool
) -> tuple[dict[str, list[float]], float]:
    """Time programs in turn with a large matmul; return seconds and its FLOP per second."""
    size = 64 if toy else 2048 if jax.default_backend() == "cpu" else 8192  # at full speed
    a = jnp.ones((size, size), jnp.float32)
    matmul = compile_program(f"matmul {size}", jnp.matmul, (a, a), lambda c: {"c": c})
    seconds = time_in_turn([matmul, *programs], rounds)
    return seconds, 2 * size**3 / min(seconds[matmul.name])


def _calls_of_a_turn(call: Callable[[], Any]) -> int:
    call()
    start = time.perf_counter()
    call()
    return int(np.clip(TURN_SECONDS / (time.perf_counter() - start), 1, 50))
