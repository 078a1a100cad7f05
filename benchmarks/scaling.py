"""Measure growth of time and memory with T, B, H, devices, `remat` and O.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --rows T devices --rounds 5

T        1,000 to 64,000 steps, for three sizes of (B, H), in float32 and bfloat16
B, H     at T = 128
devices  the batch of two shapes split over 1, 2, ... devices; one device uses every core
remat    `remat=True` and the default, at B = 1, with a cost of h_last
losses   the temporary bytes of long losses with `remat=True` and without, compiled and not run
O        `readout_cross_entropy`, and readout with `softmax_cross_entropy`

Each program computes the cost and its gradient. A scan that takes more than half a second is not
run at the next size.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from benchmarks import report
from benchmarks.cases import Case, Group
from benchmarks.kernel import measure_group
from benchmarks.measuring import compare, compile_program, time_in_turn, tolerance
from benchmarks.report import Record, Results, Tasks
from benchmarks.rivals import jrnn_itself
from jrnn.parallel import use_cpu_cores

ROWS = ["T", "B", "H", "devices", "remat", "losses", "O"]
SLOW_MS = 500
LEFT_OUT = {"jrnn without", *(f"{scan} mixed" for scan in report.SCANS)}  # of the other dtype
SLOWER_SCANS = {"naive", "hoisted"}  # on a GPU, than the one that is unrolled


class Sweep(NamedTuple):
    """Shapes that differ along one axis."""

    axis: str  # the growing size
    line: str  # the fixed sizes
    points: dict[int, Case]
    dtype: str = "float32"


START = Case(64, 64, 256, 512)
DEVICE = [  # the sweeps of `benchmarks.device`
    Sweep("T", "B = 64, I = 256, H = 512", {T: START._replace(T=T) for T in (64, 256, 1024, 4096)}),
    Sweep("B", "T = 64, I = 256, H = 512", {B: START._replace(B=B) for B in (16, 64, 256, 1024)}),
]
TOY_DEVICE = [Sweep("T", "B = 4, I = 3, H = 5", {T: Case(T, 4, 3, 5) for T in (5, 10)})]


def sweeps(toy: bool) -> Iterator[Sweep]:
    """All sweeps."""
    devices = [2**n for n in range(10) if 2**n <= jax.device_count()]
    if toy:
        sizes, lengths, batches, hidden = [(2, 4)], [5, 10], [2, 4], [3, 6]
        shapes, long = [Case(5, 2 * jax.device_count(), 3, 4)], [16, 32]
        fixed, outputs, positions = Case(6, 0, 3, 4), [10, 40], Case(4, 4, 0, 8)
    else:
        sizes, lengths = [(1, 8), (1, 64), (8, 32)], [1000, 4000, 16_000, 64_000]
        batches, hidden = [1, 4, 16, 64, 256], [16, 64, 256, 1024]
        shapes, long = [Case(512, 32, 128, 256), Case(128, 64, 256, 512)], [4096, 16_384, 65_536]
        fixed, outputs = Case(128, 0, 128, 256), [1000, 8000, 32_000]
        positions = Case(128, 32, 0, 512)
    T, _, I, H = fixed
    for dtype in ("float32", "bfloat16"):
        for B, size in sizes:
            line = f"B = {B}, I = H = {size}"
            yield Sweep("T", line, {t: Case(t, B, size, size) for t in lengths}, dtype)
    yield Sweep("B", f"T = {T}, I = {I}, H = {H}", {B: Case(T, B, I, H) for B in batches})
    yield Sweep("H", f"T = {T}, B = 32, I = 64", {h: Case(T, 32, 64, h) for h in hidden})
    for case in shapes:
        yield Sweep("devices", f"{case}", dict.fromkeys(devices, case))
    yield Sweep("remat", f"T, B = 1, I = 32, H = {H}", {t: Case(t, 1, 32, H) for t in long})
    line = f"T * B = {positions.T * positions.B}, H = {positions.H}"
    yield Sweep("O", line, dict.fromkeys(outputs, positions))


def readout_records(args: argparse.Namespace, case: Case, O: int) -> Iterator[Record]:
    """Two programs from states to cost and gradient, compared with each other and timed."""
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
    for name, values in time_in_turn(programs, args.rounds).items():
        yield {"program": name, "case": case, "gradient": True} | values


def losses(toy: bool) -> Iterator[Record]:
    """The gradient of a character model over T steps, and of a forecast by two layers."""
    key, long, T = jax.random.key(0), 16 if toy else 1_000_000, 16 if toy else 16_384
    network, stack = (
        jrnn.init_rnn(key, 100, 64),
        jrnn.init_stack(key, 16, (64, 64), cell="gru", layer_norm=True),
    )
    ids, xs = jax.ShapeDtypeStruct((long, 1), jnp.int32), jax.ShapeDtypeStruct((T, 8, 16), float)
    of_ids = partial(jrnn.rnn_cross_entropy, inputs="ids")
    of_numbers = partial(jrnn.rnn_loss, loss=jrnn.gaussian_nll)
    for place, loss, params, O, data in (
        (f"rnn_cross_entropy, T = {long:,}, B = 1, H = 64", of_ids, network, 100, (ids, ids)),
        (f"rnn_loss, T = {T:,}, B = 8, H = 64", of_numbers, stack, 32, (xs, xs)),
    ):
        model = params, jrnn.init_readout(key, 64, O)
        for name, remat in (("jrnn", False), ("jrnn remat", True)):

            def cost(model: Any, *data: Any, loss: Any = loss, remat: bool = remat) -> Any:
                return loss(*model, *data, remat=remat)[0]

            compiled = compile_program(name, jax.grad(cost), (model, *data), lambda g: {})
            yield {"table": "losses", "axis": "loss", "place": place, "program": name} | {
                "gradient": True,
                "temporary_bytes": compiled.temporary_bytes,
                "compile_seconds": compiled.compile_seconds,
            }


class Growth:
    """Measures the points of sweeps; a scan that is slow is not run at the next size."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.first: dict[str, float] = {}  # milliseconds at the first size
        self.slow: set[str] = set()

    def __call__(self, sweep: Sweep, at: int, rivals: list[str]) -> Results:
        """Yield a record per program, with its time over that at the first size."""
        axis, case = sweep.axis, sweep.points[at]
        if at == min(sweep.points):
            always = SLOWER_SCANS if self.args.device else LEFT_OUT
            self.first, self.slow = {}, set() if axis == "remat" else set(always)
        devices = at if axis == "devices" else 1
        route = {"remat": "remat", "devices": "mesh"}.get(axis, "batch")
        group = Group(f"{axis} = {at:,}", case, route, sweep.dtype, devices=devices)
        table = f"{axis}: {sweep.line}, {sweep.dtype}"
        key = {"table": table, "axis": axis, "place": f"{at:,}", "at": at}
        kept = 4 * case.T * case.B * (at if axis == "O" else case.H)  # the logits, or the states
        found = (
            readout_records(self.args, case, at)
            if axis == "O"
            else measure_group(self.args, group, rivals, without=self.slow)
        )
        for r in found:
            if isinstance(r, str):
                yield r
                continue
            name, ms = r["program"], r["minimum_ms"]
            growth = ms / self.first.setdefault(r.get("label") or name, ms)
            if (size := r.get("temporary_bytes")) is not None:
                r |= {"kept_bytes": kept, "bytes_over_kept": size / kept}
            yield r | key | {"growth": growth}
            if ms > SLOW_MS and not name.startswith(("jrnn", "matmul")):
                self.slow.add(name)
                yield f"{axis}, {sweep.line}: {name} is slow at {at}: no further"


def tasks(args: argparse.Namespace) -> Tasks:
    """A task for each point."""
    use_cpu_cores(args.devices)
    args.backends = jrnn_itself.wanted(None)
    chosen = (TOY_DEVICE if args.toy else DEVICE) if args.device else [*sweeps(args.toy)]
    measure, rows = Growth(args), args.rows or ROWS
    points = [(sweep, at) for sweep in chosen if sweep.axis in rows for at in sweep.points]
    found: Tasks = {
        f"{sweep.axis} = {at:,} ({sweep.line}, {sweep.dtype})": partial(measure, sweep, at)
        for sweep, at in points
    }
    of_losses: Tasks = {"losses": lambda rivals: losses(args.toy)}
    return {**found, **(of_losses if "losses" in rows and not args.device else {})}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser("scaling", __doc__, ROWS, ["autodiff"], rounds=5)
    parser.add_argument("--device", action="store_true", help="the sizes of benchmarks.device")
    return report.parse(parser, argv)


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 after bad input."""
    return report.run("scaling", parse(argv), tasks)


if __name__ == "__main__":
    sys.exit(main())
