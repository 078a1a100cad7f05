"""The backend that XLA compiles: loops over chunks of time that write into preallocated buffers.

Forward: project the inputs of K steps by one matmul, then step through them and write each output
straight into hs. With several chunks nothing else of size T*B*H exists, except further states that
are kept.

Backward, from the last chunk of K steps to the first: step back through the chunk, reading h_t and
dhs_t where they stand, then add the chunk's part of (11) and (12). The buffers of a chunk stay in
the cache, and below the size from which the C library returns memory to the system after every
call. K only has to be large enough for the matmuls.

JAX differentiates loops of this kind badly; `transforms` never lets it. JAX maps them only over
weights, and over batches for a gradient of each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jrnn.arrays import are_ids, bits, floats, mesh_axes, rows, varying
from jrnn.cells import Arrays
from jrnn.kernel import step
from jrnn.kernel.types import (
    Backward,
    Cotangents,
    Inputs,
    Residuals,
    Spec,
    States,
    Weights,
)
from jrnn.kernel.weight_gradients import (
    add_weight_gradients,
    input_gradients,
    transposed,
    transposed_back,
)


class Schedule(NamedTuple):
    """How a batch goes through time: the choices that change how fast it is, and no result."""

    forward_chunk: int  # steps that share a matmul of the inputs
    backward_chunk: int  # steps that share a matmul of the weight gradients
    unroll: int = 1  # steps written out in one iteration of a loop


@dataclass(frozen=True)
class XLA:
    """Loops over chunks of time, for a batch on any device."""

    schedule: Schedule

    # --- forward ----------------------------------------------------------------------------------

    def forward(self, spec: Spec, weights: Weights, inputs: Inputs) -> States:
        """As `types.Backend`."""
        steps, start, constants = inputs
        T, H = len(steps.xs), weights.w_hh.shape[0]
        weights = weights._replace(w_hh=step.rounded(spec, weights.w_hh))  # once, not at every step
        if self._fits_in_place(spec, T):
            return _forward_in_place(spec, weights, inputs)

        def chunk(t: Any, K: int, state: tuple[Arrays, Arrays]) -> Any:
            at = rows(steps, t, K)
            # Kept gates are read in the padding, too, where xs may hold NaN.
            xs = step.inputs_inside(spec, at) if spec.keep_gates else at.xs
            projected = step.project_inputs(spec, weights.w_ih, xs)

            def some_steps(k: Any, u: int, state: tuple[Arrays, Arrays]) -> Any:
                s, buffers = state
                given = rows(steps._replace(xs=None), t + k, u)
                given = self._read(given._replace(xs=read_blocks(projected, k, u, H)))
                found = []
                for j in range(u):
                    at = row(given, j)
                    s, gates = step.step_forward(spec, weights, constants, at, s)
                    found.append(jax.tree.leaves(step.stored(spec, at.valid, s, gates)))
                return s, put_rows(buffers, found, t + k)

            return over_time(K, self.schedule.unroll, some_steps, state)

        hs_0, _ = step.stored(spec, None, start)
        like = hs_0, *(start[0],) * step.number_kept(spec)
        buffers = tuple(buffer_like((T, *x.shape), x) for x in like)
        with jax.named_scope("rnn_forward"):
            last, buffers = over_time(T, self.schedule.forward_chunk, chunk, (start, buffers))
        hs, *kept = map(floats, buffers)
        return States(last, hs, tuple(kept))

    def _fits_in_place(self, spec: Spec, T: int) -> bool:
        """Whether the projection of all steps can be written into hs, and overwritten there."""
        one = self.schedule.unroll == 1 and self.schedule.forward_chunk >= T > 2
        like_hs = step.number_kept(spec) == 0 and spec.compute_dtype is None
        return one and like_hs and step.number_of_blocks(spec.cell) == 1

    # --- backward ---------------------------------------------------------------------------------

    def backward(
        self, spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights
    ) -> Backward:
        """As `types.Backend`."""
        weights, inputs = residuals.weights, residuals.inputs
        steps, _, constants = inputs
        d_last, xs, G = cotangents.last, steps.xs, step.number_of_blocks(spec.cell)
        given = step.backward_steps(spec, residuals, cotangents.hs)
        constant = step.rounded(spec, weights.w_hh.T), constants, d_last  # rounded once
        B, H = d_last[0].shape

        def chunk(t: Any, K: int, state: Backward) -> Backward:
            at = rows(steps, t, K)
            entering = step.states_entering(spec, inputs, given.after, t, K)
            gates: Arrays = ()
            if not given.gates:
                gates = step.recomputed_gates(spec, weights, constants, at, entering)

            def some_steps(k: Any, u: int, state: Any) -> Any:
                """(9) from step t + k + u - 1 to step t + k."""
                carry, deltas, ddata = state
                read = self._read((rows(given, t + k, u), *rows((gates, entering), k, u)))
                columns: list[jax.Array] = []
                d_data: list[Any] = []
                for j in reversed(range(u)):
                    carry, delta, d = step.step_back(spec, *constant, carry, *row(read, j))
                    columns.append(jnp.concatenate([step.rounded(spec, x).T for x in delta]))
                    d_data.insert(0, d)
                # Stacked as they are computed, then reversed in time: a TPU fuses this.
                deltas = put(deltas, lax.rev(jnp.stack(columns, 1), (1,)), k, axis=1)
                return carry, deltas, put_rows(ddata, d_data, t + k)

            with jax.named_scope("rnn_backward"):
                deltas = buffer_like((G * H, K, B), step.rounded(spec, d_last[0]))
                before = state.carry, deltas, state.ddata
                found = over_time(K, self.schedule.unroll, some_steps, before, reverse=True)
                carry, deltas, ddata = found
            with jax.named_scope("rnn_weight_gradients"):
                deltas = floats(deltas).reshape(G * H, -1)
                if K == 1 and deltas.dtype == jnp.bfloat16:
                    # Without it XLA:CPU has no kernel for the matmul that it makes (jaxlib 0.10.2).
                    deltas = lax.optimization_barrier(deltas)
                h, x = step.operand(spec, constants, entering), step.inputs_inside(spec, at)
                sums, dxs = add_weight_gradients(spec, state.sums, deltas, x, h), state.dxs
                if dxs is not None:
                    dx = input_gradients(spec, weights.w_ih, deltas)
                    dxs = put(dxs, dx.reshape(K, *xs.shape[1:]).astype(xs.dtype), t)
            return Backward(carry, sums, dxs, ddata)

        ddata = jax.tree.map(lambda x: buffer_like(x.shape, x), step.split_floats(steps.data)[0])
        dxs = None if are_ids(xs) else buffer_like(xs.shape, xs)
        carry = step.first_carry(constants, d_last)
        state = Backward(carry, transposed(xs, sums), dxs, ddata)
        found = over_time(len(xs), self.schedule.backward_chunk, chunk, state, reverse=True)
        carry = step.at_the_start(spec, steps, found.carry, d_last)
        sums = transposed_back(xs, found.sums)
        return Backward(carry, sums, *jax.tree.map(floats, (found.dxs, found.ddata)))

    def _read(self, given: Any) -> Any:
        """The rows of several steps, loaded before the first one: XLA may not delay it."""
        return lax.optimization_barrier(given) if self.schedule.unroll > 1 else given


def _forward_in_place(spec: Spec, weights: Weights, inputs: Inputs) -> States:
    """The forward pass in one chunk: each output takes the place of the projection of its step.

    0.83 of the time forward and 0.95 with the gradient at T = 128, B = 32, I = H = 64 (AMD EPYC,
    jaxlib 0.10.2): one array less goes through the caches. Each step stores the state before its
    own. If it stored its own, that state would be stored and carried, and XLA would compute a cheap
    phi for each of the two.
    """
    steps, start, constants = inputs

    def step_at(t: Any, states: Arrays, hs: jax.Array) -> Arrays:
        at = row(rows(steps._replace(xs=hs), t, 1), 0)
        return step.step_forward(
            spec, weights, constants, at._replace(xs=(floats(at.xs),)), states
        )[0]

    def store(hs: jax.Array, states: Arrays, t: Any) -> jax.Array:
        valid = row(rows(steps.valid, t, 1), 0)
        return put(hs, step.stored(spec, valid, states)[0][None], t)

    def following(t: Any, state: tuple[Arrays, jax.Array]) -> tuple[Arrays, jax.Array]:
        states, hs = state
        hs = store(hs, states, t - 1)
        return step_at(t, states, hs), hs

    with jax.named_scope("rnn_forward"):
        T, hs = len(steps.xs), bits(step.project_inputs(spec, weights.w_ih, steps.xs))
        last, hs = lax.fori_loop(1, T, following, (step_at(0, start, hs), hs))
        return States(last, floats(store(hs, last, T - 1)))


# --- the schedule ---------------------------------------------------------------------------------


def schedule_for(platform: str, T: int, B: int, I: int, H: int, X: int = 1, G: int = 1) -> Schedule:
    """The schedule for a platform and a shape.

    XLA:CPU gains nothing from unrolled steps. Its matmuls are at full speed from about 512 rows on;
    in a small batch a chunk of that many steps would make the columns of [G*H, K, B] too long to
    write one by one. A GPU launches a kernel for every operation: unrolled steps share those that
    load and store, and long chunks those of the matmuls. Chunks of 2^14 rows take 0.84 to 0.88 of
    the time of 2^10 at rows 2, 3, 4 and 6 of `benchmarks.kernel`, in 0.6 to 1.4 of the memory of a
    scan (0.4 to 0.7 before); 32 steps for 16 are no faster (gradient, float32, NVIDIA H100, jax
    0.11.2, November 2026: `benchmarks/results`). A GRU step has more kernels: 8 steps for 16 are as
    fast and compile in half of the time; LSTM would take 1.07 and 1.12 of it at rows 1 and 2, Elman
    1.16 and 1.05 (NVIDIA H200). A TPU wants the rows of unrolled steps in one
    piece, which costs a GPU next to nothing; of a TPU only compiled programs were counted
    (`benchmarks.accelerators`).

    Args:
        platform: "cpu", or any other.
        T: steps.
        B: sequences.
        I: features of an input; 0 for ids.
        H: features of a state.
        X: blocks of H that the input feeds.
        G: blocks of H that a step has; more than X in a GRU.

    Returns:
        The `Schedule`.
    """
    if platform != "cpu":
        chunk = divisor_near(T, (2**10 if platform == "tpu" else 2**14) // B)
        return Schedule(chunk, chunk, unroll=8 if platform != "tpu" and G > X else 16)
    forward = divisor_near(T, _steps_per_projection(B, I, H, X))
    return Schedule(forward, divisor_near(T, _steps_per_gradient(B, I, H, X)))


def _steps_per_projection(B: int, I: int, H: int, X: int) -> int:
    """On a CPU: as many as give a matmul 512 rows or a product of 2^18 numbers; or one.

    Writing and reading the product of a chunk costs more than its larger matmul gains where a step
    is large enough for a matmul of its own, needs few inputs, and both weights stay in the cache.
    """
    if B >= 16 and B * H >= 2**12 and 2 * I <= H and (I + H) * H * X <= 2**17:
        return 1
    return min(max(512 // B, 2**18 // (B * H * X)), 64 if B == 1 else 128)


def _steps_per_gradient(B: int, I: int, H: int, X: int) -> int:
    """On a CPU: as many as give a matmul 512 rows; fewer for a small cell of several blocks.

    The rows of its buffer [G*H, K, B] are many and short, and a step writes to all of them: 128
    columns take 0.88 of the time of 512 at T = 128, B = 32, I = H = 64 (GRU; LSTM 0.98; AMD EPYC,
    jaxlib 0.10.2). Large weights pay for a chunk by the sums that each one reads and writes.
    """
    columns = 128 if X > 1 and X * H * (I + H) <= 2**16 else 512
    return min(columns // B, 128)


def divisor_near(T: int, wanted: int) -> int:
    """The divisor of T nearest to `wanted`, within a factor of two; if there is none, `wanted`."""
    wanted = min(max(wanted, 1), T)
    near = [k for k in range((wanted + 1) // 2, min(2 * wanted, T) + 1) if T % k == 0]
    return min(near, key=lambda k: max(k / wanted, wanted / k), default=wanted)


# --- loops and buffers ----------------------------------------------------------------------------


def over_time(
    T: int, K: int, body: Callable[[Any, int, Any], Any], state: Any, reverse: bool = False
) -> Any:
    """`state = body(start, K, state)` for every K of T steps, and `body(start, rest, state)`."""
    if K >= T:
        return body(0, T, state)
    whole, rest = divmod(T, K)

    def nth(n: Any, state: Any) -> Any:
        return body((whole - 1 - n if reverse else n) * K, K, state)

    if rest and reverse:
        state = body(whole * K, rest, state)
    state = lax.fori_loop(0, whole, nth, state)
    if rest and not reverse:
        state = body(whole * K, rest, state)
    return state


def read_blocks(projected: jax.Array, k: Any, u: int, H: int) -> Arrays:
    """Rows k, ..., k + u - 1 of [K, B, X*H], block by block.

    XLA:CPU fuses a step with one slice for each block; with slices of a slice an LSTM step at
    [32, 256] takes 70 us instead of 16 (AMD EPYC, jaxlib 0.10.2).
    """
    B, X = projected.shape[1], projected.shape[2] // H
    return tuple(
        lax.dynamic_slice(projected, (k, 0, n * H), (u, B, H), allow_negative_indices=False)
        for n in range(X)
    )


def buffer_like(shape: tuple[int, ...], like: jax.Array) -> jax.Array:
    """A buffer for values of the dtype of `like`, which vary over the mesh as it does."""
    return varying(bits(jnp.zeros(shape, like.dtype)), mesh_axes(like))


def put(buffer: jax.Array, x: jax.Array, start: Any, axis: int = 0) -> jax.Array:
    """The buffer with x from `start` of an axis on, which must not be negative."""
    update = lax.dynamic_update_slice_in_dim
    return update(buffer, bits(x), start, axis, allow_negative_indices=False)


def put_rows(buffers: Any, found: list[Any], start: Any) -> Any:
    """The buffers with one row from each element of `found`, from `start` on."""
    leaves, tree = jax.tree.flatten(buffers)
    rows_of = zip(*map(jax.tree.leaves, found), strict=True)
    return jax.tree.unflatten(
        tree, [put(b, jnp.stack(x), start) for b, x in zip(leaves, rows_of, strict=True)]
    )


def row(tree: Any, j: int) -> Any:
    """Row j of every array; `x[j]` says the same and takes ten times as long to trace."""
    return jax.tree.map(lambda x: lax.index_in_dim(x, j, keepdims=False), tree)
