"""Lengths, resets, h_0 and `mask`: the state that enters a step, and its cotangent.

With lengths (v_t: step t is inside its sequence) and resets (r_t: a segment begins at t, from
the reset state h_r), for every state s of a cell:

    e_{t-1} = h_r if r_t else s_{t-1}
    s_t     = the cell's step from e_{t-1} if v_t else s_{t-1}
    hs_t    = h_t if v_t else 0                  h_last = s_T                      (15)

Backward, c_t is the cotangent of s_t from later steps, and d_t that of e_{t-1} from step t.
Since the padding of a sequence comes last, with c_T = dh_last,

    c_t  = dh_last if not v_{t+1}, 0 if r_{t+1}, else d_{t+1}                      (16)
    dh_0 = c_0             dh_r = sum of d_t over t with v_t and r_t               (17)

Sequences are padded on the right: their steps come first. The kernel gets them in the order in
which it reads them. So three functions come before it, and their inverses after it:

- `reverse_steps`: a sequence that is read in reverse is reversed within its length.
- `step_flags`: resets[t] acts before x_t is read forwards, and after x_t is read in reverse, which
  is before x_{t-1}. So in reverse h_0 always enters the last step of the sequence, which is read
  first, and resets[0] changes nothing.
- `counted_first`: with a `mask`, the steps that count are moved to the front of each sequence, and
  their number is its length. A reset at a skipped step acts at the next step that counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import ArrayLike, varying_alike
from jrnn.cells import Arrays

Flags = jax.Array | None  # bool, one for each step and sequence; None: the same for all
Move = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Masking:
    """(15)-(17) for one step: flags `[B]`, states and cotangents `[B, H]`."""

    def enter(self, reset_state: Arrays | None, reset: Flags, states: Arrays) -> Arrays:
        """e_{t-1} of (15).

        Args:
            reset_state: h_r for each state; None: zeros.
            reset: r_t.
            states: s_{t-1}.

        Returns:
            The states that enter the step.
        """
        if reset is None:
            return states
        starts = jax.tree.map(jnp.zeros_like, states) if reset_state is None else reset_state
        return tuple(
            jnp.where(reset[..., None], h_r, s) for h_r, s in zip(starts, states, strict=True)
        )

    def hold(self, valid: Flags, after: Arrays, before: Arrays) -> Arrays:
        """s_t of (15).

        Args:
            valid: v_t.
            after: the states after the cell's step.
            before: s_{t-1}.

        Returns:
            The states after the step or, in the padding, before it.
        """
        if valid is None:
            return after
        return tuple(
            jnp.where(valid[..., None], s, held) for s, held in zip(after, before, strict=True)
        )

    def inside(self, valid: Flags, x: jax.Array) -> jax.Array:
        """x with its padding set to 0; for hs in (15), and for the cotangents that enter a step.

        Args:
            valid: v_t; or of several steps.
            x: an array with one axis more.

        Returns:
            An array like x.
        """
        return x if valid is None else jnp.where(valid[..., None], x, jnp.zeros_like(x))

    def differentiated(self, valid: Flags, x: jax.Array) -> jax.Array:
        """x, whose gradient is 0 in the padding, where that of a user's function may be NaN.

        Args:
            valid: v_t.
            x: what a step reads.

        Returns:
            x. XLA removes the choice between x and x.
        """
        return x if valid is None else jnp.where(valid[..., None], x, lax.stop_gradient(x))

    def cotangents(
        self, valid_next: Flags, reset_next: Flags, d_next: Arrays, d_last: Arrays
    ) -> tuple[Arrays, Arrays | None]:
        """c_t of (16), and the part of dh_r (17) from step t + 1.

        Called at step t, where XLA fuses it with (9). Called at step t + 1 instead, after the
        matmul, it takes 1.10 of the time at T = 1024, B = 1, H = 128 (AMD EPYC, jaxlib 0.10.2).

        Args:
            valid_next: v_{t+1}; False for t = T.
            reset_next: r_{t+1}; False for t = T.
            d_next: d_{t+1}, 0 in the padding.
            d_last: the cotangents of the last states.

        Returns:
            Both for each state; None instead of the second without resets.
        """
        c, d_reset = d_next, None
        if reset_next is not None:
            at = reset_next[..., None]
            d_reset = tuple(jnp.where(at, d, jnp.zeros_like(d)) for d in d_next)
            c = tuple(jnp.where(at, jnp.zeros_like(d), d) for d in d_next)
        return self.hold(valid_next, c, d_last), d_reset


def flags_of_next(flags: Flags) -> Flags:
    """The flags of step t + 1 at step t.

    Args:
        flags: `[T, ...]` or None.

    Returns:
        Flags of the same shape; False at the last step.
    """
    return None if flags is None else jnp.concatenate([flags[1:], jnp.zeros_like(flags[:1])])


# --- before and after the kernel ------------------------------------------------------------------


def steps_inside(lengths: ArrayLike | int, T: int) -> jax.Array:
    """Which steps are no padding.

    Args:
        lengths: `[B]` or `[]`.
        T: the steps of the padded sequences.

    Returns:
        `[T, B]` or `[T]` bool: t < lengths.
    """
    ends = _ends(jnp.asarray(lengths), T)
    return jnp.arange(T).reshape(-1, *(1,) * ends.ndim) < ends[None]


def _ends(lengths: jax.Array, T: int) -> jax.Array:
    """Lengths as steps, the nearest of 0, ..., T."""
    if jnp.issubdtype(lengths.dtype, jnp.unsignedinteger) and lengths.dtype.itemsize >= 4:
        lengths = jnp.minimum(lengths, T)  # the cast below would make large ones negative
    return jnp.clip(lengths.astype(jnp.arange(0).dtype), 0, T)


def per_step(flags: ArrayLike, lead: tuple[int, ...]) -> jax.Array:
    """Flags that the batch may share, for every step of every sequence.

    Args:
        flags: `[T]` or `[T, B]`.
        lead: (T,) or (T, B).

    Returns:
        An array of the shape `lead`.
    """
    flags = jnp.asarray(flags)
    return jnp.broadcast_to(flags.reshape(flags.shape + (1,) * (len(lead) - flags.ndim)), lead)


def step_flags(
    lead: tuple[int, ...], lengths: jax.Array | None, resets: jax.Array | None, reverse: bool
) -> tuple[Flags, Flags]:
    """v_t and r_t in the order in which the steps are read.

    Args:
        lead: (T,) or (T, B).
        lengths: `[]` or `[B]`, or None.
        resets: bool of the shape `lead`, or None.
        reverse: as in `jrnn.rnn`.

    Returns:
        Flags of the shape `lead` or None, twice.
    """
    valid = None if lengths is None else steps_inside(lengths, lead[0])
    if resets is None:
        return valid, None
    if reverse:  # the reset after x_t acts at the step that is read next
        first = jnp.zeros_like(resets[:1])
        resets = jnp.concatenate([first, reverse_steps(resets, lengths)[:-1]])
    # In the padding a reset would put a state that may hold NaN into what the adjoint reads.
    return valid, resets if valid is None else resets & valid


def reverse_steps(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Each sequence from its own end to its start; its padding stays in its place.

    Args:
        x: `[T, ...]` or `[T, B, ...]`.
        lengths: `[]` or `[B]` integers, or None.

    Returns:
        An array like x. Twice is x itself.
    """
    if lengths is None:
        return x[::-1]
    steps = jnp.arange(len(x)).reshape(-1, *(1,) * lengths.ndim)
    ends = _ends(lengths, len(x))[None]
    order = jnp.where(steps < ends, ends - 1 - steps, steps)
    return permute_steps(x, order, order)


