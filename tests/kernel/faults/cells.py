"""Wrong formulas of cells. One cell holds all those of a cell; which one acts is data.

So one program is compiled for the faults of a cell, and without a fault it must be right. A fault
is a function of what is given to the adjoint and of what the adjoint finds; it returns the parts
that it changes.
"""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
from cells import cell_of

from faults.backends import floating, with_number

CLIP = 0.5  # of cotangents of order 1


def clip(d):
    return jnp.clip(d, -CLIP, CLIP)


def with_faults(name, **options):
    """The cell of a name in which `data["fault"]` is the number of the fault; 0 is none."""
    cell = cell_of(name, **options)
    faults = list(CELLS[name].values())

    def adjoint(d_after, gates, before, unit, data, after):
        found = cell.adjoint(d_after, gates, before, unit, data, after)
        found = result = _without_none(found, before, unit, data)
        given = SimpleNamespace(
            d=d_after, gates=gates, before=before, after=after, unit=unit, data=data
        )
        for number, fault in enumerate(faults, 1):
            wrong, acts = found._replace(**fault(found, given)), data["fault"] == number
            result = jax.tree.map(partial(jnp.where, acts), wrong, result)
        return result

    return replace(with_number(cell), adjoint=adjoint, adjoint_reads_blocks=True)


def _without_none(found, before, unit, data):
    """The cotangents of a step with zeros for None."""
    nothing = jnp.zeros_like(before[0])

    def filled(d, like):
        return {name: (d or {}).get(name, nothing) for name in like}

    return found._replace(
        before=tuple(nothing if d is None else d for d in found.before or (None,) * len(before)),
        unit=filled(found.unit, unit),
        data=filled(found.data, floating(data)),
    )


def block(values, number, formula):
    """The delta of one block by a formula."""

    def fault(found, given):
        deltas = list(found.blocks)
        deltas[number] = formula(values(found, given))
        return {"blocks": tuple(deltas)}

    return fault


def before(values, number, formula):
    """What goes to a state before the step, beside the matmul."""

    def fault(found, given):
        d = list(found.before)
        d[number] = formula(values(found, given))
        return {"before": tuple(d)}

    return fault


# --- Elman ---------------------------------------------------------------------------------------


def of_elman(found, given):
    return SimpleNamespace(d=given.d[0], h=given.after[0], e=given.before[0])


ELMAN = {
    "1 - h for 1 - h^2": block(of_elman, 0, lambda v: v.d * (1 - v.h)),
    "phi' of another activation": block(of_elman, 0, lambda v: v.d * v.h * (1 - v.h)),
    "phi' of the state before": block(of_elman, 0, lambda v: v.d * (1 - v.e**2)),
    "phi' of h, not of a": block(of_elman, 0, lambda v: v.d / jnp.cosh(v.h) ** 2),
    "no phi'": block(of_elman, 0, lambda v: v.d),
    "clipped before phi'": block(of_elman, 0, lambda v: clip(v.d) * (1 - v.h**2)),
    "dh beside the matmul": before(of_elman, 0, lambda v: v.d),
}


# --- LSTM, and the one with coupled gates --------------------------------------------------------


def of_lstm(found, given):
    i, f, g, o = given.gates
    (dh, dc), e, c = given.d, given.before[1], given.after[1]
    th = jnp.tanh(c)
    return SimpleNamespace(
        i=i, f=f, g=g, o=o, dh=dh, dc=dc, e=e, c=c, th=th, q=dc + dh * o * (1 - th**2)
    )


def lstm_q(q):
    """Another cotangent of c_t, from which all but delta_o follows."""

    def fault(found, given):
        v = of_lstm(found, given)
        d = q(v)
        i, f, g = d * v.g * v.i * (1 - v.i), d * v.e * v.f * (1 - v.f), d * v.i * (1 - v.g**2)
        return {"blocks": (i, f, g, found.blocks[3]), "before": (found.before[0], d * v.f)}

    return fault


