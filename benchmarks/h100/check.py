"""Check the kernels on a Hopper: correct, deterministic, and microseconds per step.

    python -m benchmarks.h100.check            # forward, backward, a whole gradient
    python -m benchmarks.h100.check --races    # small enough for compute-sanitizer

`python -m benchmarks.device` runs the same checks.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import kernel
from benchmarks.cases import CASES, Case, data
from benchmarks.device.gradients import finite
from benchmarks.device.runner import Context, words
from benchmarks.h100 import is_hopper, network, one_block, plain, split
from benchmarks.measuring import ROUNDED_TOLERANCE, Program, compare, compile_program, time_in_turn
from benchmarks.rivals import Recurrence, autodiff, available, jrnn_itself, load

ROUNDS = 5
ROUNDED = 8e-3  # bound for bfloat16 states in [-1, 1], and for deltas relative to their norm
SHAPES = [  # T, B, H, and sequences per block
    (8, 16, 128, 16),
    (512, 32, 256, 16),
    (512, 32, 128, 32),
    (512, 512, 256, 16),
    (512, 2048, 256, 16),
    (2048, 32, 256, 16),
]
RACE = SHAPES[0]
SANITIZERS = ("compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer")


class Kernel(NamedTuple):
    """One kernel at one shape, and its reference scan."""

    name: str
    case: tuple[int, int, int]  # T, B, H
    run: Callable[..., Any]
    scan: Callable[..., Any]
    arguments: Callable[[], tuple[jax.Array, ...]]
    bound: float


def forward_arguments(T: int, B: int, H: int) -> tuple[jax.Array, ...]:
    """xw, w, h0: normal; w has a spectral radius near 1."""
    keys = jax.random.split(jax.random.key(0), 3)
    w = jax.random.normal(keys[1], (H, H)) / H**0.5
    return jax.random.normal(keys[0], (T, H, B)), w, jax.random.normal(keys[2], (H, B))


def backward_arguments(T: int, B: int, H: int) -> tuple[jax.Array, ...]:
    """dhs, hs, w, dh_last."""
    xw, w, h0 = forward_arguments(T, B, H)
    keys = jax.random.split(jax.random.key(1))
    dhs = jax.random.normal(keys[0], (T, H, B)).astype(jnp.bfloat16)
    return dhs, jax.jit(plain.forward)(xw, w, h0)[0], w, jax.random.normal(keys[1], (H, B))


def kernels(shapes: list[tuple[int, int, int, int]] = SHAPES) -> Iterator[Kernel]:
    """The kernels in bfloat16."""
    for T, B, H, Bb in shapes:
        case = (T, B, H)
        run = partial(one_block.forward, Bb=Bb)
        given = partial(forward_arguments, *case)
        yield Kernel("forward", case, run, plain.forward, given, ROUNDED)
        run, given = partial(one_block.backward, Bb=Bb), partial(backward_arguments, *case)
        yield Kernel("backward", case, run, plain.backward, given, ROUNDED)


def kernels_float32() -> Iterator[Kernel]:
    """The kernels in nearly float32."""
    for P, bound in ((2, 1e-3), (3, 1e-4)):
        case = (512, 32, 128)
        run, given = partial(split.forward, P=P), partial(forward_arguments, *case)
        name = f"forward, float32 by {P} parts"
        yield Kernel(name, case, run, plain.forward_float32, given, bound)


def recorded(name: str, case: Sequence[int], find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The record of a result or of its failure: a failing kernel must not hide the others."""
    key = {"kernel": name, "case": list(case)}
    try:
        return key | find()
    except Exception as error:
        return key | {"passed": False, "reason": words(error)}


def found(error: float, bound: float, programs: list[Program], steps: int) -> dict[str, Any]:
    """The error of the first program, whether two runs agree, and the times of all."""
    first, again = (jax.tree.leaves(jax.tree.map(np.asarray, programs[0].call())) for _ in range(2))
    same = all(bool((a == b).all()) for a, b in zip(first, again, strict=True))
    times = time_in_turn(programs, ROUNDS)
    return {
        "passed": error <= bound and same,
        "worst": "the second run" if error <= bound else "the result",
        "error": error,
        "bound": bound,
        "same_twice": same,
        "us_per_step": {name: 1e6 * t.minimum / steps for name, t in times.items()},
    }


