"""`vmap`: of shared weights one batch, else what a loop gives; mapped in any way, to any order."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, B, T, assert_close, make_case, together, twice
from jaxprs import equations, sizes
from programs import in_a_new_process

import jrnn

ONE = (None, 1, 0)  # of the weights, xs [T, B, I] and h0 [B, H]


def cost(outputs):
    """A scalar that depends on both outputs, and not linearly."""
    h_last, hs = outputs
    return jnp.sum(jnp.sin(h_last)) + jnp.sum(hs**2)


def everything(f, *args):
    return jax.jit(lambda *args: (f(*args), jax.grad(lambda args: cost(f(*args)))(args)))(*args)


@pytest.mark.parametrize("inner", [lambda f: f, jax.jit, jax.checkpoint], ids=["", "jit", "remat"])
def test_batch_major(inner):
    case = make_case()

    def mapped(params, xs, h0):
        h_last, hs = jax.vmap(inner(jrnn.rnn), (None, 0, 0))(params, xs.swapaxes(0, 1), h0)
        return h_last, hs.swapaxes(0, 1)

    found = everything(mapped, case.params, case.xs, case.h0)
    assert_close(found, everything(jrnn.rnn, case.params, case.xs, case.h0), LAW_RTOL)


def compiled(f, case):
    args = case.params, case.xs, case.h0
    return jax.jit(jax.grad(lambda *args: cost(f(*args)))).lower(*args).compile()


@pytest.mark.optimized
@pytest.mark.parametrize("inner", [lambda f: f, jax.jit], ids=["", "jit"])
def test_a_mapped_sequence_is_the_program_of_the_batch(inner):
    """With a gradient for each, summed afterwards, it would need B*H*H numbers more."""
    case = make_case(T=100, B=16, I=8, H=32, dtype=np.float32)
    programs = [compiled(f, case) for f in (jax.vmap(inner(jrnn.rnn), ONE, (0, 1)), jrnn.rnn)]
    mapped, batch = (p.memory_analysis().temp_size_in_bytes for p in programs)
    assert mapped <= 1.01 * batch
    mapped, batch = (p.cost_analysis()["flops"] for p in programs)
    assert mapped <= 1.01 * batch


def test_two_maps_are_one_batch():
    case, N = make_case(), 2
    xs = np.stack([case.xs, 2 * case.xs], 2)  # [T, B, N, I]

    def twice(params, xs, h0):
        return jax.vmap(jax.vmap(jrnn.rnn, (None, 1, None)), ONE)(params, xs, h0)

    def as_batch(params, xs, h0):
        h0 = jnp.repeat(h0, N, 0)
        h_last, hs = jrnn.rnn(params, xs.reshape(T, B * N, -1), h0)
        each = hs.reshape(T, B, N, -1)
        return h_last.reshape(B, N, -1), jnp.moveaxis(each, 0, 2)

    found = everything(twice, case.params, xs, case.h0)
    assert_close(found, everything(as_batch, case.params, xs, case.h0), LAW_RTOL)


def test_mapped_batches_are_one_batch():
    case = make_case()
    xs = np.stack([case.xs, 2 * case.xs])  # [N, T, B, I]

    def loop(params, xs, h0):
        each = [jrnn.rnn(params, x, h0) for x in xs]
        return tuple(jnp.stack(parts) for parts in zip(*each, strict=True))

    mapped = jax.vmap(jrnn.rnn, (None, 0, None))
    found = everything(mapped, case.params, xs, case.h0)
    assert_close(found, everything(loop, case.params, xs, case.h0), LAW_RTOL)


@pytest.mark.usefixtures("without_native")
@pytest.mark.parametrize("ids", [False, True], ids=["vectors", "ids"])
@pytest.mark.parametrize("batches", [False, True], ids=["sequences", "batches"])
def test_no_gradient_is_formed_for_each(ids, batches):
    N, H = 7, 16
    case = make_case(T=3, B=N, I=4, H=H, ids=ids)
    xs = case.xs[:, :, None].repeat(2, 2) if batches else case.xs

    def mapped(params):
        return cost(jax.vmap(jrnn.rnn, (None, 1))(params, xs))

    jaxpr = jax.make_jaxpr(jax.grad(mapped))(case.params)
    assert max(n for e in equations(jaxpr) for n in sizes(e)) < N * H * H


# The axes of w_ih, w_hh, b_h, xs, h0, lengths, resets, reset_state and recurrent_mask.
MAPPED = {
    "the state": (None, None, None, None, 0, None, None, None, None),
    "the lengths": (None, None, None, None, None, 0, None, None, None),
    "the resets": (None, None, None, None, None, None, -1, None, None),
    "the mask": (None, None, None, None, None, None, None, None, 0),
    "all data": (None, None, None, -2, 0, 0, 1, 0, 0),
    "all": (0, 0, 0, 0, 0, 0, 0, 0, 0),
    "one weight": (None, 2, None, 1, None, None, None, None, None),
}


def of_leaves(*leaves):
    return jrnn.rnn(jrnn.RNNParams(*leaves[:3]), *leaves[3:])


def arguments(batch, seed):
    rng = np.random.default_rng(seed)
    case = make_case(batch=batch, seed=seed)
    lead, states = case.xs.shape[:-1], case.h0.shape
    marks = rng.integers(0, T + 1, lead[1:]), rng.random(lead) < 0.3
    return (*case.params, case.xs, case.h0, *marks, *rng.normal(size=(2, *states)))


@pytest.mark.parametrize(
    ("mapped", "batch"),
    [
        *((name, False) for name in ("the state", "all data", "all", "one weight")),
        *(
            pytest.param(name, False, marks=pytest.mark.thorough)  # of all data
            for name in ("the lengths", "the resets", "the mask")
        ),
        *(pytest.param(name, True, marks=pytest.mark.thorough) for name in ("the lengths", "all")),
        ("all data", True),
    ],
)
def test_whatever_is_mapped_a_map_is_a_loop(mapped, batch):
    axes = MAPPED[mapped]
    calls = [arguments(batch, seed) for seed in range(2)]
    # The arrays of a call, where nothing is mapped those of the first.
    calls[1] = [y if axis is not None else x for x, y, axis in zip(*calls, axes, strict=True)]
    stacked = [
        x if axis is None else np.stack([x, y], axis)
        for x, y, axis in zip(*calls, axes, strict=True)
    ]
    moving = [n for n, x in enumerate(stacked) if x.dtype == np.float64]

    def gradient(f):
        def of(*floats):
            leaves = list(stacked)
            for n, x in zip(moving, floats, strict=True):
                leaves[n] = x
            return cost(f(*leaves))

        return f(*stacked), jax.grad(of, range(len(moving)))(*(stacked[n] for n in moving))

    def loop(*leaves):
        def nth(n):
            parts = (
                x if axis is None else jnp.take(x, n, axis)
                for x, axis in zip(leaves, axes, strict=True)
            )
            return of_leaves(*parts)

        return tuple(jnp.stack(parts) for parts in zip(nth(0), nth(1), strict=True))

    both = together(lambda: gradient(jax.vmap(of_leaves, axes)), lambda: gradient(loop))
    assert_close(*both(), LAW_RTOL)


def curvature(f, *args):
    return jax.jit(twice(lambda args: cost(f(*args))))(args)


def autodiff(params, xs, h0):
    return jrnn.derivation.rnn_scan(params, xs, h0)


def test_second_order_of_sequences():
    case = make_case()
    args = case.params, case.xs, case.h0
    mapped = jax.vmap(jax.jit(jrnn.rnn), ONE, (0, 1))
    assert_close(curvature(mapped, *args), curvature(autodiff, *args), 10 * LAW_RTOL)


@pytest.mark.parametrize(
    "axes",
    [pytest.param((None, 0, None), marks=pytest.mark.thorough), (0, None, None)],
    ids=["batches", "networks"],
)
def test_second_order_of_batches(axes):
    """JAX refuses a rule whose results are mapped along other axes than the function's."""
    pair = [make_case(seed=seed)[:3] for seed in range(2)]
    args = [
        x[0] if axis is None else jax.tree.map(lambda *leaves: jnp.stack(leaves), *x)
        for x, axis in zip(zip(*pair, strict=True), axes, strict=True)
    ]
    found, expected = (curvature(jax.vmap(f, axes), *args) for f in (jrnn.rnn, autodiff))
    assert_close(found, expected, 10 * LAW_RTOL)


