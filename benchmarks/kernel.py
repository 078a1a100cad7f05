"""Measure the recurrence: its states, and the gradient of sum(hs * y) in its parameters.

    python -m benchmarks.kernel                                  # all but the mesh
    python -m benchmarks.kernel --devices 2 --routes mesh --out out/mesh
    python -m benchmarks.kernel --rows 2 4 --routes batch --dtypes float32 --rivals autodiff
    python -m benchmarks.kernel --backends xla native            # ratios over jrnn's by XLA
    python -m benchmarks.kernel --cell lstm --out out/lstm       # or gru
    python -m benchmarks.kernel --old HEAD~1                     # against an older version of jrnn

batch         a batch [T, B, I], on one device
vmap          `jax.vmap` of one sequence over [B, T, I], and jrnn's own batch with the axes swapped
vmap-grad     `jax.vmap` of the gradient of one sequence: a gradient for each
vmap-weights  `jax.vmap` over four networks, of which each reads a quarter of the batch
mesh          the batch split over devices by `jax.shard_map`; the gradient is summed at the end
ends          a batch with and without lengths and resets, in float32
remat         a batch with and without `remat=True`, in float32

On a CPU, jrnn is measured with each backend that computes the call, the native kernel and XLA. With
`--old` both versions run XLA's loops. The older one is compiled twice: the ratio of its two
programs is noise, and the exit status is 1 if the new one is slower by more, or needs more memory.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Container, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import report
from benchmarks.cases import CASES, CELLS, TOY_CASES, Case, Data, data, ends
from benchmarks.measuring import (
    ROUNDED_TOLERANCE,
    Program,
    compare,
    compile_program,
    figures,
    time_beside_matmul,
    tolerance,
)
from benchmarks.rivals import Recurrence, autodiff, jrnn_itself, load
from benchmarks.rivals.old import loaded, worse
from jrnn.checks import refuse
from jrnn.native import cpu_cores as cores
from jrnn.parallel import BATCH, batch_mesh, use_cpu_cores

RIVALS = ["autodiff", "flax", "haiku", "keras", "torch"]
ROUTES = {  # and the rows that are compared with an older version: a quarter of an hour
    "batch": [1, 2, 3, 4, 5, 6],
    "vmap": [1, 2, 4],
    "vmap-grad": [1, 2],
    "vmap-weights": [1, 2],
    "mesh": [1, 2, 4],
    "ends": [1, 2, 3],
    "remat": [1, 2, 5],
}
DTYPES = ["float32", "bfloat16"]
MEMBERS = np.array([1, 0.9, 0.8, 0.7], np.float32)  # the networks of vmap-weights: times this
MIXED_TOLERANCE = 0.02  # of jrnn, which is 0.004 to 0.007 from float32
REPEATS = 3  # of a group that is worse than the older version
WHOLE, SPLIT = PartitionSpec(), PartitionSpec(None, BATCH)  # parameters; [T, B, ...]


class Group(NamedTuple):
    """Programs that are compared with one another."""

    row: Any
    case: Case
    route: str
    dtype: str
    gradient: bool
    cell: str = "rnn"
    devices: int = 1

    def __str__(self) -> str:
        what = "forward + backward" if self.gradient else "forward"
        return f"row {self.row} ({self.case}) {self.route} {self.dtype} {what}"


# --- the compared programs -----------------------------------------------------------------------


def recurrences(
    case: Case, route: str, dtype: str, rivals: list[str], cell: str = "rnn", old: Any = None
) -> list[Recurrence]:
    """The programs of jrnn and the rivals for one route; libraries only in `batch`, in float32."""
    own = jrnn_itself.recurrences(case, cell, dtype, route)
    others = autodiff.recurrences(case, cell, dtype, route) if "autodiff" in rivals else []
    if (route, dtype) == ("batch", "float32"):
        libraries = [name for name in rivals if name not in ("autodiff", "torch")]
        others += [r for name in libraries for r in load(name).recurrences(case, cell)]
        if any(r.activation == "relu" for r in others):
            own.append(jrnn_itself.with_relu())
        others += jrnn_itself.by_a_user(cell) if old is None else []
    if old is not None:
        versions = (old, "old"), (old, "old again")
        others += [jrnn_itself.recurrences(case, cell, dtype, route, *v)[0] for v in versions]
        own = own[:1]
    if route == "vmap":
        return [with_swapped_axes(own[0]), *map(under_vmap, own + others)]
    if route == "vmap-grad":
        return [one._replace(batch_first=True) for one in own + others]
    return [over_weights(one) for one in own + others] if route == "vmap-weights" else own + others


def under_vmap(recurrence: Recurrence) -> Recurrence:
    """Map one sequence over batch-first arrays."""
    states = jax.vmap(recurrence.states, (None, 0))
    return recurrence._replace(states=states, batch_first=True)


def with_swapped_axes(recurrence: Recurrence) -> Recurrence:
    """Run a batch on the same batch-first arrays as under `vmap`."""

    def states(params: Any, xs: Any) -> Any:
        return recurrence.states(params, xs.swapaxes(0, 1)).swapaxes(0, 1)

    name = f"{recurrence.name} batch"
    return recurrence._replace(name=name, states=states, batch_first=True)


def over_weights(one: Recurrence) -> Recurrence:
    """`MEMBERS`, of which each reads its part of the batch."""

    def own(params: Any) -> Any:
        members = MEMBERS.astype(one.input_dtype)
        return jax.tree.map(lambda p: jnp.multiply.outer(members, p), one.own(params))

    def states(params: Any, xs: Any) -> Any:
        T, B, I = xs.shape
        parts = xs.reshape(T, len(MEMBERS), B // len(MEMBERS), I)
        return jax.vmap(one.states, (0, 1), 1)(params, parts).reshape(T, B, -1)

    return one._replace(own=own, states=states)


def on_mesh(function: Callable[..., Any], devices: int, gradient: bool) -> Callable[..., Any]:
    """Split `function(params, xs)`, or `function(params, xs, y)` with gradient, over devices.

    Each device differentiates with its own copy of the parameters, and the gradients are summed
    once. Without the `pcast` JAX would sum inside the loop, at every step, which would be unfair to
    a rival.
    """

    def part(params: Any, *arrays: Any) -> Any:
        result = function(jax.lax.pcast(params, BATCH, to="varying"), *arrays)
        return jax.lax.psum(result, BATCH) if gradient else result

    in_specs = (WHOLE, SPLIT, SPLIT) if gradient else (WHOLE, SPLIT)
    out_specs = WHOLE if gradient else SPLIT
    return jax.shard_map(part, mesh=batch_mesh(devices), in_specs=in_specs, out_specs=out_specs)


# --- compilation ---------------------------------------------------------------------------------


def program(
    recurrence: Recurrence, given: Data, gradient: bool, devices: int = 1, each: bool = False
) -> Program:
    """Compile the states or the gradient, of each sequence or split over several devices."""
    params, xs, y = arguments(recurrence, given)
    args: tuple[Any, ...] = (recurrence.own(params), xs)
    function = recurrence.states
    named: Callable[[Any], Any] = partial(_states, recurrence)
    if gradient:
        function, args = cost_and_gradient(recurrence), (*args, y)
        named = partial(gradient_arrays, recurrence, params)
    if each:
        function = jax.vmap(function, in_axes=(None, *(0,) * (len(args) - 1)))
    if devices > 1:
        function, mesh = on_mesh(function, devices, gradient), batch_mesh(devices)
        own, *arrays = args
        split = jax.device_put(arrays, NamedSharding(mesh, SPLIT))
        args = (jax.device_put(own, NamedSharding(mesh, WHOLE)), *split)
    with jrnn_itself.using(recurrence.backend):
        return compile_program(recurrence.label, function, args, named)


def arguments(recurrence: Recurrence, given: Data) -> tuple[Any, jax.Array, jax.Array]:
    """The parameters in the common form, xs and y, in the dtypes of a recurrence."""
    params = jax.tree.map(lambda p: jnp.asarray(p, recurrence.input_dtype), given.params)
    arrays = given.xs, given.y
    if recurrence.batch_first:
        arrays = given.xs.swapaxes(0, 1), given.y.swapaxes(0, 1)
    xs, y = map(jnp.asarray, arrays, (recurrence.input_dtype, recurrence.state_dtype))
    return params, xs, y


def cost_and_gradient(recurrence: Recurrence) -> Callable[..., Any]:
    """A function of (own parameters, xs, y): sum(hs * y) and its gradient in the parameters."""

    def cost(own: Any, xs: Any, y: Any) -> Any:
        return jnp.sum(recurrence.states(own, xs) * y, dtype=jnp.float32)

    return jax.value_and_grad(cost)


def _states(recurrence: Recurrence, hs: Any) -> dict[str, Any]:
    return {"hs": hs.swapaxes(0, 1) if recurrence.batch_first else hs}


def gradient_arrays(recurrence: Recurrence, params: Any, result: Any) -> dict[str, Any]:
    """The gradient in the common form, by the chain rule; those of each sequence are summed."""
    cost, gradient = result
    if cost.ndim:
        gradient = jax.tree.map(lambda g: g.sum(0), gradient)
    (found,) = jax.vjp(recurrence.own, params)[1](gradient)
    return {name: array for name, array in found._asdict().items() if array is not None}


@lru_cache(maxsize=8)
def expected(case: Case, cell: str, kind: str, gradient: bool) -> dict[str, np.ndarray]:
    """The result of a plain scan in full float32: with an activation, `ends` or `vmap-weights`."""
    activation = "relu" if kind == "relu" else "tanh"
    scan = partial(autodiff.naive, cell=autodiff.CELLS[cell][activation])
    one = Recurrence("the reference", partial(scan, ended=ends(case)) if kind == "ends" else scan)
    one = over_weights(one) if kind == "vmap-weights" else one
    with jax.default_matmul_precision("highest"):
        plain = program(one, data(case, cell), gradient)
        return jax.tree.map(np.asarray, plain.arrays(plain.call()))


# --- the measurement -----------------------------------------------------------------------------


def groups(args: argparse.Namespace) -> Iterator[Group]:
    """The groups; a batch that cannot be split as a route asks is printed."""
    for row, route in itertools.product(args.rows, args.routes):
        if args.old and args.all_rows and row not in ROUTES[route]:
            continue
        case = (TOY_CASES if args.toy else CASES)[row]
        devices = jax.device_count() if route == "mesh" else 1
        parts = {"mesh": devices, "vmap-weights": len(MEMBERS)}.get(route, 1)
        if case.B % parts or (route, devices) == ("mesh", 1):
            print(f"row {row}: no {route}, {parts} parts do not split a batch of {case.B}")
            continue
        for gradient, dtype in itertools.product((False, True), args.dtypes):
            left_out = dtype == "bfloat16" and route in ("ends", "remat") and not args.old
            if not left_out and (gradient or route != "vmap-grad"):
                yield Group(row, case, route, dtype, gradient, args.cell, devices)


def measure_group(
    args: argparse.Namespace, group: Group, old: Any = None, without: Container[str] = ()
) -> list[dict[str, Any]]:
    """Compare the programs of a group, then time them in turn; not those named in `without`."""
    case, gradient, given = group.case, group.gradient, data(group.case, group.cell)
    found: dict[str, Recurrence] = {}
    for one in recurrences(case, group.route, group.dtype, args.rivals, group.cell, old):
        params, xs, _ = arguments(one, given)
        names = jrnn_itself.computing(one.states, (one.own(params), xs), args.backends)
        found |= {(r := one._replace(backend=b)).label: r for b in names if one.name not in without}
    own = [name for name, r in found.items() if r.name == "jrnn"]
    if not own:
        report.say(f"{group}: left out, since {', '.join(args.backends)} does not compute it")
        return []
    each = group.route == "vmap-grad"
    programs = [program(r, given, gradient, group.devices, each) for r in found.values()]
    if "torch" in args.rivals and (group.route, group.dtype) == ("batch", "float32"):
        programs += load("torch").programs(case, given, gradient, cell=group.cell)
        found["torch"] = Recurrence("torch", lambda params, xs: None)
    errors = {}
    for p in programs:
        r = found[p.name]
        kind = group.route if group.route == "vmap-weights" else "ends" if r.ends else r.activation
        bound = tolerance(group.dtype, kind)
        if group.dtype == "bfloat16" and r.name in ("jrnn", "old") and bound == ROUNDED_TOLERANCE:
            bound = MIXED_TOLERANCE
        errors[p.name] = max(compare(p, expected(case, group.cell, kind, gradient), bound).values())
    times, flops_per_second = time_beside_matmul(programs, args.rounds, args.toy)
    said = ", ".join(f"{name} {1e3 * times[name].minimum:.2f} ms" for name in own)
    fastest = min(programs, key=lambda p: times[p.name].minimum)
    report.say(f"{group}: {said}, fastest {fastest.name}")
    return [
        group._asdict()
        | {
            "case": list(case),
            "program": found[p.name].name,
            "backend": found[p.name].backend,
            "activation": found[p.name].activation,
            **figures(p, times[p.name]),
            "floor_ms": 1e3 * case.flops(gradient, group.cell) / flops_per_second,
            "matmul_gflops": flops_per_second / 1e9,
            "error": errors[p.name],
        }
        for p in programs
    ]


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One record per row, route, dtype, pass and program."""
    use_cpu_cores(args.devices)
    args.backends = ["xla"] if args.old else jrnn_itself.wanted(args.backends)
    for name in args.rivals:
        load(name)
    records = []
    with jrnn_itself.using("xla" if args.old else None), loaded(args.old) as old:
        for group in report.progress(list(groups(args)), str):
            for _ in range(REPEATS):  # compiled anew: noise is seldom the same three times
                found = measure_group(args, group, old)
                if not worse(found):
                    break
            records += found
    if not records:
        refuse("the options", "a row that can be measured", "none", "The lines above say why.")
    return records


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser(__doc__, "kernel", RIVALS, rounds=9)
    parser.set_defaults(rivals=None)
    parser.add_argument("--cell", choices=CELLS, default="rnn")
    what = "(None: batch, vmap, ends, and mesh with several devices; with --old: all)"
    parser.add_argument("--routes", nargs="+", choices=ROUTES, help=what)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    what = "of jrnn; ratios are over the first (None: native, if it can run here, and xla)"
    parser.add_argument("--backends", nargs="+", choices=jrnn_itself.BACKENDS, help=what)
    what = "a git revision, or a directory that holds jrnn/"
    parser.add_argument("--old", metavar="REV", help=what)
    args = report.parse(parser, argv, list(CASES), list(TOY_CASES))
    args.rivals = args.rivals or ([] if args.old else RIVALS)
    # One of n devices has its share of the cores.
    args.devices = args.devices or (min(2, cores()) if args.old else 1)
    usual = ROUTES if args.old else ["batch", "vmap", "mesh", "ends"]
    args.routes = args.routes or [r for r in usual if r != "mesh" or args.devices > 1]
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 after bad input or if this version is worse than --old."""
    return report.run("kernel", parse(argv), measure, report.kernel_tables, worse)


if __name__ == "__main__":
    sys.exit(main())
