"""Model files: any parameters come back bit for bit, and nothing else is ever believed."""

import hashlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jrnn.model_file import load_model, save_model
from jrnn.types import LayerNormParams, LayerParams, ReadoutParams, RNNParams, StackParams

RECORDED = Path(__file__).parent / "recorded"


class Gate(NamedTuple):
    """A kind of a user's own."""

    w: Any
    b: Any = None


class Point(NamedTuple):
    """Another."""

    x: Any


KINDS = {"Gate": Gate}
RNN = RNNParams(np.ones((3, 2)), np.eye(2), np.zeros(2))


def assert_same(found, saved):
    """To the last bit, and in the order of dicts."""
    if isinstance(saved, (np.ndarray, jax.Array)):
        assert isinstance(found, jax.Array)
        assert (found.dtype, found.shape) == (saved.dtype, saved.shape)
        assert np.asarray(found).tobytes() == np.asarray(saved).tobytes()
        return
    assert type(found) is type(saved)
    if isinstance(saved, dict):
        assert list(found) == list(saved)
        found, saved = found.values(), saved.values()
    for a, b in zip(found, saved, strict=True) if saved is not None else ():
        assert_same(a, b)


# --- what comes back -----------------------------------------------------------------------------

WORDS = ["", ".", "a", "b", "a.b", "a.b.c", "0", "1", "__metadata__", "params", "dict", "rnn/~/w"]
WORDS += ['"', '"a"', "\\", "\0.", "\n", " ", "é", "\u540d", "\U0001f642", "\ud800", "../a", "null"]
DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64"]
SHAPES = [(), (), (0,), (3,), (2, 3), (2, 0, 3), (1, 1, 2)]
NAMED_TUPLES = [RNNParams, ReadoutParams, LayerNormParams, LayerParams, StackParams, Gate]


def random_array(rng):
    shape, dtype = SHAPES[rng.integers(len(SHAPES))], jnp.dtype(rng.choice(DTYPES))
    raw = np.frombuffer(rng.bytes(2 * int(np.prod(shape)) * dtype.itemsize), np.uint8)
    x = (raw & 1 if dtype.kind == "b" else raw).view(dtype)[::2].reshape(shape)  # NaN of all kinds
    x = x.T if rng.random() < 0.3 else x
    return jax.device_put(x) if rng.random() < 0.5 else x


def random_pytree(rng, depth):
    kind = rng.integers(9 if depth else 3)
    if kind < 3:
        return None if kind == 2 else random_array(rng)
    size = rng.integers(4)
    if kind < 5:
        return {word: random_pytree(rng, depth - 1) for word in rng.choice(WORDS, size).tolist()}
    if kind < 7:
        return (list, tuple)[kind - 5](random_pytree(rng, depth - 1) for _ in range(size))
    cls = NAMED_TUPLES[rng.integers(len(NAMED_TUPLES))]
    return cls(*(random_pytree(rng, depth - 1) for _ in cls._fields))


def random_json(rng, depth):
    kind = rng.integers(8 if depth else 6)
    if kind < 6:
        leaves = None, True, int(rng.integers(-(2**60), 2**60)), float(rng.normal()), -0.0
        return (*leaves, WORDS[rng.integers(len(WORDS))])[kind]
    if kind == 6:
        return [random_json(rng, depth - 1) for _ in range(rng.integers(4))]
    return {word: random_json(rng, depth - 1) for word in rng.choice(WORDS, 3).tolist()}


def test_any_pytree_comes_back_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # a thousand of them would take their time
    rng, kinds = np.random.default_rng(0), set()
    for _ in range(1000):
        params, settings = random_pytree(rng, 4), {"settings": random_json(rng, 3)}
        save_model(tmp_path / "m", params, settings, kinds=KINDS)
        found, found_settings = load_model(tmp_path / "m", kinds=KINDS)
        (tmp_path / "m").unlink()
        assert_same(found, params)
        assert repr(found_settings) == repr(settings)
        kinds.update(x.dtype for x in jax.tree.leaves(params))
    assert kinds == {jnp.dtype(name) for name in DTYPES}


def test_a_stack_of_layers_and_its_readout_come_back(tmp_path):
    norm = LayerNormParams(np.ones(4), np.zeros(4))
    stack = StackParams((LayerParams(RNN, RNN, norm), LayerParams(RNN, None, None)))
    readout = ReadoutParams(np.ones((2, 3), np.float32), None)
    save_model(tmp_path / "m", {"stack": stack, "readout": readout}, {"dropout": 0.1})
    found, settings = load_model(tmp_path / "m")
    assert_same(found, {"stack": stack, "readout": readout})
    assert settings == {"dropout": 0.1}
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("params", [None, {}, (), [], np.array(3.0), RNN], ids=type)
def test_a_pytree_may_be_one_thing(params, tmp_path):
    save_model(tmp_path / "m", params, {})
    assert_same(load_model(tmp_path / "m")[0], params)


