"""Compare jrnn with torch, flax, haiku, keras, equinox and onnxruntime from the same weights.

    pip install -e . -r tests/interop/requirements.txt
    python tests/interop/record_peers.py              compares with the installed libraries
    python tests/interop/record_peers.py --record     and writes tests/recorded/peers.npz

Outputs, final states and gradients in weights, inputs and initial states must agree, also after the
weights went to jrnn and back. The record must agree too; without the libraries the tests compare
jrnn with the record. The code of docs/coming_from.md also runs here.
"""

import argparse
import os
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

os.environ["KERAS_BACKEND"] = "jax"

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import onnx
import onnxruntime
import torch
from answers import (
    EXPORTS,
    KERAS,
    TOLERANCE,
    Answer,
    Case,
    Question,
    ask,
    by_jrnn,
    by_vjp,
    differences,
    imported,
    load,
    save,
)
from flax import nnx
from torch.nn.utils import rnn as packing

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests/recorded/peers.npz"
PAGE = ROOT / "docs/coming_from.md"
PACKAGES = ("torch", "flax", "dm-haiku", "keras", "equinox", "onnxruntime", "jax", "numpy")

SIZES = {"T": 6, "B": 3, "I": 2, "H": 5}
T, B, I, H = SIZES.values()
LENGTHS = [4, 6, 1]


class Peer(NamedTuple):
    """A library with one network."""

    case: Case
    answer: Callable[[Question], Answer]


def peer(library, weights, answer, states=("h",), **options):
    """Of the weights only the shapes count."""
    shapes = jax.tree.map(lambda x: list(x.shape), dict(weights))
    return Peer(Case(library, shapes, list(states), **options), answer)


def states_of(kind):
    return ("h", "c") if "LSTM" in kind else ("h",)


# --- torch ---------------------------------------------------------------------------------------


def torch_peer(kind, layers=1, directions=1, lengths=None, starts=True, activation="tanh"):
    """`nn.RNN`, `nn.LSTM` or `nn.GRU`, on packed sequences if there are lengths."""
    options = {"nonlinearity": activation} if kind == "RNN" else {}
    bidirectional = directions == 2
    rnn = getattr(torch.nn, kind)(I, H, layers, bidirectional=bidirectional, **options)
    names = states_of(kind)

    def answer(question):
        rnn.load_state_dict({k: torch.tensor(x) for k, x in question.weights.items()})
        rnn.zero_grad()
        xs = torch.tensor(question.xs, requires_grad=True)
        start = {k: torch.tensor(x, requires_grad=True) for k, x in question.start.items()}
        state = tuple(start.values()) if len(start) == 2 else start.get("h")
        read = xs
        if lengths is not None:
            counts = torch.tensor(lengths)
            read = packing.pack_padded_sequence(xs, counts, enforce_sorted=False)
        hs, last = rnn(read, state)
        if lengths is not None:
            hs, _ = packing.pad_packed_sequence(hs, total_length=T)
        last = dict(zip(names, last if len(names) == 2 else (last,), strict=True))
        cost = (hs * torch.tensor(question.dhs)).sum()
        for name, s in last.items():
            cost = cost + (s * torch.tensor(question.dlast[name])).sum()
        cost.backward()
        gradients = {
            "weights": {name: p.grad.clone().numpy() for name, p in rnn.named_parameters()},
            "xs": xs.grad.numpy(),
            "start": {name: s.grad.numpy() for name, s in start.items()},
        }
        last = {name: s.detach().numpy() for name, s in last.items()}
        return Answer(hs.detach().numpy(), last, gradients)

    weights = {name: x.numpy() for name, x in rnn.state_dict().items()}
    many = {"layers": layers, "directions": directions, "lengths": lengths, "starts": starts}
    return peer("torch", weights, answer, names, activation=activation, **many)


# --- flax ----------------------------------------------------------------------------------------


def to_carry(start):
    """The states of one layer, as flax has them: (c, h) of an LSTM."""
    return (start["c"][0], start["h"][0]) if "c" in start else start["h"][0]


def of_carry(carry):
    c, h = carry if isinstance(carry, tuple) else (None, carry)
    return {"h": h[None]} | ({} if c is None else {"c": c[None]})


def linen_peer(kind):
    rnn = nn.RNN(getattr(nn, kind)(H), time_major=True, return_carry=True)
    variables = rnn.init(jax.random.key(0), jnp.zeros((T, B, I)))

    def run(weights, xs, start):
        variables = {"params": {"cell": weights}}
        carry, hs = rnn.apply(variables, xs, initial_carry=to_carry(start))
        return of_carry(carry), hs

    return peer("linen", variables["params"]["cell"], lambda q: by_vjp(run, q), states_of(kind))


