"""The measured shapes, their data, and their minimal FLOP."""

from typing import NamedTuple

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

    def flops(self, gradient: bool) -> int:
        """FLOP of the matmuls of (1), and for the gradient also of (9), (11), (12)."""
        recurrent, inputs = (3, 2) if gradient else (1, 1)
        return 2 * self.T * self.B * (recurrent * self.H**2 + inputs * self.I * self.H)


CASES = {
    1: Case(128, 32, 64, 64),  # small
    2: Case(512, 32, 128, 256),  # a long chunk of a character model
    3: Case(784, 64, 1, 128),  # pixel by pixel MNIST
    4: Case(128, 64, 256, 512),
    5: Case(1024, 1, 32, 128),  # one sequence
    6: Case(64, 256, 512, 1024),  # nearly all matmul
}
TOY_CASES = {1: Case(7, 4, 3, 5), 2: Case(5, 1, 2, 6)}


class Data(NamedTuple):
    """Parameters, inputs and the weights of the cost sum(hs * y), as float32 NumPy arrays."""

    params: jrnn.RNNParams
    xs: np.ndarray  # [T, B, I]
    y: np.ndarray  # [T, B, H]


def data(case: Case) -> Data:
    """Data for every rival: jrnn's initialiser, normal inputs, normal y."""
    T, B, I, H = case
    random = np.random.default_rng(0)
    params = jrnn.init_rnn(jax.random.key(0), I, H)
    bias = 0.1 * random.standard_normal(H)  # zeros would hide a missing bias
    params = jax.tree.map(np.asarray, params)._replace(b_h=bias.astype(np.float32))
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
