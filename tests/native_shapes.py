"""The native kernel beside XLA's loops, at random shapes, cells, options and marks.

`python tests/native_shapes.py 300 50` compares 300 shapes, each with 50 draws of marks.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from cases import assert_close

import jrnn
from jrnn import native

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")


def network(rng):
    """Sizes, parameters and a function of (params, xs, h0, marks)."""
    T, B, I, H = 0, 0, 1, 1
    while 2 * T * B < I + H:  # fewer steps would not run on the native kernel
        T, B, I, H = (int(n) for n in np.exp(rng.uniform(0, np.log([24, 40, 40, 80]))))
    options = {
        "activation": str(rng.choice(ACTIVATIONS)),
        "reverse": bool(rng.random() < 0.3),
        "clip_delta": 0.1 if rng.random() < 0.3 else None,
    }
    key = jax.random.key(int(rng.integers(2**31)))
    kind = str(rng.choice(["rnn", "leaky", "lstm", "gru"]))
    more = {}
    if kind == "leaky":
        more = {"alpha": 0.3, "learned": bool(rng.random() < 0.5)}
        options["leak"] = str(rng.choice(["input", "state"]))
    if kind in ("lstm", "gru"):
        del options["activation"]
    params = getattr(jrnn, f"init_{kind}")(key, I, H, dtype=jnp.float64, **more)
    run = getattr(jrnn, kind)
    ids = bool(rng.random() < 0.3)
    return (T, B, I, H), params, partial(run, **options), ids


def states(rng, params, B, H):
    """A state of the network; of an LSTM h and c."""
    h, c = rng.normal(size=(2, B, H))
    return jrnn.LSTMState(h, c) if isinstance(params, jrnn.LSTMParams) else h


def marks(rng, params, T, B, H):
    """Lengths, resets, the state after them and a recurrent mask."""
    return (
        rng.integers(0, T + 1, B),
        rng.random((T, B)) < rng.random(),
        states(rng, params, B, H),
        (rng.random((B, H)) < 0.8) / 0.8,
    )


def everything(run, params, xs, h0, marked, cotangents):
    """The outputs, and the gradient in all that has one."""
    lengths, resets, reset_state, mask = marked

    def outputs(given):
        return run(given["params"], given.get("xs", xs), given["h0"], lengths, resets, *given["m"])

    given = {"params": params, "h0": h0, "m": (reset_state, mask)}
    if jnp.issubdtype(xs.dtype, jnp.floating):
        given["xs"] = xs
    found, vjp = jax.vjp(outputs, given)
    return found, vjp(cotangents)


def in_float32(x):
    """The array, of float32 if it is of float64."""
    return jnp.asarray(x, jnp.float32) if x.dtype == np.float64 else x


def in_norm(found, expected):
    """But for numbers of bfloat16 that were rounded the other way, after sums in another order."""
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        assert np.linalg.norm(a - b) <= 2**-6 * np.linalg.norm(b)


def compare(seed, draws):
    """One network by both; it says which if they differ."""
    rng = np.random.default_rng(seed)
    (T, B, I, H), params, run, ids = network(rng)
    rounds = native.library().has_bfloat16 and rng.random() < 0.3
    close = in_norm if rounds else assert_close
    if rounds:
        run = partial(run, compute_dtype=jnp.bfloat16)
    compiled = {}
    for _ in range(draws):
        xs = rng.integers(0, I, (T, B)) if ids else rng.normal(size=(T, B, I))
        cotangents = (states(rng, params, B, H), rng.normal(size=(T, B, H)))
        h0, marked = states(rng, params, B, H), marks(rng, params, T, B, H)
        arguments = (params, xs, h0, marked, cotangents)
        if rounds:
            arguments = jax.tree.map(in_float32, arguments)
            last, outputs = arguments[-1]
            arguments = (*arguments[:-1], (last, outputs.astype(jnp.bfloat16)))
        found = []
        for on in (True, False):
            with native.turned(on):
                f = compiled.setdefault(on, jax.jit(partial(everything, run)))
                found.append(f(*arguments))
        try:
            close(*found)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {T, B, I, H}, {run}, ids: {ids}: {error}") from None
    text = compiled[True].lower(*arguments).as_text()
    assert text.count("jrnn_native_forward") == text.count("jrnn_native_backward") == 1


def main(shapes, draws):
    """All of them."""
    for seed in range(shapes):
        compare(seed, draws)
    print(f"{shapes} shapes, {draws} draws of marks each: native and XLA agree")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(*map(int, sys.argv[1:]))
