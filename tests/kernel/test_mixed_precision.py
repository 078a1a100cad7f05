"""Matmuls in a narrower dtype: what is rounded, what is not, and how far the result is off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, make_case, value_and_cotangents
from cover import in_tiers

import jrnn

HALF = [jnp.bfloat16, jnp.float16]


def run(case, dtype, **options):
    def f(params, xs, h0):
        return jrnn.rnn(params, xs, h0, compute_dtype=dtype, **options)

    def widened(params, xs, h0):  # the cotangent of hs is rounded to its dtype
        h_last, hs = f(params, xs, h0)
        return h_last, hs.astype(h_last.dtype)

    return value_and_cotangents(widened, case)


@pytest.mark.usefixtures("without_native")
@pytest.mark.parametrize(("T", "B"), [(1, 32), pytest.param(3, 512, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_backward_pass_in_chunks_of_one_step(T, B, remat):
    """jaxlib 0.10.2 has no kernel for the matmul that XLA:CPU made of it."""
    case = make_case(T=T, B=B, dtype=np.float32)
    (_, found), (_, whole) = (run(case, dtype, remat=remat) for dtype in (jnp.bfloat16, None))
    for d, right in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        assert np.linalg.norm(d - right) <= 0.02 * np.linalg.norm(right)


def one_by_one(case, dtype):
    """The batch as a `vmap` of the other form."""

    def f(params, xs, h0):
        one = lambda x, h: jrnn.rnn(params, x, h, compute_dtype=dtype)
        h_last, hs = jax.vmap(one, (1, 0), (0, 1))(xs, h0)
        return h_last, hs.astype(h_last.dtype)

    return value_and_cotangents(f, case)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("dtype", HALF)
def test_dtypes(dtype):
    case = make_case(dtype=np.float32)
    h_last, hs = jrnn.rnn(case.params, case.xs, case.h0, compute_dtype=dtype)
    assert (h_last.dtype, hs.dtype) == (jnp.float32, dtype)
    _, cotangents = run(case, dtype)
    assert {d.dtype for d in cotangents.values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.usefixtures("float32")
@in_tiers(form=["plain", "remat", "vmap"], dtype=HALF)
def test_the_documented_error(dtype, form):
    """Of each array in norm, against float32, with an orthogonal w_hh as it is drawn."""
    case = make_case(T=100, B=8, I=16, H=32, h0="[B, H]", dtype=np.float32)
    params = jrnn.init_rnn(jax.random.key(0), 16, 32)
    case = case._replace(params=params._replace(b_h=case.params.b_h))
    remat = form == "remat"
    found = one_by_one(case, dtype) if form == "vmap" else run(case, dtype, remat=remat)
    expected = value_and_cotangents(jrnn.rnn, case)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        off = np.linalg.norm(np.asarray(a - b)) / np.linalg.norm(np.asarray(b))
        assert 1e-5 < off < {jnp.bfloat16: 1e-2, jnp.float16: 1.5e-3}[dtype]


def test_the_dtype_of_the_parameters_changes_nothing():
    case = make_case()
    assert_close(run(case, jnp.float64), value_and_cotangents(jrnn.rnn, case), rtol=0.0)


@pytest.mark.usefixtures("float32")
def test_the_objective_in_bfloat16_is_near():
    case = make_case(T=20, ids=True, dtype=np.float32)
    readout = jrnn.init_readout(jax.random.key(0), 4, 5)

    def cost(params, **options):
        return jrnn.rnn_cross_entropy(params, readout, case.xs, case.xs, **options)[0]

    half, full = (
        jax.grad(cost)(case.params, compute_dtype=dtype) for dtype in (jnp.bfloat16, None)
    )
    assert_close(half, full, rtol=1e-2)


@pytest.mark.usefixtures("float32")
@in_tiers(sizes=[{"T": 1}, {"T": 10}, {"B": 1}, {"H": 1, "I": 1}], remat=[False, True])
def test_no_shape_meets_a_matmul_that_the_backend_refuses(sizes, remat):
    """XLA:CPU has no bfloat16 product of a transposed left factor that is summed in float32."""
    case = make_case(**sizes, dtype=np.float32)
    found = run(case, jnp.bfloat16, remat=remat)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(found))
