"""Characters to integers and back, and contiguous streams of them for truncated BPTT."""

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jrnn import checks

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def read_text(paths: Sequence[str | PathLike[str]]) -> str:
    """The text of UTF-8 files, one after the other, joined by newlines.

    Args:
        paths: the files.

    Returns:
        The text.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is not UTF-8, or there is no text in any.
    """
    if isinstance(paths, str):
        checks.refuse("paths", "a sequence of paths", "a string", "Put it into a list.")
    parts = []
    for path in paths:
        try:
            parts.append(Path(path).read_bytes().decode("utf-8"))
        except UnicodeDecodeError as error:
            byte = f"byte 0x{error.object[error.start]:02x} at offset {error.start:,} of {path}"
            checks.refuse("text", "UTF-8", byte, "Convert the file, for example with iconv.")
    if not any(parts):
        names = ", ".join(str(path) for path in paths) or "no file"
        checks.refuse("text", "at least one character", f"none in {names}", "Give another file.")
    return "\n".join(parts)


class Alphabet(NamedTuple):
    """The characters that a model knows, sorted; a character's id is its place.

    Id 0 stands for every character that is not there, and is written as U+FFFD.
    """

    characters: str

    @classmethod
    def of(cls, text: str) -> "Alphabet":
        """The alphabet of a text: its characters, and U+FFFD for all others in front.

        Args:
            text: any string.

        Returns:
            The `Alphabet`.
        """
        return cls(UNKNOWN + "".join(sorted(set(text) - {UNKNOWN})))

    def encode(self, text: str) -> np.ndarray:
        """Ids of the characters of a text; 0 for those that the alphabet lacks.

        Args:
            text: any string.

        Returns:
            `[len(text)]` int32.
        """
        known = _code_points(self.characters)
        order = np.argsort(known, kind="stable")
        points = _code_points(text)
        place = np.minimum(np.searchsorted(known[order], points), len(known) - 1)
        ids = order[place]
        return np.where(known[ids] == points, ids, 0).astype(np.int32)

    def decode(self, ids: np.ndarray) -> str:
        """The text that ids stand for.

        Args:
            ids: `[N]` integers in [0, len(characters)).

        Returns:
            The text.

        Raises:
            ValueError: an id outside.
        """
        checks.ids("ids", ids, len(self.characters), "characters")
        return "".join(self.characters[i] for i in ids)

    def unknown(self, text: str) -> list[str]:
        """The characters of a text that the alphabet lacks.

        Args:
            text: any string.

        Returns:
            The characters, sorted.
        """
        return sorted(set(text) - set(self.characters))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def contiguous_streams(ids: np.ndarray, batch_size: int, least: int = 2) -> np.ndarray:
    """Cut a sequence into streams that are read side by side: column b goes on where it left off.

    Args:
        ids: `[N]` token ids.
        batch_size: B, the number of streams.
        least: tokens that each stream must have.

    Returns:
        `[N // B, B]`; what is left over of the end is dropped.

    Raises:
        ValueError: the sequence is too short for that; the message says how long it must be.
    """
    checks.sizes(batch_size=batch_size, least=least)
    length = len(ids) // batch_size
    if length < least:
        needed = f"{batch_size * least:,} tokens for {batch_size} streams of {least:,}"
        repair = "Give more text, fewer streams or shorter chunks."
        checks.refuse("ids", f"at least {needed}", f"{len(ids):,}", repair)
    return np.ascontiguousarray(ids[: length * batch_size].reshape(batch_size, length).T)


def chunks(streams: np.ndarray, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Walk through streams once, chunk by chunk: the inputs, and the tokens that follow each.

    Args:
        streams: `[N, B]`.
        length: T, steps in a chunk.

    Yields:
        `(xs [T, B], labels [T, B])` with `labels[t]` the token after `xs[t]`; each chunk begins
        where the one before ended. The last one is shorter if T does not divide N - 1.

    Raises:
        ValueError: a length below 1.
    """
    checks.sizes(length=length)
    for start in range(0, len(streams) - 1, length):
        window = streams[start : start + length + 1]
        yield window[:-1], window[1:]
