"""Weights of other libraries: the record of what those make of them, and every refusal."""

import ast
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close

import jrnn
from benchmarks import recorded
from jrnn import interop

RECORD = Path(__file__).parent / "recorded/peers.npz"
RUNS, ABOUT = recorded.load(RECORD)
PACKED = "torch tanh, packed, 2 layers, 2 directions"


@pytest.mark.parametrize("name", RUNS)
def test_as_recorded(name):
    question, answer = RUNS[name]
    assert_close(recorded.by_jrnn(question), answer, recorded.TOLERANCE)


def test_the_record():
    assert set(RUNS) >= {PACKED, PACKED.replace("tanh", "relu")}
    assert {q.library for q, _ in RUNS.values()} == set(recorded.IMPORTS)
    for question, answer in RUNS.values():
        assert all(
            x.dtype == np.float32 and x.any() for x in jax.tree.leaves((question[2:5], answer))
        )
        assert set(answer.gradients["weights"]) == set(question.weights)
    question, answer = RUNS[PACKED]
    T = len(question.xs)
    assert {1, T} < set(question.lengths.tolist())
    for b, n in enumerate(question.lengths):
        assert not answer.hs[n:, b].any()
    assert {"command", "seed", "sizes", "versions"} == ABOUT.keys()
    assert RECORD.stat().st_size < 100_000


def untransposed(layers):
    return [(forward._replace(w_hh=forward.w_hh.T), backward) for forward, backward in layers]


def one_bias(layers):
    return [(forward._replace(b_h=forward.b_h / 2), backward) for forward, backward in layers]


def swapped(layers):
    return [(backward or forward, backward and forward) for forward, backward in layers]


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (untransposed, "torch tanh"),
        (one_bias, "haiku"),
        (swapped, PACKED),
    ],
)
def test_planted_faults_are_found(fault, name, monkeypatch):
    question, answer = RUNS[name]
    right = recorded.IMPORTS[question.library]
    monkeypatch.setitem(recorded.IMPORTS, question.library, lambda weights: fault(right(weights)))
    assert recorded.differences(recorded.by_jrnn(question), answer)["hs"] > 0.1


# --- both ways -----------------------------------------------------------------------------------

I, H = 3, 4


RANDOM = np.random.default_rng(0)


def normal(*shape, dtype=np.float64):
    return RANDOM.normal(size=shape).astype(dtype)


def params(I=I, H=H, bias=True):
    return jrnn.RNNParams(normal(I, H), normal(H, H), normal(H) if bias else None)


def torch_weights(layers=1, directions=1, bias=True, rows=H):
    """As `nn.RNN(I, H, layers).state_dict()` has them."""
    weights = {}
    for n in range(layers):
        for suffix in ("", "_reverse")[:directions]:
            weights[f"weight_ih_l{n}{suffix}"] = normal(rows, directions * H if n else I)
            weights[f"weight_hh_l{n}{suffix}"] = normal(rows, H)
            for kind in ("ih", "hh") if bias else ():
                weights[f"bias_{kind}_l{n}{suffix}"] = normal(rows)
    return weights


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


BOTH_WAYS = {
    "linen": (interop.to_linen, interop.from_linen),
    "nnx": (interop.to_nnx, interop.from_nnx),
    "haiku": (interop.to_haiku, interop.from_haiku),
    "keras": (interop.to_keras, interop.from_keras),
    "torch": (lambda p: interop.to_torch([(p, None)]), lambda w: interop.from_torch(w)[0][0]),
}


@pytest.mark.parametrize("library", BOTH_WAYS)
def test_out_and_in_again(library):
    there, back = BOTH_WAYS[library]
    own = params()
    assert_equal(back(there(own)), jax.tree.map(jnp.asarray, own))
    without = own._replace(b_h=None)
    b_h = None if library in ("torch", "keras") else jnp.zeros(H)
    assert_equal(back(there(without)), without._replace(b_h=b_h))


