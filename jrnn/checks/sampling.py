"""Checks of free runs and of sampling: parameters, inputs, logits, and the drawn tokens."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.arrays import are_ids, named_leaves, steps, wide
from jrnn.checks.basics import (
    array,
    concrete,
    describe,
    floating,
    ids_within,
    kind_of,
    refuse,
    same_dtype,
    shape,
    sizes,
)
from jrnn.checks.losses import readout_of, readout_params
from jrnn.checks.networks import input_size, network_of_inputs
from jrnn.checks.stacks import Cells, forwards, layer_states, stack_params

if TYPE_CHECKING:
    from jrnn.types import ReadoutParams, StackParams


def sampler_arguments(
    cells: Cells,
    params: "StackParams",
    readout: "ReadoutParams",
    prompt: Any,
    length: int,
    num_samples: int,
) -> None:
    """Check the arguments of `sampling.generate`."""
    network_of_inputs(cells[0], params.layers[0].forward)
    shape("prompt", prompt, (None,), "[P]", "Encode one text; num_samples draws several.")
    if not are_ids(prompt) or prompt.size == 0:
        refuse("prompt", "at least one integer id", describe(prompt), "Start with a newline, say.")
    _free_network(cells, params, readout)
    _logits_of_ids(params, readout)
    ids_within("prompt", prompt, readout.w_ho.shape[1], f"O = {readout.w_ho.shape[1]} tokens")
    sizes(length=length, num_samples=num_samples)


def _free_network(cells: Cells, params: "StackParams", readout: "ReadoutParams") -> None:
    stack_params(cells, params)
    forwards(params, "Read backwards, its first output would need all inputs.")
    readout_params(readout)


def _logits_of_ids(params: "StackParams", readout: "ReadoutParams") -> None:
    I, H = params.layers[0].forward.w_ih.shape[0], params.layers[-1].forward.w_hh.shape[0]
    if readout.w_ho.shape != (H, I):
        refuse(
            "readout_params",
            f"w_ho [H, O] = [{H}, {I}], a logit for every input id",
            list(readout.w_ho.shape),
            "Each generated token is the next input. To read ids by a table of embeddings, make "
            "w_ih = table @ w_ih.",
        )


def generate_arguments(
    cells: Cells,
    params: "StackParams",
    readout: "ReadoutParams",
    prefix: Any,
    length: int,
    states: Any,
    known: Any,
    *,
    alone: bool,
) -> None:
    """Check the arguments of `jrnn.generate`; `alone`: the network is no stack."""
    _free_network(cells, params, readout)
    sizes(length=length)
    array("prefix", prefix)
    first, ids = params.layers[0].forward, are_ids(prefix)
    I = input_size(cells[0], first)
    if prefix.ndim not in ((1, 2) if ids else (2, 3)) or len(prefix) == 0:
        expected = "at least one step: vectors [P, D] or [P, B, D], or integer ids [P] or [P, B]"
        refuse("prefix", expected, describe(prefix), "The first output comes after its last step.")
    batch = steps(prefix)[1:]
    layer_states("states", states, cells, params, batch, alone=alone)
    if ids:
        network_of_inputs(cells[0], first)
        _logits_of_ids(params, readout)
        ids_within("prefix", prefix, I, f"I = {I} rows of w_ih")
        if known is not None:
            repair = "Known inputs are columns of vectors."
            refuse("known", "None for token ids", describe(known), repair)
        return
    readout_of(params.layers[-1].forward.w_hh, readout)
    floating("prefix", prefix)
    same_dtype("prefix", prefix, "params", first.w_hh)
    K = 0 if known is None else _known(prefix, length, known)
    if prefix.shape[-1] + K != I:
        repair = f"The network reads vectors of size I = {I}."
        expected = f"vectors of size D = {I - K}" + (f", and K = {K} known" if K else "")
        refuse("prefix", expected, describe(prefix), repair)


def _known(prefix: Any, length: int, known: Any) -> int:
    """Check the known inputs; return their number K."""
    array("known", known)
    P, batch = len(prefix), prefix.shape[1:-1]
    if known.ndim < 2 or known.shape[1:-1] not in ((), batch):
        expected = "[L, K]" + (f" or [L, B, K] with B = {batch[0]}" if batch else "")
        refuse("known", expected, describe(known), "A single known input is an axis of size 1.")
    same_dtype("known", known, "prefix", prefix)
    L = len(known)
    if P > L:
        repair = "Both begin at the same step; give what is known of the prefix, too."
        refuse("prefix", f"at most the L = {L} steps of known", f"P = {P} steps", repair)
    if P + length - 1 > L:
        expected = f"at least P + length - 1 = {P + length - 1} steps, for each that is read"
        refuse("known", expected, f"L = {L}", f"They end too early: take a length of {L - P + 1}.")
    return int(known.shape[-1])


def key_of_tokens(key: Any, temperature: Any) -> None:
    greedy = not isinstance(temperature, jax.core.Tracer) and temperature == 0
    if key is None and not greedy:
        repair = "temperature=0 takes the likeliest token without one."
        refuse("key", "a JAX random key for random tokens", "None", repair)


def drawn_inputs(draw: Any, key: Any, readout: "ReadoutParams", prefix: Any) -> None:
    """Check that outputs, or draws of any width, have the form of the prefix without time."""
    lead, ids = steps(prefix)[1:], are_ids(prefix)
    outputs = jax.ShapeDtypeStruct((*lead, readout.w_ho.shape[1]), readout.w_ho.dtype)
    wanted = jax.ShapeDtypeStruct(prefix.shape[1:], jnp.int32 if ids else readout.w_ho.dtype)
    if draw is not None:
        found = jax.eval_shape(draw, key, outputs)
        kind = jnp.integer if ids else jnp.floating
        if hasattr(found, "dtype") and jnp.issubdtype(found.dtype, kind):  # the run casts it
            found = jax.ShapeDtypeStruct(found.shape, wanted.dtype)
    elif ids:
        return
    else:
        found = outputs
    came = kind_of(found)
    if came != describe(wanted):
        argument = "w_ho" if draw is None else "draw"
        repair = "Each output is the next input; a draw makes inputs of other outputs."
        refuse(argument, f"next inputs {describe(wanted)}", came, repair)


def finite_parameters(**params: Any) -> None:
    """Check concrete parameters; elements of `b_o` may be -inf, but not all of them."""
    for argument, tree in params.items():
        for name, x in named_leaves(tree):
            values = concrete(x)
            if values is None:
                continue
            never = values == (-np.inf if name == "b_o" else np.nan)
            wrong = ~(np.isfinite(values) | never & (not never.all()))
            if wrong.any():
                where = tuple(int(i) for i in np.argwhere(wrong)[0])
                came = f"{values[where]} at {list(where)}, {int(wrong.sum())} of {wrong.size} such"
                repair = "Use parameters from before training diverged."
                refuse(f"{argument}.{name}", "finite numbers", came, repair)


def distribution(logits: Any) -> None:
    """Check concrete logits [..., O], in the dtype of the computation."""
    values = concrete(logits)
    if values is None:
        return
    dtype = wide(jnp.result_type(values))
    with np.errstate(over="ignore"):
        largest = np.asarray(values, dtype).max(-1)
    wrong = ~np.isfinite(largest)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        came = f"{largest[where]} as the largest at {list(where)}"
        repair = "Use -inf only for tokens that must never be drawn; at least one other is needed."
        refuse("logits", f"numbers of {dtype}, or -inf", came, repair)


def drawn(tokens: np.ndarray, start: int) -> None:
    """Check drawn tokens [num_samples, n], from number `start` on; -1 means invalid logits."""
    if (tokens < 0).any():
        sample, n = (int(i) for i in np.argwhere(tokens < 0)[0])
        came = f"others at token {start + n} of sample {sample}"
        repair = "The state has overflowed: take a bounded activation, or a smaller w_hh."
        refuse("generate", "finite logits at every token", came, repair)
