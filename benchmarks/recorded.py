"""Results of another library and of jrnn for the same weights.

`benchmarks.peers` runs the libraries, or records their answers in a file for the tests. Gradients
are those of sum(hs * dhs) + sum(h_last * dh_last), with the names and axes of the other library;
those of jrnn pass through `jrnn.interop`.
"""

import json
from collections.abc import Callable
from pathlib import Path
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
IMPORTS: dict[str, Callable[[Any], list[interop.Layer]]] = {
    "torch": interop.from_torch,
    "linen": lambda weights: [(interop.from_linen(weights), None)],
    "nnx": lambda weights: [(interop.from_nnx(weights), None)],
    "haiku": lambda weights: [(interop.from_haiku(weights), None)],
    "keras": lambda weights: [(interop.from_keras([weights[name] for name in KERAS]), None)],
}


class Question(NamedTuple):
    """The input of a library with L layers and D directions: float32 NumPy arrays."""

    library: str  # one of IMPORTS
    activation: Any
    weights: Any  # in the library's own form
    xs: np.ndarray  # [T, B, I]
    h0: np.ndarray  # [L*D, B, H]
    lengths: np.ndarray | None  # [B]
    dhs: np.ndarray  # [T, B, D*H]
    dh_last: np.ndarray  # [L*D, B, H]


class Answer(NamedTuple):
    """The result of a library."""

    hs: np.ndarray  # [T, B, D*H], 0 in the padding
    h_last: np.ndarray  # [L*D, B, H]
    gradients: Any  # {"weights": in the library's own form, "xs": [T, B, I], "h0": [L*D, B, H]}


def by_vjp(f: Callable[..., tuple[Any, Any]], question: Question) -> Answer:
    """The answer of a JAX function (weights, xs, h0) -> (h_last, hs)."""
    arguments = jax.tree.map(jnp.asarray, (question.weights, question.xs, question.h0))
    (h_last, hs), pull = jax.vjp(f, *arguments)
    gradients = pull((jnp.asarray(question.dh_last), jnp.asarray(question.dhs)))
    named = dict(zip(("weights", "xs", "h0"), gradients, strict=True))
    return Answer(*jax.tree.map(np.asarray, (hs, h_last, named)))


def by_jrnn(question: Question) -> Answer:
    """The answer of jrnn, layer by layer and direction by direction."""

    def run(weights: Any, xs: Any, h0: Any) -> Any:
        h_lasts: list[Any] = []
        for layer in IMPORTS[question.library](weights):
            states = []
            for params, reverse in zip(layer, (False, True), strict=True):
                if params is not None:
                    h_last, hs = jrnn.rnn(
                        params,
                        xs,
                        h0[len(h_lasts)],
                        question.lengths,
                        activation=question.activation,
                        reverse=reverse,
                    )
                    h_lasts.append(h_last)
                    states.append(hs)
            xs = jnp.concatenate(states, -1)
        return jnp.stack(h_lasts), xs

    return by_vjp(run, question)


def differences(found: Answer, expected: Answer) -> dict[str, float]:
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


def save(path: Path, runs: dict[str, tuple[Question, Answer]], settings: dict[str, Any]) -> None:
    """Write one compressed NumPy file: arrays by path, and everything else as JSON."""
    texts = {name: list(question[:2]) for name, (question, _) in runs.items()}
    arrays = {
        name: {**dict(zip(Question._fields[2:], question[2:], strict=True)), **answer._asdict()}
        for name, (question, answer) in runs.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    about = np.array(json.dumps({"runs": texts, **settings}))
    np.savez_compressed(path, about=about, **_flat(arrays))


def load(path: Path) -> tuple[dict[str, tuple[Question, Answer]], dict[str, Any]]:
    """Read a file of `save`."""
    tree: dict[str, Any] = {}
    with np.load(path) as file:
        settings = json.loads(str(file["about"]))
        for key in set(file.files) - {"about"}:
            *parents, last = key.split(":")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = file[key]
    runs = {}
    for name, texts in settings.pop("runs").items():
        fields = [tree[name].get(field) for field in (*Question._fields[2:], *Answer._fields)]
        runs[name] = Question(*texts, *fields[:-3]), Answer(*fields[-3:])
    return runs, settings


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {} if tree is None else {path[1:]: tree}
    return {k: x for name in tree for k, x in _flat(tree[name], f"{path}:{name}").items()}
