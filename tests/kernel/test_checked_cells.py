"""A cell of the user's own is checked when it is made: each wrong function is refused by name."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from cells import Params

from jrnn import cells as own
from jrnn.cells import StepCotangents

Cell = partial(own.Cell, params=Params)


def tanh(blocks, before, unit, data):
    return (jnp.tanh(blocks[0]),)


def leak(blocks, before, unit, data):
    alpha = unit["alpha"]
    return ((1 - alpha) * before[0] + alpha * jnp.tanh(blocks[0]),)


def leak_adjoint(d_after, blocks, before, unit, data, after):
    (d,), alpha, h = d_after, unit["alpha"], jnp.tanh(blocks[0])
    d_alpha = d * (h - before[0])
    return StepCotangents((d * alpha * (1 - h * h),), (d * (1 - alpha),), {"alpha": d_alpha})


def kept(like):
    return jax.random.bernoulli(jax.random.key(0), 0.9, like.shape).astype(like.dtype)


def spoiled(**changes):
    """The leaky cell with another part of its adjoint."""

    def adjoint(*arguments):
        found = leak_adjoint(*arguments)
        return found._replace(**{k: change(getattr(found, k)) for k, change in changes.items()})

    return adjoint


def test_cells_that_are_right():
    Cell("tanh", tanh)
    Cell("leaky", leak, leak_adjoint, unit=("alpha",))
    Cell("leaky", leak, unit=("alpha",))
    from_output = lambda d, blocks, before, unit, data, after: StepCotangents(
        (d[0] * (1 - after[0] ** 2),)
    )
    Cell("tanh", tanh, from_output, adjoint_reads_blocks=False)
    Cell("two", lambda a, s, unit, data: (s[1] + a[1], jnp.sin(a[0])), None, (0, 1), (1,), 2)
    Cell("rate", lambda a, s, unit, data: (s[0] + a[0],), output=lambda s: jnp.tanh(s[0]))
    Cell(
        "kept",
        lambda a, s, unit, data: (jnp.where(data["keep"] > 0.5, s[0], a[0]),),
        data=("keep",),
    )
    Cell("no number", lambda a, s, unit, data: (jnp.sqrt(s[0]) + jnp.tanh(a[0]),))
    from_blocks = lambda d, blocks, *_: StepCotangents((d[0] / (2 * jnp.sqrt(blocks[0])),))
    Cell("no number", lambda a, s, unit, data: (jnp.sqrt(a[0]),), from_blocks)


def test_two_cells_of_the_same_functions_are_one():
    assert Cell("tanh", tanh) == Cell("tanh", tanh)
    assert hash(Cell("tanh", tanh)) == hash(Cell("tanh", tanh))


class Unhashable:
    __hash__ = None

    def __call__(self, states):
        return states[0]


def test_the_class_of_the_parameters_has_no_default():
    parameters = inspect.signature(own.Cell).parameters
    assert parameters["params"].default is inspect.Parameter.empty
    with pytest.raises(TypeError, match="params"):
        own.Cell("tanh", tanh)


MIXES = {
    "by the largest": lambda a, s, unit, data: (a[0] - a[0].max(),),
    "by the largest of each": lambda a, s, unit, data: (a[0] / abs(a[0]).max(-1, keepdims=True),),
    "by a threshold": lambda a, s, unit, data: (
        jax.nn.relu(a[0] - 0.5 * a[0].max(-1, keepdims=True)),
    ),
    "by the place of the largest": lambda a, s, unit, data: (
        jax.nn.one_hot(a[0].argmax(-1), a[0].shape[-1], dtype=a[0].dtype),
    ),
    "from the right": lambda a, s, unit, data: (jnp.cumsum(a[0][:, ::-1], -1)[:, ::-1],),
    "with its neighbour": lambda a, s, unit, data: (jnp.roll(s[0], -1, -1).at[:, -1].set(0),),
    "sequences": lambda a, s, unit, data: (jnp.roll(s[0], -1, 0).at[-1].set(0),),
}
WRONG = {
    "another shape": (
        {"step": lambda a, s, unit, data: (a[0].sum(0),)},
        "step: expected 1 states [B, H] of the dtype of its arguments, float32; got float32[3]",
    ),
    "another dtype": (
        {"step": lambda a, s, unit, data: (jnp.tanh(a[0]).astype(jnp.float32),)},
        "step: expected 1 states [B, H] of the dtype of its arguments, bfloat16; got float32[2, 3]",
    ),
    "an array for a tuple": (
        {"step": lambda a, s, unit, data: a[0]},
        "step: expected 1 states [B, H] of the dtype of its arguments, float32; got ArrayImpl",
    ),
    "an array for a tuple, and its repair": (
        {"step": lambda a, s, unit, data: a[0]},
        "for B, H = (2, 3). Return a tuple, even of one state: (h,).",
    ),
    "a state too few": (
        {"step": tanh, "states": 2},
        "step: expected 2 states [B, H] of the dtype of its arguments, float32; got tuple of 1, ",
    ),
    "a mean over the units": (
        {"step": lambda a, s, unit, data: (a[0] - a[0].mean(-1, keepdims=True),)},
        "step: expected a function of one element of each argument",
    ),
    "a sum over the batch": (
        {"step": lambda a, s, unit, data: (a[0] + s[0].sum(0, keepdims=True),)},
        "step: expected a function of one element of each argument",
    ),
    **{
        f"mixes {what}": (
            {"step": step},
            "step: expected a function of one element of each argument for each element of its "
            "results; got one that mixes elements.",
        )
        for what, step in MIXES.items()
    },
    "an output that mixes": (
        {"step": tanh, "output": lambda s: s[0][:, ::-1]},
        "output: expected a function of one element of each argument",
    ),
    "an output of another shape": (
        {"step": tanh, "output": lambda s: s[0].sum()},
        "output: expected one array [B, H] of the dtype of its arguments, float32; got float32[]",
    ),
    "an output that is a tuple": (
        {"step": tanh, "output": lambda s: s},
        "output: expected one array [B, H] of the dtype of its arguments, float32; got tuple, ",
    ),
    "data that are floats": (
        {"step": lambda a, s, unit, data: (jnp.where(~data["z"], a[0], s[0]),), "data": ("z",)},
        'returns arrays [B, H]. Data are floats here: cast them, data["z"].astype(bool).',
    ),
    "an adjoint of another dtype": (
        {
            "step": tanh,
            "adjoint": lambda d, a, *_: StepCotangents(
                ((d[0] * (1 - jnp.tanh(a[0]) ** 2)).astype(jnp.float32),)
            ),
        },
        "adjoint: expected cotangents of the dtype of its arguments, bfloat16; got ",
    ),
    "a name that is not declared": (
        {"step": leak},
        "step: expected 1 states [B, H] of the dtype of its arguments, float32; got KeyError",
    ),
    "a name that is not declared, and its repair": (
        {"step": leak},
        'Declare it: unit=("alpha",) if it is a parameter, data=("alpha",) if it comes with xs.',
    ),
    "a block that is not declared": (
        {"step": lambda a, s, unit, data: (a[0] * a[1],)},
        "got IndexError: tuple index out of range. It gets what the cell declares: "
        "name more blocks in x_blocks, h_blocks",
    ),
    "two blocks of one": (
        {"step": lambda a, s, unit, data: (sum(x * y for x, y in [a]),)},
        "got ValueError: not enough values to unpack (expected 2, got 1). It gets what the cell",
    ),
    "delta without phi'": (
        {"step": tanh, "adjoint": lambda d, *_: StepCotangents((d[0],))},
        "adjoint: expected the cotangents of blocks, before, unit and data that jax.vjp of step "
        "finds; got another blocks[0]",
    ),
    "an adjoint of one array": (
        {"step": tanh, "adjoint": lambda d, *_: StepCotangents(d[0])},
        "adjoint: expected blocks in a tuple, or None; got blocks float32[2, 3]. Return "
        "jrnn.StepCotangents((delta,), (d_before,), {name: d_unit}), also of one array.",
    ),
    "an adjoint that is a tuple": (
        {"step": tanh, "adjoint": lambda d, *_: (d[0],)},
        "adjoint: expected a jrnn.StepCotangents; got tuple. Return",
    ),
    "nothing to the state": (
        {"step": leak, "adjoint": spoiled(before=lambda d: None), "unit": ("alpha",)},
        "got another before[0]",
    ),
    "random numbers": (
        {"step": lambda a, s, unit, data: (jnp.tanh(a[0]) * kept(a[0]),)},
        "step: expected a function without random numbers; got one that draws them. Draw them "
        'before the call, and name them in data, such as data=("noise",).',
    ),
    "random numbers in the gates": (
        {"step": tanh, "gates": lambda blocks: (blocks[0] * kept(blocks[0]),)},
        "gates: expected a function without random numbers; got one that draws them.",
    ),
    "random numbers in the output": (
        {"step": tanh, "output": lambda s: s[0] * kept(s[0])},
        "output: expected a function without random numbers; got one that draws them.",
    ),
    "0.1 % too much for alpha": (
        {
            "step": leak,
            "adjoint": spoiled(unit=lambda d: {"alpha": 1.001 * d["alpha"]}),
            "unit": ("alpha",),
        },
        "got another unit['alpha']",
    ),
    "an adjoint that reads blocks it is not given": (
        {"step": leak, "adjoint": leak_adjoint, "unit": ("alpha",), "adjoint_reads_blocks": False},
        "adjoint: expected the cotangents of blocks, before, unit and data that jax.vjp of step "
        "finds; got IndexError",
    ),
    "no adjoint, and blocks unread": (
        {"step": tanh, "adjoint_reads_blocks": False},
        "adjoint_reads_blocks: expected True without an adjoint; got False.",
    ),
    "a first state that is read": (
        {"step": leak, "unit": ("alpha",), "reads_first_state": False},
        "reads_first_state: expected a step that does not read before[0]; got one that does.",
    ),
    "a block that nothing feeds": (
        {"step": tanh, "x_blocks": (0, 2)},
        "x_blocks, h_blocks: expected block numbers 0, ..., G - 1",
    ),
    "no block for the input": (
        {"step": tanh, "x_blocks": ()},
        "x_blocks, h_blocks: expected block numbers 0, ..., G - 1",
    ),
    "no block for the state": (
        {"step": tanh, "h_blocks": ()},
        "x_blocks, h_blocks: expected block numbers 0, ..., G - 1",
    ),
    "no state": ({"step": tanh, "states": 0}, "states: expected at least 1; got 0."),
    "a list of names": (
        {"step": tanh, "unit": ["alpha"]},
        "unit: expected a tuple; got ['alpha']. A tuple of one is unit=('tau',).",
    ),
    "one name": ({"step": tanh, "data": "z"}, "data: expected a tuple; got 'z'. A tuple of one"),
    "one block": ({"step": tanh, "h_blocks": 0}, "h_blocks: expected a tuple; got 0."),
    "a list inside a tuple": (
        {"step": tanh, "biases": (["b_h", 1],)},
        "biases: expected a hashable value; got unhashable type: 'list'. jax.jit compiles once",
    ),
    "a function that is not hashable": (
        {"step": tanh, "output": Unhashable()},
        "output: expected a hashable value; got unhashable type: 'Unhashable'.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_refused(name):
    arguments, message = WRONG[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Cell("wrong", **arguments)
    assert message in str(error.value)


def test_the_flags_of_jax_that_find_nan_and_inf_find_none_of_the_checks():
    jax.clear_caches()  # a program that was compiled without them raises nothing
    from_output = lambda d, blocks, before, unit, data, after: StepCotangents(
        (d[0] * (1 - after[0] ** 2),)
    )
    root = lambda blocks, before, unit, data: (jnp.tanh(blocks[0]) * jnp.sqrt(unit["alpha"]),)
    with jax.debug_nans(True), jax.debug_infs(True):
        Cell("tanh", tanh, reads_first_state=False)
        Cell("tanh", tanh, from_output, adjoint_reads_blocks=False)
        Cell("root", root, unit=("alpha",))  # also of -9
        own.elman.Activation(jax.nn.relu, lambda h: jnp.where(h > 0, h / h, jnp.zeros_like(h)))


def scaled(c):
    return Cell("scaled", lambda blocks, *_: (c.astype(blocks[0].dtype) * blocks[0],))


def scaled_adjoint(c):
    adjoint = lambda d, blocks, before, unit, data, after: StepCotangents(
        (c.astype(d[0].dtype) * d[0] * (1 - after[0] ** 2),)
    )
    return Cell("scaled", tanh, adjoint)


def scaled_activation(c):
    return own.elman.Activation(lambda a: c.astype(a.dtype) * a, jnp.ones_like)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad])
@pytest.mark.parametrize("made", [scaled, scaled_adjoint, scaled_activation])
def test_no_function_reads_a_traced_value(made, transform):
    message = "expected a function of its arguments alone; got one that reads a traced value. "
    with pytest.raises(ValueError, match=message):
        transform(made)(jnp.ones(3 if transform is jax.vmap else ()))
