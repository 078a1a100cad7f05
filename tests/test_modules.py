"""A stack as a module of flax nnx and of equinox computes what `jrnn.stack` does, and learns."""

import importlib
import io
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cells_of_users import GATED
from flax import nnx

import jrnn
import jrnn.equinox
import jrnn.nnx
from jrnn.cells.elman import elman
from jrnn.cells.leaky import leaky

pytestmark = pytest.mark.usefixtures("float32")
XS = np.random.default_rng(0).normal(size=(7, 4, 3)).astype(np.float32)
TARGET = np.cumsum(XS[..., :2], 0) / 4
LENGTHS = jnp.array([7, 3, 0, 5])


class NnxModel(nnx.Module):
    def __init__(self, rngs, **options):
        self.stack = jrnn.nnx.Stack(3, [6, 5], rngs=rngs, **options)
        self.out = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, xs, **given):
        return self.out(self.stack(xs, **given)[1])


class EqxModel(eqx.Module):
    stack: jrnn.equinox.Stack
    out: eqx.nn.Linear

    def __init__(self, key, **options):
        first, second = jax.random.split(key)
        self.stack = jrnn.equinox.Stack(3, [6, 5], key=first, **options)
        self.out = eqx.nn.Linear(5, 2, key=second)

    def __call__(self, xs, **given):
        return jax.vmap(jax.vmap(self.out))(self.stack(xs, **given)[1])


@pytest.mark.parametrize("options", [{}, {"cell": "lstm", "bidirectional": True, "bias": False}])
def test_they_compute_what_stack_does(options):
    flax = jrnn.nnx.Stack(3, [6, 6], rngs=nnx.Rngs(0), options={"residual": False}, **options)
    equinox = jrnn.equinox.Stack(3, [6, 6], key=jax.random.key(0), **options)
    for module, params in ((flax, flax.pure()), (equinox, equinox.params)):
        assert isinstance(params, jrnn.StackParams)
        found = module(XS, lengths=LENGTHS)
        assert jax.tree.all(
            jax.tree.map(np.array_equal, found, jrnn.stack(params, XS, lengths=LENGTHS))
        )
        again = module(XS, found[0])
        np.testing.assert_array_equal(again[1], jrnn.stack(params, XS, found[0])[1])


def made(name, layers=1, **options):
    """A module of three inputs and five units; dropout needs a second layer."""
    sizes = [5] * layers
    if name == "nnx":
        return jrnn.nnx.Stack(3, sizes, rngs=nnx.Rngs(0), **options)
    return jrnn.equinox.Stack(3, sizes, key=jax.random.key(0), **options)


def params_of(module):
    return module.pure() if isinstance(module, nnx.Module) else module.params


@pytest.mark.parametrize("name", ["nnx", "equinox"])
@pytest.mark.parametrize(
    ("cell", "init"),
    [(elman("relu"), {}), (GATED, {"tau": 0.5})],
    ids=["relu", "own parameters"],
)
def test_the_cell_that_draws_the_parameters_runs_them(cell, init, name):
    module = made(name, cell=cell, **init)
    wanted = jrnn.stack(params_of(module), XS, cell=cell)
    assert jax.tree.all(jax.tree.map(np.array_equal, module(XS), wanted))
    wanted = jrnn.stack(params_of(module), XS, cell=cell, remat=True)
    assert jax.tree.all(jax.tree.map(np.array_equal, module(XS, remat=True), wanted))


@pytest.mark.parametrize("name", ["nnx", "equinox"])
def test_leaky_layers_need_their_cell(name):
    said = (
        r"^options: expected the cell of leaky layers; got none\. Give options=\{\"cell\": jrnn\."
    )
    with pytest.raises(ValueError, match=said):
        made(name, cell="leaky", alpha=0.5)
    cell = leaky("tanh", "input", learned=False)
    module = made(name, cell="leaky", alpha=0.5, options={"cell": cell})
    wanted = jrnn.stack(params_of(module), XS, cell=cell)
    assert jax.tree.all(jax.tree.map(np.array_equal, module(XS), wanted))


def test_the_structure_of_an_nnx_module_has_a_hash():
    """As `jax.jit` needs it of what is static."""
    structure, state = nnx.split(made("nnx", options={"remat": [True], "residual": False}))
    run = jax.jit(lambda structure, state: nnx.merge(structure, state)(XS)[1], static_argnums=0)
    assert run(structure, state).shape == (*XS.shape[:2], 5)


@pytest.mark.skipif(not hasattr(nnx, "view"), reason="flax 0.12.0 has no nnx.view")
def test_a_view_for_evaluation_has_no_dropout():
    module = made("nnx", layers=2, dropout=0.5)
    view = nnx.view(module, deterministic=True)
    np.testing.assert_array_equal(view(XS)[1], jrnn.stack(module.pure(), XS)[1])
    assert not np.array_equal(module(XS)[1], view(XS)[1])
    assert "True is evaluation" in nnx.view_info(module)


@pytest.mark.slow
def test_nnx_trains_it():
    model = NnxModel(nnx.Rngs(0), cell="gru", dropout=0.2)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    traces = []

    @nnx.jit
    def train_step(model, optimizer):
        traces.append(None)
        cost = lambda model: jnp.mean((model(XS) - TARGET) ** 2)
        loss, gradient = nnx.value_and_grad(cost)(model)
        optimizer.update(model, gradient)
        return loss

    before = model.stack.pure()
    losses = [float(train_step(model, optimizer)) for _ in range(60)]
    assert losses[-1] < losses[0] / 3
    assert len(traces) == 1
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, before, model.stack.pure())))
    assert not np.array_equal(model(XS), model(XS))  # dropout, another for each call
    model.eval()
    evaluated = model(XS)
    np.testing.assert_array_equal(evaluated, model(XS))
    structure, state = nnx.split(model)
    np.testing.assert_array_equal(nnx.merge(structure, state)(XS), evaluated)


