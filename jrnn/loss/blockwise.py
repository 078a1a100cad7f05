"""Fused readout and softmax cross-entropy, in blocks, without holding all logits.

    o_t = h_t w_ho + b_o                                                            (3)
    p_t = softmax(o_t)                                                              (4)
    J_t = - sum_k y_tk log p_tk                  0 log 0 = 0                        (5)
    J   = sum_t m_t J_t                                                             (6)

    dJ/do_t  = m_t (p_t sum_k y_tk - y_t)                                           (7)
    dhs_t    = dJ/do_t w_ho^T                                                       (8)
    dw_ho    = sum_t h_t^T dJ/do_t               db_o = sum_t dJ/do_t              (10)
    dJ/dy_tk = - m_t log p_tk                    dJ/dm_t = J_t                     (14)

N positions have N*O logits. For a vocabulary of 32,000 they are much larger than everything else in
a training step. Here neither all logits nor all p_t exist at once. There are two kinds of blocks.

*Blocks of positions* (`_sum_by_positions`). A block holds all logits of R positions, so the forward
pass can compute p_t and (7) directly after (3). Any other loss takes the place of (4), (5) and (7):
JAX differentiates it within the block. J is a scalar, so its cotangent dJ is a common
factor of every gradient. The forward rule computes (8), (10) and (14) for dJ = 1 while it has the
logits, and the backward rule multiplies them by dJ:

    dw_ho = dJ sum_blocks sum_{t in block} h_t^T dJ/do_t,       dhs_t = dJ (dJ/do_t w_ho^T)

This takes three matmuls per logit, as many as without blocks. A custom rule may not close over a
traced value. So a loss that reads one, such as a parameter of its own, has a plain loop of blocks
(`_sum_by_checkpoints`), whose backward pass computes the logits again: four matmuls.

*Blocks of classes* (`_losses_by_classes`). A block b holds K logits of every position. A softmax is
the product of a softmax over blocks and a softmax within a block:

    l_tb = log sum_{k in b} exp o_tk             l_t  = log sum_b exp l_tb
    p_tk = exp(l_tb - l_t) exp(o_tk - l_tb)      J_t  = l_t sum_k y_tk - sum_k y_tk o_tk

    dJ_t/dl_tb = exp(l_tb - l_t) sum_k y_tk, so l_tb and o_tk of the block suffice for
    dJ_t/do_tk = dJ_t/dl_tb exp(o_tk - l_tb) - y_tk = p_tk sum_k y_tk - y_tk        (7)

p_tk needs the last block, so the backward pass computes the logits again: four matmuls. The custom
rule, `_block`, starts from the logits of a block; (3) is outside the rule, and JAX derives its
transposes (8) and (10) for each block.

Both kinds are needed. Under `vmap` over sequences with shared parameters, JAX batches a custom rule
first and sums afterwards. A rule that returns dw_ho would compute one [H, O] per sequence, whereas
JAX's transpose (10) of (3) contracts time and batch at once. So a batch [T, B, H] uses blocks of
positions, and [T, H] or [H], which a `vmap` may turn into a batch, uses blocks of classes. K does
not depend on the number of positions, which may be unknown if `jax.export` has a symbolic batch. A
sequence with T >= 8 H uses blocks of positions too: there an [H, O] is at most an eighth of its
logits. Blocks of classes need a softmax. Other losses of one short sequence use no blocks: their
outputs are as large as their targets, which the caller holds.

Few positions need no blocks. Their softmax cross-entropy is computed by the native kernel, where it
runs and is faster (`jrnn/loss/native.py`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.export import is_symbolic_dim

from jrnn import checks
from jrnn.arrays import (
    ArrayLike,
    add_bias,
    are_ids,
    at_least_float32,
    matmul_precision,
    varying_alike,
    wide,
)
from jrnn.loss.native import losses_of
from jrnn.loss.native import why_not as losses_why_not
from jrnn.loss.softmax import (
    assert_labels_fit,
    assert_states_fit,
    class_ids,
    cross_entropy,
    replace_uncounted,
)
from jrnn.types import ReadoutParams

# Each block of positions reads and writes all of dw_ho, so blocks should be large: 512 positions,
# or more if they have at most 2**22 logits (16 MB in float32). Few positions need no blocks.
POSITIONS = 512
LOGITS = 2**22
CLASSES = 2048  # per block of classes
LONG = 8  # a sequence with T >= LONG * H uses blocks of positions

LossFunction = Callable[[jax.Array, jax.Array], jax.Array]  # outputs, labels -> losses


def readout_cross_entropy(
    params: ReadoutParams, hs: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Compute J of (6), the sum of m_t J_t over all positions, without holding all logits.

    It equals `softmax_cross_entropy(readout(params, hs), labels, weights).sum()`, including the
    gradients (7), (8), (10) and (14), but needs a fraction of the memory if there are thousands of
    classes. For a mean over N positions divide by N.

    Positions of weight 0 add nothing to the cost or to any gradient, even if they are NaN.
    `jax.default_matmul_precision` applies to the forward and the backward pass.

    Args:
        params: `w_ho [H, O]`, `b_o [O]` or None.
        hs: `[..., H]` states, in the dtype of the parameters or in half precision. A batch of
            sequences is `[T, B, H]`. `vmap` over `[T, H]` with T < 8 H, or over `[H]`, with shared
            parameters takes a little more time than a batch, but does not compute a gradient of the
            parameters per sequence. `vmap` over others would compute one for each: make them one
            batch.
        labels: `[...]` integers, the true classes; or `[..., O]` floats in the dtype of the
            parameters: a probability or weight per class, with any sum.
        weights: m, `[...]` or `[]`: None (ones), a bool mask, or floats in that dtype.

    Returns:
        `[]` the cost in nats, in float32, or float64 for float64 parameters. Parameters in half
        precision round the operands and the result of a matmul (relative error `2**-8` in bfloat16,
        `2**-11` in float16); all sums are in float32.

    Raises:
        ValueError: a shape or a dtype that does not fit, integer labels in the shape of one-hot
            vectors, concrete labels outside [0, O) with a weight other than 0. Traced labels
            outside the range give NaN.
    """
    hs = checks.readout_cross_entropy_arguments(params, hs, labels, weights)
    return _readout_cross_entropy(matmul_precision(), params, hs, labels, weights)


