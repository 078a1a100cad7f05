"""The measured shapes and groups of programs, their data, and their minimal FLOP."""

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
    10: Case(128, 32, 64, 100),  # rows that vectors of 8 or 16 numbers do not fill
}
TOY_CASES = {1: Case(7, 4, 3, 5), 2: Case(5, 1, 2, 6)}


class Group(NamedTuple):
    """Programs that compute the same, and are compared with one another."""

    case: Case
    route: str = "batch"  # of `kernel.ROUTES`
    dtype: str = "float32"
    gradient: bool = True  # False: the states alone
    cell: str = "rnn"

    def __str__(self) -> str:
        what = "forward + backward" if self.gradient else "forward"
        return f"{self.cell} ({self.case}) {self.route} {self.dtype} {what}"

    @property
    def has_libraries(self) -> bool:
        """Whether the libraries are measured with it."""
        return (self.route, self.dtype) == ("batch", "float32")

    def key(self) -> dict[str, Any]:
        """The part of a record that describes it."""
        table = f"{self.cell}: {self.route}, {self.dtype}"
        return {"table": table, "axis": ", ".join(self.case._fields), "place": str(self.case)}

    def flops(self) -> int:
        """FLOP of the matmuls of (1), and for the gradient also of (9), (11), (12)."""
        T, B, I, H = self.case
        recurrent, inputs = (3, 2) if self.gradient else (1, 1)
        return CELLS[self.cell][0] * 2 * T * B * (recurrent * H**2 + inputs * I * H)


@lru_cache(maxsize=2)
def data(case: Case, cell: str = "rnn") -> tuple[Any, np.ndarray, np.ndarray]:
    """Parameters, xs [T, B, I] and the weights y [T, B, H] of the cost sum(hs * y), in float32.

    Every gate has jrnn's initialiser; xs and y are normal.
    """
    T, B, I, H = case
    random = np.random.default_rng(0)
    number, form = CELLS[cell]
    keys = jax.random.split(jax.random.key(0), number)
    gates = [jrnn.init_rnn(key, I, H, dtype=np.float32) for key in keys]
    w_ih = np.concatenate([gate.w_ih for gate in gates], -1)
    w_hh = np.concatenate([gate.w_hh for gate in gates], -1)
    bias = 0.1 * random.standard_normal(w_hh.shape[1:])  # zeros would hide a missing bias
    params = form(w_ih, w_hh, bias.astype(np.float32))
    xs, y = random.standard_normal((T, B, I)), random.standard_normal((T, B, H))
    return params, xs.astype(np.float32), y.astype(np.float32)


def ends(case: Case) -> dict[str, np.ndarray]:
    """Lengths [B], from T / 2 to T, and resets [T, B], at one step in fifty, for every rival."""
    random = np.random.default_rng(1)
    lengths = random.integers(case.T // 2, case.T + 1, case.B)
    return {"lengths": lengths, "resets": random.random((case.T, case.B)) < 1 / 50}
