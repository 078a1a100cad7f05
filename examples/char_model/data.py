"""The text of the character model: its parts, its streams, and n-gram baselines."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from command import refuse

from jrnn.text import CODE_POINTS, Alphabet, code_points, contiguous_streams, map_ids, read_blocks

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


def load_data(
    paths: Sequence[str] | None, batch_size: int, length: int, directory: Path | str
) -> Data:
    """Encode a text, by default CPython's language reference, and print a summary.

    The text is read twice, in blocks; the ids of its training part go to an unnamed file in
    `directory`.
    """
    source, read = _source(paths)
    characters, sha256, first = _survey(read())
    split = _split(characters, batch_size, length)
    alphabet = Alphabet.of("".join(c for c, place in first.items() if place < split))
    train, held_out, same = _encode(read(), split, alphabet, directory)
    if same != sha256:
        repair = "Start again when nothing writes to it."
        refuse("text", "the same when it is read again", f"a change in {source}", repair)
    parts = train, alphabet.encode(held_out)
    data = Data(sha256, alphabet, *parts, *(contiguous_streams(part, batch_size) for part in parts))
    if not data.validation_streams[1:].any():
        expected = "its last tenth, which is held out, to share characters with the rest"
        refuse("text", expected, "none in common", "Give a text whose parts are alike.")
    print(f"text        {source}: {characters:,} characters, sha256 {sha256[:16]}")
    print(f"alphabet    {len(alphabet.characters) - 1} characters in the training part")
    if len(held_out) < characters - split:
        print(f"            (of the {characters - split:,} characters that are held out, ", end="")
        print(f"the first {len(held_out):,} are the validation part)")
    if unknown := alphabet.unknown(held_out):
        number = sum(map(held_out.count, unknown))
        print(
            f"            the validation part has {number:,} characters that the training ", end=""
        )
        print(f"part lacks ({quote(unknown)}): read as U+FFFD, not counted")
    return data


def _source(paths: Sequence[str] | None) -> tuple[str, Callable[[], Iterator[str]]]:
    """The name of the text, and a function that reads it from its start."""
    if paths:
        return ", ".join(paths), partial(read_blocks, paths)
    from pydoc_data.topics import topics

    source = f"the language reference of Python {sys.version.split()[0]}"
    return source, lambda: iter(["\n".join(topics[name] for name in sorted(topics))])


def _survey(blocks: Iterator[str]) -> tuple[int, str, dict[str, int]]:
    """The length and the SHA-256 of a text, and the first position of each of its characters."""
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
    return length, digest.hexdigest(), first


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
    blocks: Iterator[str], split: int, alphabet: Alphabet, directory: Path | str
) -> tuple[np.ndarray, str, str]:
    """The ids of a text before `split`, the characters to evaluate after it, and its SHA-256."""
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
    return ids, held_out, digest.hexdigest()


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
