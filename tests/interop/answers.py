"""Results of another library and of jrnn for the same weights.

`record_peers.py` runs the libraries and records their answers in a file for the tests. Gradients
are those of sum(hs * dhs) + sum(last * dlast), with the names and axes of the other library; those
of jrnn pass through `jrnn.interop`. onnxruntime has no gradients.
"""

import json
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from jrnn import interop
from jrnn.arrays import named_leaves

# Relative to the largest element of each array, in float32; typical values are 3e-7.
TOLERANCE = 1e-5
KERAS = ("kernel", "recurrent_kernel", "bias")  # names of its list of weights in a record

# The weights of a library, as it has them, to the layers of jrnn.
IMPORTS = {
    "torch": lambda weights: interop.from_torch(weights),
    "linen": lambda weights: [(interop.from_linen(weights), None)],
    "nnx": lambda weights: [(interop.from_nnx(weights), None)],
    "haiku": lambda weights: [(interop.from_haiku(weights), None)],
    "keras": lambda weights: [(interop.from_keras([weights[name] for name in KERAS]), None)],
    "equinox": lambda weights: [(interop.from_equinox(weights), None)],
    "onnx": lambda weights: [interop.from_onnx(**weights, linear_before_reset=1)],
}
# And back.
EXPORTS = {
    "torch": interop.to_torch,
    "linen": lambda layers: interop.to_linen(layers[0][0]),
    "nnx": lambda layers: interop.to_nnx(layers[0][0]),
    "nnx, optimized": lambda layers: interop.to_nnx(layers[0][0], optimized=True),
    "haiku": lambda layers: interop.to_haiku(layers[0][0]),
    "keras": lambda layers: dict(zip(KERAS, interop.to_keras(layers[0][0]), strict=True)),
    "equinox": lambda layers: interop.to_equinox(layers[0][0]),
    "onnx": lambda layers: dict(zip("WRB", interop.to_onnx(layers[0]), strict=True)),
}


class Case(NamedTuple):
    """A library with one network: L layers and D directions."""

    library: str  # one of EXPORTS
    weights: Any  # their shapes, as the library has them
    states: list[str]  # h and, of an LSTM, c
    activation: str = "tanh"
    layers: int = 1
    directions: int = 1
    lengths: list[int] | None = None
    starts: bool = True  # False: without initial states
    gradients: bool = True


class Question(NamedTuple):
    """The input of a library with L layers and D directions: float32 NumPy arrays."""

    library: str  # one of EXPORTS
    activation: str
    weights: Any  # in the library's own form
    xs: np.ndarray  # [T, B, I]
    start: dict[str, np.ndarray]  # h [L*D, B, H] and, of an LSTM, c; empty for none
    lengths: np.ndarray | None  # [B]
    dhs: np.ndarray | None  # [T, B, D*H]; None: the library has no gradients
    dlast: dict[str, np.ndarray]  # as `start`


class Answer(NamedTuple):
    """The result of a library."""

    hs: np.ndarray  # [T, B, D*H], 0 in the padding
    last: dict[str, np.ndarray]  # h [L*D, B, H] and, of an LSTM, c
    gradients: Any  # {"weights": in the library's own form, "xs": [T, B, I], "start": as above}


def ask(case, T, B, I, H):
    """Random weights, none of them 0, in the library's form, and random arrays.

    Of NumPy's older generator, which draws the same in every version: a record has only the
    answers.
    """
    random = np.random.RandomState(0)

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    weights = _map_shapes(lambda shape: normal(*shape) / np.float32(H**0.5), case.weights)
    shape = (case.layers * case.directions, B, H)
    return Question(
        case.library,
        case.activation,
        weights,
        xs=normal(T, B, I),
        start={name: normal(*shape) for name in case.states} if case.starts else {},
        lengths=None if case.lengths is None else np.array(case.lengths),
        dhs=normal(T, B, case.directions * H) if case.gradients else None,
        dlast={name: normal(*shape) for name in case.states} if case.gradients else {},
    )


def _map_shapes(f, tree):
    if isinstance(tree, dict):
        return {name: _map_shapes(f, tree[name]) for name in sorted(tree)}
    return f(tree)