LSTM = {
    "q without dh": lstm_q(lambda v: v.dc),
    "q without dc": lstm_q(lambda v: v.dh * v.o * (1 - v.th**2)),
    "q without o": lstm_q(lambda v: v.dc + v.dh * (1 - v.th**2)),
    "q without the derivative of tanh(c)": lstm_q(lambda v: v.dc + v.dh * v.o),
    "q with c for tanh(c)": lstm_q(lambda v: v.dc + v.dh * v.o * (1 - v.c**2)),
    "q clipped": lstm_q(lambda v: clip(v.q)),
    "dh in dc_{t-1} left out": before(of_lstm, 1, lambda v: v.dc * v.f),
    "nothing to c_{t-1}": before(of_lstm, 1, lambda v: 0 * v.q),
    "dc_{t-1} without f": before(of_lstm, 1, lambda v: v.q),
    "dc_{t-1} by i": before(of_lstm, 1, lambda v: v.q * v.i),
    "dc_{t-1} clipped": before(of_lstm, 1, lambda v: clip(v.q * v.f)),
    "dh to h_{t-1} beside the matmul": before(of_lstm, 0, lambda v: v.dh * v.f),
    "delta_i without g": block(of_lstm, 0, lambda v: v.q * v.i * (1 - v.i)),
    "delta_i without 1 - i": block(of_lstm, 0, lambda v: v.q * v.g * v.i),
    "delta_f without c_{t-1}": block(of_lstm, 1, lambda v: v.q * v.f * (1 - v.f)),
    "delta_f of c_t": block(of_lstm, 1, lambda v: v.q * v.c * v.f * (1 - v.f)),
    "delta_g without i": block(of_lstm, 2, lambda v: v.q * (1 - v.g**2)),
    "delta_g with 1 - g": block(of_lstm, 2, lambda v: v.q * v.i * (1 - v.g)),
    "delta_o without tanh(c)": block(of_lstm, 3, lambda v: v.dh * v.o * (1 - v.o)),
    "delta_o with c for tanh(c)": block(of_lstm, 3, lambda v: v.dh * v.c * v.o * (1 - v.o)),
    "delta_o from q": block(of_lstm, 3, lambda v: v.q * v.th * v.o * (1 - v.o)),
    "delta_f and delta_g exchanged": lambda found, given: {
        "blocks": tuple(found.blocks[n] for n in (0, 2, 1, 3))
    },
}


def of_coupled(found, given):
    f, g, o = given.gates
    (dh, dc), e, th = given.d, given.before[1], jnp.tanh(given.after[1])
    return SimpleNamespace(f=f, g=g, e=e, dh=dh, th=th, o=o, q=dc + dh * o * (1 - th**2))


COUPLED = {
    "delta_f without g": block(of_coupled, 0, lambda v: v.q * v.e * v.f * (1 - v.f)),
    "delta_f without c_{t-1}": block(of_coupled, 0, lambda v: -v.q * v.g * v.f * (1 - v.f)),
    "delta_g by f": block(of_coupled, 1, lambda v: v.q * v.f * (1 - v.g**2)),
    "dc_{t-1} by 1 - f": before(of_coupled, 1, lambda v: v.q * (1 - v.f)),
}


# --- GRU -----------------------------------------------------------------------------------------


def of_gru(found, given):
    r, z, n, u = given.gates
    return SimpleNamespace(
        r=r, z=z, n=n, u=u, dh=given.d[0], e=given.before[0], h=given.after[0], dn=found.blocks[2]
    )


def gru_n(delta_n):
    """Another delta_n, from which delta_r and delta_u follow."""

    def fault(found, given):
        v = of_gru(found, given)
        n = delta_n(v)
        return {"blocks": (n * v.u * v.r * (1 - v.r), found.blocks[1], n, n * v.r)}

    return fault


