"""A character model and its 60 training steps, for torch and for jrnn."""

import json
from pathlib import Path

import numpy as np

RECORD = Path(__file__).parents[1] / "recorded/training.json"
TEXT = "".join(
    f"{i} and {k} are {i + k}, {i} times {k} is {i * k}.\n" for i in range(13) for k in range(13)
)
ALPHABET = sorted(set(TEXT))
STEPS, B, T, H, V = 60, 4, 16, 64, len(ALPHABET)
ADAM = {"learning_rate": 3e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
BLOCKS = {"lstm": 4, "gru": 3}


def batches():
    """Ids and next ids `[STEPS, T, B]` of B streams that the batches follow."""
    ids = np.array([ALPHABET.index(c) for c in TEXT], np.int32)
    n = STEPS * T
    starts = np.arange(B) * (len(ids) - n - 1) // (B - 1)
    streams = np.stack([ids[i : i + n + 1] for i in starts], 1)
    return streams[:-1].reshape(STEPS, T, B), streams[1:].reshape(STEPS, T, B)


def weights(kind):
    """As a module of torch has them; of NumPy's older generator, the same in every version."""
    random = np.random.RandomState(1)
    rows = BLOCKS[kind] * H

    def uniform(*shape):
        return random.uniform(-1, 1, shape).astype(np.float32) / np.float32(H**0.5)

    network = {
        "weight_ih_l0": uniform(rows, V),
        "weight_hh_l0": uniform(rows, H),
        "bias_ih_l0": uniform(rows),
        "bias_hh_l0": learned_part(kind) * uniform(rows),
    }
    return network, {"weight": uniform(V, H), "bias": uniform(V)}


def learned_part(kind):
    """1 where the second bias is another parameter than the first, 0 where it is frozen at 0."""
    part = np.zeros(BLOCKS[kind] * H, np.float32)
    if kind == "gru":
        part[-H:] = 1
    return part


def recorded():
    return json.loads(RECORD.read_text())
