"""Checks of the arguments that look inside a network: its states, fixed points and components."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jrnn.checks.basics import array, concrete, describe, floating, refuse, same_dtype, shown
from jrnn.checks.sequences import named_states, one_step

if TYPE_CHECKING:
    from jrnn.cells import UncheckedCell


def residual_of_a_stack(residual: Any) -> None:
    if residual:
        repair = "It adds the input of a layer to its output: see jrnn.stack."
        refuse("residual", "False for one network", "True", repair)


def no_data_of_a_stack(data: Any) -> None:
    if data is not None:
        repair = "Cells that read data run alone, not in a stack."
        refuse("data", "None for a stack", type(data).__name__, repair)


def held_input(x_t: Any) -> None:
    """Check that x_t is one input of one sequence."""
    if x_t is None:
        expected = "the constant input to hold, a vector [I] or a token id []"
        repair = "A network has fixed points for a constant input; for none give jnp.zeros(I)."
        refuse("x_t", expected, "None", repair)
    one_step(x_t)


def start_states(argument: str, given: Any, cell: "UncheckedCell", params: Any) -> None:
    """Check the states [..., H] of one network, with equal leading axes."""
    if given is None:
        repair = "Give those that the network visits: see jrnn.diagnostics.trajectory."
        refuse(argument, "states [..., H] to start from", "None", repair)
    H, found = params.w_hh.shape[0], named_states(argument, given, cell)
    states_alike(given, argument=argument)
    for name, x in found.items():
        if x.shape[-1] != H:
            repair = "All axes but the last, as in [T, B, H], count starts."
            refuse(name, f"states [..., H] with H = {H}", describe(x), repair)
        same_dtype(name, x, "params", params.w_hh)
        if not np.isfinite(np.asarray(x)).all():
            repair = "Leave the padding out by mask=, and sequences that overflow."
            refuse(name, "finite numbers", "NaN or inf", repair)


def states_of_layers(states: Any, cells: Sequence["UncheckedCell"], networks: list[Any]) -> None:
    """Check the states of a stack: for each layer as `start_states`, with equal leading axes."""
    n = len(networks)
    if not isinstance(states, (tuple, list)) or len(states) != n:
        is_tuple = isinstance(states, (tuple, list))
        came = f"{len(states)} of them" if is_tuple else type(states).__name__
        repair = "See jrnn.diagnostics.trajectory."
        refuse("states", f"a tuple of {n} states, one for each layer", came, repair)
    for i, (given, cell, network) in enumerate(zip(states, cells, networks, strict=True)):
        start_states(f"states[{i}]", given, cell, network)
    states_alike(states)


def values(argument: str, tree: Any) -> None:
    """Refuse traced arrays."""
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree)):
        repair = "Call it outside jax.jit, grad and vmap: how many points there are is a value."
        refuse(argument, "arrays with values", "traced ones", repair)


def not_negative(argument: str, value: Any, repair: str) -> None:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= value < np.inf:
        refuse(argument, "a finite number >= 0", shown(value), repair)


def states_alike(states: Any, mask: Any = None, argument: str = "states", least: int = 1) -> None:
    """Check states [..., H] with equal leading axes, of `least` numbers, and their mask [...]."""
    leaves = jax.tree.leaves(states)
    if not leaves:
        repair = "See jrnn.diagnostics.trajectory."
        refuse(argument, "an array [..., H], or several", "none", repair)
    for x in leaves:
        array(argument, x)
        floating(argument, x)
        if not x.ndim or x.size < least or x.shape[:-1] != leaves[0].shape[:-1]:
            repair = "[T, H] and [T, B, H] are the states of sequences."
            expected = "arrays [..., H] with equal leading axes"
            refuse(argument, expected, ", ".join(map(describe, leaves)), repair)
    if mask is not None:
        array("mask", mask)
        lead = leaves[0].shape[:-1]
        if mask.dtype != bool or mask.shape != lead:
            repair = "True where a step counts; see jrnn.sequence_mask."
            refuse("mask", f"bool{list(lead)}, as {argument}", describe(mask), repair)
        values = concrete(mask)
        if values is not None and not values.any():
            refuse("mask", "a step that counts", "False alone", "None is all.")


def result_of(argument: str, value: Any, kind: type, source: str) -> None:
    """Check the class of a result of `jrnn.diagnostics`."""
    if not isinstance(value, kind):
        repair = f"Call jrnn.diagnostics.{source}."
        refuse(argument, f"a {kind.__name__}", type(value).__name__, repair)


def states_of_components(states: Any, size: int) -> None:
    states_alike(states, least=0)
    came = sum(x.shape[-1] for x in jax.tree.leaves(states))
    if came != size:
        repair = "Components belong to the states that they were computed from."
        refuse("states", f"as many features as the components have, {size}", came, repair)
