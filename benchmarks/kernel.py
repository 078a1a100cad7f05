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
remat         a batch with and without `remat=True`, in float32: of h_last, and jrnn alone

A rival whose result is wrong is left out. On a CPU, jrnn is measured with each backend that
computes the call, the native kernel and XLA. With `--old` both versions run XLA's loops. The older
one is compiled twice: the ratio of its two programs is noise, and the exit status is 1 if the new
one is slower by more, or needs more memory.
"""

import argparse
import contextlib
import itertools
import sys
from collections.abc import Callable, Container, Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import report
from benchmarks.cases import CASES, CELLS, TOY_CASES, Case, Group, data, ends
from benchmarks.measuring import (
    Program,
    compare,
    compile_program,
    time_beside_matmul,
    tolerance,
)
from benchmarks.report import Record, Results, Tasks
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
DEVICE = [  # the groups of `benchmarks.device`, in the order of their worth
    *(Group(row, CASES[row]) for row in (2, 1, 4, 3, 5, 6)),  # nearly a matmul last
    *(Group(row, CASES[row], cell=cell) for row in (2, 1) for cell in ("lstm", "gru")),
    *(Group(row, CASES[row], dtype="bfloat16") for row in (2, 1)),
    *(Group(row, CASES[row], gradient=False) for row in (2, 1)),
    *(Group(2, CASES[2], dtype="bfloat16", cell=cell) for cell in ("lstm", "gru")),
    Group(2, CASES[2], "vmap"),
]
TOY_DEVICE = [Group(1, TOY_CASES[1], cell=cell) for cell in ("rnn", "lstm")]


# --- the compared programs -----------------------------------------------------------------------


def recurrences(group: Group, rivals: list[str], old: Any = None) -> list[Recurrence]:
    """The programs of jrnn and of the rivals, but torch."""
    own = jrnn_itself.recurrences(group)
    scans = "autodiff" in rivals and group.route != "remat"
    others = autodiff.recurrences(group) if scans else []
    if group.has_libraries:
        libraries = [name for name in rivals if name not in ("autodiff", "torch")]
        others += [r for name in libraries for r in load(name).recurrences(group)]
        if any(r.kind == "relu" for r in others):
            own.append(jrnn_itself.RELU)
    if old is not None:
        own = own[:1]
        names = "old", "old again"
        others += [jrnn_itself.recurrences(group, old, name)[0] for name in names]
    found = [*own, *others]
    if group.route in ("vmap", "vmap-grad"):
        found = [one._replace(batch_first=True) for one in found]
    if group.route == "vmap":
        mapped = (one._replace(states=jax.vmap(one.states, (None, 0))) for one in found)
        return [with_swapped_axes(own[0]), *mapped]
    return [over_weights(one) for one in found] if group.route == "vmap-weights" else found


def with_swapped_axes(one: Recurrence) -> Recurrence:
    """Run a batch on the same batch-first arrays as under `vmap`."""

    def states(params: Any, xs: Any) -> Any:
        return one.states(params, xs.swapaxes(0, 1)).swapaxes(0, 1)

    return one._replace(name=f"{one.name} batch", states=states, batch_first=True)


def over_weights(one: Recurrence) -> Recurrence:
    """`MEMBERS`, of which each reads its part of the batch."""

    def own(params: Any) -> Any:
        members = MEMBERS.astype(one.input_dtype)
        return jax.tree.map(lambda p: jnp.multiply.outer(members, p), one.own(params))

    def states(params: Any, xs: Any) -> Any:
        T, B, I = xs.shape
        parts = xs.reshape(T, len(MEMBERS), B // len(MEMBERS), I)
        return jax.vmap(one.states, (0, 1), 1)(params, parts).reshape(T, B, -1)

    return one._replace(own=own, states=states, kind="vmap-weights")


def on_mesh(group: Group, function: Callable[..., Any], args: Any) -> tuple[Any, Any]:
    """Split a function of parameters and arrays [T, B, ...] over devices; return its arguments too.

    Each device differentiates with its own copy of the parameters, and the gradients are summed
    once. Without the `pcast` JAX would sum inside the loop, at every step, which would be unfair to
    a rival.
    """

    def part(params: Any, *arrays: Any) -> Any:
        result = function(jax.lax.pcast(params, BATCH, to="varying"), *arrays)
        return jax.lax.psum(result, BATCH) if group.gradient else result

    mesh, whole, split = batch_mesh(group.devices), PartitionSpec(), PartitionSpec(None, BATCH)
    specs = whole, *(split for _ in args[1:])
    out_specs = whole if group.gradient else split
    on_all = jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=out_specs)
    return on_all, jax.device_put(args, tuple(NamedSharding(mesh, spec) for spec in specs))


# --- compilation ---------------------------------------------------------------------------------


def program(group: Group, one: Recurrence) -> Program:
    """Compile the states or the gradient, of each sequence or split over several devices."""
    params, xs, y = arguments(group, one)
    function: Callable[..., Any] = one.states
    args: tuple[Any, ...] = one.own(params), xs
    if group.gradient:
        function, args = cost_and_gradient(one), (*args, y)
    if group.route == "vmap-grad":
        function = jax.vmap(function, in_axes=(None, 0, 0))
    if group.devices > 1:
        function, args = on_mesh(group, function, args)
    with jrnn_itself.using(one.backend):
        return compile_program(one.label, function, args, partial(common, one, params))


def arguments(group: Group, one: Recurrence) -> tuple[Any, jax.Array, jax.Array]:
    """The parameters in the common form, xs and y, in the dtypes of a recurrence."""
    params, *arrays = data(group.case, group.cell)
    if one.batch_first:
        arrays = [x.swapaxes(0, 1) for x in arrays]
    if group.route == "remat":
        arrays[1] = arrays[1][-1:]
    xs, y = map(jnp.asarray, arrays, (one.input_dtype, one.state_dtype))
    return jax.tree.map(lambda p: jnp.asarray(p, one.input_dtype), params), xs, y


def cost_and_gradient(one: Recurrence) -> Callable[..., Any]:
    """A function of (own parameters, xs, y): sum(hs * y) and its gradient in the parameters."""

    def cost(own: Any, xs: Any, y: Any) -> Any:
        return jnp.sum(one.states(own, xs) * y, dtype=jnp.float32)

    return jax.value_and_grad(cost)


def common(one: Recurrence, params: Any, result: Any) -> dict[str, Any]:
    """States, or the gradient by the chain rule; those of each sequence are summed."""
    if not isinstance(result, tuple):
        return {"hs": result.swapaxes(0, 1) if one.batch_first else result}
    cost, gradient = result
    if cost.ndim:
        gradient = jax.tree.map(lambda g: g.sum(0), gradient)
    (found,) = jax.vjp(one.own, params)[1](gradient)
    return {name: array for name, array in found._asdict().items() if array is not None}


@lru_cache(maxsize=8)
def expected(case: Case, cell: str, kind: str, gradient: bool) -> dict[str, np.ndarray]:
    """The result of a plain scan in full float32, of a `Recurrence.kind`."""
    scan = partial(autodiff.naive, cell=autodiff.CELLS[cell]["relu" if kind == "relu" else "tanh"])
    one = Recurrence("the reference", partial(scan, **ends(case)) if kind == "ends" else scan)
    one = over_weights(one) if kind == "vmap-weights" else one
    if kind == "remat":
        one = one._replace(states=lambda params, xs: scan(params, xs)[-1:])
    route = "remat" if kind == "remat" else "batch"
    with jax.default_matmul_precision("highest"):
        plain = program(Group("", case, route, gradient=gradient, cell=cell), one)
        return jax.tree.map(np.asarray, plain.arrays(plain.call()))


# --- the measurement -----------------------------------------------------------------------------


def groups(args: argparse.Namespace) -> Iterator[Group]:
    """The groups; a batch that cannot be split as a route asks is printed."""
    if args.device:
        yield from TOY_DEVICE if args.toy else DEVICE
        return
    rows = args.rows or (TOY_CASES if args.toy else CASES)
    for row, route in itertools.product(rows, args.routes):
        if args.old and not args.rows and row not in ROUTES[route]:
            continue
        case = TOY_CASES[min(row, 2)] if args.toy else CASES[row]
        devices = jax.device_count() if route == "mesh" else 1
        parts = {"mesh": devices, "vmap-weights": len(MEMBERS)}.get(route, 1)
        if case.B % parts or (route, devices) == ("mesh", 1):
            report.say(f"row {row}: no {route}, {parts} parts do not split a batch of {case.B}")
            continue
        for gradient, dtype in itertools.product((False, True), args.dtypes):
            left_out = dtype == "bfloat16" and route in ("ends", "remat") and not args.old
            if not left_out and (gradient or route != "vmap-grad"):
                yield Group(row, case, route, dtype, gradient, args.cell, devices)


def measure_group(
    args: argparse.Namespace,
    group: Group,
    rivals: list[str],
    old: Any = None,
    without: Container[str] = (),
) -> Results:
    """Compare the programs of a group, then time them in turn; not those named in `without`.

    A rival whose result is wrong is left out, with a line.
    """
    found: list[Recurrence] = []
    for one in recurrences(group, rivals, old):
        params, xs, _ = arguments(group, one)
        names = jrnn_itself.computing(one.states, (one.own(params), xs), args.backends)
        found += [one._replace(backend=name) for name in names if one.name not in without]
    if not any(one.name == "jrnn" for one in found):
        yield f"{group}: left out, since {', '.join(args.backends)} does not compute it"
        return
    programs = [program(group, one) for one in found]
    if "torch" in rivals and group.has_libraries:
        programs.append(load("torch").program(group))
        found.append(Recurrence("torch", lambda params, xs: None))
    right, errors = [], {}
    for p, one in zip(programs, found, strict=True):
        mixed = group.dtype == "bfloat16" and one.name in ("jrnn", "old")
        bound = MIXED_TOLERANCE if mixed else tolerance(group.dtype, one.kind)
        expects = expected(group.case, group.cell, one.kind, group.gradient)
        try:
            errors[p.name] = max(compare(p, expects, bound).values())
            right.append((p, one))
        except ValueError as error:
            if one.name.startswith(("jrnn", "old")):
                raise
            yield f"{group}: {error}"
    measured, flop_per_ms = time_beside_matmul([p for p, _ in right], args.rounds, args.toy)
    for p, one in right:
        values = measured[p.name] | {"error": errors[p.name], "backend": one.backend}
        over = "jrnn relu" if one.kind == "relu" else "jrnn"
        yield group.key() | values | {"program": one.name, "label": one.label, "over": over}
    floor = {"minimum_ms": group.flops() / flop_per_ms, "matmul_gflops": flop_per_ms / 1e6}
    yield group.key() | {"program": "matmul floor"} | floor


def measure_again(args: argparse.Namespace, group: Group, old: Any, rivals: list[str]) -> Results:
    """Measure a group, and again if it is worse: noise is seldom the same three times."""
    for _ in range(REPEATS):
        found = list(measure_group(args, group, rivals, old))
        if not worse([r for r in found if isinstance(r, dict)]):
            break
    yield from found


def tasks(stack: contextlib.ExitStack, args: argparse.Namespace) -> Tasks:
    """A task for each group."""
    use_cpu_cores(args.devices)
    args.backends = ["xla"] if args.old else jrnn_itself.wanted(args.backends)
    stack.enter_context(jrnn_itself.using("xla" if args.old else None))
    old = stack.enter_context(loaded(args.old))
    found = {str(group): partial(measure_again, args, group, old) for group in groups(args)}
    if not found:
        refuse("the options", "a row that can be measured", "none", "The lines above say why.")
    return found


def faults(records: list[Record]) -> list[str]:
    """Where jrnn is worse than an older version."""
    return worse(records) if records else ["no row was measured: lines of the page say why"]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser("kernel", __doc__, list(CASES), RIVALS, rounds=9)
    add = parser.add_argument
    parser.set_defaults(rivals=None)
    add("--cell", choices=CELLS, default="rnn")
    what = "(None: batch, vmap, ends, and mesh with several devices; with --old: all)"
    add("--routes", nargs="+", choices=ROUTES, help=what)
    add("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    what = "of jrnn; ratios are over the first (None: native, if it can run here, and xla)"
    add("--backends", nargs="+", choices=jrnn_itself.BACKENDS, help=what)
    add("--old", metavar="REV", help="a git revision, or a directory that holds jrnn/")
    add("--device", action="store_true", help="the groups of benchmarks.device")
    args = report.parse(parser, argv)
    if args.rivals is None:
        args.rivals = [] if args.old else RIVALS
    # One of n devices has its share of the cores.
    args.devices = args.devices or (min(2, cores()) if args.old else 1)
    usual = ROUTES if args.old else ["batch", "vmap", "mesh", "ends"]
    args.routes = args.routes or [r for r in usual if r != "mesh" or args.devices > 1]
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 after bad input or if this version is worse than --old."""
    args = parse(argv)
    with contextlib.ExitStack() as stack:
        return report.run("kernel", args, partial(tasks, stack), faults)


if __name__ == "__main__":
    sys.exit(main())