@pytest.mark.usefixtures("float32")
def test_what_jax_would_narrow_stays_as_it_is(tmp_path):
    saved = {"steps": np.array(2**40), "w": np.array([1 / 3]), "x": np.ones(1, np.float32)}
    save_model(tmp_path / "m", saved, {})
    found, _ = load_model(tmp_path / "m")
    assert {k: (type(x), x.dtype) for k, x in found.items() if k != "x"} == {
        k: (np.ndarray, x.dtype) for k, x in saved.items() if k != "x"
    }
    assert (found["steps"], found["w"][0]) == (2**40, 1 / 3)
    assert isinstance(found["x"], jax.Array)


@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])
def test_a_file_of_format_1_is_read(bias):
    """Two that were written before there was a format 2."""

    def eighths(start, *shape):
        return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape) / 8

    rnn = RNNParams(eighths(0, 3, 2), eighths(10, 2, 2), eighths(20, 2) if bias else None)
    readout = ReadoutParams(eighths(30, 2, 3), eighths(40, 3) if bias else None)
    name = "model_1" if bias else "model_1_without_biases"
    params, settings = load_model(RECORDED / f"{name}.safetensors")
    assert_same(params, {"rnn": rnn, "readout": readout})
    characters = {"characters": "\ufffdaé", "activation": "tanh"}
    assert settings == characters | {"sizes": [3, 2], "bits": 0.1 + 0.2}


def as_specified(params, arrays, settings=None, **header):
    """A file by the words of the format's description, of a sound checksum."""
    head = {"sha256": "0" * 64, "format": 2, "params": params, "settings": settings or {}} | header
    return with_checksum(arrays, json.dumps(head))


def with_checksum(arrays, text):
    content = safetensors.numpy.save(arrays, {"jrnn": text})
    before, after = content.split(b"0" * 64)
    return before + hashlib.sha256(before + after).hexdigest().encode() + after


def test_the_file_is_as_its_description_says(tmp_path):
    rnn = RNN._replace(b_h=None)
    params = {"net": [rnn, (None, np.ones(2))], "a.b": np.zeros(1), "": np.zeros(0)}
    save_model(tmp_path / "m", params, {"é": [1, None]})
    names = {"w_ih": "params.net.0.w_ih", "w_hh": "params.net.0.w_hh", "b_h": None}
    net = {"list": [{"RNNParams": names}, {"tuple": [None, "params.net.1.1"]}]}
    structure = {"dict": {"net": net, "a.b": 'params."a.b"', "": 'params.""'}}
    arrays = {names["w_ih"]: rnn.w_ih, names["w_hh"]: rnn.w_hh, "params.net.1.1": np.ones(2)}
    arrays |= {'params."a.b"': np.zeros(1), 'params.""': np.zeros(0)}
    arrays = {name: np.asarray(x) for name, x in arrays.items()}
    assert (tmp_path / "m").read_bytes() == as_specified(structure, arrays, {"é": [1, None]})
    with safetensors.safe_open(tmp_path / "m", "numpy") as file:  # as another program reads it
        assert set(file.keys()) == set(arrays)
        np.testing.assert_array_equal(file.get_tensor(names["w_ih"]), rnn.w_ih)


# --- what is never believed ----------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A small file, with something of everything in it, open to be changed in its place."""
    path = tmp_path / "m"
    params = {"r": ReadoutParams(np.ones((1, 2), np.float16), None), "é.": [np.array(True)]}
    save_model(path, params, {"a": [1.5, "é"]})
    with path.open("r+b", buffering=0) as file:
        yield path, file


def assert_refused(path, content, match="expected"):
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    assert_not_loaded(path, match)


def assert_not_loaded(path, match="expected"):
    with pytest.raises(ValueError, match=match) as error:
        load_model(path)
    assert str(error.value).startswith(f"model file {path}: expected "), error.value


def assert_each_byte_counts(path, file, changes):
    whole = path.read_bytes()
    for place, byte in changes:
        os.pwrite(file.fileno(), bytes([byte]), place)
        assert_not_loaded(path)
        os.pwrite(file.fileno(), whole[place : place + 1], place)
    assert path.read_bytes() == whole
    load_model(path)


