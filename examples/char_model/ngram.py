"""n-gram models of characters, as baselines for a network.

An n-gram model predicts a character from the previous n - 1. Counts alone give unseen pairs the
probability 0. Witten and Bell (The zero-frequency problem, 1991, method C) give a context with N
occurrences and R distinct followers the weight N / (N + R), and the shorter context the rest:

    p_n(c | context) = (count(context, c) + R(context) p_{n-1}(c | shorter)) / (N + R)

down to p_0 = 1 / V. A context that is not in the training set has weight 0.
"""

from collections.abc import Iterator

import numpy as np


def witten_bell(
    train: np.ndarray, test: np.ndarray, vocabulary: int, orders: int
) -> Iterator[np.ndarray]:
    """Yield the probabilities `[M]` of the tokens under the n-gram model, for n = 1, ..., `orders`.

    The ids `test`, `[M]`, follow `train`, `[N]`, in the text; there are `vocabulary` of them, V.
    """
    ids = np.concatenate([train, test]).astype(np.int64)
    p = np.full(len(ids), 1 / vocabulary)
    context = np.zeros(len(ids), np.int64)  # a number for the previous n - 1 tokens
    for n in range(1, orders + 1):
        p = _mix(context, _number(context * vocabulary + ids), p, len(train))
        yield p[len(train) :]
        # The context grows by one token to the left, except at the start of the text.
        before = np.concatenate([np.full(n, vocabulary), ids[:-n]])
        context = _number(context * (vocabulary + 1) + before)


def _mix(context: np.ndarray, pair: np.ndarray, p: np.ndarray, train: int) -> np.ndarray:
    """Apply the rule of Witten and Bell with the counts of the first `train` tokens."""
    occurrences = np.bincount(context[:train], minlength=int(np.max(context)) + 1)
    count = np.bincount(pair[:train], minlength=int(np.max(pair)) + 1)
    context_of_pair = np.zeros(len(count), np.int64)
    context_of_pair[pair] = context
    followers = np.bincount(context_of_pair[count > 0], minlength=len(occurrences))
    total = (occurrences + followers)[context]
    mixed = (count[pair] + followers[context] * p) / np.maximum(total, 1)
    return np.where(total > 0, mixed, p)


def _number(keys: np.ndarray) -> np.ndarray:
    """Renumber distinct keys as 0, 1, 2, ..., so longer contexts cannot overflow."""
    return np.unique(keys, return_inverse=True)[1]
