"""Compare values and gradients on the device with NumPy in float64 on the host.

    python -m benchmarks.gradients

Compilers have bugs: in jax issue 40362 the bias in a loop lost a factor on some GPUs. So every cell
of the package is compiled here for this device, in the forms in which users call it. Every output
and every cotangent is compared, at the highest and at the default precision of matmuls.
"""

import argparse
import importlib
import math
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine, report
from benchmarks.cases import Case
from jrnn import kernel
from jrnn.arrays import matmul_precision

# The calls of the tests, and their oracle: NumPy loops over sequences and steps.
sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("tests/kernel", "tests")]
calls, cells, routes = map(importlib.import_module, ("calls", "cells", "routes"))

METHOD = (
    "Every output and every cotangent is compared with NumPy in float64, which also runs with "
    "weights and inputs moved by one unit of the last digit: allowed is a multiple of what that "
    "changes. Operands of matmuls have the binary digits in the table: 24 at "
    '"highest"; by default 24 on a CPU, 11 (TF32) on a GPU, 8 (bfloat16) on a TPU. Shown is the '
    "array that comes nearest to its bound, errors and bounds over its largest element."
)
DEFAULT_BITS = {"cpu": 24, "gpu": 11, "tpu": 8}  # of the operands of a float32 matmul
FULL = Case(70, 16, 40, 128)  # with full tiles of a device
SMALL = Case(21, 3, 5, 7)  # with partial ones
TOY = Case(6, 2, 3, 4)
AT_ONCE = 8  # checks: nothing is timed, and nearly all of the time is compilation
FACTOR = 12  # of what moved runs of the oracle differ by
RUNS = 4  # of the oracle, for a bound
UNITS = 4  # of the last digit, that are allowed in any case

CELLS: dict[str, dict[str, Any]] = {  # the package's, as the tests make them
    "rnn": {"name": "tanh"},
    "lstm": {"name": "lstm"},
    "gru": {"name": "gru"},
    **{f"rnn, {phi}": {"name": phi} for phi in ("relu", "sigmoid", "identity")},
    **{name: {"name": name} for name in ("leaky", "rate")},
    **{f"{name}, learned": {"name": name, "learned": True} for name in ("leaky", "rate")},
}
# The forms in which users call a cell, each named by what it has.
ALWAYS = ["vectors", "lengths, resets"]
OTHERS = ["ids", "vmap", "vmap, lengths, resets", "remat", "remat, lengths, resets", "bfloat16"]
OTHERS += ["bfloat16, ids", "reverse, lengths, resets", "recurrent mask", "no bias"]
OF_GATES = {  # of the others, what differs from an Elman cell
    "lstm": ["vmap, lengths, resets", "remat, lengths, resets", "bfloat16, ids"],
    "gru": ["vmap, lengths, resets", "bfloat16, ids", "no bias"],
}
ARGUMENTS: dict[str, dict[str, Any]] = {  # of `calls.make_call`, by word of a form
    "ids": {"inputs": "ids"},
    "lengths": {"ends": "lengths"},
    "resets": {"resets": "state"},
    "reverse": {"reverse": True},
    "recurrent mask": {"recurrent_mask": True},
    "no bias": {"bias": False},
}


class Check(NamedTuple):
    """One comparison."""

    cell: str
    form: str
    case: Case
    precision: str | None  # "highest", or None: the default

    def __str__(self) -> str:
        return f"{self.cell} {self.form} {self.case} {self.precision or 'default'}"

    def call(self) -> Any:
        """Arguments of order 1, in float32, that the form has, and cotangents of the outputs."""
        options = CELLS[self.cell] | self.case._asdict()
        for word in self.form.split(", "):
            options |= ARGUMENTS.get(word, {})
        return calls.on_floats(np.float32, calls.make_call(**options))

    def spec(self) -> kernel.Spec:
        """The static part of the call, with the precision of the context."""
        cell = cells.cell_of(**CELLS[self.cell])
        dtype = np.dtype(jnp.bfloat16) if "bfloat16" in self.form else None
        remat = kernel.Remat() if "remat" in self.form else None
        return kernel.Spec(cell, matmul_precision(), dtype, remat=remat)

    def bits(self) -> int:
        """The binary digits of operands of matmuls."""
        if "bfloat16" in self.form:
            return 8
        return 24 if self.precision else DEFAULT_BITS[jax.default_backend()]

    def right(self, call: Any) -> dict[str, Any]:
        """Outputs and cotangents by name, from NumPy in float64."""
        return named(calls.expected(CELLS[self.cell]["name"], call))


def named(results: Any) -> dict[str, Any]:
    """The arrays of outputs and cotangents by their paths, such as "hs", "w_ih" and "start 0"."""
    (last, hs), cotangents = results
    leaves = jax.tree_util.tree_leaves_with_path({"last": last, "hs": hs, **cotangents})
    return {jax.tree_util.keystr(p, simple=True, separator=" "): x for p, x in leaves}


