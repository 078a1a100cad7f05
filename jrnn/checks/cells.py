"""A cell of the user's own: its functions are elementwise, and its adjoint is that of its step."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.checks.basics import kind_of, refuse, shown

if TYPE_CHECKING:
    from jrnn.cells import UncheckedCell

SHAPE = (2, 3)
RANDOM = re.compile("random_bits|threefry2x32|rng_bit_generator|rng_uniform")  # of a jaxpr
COTANGENTS = "the cotangents of blocks, before, unit and data that jax.vjp of step finds"
WRITE = "Write it with jnp; it gets and returns arrays [B, H]."
TUPLES = {"x_blocks": (0,), "h_blocks": (0,), "unit": ("tau",), "data": ("z",)}  # an example each


def a_cell(cell: Any) -> None:
    """Refuse all that is no cell, such as the name of one, or parameters in its place."""
    from jrnn.cells import UncheckedCell

    if isinstance(cell, UncheckedCell):
        return
    repair = "jrnn.Cell(...) makes one of your own."
    named = hasattr(cell, "__name__") and not isinstance(cell, type)  # a function or a module
    if isinstance(cell, str) or named:
        rate = 'jrnn.cells.leaky.leaky("tanh", "input")'
        repair = f"RNNParams, LSTMParams and GRUParams need none; (29) is {rate}."
    elif isinstance(cell, tuple):
        repair = "These are parameters; unroll(cell, params, xs) has the cell first."
    came = shown(cell) if isinstance(cell, str) else getattr(cell, "__name__", type(cell).__name__)
    refuse("cell", "a jrnn.Cell", came, repair)


def cell(cell: "UncheckedCell") -> None:
    _hashable(cell)
    _blocks(cell)
    _classes(cell)
    with known_values():
        for dtype in (jnp.float32, jnp.bfloat16, jnp.float64):
            blocks, *rest = _arguments(cell, dtype)
            arguments = (_gates(cell, blocks, dtype), *rest)
            after = _keeps_shapes(cell, arguments, dtype)
            found = _cotangents(cell, arguments, after, dtype)
        if cell.gates is not None:
            _is_elementwise("gates", cell.gates, (blocks,))
        _is_elementwise("step", cell.step, arguments)
        if not cell.reads_first_state:
            _reads_no_first_state(cell, arguments)
        if (output := cell.output) is not None:
            _is_elementwise("output", lambda before: (output(before),), (after,))
        if cell.adjoint is not None:
            _has_its_adjoint(cell, found, (blocks, *rest), after)
    with jax.enable_x64(True):  # traced: at compile time random numbers would be constants
        if cell.gates is not None:
            _draws_nothing("gates", cell.gates, (blocks,))
        _draws_nothing("step", cell.step, arguments)
        if output is not None:
            _draws_nothing("output", output, (after,))


@contextmanager
def known_values() -> Iterator[None]:
    """Compute at once, in 64 bits. NaN and inf, which a check may provoke, raise nothing."""
    with (
        jax.ensure_compile_time_eval(),
        jax.enable_x64(True),
        jax.debug_nans(False),
        jax.debug_infs(False),
    ):
        yield


def _hashable(cell: "UncheckedCell") -> None:
    for name, example in TUPLES.items():
        value = getattr(cell, name)
        if not isinstance(value, tuple):
            refuse(name, "a tuple", shown(value), f"A tuple of one is {name}={example}.")
    for name in (field.name for field in fields(cell)):
        try:
            hash(getattr(cell, name))
        except TypeError as error:
            repair = "jax.jit compiles once for each cell: use plain functions, and tuples."
            refuse(name, "a hashable value", str(error), repair)


def _blocks(cell: "UncheckedCell") -> None:
    fed = sorted({*cell.x_blocks, *cell.h_blocks})
    once = all(len(set(of)) == len(of) for of in (cell.x_blocks, cell.h_blocks))
    if not cell.x_blocks or not cell.h_blocks or not once or fed != list(range(len(fed))):
        expected = "block numbers 0, ..., G - 1, each fed by the input, the state or both"
        came = f"x_blocks = {cell.x_blocks}, h_blocks = {cell.h_blocks}"
        refuse("x_blocks, h_blocks", expected, came, "Input and state feed at least one each.")
    if cell.adjoint is None and not cell.adjoint_reads_blocks:
        repair = "jax.vjp of the step, which adjoint=None means, reads them."
        refuse("adjoint_reads_blocks", "True without an adjoint", "False", repair)
    if cell.states < 1:
        refuse("states", "at least 1", cell.states, "The first is the output, unless output says.")
    if cell.biases is not None and sum(n for _, n in cell.biases) != len(fed):
        expected = f"the parts of a bias of {len(fed)} blocks"
        refuse("biases", expected, cell.biases, "None is one part, b_h.")


def _classes(cell: "UncheckedCell") -> None:
    biases = ("b_h",) if cell.biases is None else tuple(name for name, _ in cell.biases)
    needed = ("w_ih", "w_hh", *biases, *cell.unit)
    fields = getattr(cell.params, "_fields", ())
    if not set(needed) <= set(fields):
        expected = f"a NamedTuple class with the fields {', '.join(needed)}"
        came = f"one with {', '.join(fields)}" if fields else repr(cell.params)
        repair = "By its class jrnn tells the parameters of your cell from others."
        refuse("params", expected, came, repair)
    fields = getattr(cell.state, "_fields", ())
    if cell.state is not None and len(fields) != cell.states:
        expected = f"None, or a NamedTuple class of {cell.states} fields"
        came = f"one of {len(fields)}" if fields else repr(cell.state)
        refuse("state", expected, came, "It has one field for each state.")


def _arguments(cell: "UncheckedCell", dtype: Any) -> tuple[Any, ...]:
    """Random blocks, states, unit parameters in (0, 1) and data in (0, 1)."""
    rng = np.random.default_rng(0)
    G = 1 + max((*cell.x_blocks, *cell.h_blocks))
    blocks, before = (
        tuple(jnp.asarray(rng.normal(size=SHAPE), dtype) for _ in range(n))
        for n in (G, cell.states)
    )
    unit, data = (
        {name: jnp.asarray(rng.uniform(0.1, 0.9, SHAPE), dtype) for name in names}
        for names in (cell.unit, cell.data)
    )
    return blocks, before, unit, data


def _gates(cell: "UncheckedCell", blocks: Any, dtype: Any) -> Any:
    if cell.gates is None:
        return blocks
    expected = f"a tuple of arrays [B, H] of the dtype of the blocks, {jnp.dtype(dtype)}"
    found = _call("gates", cell.gates, (blocks,), expected)
    _like("gates", found, len(found) if isinstance(found, tuple) else 1, dtype, expected)
    return found


def _keeps_shapes(cell: "UncheckedCell", arguments: tuple[Any, ...], dtype: Any) -> Any:
    expected = f"{cell.states} states [B, H] of the dtype of its arguments, {jnp.dtype(dtype)}"
    after = _call("step", cell.step, arguments, expected)
    _like("step", after, cell.states, dtype, expected)
    if cell.output is not None:
        expected = f"one array [B, H] of the dtype of its arguments, {jnp.dtype(dtype)}"
        _like("output", (_call("output", cell.output, (after,), expected),), 1, dtype, expected)
    return after


def _call(argument: str, function: Callable[..., Any], arguments: Any, expected: str) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # whatever a function of the user's makes of its arguments
        came = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
        repair = _declared(argument, error)
        if isinstance(error, TypeError) and argument == "step" and arguments[-1]:
            name = f"data[{next(iter(arguments[-1]))!r}]".replace("'", '"')
            repair = f"{WRITE} Data are floats here: cast them, {name}.astype(bool)."
        refuse(argument, expected, came, repair)


def _declared(argument: str, error: Exception) -> str:
    """The repair for a function that reads what the cell does not declare."""
    if isinstance(error, KeyError) and error.args:
        names = f"({error.args[0]!r},)".replace("'", '"')
        return f"Declare it: unit={names} if it is a parameter, data={names} if it comes with xs."
    too_few = ("tuple index out of range", "not enough values to unpack")
    if any(reason in str(error) for reason in too_few):
        if argument == "adjoint":
            return (
                "It gets the blocks, or gates, unless adjoint_reads_blocks=False; and all states."
            )
        return "It gets what the cell declares: name more blocks in x_blocks, h_blocks; see states."
    return WRITE


def _like(argument: str, found: Any, number: int, dtype: Any, expected: str) -> None:
    reads_arguments_alone(argument, found)
    if not isinstance(found, tuple):
        came, repair = type(found).__name__, "Return a tuple, even of one state: (h,)."
    elif len(found) != number:
        came, repair = f"tuple of {len(found)}", "The number is states= of the cell."
    else:
        kinds = [
            f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__ for x in found
        ]
        if set(kinds) == {f"{jnp.dtype(dtype)}{list(SHAPE)}"}:
            return
        came, repair = ", ".join(kinds), WRITE
    refuse(argument, expected, f"{came}, for B, H = {SHAPE}", repair)


def reads_arguments_alone(argument: str, found: Any) -> None:
    """Refuse results of known arguments that are not known."""
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(found)):
        expected, came = "a function of its arguments alone", "one that reads a traced value"
        refuse(argument, expected, came, "A jrnn.Cell declares it: unit=(...), or data=(...).")


def _is_elementwise(argument: str, function: Callable[..., Any], arguments: Any) -> None:
    """Another element at one place of every argument changes a result only there."""
    found = function(*arguments)
    for at in np.ndindex(SHAPE):
        others = np.ones(SHAPE, bool)
        others[at] = False
        for value in (-9.0, 9.0):  # below and above all others
            changed = jax.tree.map(partial(_with_others, others, value), arguments)
            if not _are_equal(found, function(*changed), others):
                expected = "a function of one element of each argument for each element of its "
                repair = "The matmuls are the kernel's; normalise outside of the recurrence."
                refuse(argument, f"{expected}results", "one that mixes elements", repair)


def _with_others(others: np.ndarray, value: float, x: jax.Array) -> jax.Array:
    return jnp.where(others, x, value)


def _are_equal(found: Any, again: Any, at: Any = ...) -> bool:
    pairs = zip(found, again, strict=True)
    return all(
        np.array_equal(np.asarray(a)[at], np.asarray(b)[at], equal_nan=True) for a, b in pairs
    )


def _draws_nothing(argument: str, function: Callable[..., Any], arguments: Any) -> None:
    """A key in a function of a cell would draw the same numbers at every step."""
    if RANDOM.search(str(jax.make_jaxpr(function)(*arguments))):
        repair = 'Draw them before the call, and name them in data, such as data=("noise",).'
        refuse(argument, "a function without random numbers", "one that draws them", repair)


def _cotangents(cell: "UncheckedCell", arguments: Any, after: Any, dtype: Any) -> Any:
    """The results of the adjoint, which have the dtype of its arguments."""
    if cell.adjoint is None:
        return None
    given = arguments if cell.adjoint_reads_blocks else _unread(arguments)
    given = given if cell.reads_first_state else _without_first_state(given)
    found = _call("adjoint", cell.adjoint, (_d_after(after), *given, after), COTANGENTS)
    reads_arguments_alone("adjoint", found)
    _in_the_form_of_cotangents(found)
    wrong = {str(jnp.result_type(x)) for x in jax.tree.leaves(found)} - {str(jnp.dtype(dtype))}
    if wrong:
        expected = f"cotangents of the dtype of its arguments, {jnp.dtype(dtype)}"
        refuse("adjoint", expected, ", ".join(sorted(wrong)), WRITE)
    return found


def _in_the_form_of_cotangents(found: Any) -> None:
    from jrnn.cells import StepCotangents

    repair = "Return jrnn.StepCotangents((delta,), (d_before,), {name: d_unit}), also of one array."
    if not isinstance(found, StepCotangents):
        refuse("adjoint", "a jrnn.StepCotangents", kind_of(found), repair)
    for name, value in found._asdict().items():
        kind = tuple if name in ("blocks", "before") else dict
        if value is not None and not isinstance(value, kind):
            came = f"{name} {kind_of(value)}"
            refuse("adjoint", f"{name} in a {kind.__name__}, or None", came, repair)


def _d_after(after: Any) -> Any:
    return jax.tree.map(lambda x: jnp.cos(3 * x), after)


def _has_its_adjoint(
    cell: "UncheckedCell", found: Any, from_blocks: tuple[Any, ...], after: Any
) -> None:
    """Compare with the derivative of the step, where that is a number."""

    def step(blocks: Any, *rest: Any) -> Any:
        return cell.step(blocks if cell.gates is None else cell.gates(blocks), *rest)

    names = ("blocks", "before", "unit", "data")
    right = dict(zip(names, jax.vjp(step, *from_blocks)[1](_d_after(after)), strict=True))
    for name in names:
        of = getattr(found, name)
        came_by: dict[Any, Any] = dict(enumerate(of)) if isinstance(of, tuple) else of or {}
        for path, true in jax.tree_util.tree_leaves_with_path(right[name]):
            key = getattr(path[0], "key", getattr(path[0], "idx", None))
            value = came_by.get(key)
            value = jnp.zeros_like(true) if value is None else value
            same = getattr(value, "shape", None) == true.shape
            size = jnp.where(jnp.isfinite(true), jnp.abs(true), 0)
            difference = jnp.where(jnp.isfinite(true), jnp.abs(value - true), 0) if same else np.inf
            worst = float(jnp.max(difference))
            if not worst <= 1e-6 * (1 + float(size.max())):
                came = f"another {name}[{key!r}], by up to {worst:.3g}"
                refuse("adjoint", COTANGENTS, came, "adjoint=None takes that of jax.vjp.")


def _reads_no_first_state(cell: "UncheckedCell", arguments: tuple[Any, ...]) -> None:
    if not _are_equal(cell.step(*arguments), cell.step(*_without_first_state(arguments))):
        expected = "a step that does not read before[0]"
        refuse("reads_first_state", expected, "one that does", "Leave it True.")


def _without_first_state(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """A first state of NaN, which shows in what reads it."""
    gates, (first, *others), *rest = arguments
    return gates, (jnp.full_like(first, jnp.nan), *others), *rest


def _unread(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """No gates, and states that spoil what reads them."""
    _, before, unit, data = arguments
    return (), jax.tree.map(lambda s: jnp.full_like(s, jnp.nan), before), unit, data
