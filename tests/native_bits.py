"""A program for `test_native_threads.py`: a digest of results, of many calls from many threads.

It makes `calls` calls, in `threads` threads at once; their bits must be the same.
"""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from jrnn.cells.elman import elman
from jrnn.kernel import Spec, Weights, unroll
from jrnn.kernel.backends.native import Native


def gradients(slices, T, B, I, H):
    """The gradient of a batch, by so many slices, and its arguments."""
    rng = np.random.default_rng(0)
    params = jrnn.init_rnn(jax.random.key(0), I, H)
    xs, h0 = (rng.normal(size=size).astype(params.b_h.dtype) for size in ((T, B, I), (B, H)))
    spec = Spec(elman("tanh"), backend=Native(slices))

    def cost(params, xs, h0):
        (last,), hs = unroll(spec, Weights(*params), xs, (h0,))
        return jnp.sum(last) + jnp.sum(jnp.sin(hs))

    return jax.jit(jax.grad(cost, (0, 1, 2))), (params, xs, h0)


def digest(results):
    """Of the bits."""
    parts = [np.asarray(x).tobytes() for x in jax.tree.leaves(results)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def main(slices, calls, threads):
    """Print the digests of a large and a small shape."""
    for shape, number in (((40, 37, 65, 100), 10), ((5, 6, 3, 17), calls)):
        run, arguments = gradients(slices, *shape)
        run = run.lower(*arguments).compile()
        with ThreadPoolExecutor(threads) as pool:
            found = set(pool.map(lambda _: digest(run(*arguments)), range(number)))
        assert len(found) == 1, found
        print(*found)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
