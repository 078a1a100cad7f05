"""One step of a recurrence and its adjoint.

    e_{t-1} as in (15)                     h_e = output(e_{t-1}), the first state by default
    a_t     = [x_t w_ih] + [(m * h_e) w_hh] + b                                    (23)
    s_t     = step(a_t, e_{t-1}) if v_t else s_{t-1}

    delta_t, d_t = adjoint(c_t of (16) + the cotangent of hs_t)          0 in the padding; delta_t
                                                                         is clipped, if asked
    d_t    += the pullback of m * (delta_t w_hh^T) through output
    dm      = sum_t h_e * (delta_t w_hh^T)                                         (17)

With a `compute_dtype` the operands of every matmul are rounded to it, delta_t among them, and their
products are summed in the dtype of the parameters; everything else stays in that dtype. The outputs
are stored in `compute_dtype`. A cell whose adjoint reads the output alone keeps no more: (23) and
(11) round it anyway, and phi' is computed from the rounded output. Nor does a cell keep its first
state that only w_hh reads, as an LSTM's h. All other states are kept unrounded as well.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import ArrayLike, add_bias, are_ids, at_least_float32, in_32_bits, rows
from jrnn.cells import Arrays, Named, StepCotangents, UncheckedCell
from jrnn.kernel.masking import Flags, flags_of_next
from jrnn.kernel.types import (
    BackwardCarry,
    BackwardSteps,
    Constants,
    Inputs,
    Residuals,
    Spec,
    Steps,
    Weights,
)

# --- forward --------------------------------------------------------------------------------------


def rounded(spec: Spec, x: jax.Array) -> jax.Array:
    """An operand of a matmul."""
    return x if spec.compute_dtype is None else x.astype(spec.compute_dtype)


def matmul(spec: Spec, x: jax.Array, w: jax.Array) -> jax.Array:
    """x w, in the dtype of x before its rounding; a half-precision x is summed in float32."""
    total = None if spec.compute_dtype is None else x.dtype
    x, w = rounded(spec, x), rounded(spec, w)
    return jnp.matmul(x, w, precision=spec.precision, preferred_element_type=total)


def project_inputs(spec: Spec, w_ih: jax.Array | None, xs: ArrayLike) -> jax.Array:
    """x_t w_ih, which depends on no state: [..., I] or ids [...] to [..., X*H].

    A token id k is the one-hot vector e_k, and e_k w_ih is row k of w_ih. An id outside [0, I)
    gives NaN. Without w_ih, xs are the product.
    """
    if w_ih is None:
        return jnp.asarray(xs)
    if not are_ids(xs):
        return matmul(spec, jnp.asarray(xs), w_ih)
    table = at_least_float32(w_ih).at[in_32_bits(xs)]  # many steps may add to one row: in float32
    projected = table.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return projected.astype(w_ih.dtype)


def with_clean_start(
    spec: Spec, inputs: Inputs, run: Callable[[Inputs], tuple[Arrays, jax.Array]]
) -> tuple[Arrays, jax.Array]:
    """`run`, whose start is 0 where a sequence has no step: it stays there, and may hold NaN."""
    start, valid = inputs.start, inputs.steps.valid
    first = None if valid is None else valid[0]
    last, hs = run(inputs._replace(start=tuple(spec.masking.inside(first, s) for s in start)))
    return spec.masking.hold(first, last, start), hs


def inputs_inside(spec: Spec, steps: Steps) -> Any:
    """xs, and 0 in the padding, which may hold NaN."""
    if are_ids(steps.xs):
        return spec.masking.inside(steps.valid, steps.xs[..., None])[..., 0]
    return spec.masking.inside(steps.valid, steps.xs)


def operand(spec: Spec, constants: Constants, states: Arrays) -> jax.Array:
    """m * h_e. With a mask, h_e is rounded first, as it is stored: (23) and (11) use the same."""
    h = output(spec.cell, states)
    if constants.recurrent_mask is None:
        return h
    return mask_state(constants, rounded(spec, h)).astype(h.dtype)


def output(cell: UncheckedCell, states: Arrays) -> jax.Array:
    """h_t of the states."""
    return states[0] if cell.output is None else cell.output(states)


def mask_state(constants: Constants, h: jax.Array) -> jax.Array:
    """m * h, of a state [..., B, H]."""
    m = constants.recurrent_mask
    return h if m is None else _like_steps(m, h).astype(h.dtype) * h


def _like_steps(x: jax.Array, like: jax.Array) -> jax.Array:
    """x [B, H] with as many axes in front as `like` has: those of the steps."""
    return x.reshape((1,) * (like.ndim - x.ndim) + x.shape)


def blocks_of(x: jax.Array, H: int) -> Arrays:
    """[..., X*H] as X arrays [..., H]."""
    return tuple(lax.slice_in_dim(x, n, n + H, axis=-1) for n in range(0, x.shape[-1], H))


def number_of_blocks(cell: UncheckedCell) -> int:
    """G."""
    return 1 + max((*cell.x_blocks, *cell.h_blocks))


def pre_activation(cell: UncheckedCell, b: jax.Array | None, x: Arrays, h: Arrays) -> Arrays:
    """The blocks of a_t (23), from those of x_t w_ih and of (m * h_e) w_hh."""
    H = h[0].shape[-1]
    from_x, from_h = (
        dict(zip(cell.x_blocks, x, strict=True)),
        dict(zip(cell.h_blocks, h, strict=True)),
    )
    blocks = []
    for g in range(number_of_blocks(cell)):
        bias = None if b is None else b[g * H : (g + 1) * H]
        if g in from_x:
            a = add_bias(from_x[g], bias)
            blocks.append(a + from_h[g] if g in from_h else a)
        else:
            blocks.append(add_bias(from_h[g], bias))
    return tuple(blocks)


def gates_of(cell: UncheckedCell, blocks: Arrays) -> Arrays:
    """The arrays that the step reads of its blocks."""
    return blocks if cell.gates is None else cell.gates(blocks)


def read_of_blocks(cell: UncheckedCell, blocks: Arrays) -> Arrays:
    """The gates, which the adjoint reads; without an adjoint the blocks themselves."""
    return blocks if cell.adjoint is None else gates_of(cell, blocks)


@partial(jax.jit, static_argnums=0, inline=True)  # the steps of a block are traced once
def step_forward(
    spec: Spec, weights: Weights, constants: Constants, at: Steps, states: Arrays
) -> tuple[Arrays, Arrays]:
    """s_t from s_{t-1}, and the gates that are kept; `at.xs` holds the blocks of x_t w_ih."""
    import chex  # here, to keep `import jrnn` fast

    before = spec.masking.enter(constants.reset_state, at.reset, states)
    h = matmul(spec, operand(spec, constants, before), weights.w_hh)
    blocks = pre_activation(spec.cell, weights.b, at.xs, blocks_of(h, before[0].shape[-1]))
    read = blocks, before, constants.unit, _data_inside(spec, constants, at)
    differentiated = partial(spec.masking.differentiated, at.valid)
    blocks, entered, unit, data = jax.tree.map(differentiated, read)
    after = spec.cell.step(gates_of(spec.cell, blocks), entered, unit, data)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, before)
    kept = read_of_blocks(spec.cell, blocks) if spec.keep_gates else ()
    return spec.masking.hold(at.valid, after, states), kept


def _data_inside(spec: Spec, constants: Constants, at: Steps) -> Named:
    """The data of a step; 0 in the padding, which may hold NaN."""
    return constants.data | {k: spec.masking.inside(at.valid, x) for k, x in at.data.items()}


# --- residuals ------------------------------------------------------------------------------------


def hs_is_first_state(spec: Spec) -> bool:
    """Whether hs is the first state as the backward pass needs it, so that it is not kept twice."""
    cell = spec.cell
    unrounded = cell.adjoint_reads_blocks and cell.reads_first_state
    return cell.output is None and not (spec.compute_dtype is not None and unrounded)


def stored(
    spec: Spec, valid: jax.Array | None, states: Arrays, gates: Arrays = ()
) -> tuple[jax.Array, Arrays]:
    """hs_t, and the arrays that are kept with it: states, and gates if `spec.keep_gates`."""
    hs_t = rounded(spec, spec.masking.inside(valid, output(spec.cell, states)))
    return hs_t, (*(states[1:] if hs_is_first_state(spec) else states), *gates)


def number_kept(spec: Spec) -> int:
    """The number of arrays that are kept besides hs."""
    states = spec.cell.states - hs_is_first_state(spec)
    if not spec.keep_gates:
        return states
    block = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    blocks = (block,) * number_of_blocks(spec.cell)
    return states + len(jax.eval_shape(partial(read_of_blocks, spec.cell), blocks))


def kept_states(spec: Spec, residuals: Residuals) -> tuple[Arrays, Arrays]:
    """The states after every step, [T, B, H], in the padding finite; and the gates, if kept."""
    first = (residuals.hs,) if hs_is_first_state(spec) else ()
    kept = (*first, *residuals.kept)
    return kept[: spec.cell.states], kept[spec.cell.states :]


def states_entering(spec: Spec, inputs: Inputs, kept: Arrays, start: Any, K: int) -> Arrays:
    """e_{t-1} of K steps from `start` on, [K, B, H]; right for the steps that are no padding."""

    def shifted(s_0: jax.Array, s: jax.Array) -> jax.Array:
        before = rows(s, jnp.maximum(start - 1, 0), 1)
        first = jnp.where(start == 0, s_0.astype(s.dtype)[None], before)
        return first if K == 1 else jnp.concatenate([first, rows(s, start, K - 1)])

    states = tuple(shifted(s_0, s) for s_0, s in zip(inputs.start, kept, strict=True))
    reset, reset_state = inputs.steps.reset, inputs.constants.reset_state
    if reset is None:
        return states
    h_r = reset_state and tuple(
        h.astype(s.dtype)[None] for h, s in zip(reset_state, states, strict=True)
    )
    return spec.masking.enter(h_r, rows(reset, start, K), states)


def recomputed_gates(
    spec: Spec, weights: Weights, constants: Constants, at: Steps, entering: Arrays
) -> Arrays:
    """`read_of_blocks` of K steps, [K, B, H] each; () if the adjoint reads none."""
    if not spec.cell.adjoint_reads_blocks:
        return ()
    return read_of_blocks(spec.cell, recomputed_blocks(spec, weights, constants, at, entering))


def recomputed_blocks(
    spec: Spec, weights: Weights, constants: Constants, at: Steps, entering: Arrays
) -> Arrays:
    """The blocks (23) of K steps, [K, B, H] each, by one matmul: every e_{t-1} is known."""
    H = entering[0].shape[-1]
    x = project_inputs(spec, weights.w_ih, inputs_inside(spec, at))
    h = operand(spec, constants, entering).astype(weights.w_hh.dtype)
    h = matmul(spec, h, weights.w_hh)
    return pre_activation(spec.cell, weights.b, blocks_of(x, H), blocks_of(h, H))


# --- backward -------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0, inline=True)
def step_back(
    spec: Spec,
    w_hh_transposed: jax.Array,
    constants: Constants,
    d_last: Arrays,
    carry: BackwardCarry,
    given: BackwardSteps,
    gates: Arrays,
    before: Arrays,
) -> tuple[BackwardCarry, Arrays, Named]:
    """d_t, the blocks of delta_t, and the cotangents of the data of the step."""
    cell, dtype = spec.cell, d_last[0].dtype
    dhs, at, valid_next, reset_next, after, kept = given
    gates = kept or gates
    before, after = jax.tree.map(lambda x: x.astype(dtype), (before, after))
    c_t, carry = _cotangents_of_states(spec, valid_next, reset_next, carry, d_last)
    d_after = _add_output_cotangent(cell, c_t, after, dhs.astype(dtype))
    d_after = tuple(spec.masking.inside(at.valid, d) for d in d_after)
    data = _data_inside(spec, constants, at)
    read = d_after, gates, before, constants.unit, data, after
    if cell.of_a_user:  # for a gradient of this gradient, as in `step_forward`
        read = jax.tree.map(partial(spec.masking.differentiated, at.valid), read)
    found = _pull_back(cell, *read)
    _assert_cotangents(cell, found, before[0])
    if cell.of_a_user:  # of zeros the others make 0; the choice takes 1.1 to 1.5 times the time
        found = jax.tree.map(partial(spec.masking.inside, at.valid), found)
    deltas = found.blocks
    if spec.clip_delta is not None:
        deltas = tuple(jnp.clip(d, -spec.clip_delta, spec.clip_delta) for d in deltas)
    back = matmul(spec, jnp.concatenate([deltas[g] for g in cell.h_blocks], -1), w_hh_transposed)
    d_before = _add_output_cotangent(
        cell, found.before or (None,) * cell.states, before, mask_state(constants, back)
    )
    d_mask = None if constants.recurrent_mask is None else back * output(cell, before)
    d_data = found.data or {}
    own = {k: d_data[k] for k in d_data if k in constants.data}
    sums = _add(carry.constants, Constants(None, d_mask, found.unit or {}, own))
    floats, _ = split_floats(at.data)
    d_data = {k: d_data.get(k, jnp.zeros_like(x)) for k, x in floats.items()}
    return BackwardCarry(d_before, sums), deltas, d_data


def _pull_back(
    cell: UncheckedCell,
    d_after: Arrays,
    gates: Arrays,
    before: Arrays,
    unit: Named,
    data: Named,
    after: Arrays,
) -> StepCotangents:
    """The adjoint of the step; that of `jax.vjp` if the cell has none."""
    if cell.adjoint is not None:
        return cell.adjoint(d_after, gates, before, unit, data, after)
    floats, others = split_floats(data)

    def step(blocks: Arrays, before: Arrays, unit: Named, floats: Named) -> Arrays:
        return cell.step(gates_of(cell, blocks), before, unit, floats | others)

    _, vjp = jax.vjp(step, gates, before, unit, floats)
    return StepCotangents(*vjp(d_after))


def _assert_cotangents(cell: UncheckedCell, found: StepCotangents, like: jax.Array) -> None:
    """One array for each block and state, all `[B, H]` and of one dtype."""
    import chex  # here, to keep `import jrnn` fast

    chex.assert_equal(len(found.blocks), number_of_blocks(cell))
    for cotangent in jax.tree.leaves(found):
        chex.assert_shape(cotangent, like.shape)
        chex.assert_type(cotangent, like.dtype)


def split_floats(data: Named) -> tuple[Named, Named]:
    """The floating arrays, which have a gradient, and the others, which have none."""
    floats = {k: x for k, x in data.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    return floats, {k: x for k, x in data.items() if k not in floats}


def _cotangents_of_states(
    spec: Spec, valid_next: Flags, reset_next: Flags, carry: BackwardCarry, d_last: Arrays
) -> tuple[Arrays, BackwardCarry]:
    """c_t (16), and the sums with dh_r of step t + 1 (17)."""
    c_t, d_reset = spec.masking.cotangents(valid_next, reset_next, carry.states, d_last)
    return c_t, carry._replace(constants=_add(carry.constants, Constants(d_reset)))


def at_the_start(spec: Spec, steps: Steps, carry: BackwardCarry, d_last: Arrays) -> BackwardCarry:
    """c_0 and all sums, from d_1."""
    valid, reset = jax.tree.map(lambda flags: flags[0], (steps.valid, steps.reset))
    c_0, carry = _cotangents_of_states(spec, valid, reset, carry, d_last)
    return carry._replace(states=c_0)


def backward_steps(spec: Spec, residuals: Residuals, dhs: jax.Array) -> BackwardSteps:
    """The arrays that the backward pass reads at every step."""
    steps = residuals.inputs.steps
    flags = flags_of_next(steps.valid), flags_of_next(steps.reset)
    return BackwardSteps(dhs, steps._replace(xs=None), *flags, *kept_states(spec, residuals))


def _add_output_cotangent(
    cell: UncheckedCell, d: tuple[jax.Array | None, ...], states: Arrays, dh: jax.Array
) -> Arrays:
    """Cotangents of the states, None is zero, with that of their output added."""
    if cell.output is None:
        more = (dh, *(jnp.zeros_like(s) for s in states[1:]))
    else:
        (more,) = jax.vjp(cell.output, states)[1](dh)
    return tuple(m if x is None else x + m for x, m in zip(d, more, strict=True))


def _add(sums: Constants, more: Constants) -> Constants:
    """The sums plus the cotangents that are not None."""
    reset_state, mask, unit, data = sums
    if reset_state is not None and more.reset_state is not None:
        reset_state = jax.tree.map(
            lambda s, d: s + d.astype(s.dtype), reset_state, more.reset_state
        )
    if mask is not None and more.recurrent_mask is not None:
        mask = mask + more.recurrent_mask.astype(mask.dtype)
    unit, data = (
        {k: s + d[k].astype(s.dtype) if k in d else s for k, s in sums.items()}
        for sums, d in ((unit, more.unit), (data, more.data))
    )
    return Constants(reset_state, mask, unit, data)


def first_carry(constants: Constants, d_last: Arrays) -> BackwardCarry:
    """c_T, and the sums of no step."""
    floats, _ = split_floats(constants.data)
    zeros = jax.tree.map(
        lambda x: jnp.zeros_like(at_least_float32(x)), constants._replace(data=floats)
    )
    return BackwardCarry(d_last, zeros)


def d_of_steps(steps: Steps) -> tuple[jax.Array | None, Named]:
    """The types of dxs, None for ids, and of the cotangents of the data."""
    return None if are_ids(steps.xs) else steps.xs, split_floats(steps.data)[0]