def by_vjp(f, question):
    """The answer of a JAX function (weights, xs, start) -> (last, hs), two of them dicts."""
    arguments = jax.tree.map(jnp.asarray, (question.weights, question.xs, question.start))
    if question.dhs is None:
        last, hs = f(*arguments)
        return Answer(*jax.tree.map(np.asarray, (hs, last, {})))
    (last, hs), pull = jax.vjp(f, *arguments)
    gradients = pull(jax.tree.map(jnp.asarray, (question.dlast, question.dhs)))
    named = dict(zip(("weights", "xs", "start"), gradients, strict=True))
    return Answer(*jax.tree.map(np.asarray, (hs, last, named)))


def imported(question):
    return IMPORTS[question.library.split(",")[0]](question.weights)


def by_jrnn(question):
    """The answer of jrnn, layer by layer and direction by direction."""

    def run(weights, xs, start):
        lasts = []
        for layer in imported(question._replace(weights=weights)):
            outputs = []
            for params, reverse in zip(layer, (False, True), strict=True):
                if params is not None:
                    before = {name: s[len(lasts)] for name, s in start.items()}
                    last, hs = one_network(question, params, xs, before, reverse)
                    lasts.append(last)
                    outputs.append(hs)
            xs = jnp.concatenate(outputs, -1)
        return {name: jnp.stack([last[name] for last in lasts]) for name in lasts[0]}, xs

    return by_vjp(run, question)


def one_network(question, params, xs, before, reverse):
    """One network of any kind; its states go in and come back by name."""
    options = {"reverse": reverse}
    if isinstance(params, jrnn.LSTMParams):
        state = jrnn.LSTMState(**before) if before else None
        last, hs = jrnn.lstm(params, xs, state, question.lengths, **options)
        return last._asdict(), hs
    network = jrnn.gru if isinstance(params, jrnn.GRUParams) else jrnn.rnn
    if network is jrnn.rnn:
        options["activation"] = question.activation
    last, hs = network(params, xs, before.get("h"), question.lengths, **options)
    return {"h": last}, hs


def differences(found, expected):
    """The difference of each array, relative to its largest element."""
    right = dict(named_leaves(expected))
    result = {}
    for name, a in named_leaves(found):
        b = right.pop(name)
        if a.shape != b.shape:
            raise ValueError(f"{name}: expected shape {b.shape}; got {a.shape}.")
        result[name] = float(np.abs(a - b).max() / np.abs(b).max())
    if right:
        raise ValueError(f"expected {sorted(right)} too.")
    return result


def save(path, runs, settings):
    """Write one compressed NumPy file: the numbers of all answers, and as JSON what they are."""
    flat = {name: _flat(answer._asdict()) for name, (_, answer) in runs.items()}
    about = {
        name: {
            "case": case._asdict(),
            "arrays": [[path, x.shape] for path, x in flat[name].items()],
        }
        for name, (case, _) in runs.items()
    }
    numbers = {name: np.concatenate([x.ravel() for x in flat[name].values()]) for name in runs}
    np.savez_compressed(path, about=np.array(json.dumps({"runs": about, **settings})), **numbers)


def load(path):
    """Read a file of `save`: the questions and answers by name, and the settings."""
    runs = {}
    with np.load(path) as file:
        settings = json.loads(str(file["about"]))
        for name, about in settings.pop("runs").items():
            tree, numbers = {"last": {}, "gradients": {}}, file[name]
            for path, shape in about["arrays"]:
                x, numbers = np.split(numbers, [math.prod(shape)])
                *parents, last = path.split(":")
                node = tree
                for parent in parents:
                    node = node.setdefault(parent, {})
                node[last] = x.reshape(shape)
            if tree["gradients"]:
                tree["gradients"].setdefault("start", {})
            runs[name] = ask(Case(**about["case"]), **settings["sizes"]), Answer(**tree)
    return runs, settings


def _flat(tree, path=""):
    if not isinstance(tree, dict):
        return {path[1:]: tree}
    return {k: x for name in tree for k, x in _flat(tree[name], f"{path}:{name}").items()}
