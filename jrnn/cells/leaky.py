"""Leaky networks, in discrete and in continuous time.

The leak acts on the state, or on the input: then the state is v, the network a rate network, and
its output and the operand of w_hh are h_t = phi(v_t).

    h_t = (1 - alpha) * h_{t-1} + alpha * phi(a_t)                                 (28)
    v_t = (1 - alpha) * v_{t-1} + alpha * a_t               h_t = phi(v_t)         (29)

    delta_t = alpha * phi'(a_t) * dh_t       or alpha * dv_t
    dh_{t-1}: (1 - alpha) * dh_t             or (1 - alpha) * dv_t, and delta_t w_hh^T
    dalpha  = sum_t (phi(a_t) - h_{t-1}) * dh_t          or sum_t (a_t - v_{t-1}) * dv_t

phi' is found from phi(a_t), which is computed again. It could be found from the states, but by a
division by alpha: at alpha = 0.01 with states in bfloat16 it would be wrong by 0.8.

(28) and (29) solve tau dh/dt = -h + phi(a) and tau dv/dt = -v + a over a time step dt in which the
right side is constant, with alpha = 1 - exp(-dt / tau). A leak is fixed, by its alpha, or learned,
by log(tau). Time steps may differ: dt_t is then in units of that step for which alpha, or tau = 1,
is given, and alpha_t = 1 - (1 - alpha)^dt_t = 1 - exp(-dt_t / tau).
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from jrnn import checks
from jrnn.cells import Arrays, Named, StepCotangents, UncheckedCell
from jrnn.cells.elman import (
    Activation,
    ActivationName,
    UncheckedActivation,
    cell_with,
    find_activation,
)
from jrnn.types import LeakyParams

Leak = Literal["state", "input"]
# For alpha = 1 the rate would be inf, and inf * 0 is NaN. exp(-1e4 dt) is 0 from dt = 0.002 on, and
# 1e4 dt is finite in float16.
FASTEST = 1e4


def leaky(
    activation: ActivationName | Activation,
    leak: Leak,
    learned: bool = False,
    unequal: bool = False,
) -> UncheckedCell:
    """The leaky cell.

    Args:
        activation: phi, as in `jrnn.rnn`.
        leak: "state" for (28), "input" for (29).
        learned: whether the parameters have `log_tau`, or `alpha`.
        unequal: whether the data have `dt`, `[B, H]` at each step.

    Returns:
        The cell; the same one for the same arguments.

    Raises:
        ValueError: an unknown activation or leak; a flag that is no bool.
    """
    checks.place_of_leak(leak)
    checks.flag("learned", learned)
    checks.flag("unequal", unequal)
    phi = find_activation(activation)
    of = _of_users if isinstance(phi, Activation) else _of_package
    return of(phi, leak, learned, unequal)


def _leaky(phi: UncheckedActivation, leak: Leak, learned: bool, unequal: bool) -> UncheckedCell:
    def gates(blocks: Arrays) -> Arrays:
        return (phi.fn(blocks[0]),) if leak == "state" else blocks

    def step(gates: Arrays, before: Arrays, unit: Named, data: Named) -> Arrays:
        """(28), (29)."""
        alpha, _ = share_and_rate(unit, data)
        return (before[0] + alpha * (gates[0] - before[0]),)

    def adjoint(
        d_after: Arrays, gates: Arrays, before: Arrays, unit: Named, data: Named, after: Arrays
    ) -> StepCotangents:
        (d,), (alpha, rate) = d_after, share_and_rate(unit, data)
        d_phi = phi.derivative_from_output(gates[0]) if leak == "state" else 1
        d_alpha = (gates[0] - before[0]) * d
        d_rate = d_alpha * (1 - alpha)  # alpha = 1 - exp(-rate dt)
        dt = data.get("dt", 1)
        return StepCotangents(
            blocks=(alpha * d_phi * d,),
            before=((1 - alpha) * d,),
            unit={"log_tau": -rate * dt * d_rate} if learned else None,
            data={"dt": rate * d_rate} if unequal else None,
        )

    return cell_with(phi)(
        name="leaky",
        gates=gates,
        step=step,
        adjoint=adjoint,
        unit=("log_tau",) if learned else ("alpha",),
        data=("dt",) if unequal else (),
        output=None if leak == "state" else lambda states: phi.fn(states[0]),
        params=LeakyParams,
    )


_of_package, _of_users = functools.cache(_leaky), functools.lru_cache(256)(_leaky)  # as in elman.py


def share_and_rate(unit: Named, data: Named) -> tuple[jax.Array, jax.Array]:
    """alpha of a step, and dt / tau of a step of dt = 1."""
    if "log_tau" in unit:
        rate = jnp.exp(jnp.minimum(-unit["log_tau"], math.log(FASTEST)))
    else:
        alpha = lax.stop_gradient(unit["alpha"])
        if "dt" not in data:
            return alpha, alpha  # the second is not read
        rate = jnp.minimum(-jnp.log1p(-alpha), FASTEST)
    return -jnp.expm1(-rate * data.get("dt", 1)), rate
