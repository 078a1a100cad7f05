"""A primitive tells its function where it runs, and has the derivatives of its plain program."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jrnn.primitives import CUT, MAPPED, bind, jvp_of_program, map_each, primitive

XS = np.linspace(-1, 1, 12).reshape(3, 4)
IDS = np.array([2, 0, 1, 2])


class Options(NamedTuple):
    factor: float
    no_native: str | None = None


ASKED = []
scaled_p = primitive("scaled", map_each, jvp_of_program)


def program(platform, spec, xs, ids):
    ASKED.append((platform, spec.no_native))
    return {"ids": ids + 1, "ys": spec.factor * xs[ids] ** 3}


def scaled(xs, ids, factor=2.0):
    return bind(scaled_p, program, Options(factor), (xs, ids), {"ids": 0, "ys": 0})


def asked(run):
    """The platforms and reasons that `program` is told; calls of an equal `Options` are cached."""
    ASKED.clear()
    run()
    return set(ASKED)


def test_results_keep_their_structure():
    found = scaled(XS[0], IDS)
    np.testing.assert_array_equal(found["ids"], IDS + 1)
    np.testing.assert_allclose(found["ys"], 2 * XS[0][IDS] ** 3, rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, None), (1, None), (0, 0), (None, 0)], ids=str)
def test_vmap_maps_each_call(axes):
    xs = XS if axes[0] != 1 else XS.T
    xs = xs if axes[0] is not None else XS[0]
    ids = IDS if axes[1] is None else np.stack([IDS, IDS[::-1], IDS])
    found = jax.vmap(scaled, axes)(xs, ids)
    expected = [2 * (XS[n] if axes[0] is not None else xs) ** 3 for n in range(3)]
    expected = [x[ids if axes[1] is None else ids[n]] for n, x in enumerate(expected)]
    np.testing.assert_allclose(found["ys"], expected, rtol=1e-6)


def test_derivatives_of_the_plain_program():
    def cost(xs, ids):
        return jnp.sum(scaled(xs, ids, 1.0)["ys"])

    counts = np.bincount(IDS, minlength=4)
    assert ("any", None) in asked(lambda: jax.grad(cost)(XS[0], IDS))
    gradient = jax.grad(cost)(XS[0], IDS)
    np.testing.assert_allclose(gradient, 3 * counts * XS[0] ** 2, rtol=1e-6)
    hessian = jax.hessian(cost)(XS[0], IDS)
    np.testing.assert_allclose(hessian, np.diag(6 * counts * XS[0]), rtol=1e-6)
    each = jax.vmap(jax.grad(cost), (0, None))(XS, IDS)
    np.testing.assert_allclose(each, 3 * counts * XS**2, rtol=1e-6)
    _, moves = jax.jvp(lambda xs: scaled(xs, IDS), (XS[0],), (np.ones(4),))
    assert moves["ids"].dtype == jax.dtypes.float0


def test_a_function_is_told_why_it_may_not_be_native():
    here = jax.default_backend()
    own = partial(scaled, factor=3.0)  # of no other test, of which no program is remembered
    assert asked(lambda: own(XS[0], IDS)) == {(here, None)}
    each = jax.vmap(own, (0, None))
    assert asked(lambda: each(XS, IDS)) == {(here, MAPPED)}
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    cut = jax.device_put(XS[0], jax.sharding.NamedSharding(mesh, jax.P("data")))
    assert (here, CUT) in asked(lambda: own(cut, IDS))
    compiled = jax.jit(partial(scaled, factor=4.0)).trace(cut, IDS)
    assert asked(compiled.lower) == {(here, CUT)}
    exported = jax.export.export(jax.jit(own), platforms=["cpu", "tpu"])
    reason = "an exported program has no native code"
    assert asked(lambda: exported(XS[0], IDS)) == {("cpu", reason), ("tpu", reason)}
