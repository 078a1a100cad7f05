"""The measured shapes, their data, and their minimal FLOP."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

import jrnn


class Case(NamedTuple):
    """One shape of a recurrence."""

    T: int  # time
    B: int  # batch
    I: int  # input
    H: int  # hidden

    def __str__(self) -> str:
        return ", ".join(map(str, self))

    def flops(self, gradient: bool, cell: str = "rnn") -> int:
        """FLOP of the matmuls of (1), and for the gradient also of (9), (11), (12)."""
        recurrent, inputs = (3, 2) if gradient else (1, 1)
        of_a_gate = 2 * self.T * self.B * (recurrent * self.H**2 + inputs * self.I * self.H)
        return CELLS[cell][0] * of_a_gate


# The gates, which are blocks of H columns, and the common form of (w_ih, w_hh, b_h).
CELLS: dict[str, tuple[int, Callable[..., Any]]] = {
    "rnn": (1, jrnn.RNNParams),
    "lstm": (4, jrnn.LSTMParams),
    "gru": (3, partial(jrnn.GRUParams, b_hn=None)),  # flax's GRUCell has no b_hn
}
CASES = {
    1: Case(128, 32, 64, 64),  # small
    2: Case(512, 32, 128, 256),  # a long chunk of a character model
    3: Case(784, 64, 1, 128),  # pixel by pixel MNIST
    4: Case(128, 64, 256, 512),
    5: Case(1024, 1, 32, 128),  # one sequence
    6: Case(64, 256, 512, 1024),  # nearly all matmul
    7: Case(1024, 2, 32, 128),  # few sequences
    8: Case(1024, 4, 32, 128),
    9: Case(1024, 8, 32, 128),
    10: Case(128, 32, 64, 100),  # rows that vectors of 8 or 16 numbers do not fill
}
TOY_CASES = {1: Case(7, 4, 3, 5), 2: Case(5, 1, 2, 6)}


class Data(NamedTuple):
    """Parameters, inputs and the weights of the cost sum(hs * y), as float32 NumPy arrays."""

    params: Any  # RNNParams, LSTMParams or GRUParams
    xs: np.ndarray  # [T, B, I]
    y: np.ndarray  # [T, B, H]


@lru_cache(maxsize=2)
def data(case: Case, cell: str = "rnn") -> Data:
    """Data for every rival: jrnn's initialiser for each gate, normal inputs, normal y."""
    T, B, I, H = case
    random = np.random.default_rng(0)
    number, form = CELLS[cell]
    keys = jax.random.split(jax.random.key(0), number)
    gates = [jrnn.init_rnn(key, I, H) for key in keys]
    w_ih = np.concatenate([gate.w_ih for gate in gates], -1)
    w_hh = np.concatenate([gate.w_hh for gate in gates], -1)
    bias = 0.1 * random.standard_normal(w_hh.shape[1:])  # zeros would hide a missing bias
    params = form(w_ih, w_hh, bias.astype(np.float32))
    xs, y = random.standard_normal((T, B, I)), random.standard_normal((T, B, H))
    return Data(params, xs.astype(np.float32), y.astype(np.float32))


class Ends(NamedTuple):
    """Lengths of sequences and starts of segments."""

    lengths: np.ndarray  # [B], from T / 2 to T
    resets: np.ndarray  # [T, B] bool, one step in fifty


def ends(case: Case) -> Ends:
    """Lengths and resets for every rival."""
    random = np.random.default_rng(1)
    lengths = random.integers(case.T // 2, case.T + 1, case.B)
    return Ends(lengths, random.random((case.T, case.B)) < 1 / 50)