def counted_first(mask: jax.Array, resets: jax.Array | None) -> tuple[Move, Move, jax.Array, Flags]:
    """Move the steps that count to the front of each sequence, in their order.

    Args:
        mask: `[T]` or `[T, B]` bool: the steps that count.
        resets: bool of the same shape, or None.

    Returns:
        The move of an array `[T, ...]` or `[T, B, ...]`, the move back, the lengths `[]` or `[B]`,
        and the resets of the moved steps or None.
    """
    order = jnp.argsort(~mask, axis=0, stable=True)
    inverse = jnp.argsort(order, axis=0)
    forth = partial(permute_steps, order=order, inverse=inverse)
    back = partial(permute_steps, order=inverse, inverse=order)
    lengths = mask.sum(0, dtype=jnp.int32)
    if resets is None:
        return forth, back, lengths, None
    so_far = forth(jnp.cumsum(resets, 0, dtype=jnp.int32))  # resets up to each step that counts
    before = jnp.concatenate([jnp.zeros_like(so_far[:1]), so_far[:-1]])
    return forth, back, lengths, so_far > before


def permute_steps(x: jax.Array, order: jax.Array, inverse: jax.Array) -> jax.Array:
    """The steps of each sequence in another order.

    Every derivative, forwards and backwards, is a gather; JAX's transpose of a gather would be a
    scatter. So y is given to JAX as the solution of the linear equation inverse(y) = x.

    Args:
        x: `[T, ...]` or `[T, B, ...]`.
        order: `[T]` or `[T, B]` integers, a permutation of the steps of each sequence.
        inverse: the inverse permutation.

    Returns:
        An array like x.
    """
    x, order, inverse = varying_alike((x, order, inverse))

    def take(steps: jax.Array, x: jax.Array) -> jax.Array:
        steps = steps.reshape(steps.shape + (1,) * (x.ndim - steps.ndim))
        mode = "promise_in_bounds"
        return jnp.take_along_axis(x, steps, 0, mode, wrap_negative_indices=False)

    if not jnp.issubdtype(x.dtype, jnp.floating):
        return take(order, x)
    return lax.custom_linear_solve(
        partial(take, inverse),
        x,
        solve=lambda _, x: take(order, x),
        transpose_solve=lambda _, dy: take(inverse, dy),
    )