@pytest.mark.slow
def test_equinox_trains_it():
    model = EqxModel(jax.random.key(0), cell="gru", dropout=0.2)
    optimizer = optax.adam(1e-2)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    traces = []

    @eqx.filter_jit
    def train_step(model, state, key):
        traces.append(None)
        cost = lambda model: jnp.mean((model(XS, key=key) - TARGET) ** 2)
        loss, gradient = eqx.filter_value_and_grad(cost)(model)
        updates, state = optimizer.update(gradient, state)
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for key in jax.random.split(jax.random.key(2), 60):
        model, state, loss = train_step(model, state, key)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 3
    assert len(traces) == 1
    with pytest.raises(
        ValueError, match=r"^key: expected a JAX random key, for dropout; got None\. "
    ):
        model(XS)
    evaluated = eqx.nn.inference_mode(model)(XS)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, model)
    file.seek(0)
    fresh = EqxModel(jax.random.key(9), cell="gru", dropout=0.2)
    restored = eqx.nn.inference_mode(eqx.tree_deserialise_leaves(file, fresh))
    np.testing.assert_array_equal(restored(XS), evaluated)
    by_sequence = jax.vmap(restored.stack, 1, 1)(XS)[1]
    np.testing.assert_allclose(by_sequence, restored.stack(XS)[1], 1e-5, 1e-6)


REFUSED = {
    "dropout of one layer": ({"dropout": 0.2}, r"dropout: expected 0 for one layer"),
    "a share above 1": ({"dropout": 1.5}, r"dropout: expected a number in \[0, 1\); got 1\.5"),
    "an unknown option": (
        {"options": {"resid": True}},
        r"options: expected options among activation, cell, residual, .*; got resid\. Arrays such",
    ),
    "dropout as an option": ({"options": {"dropout": 0.2}}, "among .*, inputs; got dropout"),
    "the value of an option": ({"options": {"activation": "foo"}}, 'activation: expected one of "'),
    "both ways in reverse": (
        {"bidirectional": True, "options": {"reverse": True}},
        "reverse: expected False for layers of two directions",
    ),
    "a residual connection by number": ({"options": {"residual": 1}}, "residual: expected True or"),
}


@pytest.mark.parametrize("name", ["nnx", "equinox"])
@pytest.mark.parametrize("given", REFUSED)
def test_what_training_would_refuse_is_refused_at_once(name, given):
    """In evaluation, which has no dropout, some of it would not show."""
    options, said = REFUSED[given]
    with pytest.raises(ValueError, match=said):
        made(name, **options)


def test_parameters_that_no_optimiser_would_see_are_refused():
    model, given = (
        jrnn.nnx.Stack(3, [6], rngs=nnx.Rngs(0)),
        jrnn.init_stack(jax.random.key(1), 3, [6]),
    )
    model.params = given
    with pytest.raises(
        ValueError, match=r"params: expected an nnx.Param for each array; got Array"
    ):
        model(XS)
    model.params = jax.tree.map(nnx.Param, given)
    np.testing.assert_array_equal(model(XS)[1], jrnn.stack(given, XS)[1])


def test_dropout_that_is_set_afterwards_is_refused():
    model = jrnn.nnx.Stack(3, [6, 6], rngs=nnx.Rngs(0))
    model.dropout = 0.2
    with pytest.raises(
        ValueError, match=r"dropout: expected 0, .*; got 0\.2\. Give it to the const"
    ):
        model(XS)
    model.eval()
    assert model(XS)[1].shape == (*XS.shape[:2], 6)


@pytest.mark.parametrize("name", ["nnx", "equinox"])
def test_bad_sizes_are_refused_by_the_package(name):
    make = {
        "nnx": lambda sizes: jrnn.nnx.Stack(3, sizes, rngs=nnx.Rngs(0)),
        "equinox": lambda sizes: jrnn.equinox.Stack(3, sizes, key=jax.random.key(0)),
    }[name]
    with pytest.raises(ValueError, match="hidden_sizes"):
        make([])
    with pytest.raises(ValueError, match="xs"):
        make([4])(jnp.ones((5, 2, 8)))


@pytest.mark.parametrize(("name", "package"), [("nnx", "flax"), ("equinox", "equinox")])
def test_a_missing_extra_says_how_to_get_it(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"jrnn.{name}")
    said = rf"^jrnn\.{name} needs {package}: pip install -e '\.\[{name}\]', in the clone of jrnn"
    with pytest.raises(ImportError, match=said):
        importlib.import_module(f"jrnn.{name}")


def test_a_module_where_its_parameters_belong():
    model = jrnn.nnx.Stack(3, [6], rngs=nnx.Rngs(0))
    for call in (
        jrnn.interop.to_torch,
        lambda x: jrnn.stack(x, XS),
        lambda x: jrnn.zero_state(x, 2),
    ):
        with pytest.raises(ValueError, match=r"got Stack\. Its \.pure\(\) gives the parameters\."):
            call(model)


def test_a_seed_instead_of_the_keys_of_flax():
    with pytest.raises(ValueError, match=r"rngs: .*; got int\. nnx\.Rngs\(0\) makes them\."):
        jrnn.nnx.Stack(3, [6], rngs=0)
