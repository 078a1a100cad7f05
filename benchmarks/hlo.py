"""Count the operations that the loops of a compiled program run, from its HLO text.

An *operation* is an entry of a `while` body that does work: on a GPU at least one kernel launch, on
a TPU one step of the schedule. Entries without work (`FREE`) do not count, a fusion is one, and of
an asynchronous pair the start counts. The body of an inner loop and a called computation count as
often as they run. The trips of a loop are the compiler's (`known_trip_count`: XLA:GPU, XLA:CPU),
or the bound in its condition, i < n with i from 0, as `lax.scan` counts (XLA:TPU).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from jrnn.checks import refuse

FREE = {"get-tuple-element", "parameter", "constant", "tuple", "bitcast"}
NAME = r"%?([\w.\-]+)"


class Instruction(NamedTuple):
    """One line of a computation, `name = shape operation(operands), attributes`."""

    operation: str
    rest: str  # operands), attributes

    def find(self, pattern: str) -> str:
        """The group of a pattern in the operands and attributes; empty if it is not there."""
        found = re.search(pattern, self.rest)
        return found[1] if found else ""


Computations = dict[str, dict[str, Instruction]]  # by their names


def loop_operations(hlo: str) -> tuple[int, int]:
    """Count the operations of the forward and of the backward loops in `compiled.as_text()`.

    Raises:
        ValueError: the trip count of a loop is not in the text.
    """
    program: Computations = {}
    for line in hlo.splitlines():
        if header := re.match(rf"(?:(ENTRY) )?{NAME} \(.*\{{$", line):
            instructions = program.setdefault(header[1] or header[2], {})
        elif parts := re.match(rf"\s+(?:ROOT )?{NAME} = .*? ([a-z][\w\-]*)\((.*)", line):
            instructions[parts[1]] = Instruction(parts[2], parts[3])
    counts = [0, 0]  # backward loops are those that JAX names as a transpose
    for loop in _loops("ENTRY", program):
        counts["transpose(" in loop.find(r'op_name="([^"]*)"')] += _operations(loop, program)
    return counts[0], counts[1]


def _loops(name: str, program: Computations) -> Iterator[Instruction]:
    """The outermost loops of a computation and of the computations that it calls."""
    for instruction in program[name].values():
        if instruction.operation == "while":
            yield instruction
        elif instruction.operation == "call":
            yield from _loops(instruction.find(rf"\bto_apply={NAME}"), program)


def _operations(instruction: Instruction, program: Computations) -> int:
    """The number of operations in one execution of an instruction."""
    if instruction.operation in FREE or instruction.operation.endswith("-done"):
        return 0
    if instruction.operation not in ("while", "call"):
        return 1
    body = program[instruction.find(rf"\b(?:body|to_apply)={NAME}")]
    trips = _trips(instruction, program) if instruction.operation == "while" else 1
    return trips * sum(_operations(inner, program) for inner in body.values())


def _trips(loop: Instruction, program: Computations) -> int:
    if known := loop.find(r'"known_trip_count":\{"n":"(\d+)"'):
        return int(known)
    condition = program[loop.find(rf"\bcondition={NAME}")]
    for compare in condition.values():
        bound = condition.get(compare.find(rf", {NAME}\), direction=LT"))
        if bound and bound.operation == "constant":
            return int(bound.rest.split(")")[0])
    repair = "That of a `lax.scan` is, that of a `lax.while_loop` is not."
    refuse("hlo", "the number of trips of every loop in the text", f"none: {loop.rest}", repair)
