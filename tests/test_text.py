"""Characters, streams, sampling, model files."""

import codecs
import errno
import io
import os
import re
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import jrnn
from jrnn import sampling
from jrnn.model_file import load_model, save_model
from jrnn.text import OTHER_MARKS, Alphabet, chunks, contiguous_streams, map_ids, read_blocks

ANY_TEXT = st.text(min_size=1)


@settings(max_examples=50, deadline=None)
@given(ANY_TEXT.filter(lambda s: "\ufffd" not in s), ANY_TEXT)
def test_encoding_is_undone_by_decoding(text, other):
    alphabet = Alphabet.of(text)
    assert alphabet.decode(alphabet.encode(text)) == text
    known = [c if c in text else "\ufffd" for c in other]
    lacking = set(other) - set(text) - {"\ufffd"}
    assert alphabet.decode(alphabet.encode(other)) == "".join(known)
    assert alphabet.unknown(other) == sorted(lacking)


def test_surrogates_are_characters_too():
    text = "a\ud800b"  # what os.fsdecode makes of bytes that are no text
    assert Alphabet.of(text).decode(Alphabet.of(text).encode(text)) == text


def test_streams_are_contiguous_and_chunks_cover_them():
    ids = np.arange(1003)
    streams = contiguous_streams(ids, 4)
    assert streams.shape == (250, 4)
    np.testing.assert_array_equal(streams.T.ravel(), ids[:1000])
    xs, labels = zip(*chunks(streams, 60), strict=True)
    assert [len(x) for x in xs] == [60, 60, 60, 60, 9]
    np.testing.assert_array_equal(np.concatenate(xs), streams[:-1])
    np.testing.assert_array_equal(np.concatenate(labels), streams[1:])


def test_a_text_too_short_says_how_much_it_needs():
    with pytest.raises(
        ValueError, match="ids: expected at least 4,128 tokens for 32 streams of 129; got 4,127"
    ):
        contiguous_streams(np.zeros(4127), 32, least=129)
    assert contiguous_streams(np.zeros(4128), 32, least=129).shape == (129, 32)


def test_sizes_and_ids_that_are_none():
    with pytest.raises(ValueError, match="batch_size: expected a positive integer; got 0"):
        contiguous_streams(np.zeros(10), 0)
    with pytest.raises(ValueError, match="length: expected a positive integer; got -3"):
        next(chunks(np.zeros((10, 2)), -3))
    with pytest.raises(ValueError, match=r"ids: expected ids from 0 to 2 \(3 characters\); got -1"):
        Alphabet.of("ab").decode(np.array([-1]))


def test_streams_are_views_and_so_are_columns_of_them():
    ids = np.arange(1003)
    streams = contiguous_streams(ids, 4)
    assert np.shares_memory(ids, streams)
    part = streams[:, 1:3]
    assert np.shares_memory(ids, part)
    for whole, own in zip(chunks(streams, 60), chunks(part, 60), strict=True):
        for of_all, of_some in zip(whole, own, strict=True):
            assert of_all.dtype == of_some.dtype == np.int32
            np.testing.assert_array_equal(of_all[:, 1:3], of_some)


def read_whole(paths, size=100):
    return "".join(read_blocks(paths, size))


def test_read_blocks(tmp_path):
    (tmp_path / "a").write_bytes("für".encode())
    (tmp_path / "b").write_bytes(b"line\r\n")
    (tmp_path / "empty").touch()
    assert read_whole([tmp_path / "a", tmp_path / "b"]) == "für\nline\r\n"
    assert read_whole([tmp_path / "empty", str(tmp_path / "a")]) == "\nfür"
    for paths in ([tmp_path / "empty"], [tmp_path / "empty"] * 2):
        with pytest.raises(ValueError, match=r"at least one character; got none in .*empty"):
            read_whole(paths)
    with pytest.raises(ValueError, match="at least one character; got none in no file"):
        read_whole([])
    with pytest.raises(FileNotFoundError, match="missing"):
        read_whole([tmp_path / "missing"])
    with pytest.raises(IsADirectoryError):
        read_whole([tmp_path])
    with pytest.raises(ValueError, match="paths: expected a sequence of paths; got a string"):
        read_whole(str(tmp_path / "a"))
    with pytest.raises(ValueError, match="size: expected a positive integer; got 0"):
        read_whole([tmp_path / "a"], 0)


