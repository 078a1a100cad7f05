"""Checks of options: activation, compute dtype, sampling."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.checks.basics import is_number, kind_of, refuse, shown
from jrnn.checks.cells import known_values, reads_arguments_alone


def activation(value: Any, activation_class: type, names: Collection[str]) -> None:
    if isinstance(value, activation_class) or (isinstance(value, str) and value in names):
        return
    expected = "one of " + ", ".join(f'"{name}"' for name in names) + ", or a jrnn.Activation"
    repair = "A function of your own is jrnn.Activation(fn, derivative_from_output)."
    for name in names:  # jax.nn.relu and jnp.tanh, for example
        if callable(value) and value in (getattr(jax.nn, name, None), getattr(jnp, name, None)):
            repair = f'Give its name, "{name}".'
    refuse("activation", expected, shown(value), repair)


def compute_dtype(dtype: Any, params: Any) -> np.dtype | None:
    """The dtype of matmul operands; None if it is the dtype of the parameters."""
    own = jnp.result_type(params.w_hh)
    expected = f"a floating dtype narrower than that of the parameters, {own}, or None"
    repair = "For mixed precision: parameters in float32, compute_dtype=jnp.bfloat16."
    try:
        asked = own if dtype is None else jnp.dtype(dtype)
    except TypeError:
        refuse("compute_dtype", expected, repr(dtype), repair)
    if asked == own:
        return None
    if not jnp.issubdtype(asked, jnp.floating) or asked.itemsize >= own.itemsize:
        refuse("compute_dtype", expected, asked, repair)
    return asked


def nonfinite(value: Any) -> None:
    if value not in ("stop", "skip"):
        repair = '"skip" ignores the batch; "stop" is safer.'
        refuse("nonfinite", '"stop" or "skip"', shown(value), repair)


def options_of(
    argument: str,
    function: Callable[..., Any],
    options: Mapping[str, Any],
    repair: str,
    without: Collection[str] = (),
) -> None:
    """Refuse options that a function does not have, or that are given elsewhere."""
    known = inspect.signature(function).parameters.values()
    if any(p.kind == p.VAR_KEYWORD for p in known):  # whose names it checks
        return
    names = [p.name for p in known if p.kind == p.KEYWORD_ONLY and p.name not in without]
    for name in sorted(options.keys() - set(names)):
        refuse(argument, f"options among {', '.join(names)}", name, repair)


LOSS = "a function (params, carry, batch, key) -> (loss [], carry)"
CARRY = "The carry of a classifier is None."


def loss_function(loss_fn: Any) -> None:
    """Refuse what cannot be called with four arguments."""
    if not callable(loss_fn):
        refuse("loss_fn", LOSS, type(loss_fn).__name__, CARRY)
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):  # a function without one: it may fit
        return
    try:
        signature.bind(*range(4))
    except TypeError:
        refuse("loss_fn", LOSS, f"one of {signature}", CARRY)


def optimizer(optimizer: Any) -> None:
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        came = type(optimizer).__name__
        refuse("optimizer", "an optax optimiser", came, "optax.adam(1e-3) is one.")


@contextmanager
def no_line_search() -> Iterator[None]:
    """Refuse an update that asks for the loss as a function, in a trace."""
    try:
        yield
    except TypeError as error:
        if "value_fn" not in str(error):
            raise
        expected = "an optimiser that does not evaluate the loss again"
        repair = "Take a learning rate: optax.lbfgs(1e-2, linesearch=None), for example."
        refuse("optimizer", expected, "a line search", repair)


def loss_and_carry(found: Any) -> None:
    """Check what a loss has returned, in a trace."""
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        came = f"one that returns {_returned(found)}"
        refuse("loss_fn", LOSS, came, f"Return loss, carry. {CARRY}")
    loss = found[0]
    number = isinstance(loss, float) or (hasattr(loss, "dtype") and loss.shape == ())
    if not number or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        came = f"one whose loss is {_returned(loss)}"
        refuse("loss_fn", LOSS, came, "The loss is one float, such as the mean.")


def same_carry(returned: Any, given: Any) -> None:
    """Check that the next step can take the carry that a loss has returned, in a trace."""
    came, expected = (jax.tree.map(kind_of, x) for x in (returned, given))
    if jax.tree.flatten(came) != jax.tree.flatten(expected):  # the text may show an address
        came, expected = (str(x).replace("'", "") for x in (came, expected))
        repair = "Begin with such a carry; jrnn.zero_state(params, B) makes that of a network."
        refuse("loss_fn", f"one that returns the carry {expected}, as it gets it", came, repair)


def _returned(found: Any) -> str:
    if isinstance(found, (tuple, list)):
        return f"a {type(found).__name__} of {len(found)}"
    return kind_of(found)


def activation_derivative(
    fn: Callable[[jax.Array], jax.Array], derivative_from_output: Callable[[jax.Array], jax.Array]
) -> None:
    """Compare phi'(phi(a)) with autodiff in float64, on a grid without relu's kink at 0."""
    repair = (
        "tanh, for example, is Activation(jnp.tanh, lambda h: 1 - h**2). "
        "A function whose derivative its output does not determine cannot be used."
    )
    h = given = None
    try:
        hash((fn, derivative_from_output))
        with known_values():
            for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
                a = jnp.arange(-60, 60).astype(dtype) / 20 + 0.0125
                h = fn(a)
                given = derivative_from_output(h)
                came = [kind_of(x) for x in (h, given)]
                if set(came) != {kind_of(a)}:
                    raise TypeError(f"results {', '.join(came)} of {kind_of(a)}")
            true = jax.vmap(jax.grad(fn))(a)
            at, found, expected = (np.asarray(x) for x in (a, given, true))
    except Exception as error:
        reads_arguments_alone("fn, derivative_from_output", (h, given))
        refuse(
            "fn, derivative_from_output",
            "two hashable functions of an array to one of its shape and dtype, elementwise",
            f"{type(error).__name__}: {str(error).splitlines()[0].rstrip('.')}",
            f"Write both with jnp; {repair}",
        )
    difference = np.abs(found - expected) / (1 + np.abs(expected))
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    if not difference[worst] <= 1e-6:
        place = f"{expected[worst]:.6g} at a = {at[worst]:.4g}"
        right = f"phi' as a function of h = phi(a), so {place}"
        refuse("derivative_from_output", right, f"{found[worst]:.6g}", repair)


def sampling_options(temperature: Any, top_k: Any, top_p: Any) -> None:
    """Check concrete options; traced ones are not checked."""
    traced = [isinstance(x, jax.core.Tracer) for x in (temperature, top_k, top_p)]
    if not traced[0] and not (is_number(temperature) and temperature >= 0):
        refuse(
            "temperature", "a number >= 0", shown(temperature), "0 is greedy; 1 changes nothing."
        )
    whole = top_k is None or traced[1] or (is_number(top_k) and top_k == np.floor(top_k) >= 1)
    if not whole:
        refuse("top_k", "an integer >= 1 or None", shown(top_k), "1 is greedy.")
    share = top_p is None or traced[2] or (is_number(top_p) and 0 < top_p <= 1)
    if not share:
        refuse("top_p", "a number in (0, 1] or None", shown(top_p), "1 keeps every token.")


def no_sampling_options(temperature: Any, top_k: Any, top_p: Any) -> None:
    for argument, value, default in (
        ("temperature", temperature, 1.0),
        ("top_k", top_k, None),
        ("top_p", top_p, None),
    ):
        if isinstance(value, jax.core.Tracer) or np.ndim(value) or value != default:
            repair = "It is for token ids; a draw of your own has its own options."
            refuse(argument, f"its default, {default}", shown(value), repair)
