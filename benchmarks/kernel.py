"""Measure the recurrence: its states, and the gradient of sum(hs * y) in its parameters.

    python -m benchmarks.kernel                                  # all but the mesh
    python -m benchmarks.kernel --devices 2 --routes mesh --out out/mesh
    python -m benchmarks.kernel --rows 2 4 --routes batch --dtypes float32 --rivals autodiff
    python -m benchmarks.kernel --backends xla native            # ratios over jrnn's by XLA
    python -m benchmarks.kernel --cell lstm --out out/lstm       # or gru

batch   a batch [T, B, I], on one device
vmap    `jax.vmap` of one sequence over [B, T, I], and jrnn's own batch with the axes swapped
mesh    the batch split over devices by `jax.shard_map`; the gradient is summed at the end
ends    a batch with and without lengths and resets, in float32

On a CPU, jrnn is measured with each backend that computes the call, the native kernel and XLA.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import backends, claims, report
from benchmarks.cases import CASES, CELLS, TOY_CASES, Case, Data, data, ends
from benchmarks.measuring import (
    Program,
    Times,
    compare,
    compile_program,
    figures,
    matmul_program,
    matmul_size,
    time_in_turn,
    tolerance,
)
from benchmarks.mesh import on_mesh, split_batch
from benchmarks.rivals import Recurrence, autodiff, jrnn_itself, load
from jrnn.checks import refuse
from jrnn.parallel import use_cpu_cores

RIVALS = ["autodiff", "flax", "haiku", "keras", "torch"]
ROUTES = ["batch", "vmap", "mesh", "ends"]
DTYPES = ["float32", "bfloat16"]


# --- the compared programs -----------------------------------------------------------------------


def recurrences(
    case: Case, route: str, dtype: str, rivals: list[str], cell: str = "rnn"
) -> list[Recurrence]:
    """The programs of jrnn and the rivals for one route; libraries only in `batch`."""
    plain = "autodiff" in rivals
    if route == "ends":
        others = autodiff.recurrences_with_ends(case, cell) if plain else []
        return jrnn_itself.recurrences_with_ends(case, cell) + others
    if dtype == "bfloat16":
        own = jrnn_itself.recurrences_bfloat16(case, cell)
        others = autodiff.recurrences_bfloat16(case, cell) if plain else []
    else:
        others = autodiff.recurrences(case, cell) if plain else []
        if route == "batch":
            libraries = [name for name in rivals if name not in ("autodiff", "torch")]
            others += [r for name in libraries for r in load(name).recurrences(case, cell)]
            others += jrnn_itself.recurrences_of_a_user(case, cell)
        relu = any(r.activation == "relu" for r in others)
        own = jrnn_itself.recurrences(case, relu, cell)
    if route == "vmap":
        return [with_swapped_axes(own[0]), *map(under_vmap, own + others)]
    return own + others


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


def by_backend(one: Recurrence, given: Data, names: list[str]) -> list[Recurrence]:
    """A recurrence of jrnn for each of these backends that computes it; a rival's as it is."""
    own, xs, _ = arguments(one, given)
    return [one._replace(backend=b) for b in backends.computing(one.states, (own, xs), names)]


# --- compilation ---------------------------------------------------------------------------------


def program(
    recurrence: Recurrence,
    given: Data,
    gradient: bool,
    devices: int,
    over: Callable[[Any], Any] = lambda function: function,
) -> Program:
    """Compile `over` of the states or of the gradient, on one device or split over several."""
    own, xs, y = arguments(recurrence, given)
    function = over(cost_and_gradient(recurrence) if gradient else recurrence.states)
    args = (own, xs, y) if gradient else (own, xs)
    if devices > 1:
        function, args = on_mesh(function, devices, gradient), split_batch(args, devices)
    named = partial(gradient_arrays if gradient else _states, recurrence)
    with backends.using(recurrence.backend):
        return compile_program(recurrence.label, function, args, named)


def arguments(recurrence: Recurrence, given: Data) -> tuple[Any, jax.Array, jax.Array]:
    """The parameters, xs and y in the form of a recurrence."""
    params = jax.tree.map(lambda p: jnp.asarray(p, recurrence.input_dtype), given.params)
    arrays = given.xs, given.y
    if recurrence.batch_first:
        arrays = given.xs.swapaxes(0, 1), given.y.swapaxes(0, 1)
    xs, y = map(jnp.asarray, arrays, (recurrence.input_dtype, recurrence.state_dtype))
    return recurrence.own(params), xs, y


def cost_and_gradient(recurrence: Recurrence) -> Callable[..., Any]:
    """A function of (parameters, xs, y): sum(hs * y) and its gradient in the parameters."""

    def cost(own: Any, xs: Any, y: Any) -> Any:
        return jnp.sum(recurrence.states(own, xs) * y, dtype=jnp.float32)

    return jax.value_and_grad(cost)


def _states(recurrence: Recurrence, hs: Any) -> dict[str, Any]:
    return {"hs": hs.swapaxes(0, 1) if recurrence.batch_first else hs}


def gradient_arrays(recurrence: Recurrence, result: Any) -> dict[str, Any]:
    """The gradient, with the common names of the parameters."""
    found = recurrence.common(result[1])._asdict()
    return {name: array for name, array in found.items() if array is not None}


