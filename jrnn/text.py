"""Characters to integers and back, and contiguous streams of them for truncated BPTT.

Files are read block by block and their ids kept in a mapped file, so that a text may be larger than
memory:

    alphabet = Alphabet.of(...)
    ids = map_ids(alphabet.encode_blocks(read_blocks(paths)), characters, directory)
    streams = contiguous_streams(ids, batch_size)  # a view
    for xs, labels in chunks(streams, length):  # arrays of one chunk
"""

import codecs
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np

from jrnn import checks
from jrnn.files import naming

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Bytes. What is made of a block stays in the cache: blocks of 1 MB take half again as long.
BLOCK = 2**16
CODE_POINTS = 0x110000
OTHER_MARKS = {  # no UTF-8 begins with one; UTF-32's are first, since one begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_blocks(paths: Sequence[str | PathLike[str]], size: int = BLOCK) -> Iterator[str]:
    """The text of UTF-8 files, one after the other, joined by newlines, block by block.

    A byte order mark at the start of a file is not part of its text. Line ends stay as they are, so
    those of Windows are two characters, "\\r\\n".

    Args:
        paths: the files.
        size: bytes that are read at once.

    Yields:
        The text of a block; characters are whole, wherever the blocks are cut.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is not UTF-8, or a pipe, which could not be read again, or there is no
            text in any. Of a file that is marked as UTF-16 or UTF-32 the message says so.
    """
    if isinstance(paths, str):
        checks.refuse("paths", "a sequence of paths", "a string", "Put it into a list.")
    checks.sizes(size=size)
    empty = True
    for i, path in enumerate(paths):
        if i:
            yield "\n"
        for block in _read_file(path, size):
            empty = False
            yield block
    if empty:
        names = ", ".join(str(path) for path in paths) or "no file"
        checks.refuse("text", "at least one character", f"none in {names}", "Give another file.")


def _read_file(path: str | PathLike[str], size: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        if not file.seekable():
            repair = "Write what comes out of it into a file."
            checks.refuse(
                "text", "files, which are read more than once", f"the pipe {path}", repair
            )
        with naming(path):
            start = file.read(4)
        for mark, encoding in OTHER_MARKS.items():
            if start.startswith(mark):
                repair = f"Convert the file: iconv -f {encoding} -t UTF-8."
                checks.refuse("text", "UTF-8", f"{encoding}, as {path} begins by saying", repair)
        file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
        data = b"."
        while data:
            with naming(path):
                data = file.read(size)
            try:
                block = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:  # its object ends where the file was read to
                offset = file.tell() - len(error.object) + error.start
                byte = f"byte 0x{error.object[error.start]:02x} at offset {offset:,} of {path}"
                checks.refuse("text", "UTF-8", byte, "Convert the file, for example with iconv.")
            if block:
                yield block


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
        return next(self.encode_blocks([text])).astype(np.int32)

    def encode_blocks(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        """Ids of the characters of each block; 0 for those that the alphabet lacks.

        Args:
            blocks: any strings.

        Yields:
            `[len(block)]`, the smallest unsigned integers that hold the alphabet.
        """
        ids = np.arange(len(self.characters), dtype=np.min_scalar_type(len(self.characters) - 1))
        table = np.zeros(CODE_POINTS, ids.dtype)
        table[code_points(self.characters)] = ids
        for block in blocks:
            yield table.take(code_points(block))

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


def code_points(text: str) -> np.ndarray:
    """The numbers of characters in Unicode.

    Args:
        text: any string.

    Returns:
        `[len(text)]` uint32, each below `CODE_POINTS`.
    """
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def map_ids(
    blocks: Iterable[np.ndarray], length: int, directory: str | PathLike[str]
) -> np.ndarray:
    """Write ids into a temporary file without a name, and map it: pages are read when looked at.

    The file is gone with the last array that looks into it, or with the process, however it ends.

    Args:
        blocks: `[n]` ids each, all of one dtype.
        length: N, the sum of all n, at least 1; it is what the message names if the disk is full.
        directory: where the file is to be.

    Returns:
        `[N]` ids, read-only.

    Raises:
        OSError: the file cannot be written; the message says how large it has to be.
    """
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for block in blocks:
            needed = f"{length * block.itemsize:,} bytes for the ids of {length:,} characters"
            with naming(directory, f", writing a temporary file of {needed}"):
                rest = memoryview(block.tobytes())
                while rest:  # a disk that is almost full takes a part
                    rest = rest[file.write(rest) :]
        with naming(directory, f", writing a temporary file of {needed}"):
            os.fsync(file.fileno())  # of a network only this says that a disk is full
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(pages, block.dtype)


def contiguous_streams(ids: np.ndarray, batch_size: int, least: int = 2) -> np.ndarray:
    """Cut a sequence into streams that are read side by side: column b goes on where it left off.

    Args:
        ids: `[N]` token ids.
        batch_size: B, the number of streams.
        least: tokens that each stream must have.

    Returns:
        `[N // B, B]`, a view; what is left over of the end is dropped.

    Raises:
        ValueError: the sequence is too short for that; the message says how long it must be.
    """
    checks.sizes(batch_size=batch_size, least=least)
    length = len(ids) // batch_size
    if length < least:
        needed = f"{batch_size * least:,} tokens for {batch_size} streams of {least:,}"
        repair = "Give more text, fewer streams or shorter chunks."
        checks.refuse("ids", f"at least {needed}", f"{len(ids):,}", repair)
    return ids[: length * batch_size].reshape(batch_size, length).T


def chunks(streams: np.ndarray, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Walk through streams once, chunk by chunk: the inputs, and the tokens that follow each.

    Args:
        streams: `[N, B]`, or some columns of it; no more is read of it than what is yielded.
        length: T, steps in a chunk.

    Yields:
        `(xs [T, B], labels [T, B])`, int32, with `labels[t]` the token after `xs[t]`; each chunk
        begins where the one before ended. The last one is shorter if T does not divide N - 1.

    Raises:
        ValueError: a length below 1.
    """
    checks.sizes(length=length)
    for start in range(0, len(streams) - 1, length):
        window = streams[start : start + length + 1].astype(np.int32, order="C")
        yield window[:-1], window[1:]
