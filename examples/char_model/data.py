"""The text of the character model: its parts, its streams, and n-gram baselines."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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

from .ngram import witten_bell

MOST_NGRAM_CHARACTERS = 5_000_000  # beyond this, n-gram models need more memory but do not improve
# With this many characters, the bits per character have a standard error of 0.008 (estimated from
# almost independent means of 100, for a 5-gram model); two seeds differ by more. To evaluate a
# tenth of a text of gigabytes would take longer than the training.
MOST_JUDGED_CHARACTERS = 1_000_000


class Data(NamedTuple):
    """A text as integers; its last tenth is the validation set."""

    sha256: str
    alphabet: Alphabet
    train: np.ndarray  # [N] ids in a mapped file
    validation: np.ndarray  # [M] ids to evaluate; id 0 is not evaluated
    streams: np.ndarray  # [N // B, B] the training part
    validation_streams: np.ndarray  # [M // B, B]


class Survey(NamedTuple):
    """The result of the first pass over a text."""

    length: int
    sha256: str
    first: dict[str, int]  # the first position of each character


def load_data(
    paths: Sequence[str] | None, batch_size: int, length: int, directory: Path | str
) -> Data:
    """Encode a text, by default CPython's language reference, and print a summary.

    The text is read twice, in blocks; the ids of its training part go to an unnamed file in
    `directory`.
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


def _source(paths: Sequence[str] | None) -> tuple[str, Callable[[], Iterator[str]]]:
    """The name of the text, and a function that reads it from its start."""
    if paths:
        return ", ".join(paths), partial(read_blocks, paths)
    from pydoc_data.topics import topics

    source = f"the language reference of Python {sys.version.split()[0]}"
    return source, lambda: iter(["\n".join(topics[name] for name in sorted(topics))])


def _survey(blocks: Iterator[str]) -> Survey:
    """The first pass over a text."""
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
    """The number of training characters (nine tenths); checks that both parts are long enough."""
    # The minimum of both parts: of 9 n // 10, and of the rest.
    least = max(-(-10 * batch_size * (length + 1) // 9), 20 * batch_size - 9)
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
    """The second pass: the ids before `split`, and those to evaluate after it."""
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
    """Yield chunks forever, with True for the first of each pass, where the state is reset to 0.

    The first one is chunk number `start`; nothing before it is read.
    """
    in_a_pass = (len(streams) - 1) // length
    for number in count(start):
        i = number % in_a_pass
        yield next(chunks(streams[i * length :], length)), i == 0


def baselines(data: Data) -> dict[str, float]:
    """Bits per character of n-gram models on the characters that the network is evaluated on."""
    n, batch = data.validation_streams.shape
    judged = np.arange(n * batch).reshape(batch, n)[:, 1:].ravel()  # the first one is not a label
    judged = judged[data.validation[judged] != 0]
    train = data.train[-MOST_NGRAM_CHARACTERS:]
    if len(train) < len(data.train):
        print(f"            (n-grams counted on the last {len(train):,} characters)")
    probabilities = witten_bell(train, data.validation, len(data.alphabet.characters), orders=6)
    return {f"{n}-gram": float(-np.log2(p[judged]).mean()) for n, p in enumerate(probabilities, 1)}


def quote(characters: list[str]) -> str:
    """The first ten characters, with their code points."""
    shown = ", ".join(f"{c!r} U+{ord(c):04X}" for c in characters[:10])
    return shown + (f" and {len(characters) - 10} more" if len(characters) > 10 else "")
