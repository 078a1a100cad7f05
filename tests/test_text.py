"""Characters, streams, sampling."""

import codecs
import errno
import io
import os
import re
import tempfile
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import parameters
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import jrnn
from jrnn import sampling
from jrnn.text import (
    OTHER_MARKS,
    Alphabet,
    chunks,
    contiguous_streams,
    map_ids,
    read_blocks,
    training_chunks,
)

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


def test_one_sample_is_decoded_at_a_time():
    said = (
        r"^ids: expected shape \[N\] = \[any\]; got int64\[2, 1\]\. Decode one sample: block\[0\]\."
    )
    with pytest.raises(ValueError, match=said):
        Alphabet.of("ab").decode(np.array([[1], [2]]))


def test_streams_of_lists_and_of_jax_are_those_of_numpy():
    ids = np.arange(35, dtype=np.int32)
    streams = contiguous_streams(ids, 4)
    np.testing.assert_array_equal(contiguous_streams(ids.tolist(), 4), streams)
    for found in (list(chunks(jnp.array(streams), 3)), list(chunks(streams.tolist(), 3))):
        assert jax.tree.all(jax.tree.map(np.array_equal, found, list(chunks(streams, 3))))
    found = next(training_chunks(jnp.array(streams), 3, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, next(training_chunks(streams, 3, 1))))
    with pytest.raises(
        ValueError, match=r"^ids: expected shape \[N\] = \[any\]; got int32\[8, 4\]"
    ):
        contiguous_streams(streams, 2)


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
    for path in ("a.txt", b"a.txt", tmp_path / "a.txt"):
        with pytest.raises(ValueError, match="paths: expected a sequence of paths; got one path"):
            next(read_blocks(path))
    with pytest.raises(ValueError, match="paths: expected a sequence of paths; got one path"):
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
    message = f"text: expected UTF-8; got {encoding} by the byte order mark of {tmp_path}/b."
    for size in (1, 100):
        with pytest.raises(
            ValueError, match=f"{message} Convert the file: iconv -f {encoding} -t UTF-8."
        ):
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


@pytest.mark.parametrize("blocks", [[], [np.zeros(0, np.uint16)]])
def test_no_ids_to_map(blocks, tmp_path):
    with pytest.raises(ValueError, match=r"blocks: expected at least one id; got none\."):
        map_ids(blocks, 0, tmp_path)


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


def frequencies(n=4000, logits=LOGITS, temperature=1.0, **options):
    keys = jax.random.split(jax.random.key(0), n)
    tokens = draws(keys, logits, float(temperature), **options)
    assert tokens.dtype == jnp.int32
    return np.bincount(tokens, minlength=4) / n


@jax.jit
def draws(keys, logits, temperature, **options):
    draw = lambda key: sampling.sample_token(key, logits, temperature, **options)
    return jax.vmap(draw)(keys)


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


EXTREMES = {
    "one that is impossible": [0, 1, -np.inf, 2],
    "all but one impossible": [-np.inf, -np.inf, 5, -np.inf],
    "equal ones": [3, 3, 3, -np.inf],
    "a spread beyond float32": [-3.4e38, 1e38, 3.4e38, -np.inf],
}
KEY = jax.random.key(0)
SMALLEST, TINY, LARGEST = 1.4e-45, 1.2e-38, 3.4e38  # denormal, normal, largest
TEMPERATURES = [0, SMALLEST, 1e-40, TINY, 1e-20, 0.5, 1, 1e10, 8e37, 9e37, 1e38, LARGEST, np.inf]


def true_distribution(logits, temperature):
    """In NumPy's long double, in which nothing here overflows."""
    logits = np.array(logits, np.longdouble)
    likeliest = logits == logits.max()
    if temperature < TINY:
        return np.arange(len(logits)) == likeliest.argmax()
    finite = np.isfinite(logits)
    below = np.where(finite, logits, 0) - logits.max()
    return truncated(np.where(finite, np.exp(below / np.longdouble(temperature)), 0))


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_temperature(name, dtype):
    logits = np.array(EXTREMES[name], dtype)
    for temperature in TEMPERATURES:
        found = frequencies(logits=logits, temperature=temperature)
        expected = true_distribution(EXTREMES[name], temperature)
        assert (found[expected == 0] == 0).all(), temperature
        np.testing.assert_allclose(
            found, expected.astype(float), atol=0.03, err_msg=str(temperature)
        )


