"""Checks of the data of a recurrence: inputs, states, lengths, masks, resets."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from jrnn.arrays import are_ids, steps
from jrnn.checks.basics import (
    array,
    concrete,
    describe,
    floating,
    ids_within,
    is_float,
    kind_of,
    not_explicit,
    refuse,
    same_dtype,
)
from jrnn.checks.networks import input_size, network, times, with_fields
from jrnn.checks.options import compute_dtype as narrower

if TYPE_CHECKING:
    from jrnn.cells import UncheckedCell

ZEROS = "None stands for zeros; jrnn.zero_state(params, B) has the form."
BATCH_FIRST = (
    "Is the data batch first? Time leads: swap the axes by .swapaxes(0, 1), "
    "or map over the batch by jax.vmap."
)


def as_read(
    argument: str, xs: Any, params: Any, I: int, time: str, reading: Any, of_a_batch: bool
) -> Any:
    """Return xs with leading axes `time` and maybe "B", as ids or as float features.

    Integers are ids. If they also have the shape of features (B = I), they are ids only if another
    argument has a batch axis; otherwise the caller must give `inputs`.
    """
    array(argument, xs)
    if not (reading is None or (isinstance(reading, str) and reading in ("ids", "features"))):
        repair = "It says how integers are read; floats are features."
        refuse("inputs", '"ids", "features" or None', repr(reading), repair)
    if reading == "ids" and not are_ids(xs):
        repair = "Cast ids by .astype(jnp.int32); of floats leave inputs out."
        refuse(argument, 'integers, as inputs="ids" says', describe(xs), repair)
    if params.w_ih is None and are_ids(xs) and reading != "features":
        expected = "floats to add to a_t, since w_ih is None"
        repair = "Ids are rows of w_ih; integers that are features are cast by .astype."
        refuse(argument, expected, describe(xs), repair)
    either = are_ids(xs) and xs.ndim == len(time) + 1 and xs.shape[-1] == I
    if reading is None and either and not of_a_batch:
        batch, one = (f"[{', '.join((*time, axis))}]" for axis in "BI")
        expected = "integers whose shape says whether they are token ids or features"
        came = f"{describe(xs)}: ids {batch} of {I} sequences, or features {one} of one"
        repair = f'Give inputs="ids", or {_as_features(params)}'
        refuse(argument, expected, came, repair)
    if reading == "features" and (are_ids(xs) or xs.dtype == jnp.bool_):
        return jnp.asarray(xs).astype(jnp.result_type(params.w_hh))
    return xs


def _as_features(params: Any) -> str:
    dtype = jnp.result_type(params.w_hh)
    return f'inputs="features"; or cast features by .astype("{dtype}").'


def inputs(
    argument: str,
    xs: Any,
    params: Any,
    I: int,
    leads: tuple[str, str],
) -> None:
    """Check vectors or ids with one of two groups of leading axes, such as "T" and "T, B".

    Ids are compared with I by `ids_of`.
    """
    vectors = " or ".join(f"[{lead}{', ' if lead else ''}I]" for lead in leads)
    ids = "integer token ids " + " or ".join(f"[{lead}]" for lead in leads)
    ranks = [lead.replace(",", "").split() for lead in leads]
    features = xs.ndim - np.array([len(axes) for axes in ranks])  # remaining axes, for each group
    if are_ids(xs):
        if 0 not in features:
            repair = f"give {_as_features(params)}" if 1 in features else "vectors are floats."
            refuse(argument, ids, describe(xs), f"Integers are token ids; {repair}")
        return
    if not is_float(xs):
        repair = f"Ids are integers; give {_as_features(params)}"
        refuse(argument, f"vectors {vectors}, or {ids}", describe(xs), repair)
    if 1 not in features:
        repair = "A single feature is an axis of size 1."
        refuse(argument, f"vectors {vectors}", describe(xs), repair)
    if xs.shape[-1] != I:
        repair = f"Without w_ih they are added to a_t, which has {I} numbers."
        if params.w_ih is not None:
            repair = f"w_ih {list(params.w_ih.shape)} takes vectors of size I = {I}."
        if I == 1:
            repair += f" A single feature is an axis of size 1: {argument}[..., None]."
        refuse(argument, f"vectors {vectors} with I = {I}", describe(xs), repair)
    same_dtype(argument, xs, "params", params.w_hh)


def ids_of(argument: str, xs: Any, I: int, counted: np.ndarray | None = None) -> None:
    """Refuse token ids without a row of w_ih; only those in the mask `counted` matter."""
    if are_ids(xs):
        ids_within(argument, xs, I, f"I = {I} rows of w_ih", counted)


def state(
    argument: str,
    h: Any,
    params: Any,
    batch: tuple[int, ...],
    directions: int = 1,
    T: int | None = None,
) -> None:
    """Check a state [H], or [B, H] for a batch of T steps; 2H for two directions."""
    array(argument, h)
    H, size = params.w_hh.shape[0] * directions, times(directions)
    if h.shape not in ((H,), (*batch, H)):
        wanted = f"[{size}] = [{H}]" + (f" or [B, {size}] = {[*batch, H]}" if batch else "")
        repair = "[H] is shared by the batch." if batch else "One sequence has one state."
        if argument == "recurrent_mask" and h.shape == (H, H):
            repair = "A mask of connections multiplies w_hh, before the call."
        if batch and h.shape == (T, H):
            repair = BATCH_FIRST
        if h.shape == (1, *batch, H):
            repair = f"Take {argument}[0]: a state has no axis of layers, as one of torch has."
        refuse(argument, wanted, describe(h), repair)
    floating(argument, h)
    same_dtype(argument, h, "params", params.w_hh)


def not_lengths(argument: str, given: Any) -> None:
    """Refuse a state that looks like the argument after it: lengths, or a mask of steps."""
    dtype = getattr(given, "dtype", None)
    count = isinstance(given, int) or (dtype is not None and are_ids(given) and given.ndim <= 1)
    if count or dtype == np.bool_:
        meant = "lengths=" if count else "mask= or resets="
        refuse(argument, "a state, or None for zeros", kind_of(given), f"Was it meant as {meant}?")


def named_states(argument: str, given: Any, cell: "UncheckedCell") -> dict[str, Any]:
    """The arrays of a state by the name of the argument; its class and number are checked."""
    if given is None or (cell.states == 1 and cell.state is None):
        if isinstance(given, tuple):
            array(argument, given)  # refuses it
        return {argument: given}
    kind: Any = cell.state or tuple
    if not isinstance(given, kind) or len(given) != cell.states:
        expected = f"a tuple of {cell.states} states" if cell.state is None else None
        expected = expected or f"{with_fields(cell.state)} or None"
        came = type(given).__name__ if isinstance(given, tuple) else kind_of(given)
        repair = ZEROS
        if type(given) in (tuple, list) and len(given) == cell.states:
            repair = f"{kind.__name__}(*state) is one."
        refuse(argument, expected, came, repair)
    names: Iterable[Any] = getattr(cell.state, "_fields", range(cell.states))
    return {f"{argument}.{name}": h for name, h in zip(names, given, strict=True)}


def cell_arguments(
    cell: "UncheckedCell",
    params: Any,
    before: Any,
    x_t: Any,
    data: Any = None,
    *,
    reading: Any = None,
    of_a_batch: bool = False,
    named: str = "states",
) -> Any:
    """Check the arguments of one step; return x_t as ids or features.

    `of_a_batch` and `named` as in `network_arguments`.
    """
    network(cell, params)
    states = named_states(named, before, cell)
    of_a_batch |= any(np.ndim(h) > 1 for h in states.values())
    x_t = step_inputs(cell, params, x_t, reading, of_a_batch)
    for argument, h in states.items():
        if h is not None:
            state(argument, h, params, steps(x_t))
    cell_data(cell, params, data, (), steps(x_t))
    return x_t


def step_inputs(
    cell: "UncheckedCell", params: Any, x_t: Any, reading: Any, of_a_batch: bool
) -> Any:
    """Check the inputs of one step; return them as ids or features."""
    I = input_size(cell, params)
    x_t = as_read("x_t", x_t, params, I, "", reading, of_a_batch)
    inputs("x_t", x_t, params, I, ("", "B"))
    ids_of("x_t", x_t, I)
    return x_t


def network_arguments(
    cell: "UncheckedCell",
    params: Any,
    xs: Any,
    start: Any = None,
    lengths_: Any = None,
    resets: Any = None,
    reset_state: Any = None,
    recurrent_mask: Any = None,
    mask: Any = None,
    data: Any = None,
    *,
    reading: Any = None,
    of_a_batch: bool = False,
    named: str = "h0",
    compute_dtype: Any = None,
) -> Any:
    """Check the arguments; return xs as ids or features, in the dtype of the parameters.

    `of_a_batch`: whether an argument that is not passed here has a batch axis. `named`: the name of
    the argument `start`. `compute_dtype`: the other dtype that xs may have.
    """
    network(cell, params)
    not_lengths(named, start)
    states = named_states(named, start, cell) | named_states("reset_state", reset_state, cell)
    states["recurrent_mask"] = recurrent_mask
    of_a_batch |= np.ndim(lengths_) > 0 or any(
        np.ndim(x) > 1 for x in (resets, mask, *states.values())
    )
    if isinstance(data, dict):  # of two axes they may be [T, H]
        of_a_batch |= any(np.ndim(x) > 2 for x in data.values())
    I = input_size(cell, params)
    xs = as_read("xs", xs, params, I, "T", reading, of_a_batch)
    narrow = narrower(compute_dtype, params)
    if narrow is not None and xs.dtype == narrow:  # to which the kernel rounds it again
        xs = jnp.asarray(xs).astype(jnp.result_type(params.w_hh))
    inputs("xs", xs, params, I, ("T", "T, B"))
    lead, inside = steps(xs), None
    if lengths_ is not None:
        lengths(lengths_, lead[0], lead[1:])
        inside = steps_inside(lengths_, lead)
    if mask is not None:
        counted_steps(mask, lead, lengths_)
        inside = steps_counted(mask, lead)
    ids_of("xs", xs, I, inside)
    if xs.shape[0] == 0:
        refuse("xs", "at least one step (T >= 1)", describe(xs), "Leave empty sequences out.")
    if resets is not None:
        step_flags("resets", resets, lead, "True where a segment begins")
    for argument, h in states.items():
        if h is not None:
            state(argument, h, params, lead[1:], T=lead[0])
    cell_data(cell, params, data, lead[:1], lead[1:])
    return xs


def cell_data(
    cell: "UncheckedCell", params: Any, data: Any, time: tuple[int, ...], batch: tuple[int, ...]
) -> None:
    """Check the arrays that a cell reads: [H], [B, H], [T, H] or [T, B, H] each."""
    names = set(data) if isinstance(data, dict) else None
    if data is None and not cell.data:
        return
    if names != set(cell.data):
        expected = f"a dict of {', '.join(cell.data)}" if cell.data else "None"
        came = ", ".join(sorted(map(str, names))) if names is not None else type(data).__name__
        repair = f"They are what the cell {cell.name} reads."
        if getattr(data, "ndim", None) == 1 and are_ids(data):
            repair += " Was it meant as lengths=?"
        refuse("data", expected, came, repair)
    H = int(params.w_hh.shape[0])
    for name, x in data.items():
        array(name, x)
        if x.shape not in ((H,), (*batch, H), (*time, *batch, H)):
            wanted = f"[H], {[*batch, H]} or {[*time, *batch, H]}, with H = {H}"
            refuse(name, wanted, describe(x), "For each unit, sequence, or step.")
        if is_float(x):
            same_dtype(name, x, "params", params.w_hh)


def one_sequence(xs: Any) -> None:
    _alone("xs", xs, 1, "one sequence, vectors [T, I] or token ids [T]")


def one_step(x_t: Any) -> None:
    _alone("x_t", x_t, 0, "one step of one sequence, a vector [I] or a token id []")


def _alone(argument: str, xs: Any, rank: int, expected: str) -> None:
    """Check that xs are ids of this rank, or vectors of one rank more."""
    array(argument, xs)
    if xs.ndim != (rank if are_ids(xs) else rank + 1):
        repair = "Take one of the batch, or map over it by jax.vmap."
        if are_ids(xs) and xs.ndim == rank + 1:
            repair = f"Integers are token ids; features are cast by .astype. {repair}"
        refuse(argument, expected, describe(xs), repair)


def for_the_kernel(xs: Any) -> None:
    """Refuse inputs that only a scan of JAX can read."""
    not_explicit("xs", xs)
    if is_symbolic_dim(xs.shape[0]):
        repair = "Only B may be symbolic; give lengths, or use jrnn.derivation.rnn_scan."
        refuse("xs", "a known number of steps T", describe(xs), repair)


def lengths(lengths: Any, T: int, batch: tuple[int, ...] | None) -> None:
    """Check an integer, or integers of shape [] or `batch` (None: [B] of any size)."""
    whole = isinstance(lengths, (int, np.integer)) and not isinstance(lengths, bool)
    if not whole:
        array("lengths", lengths)
        if not are_ids(lengths):
            repair = "They count steps: cast them by .astype(jnp.int32)."
            if lengths.dtype == bool:
                repair = "A flag for each step is mask=."
            refuse("lengths", "integers", describe(lengths), repair)
    fits = np.ndim(lengths) <= 1 if batch is None else np.shape(lengths) in ((), batch)
    if not fits:
        wanted = "[]" if batch == () else "[] or [B]" + (f" = {list(batch)}" if batch else "")
        repair = "One length per sequence."
        if batch and np.shape(lengths) == (T,):
            repair = BATCH_FIRST
        elif batch == ():
            repair += " The data is one sequence; a batch is [T, B, ...]."
        refuse("lengths", f"shape {wanted}", describe(lengths), repair)
    values = concrete(lengths)
    if values is not None and ((values < 0) | (values > T)).any():
        wrong = values[(values < 0) | (values > T)][0]
        repair = "A length counts the steps of a sequence before its padding."
        refuse("lengths", f"integers from 0 to T = {T}", int(wrong), repair)


def steps_inside(lengths: Any, steps: tuple[int, ...]) -> np.ndarray | None:
    values = concrete(lengths)
    if values is None or any(map(is_symbolic_dim, steps)):
        return None
    return np.arange(steps[0]).reshape(-1, *(1,) * (len(steps) - 1)) < np.broadcast_to(
        values, steps[1:]
    )


def steps_counted(mask: Any, lead: tuple[int, ...]) -> np.ndarray | None:
    """The concrete mask of every step, or None."""
    values = concrete(mask)
    if values is None or any(map(is_symbolic_dim, lead)):
        return None
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(lead) - values.ndim)), lead)


def counted_steps(mask: Any, lead: tuple[int, ...], lengths: Any) -> None:
    if lengths is not None:
        repair = "Use mask for gaps; for padding on the right alone, lengths are faster."
        refuse("mask", "lengths or mask", "both", repair)
    step_flags("mask", mask, lead, "True where a step counts")


def step_flags(argument: str, flags: Any, lead: tuple[int, ...], meaning: str) -> None:
    """Bool [T] or [T, B]."""
    array(argument, flags)
    if flags.dtype != jnp.bool_:
        refuse(argument, "a bool dtype", describe(flags), f"Compare: {argument} = flags != 0.")
    if flags.shape not in (lead, lead[:1]):
        wanted = f"[T] = {list(lead[:1])}" + (f" or [T, B] = {list(lead)}" if lead[1:] else "")
        refuse(
            argument, f"shape {wanted}", describe(flags), f"{meaning}; [T] is shared by the batch."
        )