def nnx_peer(kind):
    cell = getattr(nnx, kind)(I, H, rngs=nnx.Rngs(0))
    graph, state = nnx.split(nnx.RNN(cell, time_major=True, return_carry=True, rngs=False))

    def run(weights, xs, start):
        rnn = nnx.merge(graph, state, copy=True)
        nnx.update(rnn.cell, weights)
        carry, hs = rnn(xs, initial_carry=to_carry(start))
        return of_carry(carry), hs

    library = "nnx, optimized" if kind == "OptimizedLSTMCell" else "nnx"
    weights = nnx.to_pure_dict(nnx.state(cell, nnx.Param))
    return peer(library, weights, lambda q: by_vjp(run, q), states_of(kind))


# --- haiku, keras, equinox -----------------------------------------------------------------------


def haiku_peer(kind):
    """`VanillaRNN`, which has relu and, by default, two biases; or `LSTM`."""
    names = states_of(kind)

    def unroll(xs, start):
        state = hk.LSTMState(start["h"][0], start["c"][0]) if "c" in names else start["h"][0]
        return hk.dynamic_unroll(getattr(hk, kind)(H), xs, state)

    network = hk.without_apply_rng(hk.transform(unroll))

    def run(weights, xs, start):
        hs, last = network.apply(weights, xs, start)
        last = last if isinstance(last, tuple) else (last,)
        return {name: s[None] for name, s in zip(names, last, strict=True)}, hs

    start = {name: jnp.zeros((1, B, H)) for name in names}
    weights = network.init(jax.random.key(0), jnp.zeros((T, B, I)), start)
    activation = "relu" if kind == "VanillaRNN" else "tanh"
    return peer("haiku", weights, lambda q: by_vjp(run, q), names, activation=activation)


def keras_peer(kind):
    """Batch-first; a `GRU` resets after the matmul by default."""
    names = states_of(kind)
    layer = getattr(keras.layers, kind)(H, return_sequences=True, return_state=True)
    layer.build((B, T, I))
    rest = [v.value for v in layer.non_trainable_variables]

    def run(weights, xs, start):
        own = [weights[name] for name in KERAS]
        states = [start[name][0] for name in names]
        states = states[0] if kind == "SimpleRNN" else states
        (hs, *last), _ = layer.stateless_call(own, rest, xs.swapaxes(0, 1), initial_state=states)
        return {name: s[None] for name, s in zip(names, last, strict=True)}, hs.swapaxes(0, 1)

    weights = dict(zip(KERAS, layer.get_weights(), strict=True))
    return peer("keras", weights, lambda q: by_vjp(run, q), names)


def equinox_peer(kind):
    """A cell takes one vector."""
    names = states_of(kind)
    cell = getattr(eqx.nn, kind)(I, H, key=jax.random.key(0))
    fields = ["weight_ih", "weight_hh", "bias", *(["bias_n"] if kind == "GRUCell" else [])]

    def run(weights, xs, start):
        own = eqx.tree_at(
            lambda c: [getattr(c, name) for name in fields], cell, [weights[n] for n in fields]
        )

        def step(states, x_t):
            states = jax.vmap(own)(x_t, states)
            return states, states[0] if "c" in names else states

        first = tuple(start[name][0] for name in names)
        last, hs = jax.lax.scan(step, first if "c" in names else first[0], xs)
        last = last if isinstance(last, tuple) else (last,)
        return {name: s[None] for name, s in zip(names, last, strict=True)}, hs

    weights = {name: getattr(cell, name) for name in fields}
    return peer("equinox", weights, lambda q: by_vjp(run, q), names)


# --- ONNX ----------------------------------------------------------------------------------------


