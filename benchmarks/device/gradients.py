"""Compare values and gradients on the device with NumPy in float64 on the host.

Compilers have bugs: in jax issue 40362 the bias in a loop lost a factor on some GPUs. So every cell
of the package is compiled here for this device, in the forms in which users call it. Every output
and every cotangent is compared, at the highest and at the default precision of matmuls.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from benchmarks.cases import Case
from benchmarks.device import formulas, oracle
from benchmarks.device.runner import Context, words

# Bits of the operands of a float32 matmul by default: TF32 on a GPU, bfloat16 on a TPU.
DEFAULT_BITS = {"cpu": 24, "gpu": 11, "tpu": 8}
BFLOAT16_BITS = 8
FULL = Case(70, 16, 40, 128)  # with full tiles of a device
SMALL = Case(21, 3, 5, 7)  # with partial ones
TOY = Case(6, 2, 3, 4)
TINY = 1e-30  # a divisor for a bound of 0
AT_ONCE = 8  # checks: nothing is timed, and nearly all of the time is compilation
LEAK = partial(jrnn.init_leaky, alpha=0.5)
LEARNED = partial(jrnn.init_leaky, alpha=0.5, learned=True)
RATE = partial(jrnn.leaky, leak="input")


class Cell(NamedTuple):
    """A cell of the package, and its reference."""

    name: str
    init: Callable[..., Any]  # (key, I, H) -> parameters
    # (parameters, xs, state, lengths, resets, reset_state, recurrent_mask, **options)
    run: Callable[..., Any]  # -> (last state, hs)
    right: formulas.Cell
    state: Callable[..., Any] = lambda h: h  # of its arrays


CELLS = [
    Cell("rnn", jrnn.init_rnn, jrnn.rnn, formulas.TANH),
    Cell("lstm", jrnn.init_lstm, jrnn.lstm, formulas.LSTM, jrnn.LSTMState),
    Cell("gru", jrnn.init_gru, jrnn.gru, formulas.GRU),
    Cell("rnn, relu", jrnn.init_rnn, partial(jrnn.rnn, activation="relu"), formulas.RELU),
    Cell("rnn, sigmoid", jrnn.init_rnn, partial(jrnn.rnn, activation="sigmoid"), formulas.SIGMOID),
    Cell(
        "rnn, identity", jrnn.init_rnn, partial(jrnn.rnn, activation="identity"), formulas.IDENTITY
    ),
    Cell("leaky", LEAK, jrnn.leaky, formulas.leaky()),
    Cell("leaky, learned", LEARNED, jrnn.leaky, formulas.leaky(learned=True)),
    Cell("rate", LEAK, RATE, formulas.leaky(of_input=True)),
    Cell("rate, learned", LEARNED, RATE, formulas.leaky(of_input=True, learned=True)),
]
IN_EVERY_FORM = 3  # of these, the first; the others are compared in two forms


class Form(NamedTuple):
    """A form in which users call a cell."""

    name: str
    ids: bool = False
    bias: bool = True
    ends: bool = False  # with lengths, resets and a reset state
    mask: bool = False
    mapped: bool = False  # `vmap` of one sequence
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    bits: int | None = None  # of the operands of matmuls, if the options set it


FORMS = [  # every cell is compared in the first two
    Form("vectors"),
    Form("lengths, resets", ends=True),
    Form("ids", ids=True),
    Form("vmap", mapped=True),
    Form("vmap, lengths, resets", ends=True, mapped=True),
    Form("remat", options={"remat": True}),
    Form("remat, lengths, resets", ends=True, options={"remat": True}),
    Form("bfloat16", options={"compute_dtype": jnp.bfloat16}, bits=BFLOAT16_BITS),
    Form("bfloat16, ids", ids=True, options={"compute_dtype": jnp.bfloat16}, bits=BFLOAT16_BITS),
    Form("reverse, lengths, resets", ends=True, options={"reverse": True}),
    Form("recurrent mask", mask=True),
    Form("no bias", bias=False),
]


class Check(NamedTuple):
    """One comparison."""

    cell: Cell
    form: Form
    case: Case
    precision: str  # highest, default


def checks(cells: list[Cell], toy: bool) -> Iterator[Check]:
    """Yield all checks, the most important ones first."""
    if toy:
        yield from (Check(cell, FORMS[0], TOY, "highest") for cell in cells)
        return
    often, others = cells[:IN_EVERY_FORM], cells[IN_EVERY_FORM:]
    always, rest = FORMS[:2], FORMS[2:]
    yield from each(cells, always, FULL, "highest")
    yield from each(often, always, FULL, "default")
    yield from each(often, rest, FULL, "highest")
    yield from each(cells[:1], [form for form in rest if not form.bits], FULL, "default")
    yield from each(others, always[1:], FULL, "default")
    yield from each(often, always, SMALL, "highest")


def each(cells: list[Cell], forms: list[Form], case: Case, precision: str) -> Iterator[Check]:
    """Yield the checks of some cells in some forms."""
    for cell in cells:
        for form in forms:  # one that sets the bits itself is the same at both precisions
            yield Check(cell, form, case, "default" if form.bits else precision)


def gradients(context: Context, cells: list[Cell] = CELLS) -> Iterator[dict[str, Any] | str]:
    """Yield a record per check: errors divided by their bounds, pass or fail."""
    every = list(checks(cells, context.options["toy"]))
    missing = 0
    with ThreadPoolExecutor(min(os.cpu_count() or 1, AT_ONCE)) as pool:
        for record in pool.map(partial(recorded, context), every):
            if record is None:
                missing += 1
            else:
                yield record
    if missing:
        yield f"Left out for lack of time: {missing} of {len(every)} comparisons."


def recorded(context: Context, check: Check) -> dict[str, Any] | None:
    """The record of a check; None if no time is left for it."""
    if context.left() <= 0:
        return None
    key = {
        "cell": check.cell.name,
        "form": check.form.name,
        "case": list(check.case),
        "precision": check.precision,
    }
    try:
        return key | compared(check)
    except Exception as error:  # a failing form must not hide the others
        return key | {"passed": False, "reason": words(error)}


def compared(check: Check) -> dict[str, Any]:
    """The largest error of every array and its bound, relative to the largest element.

    The worst array has the largest ratio of error to bound.
    """
    cell, form, _, precision = check
    given = arrays(check)
    reverse = bool(form.options.get("reverse"))
    wide = {k: x.astype(np.float64) if x.dtype.kind == "f" else x for k, x in given.items()}
    right = oracle.results(cell.right, wide, reverse)
    default = DEFAULT_BITS.get(jax.default_backend(), BFLOAT16_BITS)
    bits = form.bits or (24 if precision == "highest" else default)
    allowed = oracle.bounds(cell.right, given, right, reverse, bits)
    with jax.default_matmul_precision("highest" if precision == "highest" else None):
        found = on_device(check, given)
    errors, ratios = {}, {}
    for name, x in found.items():
        if x.shape != right[name].shape:  # otherwise NumPy would broadcast
            raise ValueError(f"{name}: expected {right[name].shape}; got {x.shape}")
        largest = float(np.abs(right[name]).max()) or 1.0
        error = finite(np.abs(np.asarray(x, np.float64) - right[name]).max())
        errors[name] = {"error": error / largest, "bound": allowed[name] / largest}
        ratios[name] = error / (allowed[name] or TINY)
    worst = max(ratios, key=lambda name: ratios[name])
    return {
        "bits": bits,
        "passed": ratios[worst] <= 1,
        "worst": worst,
        "of_bound": ratios[worst],
        **errors[worst],
        "errors": errors,
    }


def finite(error: Any) -> float:
    """An error that is NaN or infinite as a large number, since JSON has neither."""
    return float(np.nan_to_num(error, nan=1e30, posinf=1e30))


def arrays(check: Check) -> dict[str, np.ndarray]:
    """Parameters, data and cotangents of order 1, in float32, for the oracle."""
    cell, form, case, _ = check
    T, B, I, H = case
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    params = cell.init(jax.random.key(0), I, H)._asdict()
    given = {name: np.asarray(p) for name, p in params.items() if p is not None}
    for name in ("b_h", "b_hn", "log_tau"):  # zeros would hide a missing bias
        if name in given:
            given[name] = normal(*given[name].shape) / 10
    if "alpha" in given:
        given["alpha"] = random.uniform(0.1, 0.9, H).astype(np.float32)
    if not form.bias:
        for name, _ in cell.right.biases:
            del given[name]
    given["xs"] = random.integers(0, I, (T, B)).astype(np.int32) if form.ids else normal(T, B, I)
    given["dhs"] = normal(T, B, H)
    for state in ("{}0", "reset_{}", "d{}_last"):
        given |= {name: normal(B, H) for name in cell.right.named(state)}
    keep = random.integers(0, 2, (B, H)).astype(np.float32) * 2
    given["recurrent_mask"] = keep if form.mask else np.ones((B, H), np.float32)
    lengths, resets = random.integers(0, T + 1, B), random.random((T, B)) < 1 / 10
    given["lengths"] = lengths if form.ends else np.full(B, T)
    given["resets"] = resets if form.ends else np.zeros((T, B), bool)
    return given


def on_device(check: Check, given: dict[str, np.ndarray]) -> dict[str, Any]:
    """Outputs and cotangents by name, with all arguments traced."""
    cell, form, _, _ = check
    again, cotangents = (cell.right.named(name) for name in ("reset_{}", "d{}_last"))
    left_out = {"dhs", *cotangents} | (set() if form.mask else {"recurrent_mask"})
    left_out |= set() if form.ends else {"lengths", "resets", *again}
    data = {name: jnp.asarray(x) for name, x in given.items() if name not in left_out}
    floats = {name: x for name, x in data.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    kind = type(cell.init(jax.random.key(0), 1, 1))
    run = partial(cell.run, **form.options)
    if form.mapped:
        run = jax.vmap(run, (None, 1, 0, 0, 1, 0, 0), (0, 1))

    def of_state(a: dict[str, Any], name: str) -> Any:
        return cell.state(*(a.get(n) for n in cell.right.named(name)))

    @jax.jit
    def outputs_and_gradients(floats: Any, data: Any, d_last: Any, dhs: Any) -> dict[str, Any]:
        def call(floats: dict[str, Any]) -> Any:
            a = data | floats
            params = kind(**{name: a.get(name) for name in kind._fields})
            ends = a.get("lengths"), a.get("resets"), of_state(a, "reset_{}")
            return run(params, a["xs"], of_state(a, "{}0"), *ends, a.get("recurrent_mask"))

        (last, hs), vjp = jax.vjp(call, floats)
        lasts = zip(cell.right.named("{}_last"), jax.tree.leaves(last), strict=True)
        (gradients,) = vjp((d_last, dhs.astype(hs.dtype)))
        return {"hs": hs, **dict(lasts), **gradients}

    return outputs_and_gradients(floats, data, of_state(given, "d{}_last"), given["dhs"])
