"""The settings of the character model, which are the options of its command line."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from command import Checked, NotNegative, NotNegativeFloat, Positive, PositiveFloat, Share, refuse

from jrnn import ActivationName


@dataclass(frozen=True)
class Settings(Checked):
    """Train a character-level language model on real text, and sample from it."""

    out: Path = Path("out/char_lm")  # directory
    seed: NotNegative = 0
    text: Sequence[str] | None = None  # UTF-8 files to train on; None: CPython's language reference
    steps: Positive = 3000
    cell: Literal["rnn", "gru", "lstm"] | None = None  # network; None: rnn, an Elman network
    layers: Positive = 1  # each reads the outputs of the one below
    dropout: NotNegativeFloat = (
        0.0  # share of the outputs of a layer that the next one does not see
    )
    hidden_size: Positive = 256  # units of the network
    w_hh_init: Literal["orthogonal", "gaussian"] = "orthogonal"  # gaussian: deviation 0.01
    length: Positive = 64  # steps in a chunk
    batch_size: Positive = 32  # streams
    devices: Positive | Literal["all"] | None = None
    """CPU cores, or GPUs, to split the batch over; None: as many as divide it"""
    learning_rate: PositiveFloat = 8e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: PositiveFloat = 1.0  # largest norm of the gradient
    activation: ActivationName | None = None  # of an rnn; None: tanh
    eval_every: Positive = 100  # steps between two evaluations
    patience: Positive | None = None
    """stop after so many evaluations in a row that are not better than the best before them"""
    nonfinite: Literal["stop", "skip"] = "stop"
    """what a loss, gradient, update or state that is not finite does to the run, or to its batch"""
    resume: bool = False  # continue from the last checkpoint in --out
    overwrite: bool = False
    """give up an unfinished run in --out, and a finished one even if this is interrupted"""
    checkpoint_every: Positive = 500  # steps between two checkpoints
    keep: Positive = 3  # how many of the last checkpoints; the best is kept too
    on_save_error: Literal["continue", "stop"] = "continue"  # what a full disk does to the run
    coordinator: str | None = None  # HOST:PORT of process 0, to run as several processes
    processes: Positive | None = None  # number of processes, on one machine or more
    process: NotNegative | None = None  # number of this process, from 0
    cluster: bool = False  # ask Slurm, MPI or the cloud for these three
    sample: Positive | None = None  # draw N characters from the model in --out, no training
    best: bool = False  # sample from best.safetensors, not model.safetensors
    num_samples: Positive = 1  # how many, each of N characters
    temperature: NotNegativeFloat = 0.7  # 0 is greedy
    top_k: Positive | None = None  # keep the K likeliest characters
    top_p: Share | None = None  # keep the likeliest with probability P in all
    prompt: str = ""
    """text to continue; without one, a newline, which is not shown; in a text without any, a space,
    or else its first character by code point"""

    def __post_init__(self) -> None:
        """Refuse settings that are none, or that contradict one another."""
        object.__setattr__(self, "out", Path(self.out))
        super().__post_init__()
        if self.text is not None and (isinstance(self.text, str) or not self.text):
            refuse("--text", "one file or more", self.text, "Give a list of their paths.")
        if self.activation not in [None, *activations_of(self.cell)] and not self.sample:
            expected = f"none with --cell {self.cell}, which has its own"
            refuse("--activation", expected, repr(self.activation), "Leave it out.")
        if self.dropout >= 1:
            repair = "It is the share that becomes 0."
            refuse("--dropout", "a number in [0, 1)", self.dropout, repair)
        if self.dropout and self.layers == 1 and not self.sample:
            repair = "It is between two layers: give more --layers, or leave it out."
            refuse("--dropout", "0 with a single layer", self.dropout, repair)
        if self.resume and self.overwrite:
            repair = "The one goes on with a run, the other gives it up."
            refuse("--resume", "one of --resume and --overwrite", "both", repair)
        host, _, port = (self.coordinator or "").rpartition(":")
        known = host and port.isdecimal() and 0 < int(port) < 2**16
        if self.coordinator is not None and not known:
            repair = "It is the address of process 0."
            refuse(
                "--coordinator", "HOST:PORT, a port below 65,536", repr(self.coordinator), repair
            )


def activations_of(cell: str | None) -> list[str] | list[None]:
    """The activations that go with a choice of --cell, the default first."""
    return list(get_args(ActivationName)) if cell in (None, "rnn") else [None]


def resolved(settings: Settings) -> Settings:
    """The same with the network and the activation of None, except where a model file has them."""
    if settings.sample:
        return settings
    activation: Any = settings.activation or activations_of(settings.cell)[0]
    return replace(settings, cell=settings.cell or "rnn", activation=activation)


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Parse a command line, as `Settings.parse`, and resolve it."""
    return resolved(Settings.parse(argv))