def references(
    case: Case, given: Data, gradient: bool, cell: str = "rnn"
) -> dict[str, dict[str, np.ndarray]]:
    """References for all results: plain scans in full float32."""
    kinds = autodiff.CELLS[cell]
    scans: dict[str, Callable[..., Any]] = {
        name: partial(autodiff.naive, cell=kind) for name, kind in kinds.items()
    }
    scans["ends"] = partial(autodiff.masked, ends(case), cell=kinds["tanh"], hoist=False)
    return {name: reference(given, scan, gradient) for name, scan in scans.items()}


def reference(given: Data, scan: Callable[..., Any], gradient: bool) -> dict[str, np.ndarray]:
    """The reference result of one scan."""
    recurrence = Recurrence("the reference", scan)
    with jax.default_matmul_precision("highest"):
        plain = program(recurrence, given, gradient, 1)
        return jax.tree.map(np.asarray, plain.arrays(plain.call()))


# --- the measurement -----------------------------------------------------------------------------


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield one record per row, route, dtype, pass and program."""
    cases = TOY_CASES if args.toy else CASES
    for number in args.rows:
        case = cases[number]
        for gradient in (False, True):
            given = data(case, args.cell)
            expected = references(case, given, gradient, args.cell)
            for dtype in args.dtypes:
                for route in args.routes:
                    if route == "mesh" and left_out(number, case):
                        continue
                    if (route, dtype) == ("ends", "bfloat16"):
                        continue
                    key = {"row": number, "route": route, "dtype": dtype, "gradient": gradient}
                    yield from measure_group(args, case, given, expected, key)


def left_out(number: int, case: Case) -> bool:
    """Whether the devices cannot split the batch; prints a message if so."""
    devices = jax.device_count()
    if devices > 1 and case.B % devices == 0:
        return False
    print(f"row {number}: no mesh, {devices} device(s) do not split a batch of {case.B}")
    return True


def measure_group(
    args: argparse.Namespace, case: Case, given: Data, expected: Any, key: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Compare the programs of one table row, then time them in turn."""
    gradient, dtype = key["gradient"], key["dtype"]
    title = f"row {key['row']} ({case}) {key['route']} {dtype}"
    devices = jax.device_count() if key["route"] == "mesh" else 1
    found = [
        recurrence
        for one in recurrences(case, key["route"], dtype, args.rivals, args.cell)
        for recurrence in by_backend(one, given, args.backends)
    ]
    own = [r.label for r in found if r.name == "jrnn"]
    if not own:
        print(f"{title}: left out, since {', '.join(args.backends)} does not compute it")
        return
    programs = [program(r, given, gradient, devices) for r in found]
    if "torch" in args.rivals and (key["route"], dtype) == ("batch", "float32"):
        programs += load("torch").programs(case, given, gradient, cell=args.cell)
    kinds = {r.label: "ends" if r.ends else r.activation for r in found}
    errors = {
        p.name: compare(p, expected[kind], tolerance(dtype, kind))
        for p in programs
        for kind in [kinds.get(p.name, "tanh")]
    }
    times, flops_per_second = time_beside_matmul(programs, args.rounds, args.toy)
    names = {r.label: (r.name, r.backend, r.activation) for r in found}
    for p in programs:
        name, backend, activation = names.get(p.name, (p.name, None, "tanh"))
        yield key | {
            "case": list(case),
            "devices": devices,
            "program": name,
            "backend": backend,
            "activation": activation,
            **figures(p, times[p.name]),
            "floor_ms": 1e3 * case.flops(gradient, args.cell) / flops_per_second,
            "matmul_gflops": flops_per_second / 1e9,
            "error": max(errors[p.name].values()),
        }
    fastest = min(programs, key=lambda p: times[p.name].minimum)
    said = ", ".join(f"{name} {1e3 * times[name].minimum:.2f} ms" for name in own)
    what = "forward + backward" if gradient else "forward"
    print(f"{title} {what}: {said}, fastest {fastest.name}", flush=True)


def time_beside_matmul(
    programs: list[Program], rounds: int, toy: bool, left: Callable[[], float] = lambda: np.inf
) -> tuple[dict[str, Times], float]:
    """Time programs in turn with a large matmul; return times and its FLOP per second."""
    size = matmul_size(toy)
    matmul = matmul_program(size)
    times = time_in_turn([matmul, *programs], rounds, left)
    return times, 2 * size**3 / times[matmul.name].minimum


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser(__doc__, "kernel", RIVALS, rounds=9)
    parser.set_defaults(devices=1)  # one of n devices has its share of the cores
    parser.add_argument("--cell", choices=CELLS, default="rnn")
    what = "(None: all, mesh only with several devices)"
    parser.add_argument("--routes", nargs="+", choices=ROUTES, help=what)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    what = "of jrnn; ratios are over the first (None: native, if it can run here, and xla)"
    parser.add_argument("--backends", nargs="+", choices=backends.BACKENDS, help=what)
    args = report.parse(parser, argv, list(CASES), list(TOY_CASES))
    args.routes = args.routes or [r for r in ROUTES if r != "mesh" or args.devices > 1]
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 after bad input."""
    args = parse(argv)
    try:
        use_cpu_cores(args.devices)
        args.backends = backends.wanted(args.backends)
        for name in args.rivals:
            load(name)
        records = list(measure(args))
        if not records:
            refuse("the options", "a row that can be measured", "none", "The lines above say why.")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report.write_kernel(args, records, claims.of_kernel(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