def test_second_order_of_each_sequence():
    case = make_case(T=3)
    args = case.params, case.xs, case.h0
    found, expected = (jax.vmap(partial(curvature, f), ONE)(*args) for f in (jrnn.rnn, alone))
    assert_close(found, expected, 10 * LAW_RTOL)


def alone(params, xs, h0):
    h_last, hs = autodiff(params, xs[:, None], h0[None])
    return h_last[0], hs[:, 0]


def test_without_compilation():
    case = make_case(T=2)
    args = case.params, case.xs, case.h0
    with jax.disable_jit():
        found = everything(jax.vmap(jrnn.rnn, ONE, (0, 1)), *args)
    assert_close(found, everything(jrnn.rnn, *args), LAW_RTOL)


def test_a_map_of_one_and_of_none():
    case = make_case(B=2)
    first = case.xs[:, :1], case.h0[:1]
    mapped = jax.vmap(jrnn.rnn, ONE, (0, 1))
    found = everything(mapped, case.params, *first)
    assert_close(found, everything(jrnn.rnn, case.params, *first), LAW_RTOL)
    h_last, hs = mapped(case.params, case.xs[:, :0], case.h0[:0])
    assert h_last.shape == (0, 4)
    assert hs.shape == (T, 0, 4)


SMALL = """
import jax, jrnn
key = jax.random.key(0)
params = jrnn.init_rnn(key, 2, 3)
for dtype in (None, "bfloat16"):
    loss = lambda params, xs: (jrnn.rnn(params, xs, compute_dtype=dtype)[1] ** 2).sum()
    mapped = jax.vmap(jax.grad(loss), (None, 0))
    print(mapped(params, jax.random.normal(key, (3, 6, 2))).w_hh.size)
"""


def test_a_map_of_small_networks_ends_no_process():
    """As it did in XLA:CPU of jaxlib 0.10.2."""
    assert in_a_new_process(SMALL) == ["27", "27"]
