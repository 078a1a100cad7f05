"""Count the operations that the loops of a compiled program run, from its HLO text.

An *operation* is an entry of a `while` body that does work: on a GPU at least one kernel launch, on
a TPU one step of the schedule. Entries without work on any device (`FREE`) do not count. A fusion
is one operation. In an asynchronous pair the start counts and the `-done`, which waits for it, does
not. A `while` inside a body is not an operation, but its body counts as often as it runs; so does a
called computation. The trip count of a loop is the compiler's (`known_trip_count`: XLA:GPU,
XLA:CPU), or the bound in its condition, i < n with i from 0, as `lax.scan` counts (XLA:TPU).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from jrnn.checks import refuse

FREE = {"get-tuple-element", "parameter", "constant", "tuple", "bitcast"}
NAME = r"%?([\w.\-]+)"


class Instruction(NamedTuple):
    """One line of a computation, `name = shape operation(operands), attributes`."""

    name: str
    operation: str
    rest: str  # operands), attributes


class LoopOperations(NamedTuple):
    """The total number of operations in the loops of a program."""

    forward: int
    backward: int  # in loops that JAX names as a transpose: the backward passes


def loop_operations(hlo: str) -> LoopOperations:
    """Count the operations of all loops of a program.

    Args:
        hlo: the text of a compiled program, `compiled.as_text()`.

    Returns:
        The `LoopOperations` of the whole program; divide by T for operations per time step.

    Raises:
        ValueError: the trip count of a loop is not in the text.
    """
    program = computations(hlo)
    forward = backward = 0
    for loop in _loops("ENTRY", program):
        count = _operations(loop, program)
        if "transpose(" in (_find(r'op_name="([^"]*)"', loop) or ""):
            backward += count
        else:
            forward += count
    return LoopOperations(forward, backward)


def computations(hlo: str) -> dict[str, list[Instruction]]:
    """The instructions of every computation by name; the entry computation is "ENTRY"."""
    found: dict[str, list[Instruction]] = {}
    for line in hlo.splitlines():
        if header := re.match(rf"(?:(ENTRY) )?{NAME} \(.*\{{$", line):
            instructions = found.setdefault(header[1] or header[2], [])
        elif parts := re.match(rf"\s+(?:ROOT )?{NAME} = .*? ([a-z][\w\-]*)\((.*)", line):
            instructions.append(Instruction(*parts.groups()))
    return found


def _loops(name: str, program: dict[str, list[Instruction]]) -> Iterator[Instruction]:
    """The outermost loops of a computation and of the computations that it calls."""
    for instruction in program[name]:
        if instruction.operation == "while":
            yield instruction
        elif instruction.operation == "call":
            yield from _loops(_named("to_apply", instruction), program)


def _operations(instruction: Instruction, program: dict[str, list[Instruction]]) -> int:
    """The number of operations in one execution of an instruction."""
    if instruction.operation in FREE or instruction.operation.endswith("-done"):
        return 0
    if instruction.operation == "while":
        body = program[_named("body", instruction)]
        return _trips(instruction, program) * sum(_operations(i, program) for i in body)
    if instruction.operation == "call":
        return sum(_operations(i, program) for i in program[_named("to_apply", instruction)])
    return 1


def _trips(loop: Instruction, program: dict[str, list[Instruction]]) -> int:
    if known := _find(r'"known_trip_count":\{"n":"(\d+)"', loop):
        return int(known)
    condition = {i.name: i for i in program[_named("condition", loop)]}
    for compare in condition.values():
        bound = condition.get(_find(rf", {NAME}\), direction=LT", compare) or "")
        if bound and bound.operation == "constant":
            return int(bound.rest.split(")")[0])
    repair = "That of a `lax.scan` is, that of a `lax.while_loop` is not."
    refuse("hlo", "the number of trips of every loop in the text", f"none of {loop.name}", repair)


def _named(key: str, instruction: Instruction) -> str:
    """The name of the computation in an attribute."""
    return _find(rf"\b{key}={NAME}", instruction) or ""


def _find(pattern: str, instruction: Instruction) -> str | None:
    found = re.search(pattern, instruction.rest)
    return found[1] if found else None