@partial(jax.jit, static_argnums=0)
def _readout_cross_entropy(
    precision: str | None,
    params: ReadoutParams,
    hs: jax.Array,
    labels: jax.Array,
    weights: jax.Array | None,
) -> jax.Array:
    return cost(precision, cross_entropy, params, hs, labels, weights)


def cost(
    precision: str | None,
    loss: LossFunction,
    params: ReadoutParams,
    hs: jax.Array,
    labels: jax.Array,
    weights: jax.Array | None,
) -> jax.Array:
    """J for any loss, without checks and without jit, for use inside other rules.

    Args:
        precision: precision of the matmuls, as in `jax.default_matmul_precision`.
        loss: `cross_entropy`, or any function of outputs `[N, O]` and labels `[N, ...]`, in at
            least float32, to losses `[N, ...]`. It is static.
        params: `w_ho [H, O]`, `b_o [O]` or None; like the other arguments, JAX or NumPy arrays.
        hs: `[..., H]` states.
        labels: `[...]` ids or `[..., O]` floats; or the targets of another loss.
        weights: `[...]` or `[]`: None, a mask or floats; or in the shape of the losses.

    Returns:
        `[]` the cost.
    """
    H, O = params.w_ho.shape
    assert_states_fit(params, hs)
    lead, classes = hs.shape[:-1], loss is cross_entropy
    if classes:
        assert_labels_fit((*lead, O), labels)
    symbolic = any(map(is_symbolic_dim, lead))
    by_positions = not symbolic and (hs.ndim > 2 or len(hs) >= LONG * H)
    m = None
    if weights is not None:
        weights = jnp.broadcast_to(weights, lead) if weights.ndim == 0 else weights
        counted, hs, labels = replace_uncounted(weights, hs, labels)
        m = jnp.where(counted, weights.astype(hs.dtype), 0)
        m = at_least_float32(m).reshape(-1, *m.shape[len(lead) :])
    hs = hs.reshape(-1, H)
    labels = class_ids(labels, O) if classes and are_ids(labels) else labels
    labels = labels.reshape(-1, *labels.shape[len(lead) :])
    if by_positions and len(hs) > _positions_at_once(O):
        # Wide, as the sums of their gradients: a mean divides these by N before they are rounded.
        sums = jax.tree.map(at_least_float32, tuple(params))
        arguments = varying_alike((*sums, hs, labels, m))
        outputs = jax.ShapeDtypeStruct((len(hs), O), wide(hs.dtype))
        if not classes and _reads_traced(loss, outputs, labels):
            return _sum_by_checkpoints(precision, loss, *arguments)
        return _sum_by_positions(precision, loss, *arguments)
    if classes and by_positions and losses_why_not(precision, params, hs, labels) is None:
        w_ho, b_o, hs, labels, m = varying_alike((*params, hs, labels, m))
        return _weighted_sum(losses_of(precision, w_ho, b_o, hs, labels), m)
    if classes and not by_positions and O > CLASSES:
        return _weighted_sum(_losses_by_classes(precision, params, hs, labels), m)
    logits = add_bias(jnp.matmul(hs, params.w_ho, precision=precision), params.b_o)
    return _sum_of(loss, at_least_float32(logits), labels, m)


