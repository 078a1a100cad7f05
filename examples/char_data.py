"""The text of the character model: its parts, its streams, and what count models make of it."""

import hashlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ngram import witten_bell

from jrnn.text import Alphabet, chunks, contiguous_streams, read_text

MOST_NGRAM_CHARACTERS = 5_000_000  # count models beyond this would outgrow memory, not improve


class Data(NamedTuple):
    """A text as integers, its last tenth held out."""

    sha256: str
    alphabet: Alphabet
    train: np.ndarray  # [N] ids
    validation: np.ndarray  # [M] ids
    streams: np.ndarray  # [N // B, B] the training part
    validation_streams: np.ndarray  # [M // B, B]


def load_data(paths: list[str] | None, batch_size: int, length: int) -> Data:
    """Read and encode a text, by default CPython's language reference; say what there is of it."""
    if paths:
        source, text = ", ".join(paths), read_text(paths)
    else:
        from pydoc_data.topics import topics

        source = f"the language reference of Python {sys.version.split()[0]}"
        text = "\n".join(topics[name] for name in sorted(topics))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    train, validation = text[: int(len(text) * 0.9)], text[int(len(text) * 0.9) :]
    alphabet = Alphabet.of(train)
    ids, validation_ids = alphabet.encode(train), alphabet.encode(validation)
    data = Data(
        sha256,
        alphabet,
        ids,
        validation_ids,
        contiguous_streams(ids, batch_size, least=length + 1),
        contiguous_streams(validation_ids, batch_size),
    )
    print(f"text        {source}: {len(text):,} characters, sha256 {sha256[:16]}")
    print(f"alphabet    {len(alphabet.characters) - 1} characters in the training part")
    unknown = alphabet.unknown(validation)
    if not validation_ids.any():
        raise ValueError(
            "text: expected its last tenth, which is held out, to share characters with the rest; "
            "got none that the rest has. Give a text whose parts are alike."
        )
    if unknown:
        print(
            f"            the validation part has {(validation_ids == 0).sum():,} characters that "
            f"the training part lacks ({quote(unknown)}): read as U+FFFD, not counted"
        )
    return data


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
