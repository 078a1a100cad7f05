"""The backend in C++: one call for the whole loop over time (`native/` in the repository).

It computes what `reference.py` defines, for the cells in `CODES`, in float32 or float64. The batch
is cut into slices, one for each core; a slice goes through all steps without waiting for another.
The number of slices is fixed here, so that a result does not depend on the threads that run it.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrnn import native
from jrnn.arrays import are_ids, mesh_axes, varying
from jrnn.cells import UncheckedCell
from jrnn.cells.elman import ActivationName, elman
from jrnn.cells.leaky import leaky_cell, share_and_rate
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

VECTORS, IDS, ADDED = range(3)  # as in native/core/core.h, like all numbers here
WANT_DX, WANT_DALPHA = 1, 2
PHI: dict[ActivationName, int] = {"tanh": 0, "relu": 1, "sigmoid": 2, "identity": 3}


class Code(NamedTuple):
    """A cell as the library knows it."""

    cell: int
    phi: int


CODES: dict[UncheckedCell, Code] = {elman(name): Code(0, n) for name, n in PHI.items()} | {
    leaky_cell(name, "input", learned): Code(1, n)
    for name, n in PHI.items()
    for learned in (False, True)
}


def serves(spec: Spec, dtype: Any) -> bool:
    """Whether the library has the cell, and computes in this dtype."""
    known = spec.cell in CODES and jnp.dtype(dtype) in (jnp.float32, jnp.float64)
    algorithm = spec.precision is not None and spec.precision.isupper()  # such as BF16_BF16_F32
    return known and spec.compute_dtype is None and not algorithm


def number_of_slices(T: int, B: int, rows: int, cores: int) -> int:
    """How many slices a batch is cut into: one for each core, but no more than memory allows.

    Each slice sums its own weight gradients, H for each of the `rows` I + H of the weights. Beyond
    two slices these sums may be as large as the states, T * B * H: 1.4 of the bytes of XLA's loops
    with 10 slices at T, B, I, H = 128, 64, 256, 512, where 16 would need 1.7.
    """
    return max(1, min(cores, B, max(2, T * B // rows)))


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
        call = _Call.of(self.slices, spec, weights, inputs)
        T, B, H = call.sizes["T"], call.sizes["B"], call.sizes["H"]
        states = call.array(T, B, H)
        kept = states if CODES[spec.cell].cell else call.array(0)
        results = (states, kept, call.array(B, H), call.scratch(backward=False))
        with jax.named_scope("rnn_forward"):
            hs, v, last, _ = call.run("forward", results, call.arguments)
        return States((last,), hs, (v,) if CODES[spec.cell].cell else ())

    def backward(
        self, spec: Spec, residuals: Residuals, cotangents: Cotangents, sums: Weights
    ) -> Backward:
        """As `types.Backend`."""
        weights, inputs, hs, kept = residuals
        leaky, constants = bool(CODES[spec.cell].cell), inputs.constants
        learned = "log_tau" in constants.unit
        ids = are_ids(inputs.steps.xs)
        dx = spec.wants_dx and not ids
        call = _Call.of(self.slices, spec, weights, inputs)
        wanted = WANT_DX * dx + WANT_DALPHA * learned
        B, I, H = call.sizes["B"], call.sizes["I"], call.sizes["H"]
        none, per_sequence = call.array(0), call.array(B, H)
        results = (
            none if weights.w_ih is None else call.array(I, H),
            call.array(H, H),
            none if weights.b is None else call.array(H),
            call.array(*inputs.steps.xs.shape) if dx else none,
            per_sequence,
            none if constants.reset_state is None else per_sequence,
            none if constants.recurrent_mask is None else per_sequence,
            per_sequence if learned else none,
            call.scratch(backward=True, wanted=wanted),
        )
        given = (hs, *(kept if leaky else (call.nothing(),)), cotangents.hs, cotangents.last[0])
        clip = -1.0 if spec.clip_delta is None else spec.clip_delta
        with jax.named_scope("rnn_backward"):
            found = call.run(
                "backward", results, (*call.arguments, *given), wanted=wanted, clip_delta=clip
            )
        dw_ih, dw_hh, db, dxs, d_start, d_reset, d_mask, d_alpha, _ = found
        zeros = step.first_carry(constants, cotangents.last).constants
        unit = zeros.unit
        if learned:
            alpha, rate = share_and_rate(constants.unit, {})
            unit = {"log_tau": -rate * (1 - alpha) * d_alpha}
        once = Constants(
            None if constants.reset_state is None else (d_reset,),
            None if constants.recurrent_mask is None else d_mask,
            unit,
            zeros.data,
        )
        dw = Weights(
            None if weights.w_ih is None else dw_ih if ids else dw_ih.T,
            dw_hh.T,
            None if weights.b is None else db,
        )
        sums = jax.tree.map(lambda s, d: s + d.astype(s.dtype), sums, dw)
        if not (dx or ids):
            dxs = jnp.zeros_like(inputs.steps.xs)
        return Backward(BackwardCarry((d_start,), once), sums, None if ids else dxs, {})


class _Call(NamedTuple):
    """The arrays and the sizes of a call."""

    arguments: tuple[jax.Array, ...]
    sizes: dict[str, int]
    dtype: Any
    axes: frozenset[str]  # of a mesh, over which the results vary

    @staticmethod
    def of(slices: int, spec: Spec, weights: Weights, inputs: Inputs) -> "_Call":
        steps, (start,), constants = inputs
        dtype, (B, H) = weights.w_hh.dtype, start.shape
        xs = _in_32_bits(steps.xs) if are_ids(steps.xs) else steps.xs
        kind = IDS if are_ids(xs) else ADDED if weights.w_ih is None else VECTORS
        I = 0 if weights.w_ih is None else weights.w_ih.shape[0]
        code = CODES[spec.cell]
        alpha = share_and_rate(constants.unit, {})[0] if code.cell else None
        lengths = None if steps.valid is None else steps.valid.sum(0, dtype=jnp.int32)
        again = constants.reset_state
        arrays = (
            xs,
            weights.w_ih,
            weights.w_hh,
            weights.b,
            start,
            None if again is None else again[0],
            constants.recurrent_mask,
            alpha,
        )
        none = jnp.zeros(0, dtype)
        given = tuple(none if x is None else x for x in arrays)
        marks = (
            jnp.zeros(0, jnp.int32) if lengths is None else lengths,
            jnp.zeros(0, bool) if steps.reset is None else steps.reset,
        )
        sizes = {"T": len(xs), "B": B, "I": I, "H": H, "slices": min(slices, B)}
        sizes |= {"cell": code.cell, "phi": code.phi, "input": kind}
        return _Call((*given, *marks), sizes, dtype, mesh_axes(start))

    def array(self, *shape: int) -> jax.ShapeDtypeStruct:
        """The type of a result."""
        return jax.ShapeDtypeStruct(shape, self.dtype)

    def nothing(self) -> jax.Array:
        """An argument that is not there."""
        return jnp.zeros(0, self.dtype)

    def _options(self) -> dict[str, int]:
        bits = 64 if self.dtype == jnp.float64 else 32
        return {"isa": native.library().isa, "bits": bits}

    def scratch(self, backward: bool, wanted: int = 0) -> jax.ShapeDtypeStruct:
        """A result that XLA allocates and counts, and that the library works in."""
        isa, bits = self._options().values()
        sizes = tuple(self.sizes.values())
        nbytes = native.library().scratch_bytes(isa, bits, backward, *sizes, wanted)
        return jax.ShapeDtypeStruct((nbytes,), jnp.uint8)

    def run(self, name: str, results: Any, arguments: Any, **options: Any) -> list[jax.Array]:
        """The call; its results vary over the mesh as its arguments do."""
        function: Any = jax.ffi.ffi_call(f"jrnn_native_{name}", results)
        options = {k: np.int64(x) if isinstance(x, int) else x for k, x in options.items()}
        attributes = {k: np.int64(x) for k, x in (self._options() | self.sizes).items()}
        found = function(*arguments, **attributes, **options)
        return [varying(x, self.axes) for x in found]


def _in_32_bits(ids: jax.Array) -> jax.Array:
    """Ids as int32; those that do not fit stay out of range."""
    limits = np.iinfo(ids.dtype)
    if limits.max > np.iinfo(jnp.int32).max:
        ids = jnp.clip(ids, max(limits.min, -1), np.iinfo(jnp.int32).max)
    return ids.astype(jnp.int32)
