"""The cells of `benchmarks.device` one element at a time, each by its step alone."""

import numpy as np
import oracle
from oracle_cells import Cell

sigmoid = oracle.ACTIVATIONS["sigmoid"][0]


def of_elements(step, blocks=1, states=1, output=None):
    """An element's cell from its step alone: an imaginary part is a derivative, exactly."""

    def adjoint(d, a, s, unit, data):
        given, found, small = [*a, *s, *unit.values()], [], 1e-30
        for n in range(len(given)):
            moved = [x + 1j * small * (k == n) for k, x in enumerate(given)]
            of_unit = dict(zip(unit, moved[blocks + states :], strict=True))
            after = step(moved[:blocks], moved[blocks : blocks + states], of_unit, data)
            found.append(sum(dx * x.imag for dx, x in zip(d, after, strict=True)) / small)
        of_unit = dict(zip(unit, found[blocks + states :], strict=True))
        return found[:blocks], found[blocks : blocks + states], of_unit, {}

    return Cell(step, adjoint, states=states, output=output)


def lstm_of_elements(a, s, unit, data):
    i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), np.tanh(a[2]), sigmoid(a[3])
    c = f * s[1] + i * g
    return [o * np.tanh(c), c]


def gru_of_elements(a, s, unit, data):
    r, z = sigmoid(a[0]), sigmoid(a[1])
    return [(1 - z) * np.tanh(a[2] + r * a[3]) + z * s[0]]


def alpha(unit):
    return unit["alpha"] if "alpha" in unit else 1 - np.exp(-1 / np.exp(unit["log_tau"]))


LEAKY = of_elements(lambda a, s, p, _: [s[0] + alpha(p) * (np.tanh(a[0]) - s[0])])
RATE = of_elements(
    lambda a, s, p, _: [s[0] + alpha(p) * (a[0] - s[0])],
    output=(np.tanh, lambda v: 1 - np.tanh(v) ** 2),
)
ELEMENTS = {
    **{f"rnn, {name}": oracle.elman(name) for name in ("relu", "sigmoid", "identity")},
    "rnn": oracle.elman("tanh"),
    "lstm": of_elements(lstm_of_elements, 4, 2)._replace(x=(0, 1, 2, 3), h=(0, 1, 2, 3)),
    "gru": of_elements(gru_of_elements, 4)._replace(x=(0, 1, 2), h=(0, 1, 3)),
    **dict.fromkeys(["leaky", "leaky, learned"], LEAKY),
    **dict.fromkeys(["rate", "rate, learned"], RATE),
}


def expected_results(cell, given, reverse):
    """As `benchmarks.device.oracle.results`, by the oracle of elements."""
    right, H = cell.right, len(given["w_hh"])
    of_states = [right.named(form) for form in ("{}0", "reset_{}", "d{}_last")]
    start, again, d_last = (tuple(given[name] for name in names) for names in of_states)
    bias = [given[name] for name, _ in right.biases if name in given]
    weights = given["w_ih"], given["w_hh"], np.concatenate(bias) if bias else None
    ends = given["lengths"], given["resets"], again, given["recurrent_mask"]
    unit = {name: given[name] for name in right.unit}
    call = ELEMENTS[cell.name], weights, given["xs"], start, *ends
    more = {"d_last": d_last, "dhs": given["dhs"], "reverse": reverse}
    (last, hs), d = oracle.unroll(*call, unit=unit, **more)
    expected = {"hs": hs, **{k: d[k] for k in ("w_ih", "w_hh", "xs", "recurrent_mask") if k in d}}
    for form, of in (("{}_last", last), ("{}0", d["start"]), ("reset_{}", d["reset_state"])):
        expected |= dict(zip(right.named(form), of, strict=True))
    if bias:
        names, blocks = zip(*right.biases, strict=True)
        parts = np.split(d["b"], np.cumsum([H * len(of) for of in blocks])[:-1])
        expected |= dict(zip(names, parts, strict=True))
    fixed = {"alpha": np.zeros(H)} if "alpha" in unit else {}  # it has no gradient
    return expected | d.get("unit", {}) | fixed
