"""Weights of other libraries, in and out again, of every kind of network."""

import ast
from collections.abc import Mapping
from pathlib import Path

import answers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close
from test_as_recorded import RUNS

import jrnn
from jrnn import interop

I, H = 3, 5
RNG = np.random.default_rng(0)


def numbers(*shape, dtype=np.float64):
    """Multiples of 1/64, so that adding 1, as haiku's LSTM asks for, rounds nothing."""
    return (np.round(RNG.normal(size=shape) * 64) / 64).astype(dtype)


def network(kind, bias=True, I=I, H=H):
    """Parameters of a kind of network."""
    if kind == "rnn":
        return jrnn.RNNParams(numbers(I, H), numbers(H, H), numbers(H) if bias else None)
    if kind == "lstm":
        b_h = numbers(4 * H) if bias else None
        return jrnn.LSTMParams(numbers(I, 4 * H), numbers(H, 4 * H), b_h)
    biases = (numbers(3 * H), numbers(H)) if bias else (None, None)
    return jrnn.GRUParams(numbers(I, 3 * H), numbers(H, 3 * H), *biases)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


BOTH_WAYS = {
    "torch": (lambda p: interop.to_torch([(p, None)]), lambda w: interop.from_torch(w)[0][0]),
    "linen": (interop.to_linen, interop.from_linen),
    "nnx": (interop.to_nnx, interop.from_nnx),
    "nnx, optimized": (lambda p: interop.to_nnx(p, optimized=True), interop.from_nnx),
    "haiku": (interop.to_haiku, interop.from_haiku),
    "keras": (interop.to_keras, interop.from_keras),
    "equinox": (interop.to_equinox, interop.from_equinox),
    "onnx": (
        lambda p: interop.to_onnx((p, None)),
        lambda w: interop.from_onnx(*w, linear_before_reset=1)[0],
    ),
}
KINDS = dict.fromkeys(BOTH_WAYS, ("rnn", "lstm", "gru")) | {
    "nnx, optimized": ("lstm",),
    "haiku": ("rnn", "lstm"),
    "equinox": ("lstm", "gru"),
}
WITHOUT_BIAS = ("torch", "keras", "equinox", "onnx")  # others have zeros
PAIRS = [(library, kind) for library, kinds in KINDS.items() for kind in kinds]


@pytest.mark.parametrize(("library", "kind"), PAIRS)
def test_out_and_in_again(library, kind):
    there, back = BOTH_WAYS[library]
    own = network(kind)
    if (library, kind) == ("nnx", "gru"):
        own = own._replace(b_hn=None)
    assert_equal(back(there(own)), jax.tree.map(jnp.asarray, own))
    without = network(kind, bias=False)
    zeros = jax.tree.map(jnp.zeros_like, own)
    expected = without if library in WITHOUT_BIAS else without._replace(**biases(zeros))
    assert_equal(back(there(without)), expected)


def biases(params):
    return {name: x for name, x in params._asdict().items() if name.startswith("b_")}


@pytest.mark.parametrize("library", [name for name, kind in PAIRS if kind == "gru"])
@pytest.mark.parametrize("missing", ["b_h", "b_hn"])
def test_one_bias_of_a_gru(library, missing):
    """The other library has both or none."""
    there, back = BOTH_WAYS[library]
    own = network("gru")
    zeros = jnp.zeros_like(getattr(own, missing))
    if library != "nnx":
        assert_equal(back(there(own._replace(**{missing: None}))), own._replace(**{missing: zeros}))
    elif missing == "b_h":  # the GRUCell of nnx has no b_hn
        only_zeros = own._replace(b_h=None, b_hn=jnp.zeros(H))
        assert_equal(back(there(only_zeros)), own._replace(b_h=zeros, b_hn=None))


@pytest.mark.parametrize("name", RUNS)
def test_in_and_out_again(name):
    """The names and shapes are those of the library, the values those that came in."""
    question = RUNS[name][0]
    layers = answers.imported(question)
    found = answers.EXPORTS[question.library](layers)
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    assert shapes(found) == shapes(question.weights)
    again = answers.imported(question._replace(weights=found))
    assert_close(again, layers, 1e-6 if "haiku" in name else 0)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_the_whole_bias_goes_out_as_the_first(kind):
    """Where a library has two, the second is 0, but for what the reset gate multiplies."""
    own = network(kind)
    G = own.w_hh.shape[1] // H
    second = np.zeros(G * H)
    if kind == "gru":
        second[-H:] = own.b_hn
    torch = interop.to_torch([(own, None)])
    assert_equal((torch["bias_ih_l0"], torch["bias_hh_l0"]), (own.b_h, second))
    B = interop.to_onnx((own, None))[2]
    assert_equal(np.sort(B[0, G * H :]), np.sort(second))
    if kind == "gru":
        first, second_of_keras = interop.to_keras(own)[2]
        assert_equal(np.sort(first), np.sort(own.b_h))
        assert_equal(second_of_keras, second)
    if kind == "rnn":
        assert not interop.to_haiku(own)["vanilla_rnn/linear_1"]["b"].any()


