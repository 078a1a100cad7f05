"""The contract of the public functions: what they refuse, and the sentence that says so.

Shapes and dtypes are static, so these checks run once per trace and cost a compiled program
nothing. Values (token ids, labels) can be looked at only where they are concrete. Every refusal is
a ValueError that names the argument, what was expected, what came, and the repair.

The only file that imports chex, and of chex only static assertions.
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NoReturn

import chex
import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jrnn.types import ReadoutParams, RNNParams


def refuse(argument: str, expected: str, came: object, repair: str) -> NoReturn:
    """Raise the one kind of error there is here."""
    raise ValueError(f"{argument}: expected {expected}; got {came}. {repair}")


# --- one array -----------------------------------------------------------------------------------


def _describe(x: Any) -> str:
    return f"{jnp.result_type(x)}{list(np.shape(x))}"


def array(argument: str, x: Any) -> None:
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        refuse(argument, "a JAX or NumPy array", type(x).__name__, "Convert it by jnp.asarray.")


def _shape(argument: str, x: Any, shape: tuple[int | None, ...], axes: str, repair: str) -> None:
    array(argument, x)
    try:
        chex.assert_shape(x, shape)
    except AssertionError:
        sizes = ", ".join("any" if n is None else str(n) for n in shape)
        refuse(argument, f"shape {axes} = [{sizes}]", _describe(x), repair)


def _is_integer(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.integer)


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _floating(argument: str, x: Any) -> None:
    if not _is_float(x):
        refuse(argument, "a floating dtype", _describe(x), "Cast it by .astype(jnp.float32).")


def _same_dtype(argument: str, x: Any, reference_name: str, reference: Any) -> None:
    if jnp.result_type(x) != jnp.result_type(reference):
        refuse(
            argument,
            f"the dtype of {reference_name}, {jnp.result_type(reference)}",
            jnp.result_type(x),
            "One floating dtype runs through a call: cast either of the two by .astype.",
        )


def _concrete(x: Any) -> np.ndarray | None:
    """The values, if this process has them all; None in a trace."""
    if isinstance(x, jax.core.Tracer):
        return None
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return None
    return np.asarray(x)


def _ids_within(
    argument: str, ids: Any, size: int, what: str, counted: np.ndarray | None = None
) -> None:
    """Refuse concrete ids outside [0, size); `counted` marks the ones that matter."""
    values = _concrete(ids)
    if values is None or values.size == 0:
        return
    wrong = (values < 0) | (values >= size)
    if counted is not None:
        wrong &= counted
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        refuse(
            argument,
            f"ids from 0 to {size - 1} ({what})",
            f"{values[where]} at {list(where)}, {int(wrong.sum())} ids outside in all",
            "Encode the data with the alphabet or vocabulary that the parameters were made for.",
        )


# --- parameters and states -----------------------------------------------------------------------


def sizes(**values: Any) -> None:
    for argument, n in values.items():
        if not isinstance(n, (int, np.integer)) or n < 1:
            refuse(argument, "a positive integer", repr(n), "Sizes count features.")


def floating_dtype(dtype: Any) -> None:
    if not jnp.issubdtype(dtype, jnp.floating):
        refuse("dtype", "a floating dtype or None", dtype, "Leave it out for JAX's default float.")


def rnn_params(params: "RNNParams") -> None:
    if not all(hasattr(params, name) for name in ("w_ih", "w_hh", "b_h")):
        refuse("params", "RNNParams(w_ih, w_hh, b_h)", type(params).__name__, "See jrnn.init_rnn.")
    _shape("w_hh", params.w_hh, (None, None), "[H, H]", "See jrnn.init_rnn.")
    _floating("w_hh", params.w_hh)
    H = params.w_hh.shape[1]
    _shape("w_hh", params.w_hh, (H, H), "[H, H]", "It maps a state to a state.")
    _shape("w_ih", params.w_ih, (None, H), "[I, H]", "Use x @ w_ih: transpose an (H, I) weight.")
    _same_dtype("w_ih", params.w_ih, "w_hh", params.w_hh)
    if params.b_h is not None:
        _shape("b_h", params.b_h, (H,), "[H]", "No bias is None in its place.")
        _same_dtype("b_h", params.b_h, "w_hh", params.w_hh)


def _inputs(argument: str, xs: Any, params: "RNNParams", lead: str, ranks: tuple[int, int]) -> None:
    """Vectors with the leading axes `lead` of one of two ranks, or ids of those ranks."""
    array(argument, xs)
    I = params.w_ih.shape[0]
    one, batch = lead.split("|")
    vectors = f"vectors [{one}I] or [{batch}I]"
    ids = f"integer token ids [{one.rstrip(', ')}] or [{batch.rstrip(', ')}]"
    if _is_integer(xs):
        if xs.ndim not in ranks:
            repair = (
                "Integers are token ids; cast counts to float."
                if xs.ndim == ranks[1] + 1
                else "Integers are token ids."
            )
            refuse(argument, ids, _describe(xs), repair)
        _ids_within(argument, xs, I, f"I = {I} rows of w_ih")
        return
    if not _is_float(xs):
        refuse(argument, f"{vectors}, or {ids}", _describe(xs), "Cast it by .astype.")
    if xs.ndim - 1 not in ranks:
        refuse(argument, vectors, _describe(xs), "A single feature is an axis of size 1.")
    if xs.shape[-1] != I:
        repair = f"w_ih {list(params.w_ih.shape)} takes vectors of size I = {I}."
        refuse(argument, f"{vectors} with I = {I}", _describe(xs), repair)
    _same_dtype(argument, xs, "params", params.w_hh)


def _state(argument: str, h: Any, params: "RNNParams", batch: tuple[int, ...]) -> None:
    """[H], or [B, H] where there is a batch."""
    array(argument, h)
    H = params.w_hh.shape[0]
    if h.shape not in ((H,), (*batch, H)):
        wanted = f"[H] = [{H}]" + (f" or [B, H] = {[*batch, H]}" if batch else "")
        repair = "[H] is shared by the batch." if batch else "One sequence has one state."
        refuse(argument, wanted, _describe(h), repair)
    _floating(argument, h)
    _same_dtype(argument, h, "params", params.w_hh)


def cell_arguments(params: "RNNParams", h_tm1: Any, x_t: Any) -> None:
    rnn_params(params)
    _inputs("x_t", x_t, params, "|B, ", (0, 1))
    _state("h_tm1", h_tm1, params, x_t.shape[: x_t.ndim - (not _is_integer(x_t))])


def rnn_arguments(params: "RNNParams", xs: Any, h0: Any) -> None:
    rnn_params(params)
    _inputs("xs", xs, params, "T, |T, B, ", (1, 2))
    if xs.shape[0] == 0:
        refuse("xs", "at least one step (T >= 1)", _describe(xs), "Leave empty sequences out.")
    if h0 is not None:
        _state("h0", h0, params, xs.shape[1 : xs.ndim - (not _is_integer(xs))])


# --- readout and loss ----------------------------------------------------------------------------


def readout_params(params: "ReadoutParams") -> None:
    if not all(hasattr(params, name) for name in ("w_ho", "b_o")):
        refuse(
            "params", "ReadoutParams(w_ho, b_o)", type(params).__name__, "See jrnn.init_readout."
        )
    _shape("w_ho", params.w_ho, (None, None), "[H, O]", "See jrnn.init_readout.")
    _floating("w_ho", params.w_ho)
    if params.b_o is not None:
        _shape("b_o", params.b_o, (params.w_ho.shape[1],), "[O]", "No bias is None in its place.")
        _same_dtype("b_o", params.b_o, "w_ho", params.w_ho)


def readout_arguments(params: "ReadoutParams", hs: Any) -> None:
    readout_params(params)
    array("hs", hs)
    H = params.w_ho.shape[0]
    if np.ndim(hs) == 0 or hs.shape[-1] != H:
        refuse("hs", f"states [..., H] with H = {H}", _describe(hs), "The last axis is the state.")
    _floating("hs", hs)
    _same_dtype("hs", hs, "params", params.w_ho)


def cross_entropy_arguments(logits: Any, labels: Any, weights: Any) -> None:
    array("logits", logits)
    array("labels", labels)
    _floating("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        refuse("logits", "[..., O] with O >= 1", _describe(logits), "The last axis is the classes.")
    O, positions = logits.shape[-1], logits.shape[:-1]
    if weights is not None:
        array("weights", weights)
        if weights.shape not in ((), positions):
            repair = "One weight per position, or one for all."
            refuse("weights", f"shape {list(positions)} or []", _describe(weights), repair)
        if weights.dtype != jnp.bool_:
            if not _is_float(weights):
                repair = "A mask is bool, a weight is a float: cast it by .astype."
                refuse("weights", "a bool or floating dtype", _describe(weights), repair)
            _same_dtype("weights", weights, "logits", logits)
    if _is_integer(labels):
        if labels.shape != positions:
            repair = (
                "Integer labels are ids; cast one-hot labels to float."
                if labels.shape == logits.shape
                else "Integer labels are ids, one per position."
            )
            refuse("labels", f"ids of shape {list(positions)}", _describe(labels), repair)
        known = np.ones(()) if weights is None else _concrete(weights)
        if known is not None:
            counted = np.broadcast_to(known != 0, positions)
            _ids_within("labels", labels, O, f"O = {O} classes", counted)
        return
    repair = "Float labels give every class its share; ids are integers [...]."
    _shape("labels", labels, logits.shape, "[..., O]", repair)
    _floating("labels", labels)
    _same_dtype("labels", labels, "logits", logits)


# --- options -------------------------------------------------------------------------------------


def activation(value: Any, activation_class: type, names: Collection[str]) -> None:
    if isinstance(value, activation_class) or (isinstance(value, str) and value in names):
        return
    expected = "one of " + ", ".join(f'"{name}"' for name in names) + ", or a jrnn.Activation"
    repair = "A function of your own is jrnn.Activation(fn, derivative_from_output)."
    refuse("activation", expected, repr(value), repair)


def activation_derivative(
    fn: Callable[[jax.Array], jax.Array], derivative_from_output: Callable[[jax.Array], jax.Array]
) -> None:
    """Compare phi'(phi(a)) with autodiff on a grid that leaves out a = 0, where relu has its kink.

    float32 on a grid of 0.05: a difference beyond 1e-3 is no rounding.
    """
    with jax.ensure_compile_time_eval():
        a = jnp.arange(-60, 60, dtype=jnp.float32) / 20 + 0.0125
        try:
            given = derivative_from_output(fn(a))
            chex.assert_equal_shape([fn(a), given, a])
        except Exception as error:
            raise ValueError(
                "Activation: expected fn and derivative_from_output to map an array elementwise "
                f"to one of its shape; got {type(error).__name__}: {str(error).rstrip('.')}. "
                "Write both with jnp."
            ) from error
        true = jax.vmap(jax.grad(fn))(a)
        difference = np.asarray(jnp.abs(given - true) / (1 + jnp.abs(true)))
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    if not difference[worst] <= 1e-3:
        refuse(
            "derivative_from_output",
            f"phi' as a function of h = phi(a), so {float(true[worst]):.6g} at a = {a[worst]:.4g}",
            f"{float(given[worst]):.6g}",
            "tanh, for example, is Activation(jnp.tanh, lambda h: 1 - h**2). "
            "A function whose derivative its output does not determine cannot be used.",
        )


def generate_arguments(
    rnn: "RNNParams", readout: "ReadoutParams", prompt: Any, length: int, num_samples: int
) -> None:
    rnn_params(rnn)
    readout_params(readout)
    O = readout.w_ho.shape[1]
    if (rnn.w_ih.shape[0], rnn.w_hh.shape[0]) != (O, readout.w_ho.shape[0]):
        refuse(
            "readout_params",
            f"w_ho [H, O] = [{rnn.w_hh.shape[0]}, {rnn.w_ih.shape[0]}], a logit for every input id",
            list(readout.w_ho.shape),
            "Tokens that come out go in again.",
        )
    _shape("prompt", prompt, (None,), "[P]", "Encode one text; num_samples draws several.")
    if not _is_integer(prompt) or prompt.size == 0:
        refuse("prompt", "at least one integer id", _describe(prompt), "Start with a newline, say.")
    _ids_within("prompt", prompt, O, f"O = {O} tokens")
    sizes(length=length, num_samples=num_samples)


def sampling_options(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not 0 <= temperature < np.inf:
        refuse("temperature", "a number >= 0", temperature, "0 is greedy, 1 the model's own.")
    if top_k is not None and not top_k >= 1:
        refuse("top_k", "an integer >= 1 or None", top_k, "1 is greedy.")
    if top_p is not None and not 0 < top_p <= 1:
        refuse("top_p", "a number in (0, 1] or None", top_p, "1 keeps every token.")


# --- the derivation ------------------------------------------------------------------------------

MOST_BYTES = 4e9


def one_sequence(xs: Any, repair: str) -> None:
    array("xs", xs)
    if xs.ndim != (1 if _is_integer(xs) else 2):
        refuse("xs", "one sequence, vectors [T, I] or ids [T]", _describe(xs), repair)


def states(argument: str, hs: Any, params: "RNNParams") -> None:
    rnn_params(params)
    repair = "These are the states of one sequence, as jrnn.rnn returns them."
    _shape(argument, hs, (None, params.w_hh.shape[0]), "[T, H]", repair)


def step_within(argument: str, step: Any, low: int, high: int, high_name: str) -> None:
    if not isinstance(step, (int, np.integer)) or not low <= step <= high:
        expected = f"an integer from {low} to {high_name} = {high}"
        refuse(argument, expected, repr(step), "Steps count from 1, as in the equations; h_0 is 0.")


def window_or_chunk(window: Any, chunk: Any) -> None:
    if (window is None) == (chunk is None):
        came = "neither" if window is None else f"window={window} and chunk={chunk}"
        refuse("window, chunk", "one of the two", came, "They are different gradients.")
    name, value = ("window", window) if chunk is None else ("chunk", chunk)
    if not isinstance(value, (int, np.integer)) or value < 1:
        refuse(name, "an integer >= 1", repr(value), "1 is the immediate derivative of each step.")


def affordable(what: str, nbytes: int) -> None:
    if nbytes > MOST_BYTES:
        refuse(
            what,
            f"at most {MOST_BYTES / 1e9:.0f} GB",
            f"{nbytes / 1e9:.1f} GB",
            "jax.grad through jrnn.rnn computes the same gradient without them.",
        )