def test_any_flipped_bit_is_refused(small):
    whole = small[0].read_bytes()
    flips = [(i, byte ^ 1 << bit) for i, byte in enumerate(whole) for bit in range(8)]
    assert_each_byte_counts(*small, flips)


def test_any_other_byte_of_the_length_and_the_format_is_refused(small):
    whole = small[0].read_bytes()
    format_ = whole.index(b"format") + len(b'format\\": ')
    assert whole[format_ : format_ + 1] == b"2"
    changes = [(i, byte) for i in (*range(8), format_) for byte in range(256) if byte != whole[i]]
    assert_each_byte_counts(*small, changes)


def test_a_cut_or_longer_file_is_refused(small):
    path, file = small
    whole = path.read_bytes()
    for n in reversed(range(len(whole))):
        file.truncate(n)
        assert_not_loaded(path, "expected a whole model file of jrnn, format 1 or 2; got")
    for more in (b"\0", b" ", whole):
        assert_refused(path, whole + more)


def test_random_bytes_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(0, 300, 3):
        assert_refused(tmp_path / "m", rng.bytes(n))
        assert_refused(tmp_path / "m", n.to_bytes(8, "little") + rng.bytes(2 * n))


ONE = {"params": np.zeros(1)}
DEEP = 100_000


def header(text):
    return len(text).to_bytes(8, "little") + text.encode()


