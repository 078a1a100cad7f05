"""Measure the recurrence: its states, and the gradient of sum(hs * y) in its parameters.

    python -m benchmarks.kernel                          # batch, vmap and ends
    python -m benchmarks.kernel --devices 2 --routes mesh
    python -m benchmarks.kernel --cell lstm              # or gru

batch   a batch [T, B, I], on one device
vmap    `jax.vmap` of one sequence over [B, T, I], and jrnn's own batch with the axes swapped
mesh    the batch split over devices by `jax.shard_map`; the gradient is summed at the end
ends    a batch with and without lengths and resets, in float32
remat   a batch with and without `remat=True`, in float32: of h_last, and jrnn alone

A rival whose result is wrong is left out. On a CPU, jrnn is measured with each backend that
computes the call, the native kernel and XLA; ratios are over the first.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import machine, report
from benchmarks.cases import CASES, CELLS, TOY_CASES, Case, Group, data, ends
from benchmarks.measuring import Program, compare, compile_program, time_beside_matmul, tolerance
from benchmarks.report import Results
from benchmarks.rivals import NAMES, Recurrence, autodiff, jrnn_itself, load
from jrnn import native
from jrnn.parallel import BATCH, batch_mesh, use_cpu_cores

ROUTES = ["batch", "vmap", "mesh", "ends", "remat"]
DTYPES = ["float32", "bfloat16"]
DEVICE = [  # the groups of `benchmarks.device`, in the order of their worth
    *(Group(CASES[row]) for row in (2, 1, 4, 3, 5, 6)),  # nearly a matmul last
    *(Group(CASES[row], cell=cell) for row in (2, 1) for cell in ("lstm", "gru")),
    *(Group(CASES[row], dtype="bfloat16") for row in (2, 1)),
    *(Group(CASES[row], gradient=False) for row in (2, 1)),
    *(Group(CASES[2], dtype="bfloat16", cell=cell) for cell in ("lstm", "gru")),
    Group(CASES[2], "vmap"),
]
TOY_DEVICE = [Group(TOY_CASES[1], cell=cell) for cell in ("rnn", "lstm")]


# --- the compared programs -----------------------------------------------------------------------


def recurrences(group: Group, rivals: list[str]) -> list[Recurrence]:
    """The programs of jrnn and of the rivals, but torch."""
    own = jrnn_itself.recurrences(group)
    libraries = [name for name in rivals if name != "torch"]
    scans = [name for name in rivals if name == "autodiff" and group.route != "remat"]
    names = libraries if group.has_libraries else scans
    found = own + [one for name in names for one in load(name).recurrences(group)]
    if group.route != "vmap":
        return found

    def of_batch(params: Any, xs: Any) -> Any:  # on the same batch-first arrays
        return own[0].states(params, xs.swapaxes(0, 1)).swapaxes(0, 1)

    batch = own[0]._replace(name="jrnn batch", states=of_batch, batch_first=True)
    mapped = [o._replace(states=jax.vmap(o.states, (None, 0)), batch_first=True) for o in found]
    return [batch, *mapped]


def on_mesh(group: Group, function: Callable[..., Any], args: Any) -> tuple[Any, Any]:
    """Split a function of parameters and arrays [T, B, ...] over devices; return its arguments too.

    Each device differentiates with its own copy of the parameters, and the gradients are summed
    once. Without the `pcast` JAX would sum inside the loop, at every step, which would be unfair to
    a rival.
    """

    def part(params: Any, *arrays: Any) -> Any:
        result = function(jax.lax.pcast(params, BATCH, to="varying"), *arrays)
        return jax.lax.psum(result, BATCH) if group.gradient else result

    mesh, whole, split = batch_mesh(), PartitionSpec(), PartitionSpec(None, BATCH)
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
    if group.route == "mesh":
        function, args = on_mesh(group, function, args)
    with native.turned(one.backend == "native"):
        return compile_program(one.label, function, args, partial(common, one, params))


def arguments(group: Group, one: Recurrence) -> tuple[Any, jax.Array, jax.Array]:
    """The parameters in the common form, xs and y, in the axes and dtypes of a recurrence."""
    params, *arrays = data(group.case, group.cell)
    if one.batch_first:
        arrays = [x.swapaxes(0, 1) for x in arrays]
    if group.route == "remat":
        arrays[1] = arrays[1][-1:]
    xs, y = map(jnp.asarray, arrays, (jnp.float32, one.dtype))
    return jax.tree.map(jnp.asarray, params), xs, y


def cost_and_gradient(one: Recurrence) -> Callable[..., Any]:
    """A function of (own parameters, xs, y): sum(hs * y) and its gradient in the parameters."""

    def cost(own: Any, xs: Any, y: Any) -> Any:
        return jnp.sum(one.states(own, xs) * y, dtype=jnp.float32)

    return jax.value_and_grad(cost)


def common(one: Recurrence, params: Any, result: Any) -> dict[str, Any]:
    """States, or the gradient by the chain rule."""
    if not isinstance(result, tuple):
        return {"hs": result.swapaxes(0, 1) if one.batch_first else result}
    (found,) = jax.vjp(one.own, params)[1](result[1])
    return {name: array for name, array in found._asdict().items() if array is not None}


@lru_cache(maxsize=8)
def expected(case: Case, cell: str, kind: str, gradient: bool) -> dict[str, np.ndarray]:
    """The result of a plain scan in full float32, of a `Recurrence.kind`."""
    scan = partial(autodiff.SCANS["naive"], cell="relu" if kind == "relu" else cell)
    one = Recurrence("the reference", partial(scan, **ends(case)) if kind == "ends" else scan)
    route = "batch"
    if kind == "remat":
        one, route = one._replace(states=lambda *given: scan(*given)[-1:]), "remat"
    with jax.default_matmul_precision("highest"):
        plain = program(Group(case, route, gradient=gradient, cell=cell), one)
        return jax.tree.map(np.asarray, plain.arrays(plain.call()))


# --- the measurement -----------------------------------------------------------------------------


def groups(args: argparse.Namespace) -> Iterator[Group]:
    """The groups that the options name."""
    if args.device:
        yield from TOY_DEVICE if args.toy else DEVICE
        return
    rows = args.rows or (TOY_CASES if args.toy else CASES)
    for row, route in itertools.product(rows, args.routes):
        case = TOY_CASES[min(row, 2)] if args.toy else CASES[row]
        for gradient, dtype in itertools.product((False, True), args.dtypes):
            if dtype == "float32" or route not in ("ends", "remat"):
                yield Group(case, route, dtype, gradient, args.cell)


def measure_group(args: argparse.Namespace, group: Group, rivals: list[str]) -> Results:
    """Compare the programs of a group, then time them in turn.

    A rival whose result is wrong is left out, with a line.
    """
    programs = []
    for one in recurrences(group, rivals):
        params, xs, _ = arguments(group, one)
        of_backends = jrnn_itself.backends(one, (one.own(params), xs))
        found = [one._replace(backend=name) for name in of_backends]
        programs += [(program(group, one), one) for one in found]
    if "torch" in rivals and group.has_libraries:
        torch = Recurrence("torch", lambda params, xs: None)
        programs.append((load("torch").program(group), torch))
    right, errors = [], {}
    for p, one in programs:
        expects = expected(group.case, group.cell, one.kind, group.gradient)
        try:
            errors[p.name] = compare(p, expects, tolerance(group.dtype, one.kind))
            right.append((p, one))
        except ValueError as error:
            if one.name.startswith("jrnn"):
                raise
            yield f"{group}: {error}"
    seconds, speed = time_beside_matmul([p for p, _ in right], args.rounds, args.toy)
    what = "gradient" if group.gradient else "forward"
    for p, one in right:
        values = {"ms": 1e3 * min(seconds[p.name]), **p.costs, "error": errors[p.name]}
        titled = {f"{what} {title}": value for title, value in values.items()}
        over = "jrnn relu" if one.kind == "relu" else "jrnn"
        key = group.key() | {"program": one.name, "label": one.label, "over": over}
        yield key | {"values": titled, "median_ms": 1e3 * median(seconds[p.name])}
    floor = {f"{what} ms": 1e3 * group.flops() / speed}
    yield group.key() | {"program": "matmul floor", "values": floor}


def results(args: argparse.Namespace) -> Results:
    """The results of all groups."""
    use_cpu_cores(args.devices)
    yield f"{machine.description()} {args.rounds} rounds."
    tasks = {str(group): partial(measure_group, args, group) for group in groups(args)}
    yield from report.in_order(tasks, args.rivals, args.minutes)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser("kernel", __doc__, list(CASES), NAMES, rounds=9)
    add = parser.add_argument
    add("--cell", choices=CELLS, default="rnn")
    add("--devices", type=report.positive, default=1, help="CPU cores that become devices")
    add("--routes", nargs="+", choices=ROUTES, default=["batch", "vmap", "ends"])
    add("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    add("--device", action="store_true", help="the groups of benchmarks.device")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(report.run(parse(), results))