GRU = {
    "delta_n without 1 - z": gru_n(lambda v: v.dh * (1 - v.n**2)),
    "delta_n by z": gru_n(lambda v: v.dh * v.z * (1 - v.n**2)),
    "delta_n without 1 - n^2": gru_n(lambda v: v.dh * (1 - v.z)),
    "delta_n with h_t for n": gru_n(lambda v: v.dh * (1 - v.z) * (1 - v.h**2)),
    "delta_n clipped before delta_r and delta_u": gru_n(lambda v: clip(v.dn)),
    "delta_u without r": block(of_gru, 3, lambda v: v.dn),
    "delta_u from delta_r": block(of_gru, 3, lambda v: v.dn * v.u * v.r),
    "delta_u by z": block(of_gru, 3, lambda v: v.dn * v.z),
    "delta_r without u": block(of_gru, 0, lambda v: v.dn * v.r * (1 - v.r)),
    "delta_r without 1 - r": block(of_gru, 0, lambda v: v.dn * v.u * v.r),
    "delta_r from dh": block(of_gru, 0, lambda v: v.dh * v.u * v.r * (1 - v.r)),
    "delta_r of r * u": block(of_gru, 0, lambda v: v.dn * v.u * v.r**2 * (1 - v.r)),
    "delta_z without h_{t-1}": block(of_gru, 1, lambda v: -v.dh * v.n * v.z * (1 - v.z)),
    "delta_z without n": block(of_gru, 1, lambda v: v.dh * v.e * v.z * (1 - v.z)),
    "delta_z of the other sign": block(of_gru, 1, lambda v: v.dh * (v.n - v.e) * v.z * (1 - v.z)),
    "delta_z with h_t for h_{t-1}": block(
        of_gru, 1, lambda v: v.dh * (v.h - v.n) * v.z * (1 - v.z)
    ),
    "nothing beside the matmul": before(of_gru, 0, lambda v: 0 * v.dh),
    "dh beside the matmul without z": before(of_gru, 0, lambda v: v.dh),
    "dh beside the matmul by 1 - z": before(of_gru, 0, lambda v: v.dh * (1 - v.z)),
    "dh beside the matmul clipped": before(of_gru, 0, lambda v: clip(v.dh * v.z)),
    "delta_n to the state past r": before(of_gru, 0, lambda v: v.dh * v.z + v.dn),
    "delta_r and delta_z exchanged": lambda found, given: {
        "blocks": tuple(found.blocks[n] for n in (1, 0, 2, 3))
    },
}


# --- leaky, learned and with unequal time steps --------------------------------------------------


def of_leaky(found, given):
    (phi,), (e,), (h,), (d,) = given.gates, given.before, given.after, given.d
    rate, dt = jnp.exp(-given.unit["log_tau"]), given.data["dt"]
    alpha = -jnp.expm1(-rate * dt)
    return SimpleNamespace(phi=phi, e=e, h=h, d=d, rate=rate, dt=dt, alpha=alpha, rest=1 - alpha)


def log_tau(formula):
    return lambda found, given: {"unit": {"log_tau": formula(of_leaky(found, given))}}


def dt(formula):
    return lambda found, given: {"data": {"dt": formula(of_leaky(found, given))}}


# d alpha / d log tau = -rate dt (1 - alpha), d alpha / d dt = rate (1 - alpha)
OF_ANY_LEAK = {
    "to the state before by alpha": before(of_leaky, 0, lambda v: v.alpha * v.d),
    "to the state before without 1 - alpha": before(of_leaky, 0, lambda v: v.d),
    "nothing to the state before": before(of_leaky, 0, lambda v: 0 * v.d),
    "to the state before clipped": before(of_leaky, 0, lambda v: clip(v.rest * v.d)),
    "no gradient of the leak": log_tau(lambda v: 0 * v.d),
    "dlog_tau of the other sign": log_tau(lambda v: v.rate * v.dt * v.rest * (v.phi - v.e) * v.d),
    "dlog_tau without the state": log_tau(lambda v: -v.rate * v.dt * v.rest * v.phi * v.d),
    "dlog_tau without what is new": log_tau(lambda v: v.rate * v.dt * v.rest * v.e * v.d),
    "dlog_tau with the state after": log_tau(
        lambda v: -v.rate * v.dt * v.rest * (v.phi - v.h) * v.d
    ),
    "dlog_tau without 1 - alpha": log_tau(lambda v: -v.rate * v.dt * (v.phi - v.e) * v.d),
    "dlog_tau without dt": log_tau(lambda v: -v.rate * v.rest * (v.phi - v.e) * v.d),
    "dtau for dlog_tau": log_tau(lambda v: -(v.rate**2) * v.dt * v.rest * (v.phi - v.e) * v.d),
    "dalpha for dlog_tau": log_tau(lambda v: (v.phi - v.e) * v.d),
    "no gradient of dt": dt(lambda v: 0 * v.d),
    "ddt without the rate": dt(lambda v: v.rest * (v.phi - v.e) * v.d),
    "ddt by dt": dt(lambda v: v.dt * v.rate * v.rest * (v.phi - v.e) * v.d),
    "ddt of the other sign": dt(lambda v: -v.rate * v.rest * (v.phi - v.e) * v.d),
}
LEAKY = OF_ANY_LEAK | {
    "delta without alpha": block(of_leaky, 0, lambda v: (1 - v.phi**2) * v.d),
    "delta by 1 - alpha": block(of_leaky, 0, lambda v: v.rest * (1 - v.phi**2) * v.d),
    "delta without phi'": block(of_leaky, 0, lambda v: v.alpha * v.d),
    "phi' of the state": block(of_leaky, 0, lambda v: v.alpha * (1 - v.h**2) * v.d),
    "phi' of the state before": block(of_leaky, 0, lambda v: v.alpha * (1 - v.e**2) * v.d),
    "clipped before alpha": block(of_leaky, 0, lambda v: v.alpha * clip((1 - v.phi**2) * v.d)),
    "dlog_tau from delta": log_tau(
        lambda v: -v.rate * v.dt * v.rest * (v.phi - v.e) * v.d * (1 - v.phi**2)
    ),
}
RATE = OF_ANY_LEAK | {
    "delta without alpha": block(of_leaky, 0, lambda v: v.d),
    "delta by 1 - alpha": block(of_leaky, 0, lambda v: v.rest * v.d),
    "phi' in delta": block(of_leaky, 0, lambda v: v.alpha * (1 - jnp.tanh(v.phi) ** 2) * v.d),
    "clipped before alpha": block(of_leaky, 0, lambda v: v.alpha * clip(v.d)),
    "dlog_tau with the output for v": log_tau(
        lambda v: -v.rate * v.dt * v.rest * (v.phi - jnp.tanh(v.e)) * v.d
    ),
    "dlog_tau of phi(a)": log_tau(
        lambda v: -v.rate * v.dt * v.rest * (jnp.tanh(v.phi) - v.e) * v.d
    ),
    "to the state before by phi'": before(
        of_leaky, 0, lambda v: v.rest * (1 - jnp.tanh(v.e) ** 2) * v.d
    ),
}


