"""A program for `test_native_threads.py`: a digest of results, of many calls from many threads.

It makes `calls` calls, in `threads` threads at once; their bits must be the same.
"""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn import native

CELLS = ("rnn", "lstm", "gru", "leaky")


def halves(cores):
    """The slices of one long sequence."""
    return 2 if cores > 1 and native.library().isa != native.TILES else 1


def gradients(slices, T, B, I, H, kind="rnn"):
    """The gradient of a batch, compiled for so many slices, and its arguments."""
    rng = np.random.default_rng(0)
    more, options = ({"alpha": 0.3}, {"leak": "state"}) if kind == "leaky" else ({}, {})
    params = getattr(jrnn, f"init_{kind}")(jax.random.key(0), I, H, **more)
    xs, h0 = (rng.normal(size=size).astype(params.b_h.dtype) for size in ((T, B, I), (B, H)))
    start = jrnn.LSTMState(h0, h0) if kind == "lstm" else h0

    def cost(params, xs, start):
        last, hs = getattr(jrnn, kind)(params, xs, start, **options)
        return sum(x.sum() for x in jax.tree.leaves(last)) + jnp.sum(jnp.sin(hs))

    arguments = (params, xs, start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "cpu_cores", lambda: slices)
        lowered = jax.jit(jax.grad(cost, (0, 1, 2))).lower(*arguments)
        used = min(slices, B) if B > 1 else halves(slices)
    assert lowered.as_text().count(f"slices = {used} :") == 2
    return lowered.compile(), arguments


def digest(results):
    """Of the bits."""
    parts = [np.asarray(x).tobytes() for x in jax.tree.leaves(results)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def main(slices, calls, threads):
    """Print the digests of a large shape and of one sequence by each cell, and of a small shape."""
    many = [((40, 37, 33, 50), kind, 10) for kind in CELLS]
    halved = [((500, 1, 24, 200), kind, 10) for kind in CELLS]
    for shape, kind, number in (*many, *halved, ((20, 6, 3, 17), "rnn", calls)):
        run, arguments = gradients(slices, *shape, kind)
        with ThreadPoolExecutor(threads) as pool:
            found = set(pool.map(lambda _, run=run, of=arguments: digest(run(*of)), range(number)))
        assert len(found) == 1, found
        print(*found)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