def test_logits_beyond_float32():
    found = frequencies(logits=np.array([-1.7e308, 1e300 + 2e284, -np.inf, 1e300]))
    np.testing.assert_array_equal(found, [0, 1, 0, 0])


def test_hot_logits_are_cut_to_the_likeliest():
    """Over a temperature that leaves no difference between them."""
    tokens = [sampling.sample_token(k, LOGITS, np.inf, 2) for k in jax.random.split(KEY, 20)]
    assert {int(token) for token in tokens} == {1, 3}
    found = frequencies(temperature=1e38, top_k=2)
    np.testing.assert_allclose(found, [0, 0.5, 0, 0.5], atol=0.03)


def test_half_precision_logits_lose_no_token():
    tokens = draws(jax.random.split(KEY, 500), jnp.zeros(4096, jnp.bfloat16), 1.0)
    assert tokens.max() > 3900
    assert tokens.min() < 200


def test_a_tiny_temperature_is_greedy():
    tokens = frequencies(n=20, temperature=1e-37)
    assert tokens[1] == 1


def test_options_may_be_traced():
    draw = jax.jit(lambda t, k, p: sampling.sample_token(jax.random.key(0), LOGITS, t, k, p))
    assert draw(1.0, 1, 0.5) == 1


@pytest.mark.parametrize("top_k", [np.uint8(2), np.int8(100), np.array(200, np.uint8)], ids=repr)
def test_more_tokens_than_the_dtype_of_top_k_has_numbers(top_k):
    logits = jnp.zeros(256)
    wanted = sampling.sample_token(KEY, logits, top_k=int(top_k))
    assert sampling.sample_token(KEY, logits, top_k=top_k) == wanted
    assert draws(KEY[None], logits, 1.0, top_k=top_k)[0] == wanted
    assert wanted != 0


def test_a_large_top_k_keeps_all():
    wanted = sampling.sample_token(KEY, LOGITS)
    for top_k in (2**31, 2**70, np.inf, np.uint64(2**40)):
        assert sampling.sample_token(KEY, LOGITS, top_k=top_k) == wanted
    assert draws(KEY[None], LOGITS, 1.0, top_k=np.uint64(2**40))[0] == wanted


def test_ties_are_cut_to_exactly_k():
    tokens = draws(jax.random.split(KEY, 200), jnp.zeros(5), 1.0, top_k=2)
    assert set(np.asarray(tokens).tolist()) == {0, 1}


RNN = parameters(jrnn.init_rnn, 6, 8)
READOUT = parameters(jrnn.init_readout, 8, 6, seed=1)


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
    sample([1, 2], 3)
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


# --- what cannot be drawn ------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["w_ih", "w_hh", "b_h", "w_ho", "b_o"])
def test_parameters_that_are_not_finite_are_refused_before_anything_is_drawn(name, dtype, value):
    params = {
        "rnn_params": jrnn.RNNParams(np.ones((6, 8)), np.ones((8, 8)), np.ones(8)),
        "readout_params": jrnn.ReadoutParams(np.ones((8, 6)), np.ones(6)),
    }
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    (part,) = (part for part in params if name in params[part]._fields)
    array = getattr(params[part], name)
    array[(1,) * array.ndim] = value
    draw = partial(sampling.generate, key=jax.random.key(0), prompt=np.array([0]), length=1)
    if (name, value) == ("b_o", -INF):  # a token that is never drawn
        draw(**params)
        array[:] = value
    count, where = (array.size, 0) if (array == -INF).all() else (1, 1)
    place = re.escape(str([where] * array.ndim))
    came = f"{value} at {place}, {count} of {array.size} such"
    with pytest.raises(ValueError, match=rf"^{part}\.{name}: expected finite numbers; got {came}"):
        draw(**params)