def checked(one: Kernel) -> dict[str, Any]:
    """Compare a kernel with its scan, run it twice, and time both."""
    args = one.arguments()
    ours, scan = (
        compile_program(name, f, args, lambda result: {})
        for name, f in (("kernel", one.run), ("scan", one.scan))
    )
    result, right = (np.asarray(_all_steps(p.call()), np.float32) for p in (ours, scan))
    error = finite(np.abs(result - right).max() / max(np.abs(right).max(), 1))
    return found(error, one.bound, [ours, scan], one.case[0])


def _all_steps(result: Any) -> Any:
    return result[0] if isinstance(result, list | tuple) else result


def whole(case: Case, gradient: bool) -> dict[str, Any]:
    """States, or cost and gradient, of a network, compared with a plain scan, jrnn and cuDNN."""
    given = data(case)
    own = Recurrence("kernel", network.states, state_dtype=jnp.bfloat16)
    jrnn = jrnn_itself.recurrences(case, dtype="bfloat16")[0]
    (scan,) = (r for r in autodiff.recurrences(case, dtype="bfloat16") if r.name == "hoisted mixed")
    scan = scan._replace(name="scan")
    programs = [kernel.program(one, given, gradient, 1) for one in (own, scan, jrnn)]
    if available(["torch"])[0]:
        torch = load("torch")
        for dtype in ("bfloat16", "float16"):
            (program,) = torch.programs(case, given, gradient, torch.device_like_jax(), dtype)
            programs.append(program._replace(name=f"cuDNN {dtype}"))
    expected = kernel.expected(case, "rnn", "tanh", gradient)
    error = max(compare(programs[0], expected, np.inf).values())
    return found(error, ROUNDED_TOLERANCE, programs, case.T)


def independent(context: Context) -> Iterator[dict[str, Any] | str]:
    """The part of `benchmarks.device` with these kernels."""
    yield from available(["torch"])[1]
    runs = [
        (
            f"network, {'cost and gradient' if gradient else 'states'}",
            case,
            partial(whole, case, gradient),
        )
        for case in (CASES[2], CASES[1])
        for gradient in (True, False)
    ]
    every = [*kernels_float32(), *kernels()]
    yield from each(context, runs + [(k.name, k.case, partial(checked, k)) for k in every])


def each(context: Context, runs: list[Any]) -> Iterator[dict[str, Any] | str]:
    """Yield a record per run, while there is time."""
    for name, case, find in runs:
        if context.left() <= 0:
            yield f"Left out for lack of time: {name} at {', '.join(map(str, case))}, and after."
            return
        yield recorded(name, case, find)


def races(context: Context) -> Iterator[dict[str, Any] | str]:
    """Run racecheck of compute-sanitizer on a small case."""
    sanitizer = next(filter(None, map(shutil.which, SANITIZERS)), None)
    if sanitizer is None:
        yield "No compute-sanitizer here (it comes with CUDA's toolkit): races are not looked for."
        return
    ours = ["--kernel-regex", "kns=mosaic_gpu"]  # checked alone: those of XLA would take minutes
    command = [sanitizer, "--tool", "racecheck", *ours, sys.executable, "-m", __name__, "--races"]
    root = Path(__file__).parents[2]
    limit = max(context.left(), 1)
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        yield f"compute-sanitizer did not end within {limit:.0f} s."
        return
    if "forward and backward ran" not in done.stdout:
        reason = " ".join(done.stderr.split())[-300:]
        yield f"racecheck could not run the kernels: {reason}"
        return
    said = [line.strip("= ") for line in done.stdout.splitlines() if "RACECHECK SUMMARY" in line]
    summary = said[-1] if said else f"no summary; exit status {done.returncode}"
    yield {
        "kernel": "forward, backward",
        "case": list(RACE[:3]),
        "passed": "SUMMARY: 0 hazards" in summary,
        "reason": summary,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the checks; return 0, or 1 without a Hopper or if a kernel is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.h100.check", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--races", action="store_true", help="only what racecheck can wait for")
    args = parser.parse_args(argv)
    device = jax.devices()[0]
    if not is_hopper(device):
        print(f"error: expected a Hopper GPU; got {device.device_kind}", file=sys.stderr)
        return 1
    if args.races:
        for one in list(kernels([RACE]))[:2]:
            jax.block_until_ready(jax.jit(one.run)(*one.arguments()))
        print("forward and backward ran")
        return 0
    results = list(independent(Context({}, time.monotonic() + 3600)))
    for result in results:
        print(result)
    return 0 if all(r["passed"] for r in results if isinstance(r, dict)) else 1


if __name__ == "__main__":
    sys.exit(main())
