"""Check that jrnn gives the results of torch, flax, haiku and keras from the same weights.

    python -m benchmarks.peers              compares with the installed libraries
    python -m benchmarks.peers --record     and writes their results to tests/recorded/peers.npz

Outputs, final states and gradients in weights, inputs and initial states must agree, also after the
weights went to jrnn and back. The record must agree too; without the libraries the tests compare
jrnn with the record. The code of docs/coming_from.md also runs here. Requirements:
benchmarks/requirements.txt.
"""

import argparse
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.nn.utils import rnn as packing

from benchmarks import rivals
from benchmarks.recorded import (
    IMPORTS,
    KERAS,
    TOLERANCE,
    Answer,
    Question,
    by_jrnn,
    by_vjp,
    differences,
    load,
    save,
)
from jrnn import interop
from jrnn.checks import refuse

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests/recorded/peers.npz"
PAGE = ROOT / "docs/coming_from.md"
PACKAGES = ("torch", "flax", "dm-haiku", "keras", "jax", "numpy")

T, B, I, H = 7, 4, 3, 5
LENGTHS = np.array([4, 7, 1, 6])
SEED = 0


class Peer(NamedTuple):
    """A library with one network."""

    library: str
    activation: str
    weights: Any  # of its network, for their shapes
    answer: Callable[[Question], Answer]
    layers: int = 1
    directions: int = 1
    lengths: np.ndarray | None = None


def torch_peer(
    activation: str, layers: int = 1, directions: int = 1, lengths: np.ndarray | None = None
) -> Peer:
    """`nn.RNN`, on packed sequences if there are lengths."""
    rnn = torch.nn.RNN(I, H, layers, nonlinearity=activation, bidirectional=directions == 2)

    def answer(question: Question) -> Answer:
        rnn.load_state_dict({k: torch.tensor(x) for k, x in question.weights.items()})
        rnn.zero_grad()
        xs, h0 = (torch.tensor(x, requires_grad=True) for x in (question.xs, question.h0))
        if lengths is None:
            hs, h_last = rnn(xs, h0)
        else:
            packed = packing.pack_padded_sequence(xs, torch.tensor(lengths), enforce_sorted=False)
            packed, h_last = rnn(packed, h0)
            hs, _ = packing.pad_packed_sequence(packed, total_length=T)
        cost = (hs * torch.tensor(question.dhs)).sum()
        cost = cost + (h_last * torch.tensor(question.dh_last)).sum()
        cost.backward()
        weights = {name: p.grad.clone().numpy() for name, p in rnn.named_parameters()}
        gradients = {"weights": weights, "xs": xs.grad.numpy(), "h0": h0.grad.numpy()}
        return Answer(hs.detach().numpy(), h_last.detach().numpy(), gradients)

    weights = {name: x.numpy() for name, x in rnn.state_dict().items()}
    return Peer("torch", activation, weights, answer, layers, directions, lengths)


def linen_peer() -> Peer:
    """`nn.RNN` of a `SimpleCell`."""
    rnn = nn.RNN(nn.SimpleCell(H), time_major=True, return_carry=True)
    variables = rnn.init(jax.random.key(0), jnp.zeros((T, B, I)))

    def run(weights: Any, xs: Any, h0: Any) -> Any:
        h_last, hs = rnn.apply({"params": {"cell": weights}}, xs, initial_carry=h0[0])
        return h_last[None], hs

    return Peer("linen", "tanh", variables["params"]["cell"], lambda q: by_vjp(run, q))


def nnx_peer() -> Peer:
    """`nnx.RNN` of a `SimpleCell`."""
    cell = nnx.SimpleCell(I, H, rngs=nnx.Rngs(0))
    graph, state = nnx.split(nnx.RNN(cell, time_major=True, return_carry=True, rngs=False))

    def run(weights: Any, xs: Any, h0: Any) -> Any:
        rnn = nnx.merge(graph, state, copy=True)
        nnx.update(rnn.cell, weights)
        h_last, hs = rnn(xs, initial_carry=h0[0])
        return h_last[None], hs

    weights = nnx.to_pure_dict(nnx.state(cell))
    return Peer("nnx", "tanh", weights, lambda q: by_vjp(run, q))


def haiku_peer() -> Peer:
    """`VanillaRNN`, which has relu and, by default, two biases."""

    def unroll(xs: Any, h0: Any) -> Any:
        return hk.dynamic_unroll(hk.VanillaRNN(H), xs, h0)

    network = hk.without_apply_rng(hk.transform(unroll))

    def run(weights: Any, xs: Any, h0: Any) -> Any:
        hs, h_last = network.apply(weights, xs, h0[0])
        return h_last[None], hs

    weights = network.init(jax.random.key(0), jnp.zeros((T, B, I)), jnp.zeros((B, H)))
    return Peer("haiku", "relu", weights, lambda q: by_vjp(run, q))