def onnx_peer(kind, directions=1, lengths=None):
    """A graph of one node, in onnxruntime."""
    names = states_of(kind)
    G = {"RNN": 1, "LSTM": 4, "GRU": 3}[kind]
    shapes = {
        "W": (directions, G * H, I),
        "R": (directions, G * H, H),
        "B": (directions, 2 * G * H),
    }
    last = [f"Y_{name}" for name in names]
    fed = ["X", "W", "R", "B", "lengths", *(f"initial_{name}" for name in names)]
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    direction = "bidirectional" if directions == 2 else "forward"
    node = onnx.helper.make_node(
        kind, fed, ["Y", *last], hidden_size=H, direction=direction, **more
    )
    types = onnx.TensorProto.INT32, onnx.TensorProto.FLOAT
    values = [onnx.helper.make_tensor_value_info(n, types[n != "lengths"], None) for n in fed]
    results = [onnx.helper.make_tensor_value_info(n, types[1], None) for n in ("Y", *last)]
    graph = onnx.helper.make_graph([node], kind, values, results)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def answer(question):
        counts = np.array(lengths or [T] * B)
        Y, *last = session.run(
            None,
            {
                "X": question.xs,
                **question.weights,
                "lengths": counts.astype(np.int32),
                **{f"initial_{name}": s for name, s in question.start.items()},
            },
        )
        hs = Y.swapaxes(1, 2).reshape(T, B, directions * H)
        return Answer(hs, dict(zip(names, last, strict=True)), {})

    weights = {name: np.zeros(shape) for name, shape in shapes.items()}
    many = {"directions": directions, "lengths": lengths, "gradients": False}
    return peer("onnx", weights, answer, names, **many)


# --- all -----------------------------------------------------------------------------------------


def peers():
    """All libraries, by their names in the record."""
    both = {"layers": 2, "directions": 2, "lengths": LENGTHS}
    several = "packed, 2 layers, 2 directions"
    return {
        "torch RNN": torch_peer("RNN"),
        "torch RNN, relu": torch_peer("RNN", activation="relu"),
        f"torch RNN, {several}": torch_peer("RNN", **both),
        f"torch RNN, relu, {several}": torch_peer("RNN", **both, activation="relu"),
        **{
            f"torch {kind}{name}": torch_peer(kind, **options)
            for kind in ("LSTM", "GRU")
            for name, options in {
                "": {},
                ", start None": {"starts": False},
                f", {several}": both,
            }.items()
        },
        **{
            f"linen {kind}": linen_peer(kind)
            for kind in ("SimpleCell", "LSTMCell", "OptimizedLSTMCell", "GRUCell")
        },
        **{
            f"nnx {kind}": nnx_peer(kind)
            for kind in ("SimpleCell", "LSTMCell", "OptimizedLSTMCell", "GRUCell")
        },
        **{f"haiku {kind}": haiku_peer(kind) for kind in ("VanillaRNN", "LSTM")},
        **{f"keras {kind}": keras_peer(kind) for kind in ("SimpleRNN", "LSTM", "GRU")},
        **{f"equinox {kind}": equinox_peer(kind) for kind in ("LSTMCell", "GRUCell")},
        **{
            f"onnx {kind}, lengths, 2 directions": onnx_peer(kind, 2, LENGTHS)
            for kind in ("RNN", "LSTM", "GRU")
        },
    }


def back_from_jrnn(question):
    """The same question, with weights converted to jrnn and back."""
    return question._replace(weights=EXPORTS[question.library](imported(question)))


def same(what, found, expected):
    """Return the largest difference, or raise ValueError."""
    differing = differences(found, expected)
    worst = max(differing, key=differing.__getitem__)
    if not all(d <= TOLERANCE for d in differing.values()):
        raise ValueError(f"{what}: {worst} differs by {differing[worst]:.2g}. All: {differing}")
    return differing[worst]


def python_blocks(page):
    """All Python code of a page."""
    return "\n".join(re.findall(r"^```python.*?\n(.*?)^```", page.read_text(), re.S | re.M))


def main():
    """Compare the libraries, and record their results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.relative_to(ROOT)}")
    options = parser.parse_args()
    runs = {}
    for name, (case, answer) in peers().items():
        question = ask(case, **SIZES)
        runs[name] = case, answer(question)
        worst = same(f"{name}, as jrnn", by_jrnn(question), runs[name][1])
        back = answer(back_from_jrnn(question))
        back = same(f"{name}, its weights back from jrnn", back, runs[name][1])
        print(f"{name}: at most {worst:.1e} of the largest element; back again {back:.1e}")
    if options.record:
        versions = {package: version(package) for package in PACKAGES}
        about = {"command": "python tests/interop/record_peers.py --record", "sizes": SIZES}
        save(RECORD, runs, {**about, "versions": versions})
        print(f"{RECORD.relative_to(ROOT)}: {RECORD.stat().st_size:,} bytes")
    recorded, _ = load(RECORD)
    for name, (_, answer) in runs.items():
        same(f"{name}, as recorded", answer, recorded[name][1])
    print("the record still holds")
    exec(compile(python_blocks(PAGE), PAGE.name, "exec"), {"__name__": PAGE.name})
    print(f"{PAGE.relative_to(ROOT)} runs")


if __name__ == "__main__":
    main()
