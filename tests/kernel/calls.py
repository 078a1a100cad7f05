"""Calls of `kernel.unroll` with any cell: random arguments, their results with every gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from cases import B, H, I, T, differences
from cells import LEAKS

from jrnn import kernel

EVERYTHING = {  # options of `make_call` and `cells.cell_of`
    "ends": "lengths",
    "resets": "state",
    "recurrent_mask": True,
    "z_float": True,
    "learned": True,
    "dt": "step",
}


class Call(NamedTuple):
    """The arguments of `kernel.unroll` but for the spec, and cotangents of its results."""

    arguments: dict[str, Any]  # w_ih, w_hh, b and those of `kernel.unroll`, by name
    d_last: tuple[np.ndarray, ...]
    dhs: np.ndarray
    reverse: bool


def oracle_of(name):
    return oracle.CELLS[name] if name in oracle.CELLS else oracle.elman(name)


def make_call(
    name,
    *,
    batch=True,
    inputs="vectors",
    bias=True,
    start="[B, H]",
    second=None,
    ends=None,
    resets=None,
    recurrent_mask=False,
    z="step",
    z_float=False,
    learned=False,
    dt=None,
    reverse=False,
    seed=0,
    T=T,
    B=B,
    I=I,
    H=H,
):
    """Random arguments of order 1; NaN wherever a step does not count.

    Args:
        name: of a cell.
        batch: False: one sequence.
        inputs: "vectors", "ids" or "added", which is without w_ih.
        bias: whether there is one.
        start: "None", "[H]" or "[B, H]": the first state, and that after a reset.
        second: the same of the second state; None: as the first.
        ends: None, "lengths" or "mask", with gaps.
        resets: None, "zero" or "state": what they go back to.
        recurrent_mask: whether there is one.
        z: the data of the zoneout cell, for each "step", "[B, H]" or "[H]".
        z_float: whether they are floats; or bool.
        learned: whether a leak has a gradient.
        dt: the time steps of a leaky cell: None, for each "step", "[B, H]" or "[H]".
        reverse: the direction.
        seed: of the arguments.
        T: steps.
        B: sequences.
        I: numbers of an input, or ids.
        H: hidden units.

    Returns:
        The `Call`.
    """
    rng, cell = np.random.default_rng(seed), oracle_of(name)
    lead = (T, B) if batch else (T,)
    each = lead[1:]
    X, Y, G = len(cell.x), len(cell.h), 1 + max(*cell.x, *cell.h)

    def normal(*shape):
        return rng.normal(size=shape)

    def states():
        forms = {"None": (), "[H]": (H,), "[B, H]": (*each, H)}
        of = (start, second or start)[: cell.states]
        return tuple(normal(*forms[form]) if forms[form] else None for form in of)

    def data(form):
        return rng.random({"[H]": (H,), "[B, H]": (*each, H)}.get(form, (*lead, H)))

    given = {
        "w_ih": None if inputs == "added" else normal(I, X * H),
        "w_hh": normal(H, Y * H) / H**0.5,
        "b": normal(G * H) if bias else None,
        "xs": normal(*lead, X * H if inputs == "added" else I),
        "start": states(),
    }
    if inputs == "ids":
        given["xs"] = rng.integers(0, I, lead)
    dhs, counted = normal(*lead, H), np.ones(lead, bool)
    if ends == "lengths":
        given["lengths"] = np.resize([T, 0, max(T - 3, 1)], B) if batch else max(T - 2, 1)
        counted = np.arange(T).reshape(-1, *(1 for _ in each)) < given["lengths"]
    elif ends == "mask":
        counted = rng.random(lead) < 0.6
        given["mask"] = counted
    if resets is not None:
        given["resets"] = rng.random(lead) < 1 / 3
        given["resets"][0] = np.arange(B) % 2 == 0 if batch else rng.random() < 1 / 2
    if resets == "state":
        given["reset_state"] = states()
    if recurrent_mask:
        given["recurrent_mask"] = (rng.random((*each, H)) < 0.7) / 0.7
    if name in LEAKS:
        alpha = np.append(rng.uniform(0.1, 0.9, H - 1), 1.0)
        given["unit"] = {"log_tau": normal(H)} if learned else {"alpha": alpha}
    if name in LEAKS and dt is not None:
        given["data"] = {"dt": 0.5 + data(dt)}
    if name == "zoneout":
        given["data"] = {"z": data(z) if z_float else data(z) < 0.5}
    for x in given.get("data", {}).values():
        if x.shape[: len(lead)] == lead and is_float(x):
            x[~counted] = np.nan
    if inputs != "ids":
        given["xs"][~counted] = np.nan
    dhs[~counted] = np.nan
    return Call(given, tuple(normal(*each, H) for _ in range(cell.states)), dhs, reverse)


def is_float(x):
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def parts(tree):
    """The floating leaves, which are differentiated, and the others; None where the other is."""
    return (
        jax.tree.map(lambda x: x if is_float(x) else None, tree),
        jax.tree.map(lambda x: None if is_float(x) else x, tree),
    )


def both(floats, others):
    return jax.tree.map(
        lambda x, y: y if x is None else x, floats, others, is_leaf=lambda x: x is None
    )


def on_floats(f, call):
    """The call with f of each of its floating arrays."""
    arrays = jax.tree.map(lambda x: f(x) if is_float(x) else x, call[:3])
    return Call(*arrays, call.reverse)


def unroll(spec, arguments, reverse, **options):
    """`kernel.unroll` of arguments by name."""
    names = ("w_ih", "w_hh", "b")
    rest = {k: x for k, x in arguments.items() if k not in names}
    weights = kernel.Weights(*(arguments[name] for name in names))
    return kernel.unroll(spec, weights, **rest, reverse=reverse, **options)


def results(spec, call, unroll=unroll, **options):
    """The outputs, and the cotangents by the names of the oracle."""
    floats, others = parts(call.arguments)

    def run(floats):
        return unroll(spec, both(floats, others), call.reverse, **options)

    outputs, vjp = jax.vjp(run, floats)
    given = jax.tree.map(lambda d, y: jnp.asarray(d, y.dtype), (call.d_last, call.dhs), outputs)
    (cotangents,) = vjp(given)
    return outputs, {k: d for k, d in cotangents.items() if jax.tree.leaves(d)}


def expected(name, call, clip_delta=None):
    """The same by the oracle."""
    given = dict(call.arguments)
    weights = tuple(given.pop(k) for k in ("w_ih", "w_hh", "b"))
    options = {"reverse": call.reverse, "clip": np.inf if clip_delta is None else clip_delta}
    cotangents = {"d_last": call.d_last, "dhs": call.dhs}
    outputs, d = oracle.unroll(oracle_of(name), weights, **given, **cotangents, **options)
    return outputs, {k: x for k, x in d.items() if jax.tree.leaves(x)}


def worst(found, wanted):
    """The largest difference in an array, as a share of its largest element; NaN is the worst."""
    return float(np.max(list(differences(found, wanted).values())))


# --- one sequence of a batch ----------------------------------------------------------------------


def axes(call):
    """The axis of the batch in each array, None where it has none."""
    lead, of_steps = np.ndim(call.dhs) - 1, ("xs", "resets", "mask", "data")

    def axis(path, x):
        name = path[0].key
        if name in ("w_ih", "w_hh", "b", "unit"):
            return None
        if name in of_steps and np.ndim(x) >= lead and x.shape[:lead] == call.dhs.shape[:lead]:
            return 1
        return 0 if name == "lengths" or np.ndim(x) == 2 else None

    return jax.tree_util.tree_map_with_path(axis, call.arguments)


def nth(call, b):
    """The call of sequence b alone."""
    taken = jax.tree.map(
        lambda x, axis: x if axis is None else np.take(x, b, axis),
        call.arguments,
        axes(call),
        is_leaf=lambda x: x is None,
    )
    return Call(taken, tuple(d[b] for d in call.d_last), call.dhs[:, b], call.reverse)


def mapped(spec, arguments, reverse, *, axes):
    """A batch as the `vmap` of one sequence."""
    one = jax.vmap(lambda a: unroll(spec, a, reverse), (axes,), (0, 1))
    return one(arguments)