def test_keras_and_onnx_have_the_same_gates_of_a_gru():
    own = network("gru")
    kernel, recurrent_kernel, bias = interop.to_keras(own)
    W, R, B = interop.to_onnx((own, None))
    assert_equal((W[0].T, R[0].T, B[0]), (kernel, recurrent_kernel, bias.ravel()))
    assert_equal(kernel[:, :H], own.w_ih[:, H : 2 * H])  # z is the first


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_several_layers_and_directions(kind):
    layers = [
        (network(kind), network(kind)),
        (network(kind, I=2 * H), network(kind, I=2 * H)),
    ]
    assert_equal(interop.from_torch(interop.to_torch(layers)), jax.tree.map(jnp.asarray, layers))
    weights = interop.to_onnx(layers[0])
    assert [len(x) for x in weights] == [2, 2, 2]
    found = interop.from_onnx(*weights, linear_before_reset=1, direction=b"bidirectional")
    assert_equal(found, jax.tree.map(jnp.asarray, layers[0]))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_parameters_of_a_stack(cell, bidirectional):
    stack = jrnn.init_stack(jax.random.key(0), I, (H, H), cell=cell, bidirectional=bidirectional)
    state_dict = interop.to_torch(stack)
    assert_equal(interop.from_torch(state_dict, stack=True), stack)
    pairs = [(layer.forward, layer.backward) for layer in stack.layers]
    assert_equal(interop.from_torch(state_dict), pairs)
    assert_equal(interop.to_torch(list(stack.layers)), state_dict)
    for layer in stack.layers:
        weights = interop.to_onnx(layer)
        assert_equal(weights, interop.to_onnx((layer.forward, layer.backward)))
        found = interop.from_onnx(*weights, linear_before_reset=1)
        assert_equal(jrnn.LayerParams(*found, norm=None), layer)


ONE_NETWORK = ("to_linen", "to_nnx", "to_haiku", "to_keras", "to_equinox")


@pytest.mark.parametrize("name", ONE_NETWORK)
def test_a_stack_where_a_module_is_one_network(name):
    stack = jrnn.init_stack(jax.random.key(0), I, (H,), cell="lstm")
    export = getattr(interop, name)
    for params, place in ((stack, "params.layers[0]"), (stack.layers[0], "params")):
        with pytest.raises(ValueError, match="one by one, such as ") as error:
            export(params)
        assert f"such as {place}.forward." in str(error.value)
    export(stack.layers[0].forward)


def test_arrays_of_their_own():
    """torch.from_numpy asks for arrays that can be written to."""
    for kind in ("rnn", "lstm", "gru"):
        own = jax.tree.map(jnp.asarray, network(kind))
        arrays = [*interop.to_torch([(own, None)]).values(), *interop.to_onnx((own, None))]
        assert {type(x) for x in arrays} == {np.ndarray}
        assert all(x.flags.writeable for x in arrays)


def test_layers_without_bias():
    layers = [(network("lstm", bias=False), None), (network("lstm", bias=False, I=H), None)]
    assert interop.to_torch(layers).keys() == {
        f"weight_{kind}_l{n}" for kind in ("ih", "hh") for n in (0, 1)
    }


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


class Cell:
    """A module of equinox: its fields are arrays and settings."""

    def __init__(self, arrays, use_bias=True):
        self.bias = None
        vars(self).update(arrays, input_size=I, hidden_size=H, use_bias=use_bias)