def test_a_byte_order_mark_is_no_text(tmp_path):
    mark = codecs.BOM_UTF8
    (tmp_path / "a").write_bytes(mark + "für".encode())
    (tmp_path / "b").write_bytes(mark + b"x" + mark + b"y")  # of which the second is a character
    for size in (1, 2, 3, 4, 100):
        assert read_whole([tmp_path / "a"], size) == "für"
        assert read_whole([tmp_path / "b", tmp_path / "a"], size) == "x\ufeffy\nfür"
    (tmp_path / "empty").write_bytes(mark)
    with pytest.raises(ValueError, match=r"at least one character; got none in .*empty"):
        read_whole([tmp_path / "empty"])
    for rest, offset in ((b"\xff", 3), (b"ab\xff", 5)):  # of the file, mark and all
        (tmp_path / "bad").write_bytes(mark + rest)
        for size in (1, 100):
            with pytest.raises(ValueError, match=f"got byte 0xff at offset {offset} of .*bad"):
                read_whole([tmp_path / "bad"], size)
    for cut in (1, 2):  # a mark that is cut is no mark, and no character
        (tmp_path / "cut").write_bytes(mark[:cut])
        with pytest.raises(ValueError, match=r"got byte 0xef at offset 0 of .*cut"):
            read_whole([tmp_path / "cut"])


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-32"])
@pytest.mark.parametrize("order", ["le", "be"])
def test_another_unicode_file_is_named(encoding, order, tmp_path):
    (tmp_path / "a").write_text("für")
    (tmp_path / "b").write_bytes("\ufefffür".encode(f"{encoding}-{order}"))
    message = f"text: expected UTF-8; got {encoding}, as {tmp_path}/b begins by saying. Convert the"
    for size in (1, 100):
        with pytest.raises(ValueError, match=f"{message} file: iconv -f {encoding} -t UTF-8."):
            read_whole([tmp_path / "a", tmp_path / "b"], size)


def test_a_pipe_is_refused():
    reading, writing = os.pipe()
    with open(reading), open(writing, "w"), pytest.raises(ValueError, match="got the pipe /dev/fd"):
        read_whole([f"/dev/fd/{reading}"])


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"", codecs.BOM_UTF8]),
    st.binary(max_size=12) | st.text("aßあ😀\ufffd", min_size=1).map(str.encode),
    st.integers(1, 7),
)
def test_blocks_are_the_text_wherever_they_are_cut(mark, content, size):
    assume(mark or not content.startswith((codecs.BOM_UTF8, *OTHER_MARKS)))
    with tempfile.NamedTemporaryFile() as file:
        file.write(mark + content)
        file.flush()
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            offset = len(mark) + error.start
            byte = f"got byte 0x{content[error.start]:02x} at offset {offset} of {file.name}. "
            with pytest.raises(ValueError, match=re.escape(byte)):
                read_whole([file.name], size)
            return
        if text:
            assert read_whole([file.name], size) == text


def test_the_offset_of_a_byte_that_is_no_text_counts_from_the_start_of_its_file(tmp_path):
    (tmp_path / "a").write_bytes("für".encode())
    (tmp_path / "latin").write_bytes("abcdefü".encode("latin-1") * 1000)
    for size in (3, 5000):
        with pytest.raises(ValueError, match=r"got byte 0xfc at offset 6 of .*latin\. Convert"):
            read_whole([tmp_path / "a", tmp_path / "latin"], size)
    (tmp_path / "late").write_bytes(b"x" * 4321 + b"\xff")
    with pytest.raises(ValueError, match=r"got byte 0xff at offset 4,321 of .*late\. Convert"):
        read_whole([tmp_path / "late"], 1000)


@pytest.mark.parametrize(
    ("characters", "dtype"), [(2, np.uint8), (256, np.uint8), (257, np.uint16), (70_000, np.uint32)]
)
def test_ids_in_a_mapped_file(tmp_path, characters, dtype):
    text = "".join(map(chr, range(0x10000, 0x10000 + characters - 1)))
    blocks = [text[::3], "", "?" + text]
    ids = Alphabet.of(text).encode("".join(blocks))
    mapped = map_ids(Alphabet.of(text).encode_blocks(blocks), len(ids), tmp_path)
    assert (mapped.dtype, mapped.flags.writeable) == (dtype, False)
    np.testing.assert_array_equal(mapped, ids)
    assert list(tmp_path.iterdir()) == []  # while it is mapped, so that no end leaves anything


