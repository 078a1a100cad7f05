"""Encode characters as integers, decode them, and cut them into streams for truncated BPTT.

Files are read in blocks and their ids kept in a memory-mapped file, so a text may be larger than
memory:

    alphabet = Alphabet.of(...)
    ids = map_ids(alphabet.encode_blocks(read_blocks(paths)), characters, directory)
    streams = contiguous_streams(ids, batch_size)  # a view
    for xs, labels in chunks(streams, length):  # arrays of one chunk
"""

import codecs
import itertools
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.files import naming

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Bytes. The results for a block stay in the cache: blocks of 1 MB take 1.5 times as long.
BLOCK = 2**16
CODE_POINTS = 0x110000
OTHER_MARKS = {  # never at the start of UTF-8; UTF-32 first: one of its marks starts with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_blocks(paths: Sequence[str | PathLike[str]], size: int = BLOCK) -> Iterator[str]:
    """Read UTF-8 files, one after the other, in blocks; a newline joins two files.

    A byte order mark at the start of a file is skipped. Line ends are not changed: those of Windows
    are two characters, "\\r\\n".

    Args:
        paths: the files.
        size: bytes per read.

    Yields:
        The text of a block, which never splits a character.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is not UTF-8, a file is a pipe (which cannot be read twice), or all files
            are empty. For a file with a mark of UTF-16 or UTF-32 the message says so.
    """
    if isinstance(paths, (str, bytes, PathLike)):
        checks.refuse("paths", "a sequence of paths", "one path", "Put it into a list.")
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
            repair = "Write its output to a file first."
            checks.refuse(
                "text", "files, which are read more than once", f"the pipe {path}", repair
            )
        with naming(path):
            start = file.read(4)
        for mark, encoding in OTHER_MARKS.items():
            if start.startswith(mark):
                repair = f"Convert the file: iconv -f {encoding} -t UTF-8."
                checks.refuse(
                    "text", "UTF-8", f"{encoding} by the byte order mark of {path}", repair
                )
        file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
        data = b"."
        while data:
            with naming(path):
                data = file.read(size)
            try:
                block = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:  # its object ends at file.tell()
                offset = file.tell() - len(error.object) + error.start
                byte = f"byte 0x{error.object[error.start]:02x} at offset {offset:,} of {path}"
                checks.refuse("text", "UTF-8", byte, "Convert the file, for example with iconv.")
            if block:
                yield block


class Alphabet(NamedTuple):
    """The characters that a model knows, sorted; the id of a character is its index.

    Id 0 stands for every other character and is decoded as U+FFFD.

    Attributes:
        characters: U+FFFD, then all others in the order of their code points.
    """

    characters: str

    @classmethod
    def of(cls, text: str) -> "Alphabet":
        """Make the alphabet of a text: U+FFFD for unknown characters, then all of its characters.

        Args:
            text: any string.

        Returns:
            The `Alphabet`.
        """
        return cls(UNKNOWN + "".join(sorted(set(text) - {UNKNOWN})))

    def encode(self, text: str) -> np.ndarray:
        """Encode a text; characters that are not in the alphabet get id 0.

        Args:
            text: any string.

        Returns:
            `[len(text)]` int32.
        """
        return next(self.encode_blocks([text])).astype(np.int32)

    def encode_blocks(self, blocks: Iterable[str]) -> Iterator[np.ndarray]:
        """Encode each block; characters that are not in the alphabet get id 0.

        Args:
            blocks: any strings.

        Yields:
            `[len(block)]` ids, in the smallest unsigned integer dtype that fits the alphabet.
        """
        ids = np.arange(len(self.characters), dtype=np.min_scalar_type(len(self.characters) - 1))
        table = np.zeros(CODE_POINTS, ids.dtype)
        table[code_points(self.characters)] = ids
        for block in blocks:
            yield table.take(code_points(block))

    def decode(self, ids: ArrayLike) -> str:
        """Decode ids.

        Args:
            ids: `[N]` integers in [0, len(characters)).

        Returns:
            The text.

        Raises:
            ValueError: an id outside [0, len(characters)), or a block of several samples.
        """
        checks.shape("ids", ids, (None,), "[N]", "Decode one sample: block[0].")
        checks.ids("ids", ids, len(self.characters), "characters")
        return "".join(self.characters[i] for i in np.asarray(ids))

    def unknown(self, text: str) -> list[str]:
        """Find the characters of a text that are not in the alphabet.

        Args:
            text: any string.

        Returns:
            The characters, sorted.
        """
        return sorted(set(text) - set(self.characters))


def code_points(text: str) -> np.ndarray:
    """The Unicode code points of a text.

    Args:
        text: any string.

    Returns:
        `[len(text)]` uint32, each below `CODE_POINTS`.
    """
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def map_ids(
    blocks: Iterable[np.ndarray], length: int, directory: str | PathLike[str]
) -> np.ndarray:
    """Write ids to an unnamed temporary file and memory-map it; pages are read on access.

    The file disappears with the last array that uses it, or when the process ends for any reason.

    Args:
        blocks: `[n]` ids each, all of one dtype.
        length: N, the sum of all n, at least 1; used in the message if the disk is full.
        directory: the directory of the file.

    Returns:
        `[N]` ids, read-only.

    Raises:
        OSError: the file cannot be written; the message gives the required size.
        ValueError: there are no ids.
    """
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for block in blocks:
            needed = f"{length * block.itemsize:,} bytes for the ids of {length:,} characters"
            with naming(directory, f", writing a temporary file of {needed}"):
                rest = memoryview(block.tobytes())
                while rest:  # a write to an almost full disk may be partial
                    rest = rest[file.write(rest) :]
        if not file.tell():
            checks.refuse("blocks", "at least one id", "none", "An iterator gives them only once.")
        with naming(directory, f", writing a temporary file of {needed}"):
            os.fsync(file.fileno())  # only this reports a full network disk
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(pages, block.dtype)


def contiguous_streams(ids: np.ndarray, batch_size: int, least: int = 2) -> np.ndarray:
    """Cut a sequence into B contiguous streams of equal length, one per column.

    Args:
        ids: `[N]` token ids.
        batch_size: B, the number of streams.
        least: the minimal number of tokens per stream.

    Returns:
        `[N // B, B]`, a view; the remaining tokens at the end are dropped.

    Raises:
        ValueError: the sequence is too short; the message gives the required length. Or the ids
            are no vector.
    """
    checks.sizes(batch_size=batch_size, least=least)
    ids = np.asarray(ids)
    checks.shape("ids", ids, (None,), "[N]", "Alphabet.encode makes them of a text.")
    length = len(ids) // batch_size
    if length < least:
        needed = f"{batch_size * least:,} tokens for {batch_size} streams of {least:,}"
        repair = "Give more text, fewer streams or shorter chunks."
        checks.refuse("ids", f"at least {needed}", f"{len(ids):,}", repair)
    return ids[: length * batch_size].reshape(batch_size, length).T


def chunks(streams: np.ndarray, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over streams once, in chunks of inputs and next tokens.

    Args:
        streams: `[N, B]`, or some of its columns; only the yielded rows are read.
        length: T, the number of steps per chunk.

    Yields:
        `(xs [T, B], labels [T, B])`, int32, with `labels[t]` the token after `xs[t]`; each chunk
        begins where the previous one ended. The last one is shorter if T does not divide N - 1.

    Raises:
        ValueError: a length below 1.
    """
    checks.sizes(length=length)
    streams = np.asarray(streams)
    for start in range(0, len(streams) - 1, length):
        window = streams[start : start + length + 1].astype(np.int32, order="C")
        yield window[:-1], window[1:]


def training_chunks(
    streams: np.ndarray, length: int, start: int = 0
) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], bool]]:
    """Iterate over streams again and again, from any chunk on, as a resumed run continues.

    Args:
        streams: `[N, B]`, N > T; as in `chunks`.
        length: T, the number of steps of every chunk; the last steps of a pass that fill no chunk
            are left out.
        start: the number of the first chunk, from 0; nothing before it is read.

    Yields:
        `((xs [T, B], labels [T, B]), first)`, as in `chunks`, without end; `first` is True for the
        first chunk of a pass, where the state that is carried starts again from zeros.

    Raises:
        ValueError: a length below 1, or streams that fill no chunk.
    """
    checks.sizes(length=length)
    streams = np.asarray(streams)
    in_a_pass = (len(streams) - 1) // length
    if in_a_pass < 1:
        repair = "Give more text, fewer streams or shorter chunks."
        checks.refuse("streams", f"at least {length + 1:,} tokens each", len(streams), repair)
    for number in itertools.count(start):
        i = number % in_a_pass
        yield next(chunks(streams[i * length :], length)), i == 0
