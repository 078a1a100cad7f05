"""The structure of a traced program."""

import jax
import jax.extend.core
import numpy as np


def equations(jaxpr, platform="cpu"):
    """Every equation of a jaxpr, also inside of loops, calls, rules and the kernel's primitives."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name in ("rnn", "rnn_forward", "rnn_backward"):
            call, avals = equation.params["call"], [v.aval for v in equation.invars]
            yield from equations(type(call).of.trace(call, platform, *avals).jaxpr, platform)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner, platform)


def named(jaxpr, primitive, platform="cpu"):
    return [e for e in equations(jaxpr, platform) if e.primitive.name == primitive]


def sizes(equation):
    """Elements of each result of an equation."""
    return [int(np.prod(v.aval.shape)) for v in equation.outvars if hasattr(v.aval, "shape")]


def loops(jaxpr, platform="cpu"):
    return [e for e in equations(jaxpr, platform) if e.primitive.name in ("scan", "while")]


def innermost(loops):
    """Those in which there is no other: loops over steps, and not over chunks of them."""
    return [
        loop
        for loop in loops
        if not any(
            e.primitive.name in ("scan", "while")
            for inner in jax.extend.core.jaxprs_in_params(loop.params)
            for e in equations(inner)
        )
    ]


def carries(loop):
    """The shapes that a loop hands from one iteration to the next."""
    if loop.primitive.name == "while":
        consts = loop.params["cond_nconsts"] + loop.params["body_nconsts"]
        count = len(loop.invars) - consts
    elif "num_carry" in loop.params:
        consts, count = loop.params["num_consts"], loop.params["num_carry"]
    else:  # jax 0.12: the trees of constants, carry and inputs
        consts, count = (len(tree) for tree in loop.params["ft_in"].unpack()[:2])
    return [v.aval.shape for v in loop.invars[consts : consts + count]]