def test_a_full_disk_says_what_was_being_written(monkeypatch):
    blocks = [np.zeros(10, np.uint16)] * 3
    with pytest.raises(FileNotFoundError, match="missing"):
        map_ids(blocks, 30, "/missing")
    monkeypatch.setattr(
        tempfile, "TemporaryFile", lambda dir, buffering: io.FileIO("/dev/full", "w")
    )
    message = (
        "No space left on device, writing a temporary file of 60 bytes for the ids of 30 "
        "characters: '/out'"
    )
    with pytest.raises(OSError, match=message) as refusal:
        map_ids(blocks, 30, "/out")
    assert refusal.value.errno == errno.ENOSPC


# --- sampling ------------------------------------------------------------------------------------

LOGITS = np.log([0.1, 0.4, 0.2, 0.3])


def frequencies(n=4000, **options):
    draw = lambda key: sampling.sample_token(key, jnp.asarray(LOGITS), **options)
    tokens = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), n))
    assert tokens.dtype == jnp.int32
    return np.bincount(tokens, minlength=4) / n


def truncated(p):
    return np.array(p) / np.sum(p)


DISTRIBUTIONS = {
    "as it is": ({}, [0.1, 0.4, 0.2, 0.3]),
    "cold": ({"temperature": 0.5}, truncated([0.01, 0.16, 0.04, 0.09])),
    "greedy": ({"temperature": 0}, [0, 1, 0, 0]),
    "top 1": ({"top_k": 1}, [0, 1, 0, 0]),
    "top 2": ({"top_k": 2}, truncated([0, 0.4, 0, 0.3])),
    "top 9": ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
    "half": ({"top_p": 0.5}, truncated([0, 0.4, 0, 0.3])),
    "little": ({"top_p": 0.01}, [0, 1, 0, 0]),
    "most": ({"top_p": 0.85}, truncated([0, 0.4, 0.2, 0.3])),
    "all": ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.3]),
    "both": ({"top_k": 3, "top_p": 0.5}, truncated([0, 0.4, 0, 0.3])),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_what_is_drawn(name):
    options, expected = DISTRIBUTIONS[name]
    found = frequencies(**options)
    assert (found[np.array(expected) == 0] == 0).all()
    np.testing.assert_allclose(found, expected, atol=0.03)  # 4 standard deviations of 4,000 draws


def test_half_precision_logits_lose_no_token():
    logits = jnp.zeros(4096, jnp.bfloat16)
    keys = jax.random.split(jax.random.key(0), 500)
    tokens = np.asarray(jax.vmap(lambda key: sampling.sample_token(key, logits))(keys))
    assert tokens.max() > 3900
    assert tokens.min() < 200


def test_a_tiny_temperature_is_greedy():
    tokens = frequencies(n=20, temperature=1e-37)
    assert tokens[1] == 1


def test_options_may_be_traced():
    draw = jax.jit(lambda t, k, p: sampling.sample_token(jax.random.key(0), LOGITS, t, k, p))
    assert draw(1.0, 1, 0.5) == 1


def test_ties_are_cut_to_exactly_k():
    keys = jax.random.split(jax.random.key(0), 200)
    draw = lambda key: sampling.sample_token(key, jnp.zeros(5), top_k=2)
    assert set(np.asarray(jax.vmap(draw)(keys)).tolist()) == {0, 1}


RNN = jrnn.init_rnn(jax.random.key(0), 6, 8)
READOUT = jrnn.init_readout(jax.random.key(1), 8, 6)


def sample(prompt, length, **options):
    key = options.pop("key", jax.random.key(2))
    blocks = list(sampling.generate(RNN, READOUT, key, np.array(prompt), length, **options))
    assert all(block.shape[1] <= sampling.BLOCK for block in blocks)
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("length", [1, 32, 70])
@pytest.mark.parametrize("prompt_length", [1, 32, 45])
def test_a_greedy_sample_is_what_the_network_says(prompt_length, length):
    prompt = np.arange(prompt_length) % 6
    found = sample(prompt, length, temperature=0)
    assert found.shape == (1, length)
    ids = list(prompt)
    for _ in range(length):
        _, hs = jrnn.rnn(RNN, np.array(ids + [0] * (128 - len(ids))))  # one shape, one program
        ids.append(int(jrnn.readout(READOUT, hs[len(ids) - 1]).argmax()))
    assert found[0].tolist() == ids[prompt_length:]


