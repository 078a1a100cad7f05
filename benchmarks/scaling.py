"""Measure growth of time and memory with T, B, H, devices, `remat` and O.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --rows T devices --rounds 5

T        1,000 to 64,000 steps, for three sizes of (B, H), in float32 and bfloat16
B, H     at T = 128
devices  the batch of two shapes split over 1, 2, ... devices; one device uses every core
remat    `remat=True` and the default, at B = 1
O        `readout_cross_entropy`, and readout with `softmax_cross_entropy`

Each program computes the cost and its gradient. A scan that takes more than half a second is not
run at the next size.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from benchmarks import claims, report
from benchmarks.cases import Case, data
from benchmarks.kernel import program, recurrences, reference
from benchmarks.measuring import (
    Program,
    compare,
    compile_program,
    figures,
    time_in_turn,
    tolerance,
)
from benchmarks.rivals import Recurrence, autodiff
from jrnn.parallel import use_cpu_cores

RIVALS = ["autodiff"]
SLOW_SECONDS = 0.5


class Sweep(NamedTuple):
    """Shapes that differ along one axis."""

    axis: str  # the growing size
    line: str  # the fixed sizes
    points: dict[int, Case]
    dtype: str = "float32"


def sweeps(toy: bool) -> dict[str, list[Sweep]]:
    """All sweeps by name."""
    if toy:
        sizes, lengths, batches, hidden = [(2, 4)], [5, 10], [2, 4], [3, 6]
        shapes, long = [Case(5, 2 * jax.device_count(), 3, 4)], [16, 32]
    else:
        sizes, lengths = [(1, 8), (1, 64), (8, 32)], [1000, 4000, 16_000, 64_000]
        batches, hidden = [1, 4, 16, 64, 256], [16, 64, 256, 1024]
        shapes, long = [Case(512, 32, 128, 256), Case(128, 64, 256, 512)], [4096, 16_384, 65_536]
    steps = 6 if toy else 128
    devices = [2**n for n in range(10) if 2**n <= jax.device_count()]
    over_time = [
        Sweep("T", f"B = {B}, I = H = {H}", {T: Case(T, B, H, H) for T in lengths}, dtype)
        for dtype in ("float32", "bfloat16")
        for B, H in sizes
    ]
    I, H = (3, 4) if toy else (128, 256)
    return {
        "T": over_time,
        "B": [
            Sweep("B", f"T = {steps}, I = {I}, H = {H}", {B: Case(steps, B, I, H) for B in batches})
        ],
        "H": [
            Sweep("H", f"T = {steps}, B = 32, I = 64", {H: Case(steps, 32, 64, H) for H in hidden})
        ],
        "devices": [Sweep("devices", f"{case}", dict.fromkeys(devices, case)) for case in shapes],
        "remat": [
            Sweep("remat", f"T, B = 1, I = 32, H = {H}", {T: Case(T, 1, 32, H) for T in long})
        ],
        "O": [output_sweep(toy)],
    }


def output_sweep(toy: bool) -> Sweep:
    """A sweep of a readout over O, with T * B positions and H fixed."""
    case = Case(4, 4, 0, 8) if toy else Case(128, 32, 0, 512)
    outputs = [10, 40] if toy else [1000, 8000, 32_000]
    return Sweep("O", f"T * B = {case.T * case.B}, H = {case.H}", dict.fromkeys(outputs, case))


# --- the programs of a point ---------------------------------------------------------------------


def gradient_programs(
    sweep: Sweep, at: int, case: Case, rivals: list[str], slow: set[str]
) -> list[Program]:
    """Programs of jrnn and the scans, compared with the reference."""
    found = recurrences(case, "batch", sweep.dtype, rivals)
    if sweep.axis == "remat":
        found = [found[0], Recurrence("jrnn remat", _remat_states)]
    left = {r.name for r in found if r.name.endswith(" mixed")} | slow
    if sweep.dtype == "bfloat16":
        left.add("jrnn float32")
    given = data(case)
    devices = at if sweep.axis == "devices" else 1
    programs = [program(r, given, True, devices) for r in found if r.name not in left]
    expected = reference(given, autodiff.naive, gradient=True)
    for p in programs:
        compare(p, expected, tolerance(sweep.dtype))
    return programs


def _remat_states(params: Any, xs: Any) -> Any:
    return jrnn.rnn(params, xs, remat=True)[1]


def readout_programs(case: Case, O: int) -> list[Program]:
    """The two programs from states to cost and gradient, compared with each other."""
    random = np.random.default_rng(0)
    params = jrnn.init_readout(jax.random.key(0), case.H, O)
    hs = jnp.asarray(random.uniform(-1, 1, (case.T, case.B, case.H)), jnp.float32)
    labels = jnp.asarray(random.integers(0, O, (case.T, case.B)))

    def fused(params: Any, hs: Any) -> Any:
        return jrnn.readout_cross_entropy(params, hs, labels)

    def plain(params: Any, hs: Any) -> Any:
        return jrnn.softmax_cross_entropy(jrnn.readout(params, hs), labels).sum()

    def arrays(result: Any) -> dict[str, Any]:
        cost, (dparams, dhs) = result
        return {"cost": cost, "dhs": dhs, **dparams._asdict()}

    programs = [
        compile_program(name, jax.value_and_grad(f, (0, 1)), (params, hs), arrays)
        for name, f in (("jrnn", fused), ("readout + softmax", plain))
    ]
    expected = jax.tree.map(np.asarray, arrays(programs[1].call()))
    compare(programs[0], expected, tolerance("float32"))
    return programs


# --- the measurement -----------------------------------------------------------------------------


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield one record per point and program."""
    there = sweeps(args.toy)
    for row in args.rows:
        for sweep in there[row]:
            slow: set[str] = set()
            for at, case in sweep.points.items():
                yield from measure_point(args, sweep, at, case, slow)


def measure_point(
    args: argparse.Namespace, sweep: Sweep, at: int, case: Case, slow: set[str]
) -> Iterator[dict[str, Any]]:
    """Measure the programs of one point; add the slow ones to `slow`."""
    if sweep.axis == "O":
        programs, kept = readout_programs(case, at), 4 * case.T * case.B * at  # the logits
    else:
        programs = gradient_programs(sweep, at, case, args.rivals, slow)
        kept = 4 * case.T * case.B * case.H  # hs
    times = time_in_turn(programs, args.rounds)
    for p in programs:
        minimum = times[p.name].minimum
        if minimum > SLOW_SECONDS and not p.name.startswith("jrnn"):
            slow.add(p.name)
            print(f"{sweep.axis}, {sweep.line}: {p.name} takes {minimum:.1f} s at {at}: no further")
        yield {
            "row": f"{sweep.line}, {sweep.dtype}",
            "axis": sweep.axis,
            "at": at,
            "case": list(case),
            "program": p.name,
            "activation": "tanh",
            **figures(p, times[p.name]),
            "kept_bytes": kept,
        }
    said = ", ".join(f"{name} {1e3 * t.minimum:.2f}" for name, t in times.items())
    print(f"{sweep.axis} = {at:,} ({sweep.line}, {sweep.dtype}): {said} ms", flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    rows = ["T", "B", "H", "devices", "remat", "O"]
    return report.parse(report.parser(__doc__, "scaling", RIVALS, rounds=5), argv, rows, rows)


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 after bad input."""
    args = parse(argv)
    try:
        use_cpu_cores(args.devices)
        records = list(measure(args))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report.write_scaling(args, records, claims.of_scaling(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
