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
    states: tuple[str, ...] = ("h",)
    state: Callable[..., Any] = lambda h: h  # of its arrays

    def named(self, form: str) -> list[str]:
        """The names of the states in a form such as "{}0" or "{}_last"."""
        return [form.format(name) for name in self.states]


LEAKY, RATE = oracle.CELLS["leaky"], oracle.CELLS["rate"]
FIXED = partial(jrnn.init_leaky, alpha=0.5)
LEARNED = partial(jrnn.init_leaky, alpha=0.5, learned=True)
OF_INPUT = partial(jrnn.leaky, leak="input")
CELLS = [
    Cell("rnn", jrnn.init_rnn, jrnn.rnn, oracle.elman("tanh")),
    Cell("lstm", jrnn.init_lstm, jrnn.lstm, oracle.CELLS["lstm"], ("h", "c"), jrnn.LSTMState),
    Cell("gru", jrnn.init_gru, jrnn.gru, oracle.CELLS["gru"]),
    *(
        Cell(f"rnn, {phi}", jrnn.init_rnn, partial(jrnn.rnn, activation=phi), oracle.elman(phi))
        for phi in ("relu", "sigmoid", "identity")
    ),
    Cell("leaky", FIXED, jrnn.leaky, LEAKY),
    Cell("leaky, learned", LEARNED, jrnn.leaky, LEAKY),
    Cell("rate", FIXED, OF_INPUT, RATE, ("v",)),
    Cell("rate, learned", LEARNED, OF_INPUT, RATE, ("v",)),
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
    default = DEFAULT_BITS.get(jax.default_backend(), BFLOAT16_BITS)
    bits = (
        24
        if check.precision == "highest"
        else BFLOAT16_BITS
        if "bfloat16" in check.form
        else default
    )
    right = expected(check, given)
    allowed = bounds(check, given, right, bits)
    with jax.default_matmul_precision("highest" if check.precision == "highest" else None):
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
    found = {"passed": errors[worst]["of_bound"] <= 1, "reason": said, "bits": bits, "worst": worst}
    return found | errors[worst] | {"errors": errors}


def expected(check: Check, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs and cotangents by name, from NumPy in float64."""
    cell, biases = check.cell, [name for name in BIASES if name in given]

    def states(form: str) -> tuple[np.ndarray, ...] | None:
        return tuple(given[name] for name in cell.named(form) if name in given) or None

    b = np.concatenate([given[name] for name in biases]) if biases else None
    ends = given.get("lengths"), given.get("resets"), states("reset_{}")
    (last, hs), d = oracle.unroll(
        cell.right,
        (given["w_ih"], given["w_hh"], b),
        given["xs"],
        states("{}0"),
        *ends,
        given.get("recurrent_mask"),
        unit={name: given[name] for name in UNIT if name in given},
        d_last=states("d{}_last"),
        dhs=given["dhs"],
        reverse="reverse" in check.form,
    )
    found = {"hs": hs} | d.get("unit", {}) | {name: d[name] for name in given if name in d}
    of_states = {"{}_last": last, "{}0": d["start"], "reset_{}": d.get("reset_state", ())}
    for form, arrays in of_states.items():
        found |= dict(zip(cell.named(form), arrays, strict=False))  # some forms reset nothing
    sizes = [len(given[name]) for name in biases]
    return found | dict(zip(biases, np.split(d.get("b", []), np.cumsum(sizes)[:-1]), strict=False))


def bounds(
    check: Check, given: dict[str, np.ndarray], right: dict[str, np.ndarray], bits: int
) -> dict[str, float]:
    """The bound of the error of each result: `FACTOR` times what ordinary rounding changes.

    In each run of the oracle weights and inputs are moved by -1, 0 or +1 unit of their last of so
    many bits. Some units of the largest element are added. Zeros must be zeros.
    """
    worst = dict.fromkeys(right, 0.0)
    for n in range(RUNS):
        random, moved = np.random.default_rng(n), dict(given)
        for name in ("w_ih", "w_hh", "xs", *BIASES):
            if name in given and given[name].dtype.kind == "f":
                x = given[name].astype(np.float64)
                unit = np.ldexp(1.0, np.frexp(x)[1] - bits)
                moved[name] = x + random.integers(-1, 2, x.shape) * unit
        for name, x in expected(check, moved).items():
            worst[name] = max(worst[name], float(np.abs(x - right[name]).max()))
    largest = {name: float(np.abs(x).max()) for name, x in right.items()}
    slack = UNITS * 2.0 ** (1 - bits)
    return {name: (FACTOR * worst[name] + slack * m) if m else 0.0 for name, m in largest.items()}


def arrays(check: Check) -> dict[str, np.ndarray]:
    """Parameters, data and cotangents of order 1, in float32, that the form has."""
    cell, form, case, _ = check
    T, B, I, H = case
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    params = cell.init(jax.random.key(0), I, H)._asdict()
    given = {name: np.asarray(p) for name, p in params.items() if p is not None}
    for name in (*BIASES, "log_tau"):  # zeros would hide a missing bias
        if name in given:
            given[name] = normal(*given[name].shape) / 10
    if "alpha" in given:
        given["alpha"] = random.uniform(0.1, 0.9, H).astype(np.float32)
    given["xs"] = (
        random.integers(0, I, (T, B)).astype(np.int32) if "ids" in form else normal(T, B, I)
    )
    given["dhs"] = normal(T, B, H)
    for of in ("{}0", "reset_{}", "d{}_last"):
        given |= {name: normal(B, H) for name in cell.named(of)}
    given["recurrent_mask"] = random.integers(0, 2, (B, H)).astype(np.float32) * 2
    given["lengths"] = random.integers(0, T + 1, B)
    given["resets"] = random.random((T, B)) < 1 / 10
    absent = set(BIASES) if "no bias" in form else set()
    absent |= set() if "mask" in form else {"recurrent_mask"}
    absent |= set() if "lengths" in form else {"lengths", "resets", *cell.named("reset_{}")}
    return {name: x for name, x in given.items() if name not in absent}


def on_device(check: Check, given: dict[str, np.ndarray]) -> dict[str, Any]:
    """Outputs and cotangents by name, with all arguments traced."""
    cell, form, _, _ = check
    cotangents = {"dhs", *cell.named("d{}_last")}
    data = {name: jnp.asarray(x) for name, x in given.items() if name not in cotangents}
    floats = {name: x for name, x in data.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    kind = type(cell.init(jax.random.key(0), 1, 1))
    options = {k: v for word in OPTIONS if word in form for k, v in OPTIONS[word].items()}
    run = partial(cell.run, **options)
    if "vmap" in form:
        run = jax.vmap(run, (None, 1, 0, 0, 1, 0, 0), (0, 1))

    def of_state(a: dict[str, Any], name: str) -> Any:
        return cell.state(*(a.get(n) for n in cell.named(name)))

    @jax.jit
    def outputs_and_gradients(floats: Any, data: Any, d_last: Any, dhs: Any) -> dict[str, Any]:
        def call(floats: dict[str, Any]) -> Any:
            a = data | floats
            params = kind(**{name: a.get(name) for name in kind._fields})
            ends = a.get("lengths"), a.get("resets"), of_state(a, "reset_{}")
            return run(params, a["xs"], of_state(a, "{}0"), *ends, a.get("recurrent_mask"))

        (last, hs), vjp = jax.vjp(call, floats)
        lasts = zip(cell.named("{}_last"), jax.tree.leaves(last), strict=True)
        (gradients,) = vjp((d_last, dhs.astype(hs.dtype)))
        return {"hs": hs, **dict(lasts), **gradients}

    return outputs_and_gradients(floats, data, of_state(given, "d{}_last"), given["dhs"])