@pytest.mark.parametrize("name", RUNS)
def test_in_and_out_again(name):
    """The whole bias goes out as the first; the names and shapes are those of the library."""
    weights = RUNS[name][0].weights
    library = RUNS[name][0].library
    layers = recorded.IMPORTS[library](weights)
    if library == "torch":
        found = interop.to_torch(layers)
    else:
        found = BOTH_WAYS[library][0](layers[0][0])
        found = dict(zip(recorded.KERAS, found, strict=True)) if library == "keras" else found
    expected = dict(weights)
    for first in [name for name in weights if name.startswith("bias_ih")]:
        second = first.replace("ih", "hh")
        expected[first] = weights[first] + weights[second]
        expected[second] = 0 * weights[second]
    if library == "haiku":
        first, second = (weights[f"vanilla_rnn/linear{n}"] for n in ("", "_1"))
        expected["vanilla_rnn/linear"] = {**first, "b": first["b"] + second["b"]}
        expected["vanilla_rnn/linear_1"] = {**second, "b": 0 * second["b"]}
    assert_equal(jax.tree.map(np.asarray, found), expected)


def test_torch_gets_arrays_of_its_own():
    own = jax.tree.map(jnp.asarray, params())
    for x in interop.to_torch([(own, None)]).values():
        assert type(x) is np.ndarray
        assert x.flags.writeable  # torch.from_numpy asks for it


def test_torch_without_bias():
    weights = torch_weights(layers=2, bias=False)
    layers = interop.from_torch(weights)
    assert [(forward.b_h, backward) for forward, backward in layers] == [(None, None)] * 2
    assert interop.to_torch(layers).keys() == weights.keys()


class Tensor:
    """What NumPy sees of a tensor of torch."""

    def __init__(self, array, error=None):
        self.array, self.error, self.shape = array, error, array.shape

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return self.array


class State(Mapping):
    """A mapping that is no dict, as `nnx.State` and the frozen dict of linen are."""

    def __init__(self, tree):
        self.tree = tree

    def __getitem__(self, name):
        x = self.tree[name]
        return State(x) if isinstance(x, dict) else x

    def __iter__(self):
        return iter(self.tree)

    def __len__(self):
        return len(self.tree)


def test_of_any_kind_of_array_and_mapping():
    weights = torch_weights(2, 2)
    expected = interop.from_torch(weights)
    tensors = {name: Tensor(x) for name, x in reversed(weights.items())}
    assert_equal(interop.from_torch(tensors), expected)
    tree = interop.to_nnx(params())
    assert_equal(interop.from_nnx(State(tree)), interop.from_nnx(tree))


def test_haiku_by_its_path():
    own = params()
    weights = interop.to_haiku(own, "net/~/vanilla_rnn")
    weights["net/linear"] = {"w": normal(H, 2), "b": normal(2)}
    del weights["net/~/vanilla_rnn/linear_1"]["b"]  # double_bias=False
    found = interop.from_haiku(weights, "net/~/vanilla_rnn")
    assert_equal(found, jax.tree.map(jnp.asarray, own))


def test_half_precision_stays():
    own = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params())
    assert {x.dtype for x in interop.from_linen(interop.to_linen(own))} == {jnp.dtype("bfloat16")}


def test_none_of_the_libraries_is_imported():
    tree = ast.parse(Path(interop.__file__).read_text())
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    packages = {name.split(".")[0] for name in froms | names}
    assert packages == {"collections", "jax", "jrnn", "numpy", "re", "typing"}


# --- refusals ------------------------------------------------------------------------------------


def changed(weights, **entries):
    """With other entries; None takes one out."""
    return {name: x for name, x in {**weights, **entries}.items() if x is not None}


def linen(**entries):
    return changed(interop.to_linen(params()), **entries)


TORCH = "Give the state dict of an nn.RNN alone: model.rnn.state_dict()."
GATES = "All layers have the same H; an LSTM (4 H) or a GRU (3 H) is not an Elman network."
READABLE = "Of a torch tensor take x.detach().cpu().float()."
LINEN = 'Give those of the SimpleCell alone: variables["params"]["cell"] of an nn.RNN.'
PAIRS = "layers: expected a list of pairs (forward RNNParams, backward RNNParams or None); got "