def test_of_any_kind_of_array_and_mapping():
    weights = interop.to_torch([(network("gru"), network("gru"))])
    expected = interop.from_torch(weights)
    tensors = {name: Tensor(x) for name, x in reversed(weights.items())}
    assert_equal(interop.from_torch(tensors), expected)
    tree = interop.to_nnx(network("lstm"))
    assert_equal(interop.from_nnx(State(tree)), interop.from_nnx(tree))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_module_of_equinox(kind):
    own = network(kind)
    cell = Cell(interop.to_equinox(own))
    assert_equal(interop.from_equinox(cell), jax.tree.map(jnp.asarray, own))
    assert_equal(interop.from_equinox(vars(cell)), jax.tree.map(jnp.asarray, own))
    without = network(kind, bias=False)
    cell = Cell(interop.to_equinox(without), use_bias=False)
    assert_equal(interop.from_equinox(cell), without)


def test_haiku_by_its_path():
    own = network("rnn")
    weights = interop.to_haiku(own, "net/~/vanilla_rnn")
    weights["net/linear"] = {"w": numbers(H, 2), "b": numbers(2)}
    del weights["net/~/vanilla_rnn/linear_1"]["b"]  # double_bias=False
    weights |= interop.to_haiku(network("rnn"))
    found = interop.from_haiku(weights, "net/~/vanilla_rnn")
    assert_equal(found, jax.tree.map(jnp.asarray, own))
    lstm = network("lstm")
    weights |= interop.to_haiku(lstm, "net/memory")
    assert_equal(interop.from_haiku(weights, "net/memory"), jax.tree.map(jnp.asarray, lstm))


def test_the_forget_gate_of_haiku():
    """It adds 1 to the pre-activation of f; its gates are i g f o."""
    own = network("lstm")
    found = interop.to_haiku(own)["lstm/linear"]
    i, f, g, o = np.split(own.b_h, 4)
    assert_equal(found["b"], np.concatenate([i, g, f - 1, o]))
    assert_equal(found["w"][:I, 2 * H : 3 * H], own.w_ih[:, H : 2 * H])
    assert_equal(found["w"][I:, H : 2 * H], own.w_hh[:, 2 * H : 3 * H])


def test_onnx_nodes():
    """Attributes that change nothing, as `onnx.helper.get_attribute_value` gives them."""
    W, R, B = interop.to_onnx((network("lstm"), None))
    expected = interop.from_onnx(W, R, B)
    attributes = {
        "direction": b"reverse",
        "hidden_size": H,
        "activations": [b"Sigmoid", b"Tanh", b"Tanh"],
        "input_forget": 0,
        "layout": 1,
    }
    assert_equal(interop.from_onnx(W, R, B, np.zeros((1, 3 * H)), **attributes), expected)
    elman = interop.to_onnx((network("rnn"), None))
    interop.from_onnx(*elman, activations=[b"Relu"])  # as jrnn.rnn has it


def test_differentiable_and_jitted():
    own = network("lstm")
    for library, (there, back) in BOTH_WAYS.items():
        if library not in ("torch", "onnx"):  # to NumPy
            found = jax.jit(lambda own, there=there, back=back: back(there(own)))(own)
            assert_equal(found, jax.tree.map(jnp.asarray, own))
    W, R, B = interop.to_onnx((own, None))
    loss = lambda B: interop.from_onnx(W, R, B)[0].b_h[H]  # f, which is ONNX's third
    place = np.zeros((1, 8 * H))
    place[0, [2 * H, 6 * H]] = 1
    assert_equal(jax.grad(loss)(B), place)


class Param:
    """An entry of a library that holds an array, which may be traced, as `nnx.Param` does."""

    def __init__(self, array):
        self.array = array

    def __jax_array__(self):
        return self.array

    def __array__(self, *args, **kwargs):
        return np.asarray(self.array, *args, **kwargs)


def test_entries_that_hold_arrays_are_read_inside_a_transformation():
    own = network("lstm")
    tree = interop.to_nnx(own)

    def loss(tree):
        return interop.from_nnx(jax.tree.map(Param, tree)).w_hh.sum()

    found = jax.grad(loss)(jax.tree.map(jnp.asarray, tree))
    assert_equal(found, jax.grad(lambda tree: interop.from_nnx(tree).w_hh.sum())(tree))


def test_half_precision_stays():
    for kind in ("rnn", "lstm", "gru"):
        own = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), network(kind))
        found = interop.from_linen(interop.to_linen(own))
        assert {x.dtype for x in found} == {jnp.dtype("bfloat16")}


def test_none_of_the_libraries_is_imported():
    packages = set()
    for file in Path(interop.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                packages |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                packages.add(node.module.split(".")[0])
    assert packages == {"collections", "itertools", "jax", "jrnn", "numpy", "re", "typing"}
