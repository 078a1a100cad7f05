"""The recurrence in the memory of sqrt(T) states: only those at the starts of segments are kept.

The backward pass computes the others once more (Chen et al., Training deep nets with sublinear
memory cost, 2016). It need not do so one after the other: every segment has its first state, so G
of them go side by side, as a batch of G B sequences. A step of one sequence waits for the weights:
on a CPU, one of four takes 1.7 times as long, and from there on time grows with the sequences. With
T / S states kept, and G S computed at a time, S = sqrt(T / G) makes both sqrt(T G).
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jrnn.bptt import rule
from jrnn.bptt.gradients import Gradients, Residuals, no_sums, of_parameters
from jrnn.bptt.inputs import Inputs, Marks, as_one_batch, reaching_h0
from jrnn.bptt.loops import rows, scan
from jrnn.bptt.mapped import Results, in_one_batch
from jrnn.bptt.schedule import batch_size, divisor_near
from jrnn.bptt.states import in_place
from jrnn.bptt.step import Recurrence
from jrnn.types import RNNParams

SIDE_BY_SIDE = 4  # sequences


class Kept(NamedTuple):
    """What the backward pass keeps of the forward pass."""

    params: RNNParams
    inputs: Inputs
    starts: jax.Array  # the states in front of the segments, [T / S, H] or [T / S, B, H]


def run(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    """(h_last, hs), of one sequence or a batch."""
    return in_one_batch(_states, recurrence, params, inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> Results:
    h_last, hs, _ = _by_segments(recurrence, params, inputs)
    return h_last, hs


def _states_fwd(recurrence: Recurrence, params: Any, inputs: Any) -> tuple[Results, Kept]:
    params, inputs = jax.tree.map(lambda x: x.value, (params, inputs))
    h_last, hs, starts = _by_segments(recurrence, params, inputs)
    return (h_last, hs), Kept(params, inputs, starts)


def _states_bwd(recurrence: Recurrence, kept: Kept, cotangents: Any) -> Gradients:
    dh_last, dhs = (None if isinstance(d, SymbolicZero) else d for d in cotangents)
    dh_last = jnp.zeros_like(kept.inputs.h0) if dh_last is None else dh_last
    return _gradients(recurrence, kept, dh_last, dhs)


_states.defvjp(_states_fwd, _states_bwd, symbolic_zeros=True)


def _by_segments(
    recurrence: Recurrence, params: RNNParams, inputs: Inputs
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(h_last, hs), and the states in front of the segments."""
    S, _ = _sizes(inputs)
    whole, rest = divmod(len(inputs.xs), S)

    def segment(constant: tuple[RNNParams, Inputs], h: jax.Array, n: jax.Array) -> Any:
        params, inputs = constant
        h_next, hs = in_place(recurrence, params, _part(inputs, n * S, S, h))
        return h_next, (h, hs)

    h, (starts, hs) = scan(segment, False, (params, inputs), inputs.h0, jnp.arange(whole))
    hs = lax.collapse(hs, 0, 2)
    if rest:
        starts = jnp.concatenate([starts, h[None]])
        h, last = in_place(recurrence, params, _part(inputs, whole * S, rest, h))
        hs = jnp.concatenate([hs, last])
    return h, hs, starts


def _gradients(
    recurrence: Recurrence, kept: Kept, dh_last: jax.Array, dhs: jax.Array | None
) -> Gradients:
    """(9)-(13) of G segments at a time, from the last to the first; dhs None is zero."""
    params, (xs, _, _, entry), _ = kept
    S, G = _sizes(kept.inputs)
    segments, rest = divmod(len(xs), S)
    group = partial(_of_group, recurrence, S)
    no_entry = jax.tree.map(jnp.zeros_like, entry)
    state, behind = (dh_last, no_entry, no_sums(params, xs)), []
    if rest:
        state, dxs = group(rest, 1, (kept, dhs), state, segments)
        behind = [dxs]
    if few := segments % G:
        state, dxs = group(S, few, (kept, dhs), state, segments - few)
        behind = [dxs, *behind]

    def nth(constant: Any, state: Any, n: jax.Array) -> Any:
        return group(S, G, constant, state, n * G)

    (dh0, dentry, sums), dxs = scan(nth, True, (kept, dhs), state, jnp.arange(segments // G))
    dxs = jax.tree.map(lambda first, *rest: _joined(lax.collapse(first, 0, 2), *rest), dxs, *behind)
    return of_parameters(params, xs, sums), Inputs(dxs, dh0, Marks(), dentry)


def _of_group(
    recurrence: Recurrence, S: int, steps: int, count: int, constant: Any, state: Any, first: Any
) -> Any:
    """Of `count` segments of `steps` steps, of which S stand in front of the next one's."""
    (params, inputs, starts), _ = constant
    starts = rows(starts, first, count)
    hs = _side_by_side(recurrence, params, _part(inputs, first * S, count * steps, starts))

    def segment(constant: Any, state: Any, given: Any) -> Any:
        (params, inputs, _), dhs = constant
        c, dentry, sums = state
        n, h, hs = given
        part = _part(inputs, n * S, steps, h)
        dhs = jnp.zeros_like(hs) if dhs is None else rows(dhs, n * S, steps)
        residuals = Residuals(params, part, hs)
        c_0, sums, dxs = rule.backward(recurrence, residuals, (c, dhs), sums)
        dentry = jax.tree.map(jnp.add, dentry, c_0.entry)
        return (reaching_h0(part.marks, c_0.h, c), dentry, sums), dxs

    each = first + jnp.arange(count), starts, hs
    state, dxs = scan(segment, True, constant, state, each)
    return state, jax.tree.map(lambda x: lax.collapse(x, 0, 2), dxs)


def _sizes(inputs: Inputs) -> tuple[int, int]:
    """S steps in a segment, and G segments side by side."""
    T, B = len(inputs.xs), 1 if inputs.h0.ndim == 1 else batch_size(inputs.h0)
    G = max(SIDE_BY_SIDE // B, 1)
    S = divisor_near(T, math.isqrt(T // G))
    return S, min(G, T // S)


def _part(inputs: Inputs, start: Any, steps: int, h: jax.Array) -> Inputs:
    xs, marks = rows((inputs.xs, inputs.marks), start, steps)
    return Inputs(xs, h, marks, inputs.entry)


def _side_by_side(recurrence: Recurrence, params: RNNParams, inputs: Inputs) -> jax.Array:
    """hs [G, S, ...] of G segments, given the states in front of each of them in place of h_0."""
    xs, starts, marks, entry = inputs
    G, S = len(starts), len(xs) // len(starts)  # no -1: an empty batch leaves S open
    xs, marks = jax.tree.map(lambda x: x.reshape(G, S, *x.shape[1:]), (xs, marks))
    entry = jax.tree.map(lambda e: jnp.broadcast_to(e, starts.shape), entry)
    _, hs = in_place(recurrence, params, as_one_batch(Inputs(xs, starts, marks, entry)))
    return hs.reshape(S, *starts.shape).swapaxes(0, 1)


def _joined(*parts: jax.Array) -> jax.Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)