def checks(toy: bool) -> Iterator[Check]:
    """Yield all checks, the most important ones first."""
    if toy:
        yield from (Check(cell, ALWAYS[0], TOY, "highest") for cell in CELLS)
        return
    often = list(CELLS)[:3]
    yield from (Check(cell, form, FULL, "highest") for cell in CELLS for form in ALWAYS)
    yield from (Check(cell, form, FULL, None) for cell in often for form in ALWAYS)
    for cell in often:
        for form in OF_GATES.get(cell, OTHERS):
            yield Check(cell, form, FULL, None if "bfloat16" in form else "highest")
    yield from (Check(cell, ALWAYS[1], SMALL, "highest") for cell in often)


def results(args: argparse.Namespace) -> report.Results:
    """Yield a record per check, pass or fail; RuntimeError after all, if one is wrong."""
    yield machine.description()
    yield METHOD
    end = math.inf if args.minutes is None else time.monotonic() + 60 * args.minutes
    every, wrong = list(checks(args.toy)), []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, AT_ONCE)) as pool:
        for check, record in zip(every, pool.map(partial(recorded, end), every), strict=True):
            yield record
            wrong += [str(check)] if "FAIL" in record["result"] else []
    if wrong:
        said = f"{len(wrong)} of {len(every)} comparisons are WRONG: {'; '.join(wrong)}"
        raise RuntimeError(said)


def recorded(end: float, check: Check) -> report.Record:
    """The record of a check; without numbers if there is no time left for it, or if it fails."""
    key = {"table": "Comparisons", "cell": check.cell, "form": check.form}
    key |= {"T, B, I, H": str(check.case), "precision": check.precision or "default"}
    unknown = dict.fromkeys(("digits", "array", "error", "bound", "of_bound"))
    if time.monotonic() >= end:
        return key | unknown | {"result": "left out for lack of time"}
    try:
        with jax.default_matmul_precision(check.precision):
            return key | compared(check, check.spec())
    except Exception as error:  # a failing form must not hide the others
        return key | unknown | {"result": f"**FAIL**: {report.words(error)}"}


def compared(check: Check, spec: kernel.Spec) -> report.Record:
    """The error and the bound of the array that comes nearest to its bound.

    Both are relative to the largest element; those of all arrays are in `errors`.
    """
    call = check.call()
    right, allowed = check.right(call), bounds(check, call)
    route = "vmap" if "vmap" in check.form else "chosen"
    found = named(routes.program(spec, call, route)(call))
    errors = {}
    for name, x in found.items():
        if x.shape != right[name].shape:  # otherwise NumPy would broadcast
            raise ValueError(f"{name}: expected {right[name].shape}; got {x.shape}")
        largest = float(np.abs(right[name]).max()) or 1.0
        error = float(np.abs(np.asarray(x, np.float64) - right[name]).max()) / largest
        error = error if np.isfinite(error) else 1e30  # JSON has neither NaN nor infinity
        bound = allowed[name] / largest
        errors[name] = {"error": error, "bound": bound, "of_bound": error / (bound or 1e-30)}
    worst = max(errors, key=lambda name: errors[name]["of_bound"])
    result = "pass" if errors[worst]["of_bound"] <= 1 else "**FAIL**"
    shown = {"digits": check.bits(), "array": worst, **errors[worst]}
    return shown | {"result": result, "errors": errors}


def bounds(check: Check, call: Any) -> dict[str, float]:
    """The bound of the error of each result: `FACTOR` times what ordinary rounding changes.

    In each run of the oracle weights and inputs are moved by -1, 0 or +1 unit of their last digit.
    Some units of the largest element are added. Zeros must be zeros.
    """
    right, bits = check.right(call), check.bits()
    worst = dict.fromkeys(right, 0.0)
    for n in range(RUNS):
        random = np.random.default_rng(n)
        given = dict(call.arguments)
        for name in ("w_ih", "w_hh", "b", "xs"):
            if (x := given[name]) is not None and calls.is_float(x):
                unit = np.ldexp(1.0, np.frexp(x.astype(np.float64))[1] - bits)
                given[name] = x + random.integers(-1, 2, x.shape) * unit
        for name, x in check.right(call._replace(arguments=given)).items():
            worst[name] = max(worst[name], float(np.abs(x - right[name]).max()))
    largest = {name: float(np.abs(x).max()) for name, x in right.items()}
    slack = UNITS * 2.0 ** (1 - bits)
    return {name: (FACTOR * worst[name] + slack * m) if m else 0.0 for name, m in largest.items()}


if __name__ == "__main__":
    sys.exit(report.run(report.parser("gradients", __doc__).parse_args(), results))