REFUSED = {
    "torch: the module": (
        lambda: interop.from_torch(object()),
        f"state_dict: expected a mapping of names to arrays; got object. {TORCH}",
    ),
    "torch: missing": (
        lambda: interop.from_torch(changed(torch_weights(), weight_hh_l0=None)),
        "weight_hh_l0: expected it in state_dict; got only weight_ih_l0, bias_ih_l0, bias_hh_l0. "
        + TORCH,
    ),
    "torch: empty": (
        lambda: interop.from_torch({}),
        f"weight_ih_l0: expected it in state_dict; got an empty one. {TORCH}",
    ),
    "torch: a direction missing": (
        lambda: interop.from_torch(changed(torch_weights(2, 2), weight_ih_l1_reverse=None)),
        "weight_ih_l1_reverse: expected it in state_dict; got only weight_ih_l0, ",
    ),
    "torch: a layer missing": (
        lambda: interop.from_torch(
            {name: x for name, x in torch_weights(3).items() if "l1" not in name}
        ),
        "weight_ih_l1: expected it in state_dict; got only weight_ih_l0, ",
    ),
    "torch: half of the bias": (
        lambda: interop.from_torch(changed(torch_weights(), bias_hh_l0=None)),
        "bias_hh_l0: expected it in state_dict; got only weight_ih_l0, weight_hh_l0, bias_ih_l0. ",
    ),
    "torch: a layer without bias": (
        lambda: interop.from_torch(changed(torch_weights(2), bias_ih_l1=None, bias_hh_l1=None)),
        "bias_ih_l1: expected it in state_dict; got only weight_ih_l0, ",
    ),
    "torch: a whole model": (
        lambda: interop.from_torch({**torch_weights(), "linear.weight": normal(2, H)}),
        "linear.weight: expected nothing in state_dict but weight_ih_l0, weight_hh_l0, bias_ih_l0, "
        f"bias_hh_l0; got one of shape [2, 4]. {TORCH}",
    ),
    "torch: the rnn of a whole model": (
        lambda: interop.from_torch({f"rnn.{k}": x for k, x in torch_weights().items()}),
        "weight_ih_l0: expected it in state_dict; got only rnn.weight_ih_l0, ",
    ),
    "torch: proj_size": (
        lambda: interop.from_torch({**torch_weights(rows=4 * H), "weight_hr_l0": normal(2, H)}),
        "weight_hr_l0: expected nothing in state_dict but weight_ih_l0, weight_hh_l0, bias_ih_l0, "
        "bias_hh_l0; got one of shape [2, 4].",
    ),
    "torch: an LSTM": (
        lambda: interop.from_torch(torch_weights(rows=4 * H)),
        f"weight_hh_l0: expected shape [H, H] = [4, 4]; got float64[16, 4]. {GATES}",
    ),
    "torch: a GRU": (
        lambda: interop.from_torch(torch_weights(rows=3 * H, bias=False)),
        f"weight_hh_l0: expected shape [H, H] = [4, 4]; got float64[12, 4]. {GATES}",
    ),
    "torch: w_hh that is no matrix": (
        lambda: interop.from_torch({**torch_weights(), "weight_hh_l0": normal(H)}),
        f"weight_hh_l0: expected shape [H, H] = [any, any]; got float64[4]. {GATES}",
    ),
    "torch: transposed": (
        lambda: interop.from_torch({**torch_weights(), "weight_ih_l0": normal(I, H)}),
        "weight_ih_l0: expected shape [H, I] = [4, any]; got float64[3, 4]. "
        "H is that of weight_hh_l0; above the first layer, I is the size of the outputs below.",
    ),
    "torch: bias misshapen": (
        lambda: interop.from_torch({**torch_weights(), "bias_hh_l0": normal(1, H)}),
        "bias_hh_l0: expected shape [H] = [4]; got float64[1, 4].",
    ),
    "torch: one direction below two": (
        lambda: interop.from_torch({**torch_weights(2, 2), "weight_ih_l1": normal(H, H)}),
        "weight_ih_l1: expected shape [H, I] = [4, 8]; got float64[4, 4]. "
        "H is that of weight_hh_l1; above the first layer, I is the size of the outputs below.",
    ),
    "torch: backwards of other inputs": (
        lambda: interop.from_torch({**torch_weights(1, 2), "weight_ih_l0_reverse": normal(H, 5)}),
        "weight_ih_l0_reverse: expected shape [H, I] = [4, 3]; got float64[4, 5].",
    ),
    "torch: layers of other sizes": (
        lambda: interop.from_torch({**torch_weights(2), "weight_hh_l1": normal(5, 5)}),
        f"weight_hh_l1: expected shape [H, H] = [4, 4]; got float64[5, 5]. {GATES}",
    ),
    "torch: mixed dtypes": (
        lambda: interop.from_torch({**torch_weights(), "bias_ih_l0": normal(H, dtype=np.float32)}),
        "bias_ih_l0: expected the dtype of weight_ih_l0, float64; got float32. "
        "One floating dtype runs through a call: cast either of the two by .astype.",
    ),
    "torch: mixed dtypes between layers": (
        lambda: interop.from_torch(
            {**torch_weights(2), "weight_hh_l1": normal(H, H, dtype=np.float16)}
        ),
        "weight_hh_l1: expected the dtype of weight_ih_l0, float64; got float16.",
    ),
    "torch: quantised": (
        lambda: interop.from_torch({**torch_weights(), "weight_ih_l0": np.ones((H, I), np.int8)}),
        "weight_ih_l0: expected a floating dtype; got int8[4, 3].",
    ),
    "torch: of a graph": (
        lambda: interop.from_torch(
            {**torch_weights(), "bias_hh_l0": Tensor(normal(H), RuntimeError("requires grad"))}
        ),
        f"bias_hh_l0: expected an array that NumPy can read; got requires grad. {READABLE}",
    ),
    "torch: of bfloat16": (
        lambda: interop.from_torch(
            {**torch_weights(), "bias_hh_l0": Tensor(normal(H), TypeError("BFloat16"))}
        ),
        f"bias_hh_l0: expected an array that NumPy can read; got BFloat16. {READABLE}",
    ),
    "torch: no array": (
        lambda: interop.from_torch({**torch_weights(), "bias_hh_l0": None}),
        f"bias_hh_l0: expected an array that NumPy can read; got NoneType. {READABLE}",
    ),
    "torch: a text": (
        lambda: interop.from_torch({**torch_weights(), "bias_hh_l0": "zeros"}),
        f"bias_hh_l0: expected an array that NumPy can read; got str. {READABLE}",
    ),
    "torch: no names": (
        lambda: interop.from_torch({0: normal(I, H)}),
        f"weight_ih_l0: expected it in state_dict; got only 0. {TORCH}",
    ),
    "to torch: parameters alone": (
        lambda: interop.to_torch(params()),
        f"{PAIRS}['ndarray', 'ndarray', 'ndarray']. A layer in one direction is [(params, None)].",
    ),
    "to torch: a list of parameters": (
        lambda: interop.to_torch([params()]),
        f"{PAIRS}['RNNParams']. A layer in one direction is [(params, None)].",
    ),
    "to torch: no layer": (lambda: interop.to_torch([]), f"{PAIRS}[]."),
    "to torch: no list": (lambda: interop.to_torch(None), f"{PAIRS}NoneType."),
    "to torch: backward alone": (
        lambda: interop.to_torch([(None, params())]),
        f"{PAIRS}['tuple'].",
    ),
    "to torch: a layer in one direction": (
        lambda: interop.to_torch([(params(), params()), (params(2 * H), None)]),
        "weight_ih_l1_reverse: expected it in state_dict; got only weight_ih_l0, ",
    ),
    "to torch: a layer without bias": (
        lambda: interop.to_torch([(params(), None), (params(H, bias=False), None)]),
        "bias_ih_l1: expected it in state_dict; got only weight_ih_l0, ",
    ),
    "to torch: layers of other sizes": (
        lambda: interop.to_torch([(params(), None), (params(H, 5), None)]),
        f"weight_hh_l1: expected shape [H, H] = [4, 4]; got float64[5, 5]. {GATES}",
    ),
    "to torch: layers that do not fit": (
        lambda: interop.to_torch([(params(), None), (params(2 * H), None)]),
        "weight_ih_l1: expected shape [H, I] = [4, 4]; got float64[4, 8].",
    ),
    "linen: the variables": (
        lambda: interop.from_linen({"params": {"cell": linen()}}),
        "i/kernel: expected it in params; got only params/cell/i/kernel, params/cell/i/bias, "
        f"params/cell/h/kernel. {LINEN}",
    ),
    "linen: missing": (
        lambda: interop.from_linen(linen(i={"kernel": normal(I, H)})),
        f"i/bias: expected it in params; got only i/kernel, h/kernel. {LINEN}",
    ),
    "linen: extra": (
        lambda: interop.from_linen(linen(h={"kernel": normal(H, H), "bias": normal(H)})),
        "h/bias: expected nothing in params but i/kernel, h/kernel, i/bias; "
        f"got one of shape [4]. {LINEN}",
    ),
    "linen: an array": (
        lambda: interop.from_linen(normal(2)),
        f"params: expected a mapping of names to arrays; got ndarray. {LINEN}",
    ),
    "linen: misshapen": (
        lambda: interop.from_linen(linen(h={"kernel": normal(H, 3 * H)})),
        f"h/kernel: expected shape [H, H] = [4, 4]; got float64[4, 12]. {GATES}",
    ),
    "linen: mixed dtypes": (
        lambda: interop.from_linen(linen(h={"kernel": normal(H, H, dtype=np.float32)})),
        "h/kernel: expected the dtype of i/kernel, float64; got float32.",
    ),
    "nnx: the state of the whole": (
        lambda: interop.from_nnx({"cell": interop.to_nnx(params())}),
        "dense_i/kernel: expected it in state; got only cell/dense_i/kernel, "
        "cell/dense_i/bias, cell/dense_h/kernel. "
        "Give those of the SimpleCell alone: nnx.state(rnn.cell) of an nnx.RNN.",
    ),
    "haiku: another module": (
        lambda: interop.from_haiku(interop.to_haiku(params(), "net/vanilla_rnn")),
        "vanilla_rnn/linear/w: expected it in params; got an empty one. Give the parameters that "
        "hk.transform made, and the path of the VanillaRNN as module.",
    ),
    "haiku: extra": (
        lambda: interop.from_haiku(
            interop.to_haiku(params()) | {"vanilla_rnn/x": {"w": normal(2)}}
        ),
        "vanilla_rnn/x/w: expected nothing in params but vanilla_rnn/linear/w, "
        "vanilla_rnn/linear_1/w, vanilla_rnn/linear/b, vanilla_rnn/linear_1/b; got one of shape "
        "[2].",
    ),
    "haiku: the list of keras": (
        lambda: interop.from_haiku(interop.to_keras(params())),
        "params: expected a mapping of names to arrays; got list.",
    ),
    "keras: an LSTM": (
        lambda: interop.from_keras([normal(I, 4 * H), normal(H, 4 * H), normal(4 * H)]),
        f"recurrent_kernel: expected shape [H, H] = [4, 4]; got float64[4, 16]. {GATES}",
    ),
    "keras: Bidirectional": (
        lambda: interop.from_keras([*interop.to_keras(params()), *interop.to_keras(params())]),
        "weights: expected [kernel, recurrent_kernel, bias], or the first two; got 6 arrays. Give "
        "layer.get_weights() of a SimpleRNN; convert the two of a Bidirectional separately.",
    ),
    "keras: an array": (
        lambda: interop.from_keras(normal(3, 4, 4)),
        "weights: expected a list of arrays; got ndarray.",
    ),
    "keras: bias misshapen": (
        lambda: interop.from_keras([normal(I, H), normal(H, H), normal(H, 1)]),
        "bias: expected shape [H] = [4]; got float64[4, 1].",
    ),
    **{
        f"to {library}: no parameters": (
            lambda to=to: to(params()._replace(w_ih=normal(H, I))),
            "w_ih: expected shape [I, H] = [any, 4]; got float64[4, 3].",
        )
        for library, (to, _) in BOTH_WAYS.items()
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, text = REFUSED[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert text in str(error.value)
