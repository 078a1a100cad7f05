"""The text of the character model: its parts, its streams, and what count models make of it."""

import hashlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ngram import witten_bell

from jrnn.checks import refuse
from jrnn.text import Alphabet, chunks, contiguous_streams, read_text

MOST_NGRAM_CHARACTERS = 5_000_000  # count models beyond this would outgrow memory, not improve


class Data(NamedTuple):
    """A text as integers, its last tenth held out."""

    sha256: str
    alphabet: Alphabet
    train: np.ndarray  # [N] ids
    validation: np.ndarray  # [M] ids; 0 is not judged
    streams: np.ndarray  # [N // B, B] the training part
    validation_streams: np.ndarray  # [M // B, B]


def load_data(paths: list[str] | None, batch_size: int, length: int) -> Data:
    """Read and encode a text, by default CPython's language reference; say what there is of it."""
    source, text = _read(paths)
    train, validation = _split(text, batch_size, length)
    alphabet = Alphabet.of(train)
    ids, validation_ids = alphabet.encode(train), alphabet.encode(validation)
    data = Data(
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        alphabet,
        ids,
        validation_ids,
        contiguous_streams(ids, batch_size),
        contiguous_streams(validation_ids, batch_size),
    )
    if not data.validation_streams[1:].any():
        expected = "its last tenth, which is held out, to share characters with the rest"
        refuse("text", expected, "none in common", "Give a text whose parts are alike.")
    print(f"text        {source}: {len(text):,} characters, sha256 {data.sha256[:16]}")
    print(f"alphabet    {len(alphabet.characters) - 1} characters in the training part")
    unknown = alphabet.unknown(validation)
    if unknown:
        count = sum(map(validation.count, unknown))
        print(
            f"            the validation part has {count:,} characters that the training part "
            f"lacks ({quote(unknown)}): read as U+FFFD, not counted"
        )
    return data


def _read(paths: list[str] | None) -> tuple[str, str]:
    """What the text is, and the text."""
    if paths:
        return ", ".join(paths), read_text(paths)
    from pydoc_data.topics import topics

    source = f"the language reference of Python {sys.version.split()[0]}"
    return source, "\n".join(topics[name] for name in sorted(topics))


def _split(text: str, batch_size: int, length: int) -> tuple[str, str]:
    """The first nine tenths, and the last; enough of both for the streams."""

    def enough(characters: int) -> bool:
        train = int(0.9 * characters)
        return train >= batch_size * (length + 1) and characters - train >= 2 * batch_size

    if not enough(len(text)):
        least = next(n for n in range(len(text), 100 * batch_size * (length + 1)) if enough(n))
        expected = f"at least {least:,} characters for {batch_size} streams of chunks of {length}"
        repair = "Give more text, or a smaller --batch-size or --length."
        refuse("text", f"{expected} with a tenth held out", f"{len(text):,}", repair)
    return text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]


def training_chunks(streams: np.ndarray, length: int) -> Iterator[tuple[Any, bool]]:
    """Chunks without end; True with the first of each pass, where the state starts from zero."""
    while True:
        for i, batch in enumerate(chunks(streams, length)):
            if len(batch[0]) == length:
                yield batch, i == 0


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