def _sum_of(
    loss: LossFunction, logits: jax.Array, labels: jax.Array, m: jax.Array | None
) -> jax.Array:
    """J (6). Where m is 0, a gradient that is not finite is 0, of the logits and of the labels.

    A loss of a user's own may divide by the 0 that `replace_uncounted` has put into the labels.
    """
    if m is not None and loss is not cross_entropy:
        logits, labels = _finite_gradient(logits, m != 0), _finite_gradient(labels, m != 0)
    return _weighted_sum(loss(logits, labels), m)


@jax.custom_vjp
def _finite_gradient(x: jax.Array, counted: jax.Array) -> jax.Array:
    """x [N, ...]. A finite gradient stays: every loss of a position may read all of x there."""
    return x


def _finite_gradient_fwd(x: jax.Array, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _finite_gradient(x, counted), counted  # by the rule, which second derivatives need too


def _finite_gradient_bwd(counted: jax.Array, dx: jax.Array) -> tuple[jax.Array, None]:
    if counted.shape != dx.shape:
        counted = counted.any(tuple(range(1, counted.ndim)))
        counted = counted.reshape(counted.shape + (1,) * (dx.ndim - 1))
    return jnp.where(counted | jnp.isfinite(dx), dx, 0), None


_finite_gradient.defvjp(_finite_gradient_fwd, _finite_gradient_bwd)


def _weighted_sum(losses: jax.Array, m: jax.Array | None) -> jax.Array:
    if m is None:
        return losses.sum()
    m = m.reshape(m.shape + (1,) * (losses.ndim - m.ndim))
    return jnp.where(m == 0, 0, m * losses).sum()  # (6)


def _positions_at_once(O: int) -> int:
    return max(POSITIONS, LOGITS // O)


def _split(n: int, limit: int) -> tuple[int, int, int]:
    """Split n into `count` blocks of equal size, at most `limit`, and a smaller rest."""
    size = -(-n // -(-n // limit))
    return size, n // size, n % size


def _starts(size: int, count: int) -> jax.Array:
    return size * jnp.arange(count, dtype=jnp.int32)


# --- blocks of positions -------------------------------------------------------------------------


class OfArguments(NamedTuple):
    """For each argument its value, whether its gradient is wanted, or its gradient, else None."""

    w_ho: Any  # [H, O] in at least float32, as b_o and m
    b_o: Any  # [O]
    hs: Any  # [N, H]
    labels: Any  # [N, O]
    m: Any  # [N]


def _positions(
    precision: str | None, loss: LossFunction, wanted: OfArguments, arguments: OfArguments
) -> tuple[jax.Array, OfArguments]:
    """J and its `wanted` gradients, in at least float32."""
    w_ho, b_o, hs, labels, m = arguments
    w_ho = w_ho.astype(hs.dtype)
    sum_of = _sum_for_vjp(loss, wanted)

    def add(size: int, start: Any, so_far: tuple[jax.Array, OfArguments]) -> Any:
        def part(x: Any) -> Any:
            return None if x is None else lax.dynamic_slice_in_dim(x, start, size)

        def update_part(x: jax.Array, rows: Any) -> jax.Array:
            return lax.dynamic_update_slice_in_dim(x, rows.astype(x.dtype), start, 0)

        total, grads = so_far
        h, y, m_t = part(hs), part(labels), part(m)
        logits = _wide_matmul(precision, h, w_ho)  # (3)
        logits = logits if b_o is None else logits + b_o[None]
        J, vjp = jax.vjp(sum_of, logits, y, m_t)
        dlogits, dlabels, dm = vjp(jnp.ones_like(J))  # (7), (14)
        total += J
        if wanted.b_o:
            grads = grads._replace(b_o=grads.b_o + dlogits.sum(0))  # (10)
        if wanted.labels:
            grads = grads._replace(labels=update_part(grads.labels, dlabels))  # (14)
        if wanted.m:
            grads = grads._replace(m=update_part(grads.m, dm))  # (14)
        dlogits = dlogits.astype(h.dtype)
        if wanted.hs:
            dh = _wide_matmul(precision, dlogits, w_ho.T)  # (8)
            grads = grads._replace(hs=update_part(grads.hs, dh))
        if wanted.w_ho:
            # The barrier makes a copy: with a transposed factor XLA:CPU uses a slower routine.
            h_transposed = lax.optimization_barrier(h.T)
            dw_ho = _wide_matmul(precision, h_transposed, dlogits)  # (10)
            grads = grads._replace(w_ho=grads.w_ho + dw_ho)
        return total, grads

    size, count, rest = _split(len(hs), _positions_at_once(w_ho.shape[1]))
    zeros = (
        jnp.zeros_like(x, dtype=wide(x.dtype)) if asked else None
        for asked, x in zip(wanted, arguments, strict=True)
    )
    so_far = (at_least_float32(jnp.zeros_like(hs[0, 0])), OfArguments(*zeros))
    starts = _starts(size, count)
    so_far, _ = lax.scan(lambda so_far, start: (add(size, start, so_far), None), so_far, starts)
    return add(rest, size * count, so_far) if rest else so_far


def _sum_for_vjp(loss: LossFunction, wanted: OfArguments) -> Callable[..., jax.Array]:
    """`_sum_of` without the gradients that are not `wanted`: a loss may have no such derivative."""
    asked = any(wanted[:3]), wanted.labels, wanted.m  # w_ho, b_o and hs need that of the logits

    def sum_of(*parts: Any) -> jax.Array:
        held = (x if a else lax.stop_gradient(x) for a, x in zip(asked, parts, strict=True))
        return _sum_of(loss, *held)

    return sum_of


def _wide_matmul(precision: str | None, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=precision, preferred_element_type=wide(a.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_by_positions(precision: str | None, loss: LossFunction, *arguments: Any) -> jax.Array:
    """J as a function of five arguments, in the order of the fields of `OfArguments`."""
    none_wanted = OfArguments(*[False] * 5)
    return _positions(precision, loss, none_wanted, OfArguments(*arguments))[0]


def _sum_by_positions_fwd(
    precision: str | None, loss: LossFunction, *arguments: Any
) -> tuple[jax.Array, OfArguments]:
    wanted = OfArguments(*(x is not None and x.perturbed for x in arguments))
    values = OfArguments(*(None if x is None else x.value for x in arguments))
    with jax.named_scope("readout_and_loss"):
        total, grads = _positions(precision, loss, wanted, values)
    cast = (None if g is None else g.astype(x.dtype) for g, x in zip(grads, values, strict=True))
    return total, OfArguments(*cast)


def _sum_by_positions_bwd(
    precision: str | None, loss: LossFunction, grads: OfArguments, dtotal: jax.Array
) -> Any:
    return tuple(
        None if g is None else (dtotal * at_least_float32(g)).astype(g.dtype) for g in grads
    )


_sum_by_positions.defvjp(_sum_by_positions_fwd, _sum_by_positions_bwd, symbolic_zeros=True)


def _reads_traced(loss: LossFunction, outputs: Any, labels: jax.Array) -> bool:
    """Whether a loss reads a traced value that is not an argument."""
    read = jax.make_jaxpr(loss)(outputs, labels).consts
    return any(isinstance(x, jax.core.Tracer) for x in read)


def _sum_by_checkpoints(
    precision: str | None,
    loss: LossFunction,
    w_ho: jax.Array,
    b_o: jax.Array | None,
    *data: Any,
) -> jax.Array:
    """J as a function of the arguments of `_sum_by_positions`; JAX derives the backward pass."""

    @jax.checkpoint
    def block(w_ho: jax.Array, b_o: Any, h: jax.Array, y: jax.Array, m_t: Any) -> jax.Array:
        logits = _wide_matmul(precision, h, w_ho.astype(h.dtype))
        return _sum_of(loss, logits if b_o is None else logits + b_o[None], y, m_t)

    size, count, rest = _split(len(data[0]), _positions_at_once(w_ho.shape[1]))
    n = size * count
    blocks = jax.tree.map(lambda x: x[:n].reshape(count, size, *x.shape[1:]), data)
    total = lax.map(lambda part: block(w_ho, b_o, *part), blocks).sum()
    return total + block(w_ho, b_o, *jax.tree.map(lambda x: x[n:], data)) if rest else total


# --- blocks of classes ---------------------------------------------------------------------------


def _losses_by_classes(
    precision: str | None, params: ReadoutParams, hs: jax.Array, labels: jax.Array
) -> jax.Array:
    """J_t for every position, [N] in at least float32."""
    O = params.w_ho.shape[1]
    ids, dtype = are_ids(labels), hs.dtype
    wide_hs = at_least_float32(hs)  # JAX then sums (8) over the blocks in float32

    # Keep only l_tb; the backward pass computes the logits again.
    @partial(
        jax.checkpoint,
        prevent_cse=False,
        policy=jax.checkpoint_policies.save_only_these_names("log_sum"),
        static_argnums=0,
    )
    def block(
        size: int, start: Any, params: ReadoutParams, hs: jax.Array, labels: jax.Array
    ) -> Any:
        def part(x: Any) -> Any:
            return None if x is None else lax.dynamic_slice_in_dim(x, start, size, -1)

        w_ho, b_o = part(params.w_ho), part(params.b_o)
        logits = jnp.matmul(hs.astype(dtype), w_ho, precision=precision)
        logits = at_least_float32(add_bias(logits, b_o))  # (3)
        return _block(logits, labels - start if ids else part(labels))

    size, count, rest = _split(O, CLASSES)
    arguments = (params, wide_hs, labels)
    starts = _starts(size, count)
    _, (log_sums, at_labels) = lax.scan(
        lambda _, start: (None, block(size, start, *arguments)), None, starts
    )
    if rest:
        last = block(rest, size * count, *arguments)
        log_sums, at_labels = (
            jnp.concatenate([x, y[None]]) for x, y in zip((log_sums, at_labels), last, strict=True)
        )
    log_sum, at_label = jax.nn.logsumexp(log_sums, 0), at_labels.sum(0)
    if ids:
        return jnp.where(labels < O, 1, jnp.nan).astype(log_sum.dtype) * (log_sum - at_label)
    return at_least_float32(labels).sum(-1) * log_sum - at_label


@jax.custom_vjp
def _block(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """l_tb and the block's part of sum_k y_tk o_tk, [N] each, from [N, K] logits.

    `labels` are floats [N, K], or ids [N] relative to the first class of the block.
    """
    return _block_fwd(logits, labels)[0]


class BlockResiduals(NamedTuple):
    """Residuals of (7) and (14) for a block; `jax.checkpoint` recomputes the logits."""

    logits: jax.Array  # [N, K]
    labels: jax.Array  # [N] or [N, K]
    log_sum: jax.Array  # [N]


def _block_fwd(
    logits: jax.Array, labels: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], BlockResiduals]:
    top = lax.stop_gradient(_finite(logits.max(-1, keepdims=True)))  # l_tb does not depend on it
    log_sum = (top + jnp.log(jnp.exp(logits - top).sum(-1, keepdims=True))).squeeze(-1)
    log_sum = checkpoint_name(log_sum, "log_sum")
    if are_ids(labels):
        inside = (labels >= 0) & (labels < logits.shape[1])
        own = jnp.where(inside, labels, 0)[:, None]
        at_labels = jnp.where(inside, jnp.take_along_axis(logits, own, -1).squeeze(-1), 0)
    else:
        y = at_least_float32(labels)
        at_labels = jnp.where(y == 0, 0, y * logits).sum(-1)
    return (log_sum, at_labels), BlockResiduals(logits, labels, log_sum)


def _block_bwd(
    residuals: BlockResiduals, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array | None]:
    logits, labels, log_sum = residuals
    dlog_sum, dat_labels = (d[:, None] for d in cotangents)  # m_t p(b) sum_k y_tk, and - m_t
    dlogits = dlog_sum * jnp.exp(logits - _finite(log_sum[:, None]))
    if are_ids(labels):
        classes = jnp.arange(logits.shape[1], dtype=labels.dtype)[None]
        return dlogits + jnp.where(labels[:, None] == classes, dat_labels, 0), None  # (7)
    dlogits += dat_labels * at_least_float32(labels)  # (7)
    return dlogits, (dat_labels * logits).astype(labels.dtype)  # (14), without the l_t


_block.defvjp(_block_fwd, _block_bwd)


def _finite(x: jax.Array) -> jax.Array:
    """Replace -inf by 0: a block whose logits are all -inf has no largest logit to subtract."""
    return jnp.where(x == -jnp.inf, 0, x)
