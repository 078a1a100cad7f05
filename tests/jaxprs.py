"""The structure of a traced program."""

import jax
import jax.extend.core
import numpy as np


def equations(jaxpr):
    """Every equation of a jaxpr, those inside of loops, calls and rules included."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name == "rnn":
            call, avals = equation.params["call"], [v.aval for v in equation.invars]
            yield from equations(type(call).of.trace(call, *avals).jaxpr)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def named(jaxpr, primitive):
    return [e for e in equations(jaxpr) if e.primitive.name == primitive]


def sizes(equation):
    """Elements of each result of an equation."""
    return [int(np.prod(v.aval.shape)) for v in equation.outvars if hasattr(v.aval, "shape")]


def carries(scan):
    """The shapes that a scan hands from one iteration to the next."""
    if "num_carry" in scan.params:
        consts, count = scan.params["num_consts"], scan.params["num_carry"]
    else:  # jax 0.12: the trees of constants, carry and inputs
        consts, count = (len(tree) for tree in scan.params["ft_in"].unpack()[:2])
    return [v.aval.shape for v in scan.invars[consts : consts + count]]