def keras_peer() -> Peer:
    """`SimpleRNN`, which is batch-first."""
    keras = rivals.load("keras").keras  # on JAX
    layer = keras.layers.SimpleRNN(H, return_sequences=True, return_state=True)
    layer.build((B, T, I))
    rest = [v.value for v in layer.non_trainable_variables]

    def run(weights: Any, xs: Any, h0: Any) -> Any:
        own = [weights[name] for name in KERAS]
        (hs, h_last), _ = layer.stateless_call(own, rest, xs.swapaxes(0, 1), initial_state=h0[0])
        return h_last[None], hs.swapaxes(0, 1)

    weights = {v.name: np.asarray(v) for v in layer.weights}
    return Peer("keras", "tanh", weights, lambda q: by_vjp(run, q))


def peers() -> dict[str, Peer]:
    """All libraries, by their names in the record."""
    return {
        "torch tanh": torch_peer("tanh"),
        "torch relu": torch_peer("relu"),
        "torch tanh, packed, 2 layers, 2 directions": torch_peer("tanh", 2, 2, LENGTHS),
        "torch relu, packed, 2 layers, 2 directions": torch_peer("relu", 2, 2, LENGTHS),
        "flax linen": linen_peer(),
        "flax nnx": nnx_peer(),
        "haiku": haiku_peer(),
        "keras": keras_peer(),
    }


def question(peer: Peer) -> Question:
    """Random weights, none of them 0, in the library's form, and random arrays."""
    random = np.random.default_rng(SEED)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    weights = jax.tree.map(lambda x: normal(*x.shape) / np.float32(H**0.5), peer.weights)
    states, outputs = (peer.layers * peer.directions, B, H), (T, B, peer.directions * H)
    return Question(
        peer.library,
        peer.activation,
        weights,
        xs=normal(T, B, I),
        h0=normal(*states),
        lengths=peer.lengths,
        dhs=normal(*outputs),
        dh_last=normal(*states),
    )


def back_from_jrnn(question: Question) -> Question:
    """The same question, with weights converted to jrnn and back."""
    layers = IMPORTS[question.library](question.weights)
    params = layers[0][0]
    ways_back: dict[str, Callable[[], Any]] = {
        "torch": lambda: interop.to_torch(layers),
        "linen": lambda: interop.to_linen(params),
        "nnx": lambda: interop.to_nnx(params),
        "haiku": lambda: interop.to_haiku(params),
        "keras": lambda: dict(zip(KERAS, interop.to_keras(params), strict=True)),
    }
    return question._replace(weights=ways_back[question.library]())


def same(what: str, found: Answer, expected: Answer) -> float:
    """Return the largest difference, or raise ValueError."""
    differing = differences(found, expected)
    worst = max(differing, key=differing.__getitem__)
    if not all(d <= TOLERANCE for d in differing.values()):
        said = f"{what} to {TOLERANCE:g} of the largest element"
        refuse(worst, said, f"{differing[worst]:.2g}", f"All: {differing}")
    return differing[worst]


def python_blocks(page: Path) -> str:
    """All Python code of a page."""
    return "\n".join(re.findall(r"^```python.*?\n(.*?)^```", page.read_text(), re.S | re.M))


def main() -> None:
    """Compare the libraries, and record their results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.relative_to(ROOT)}")
    options = parser.parse_args()
    asked = {name: (question(peer), peer) for name, peer in peers().items()}
    runs = {name: (q, peer.answer(q)) for name, (q, peer) in asked.items()}
    for name, (q, answer) in runs.items():
        worst = same(f"{name}, as jrnn", by_jrnn(q), answer)
        again = asked[name][1].answer(back_from_jrnn(q))
        same(f"{name}, its weights back from jrnn", again, answer)
        print(f"{name}: jrnn differs by at most {worst:.1e} of the largest element of an array")
    if options.record:
        versions = {package: version(package) for package in PACKAGES}
        sizes = {"T": T, "B": B, "I": I, "H": H}
        about = {"command": "python -m benchmarks.peers --record", "seed": SEED}
        save(RECORD, runs, {**about, "sizes": sizes, "versions": versions})
        print(f"{RECORD.relative_to(ROOT)}: {RECORD.stat().st_size:,} bytes")
    for name, (q, answer) in load(RECORD)[0].items():
        for a, b in zip(jax.tree.leaves(q), jax.tree.leaves(runs[name][0]), strict=True):
            np.testing.assert_array_equal(a, b)
        same(f"{name}, as recorded", runs[name][1], answer)
    print("the record still holds")
    exec(compile(python_blocks(PAGE), PAGE.name, "exec"), {"__name__": PAGE.name})
    print(f"{PAGE.relative_to(ROOT)} runs")


if __name__ == "__main__":
    main()
