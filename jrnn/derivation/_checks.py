"""Argument checks specific to `derivation`."""

from typing import Any

import numpy as np

from jrnn import checks
from jrnn.cells import UncheckedCell
from jrnn.cells.elman import elman
from jrnn.types import ReadoutParams, RNNParams

MOST_BYTES = 4e9


def states(argument: str, hs: Any, params: RNNParams) -> None:
    checks.network(elman("tanh"), params)
    repair = "These are the states of one sequence, as jrnn.rnn returns them."
    checks.shape(argument, hs, (None, params.w_hh.shape[0]), "[T, H]", repair)


def step_within(argument: str, step: Any, low: int, high: int, high_name: str) -> None:
    if not isinstance(step, (int, np.integer)) or not low <= step <= high:
        expected = f"an integer from {low} to {high_name} = {high}"
        checks.refuse(
            argument, expected, repr(step), "Steps count from 1, as in the equations; h_0 is 0."
        )


def window_or_chunk(window: Any, chunk: Any) -> None:
    if (window is None) == (chunk is None):
        came = "neither" if window is None else f"window={window} and chunk={chunk}"
        checks.refuse("window, chunk", "one of the two", came, "They are different gradients.")
    name, value = ("window", window) if chunk is None else ("chunk", chunk)
    if not isinstance(value, (int, np.integer)) or value < 1:
        checks.refuse(
            name, "an integer >= 1", repr(value), "1 is the immediate derivative of each step."
        )


def affordable(what: str, nbytes: int) -> None:
    if nbytes > MOST_BYTES:
        checks.refuse(
            what,
            f"at most {MOST_BYTES / 1e9:.0f} GB",
            f"{nbytes / 1e9:.1f} GB",
            "jax.grad through jrnn.rnn computes the same gradient without them.",
        )


def loss_of_one_sequence(
    cell: UncheckedCell,
    params: Any,
    readout: ReadoutParams,
    xs: Any,
    labels: Any,
    state: Any,
    weights: Any,
    *,
    named: str,
) -> None:
    """The arguments of the trajectory of a gated network; `named`: the name of `state`."""
    checks.one_sequence(xs)
    checks.network_of_inputs(cell, params)
    checks.network_arguments(cell, params, xs, state, named=named)
    checks.objective_arguments(params, readout, xs, labels, weights)


def gated_states(hs: Any, w_hh: Any) -> None:
    repair = "These are the states of a trajectory of these parameters."
    checks.shape("run.hs", hs, (None, w_hh.shape[0]), "[T, H]", repair)
