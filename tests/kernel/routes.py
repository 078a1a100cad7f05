"""The paths through the kernel, each as one compiled program."""

from functools import partial

import jax
import numpy as np
from calls import Call, axes, mapped, on_floats, results, unroll
from faults.parts import Segments

from jrnn.kernel import reference
from jrnn.kernel.backends.xla import XLA, Schedule
from jrnn.kernel.types import Cotangents, Residuals
from jrnn.kernel.weight_gradients import gradients, no_sums

CHUNKS = XLA(Schedule(3, 3, 2))  # two chunks of 3 steps and a rest, in blocks of 2
ROUTES = {
    "chosen": {},
    "chunks": {"backend": CHUNKS},
    "reference": {"backend": reference.Reference()},
    "segments": {"remat": Segments()},  # of 2 steps, two side by side
    "rule": {},
    "one": {},
    "vmap": {},
    "vmap of grad": {},
}


def program(spec, call, route="chosen"):
    """A function of a call: its results, for calls that differ from this one in numbers alone."""
    run = partial(mapped, axes=axes(call)) if route == "vmap" else unroll
    more = {"run": by_the_rule} if route == "rule" else {}

    @jax.jit
    def compiled(*arrays):
        given = Call(*arrays, call.reverse)
        if route == "vmap of grad":
            return of_each_sequence(spec, given, axes(call))
        return results(spec, given, run, **more)

    return lambda call: jax.device_get(compiled(*call[:3]))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def by_the_rule(spec, weights, inputs):
    """Plain scans without the primitives of `transforms`; the gradient is that of `reference`."""
    return reference.unroll_by_scan(spec, weights, inputs)


def _forward(spec, weights, inputs):
    last, hs, kept = reference.states(spec, weights, inputs)
    return (last, hs), Residuals(weights, inputs, hs, kept)


def _backward(spec, residuals, cotangents):
    weights, inputs = residuals.weights, residuals.inputs
    sums = no_sums(weights)
    found = reference.backward(spec, residuals, Cotangents(*cotangents), sums)
    return gradients(weights, inputs, found)


by_the_rule.defvjp(_forward, _backward)


def of_each_sequence(spec, call, axes):
    """`vmap` of the gradient: no sequence's is added to another's."""

    def one(*arrays):
        return results(spec, Call(*arrays, call.reverse))

    return jax.vmap(one, (axes, 0, 1))(*call[:3])


def clean(call):
    """Zero where nothing counts."""
    return on_floats(np.nan_to_num, call)