def test_a_token_whose_bias_is_minus_infinity_is_never_drawn():
    never = READOUT._replace(b_o=np.where(np.arange(6) == 2, -np.inf, READOUT.b_o))
    blocks = sampling.generate(RNN, never, jax.random.key(0), [2], 300, temperature=5.0)
    assert set(np.concatenate(list(blocks), axis=1).ravel().tolist()) == {0, 1, 3, 4, 5}


def test_a_state_that_overflows_is_said_where_it_does():
    """Of finite parameters, with an activation without bounds: every step multiplies by 1e9."""
    H, O = RNN.w_hh.shape[0], RNN.w_ih.shape[0]
    rnn = jrnn.RNNParams(jnp.ones((O, H), jnp.float32), 1e9 * jnp.eye(H, dtype=jnp.float32), None)
    readout = jrnn.ReadoutParams(jnp.ones((H, O), jnp.float32), None)
    draw = partial(sampling.generate, rnn, readout, jax.random.key(0), [0], activation="identity")
    assert next(draw(5)).shape == (1, 5)
    with pytest.raises(ValueError, match="expected finite logits at every token; got others at to"):
        next(draw(6))


NO_DISTRIBUTION = [
    [0.0, NAN, 1.0],
    [0.0, INF, 1.0],
    [-INF, -INF, -INF],
]


@pytest.mark.parametrize("row", NO_DISTRIBUTION, ids=str)
def test_logits_that_are_no_distribution_are_refused(row):
    with pytest.raises(
        ValueError, match=r"logits: expected numbers of float64, or -inf; got .*\[1"
    ):
        sampling.sample_token(jax.random.key(0), np.array([[0.0, -INF, 1.0], row]))


@pytest.mark.usefixtures("float32")
def test_logits_of_which_float32_makes_infinity_are_refused():
    with pytest.raises(ValueError, match="logits: expected numbers of float32, or -inf; got inf"):
        sampling.sample_token(jax.random.key(0), np.array([0.0, 1e300, 1.0]))


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"top_k": 1, "top_p": 0.5}], ids=str)
def test_traced_logits_that_are_no_distribution_give_minus_one(options):
    logits = np.array([[0.0, -INF, 1.0], *NO_DISTRIBUTION])
    draw = jax.jit(partial(sampling.sample_token, **options))
    token, *none = np.asarray(draw(jax.random.key(0), logits)).tolist()
    assert token in (0, 2)
    assert none == [-1] * 3


def test_training_goes_on_from_any_step_with_the_chunks_that_follow_it():
    streams = np.arange(200).reshape(50, 4)
    ahead = list(islice(training_chunks(streams, 16), 10))
    for start in range(10):
        read = np.full_like(streams, -1)  # what is before the chunk is not there to be read
        read[start % 3 * 16 :] = streams[start % 3 * 16 :]
        (batch, first) = next(training_chunks(read, 16, start))
        np.testing.assert_array_equal(batch, ahead[start][0])
        assert first == ahead[start][1] == (start % 3 == 0)
        rest = islice(training_chunks(streams, 16, start), 10 - start)
        for a, b in zip(rest, ahead[start:], strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            assert a[1] == b[1]


def test_the_state_is_carried_and_starts_from_zero_with_each_pass():
    streams = np.arange(200).reshape(50, 4)
    source = training_chunks(streams, 16)
    firsts, starts = [], []
    for _ in range(7):
        (xs, labels), first = next(source)
        assert xs.shape == (16, 4)
        np.testing.assert_array_equal(xs[1:], labels[:-1])
        firsts.append(first)
        starts.append(int(xs[0, 0]) // 4)
    assert firsts == [True, False, False] * 2 + [True]
    assert starts == [0, 16, 32] * 2 + [0]


def test_streams_that_fill_no_chunk_are_refused():
    expected = r"^streams: expected at least 17 tokens each; got 16\. Give more text"
    with pytest.raises(ValueError, match=expected):
        next(training_chunks(np.zeros((16, 2), np.int32), 16))