BROKEN = {
    "an endless header": ((2**63).to_bytes(8, "little") + b"{}", "header"),
    "a long header": ((2**40).to_bytes(8, "little") + b"{}", "header"),
    "a deep header": (header("[" * DEEP), "JSON"),
    "deep metadata": (header('{"__metadata__":{"jrnn":' + "[" * DEEP), "JSON"),
    "deep JSON": (with_checksum(ONE, "[" * DEEP + "0" * 64), "recursion|[Rr]ecursive"),
    "metadata of null": (header('{"__metadata__":null}'), "got another format"),
    "arrays too large": (
        header('{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,0]}}'),
        "overflow",
    ),
    "a dtype of half a byte": (
        header('{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}') + b"\0",
        "got the dtype F4",
    ),
    "another program's": (safetensors.numpy.save(ONE), r"got another format\. Train the model"),
    "no JSON": (with_checksum(ONE, "0" * 64 + "{"), "got Extra data|got Expecting"),
    "no object": (with_checksum(ONE, json.dumps(["0" * 64])), "got another format"),
    "a later format": (as_specified("params", ONE, format=3), "got another format"),
    "the format 1": (as_specified("params", ONE, format=1), "got another format"),
    "no settings": (as_specified("params", ONE, settings=[1]), "settings that are not a JSON"),
    "an unknown kind": (
        as_specified({"OtherParams": {"w": "params"}}, ONE),
        r"expected kinds of parameters among .*RNNParams.*; got 'OtherParams'\. A class of",
    ),
    "other fields": (
        as_specified({"RNNParams": {"w_ih": "params", "w": None}}, ONE),
        r"expected RNNParams\(w_ih, w_hh, b_h\); got RNNParams\(w_ih, w\)",
    ),
    "a list of fields": (as_specified({"RNNParams": ["params"]}, ONE), "the content of a RNNP"),
    "a dict as a list": (as_specified({"list": {"0": "params"}}, ONE), "the content of a list"),
    "text as a tuple": (as_specified({"tuple": "params"}, ONE), "the content of a tuple; got str"),
    "a number": (as_specified(1, ONE), "kinds of parameters among .*; got None"),
    "two kinds": (as_specified({"list": [], "dict": {}}, {}), "kinds of parameters among"),
    "an array that is not there": (as_specified(["a"], {}), "kinds of parameters"),
    "an array twice": (as_specified({"list": ["params"] * 2}, ONE), "one array params; got none"),
    "an array of no place": (as_specified(None, ONE), "no arrays beside .*; got params"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_no_one_here_wrote(name, tmp_path):
    content, match = BROKEN[name]
    assert_refused(tmp_path / "m", content, match)


def test_deep_parameters_and_settings_of_others(tmp_path):
    deep = {"list": []}
    for _ in range(101):
        deep = {"list": [deep]}
    assert_refused(tmp_path / "m", as_specified(deep, {}), "at most 100 levels of nesting")
    head = json.dumps({"sha256": "0" * 64, "format": 2, "params": None, "settings": {"a": 0}})
    for text in ("[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "0" + "}" * DEEP):
        content = with_checksum({}, head.replace('"a": 0', f'"a": {text}'))
        assert_refused(tmp_path / "m", content, "recursion|[Rr]ecursive")


def test_a_file_of_format_1_that_is_none(tmp_path):
    metadata = {"format": "jrnn 1", "settings": "{}"}
    arrays = {name: np.zeros(1) for name in ("rnn.w_ih", "rnn.w_hh", "readout.w_ho")}
    for left_out in arrays:
        some = {name: x for name, x in arrays.items() if name != left_out}
        content = safetensors.numpy.save(some, metadata)
        assert_refused(tmp_path / "m", content, f"expected one array {left_out}; got none")
    content = safetensors.numpy.save(arrays | {"a": np.zeros(1)}, metadata)
    assert_refused(tmp_path / "m", content, "no arrays beside the parameters; got a")
    for text in ("{", "[1]", "null", "[" * DEEP):
        content = safetensors.numpy.save(arrays, metadata | {"settings": text})
        assert_refused(tmp_path / "m", content, "expected a whole model file")


def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for path in ("pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(ValueError, match=f"^model file {path}: expected a regular file; got"):
            load_model(path)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        load_model(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        with pytest.raises(OSError, match="socket"):
            load_model("socket")
    with pytest.raises(FileNotFoundError, match="missing"):
        load_model("missing")


# --- what is never written -----------------------------------------------------------------------


def nested(depth, make):
    x = make(None)
    for _ in range(depth - 1):
        x = make(x)
    return x


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
HELD = "expected an array, None, or a dict, list, tuple or known NamedTuple of them; got"
UNWRITABLE = {
    "a number": ({"a": [1.0]}, rf"params\.a\.0: {HELD} float\. jnp\.asarray makes"),
    "a NumPy number": (np.float32(1), rf"params: {HELD} float32"),
    "text": ({"a": "b"}, rf"params\.a: {HELD} str"),
    "a function": (RNN._replace(b_h=len), rf"params\.b_h: {HELD} builtin"),
    "a masked array": (np.ma.zeros(3), rf"params: {HELD} MaskedArray"),
    "a shape": (jax.ShapeDtypeStruct((1,), "float32"), rf"params: {HELD} ShapeDtypeStruct"),
    "a kind of one's own": (
        {"a.b": Point(np.zeros(1))},
        rf"params\.\"a\.b\": {HELD} Point\. Give its class, here and to load_model: kinds=\{{'Poi",
    ),
    "another dict": ({"a": jax.tree_util.Partial(len)}, rf"params\.a: {HELD} Partial"),
    "objects": (np.array([None]), r"params: expected one of bfloat16.*; got object\. Cast it by"),
    "complex numbers": (np.zeros(1, complex), "got complex128"),
    "four bits": (jnp.zeros(2, jnp.int4), "got int4"),
    "another byte order": (np.zeros(2, ">f4"), r"got >f4\. Cast it"),
    "text in an array": (np.array(["a"]), "got <U1"),
    "a random key": ({"key": jax.random.key(0)}, r"params\.key: .* jax\.random\.key_data\(key\)"),
    "numbers as keys": ({"a": {1: None}}, r"params\.a: expected keys that are text; got 1\."),
    "text that JSON changes": ({"\ud83d\ude42": None}, "expected keys that are text"),
    "too deep": (nested(101, lambda x: {"a": x}), "params: expected at most 100 levels of nesting"),
    "far too deep": (nested(DEEP, lambda x: (x,)), "at most 100 levels"),
    "endless": (ENDLESS, "at most 100 levels"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_parameters_that_would_not_come_back_are_not_written(name, tmp_path):
    params, match = UNWRITABLE[name]
    save_model(tmp_path / "m", RNN, {"old": True})
    with pytest.raises(ValueError, match=match):
        save_model(tmp_path / "m", params, {})
    assert load_model(tmp_path / "m")[1] == {"old": True}
    assert os.listdir(tmp_path) == ["m"]


def test_traced_and_deleted_parameters_are_not_written(tmp_path):
    @jax.jit
    def save(params):
        save_model(tmp_path / "m", params, {})

    with pytest.raises(ValueError, match=r"params\.w_ih: .* got a traced one\. Save outside of"):
        save(RNN)
    donated = jnp.asarray(np.zeros(3))
    donated.delete()
    with pytest.raises(ValueError, match="params: expected an array that was not donated; got one"):
        save_model(tmp_path / "m", donated, {})
    assert not os.listdir(tmp_path)


PLAIN = "expected a dict, a list, text, a finite number, True, False or None; got"
UNWRITABLE_SETTINGS = {
    "NaN": ({"a": [float("nan")]}, rf"settings\.a\.0: {PLAIN} nan\. JSON holds nothing else"),
    "infinity": ({"a": {"b.c": float("inf")}}, rf"settings\.a\.\"b\.c\": {PLAIN} inf"),
    "a tuple": ({"sizes": (1, 2)}, rf"settings\.sizes: {PLAIN} tuple\. .* lists for tuples"),
    "a set": ({"a": {1}}, rf"{PLAIN} set"),
    "an array": ({"a": np.ones(2)}, rf"{PLAIN} ndarray"),
    "a path": ({"out": Path("a")}, rf"settings\.out: {PLAIN} \w*Path"),
    "a number of 5,000 digits": ({"a": 10**5000}, rf"{PLAIN} int"),
    "numbers as keys": ({"a": {1: 2}}, r"settings\.a: expected keys that are text; got 1"),
    "too deep": (nested(101, lambda x: {"a": x}), "settings: expected at most 100 levels"),
    "far too deep": ({"a": nested(DEEP, lambda x: [x])}, "settings: expected at most 100 levels"),
    "endless": ({"a": ENDLESS}, "settings: expected at most 100 levels"),
    "no dict": ([1], "settings: expected a dict; got list"),
}


@pytest.mark.parametrize("name", UNWRITABLE_SETTINGS)
def test_settings_that_would_not_come_back_are_not_written(name, tmp_path):
    settings, match = UNWRITABLE_SETTINGS[name]
    with pytest.raises(ValueError, match=match):
        save_model(tmp_path / "m", RNN, settings)
    assert not os.listdir(tmp_path)


def test_what_is_as_deep_as_may_be(tmp_path):
    params, settings = nested(100, lambda x: [x]), nested(100, lambda x: {"a": x})
    save_model(tmp_path / "m", params, settings)
    assert load_model(tmp_path / "m") == (params, settings)


@pytest.mark.slow
def test_a_header_that_no_one_reads_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"expected what safetensors can hold; got .*too large"):
        save_model(tmp_path / "m", None, {"a": "x" * 100_000_000})
    assert not os.listdir(tmp_path)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    save_model(tmp_path / "m", RNN, {"old": True})
    with pytest.raises(FileNotFoundError):
        save_model(tmp_path / "missing" / "m", RNN, {})
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        save_model(tmp_path, RNN, {})
    assert load_model(tmp_path / "m")[1] == {"old": True}
    assert os.listdir(tmp_path) == ["m"]


# --- kinds ---------------------------------------------------------------------------------------


def test_a_kind_of_ones_own_by_any_name(tmp_path):
    gate = Gate(np.ones(2))
    save_model(tmp_path / "m", {"gate": gate}, {}, kinds={"mine": Gate})
    assert_same(load_model(tmp_path / "m", kinds={"mine": Gate})[0], {"gate": gate})
    for kinds in (None, KINDS):
        with pytest.raises(ValueError, match=r"; got 'mine'\. A class of your own is given as"):
            load_model(tmp_path / "m", kinds=kinds)
    with pytest.raises(ValueError, match=r"expected mine\(x\); got mine\(w, b\)\. Give the class"):
        load_model(tmp_path / "m", kinds={"mine": Point})


@pytest.mark.parametrize(
    ("name", "kind"), [("RNNParams", Gate), ("dict", Gate), ("a", dict), ("a", tuple), ("a", RNN)]
)
def test_a_kind_never_passes_for_another(name, kind, tmp_path):
    kinds, expected = {name: kind}, "kinds: expected NamedTuples, by other names than dict, list"
    with pytest.raises(ValueError, match=expected):
        save_model(tmp_path / "m", RNN, {}, kinds=kinds)
    save_model(tmp_path / "m", RNN, {})
    with pytest.raises(ValueError, match=expected):
        load_model(tmp_path / "m", kinds=kinds)


@pytest.mark.parametrize("argument", ["kinds", "cells"])
def test_classes_without_names_are_refused(argument, tmp_path):
    said = rf"^{argument}: expected a mapping with names as keys; got list\. As in \{{'"
    with pytest.raises(ValueError, match=said):
        save_model(tmp_path / "m", RNN, {}, **{argument: [Gate]})
    assert not os.listdir(tmp_path)


def test_a_class_of_the_same_name_never_passes_for_ours(tmp_path):
    class RNNParams(NamedTuple):
        w: Any

    with pytest.raises(ValueError, match=rf"params: {HELD} RNNParams\. Give its class"):
        save_model(tmp_path / "m", RNNParams(np.ones(1)), {})


def test_a_missing_extra_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"need safetensors: pip install -e '\.\[train\]'"):
        save_model(tmp_path / "m", RNN, {})
