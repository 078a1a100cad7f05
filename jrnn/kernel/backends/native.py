"""The backend in C++: one call for the whole loop over time (`native/` in the repository).

It computes what `reference.py` defines, for the cells in `CODES`, in float32 or float64; with
`compute_dtype` bfloat16 on a processor that multiplies it, by vectors (AVX512_BF16) or by tiles
(AMX). With tiles, products of float32 are sums of six products of bfloat16 parts where that is
faster, with less rounding than FMAs (native/core/split.h).

The batch is cut into slices, one for each core; a slice goes through all steps without
waiting for another, except for the halves of one sequence. `dispatch.py` fixes how many there are,
so that a result does not depend on the threads that run it.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrnn import native
from jrnn.arrays import are_ids, in_32_bits, mesh_axes, varying
from jrnn.cells import Arrays, UncheckedCell
from jrnn.cells.elman import ActivationName, elman
from jrnn.cells.gru import GRU
from jrnn.cells.leaky import leaky, share_and_rate
from jrnn.cells.lstm import LSTM
from jrnn.kernel import step
from jrnn.kernel.types import (
    Backward,
    BackwardCarry,
    Constants,
    Cotangents,
    Inputs,
    Residuals,
    Spec,
    States,
    Weights,
)
from jrnn.types import LeakyParams

VECTORS, IDS, ADDED = range(3)  # as in native/core/core.h, like all numbers here
WANT_DX, WANT_DALPHA = 1, 2
PHI: dict[ActivationName, int] = {"tanh": 0, "relu": 1, "sigmoid": 2, "identity": 3}


class Code(NamedTuple):
    """A cell as the library knows it."""

    cell: int
    phi: int = 0
    gates: int = 0  # arrays that its backward pass reads


ELMAN, LEAKY_INPUT, LEAKY_STATE, LSTM_CODE, GRU_CODE = range(5)
CODES: dict[UncheckedCell, Code] = {
    LSTM: Code(LSTM_CODE, gates=4),
    GRU: Code(GRU_CODE, gates=4),
}
for _name, _phi in PHI.items():
    CODES[elman(_name)] = Code(ELMAN, _phi)
    for _learned in (False, True):
        CODES[leaky(_name, "input", _learned)] = Code(LEAKY_INPUT, _phi)
        CODES[leaky(_name, "state", _learned)] = Code(LEAKY_STATE, _phi, gates=1)


def why_not(spec: Spec, dtype: Any) -> str | None:
    """The reason why the library does not compute a cell in a dtype; None if it does."""
    code, dtype, wanted = CODES.get(spec.cell), jnp.dtype(dtype), spec.compute_dtype
    if code is None and spec.cell.params is LeakyParams and "dt" in spec.cell.data:
        return "the native kernel has no leaky network with dt"
    if code is None:
        return "the native kernel has no cell and no activation of a user's own"
    if dtype not in (jnp.float32, jnp.float64):
        return f"the native kernel has parameters of float32 and float64, not of {dtype}"
    if spec.precision is not None and spec.precision.isupper():  # such as BF16_BF16_F32
        return f"the native kernel has no matmul algorithm {spec.precision}"
    if spec.keep_gates and not code.gates:
        return "the native kernel does not read the gates that this program keeps"
    if wanted is not None and (wanted, dtype) != (jnp.bfloat16, jnp.float32):
        return f"the native kernel has no compute_dtype {wanted} for parameters of {dtype}"
    if wanted is not None and not native.library().has_bfloat16:
        return "this processor has no AVX512_BF16"
    return None


def reads_gates(cell: UncheckedCell) -> bool:
    """Whether the backward pass of the library reads the gates of a cell that it has."""
    return CODES[cell].gates > 0


@dataclass(frozen=True)
class Native:
    """Loops in C++, for a batch on a CPU."""

    slices: int

    def __str__(self) -> str:
        """The bits of a result depend on this. `jrnn.explain` and the record of a run show it."""
        isa, plural = native.ISAS[native.library().isa], "s" * (self.slices > 1)
        return f"native, {isa}, {self.slices} slice{plural}"

    def forward(self, spec: Spec, weights: Weights, inputs: Inputs) -> States:
        """As `types.Backend`."""
        call, code = _Call.of(self.slices, spec, weights, inputs), CODES[spec.cell]
        states, last = call.array(*call.steps()), call.array(*inputs.start[0].shape)
        outputs = jax.ShapeDtypeStruct(states.shape, spec.compute_dtype or call.dtype)
        keeps = step.number_kept(spec) > code.gates * spec.keep_gates
        results = (
            outputs,
            states if keeps else call.array(0),
            *(states,) * (code.gates * spec.keep_gates),
            *call.two((last,) * spec.cell.states, call.array(0)),
            call.scratch(backward=False),
        )
        with jax.named_scope("rnn_forward"):
            found = call.run("forward", results, call.arguments, keep_gates=int(spec.keep_gates))
        hs, kept, *gates = found[:-3]
        states_last = found[-3 : -3 + spec.cell.states]
        return States(tuple(states_last), hs, (*((kept,) if keeps else ()), *gates))

    def backward(
        self, spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights
    ) -> Backward:
        """As `types.Backend`."""
        weights, inputs, hs, _ = residuals
        constants, number = inputs.constants, spec.cell.states
        learned = "log_tau" in constants.unit
        ids = are_ids(inputs.steps.xs)
        dx = spec.wants_dx and not ids
        call = _Call.of(self.slices, spec, weights, inputs)
        wanted = WANT_DX * dx + WANT_DALPHA * learned
        none, nothing = call.array(0), call.nothing()
        per_sequence = call.array(*inputs.start[0].shape)
        per_state = call.two((per_sequence,) * number, none)
        results = (
            *(none if w is None else call.array(*w.shape) for w in weights),
            call.array(*inputs.steps.xs.shape) if dx else none,
            *per_state,
            *((none, none) if constants.reset_state is None else per_state),
            none if constants.recurrent_mask is None else per_sequence,
            per_sequence if learned else none,
            call.scratch(backward=True, wanted=wanted),
        )
        d_last = call.two(cotangents.last, nothing)
        given = (hs, *_read(spec, residuals, nothing), cotangents.hs, *d_last)
        clip = -1.0 if spec.clip_delta is None else spec.clip_delta
        with jax.named_scope("rnn_backward"):
            found = call.run(
                "backward", results, (*call.arguments, *given), wanted=wanted, clip_delta=clip
            )
        dw_ih, dw_hh, db, dxs, *rest = found
        d_start, d_reset, (d_mask, d_alpha, _) = rest[:2], rest[2:4], rest[4:]
        zeros = step.first_carry(constants, cotangents.last).constants
        unit = zeros.unit
        if learned:
            alpha, rate = share_and_rate(constants.unit, {})
            unit = {"log_tau": -rate * (1 - alpha) * d_alpha}
        once = Constants(
            None if constants.reset_state is None else tuple(d_reset[:number]),
            None if constants.recurrent_mask is None else d_mask,
            unit,
            zeros.data,
        )
        dw = Weights(
            None if weights.w_ih is None else dw_ih, dw_hh, None if weights.b is None else db
        )
        sums = jax.tree.map(lambda s, d: s + d.astype(s.dtype), sums, dw)
        if not (dx or ids):
            dxs = jnp.zeros_like(inputs.steps.xs)
        carry = BackwardCarry(tuple(d_start[:number]), once)
        return Backward(carry, sums, None if ids else dxs, {})


def _read(spec: Spec, residuals: Residuals, nothing: jax.Array) -> Arrays:
    """The state that is kept next to hs, and the gates: computed again if they were not kept."""
    weights, inputs, _, _ = residuals
    after, gates = step.kept_states(spec, residuals)
    if reads_gates(spec.cell) and not gates:
        T = len(inputs.steps.xs)
        entering = step.states_entering(spec, inputs, after, 0, T)
        gates = step.recomputed_gates(spec, weights, inputs.constants, inputs.steps, entering)
    apart = spec.cell.states > 1 or not step.hs_is_first_state(spec)
    return (after[-1] if apart else nothing, *gates)


class _Call(NamedTuple):
    """The arrays and the sizes of a call."""

    arguments: tuple[jax.Array, ...]
    sizes: dict[str, int]
    dtype: Any
    bits: int  # of the operands of matmuls
    axes: frozenset[str]  # of a mesh, over which the results vary

    @staticmethod
    def of(slices: int, spec: Spec, weights: Weights, inputs: Inputs) -> "_Call":
        steps, start, constants = inputs
        dtype, (B, H) = weights.w_hh.dtype, start[0].shape
        xs = in_32_bits(steps.xs) if are_ids(steps.xs) else steps.xs
        kind = IDS if are_ids(xs) else ADDED if weights.w_ih is None else VECTORS
        I = 0 if weights.w_ih is None else weights.w_ih.shape[0]
        code, none = CODES[spec.cell], jnp.zeros(0, dtype)
        alpha = share_and_rate(constants.unit, {})[0] if spec.cell.unit else None
        lengths = None if steps.valid is None else steps.valid.sum(0, dtype=jnp.int32)
        arrays = (
            xs,
            *weights,
            *_Call.two(start, none),
            *_Call.two(constants.reset_state or (), none),
            constants.recurrent_mask,
            alpha,
        )
        given = tuple(none if x is None else x for x in arrays)
        marks = (
            jnp.zeros(0, jnp.int32) if lengths is None else lengths,
            jnp.zeros(0, bool) if steps.reset is None else steps.reset,
        )
        sizes = {"T": len(xs), "B": B, "I": I, "H": H, "slices": slices}
        sizes |= {"cell": code.cell, "phi": code.phi, "input": kind}
        bits = 8 * (spec.compute_dtype or dtype).itemsize
        return _Call((*given, *marks), sizes, dtype, bits, mesh_axes(start[0]))

    def steps(self) -> tuple[int, int, int]:
        """[T, B, H]."""
        return self.sizes["T"], self.sizes["B"], self.sizes["H"]

    @staticmethod
    def two(states: tuple[Any, ...], none: Any) -> tuple[Any, ...]:
        """The states as the library takes them: two, of which there may be fewer."""
        return (*states, *(none,) * (2 - len(states)))

    def array(self, *shape: int) -> jax.ShapeDtypeStruct:
        """The type of a result."""
        return jax.ShapeDtypeStruct(shape, self.dtype)

    def nothing(self) -> jax.Array:
        """An argument that is not there."""
        return jnp.zeros(0, self.dtype)

    def scratch(self, backward: bool, wanted: int = 0) -> jax.ShapeDtypeStruct:
        """A result that XLA allocates and counts, and that the library works in."""
        library, sizes = native.library(), tuple(self.sizes.values())
        nbytes = library.scratch_bytes(library.isa, self.bits, backward, *sizes, wanted)
        return jax.ShapeDtypeStruct((nbytes,), jnp.uint8)

    def run(self, name: str, results: Any, arguments: Any, **options: Any) -> list[jax.Array]:
        """The call; its results vary over the mesh as its arguments do."""
        found = native.call(name, results, arguments, bits=self.bits, **self.sizes, **options)
        return [varying(x, self.axes) for x in found]