# --- zoneout -------------------------------------------------------------------------------------


def of_zoneout(found, given):
    return SimpleNamespace(
        phi=jnp.tanh(given.gates[0]), e=given.before[0], d=given.d[0], z=given.data["z"]
    )


ZONEOUT = {
    "delta by z": block(of_zoneout, 0, lambda v: v.z * (1 - v.phi**2) * v.d),
    "delta of all": block(of_zoneout, 0, lambda v: (1 - v.phi**2) * v.d),
    "to the state before by 1 - z": before(of_zoneout, 0, lambda v: (1 - v.z) * v.d),
    "no gradient of the data": lambda found, given: {"data": {"z": 0 * found.data["z"]}},
    "gradient of the data of the other sign": lambda found, given: {
        "data": {"z": -found.data["z"]}
    },
}

CELLS = {
    "tanh": ELMAN,
    "lstm": LSTM,
    "gru": GRU,
    "leaky": LEAKY,
    "rate": RATE,
    "coupled": COUPLED,
    "zoneout": ZONEOUT,
}


# --- other functions of a cell -------------------------------------------------------------------


def _output_without_derivative(states):
    return states[0] + jax.lax.stop_gradient(jnp.tanh(states[0]) - states[0])


def _gates_without_reset(blocks):
    r, z, n, u = blocks
    r = jax.nn.sigmoid(r)
    return r, jax.nn.sigmoid(z), jnp.tanh(r * n + u), u


def _update_exchanged(gates, before, unit, data):
    _, z, n, _ = gates
    return (before[0] + z * (n - before[0]),)


_RATE = cell_of("rate", learned=True, dt="step")
OTHER_PARTS = {
    "the output of a rate network without phi'": (
        "rate",
        replace(_RATE, output=_output_without_derivative),
    ),
    "the state of a rate network for its output": ("rate", replace(_RATE, output=None)),
    "the memory of an LSTM for its output": (
        "lstm",
        replace(cell_of("lstm"), output=lambda states: states[1]),
    ),
    "a GRU that resets x": ("gru", replace(cell_of("gru"), gates=_gates_without_reset)),
    "z of a GRU for 1 - z": ("gru", replace(cell_of("gru"), step=_update_exchanged)),
    "x feeds u of a GRU, and h feeds n": (
        "gru",
        replace(cell_of("gru"), x_blocks=(0, 1, 3), h_blocks=(0, 1, 2)),
    ),
}


def fixed_leak_with_gradient():
    """Of a leak that is not learned, at equal time steps."""
    cell = cell_of("leaky")

    def adjoint(d_after, gates, before, unit, data, after):
        found = cell.adjoint(d_after, gates, before, unit, data, after)
        return found._replace(unit={"alpha": (gates[0] - before[0]) * d_after[0]})

    return replace(cell, adjoint=adjoint)
