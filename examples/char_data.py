"""The text of the character model: its parts, its streams, and what count models make of it."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ngram import witten_bell

from jrnn.checks import refuse
from jrnn.text import (
    CODE_POINTS,
    Alphabet,
    chunks,
    code_points,
    contiguous_streams,
    map_ids,
    read_blocks,
)

MOST_NGRAM_CHARACTERS = 5_000_000  # count models beyond this would outgrow memory, not improve
# The bits per character of so many have a standard error of 0.008 (that of means of 100, which are
# almost independent, of a 5-gram model); two seeds differ by more. To judge the tenth of a text of
# gigabytes would take longer than the training.
MOST_JUDGED_CHARACTERS = 1_000_000


class Data(NamedTuple):
    """A text as integers, its last tenth held out."""

    sha256: str
    alphabet: Alphabet
    train: np.ndarray  # [N] ids in a mapped file
    validation: np.ndarray  # [M] ids, of what is judged; 0 is not
    streams: np.ndarray  # [N // B, B] the training part
    validation_streams: np.ndarray  # [M // B, B]


class Survey(NamedTuple):
    """What the first reading of a text finds."""

    length: int
    sha256: str
    first: dict[str, int]  # where each character stands for the first time


def load_data(paths: list[str] | None, batch_size: int, length: int, directory: Path | str) -> Data:
    """Encode a text, by default CPython's language reference; say what there is of it.

    It is read twice, by blocks; the ids of its training part are in an unnamed file in `directory`.
    """
    source, read = _source(paths)
    text = _survey(read())
    split = _split(text.length, batch_size, length)
    alphabet = Alphabet.of("".join(c for c, place in text.first.items() if place < split))
    train, held_out = _encode(read(), source, text, split, alphabet, directory)
    validation = alphabet.encode(held_out)
    data = Data(
        text.sha256,
        alphabet,
        train,
        validation,
        contiguous_streams(train, batch_size),
        contiguous_streams(validation, batch_size),
    )
    if not data.validation_streams[1:].any():
        expected = "its last tenth, which is held out, to share characters with the rest"
        refuse("text", expected, "none in common", "Give a text whose parts are alike.")
    print(f"text        {source}: {text.length:,} characters, sha256 {text.sha256[:16]}")
    print(f"alphabet    {len(alphabet.characters) - 1} characters in the training part")
    if len(held_out) < text.length - split:
        print(
            f"            (of the {text.length - split:,} characters that are held out, the first "
            f"{len(held_out):,} are the validation part)"
        )
    unknown = alphabet.unknown(held_out)
    if unknown:
        print(
            f"            the validation part has {sum(map(held_out.count, unknown)):,} characters "
            f"that the training part lacks ({quote(unknown)}): read as U+FFFD, not counted"
        )
    return data


def _source(paths: list[str] | None) -> tuple[str, Callable[[], Iterator[str]]]:
    """What the text is, and what reads it from its start."""
    if paths:
        return ", ".join(paths), partial(read_blocks, paths)
    from pydoc_data.topics import topics

    source = f"the language reference of Python {sys.version.split()[0]}"
    return source, lambda: iter(["\n".join(topics[name] for name in sorted(topics))])


def _survey(blocks: Iterator[str]) -> Survey:
    """Read a text for the first time."""
    digest, length, first = hashlib.sha256(), 0, {}
    seen = np.zeros(CODE_POINTS, bool)
    for block in blocks:
        digest.update(block.encode("utf-8", "surrogatepass"))
        points = code_points(block)
        new = points[~seen.take(points)]
        for character in map(chr, np.unique(new)):
            first[character] = length + block.index(character)
        seen[new] = True
        length += len(block)
    return Survey(length, digest.hexdigest(), first)


def _split(characters: int, batch_size: int, length: int) -> int:
    """The characters that are the first nine tenths; enough of both parts for the streams."""
    train, held_out = (
        batch_size * (length + 1),
        2 * batch_size,
    )  # at least, of 9 n // 10 and the rest
    least = max(-(-10 * train // 9), 10 * held_out - 9)
    if characters < least:
        expected = f"at least {least:,} characters for {batch_size} streams of chunks of {length}"
        repair = "Give more text, or a smaller --batch-size or --length."
        refuse("text", f"{expected} with a tenth held out", f"{characters:,}", repair)
    return 9 * characters // 10


def _encode(
    blocks: Iterator[str],
    source: str,
    text: Survey,
    split: int,
    alphabet: Alphabet,
    directory: Path | str,
) -> tuple[np.ndarray, str]:
    """Read a text again: the ids of its part before `split`, and what is judged after it."""
    digest, held_out = hashlib.sha256(), ""

    def training_part() -> Iterator[str]:
        nonlocal held_out
        left = split
        for block in blocks:
            digest.update(block.encode("utf-8", "surrogatepass"))
            yield block[:left]
            held_out += block[left : left + MOST_JUDGED_CHARACTERS - len(held_out)]
            left = max(0, left - len(block))

    ids = map_ids(alphabet.encode_blocks(training_part()), split, directory)
    if digest.hexdigest() != text.sha256:
        repair = "Start again when nothing writes to it."
        refuse("text", "the same when it is read again", f"a change in {source}", repair)
    return ids, held_out


def training_chunks(streams: np.ndarray, length: int, start: int = 0) -> Iterator[tuple[Any, bool]]:
    """Chunks without end; True with the first of each pass, where the state starts from zero.

    Chunk number `start` of them is the first to come; nothing before it is read.
    """
    in_a_pass = (len(streams) - 1) // length
    for number in count(start):
        i = number % in_a_pass
        yield next(chunks(streams[i * length :], length)), i == 0


def baselines(data: Data) -> dict[str, float]:
    """Bits per character of count models on the characters that the network is judged by."""
    n, batch = data.validation_streams.shape
    judged = np.arange(n * batch).reshape(batch, n)[:, 1:].ravel()  # no label for a first one
    judged = judged[data.validation[judged] != 0]
    train = data.train[-MOST_NGRAM_CHARACTERS:]
    if len(train) < len(data.train):
        print(f"            (n-grams counted on the last {len(train):,} characters)")
    probabilities = witten_bell(train, data.validation, len(data.alphabet.characters), orders=6)
    return {f"{n}-gram": float(-np.log2(p[judged]).mean()) for n, p in enumerate(probabilities, 1)}


def quote(characters: list[str]) -> str:
    """Characters with their code points, the first ten of them."""
    shown = ", ".join(f"{c!r} U+{ord(c):04X}" for c in characters[:10])
    return shown + (f" and {len(characters) - 10} more" if len(characters) > 10 else "")
