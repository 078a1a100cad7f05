"""One label for a document: bags of words in, many steps to one answer, trained to the end."""

import jax
import numpy as np
import optax
import pytest

import jrnn

N, T, WORDS, CLASSES = 100, 6, 9, 3


def documents(seed):
    """Word counts [T, N, WORDS] of up to T sentences, their number, and the subject [N].

    In one sentence of each document one word of its subject stands among words of no subject.
    """
    rng = np.random.default_rng(seed)
    lengths, subjects = rng.integers(1, T + 1, N), rng.integers(0, CLASSES, N)
    counts = rng.poisson(0.3, (T, N, WORDS)).astype(np.float32)
    counts[..., : 2 * CLASSES] = 0  # two words for each subject
    for n in range(N):
        counts[rng.integers(0, lengths[n]), n, 2 * subjects[n] + rng.integers(0, 2)] = 1
        counts[lengths[n] :, n] = np.nan  # nobody may look there
    return counts, lengths, subjects


def last_state(h_last, hs, lengths):
    return h_last[-1]


def mean_of_states(h_last, hs, lengths):
    return jrnn.mean_over_time(hs, lengths)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    "pooled", [pytest.param(last_state, marks=pytest.mark.slow), mean_of_states]
)
def test_bags_of_words(pooled):
    keys = jax.random.split(jax.random.key(0))
    model = (
        jrnn.init_stack(keys[0], WORDS, (8, 6), bidirectional=True, layer_norm=True),
        jrnn.init_readout(keys[1], 12, CLASSES),
    )
    optimizer = optax.adam(2e-2)

    def logits(model, counts, lengths, key=None):
        h_last, hs = jrnn.stack(model[0], counts, None, lengths, key=key, dropout=0.1)
        return jrnn.readout(model[1], pooled(h_last, hs, lengths))

    def cost(model, key):
        counts, lengths, subjects = documents(seed=0)
        losses = jrnn.softmax_cross_entropy(logits(model, counts, lengths, key), subjects)
        return losses.mean()

    def step(state, key):
        model, opt_state = state
        updates, opt_state = optimizer.update(jax.grad(cost)(model, key), opt_state, model)
        return (optax.apply_updates(model, updates), opt_state), None

    train = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys)[0])
    model, _ = train((model, optimizer.init(model)), jax.random.split(keys[0], 300))

    predict = jax.jit(logits)

    def accuracy(seed):
        counts, lengths, subjects = documents(seed)
        return np.mean(np.argmax(predict(model, counts, lengths), -1) == subjects)

    assert accuracy(seed=0) == 1
    assert accuracy(seed=1) >= 0.95
