"""Compare values and gradients on the device with NumPy in float64 on the host.

Compilers have bugs: in jax issue 40362 the bias in a loop lost a factor on some GPUs. So every cell
of the package is compiled here for this device, in the forms in which users call it. Every output
and every cotangent is compared, at the highest and at the default precision of matmuls.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from benchmarks.cases import Case
from benchmarks.device.runner import Context, words

# The oracle of the tests: NumPy loops over sequences and steps, without the package.
sys.path.insert(0, str(Path(__file__).parents[2] / "tests/kernel"))
oracle: Any = importlib.import_module("oracle")

# Bits of the operands of a float32 matmul by default: TF32 on a GPU, bfloat16 on a TPU.
DEFAULT_BITS = {"cpu": 24, "gpu": 11, "tpu": 8}
BFLOAT16_BITS = 8
FULL = Case(70, 16, 40, 128)  # with full tiles of a device
SMALL = Case(21, 3, 5, 7)  # with partial ones
TOY = Case(6, 2, 3, 4)
TINY = 1e-30  # a divisor for a bound of 0
AT_ONCE = 8  # checks: nothing is timed, and nearly all of the time is compilation
BIASES, UNIT = ("b_h", "b_hn"), ("alpha", "log_tau")
FACTOR = 12  # of what moved runs of the oracle differ by
RUNS = 4  # of the oracle, for a bound
UNITS = 4  # of the last digit, that are allowed in any case


class Cell(NamedTuple):
    """A cell of the package, and of the oracle."""

    name: str
    init: Callable[..., Any]  # (key, I, H) -> parameters
    # (parameters, xs, state, lengths, resets, reset_state, recurrent_mask, **options)
    run: Callable[..., Any]  # -> (last state, hs)
    right: Any
    state: Callable[..., Any] = lambda h: h  # of its arrays


LEAKY, RATE = oracle.CELLS["leaky"], oracle.CELLS["rate"]
FIXED = partial(jrnn.init_leaky, alpha=0.5)
LEARNED = partial(jrnn.init_leaky, alpha=0.5, learned=True)
OF_INPUT = partial(jrnn.leaky, leak="input")
CELLS = [
    Cell("rnn", jrnn.init_rnn, jrnn.rnn, oracle.elman("tanh")),
    Cell("lstm", jrnn.init_lstm, jrnn.lstm, oracle.CELLS["lstm"], jrnn.LSTMState),
    Cell("gru", jrnn.init_gru, jrnn.gru, oracle.CELLS["gru"]),
    *(
        Cell(f"rnn, {phi}", jrnn.init_rnn, partial(jrnn.rnn, activation=phi), oracle.elman(phi))
        for phi in ("relu", "sigmoid", "identity")
    ),
    Cell("leaky", FIXED, jrnn.leaky, LEAKY),
    Cell("leaky, learned", LEARNED, jrnn.leaky, LEAKY),
    Cell("rate", FIXED, OF_INPUT, RATE),
    Cell("rate, learned", LEARNED, OF_INPUT, RATE),
]

# The forms in which users call a cell, each named by what it has.
ALWAYS = ["vectors", "lengths, resets"]
OTHERS = ["ids", "vmap", "vmap, lengths, resets", "remat", "remat, lengths, resets", "bfloat16"]
OTHERS += ["bfloat16, ids", "reverse, lengths, resets", "recurrent mask", "no bias"]
OPTIONS: dict[str, dict[str, Any]] = {
    "remat": {"remat": True},
    "reverse": {"reverse": True},
    "bfloat16": {"compute_dtype": jnp.bfloat16},
}
OF_GATES = {  # of the others, what differs from an Elman cell
    "lstm": ["vmap, lengths, resets", "remat, lengths, resets", "bfloat16, ids"],
    "gru": ["vmap, lengths, resets", "bfloat16, ids", "no bias"],
}


class Check(NamedTuple):
    """One comparison."""

    cell: Cell
    form: str
    case: Case
    precision: str  # highest, default


def checks(toy: bool, cells: list[Cell] = CELLS) -> Iterator[Check]:
    """Yield all checks, the most important ones first."""
    if toy:
        yield from (Check(cell, ALWAYS[0], TOY, "highest") for cell in cells)
        return
    often = cells[:3]
    yield from (Check(c, form, FULL, "highest") for c in cells for form in ALWAYS)
    yield from (Check(c, form, FULL, "default") for c in often for form in ALWAYS)
    for cell in often:
        for form in OTHERS:
            if form in OF_GATES.get(cell.name, OTHERS):
                yield Check(cell, form, FULL, "default" if "bfloat16" in form else "highest")
    yield from (Check(c, ALWAYS[1], SMALL, "highest") for c in often)


def gradients(context: Context, cells: list[Cell] = CELLS) -> Iterator[dict[str, Any] | str]:
    """Yield a record per check: errors divided by their bounds, pass or fail."""
    every = list(checks(context.options["toy"], cells))
    found = 0
    with ThreadPoolExecutor(min(os.cpu_count() or 1, AT_ONCE)) as pool:
        for record in filter(None, pool.map(partial(recorded, context), every)):
            found += 1
            yield record
    if missing := len(every) - found:
        yield f"Left out for lack of time: {missing} of {len(every)} comparisons."


def recorded(context: Context, check: Check) -> dict[str, Any]:
    """The record of a check; empty if no time is left for it."""
    if context.left() <= 0:
        return {}
    cell, form, case, precision = check
    key = {"cell": cell.name, "form": form, "case": list(case), "precision": precision}
    try:
        return key | compared(check)
    except Exception as error:  # a failing form must not hide the others
        return key | {"passed": False, "reason": words(error)}


def compared(check: Check) -> dict[str, Any]:
    """The largest error of every array and its bound, relative to the largest element.

    The worst array has the largest ratio of error to bound.
    """
    given = arrays(check)
    highest = check.precision == "highest"
    bits = DEFAULT_BITS.get(jax.default_backend(), BFLOAT16_BITS)
    bits = 24 if highest else BFLOAT16_BITS if "bfloat16" in check.form else bits
    right = expected(check, given)
    allowed = bounds(check, given, right, bits)
    with jax.default_matmul_precision("highest" if highest else None):
        found = on_device(check, given)
    errors = {}
    for name, x in found.items():
        if x.shape != right[name].shape:  # otherwise NumPy would broadcast
            raise ValueError(f"{name}: expected {right[name].shape}; got {x.shape}")
        error = float(np.abs(np.asarray(x, np.float64) - right[name]).max())
        error = error if np.isfinite(error) else 1e30  # JSON has neither NaN nor infinity
        largest, bound = float(np.abs(right[name]).max()) or 1.0, allowed[name]
        share = error / (bound or TINY)
        errors[name] = {"error": error / largest, "bound": bound / largest, "of_bound": share}
    worst = max(errors, key=lambda name: errors[name]["of_bound"])
    said = "{} is off by {error:.1e}, allowed {bound:.1e}".format(worst, **errors[worst])
    passed = errors[worst]["of_bound"] <= 1
    about = {"passed": passed, "reason": said, "bits": bits, "worst": worst, "errors": errors}
    return about | errors[worst]


def named(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their paths, such as "params w_ih" and "start 0"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator=" "): x for p, x in leaves}


def arrays(check: Check) -> dict[str, Any]:
    """Arguments of order 1, in float32, that the form has, and cotangents of the outputs."""
    cell, form, (T, B, I, H), _ = check
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    def states() -> tuple[np.ndarray, ...]:
        return tuple(normal(B, H) for _ in range(cell.right.states))

    params = cell.init(jax.random.key(0), I, H)._asdict()
    params = {name: np.asarray(p) for name, p in params.items() if p is not None}
    if "no bias" in form:
        params = {name: p for name, p in params.items() if name not in BIASES}
    for name in (*BIASES, "log_tau"):  # zeros would hide a missing bias
        if name in params:
            params[name] = normal(*params[name].shape) / 10
    if "alpha" in params:
        params["alpha"] = random.uniform(0.1, 0.9, H).astype(np.float32)
    ids = random.integers(0, I, (T, B)).astype(np.int32)
    xs = ids if "ids" in form else normal(T, B, I)
    given = {"params": params, "xs": xs, "start": states()}
    given |= {"d_last": states(), "dhs": normal(T, B, H)}
    if "lengths" in form:
        given["lengths"] = random.integers(0, T + 1, B)
        given["resets"] = random.random((T, B)) < 1 / 10
        given["reset_state"] = states()
    if "mask" in form:
        given["recurrent_mask"] = random.integers(0, 2, (B, H)).astype(np.float32) * 2
    return given


def expected(check: Check, given: dict[str, Any]) -> dict[str, Any]:
    """Outputs and cotangents by name, from NumPy in float64."""
    params, rest = given["params"], {k: x for k, x in given.items() if k != "params"}
    biases = [name for name in BIASES if name in params]
    b = np.concatenate([params[name] for name in biases]) if biases else None
    weights = params["w_ih"], params["w_hh"], b
    unit = {name: params[name] for name in UNIT if name in params}
    reverse = "reverse" in check.form
    (last, hs), d = oracle.unroll(check.cell.right, weights, **rest, unit=unit, reverse=reverse)
    ends = np.cumsum([len(params[name]) for name in biases])[:-1]
    of_biases = dict(zip(biases, np.split(d["b"], ends), strict=True)) if biases else {}
    d_params = {"w_ih": d["w_ih"], "w_hh": d["w_hh"], **of_biases, **d.get("unit", {})}
    of_rest = {name: d[name] for name in rest if name in d}
    return named({"hs": hs, "last": last, "params": d_params, **of_rest})


def bounds(
    check: Check, given: dict[str, Any], right: dict[str, np.ndarray], bits: int
) -> dict[str, float]:
    """The bound of the error of each result: `FACTOR` times what ordinary rounding changes.

    In each run of the oracle weights and inputs are moved by -1, 0 or +1 unit of their last of so
    many bits. Some units of the largest element are added. Zeros must be zeros.
    """
    worst = dict.fromkeys(right, 0.0)
    for n in range(RUNS):
        random = np.random.default_rng(n)

        def moved(name: str, x: np.ndarray, random: Any = random) -> np.ndarray:
            if name in UNIT or x.dtype.kind != "f":
                return x
            unit = np.ldexp(1.0, np.frexp(x.astype(np.float64))[1] - bits)
            return x + random.integers(-1, 2, x.shape) * unit

        params = {name: moved(name, p) for name, p in given["params"].items()}
        again = given | {"params": params, "xs": moved("xs", given["xs"])}
        for name, x in expected(check, again).items():
            worst[name] = max(worst[name], float(np.abs(x - right[name]).max()))
    largest = {name: float(np.abs(x).max()) for name, x in right.items()}
    slack = UNITS * 2.0 ** (1 - bits)
    return {name: (FACTOR * worst[name] + slack * m) if m else 0.0 for name, m in largest.items()}


def on_device(check: Check, given: dict[str, Any]) -> dict[str, Any]:
    """Outputs and cotangents by name, with all arguments traced."""
    cell, form, _, _ = check
    kind = type(cell.init(jax.random.key(0), 1, 1))
    options = {k: v for word in OPTIONS if word in form for k, v in OPTIONS[word].items()}
    run = partial(cell.run, **options)
    if "vmap" in form:
        run = jax.vmap(run, (None, 1, 0, 0, 1, 0, 0), (0, 1))

    def call(given: dict[str, Any]) -> Any:
        params = kind(**{name: given["params"].get(name) for name in kind._fields})
        states = {k: cell.state(*given[k]) for k in ("start", "reset_state") if k in given}
        names = "xs", "start", "lengths", "resets", "reset_state", "recurrent_mask"
        last, hs = run(params, *map((given | states).get, names))
        return jax.tree.leaves(last), hs

    @jax.jit
    def outputs_and_gradients(given: Any, d_last: Any, dhs: Any) -> dict[str, Any]:
        (last, hs), vjp = jax.vjp(call, given)
        (d,) = vjp(([*d_last], dhs.astype(hs.dtype)))
        return {"hs": hs, "last": last} | {
            name: x for name, x in d.items() if jax.tree.leaves(x)[0].dtype != jax.dtypes.float0
        }

    arguments = {name: x for name, x in given.items() if name not in ("d_last", "dhs")}
    return named(outputs_and_gradients(arguments, given["d_last"], given["dhs"]))
