"""Wrong parts of the kernel, one fault each: the comparison with the oracle must see them all.

Each goes in where the kernel takes its parts from, by `kernel.Spec`; nothing is patched.
"""

from functools import cache

import faults
import jax
import numpy as np
import pytest
from calls import Call, axes, cell_of, expected, make_call, nth, results, worst
from cases import RTOL, B
from faults import Loops

from jrnn import kernel
from jrnn.kernel import reference
from jrnn.kernel.backends.xla import XLA, Schedule
from jrnn.kernel.types import Batching

XLA_IN_CHUNKS = XLA(Schedule(3, 3, unroll=2))  # two chunks of 3 steps and a rest, in blocks of 2
BACKENDS = {"xla": XLA_IN_CHUNKS, "reference": reference.Reference(), "loops": Loops()}
EVERYTHING = {"ends": "lengths", "resets": "state", "recurrent_mask": True, "z": "float"}
CLIP = 0.5  # of cotangents of order 1

pytestmark = pytest.mark.usefixtures("uncompiled")


@cache
def plain(name):
    call = make_call(name, z="float")
    return call, expected(name, call)


@cache
def everything(name, batch=True, reverse=True):
    call = make_call(name, batch=batch, **EVERYTHING, reverse=reverse, seed=1)
    return call, expected(name, call, CLIP)


def stacked(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def is_seen(difference):
    return not difference <= 10 * RTOL  # NaN is


# --- without a fault ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["tanh", *faults.CELLS])
def test_no_fault(name, backend):
    spec = kernel.Spec(cell_of(name), backend=BACKENDS[backend])
    call, right = plain(name)
    assert worst(results(spec, call), right) <= RTOL
    call, right = everything(name)
    assert worst(results(spec._replace(clip_delta=CLIP), call), right) <= RTOL


@pytest.mark.parametrize("name", ["tanh", "lstm"])
def test_no_fault_in_segments(name):
    call, right = everything(name)
    spec = kernel.Spec(cell_of(name), clip_delta=CLIP, remat=faults.Segments())
    assert worst(results(spec, call), right) <= RTOL


# --- one fault each -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", faults.ELMAN)
def test_fault_in_a_backend(fault):
    call, right = plain("tanh")
    assert is_seen(worst(results(kernel.Spec(cell_of("tanh"), backend=Loops(fault)), call), right))


@pytest.mark.parametrize(
    ("fault", "batch"),
    [*((fault, True) for fault in faults.SEQUENCES)]
    + [(fault, False) for fault in faults.SEQUENCES if fault.startswith("dh_")],
)
def test_fault_with_lengths_and_resets(fault, batch):
    # Read in reverse no reset comes before the first step.
    call, right = everything("tanh", batch, reverse=fault != "dh_0 through a reset")
    if not batch and fault == "dh_0 of no step is zero":
        call = call._replace(arguments=call.arguments | {"lengths": 0})
        right = expected("tanh", call, CLIP)
    spec = kernel.Spec(cell_of("tanh"), clip_delta=CLIP, backend=Loops(fault))
    assert is_seen(worst(results(spec, call), right))


@pytest.mark.parametrize("fault", faults.BLOCKS_AND_STATES)
def test_fault_with_blocks_and_states(fault):
    name = faults.BLOCKS_AND_STATES[fault]
    call, right = everything(name)
    spec = kernel.Spec(cell_of(name), clip_delta=CLIP, backend=Loops(fault))
    assert is_seen(worst(results(spec, call), right))


@pytest.mark.parametrize("backend", ["xla", "reference"])
@pytest.mark.parametrize("masking", faults.MASKING, ids=lambda masking: masking.__name__)
def test_fault_in_masking(masking, backend):
    name = faults.MASKING[masking]
    call, right = everything(name)
    spec = kernel.Spec(cell_of(name), clip_delta=CLIP, backend=BACKENDS[backend], masking=masking())
    assert is_seen(worst(results(spec, call), right))


@pytest.mark.parametrize("remat", faults.REMAT, ids=lambda remat: remat.__name__)
def test_fault_in_the_segments(remat):
    call, right = everything("tanh")
    spec = kernel.Spec(cell_of("tanh"), clip_delta=CLIP, remat=remat())
    assert is_seen(worst(results(spec, call), right))


@pytest.mark.parametrize("batching", [Batching, *faults.BATCHING])
def test_fault_in_batching(batching):
    """Two batches with the same weights; what each has for every sequence is another's."""
    calls = [make_call("tanh", **EVERYTHING, seed=seed) for seed in (1, 2)]
    shared = {name: calls[0].arguments[name] for name in ("w_ih", "w_hh", "b")}
    calls = [call._replace(arguments=call.arguments | shared) for call in calls]
    spec = kernel.Spec(cell_of("tanh"), batching=batching())

    def one(arguments, d_last, dhs):
        return results(spec, Call(arguments | shared, d_last, dhs, False))

    own = [{k: x for k, x in call.arguments.items() if k not in shared} for call in calls]
    both = [(a, call.d_last, call.dhs) for a, call in zip(own, calls, strict=True)]
    found = jax.vmap(one)(*stacked(both))
    right = stacked([expected("tanh", call) for call in calls])
    assert is_seen(worst(found, right)) == (batching in faults.BATCHING)


@pytest.mark.parametrize("backend", [reference.Reference, faults.SummedOverExamples])
def test_a_batching_rule_that_sums(backend):
    call, _ = plain("tanh")
    spec = kernel.Spec(cell_of("tanh"), backend=backend())
    right = [expected("tanh", nth(call, b))[1] for b in range(B)]

    def gradient(arguments, d_last, dhs):
        one = call._replace(arguments=arguments, d_last=d_last, dhs=dhs)
        return results(spec, one)[1]

    each = jax.vmap(gradient, (axes(call), 0, 1))
    found = each(call.arguments, call.d_last, call.dhs)
    assert is_seen(worst(found, stacked(right))) == (backend is faults.SummedOverExamples)


@pytest.mark.parametrize("fault", faults.CELL_FAULTS)
def test_fault_in_a_cell(fault):
    name, cell = faults.CELL_FAULTS[fault]
    call, right = plain(name)
    assert is_seen(worst(results(kernel.Spec(cell, backend=XLA_IN_CHUNKS), call), right))
