"""Readout and softmax cross-entropy of many positions, by the native kernel.

    o_t     = h_t w_ho + b_o                                                        (3)
    J_t     = log sum_k exp o_tk - o_t,label                                   (4), (5)
    delta_t = p_t - y_t                          y_t: the label, one-hot
    g_t delta_t = dJ/do_t                        g_t: the cotangent of J_t          (7)
    dhs_t   = g_t delta_t w_ho^T                                                    (8)
    dw_ho   = sum_t h_t^T g_t delta_t            db_o = sum_t g_t delta_t          (10)

Two calls of the library: one has J_t and delta_t, the other the gradients. Each goes through the
positions in chunks that stay in the first caches (native/core/loss.h). The program for every other
platform is the same two functions in JAX; they are also what `vmap` and derivatives of the
gradient use.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrnn import native
from jrnn.arrays import add_bias, are_ids, devices_of_this_process, mesh_axes, varying
from jrnn.loss.softmax import cross_entropy_bwd, cross_entropy_fwd
from jrnn.primitives import bind, jvp_of_program, map_each, primitive
from jrnn.types import ReadoutParams

FEWEST, FEWEST_CLASSES = 128, 4  # positions, and classes
WEIGHTS = 1024  # at most H * O / N: see `why_not`
WORK = 2**18  # N * H * O for each slice: to wake a thread takes as long as less of it


class LossSpec(NamedTuple):
    """The options of a call."""

    precision: str | None  # of the matmuls of a program without native code
    slices: int  # of the positions: a sum depends on it
    keeps: bool  # delta_t
    wants_dhs: bool
    no_native: str | None = None


def why_not(
    precision: str | None, params: ReadoutParams, hs: jax.Array, labels: jax.Array
) -> str | None:
    """The reason why the library does not compute these losses; None if it does.

    It packs w_ho and sums its gradient in scratch of that size. From 128 positions on, with up to
    1024 N numbers of w_ho, XLA takes 0.9 to 2.5 of its time; for 64 positions 0.4 to 2.4, for two
    classes 0.8 to 1.3, in less memory (H = 16 to 1024, O = 2 to 8000, N up to 16384; two cores,
    Intel Xeon, family 6, model 167, November 2026).

    Args:
        precision: of the matmuls.
        params: `w_ho [H, O]`, `b_o [O]` or None.
        hs: `[N, H]`.
        labels: `[N]` ids or `[N, O]`.
    """
    if native.is_off():
        return "the native kernel is turned off"
    if not native.available():
        return native.why_not()
    if jax.default_backend() != "cpu":
        return f"the native kernel is for CPUs, not for {jax.default_backend()}"
    if not are_ids(labels):
        return "the native kernel has losses of ids"
    if hs.dtype != params.w_ho.dtype or hs.dtype not in (jnp.float32, jnp.float64):
        return f"the native kernel has losses of float32 and float64, not of {hs.dtype}"
    if precision is not None and precision.isupper():  # such as BF16_BF16_F32
        return f"the native kernel has no matmul algorithm {precision}"
    if len(hs) < FEWEST or params.w_ho.size > WEIGHTS * len(hs):
        return "XLA is faster for few positions"
    if params.w_ho.shape[1] < FEWEST_CLASSES:
        return "XLA is faster for few classes"
    return None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def losses_of(
    precision: str | None, w_ho: jax.Array, b_o: jax.Array | None, hs: jax.Array, labels: jax.Array
) -> jax.Array:
    """J_t `[N]` of positions that `why_not` allows; the labels are `class_ids`."""
    spec = LossSpec(precision, _slices(hs, w_ho), keeps=False, wants_dhs=False)
    return _bound_losses(spec, w_ho, b_o, hs, labels)[0]


def _losses_of_fwd(precision: str | None, w_ho: Any, b_o: Any, hs: Any, labels: Any) -> Any:
    spec = LossSpec(precision, _slices(hs.value, w_ho.value), keeps=True, wants_dhs=hs.perturbed)
    values = (w_ho.value, None if b_o is None else b_o.value, hs.value)
    with jax.named_scope("readout_and_loss"):
        losses, deltas = _bound_losses(spec, *values, labels.value)
    return losses, (values, deltas, () if hs.perturbed else None)  # a tree says whether it is


def _losses_of_bwd(precision: str | None, residuals: Any, dlosses: jax.Array) -> Any:
    (w_ho, b_o, hs), deltas, wants_dhs = residuals
    spec = LossSpec(precision, _slices(hs, w_ho), keeps=True, wants_dhs=wants_dhs is not None)
    arguments = (w_ho, b_o, hs, deltas, dlosses)
    results = (w_ho, b_o, hs if spec.wants_dhs else None)
    with jax.named_scope("readout_and_loss"):
        return *bind(loss_gradient_p, _gradients, spec, arguments, results), None


losses_of.defvjp(_losses_of_fwd, _losses_of_bwd, symbolic_zeros=True)
loss_p = primitive("readout_loss", map_each, jvp_of_program)
loss_gradient_p = primitive("readout_loss_gradient", map_each, jvp_of_program)


def _bound_losses(spec: LossSpec, *arguments: Any) -> Any:
    return bind(loss_p, _losses, spec, arguments, (0, 0 if spec.keeps else None))


def _slices(hs: jax.Array, w_ho: jax.Array) -> int:
    """One for each core of a device, but no more than the work, and memory, allow.

    Beyond two slices their sums, H * O each, may be as large as the states, N * H.
    """
    (N, H), O = hs.shape, w_ho.shape[1]
    cores = native.cpu_cores() // devices_of_this_process()
    return max(1, min(cores, max(2, N // O), N * H * max(O, 16) // WORK))  # in panels of 16 classes


def _losses(
    platform: str,
    spec: LossSpec,
    w_ho: jax.Array,
    b_o: jax.Array | None,
    hs: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array | None]:
    """J_t `[N]` and, if they are kept, delta_t `[N, O]`."""
    (N, H), O = hs.shape, w_ho.shape[1]
    if platform == "cpu" and spec.no_native is None:
        b = jnp.zeros(0, hs.dtype) if b_o is None else b_o
        shapes = ((N,), (N, O) if spec.keeps else (0,))
        losses, deltas = _call("loss", spec, (N, H, O), shapes, (hs, w_ho, b, labels))
        return losses, deltas if spec.keeps else None
    logits = add_bias(jnp.matmul(hs, w_ho, precision=spec.precision), b_o)
    losses, residuals = cross_entropy_fwd(logits, labels)
    return losses, cross_entropy_bwd(residuals, jnp.ones_like(losses))[0] if spec.keeps else None


def _gradients(
    platform: str,
    spec: LossSpec,
    w_ho: jax.Array,
    b_o: jax.Array | None,
    hs: jax.Array,
    deltas: jax.Array,
    dlosses: jax.Array,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """The gradients of w_ho, of b_o if there is one, and of hs if it is wanted."""
    (N, H), O = hs.shape, w_ho.shape[1]
    if platform == "cpu" and spec.no_native is None:
        shapes = ((N, H) if spec.wants_dhs else (0,), (H, O), (0,) if b_o is None else (O,))
        arguments = (hs, w_ho, deltas, dlosses)
        dh, dw, db = _call("loss_gradient", spec, (N, H, O), shapes, arguments)
        return dw, None if b_o is None else db, dh if spec.wants_dhs else None
    d = dlosses[:, None] * deltas  # (7)
    dw = jnp.matmul(hs.T, d, precision=spec.precision)  # (10)
    dhs = jnp.matmul(d, w_ho.T, precision=spec.precision) if spec.wants_dhs else None  # (8)
    return dw, None if b_o is None else d.sum(0), dhs


def _call(name: str, spec: LossSpec, sizes: Any, shapes: Any, arguments: Any) -> list[jax.Array]:
    """A call of the library; `sizes`: N, H, O."""
    hs = arguments[0]
    library, bits = native.library(), 8 * hs.dtype.itemsize
    nbytes = library.loss_scratch_bytes(
        library.isa, bits, name == "loss_gradient", *sizes, spec.slices
    )
    results = [jax.ShapeDtypeStruct(shape, hs.dtype) for shape in shapes]
    results.append(jax.ShapeDtypeStruct((nbytes,), jnp.uint8))
    options = dict(zip("NHO", sizes, strict=True), slices=spec.slices, bits=bits)
    *found, _ = native.call(name, results, arguments, **options)
    return [varying(x, mesh_axes(hs)) for x in found]
