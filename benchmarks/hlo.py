"""Count the operations that the loops of a compiled program run, from its HLO text.

An *operation* is an entry of a `while` body that does work: on a GPU at least one kernel launch, on
a TPU one step of the schedule. Entries without work (`FREE`) do not count, a fusion is one, and of
an asynchronous pair the start counts. The body of an inner loop and a called computation count as
often as they run. The trips of a loop are the compiler's (`known_trip_count`: XLA:GPU, XLA:CPU),
or the bound in its condition, i < n with i from 0, as `lax.scan` counts (XLA:TPU).
"""

import re
from collections.abc import Iterator

from jrnn.checks import refuse

FREE = {"", "get-tuple-element", "parameter", "constant", "tuple", "bitcast"}
NAME = r"%?([\w.\-]+)"
Program = dict[str, list[str]]  # the lines `name = shape operation(operands), attributes`


def loop_operations(hlo: str) -> tuple[int, int]:
    """Count the operations of the forward and of the backward loops in `compiled.as_text()`.

    Raises:
        ValueError: the trip count of a loop is not in the text.
    """
    found = re.findall(rf"^(ENTRY )?{NAME} \([^\n]*\{{\n(.*?)^\}}", hlo, re.M | re.S)
    program = {entry.strip() or name: body.splitlines() for entry, name, body in found}
    counts = [0, 0]  # backward loops are those that JAX names as a transpose
    for loop in _loops("ENTRY", program):
        counts["transpose(" in _find(r'op_name="([^"]*)"', loop)] += _operations(loop, program)
    return counts[0], counts[1]


def _find(pattern: str, text: str) -> str:
    """The group of a pattern; empty if it is not there."""
    found = re.search(pattern, text)
    return found[1] if found else ""


def _operation(line: str) -> str:
    return _find(r"^\s+(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][\w\-]*)\(", line)


def _loops(name: str, program: Program) -> Iterator[str]:
    """The outermost loops of a computation and of the computations that it calls."""
    for line in program[name]:
        if _operation(line) == "while":
            yield line
        elif _operation(line) == "call":
            yield from _loops(_find(rf"\bto_apply={NAME}", line), program)


def _operations(line: str, program: Program) -> int:
    """The number of operations in one execution of a line."""
    operation = _operation(line)
    if operation in FREE or operation.endswith("-done"):
        return 0
    if operation not in ("while", "call"):
        return 1
    body = program[_find(rf"\b(?:body|to_apply)={NAME}", line)]
    trips = _trips(line, program) if operation == "while" else 1
    return trips * sum(_operations(inner, program) for inner in body)


def _trips(loop: str, program: Program) -> int:
    if known := _find(r'"known_trip_count":\{"n":"(\d+)"', loop):
        return int(known)
    condition = "\n".join(program[_find(rf"\bcondition={NAME}", loop)])
    for bound in re.findall(rf", {NAME}\), direction=LT", condition):
        if number := _find(rf"%?{re.escape(bound)} = .* constant\((\d+)\)", condition):
            return int(number)
    repair = "That of a `lax.scan` is, that of a `lax.while_loop` is not."
    refuse("hlo", "the number of trips of every loop in the text", f"none: {loop.strip()}", repair)
