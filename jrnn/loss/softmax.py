"""Readout and softmax cross-entropy, with hand-derived gradients.

    o_t = h_t w_ho + b_o                                                            (3)
    p_t = softmax(o_t)                                                              (4)
    J_t = - sum_k y_tk log p_tk                  0 log 0 = 0                        (5)
    J   = sum_t m_t J_t                                                             (6)

    dJ/do_t  = m_t (p_t sum_k y_tk - y_t)                                           (7)
    dhs_t    = dJ/do_t w_ho^T                                                       (8)
    dw_ho    = sum_t h_t^T dJ/do_t               db_o = sum_t dJ/do_t              (10)
    dJ/dy_tk = - m_t log p_tk                    dJ/dm_t = J_t                     (14)

`cross_entropy` and its rule compute (5), (7) and the first equation of (14). The readout (3) is
linear in each of its arguments, and (6) is linear in m_t, so JAX derives their transposes (8), (10)
and the rest of (14). Under `vmap` JAX batches these transposes as well as hand-written matmuls.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import lecun_normal

from jrnn import checks
from jrnn.arrays import (
    ArrayLike,
    Initializer,
    add_bias,
    are_ids,
    at_least_float32,
    draw,
    in_32_bits,
)
from jrnn.types import ReadoutParams


def init_readout(
    key: jax.Array,
    hidden_size: int,
    output_size: int,
    *,
    bias: bool = True,
    w_ho_init: Initializer = lecun_normal(),  # noqa: B008
    dtype: Any = None,
) -> ReadoutParams:
    """Draw the parameters of a readout.

    Args:
        key: a JAX random key.
        hidden_size: H, features of the state.
        output_size: O, classes or vocabulary.
        bias: False for a readout without a bias (`b_o` is None).
        w_ho_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`; the default has
            variance 1/H (LeCun et al., Efficient BackProp, 1998).
        dtype: a floating dtype; None is JAX's default float.

    Returns:
        `ReadoutParams` of `w_ho [H, O]` and `b_o [O]` (zeros) or None.

    Raises:
        ValueError: a size below 1, or a dtype that is not floating.
    """
    checks.key(key)
    checks.sizes(hidden_size=hidden_size, output_size=output_size)
    dtype = checks.floating_dtype(dtype)
    return ReadoutParams(
        w_ho=draw(w_ho_init, key, (hidden_size, output_size), dtype),
        b_o=jnp.zeros((output_size,), dtype) if bias else None,
    )


def assert_states_fit(params: ReadoutParams, hs: jax.Array) -> None:
    """The contract of every readout: states [..., H] in the dtype of w_ho [H, O] and b_o [O]."""
    import chex  # here, to keep `import jrnn` fast

    H, O = params.w_ho.shape
    chex.assert_axis_dimension(hs, -1, H)
    chex.assert_type([hs, *jax.tree.leaves(params)], params.w_ho.dtype)
    if params.b_o is not None:
        chex.assert_shape(params.b_o, (O,))


def assert_labels_fit(logits: tuple[int, ...], labels: jax.Array) -> None:
    """The contract of every loss: ids [...] or floats [..., O] for logits of this shape."""
    import chex  # here, to keep `import jrnn` fast

    chex.assert_shape(labels, logits[:-1] if are_ids(labels) else logits)
    if not are_ids(labels):
        chex.assert_type(labels, float)


@jax.jit
def _readout(params: ReadoutParams, hs: jax.Array) -> jax.Array:
    assert_states_fit(params, hs)
    return add_bias(hs @ params.w_ho, params.b_o)


def readout(params: ReadoutParams, hs: ArrayLike) -> jax.Array:
    """Compute the logits of states by (3): o = h w_ho + b_o. The gradients are (8) and (10).

    Args:
        params: `w_ho [H, O]`, `b_o [O]` or None.
        hs: `[..., H]` states, in the dtype of the parameters or in half precision.

    Returns:
        `[..., O]` logits, in the dtype of the parameters.

    Raises:
        ValueError: a shape or a dtype that does not fit.
    """
    hs = checks.readout_arguments(params, hs)
    return _readout(params, hs)


def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Compute m_t J_t of (5) and (6) for every position; the caller sums or averages them.

    A total cost is `.sum()`, a mean over N positions `.sum() / N`. Gradients are (7) and (14). If a
    weight is 0, the loss and all its gradients are 0, even if the logits or labels there are NaN.
    A logit of -inf has the probability 0 and adds no loss unless a label is that class.

    Args:
        logits: `[..., O]`.
        labels: `[...]` integers, the true classes; or `[..., O]` floats in the dtype of the
            logits: a probability or weight per class, with any sum.
        weights: m, `[...]` or `[]`: None (ones), a bool mask, or floats in the dtype of the logits.

    Returns:
        `[...]` losses in nats, in the dtype of the logits; computed in at least float32.

    Raises:
        ValueError: a shape or a dtype that does not fit, integer labels in the shape of one-hot
            vectors, concrete labels outside [0, O) with a weight other than 0. Traced labels
            outside the range give NaN.
    """
    checks.cross_entropy_arguments(logits, labels, weights)
    return _softmax_cross_entropy(logits, labels, weights)


@jax.jit
def _softmax_cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array | None
) -> jax.Array:
    if weights is None:
        return cross_entropy(logits, labels)
    weights = jnp.broadcast_to(weights, logits.shape[:-1])
    counted, logits, labels = replace_uncounted(weights, logits, labels)
    losses = cross_entropy(logits, labels)
    if weights.dtype == jnp.bool_:
        return jnp.where(counted, losses, 0)
    return jnp.where(counted, weights * losses, 0)  # (6)


def replace_uncounted(
    weights: jax.Array, x: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mask of weights other than 0; x [..., n] and labels, set to 0 elsewhere (0 * NaN is NaN).

    The weights may have further axes, as the losses of a position do, each of which may read all of
    x and labels there: these are replaced if none counts. Labels in the shape of the weights that
    are not finite are those of one loss.
    """
    counted, lead = weights.astype(bool), x.ndim - 1
    somewhere = counted if counted.ndim == lead else counted.any(tuple(range(lead, counted.ndim)))
    x = jnp.where(somewhere[..., None], x, 0)
    labels = jnp.where(somewhere.reshape(somewhere.shape + (1,) * (labels.ndim - lead)), labels, 0)
    if counted.ndim > lead and counted.shape == labels.shape:
        labels = jnp.where(counted | jnp.isfinite(labels), labels, 0)
    return counted, x, labels


class CrossEntropyResiduals(NamedTuple):
    """Residuals of (7) and (14): log p_t = `logits - top - log_sum`, accurate for logits of 1e4."""

    logits: jax.Array  # [..., O]
    labels: jax.Array  # [...] or [..., O]
    top: jax.Array  # [..., 1] the largest logit
    log_sum: jax.Array  # [..., 1] log sum_k exp(o_tk - top)


@jax.custom_vjp
def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """J_t of (5) for every position: logits `[..., O]`, labels `[...]` or `[..., O]` to `[...]`."""
    return cross_entropy_fwd(logits, labels)[0]


def cross_entropy_fwd(
    logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, CrossEntropyResiduals]:
    """The losses, and the residuals of the rule."""
    assert_labels_fit(logits.shape, labels)
    wide = at_least_float32(logits)
    top = lax.stop_gradient(wide.max(-1, keepdims=True))  # log p does not depend on it
    log_sum = jnp.log(jnp.exp(wide - top).sum(-1, keepdims=True))
    log_p = wide - top - log_sum
    if are_ids(labels):
        y = class_ids(labels, log_p.shape[-1])[..., None]
        losses = -jnp.take_along_axis(log_p, y, -1, mode="fill", fill_value=jnp.nan).squeeze(-1)
    else:
        y = at_least_float32(labels)
        losses = -jnp.where(y == 0, 0, y * log_p).sum(-1)  # (5)
    residuals = CrossEntropyResiduals(logits, labels, top, log_sum)
    return losses.astype(logits.dtype), residuals


def cross_entropy_bwd(
    residuals: CrossEntropyResiduals, dlosses: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """The gradients (7) of the logits and (14) of the labels, None for ids."""
    logits, labels, top, log_sum = residuals
    log_p = at_least_float32(logits) - top - log_sum
    p = jnp.exp(log_p)  # (4)
    dlosses = at_least_float32(dlosses)[..., None]
    if are_ids(labels):
        O = p.shape[-1]
        y = class_ids(labels, O)
        one_hot = jnp.where((y < O)[..., None], jax.nn.one_hot(y, O, dtype=p.dtype), jnp.nan)
        return (dlosses * (p - one_hot)).astype(logits.dtype), None  # (7)
    y = at_least_float32(labels)
    dlogits = dlosses * (p * y.sum(-1, keepdims=True) - y)  # (7)
    dlabels = dlosses * -log_p  # (14)
    return dlogits.astype(logits.dtype), dlabels.astype(labels.dtype)


def class_ids(labels: jax.Array, O: int) -> jax.Array:
    """Label ids as int32; ids outside [0, O) become O, which has no class and gives NaN."""
    ids = in_32_bits(labels)
    return jnp.where((ids >= 0) & (ids < O), ids, O)


cross_entropy.defvjp(cross_entropy_fwd, cross_entropy_bwd)
