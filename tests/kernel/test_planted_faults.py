"""Wrong parts of the kernel, one fault each: the comparison with the oracle must see them all.

Each goes in where the kernel takes its parts from, by `kernel.Spec`; nothing is patched. Faults of
a cell, and of a backend with a cell, share a program that takes the number of the fault as data.
"""

from functools import cache

import jax
import numpy as np
import pytest
from calls import EVERYTHING, Call, expected, make_call, nth, results, worst
from cases import RTOL, B
from cells import cell_of
from cover import each, in_tiers
from faults import cells as wrong_cells
from faults import names, parts
from faults.backends import Loops, with_number
from faults.cells import CLIP, with_faults
from faults.parts import SummedOverExamples
from routes import program

from jrnn import kernel
from jrnn.kernel.backends.xla import XLA, Schedule
from jrnn.kernel.masking import Masking
from jrnn.kernel.reference import Reference
from jrnn.kernel.types import Batching

XLA_IN_CHUNKS = XLA(Schedule(3, 3))  # two chunks of 3 steps and a rest
BACKENDS = {"xla": XLA_IN_CHUNKS, "reference": Reference()}
CELLS = ("tanh", "lstm", "gru", "leaky", "rate", "mgu")


@cache
def everything(name, batch=True, reverse=True):
    call = make_call(name, batch=batch, **EVERYTHING, reverse=reverse, seed=1)
    return call, expected(name, call, CLIP)


def numbered(call, number):
    """The call with the number of a fault."""
    data = call.arguments.get("data", {}) | {"fault": np.full(call.dhs.shape[-1], number)}
    return call._replace(arguments=call.arguments | {"data": data})


def is_seen(difference):
    return not difference <= 10 * RTOL  # NaN is


def stacked(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def off(spec, name):
    call, right = everything(name)
    return worst(program(spec, call)(call), right)


def assert_seen(spec, name, faults, **form):
    """Of one program the faults, by their numbers from 1 on; without one it is right."""
    call, right = everything(name, **form)
    run = program(spec, numbered(call, 0))
    assert worst(run(numbered(call, 0)), right) <= RTOL
    assert [f for f, n in faults.items() if not is_seen(worst(run(numbered(call, n)), right))] == []


# --- cells ---------------------------------------------------------------------------------------


@in_tiers(lambda _: [{"name": "lstm"}], name=wrong_cells.CELLS)
def test_faults_in_a_cell(name):
    faults = {fault: 1 + n for n, fault in enumerate(wrong_cells.CELLS[name])}
    spec = kernel.Spec(with_faults(name, **EVERYTHING), clip_delta=CLIP)
    assert_seen(spec, name, faults)


def test_there_are_many_faults_of_each_cell():
    formulas = {name: len(faults) for name, faults in wrong_cells.CELLS.items()}
    of_backends = {name: len(names.faults_of(name)) for name in CELLS}
    print(f"faults in cells: {formulas}; in a backend with them: {of_backends}")
    assert all(formulas[name] >= 20 for name in ("lstm", "gru", "leaky", "rate"))
    assert all(number >= 45 for number in of_backends.values())


@in_tiers(lambda factors: each(factors)[:1], fault=wrong_cells.OTHER_PARTS)
def test_fault_in_another_part_of_a_cell(fault):
    name, cell = wrong_cells.OTHER_PARTS[fault]
    assert is_seen(off(kernel.Spec(cell, clip_delta=CLIP), name))


def test_the_gradient_of_a_fixed_leak():
    call = make_call("leaky")
    spec, right = kernel.Spec(wrong_cells.fixed_leak_with_gradient()), expected("leaky", call)
    assert is_seen(worst(program(spec, call)(call), right))


# --- backends ------------------------------------------------------------------------------------


def numbers(*faults):
    return {fault: 1 + names.FAULTS.index(fault) for fault in faults}


def with_loops(name):
    cell = with_number(cell_of(name, **EVERYTHING))
    return kernel.Spec(cell, clip_delta=CLIP, backend=Loops())


@in_tiers(lambda _: [{"name": "tanh"}], name=CELLS)
def test_faults_in_a_backend(name):
    assert_seen(with_loops(name), name, numbers(*names.faults_of(name)))


# Read in reverse no reset comes before the first step.
FORWARDS = "dh_0 through a reset"


def test_a_fault_at_the_first_step():
    assert_seen(with_loops("tanh"), "tanh", numbers(FORWARDS), reverse=False)


def test_faults_with_one_sequence():
    assert_seen(with_loops("tanh"), "tanh", numbers("dh_r 0.1 % large"), batch=False)
    assert_seen(with_loops("tanh"), "tanh", numbers(FORWARDS), batch=False, reverse=False)


# --- masking, segments, batching -----------------------------------------------------------------

MASKING = {masking.__name__: (name, masking) for name, masking in parts.MASKING}
MASKING["none"] = ("lstm", Masking)


@in_tiers(lambda factors: each(factors)[:3], fault=MASKING, backend=BACKENDS)
def test_fault_in_masking(fault, backend):
    name, masking = MASKING[fault]
    spec = kernel.Spec(cell_of(name), clip_delta=CLIP, backend=BACKENDS[backend], masking=masking())
    assert is_seen(off(spec, name)) == (masking is not Masking)


@in_tiers(lambda factors: each(factors)[:2], remat=[parts.Segments, *parts.REMAT])
def test_fault_in_the_segments(remat):
    spec = kernel.Spec(cell_of("tanh"), clip_delta=CLIP, remat=remat())
    assert is_seen(off(spec, "tanh")) == (remat in parts.REMAT)


@pytest.mark.parametrize("batching", [Batching, *parts.BATCHING])
def test_fault_in_batching(batching):
    """Two batches with the same weights; what each has for every sequence is another's."""
    options = EVERYTHING | {"resets": None}  # at the first step they would replace the states
    calls = [make_call("tanh", **options, seed=seed) for seed in (1, 2)]
    shared = {name: calls[0].arguments[name] for name in ("w_ih", "w_hh", "b")}
    calls = [call._replace(arguments=call.arguments | shared) for call in calls]
    spec = kernel.Spec(cell_of("tanh"), batching=batching())

    def one(arguments, d_last, dhs):
        return results(spec, Call(arguments | shared, d_last, dhs, False))

    own = [{k: x for k, x in call.arguments.items() if k not in shared} for call in calls]
    both = [(a, call.d_last, call.dhs) for a, call in zip(own, calls, strict=True)]
    found = jax.jit(jax.vmap(one))(*stacked(both))
    right = stacked([expected("tanh", call) for call in calls])
    assert is_seen(worst(found, right)) == (batching in parts.BATCHING)


@pytest.mark.parametrize("backend", [Reference, SummedOverExamples])
def test_a_batching_rule_that_sums(backend):
    call = make_call("tanh")
    spec = kernel.Spec(cell_of("tanh"), backend=backend())
    right = [expected("tanh", nth(call, b)) for b in range(B)]
    found = program(spec, call, "vmap of grad")(call)
    assert is_seen(worst(found, stacked(right))) == (backend is SummedOverExamples)
