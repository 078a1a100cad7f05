"""Read and pad `.ts` files: sequences of different lengths with one label each.

A file has comments (#), a header (@; @classLabel lists the classes), @data, and then one line per
sequence: its channels and its label, separated by ":". A channel is the values of all steps,
separated by ",".
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from command import refuse


class Sequences(NamedTuple):
    """N labelled sequences, padded with zeros."""

    xs: np.ndarray  # [T, N, I] float32
    lengths: np.ndarray  # [N] int32
    labels: np.ndarray  # [N] int32, positions in `classes`
    classes: list[str]

    def take(self, chosen: np.ndarray) -> "Sequences":
        """Select sequences by a mask or by numbers."""
        xs, lengths, labels, classes = self
        return Sequences(xs[:, chosen], lengths[chosen], labels[chosen], classes)


def read_ts(path: Path) -> Sequences:
    """Read the sequences of a file, padded to the longest."""
    head, _, body = path.read_text().partition("@data\n")
    declared = [line.split()[2:] for line in head.splitlines() if line.startswith("@classLabel")]
    lines = [line for line in body.splitlines() if line.strip()]
    if not declared or not lines:
        repair = "It is cut, or no .ts file of a classification."
        refuse(str(path), "@classLabel, @data and a sequence", "less", repair)
    sequences, labels = zip(*(_sequence(line) for line in lines), strict=True)
    for n, (sequence, label) in enumerate(zip(sequences, labels, strict=True), 1):
        if sequence.shape[1:] != sequences[0].shape[1:] or label not in declared[0]:
            expected = f"{sequences[0].shape[1]} channels and a label of {', '.join(declared[0])}"
            came = f"{list(sequence.shape)} steps and channels, label {label!r}"
            refuse(f"sequence {n} of {path}", expected, came, "Steps are as many in each channel.")
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    xs = np.zeros((max(map(len, sequences)), len(lines), sequences[0].shape[1]), np.float32)
    for n, sequence in enumerate(sequences):
        xs[: len(sequence), n] = sequence
    labels = np.array([declared[0].index(label) for label in labels], np.int32)
    return Sequences(xs, lengths, labels, declared[0])


def _sequence(line: str) -> tuple[np.ndarray, str]:
    """`[T, I]` (`[0, 0]` if the channels differ in length), and the label."""
    *channels, label = line.split(":")
    values = [channel.split(",") for channel in channels]
    if len({len(channel) for channel in values}) != 1:
        return np.zeros((0, 0)), label.strip()
    return np.array(values, np.float32).T, label.strip()