def test_equal_keys_give_equal_samples_and_samples_differ():
    found = sample([1, 2], 40, num_samples=3)
    assert found.shape == (3, 40)
    np.testing.assert_array_equal(found, sample([1, 2], 40, num_samples=3))
    assert not np.array_equal(found, sample([1, 2], 40, num_samples=3, key=jax.random.key(5)))
    assert len({tuple(row) for row in found.tolist()}) == 3


def test_nothing_compiles_for_another_prompt_length_or_option():
    sample([1], 3)
    sizes = sampling._read_block._cache_size(), sampling._draw_block._cache_size()
    for prompt in ([1, 2, 3], [1] * 40, [2] * 100):
        sample(prompt, 50, temperature=0.5, top_k=3, top_p=0.8)
    assert sizes == (sampling._read_block._cache_size(), sampling._draw_block._cache_size())


def test_an_activation_reaches_the_sampler():
    samples = {
        tuple(sample([1, 2, 3], 40, temperature=0, activation=a)[0].tolist())
        for a in ("tanh", "identity")
    }
    assert len(samples) == 2


# --- model files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_a_model_file_holds_what_was_saved(tmp_path, bias):
    rnn = RNN if bias else RNN._replace(b_h=None)
    readout = READOUT if bias else READOUT._replace(b_o=None)
    save_model(tmp_path / "m", rnn, readout, {"characters": "\ufffdaé", "n": [1, 2]})
    found_rnn, found_readout, found_settings = load_model(tmp_path / "m")
    for found, saved in [(found_rnn, rnn), (found_readout, readout)]:
        assert type(found) is type(saved)
        jax.tree.map(np.testing.assert_array_equal, found, saved)
    assert found_settings == {"characters": "\ufffdaé", "n": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_model_file_that_is_none(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "m"
    save_model(path, RNN, READOUT, {})
    whole = path.read_bytes()
    for cut in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(
            ValueError,
            match=r"m: expected a whole safetensors file; got .* Train the model again",
        ):
            load_model(path)
    save_file({"a": np.zeros(1)}, path)
    with pytest.raises(
        ValueError, match=r"expected format jrnn 1; got format none\. Train the model"
    ):
        load_model(path)
    for text in ("{", "[1]", "null"):
        save_file({"a": np.zeros(1)}, path, metadata={"format": "jrnn 1", "settings": text})
        with pytest.raises(ValueError, match=r"model file .*m: expected (a whole|settings)"):
            load_model(path)
    header = {"format": "jrnn 1", "settings": "{}"}
    save_file({"rnn.w_ih": np.zeros((2, 3))}, path, metadata=header)
    with pytest.raises(ValueError, match=r"expected the arrays .*; got \['rnn.w_ih'\]"):
        load_model(path)
    arrays = {"rnn.w_ih": (2, 3), "rnn.w_hh": (3, 3), "readout.w_ho": (4, 2)}
    save_file({k: np.zeros(s) for k, s in arrays.items()}, path, metadata=header)
    with pytest.raises(ValueError, match=r"expected states \[..., H\] with H = 4"):
        load_model(path)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "missing")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    save_model(tmp_path / "m", RNN, READOUT, {"old": True})
    with pytest.raises(TypeError):
        save_model(tmp_path / "m", RNN, READOUT, {"not JSON": {1, 2}})

    def disk_full(*args):
        raise OSError(28, "No space left on device")

    for name in ("os.replace", "pathlib.Path.write_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(name, disk_full)
            with pytest.raises(OSError, match="No space left"):
                save_model(tmp_path / "m", RNN, READOUT, {})
    assert load_model(tmp_path / "m")[2] == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    with pytest.raises(FileNotFoundError):
        save_model(tmp_path / "missing" / "m", RNN, READOUT, {})


def test_a_missing_extra_says_how_to_get_it(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(
        ImportError, match=r"need safetensors: pip install -e '\.\[train\]', in the clone of jrnn"
    ):
        save_model(tmp_path / "m", RNN, READOUT, {})
