"""Losses of real numbers: squared, absolute, Huber, quantile, Gaussian likelihood.

o is a prediction and y its target, e = y - o:

    squared     e^2                                                                (30)
    absolute    |e|                                                                (31)
    Huber       e^2 / 2 if |e| <= delta, else delta (|e| - delta / 2)              (32)
    quantile    q e if e >= 0, else (q - 1) e                                      (33)
    Gaussian    log s + (e / s)^2 / 2 + log(2 pi) / 2         o is the mean        (34)

(32) is Huber, Robust estimation of a location parameter, 1964; (33), whose least mean is at the
q-quantile of y, Koenker and Bassett, Regression quantiles, 1978; (34), with a readout of the mean
and of log s, Nix and Weigend, Estimating the mean and variance of the target probability
distribution, 1994. (30) and (32) are those of optax. JAX differentiates all of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.arrays import ArrayLike, at_least_float32


@dataclass(frozen=True)
class Loss:
    """A function with options. Two of the same function and options are equal, unlike partials."""

    function: Callable[..., jax.Array]
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *arrays: Any) -> jax.Array:
        """The losses."""
        return self.function(*arrays, **dict(self.options))


def squared_error(
    predictions: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Compute m (y - o)^2 of (30) for every element; the caller sums or averages them.

    A mean over all elements is `.mean()`; over the elements that a mask counts, `.sum() /
    mask.sum()`. If a weight is 0, the loss and all its gradients are 0, even if the target or the
    prediction there is NaN.

    Args:
        predictions: o, `[..., O]` or of any other shape.
        targets: y, in the shape and dtype of the predictions.
        weights: m, `[]`, `[...]` (one for each position) or `[..., O]`: None (ones), a bool mask,
            or floats in the dtype of the predictions.

    Returns:
        Losses in the shape and dtype of the predictions; computed in at least float32.

    Raises:
        ValueError: a shape or a dtype that does not fit.
    """
    checks.regression_arguments(predictions, targets, weights)
    return _losses(Loss(_squared), (predictions,), targets, weights)


def absolute_error(
    predictions: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Compute m |y - o| of (31) for every element; the caller sums or averages them.

    Args:
        predictions: as in `squared_error`.
        targets: as in `squared_error`.
        weights: as in `squared_error`.

    Returns:
        As `squared_error`.

    Raises:
        ValueError: as `squared_error`.
    """
    checks.regression_arguments(predictions, targets, weights)
    return _losses(Loss(_absolute), (predictions,), targets, weights)


def huber_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    delta: float = 1.0,
) -> jax.Array:
    """Compute m times (32) for every element; the caller sums or averages them.

    Args:
        predictions: as in `squared_error`.
        targets: as in `squared_error`.
        weights: as in `squared_error`.
        delta: the error, in units of the target, from which on the loss is linear.

    Returns:
        As `squared_error`.

    Raises:
        ValueError: as `squared_error`; a delta that is not a positive number.
    """
    checks.regression_arguments(predictions, targets, weights)
    checks.number("delta", delta, above=0)
    return _losses(Loss(_huber, (("delta", float(delta)),)), (predictions,), targets, weights)


def quantile_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    quantile: float | Sequence[float],
) -> jax.Array:
    """Compute m times (33) for every element; the caller sums or averages them.

    A readout of several quantiles of one number has one output for each:

        jrnn.quantile_loss(jrnn.readout(readout, hs), ys, quantile=(0.1, 0.5, 0.9))

    Args:
        predictions: as in `squared_error`.
        targets: as in `squared_error`, or `[..., 1]`, which all outputs predict.
        weights: as in `squared_error`.
        quantile: q, between 0 and 1: a number, or one for each of the O outputs.

    Returns:
        As `squared_error`.

    Raises:
        ValueError: as `squared_error`; a quantile outside (0, 1), or another number of them.
    """
    checks.regression_arguments(predictions, targets, weights, shared=True)
    q = checks.quantiles(quantile, predictions)
    return _losses(Loss(_quantile, (("q", q),)), (predictions,), targets, weights)


def gaussian_nll(
    predictions: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Compute m times (34), the negative log-likelihood of a normal distribution, per element.

    A readout of D numbers has 2D outputs: their means, and then the logarithms of their standard
    deviations. So a draw is

        mean, log_std = jnp.split(outputs, 2, -1)
        mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)

    Args:
        predictions: `[..., 2D]`, the means and the logarithms of the standard deviations.
        targets: y, `[..., D]` in the dtype of the predictions.
        weights: m, `[]`, `[...]` or `[..., D]`, as in `squared_error`.

    Returns:
        `[..., D]` losses in nats, in the dtype of the predictions; computed in at least float32.

    Raises:
        ValueError: as `squared_error`; an odd number of outputs.
    """
    checks.regression_arguments(predictions, targets, weights, outputs=2)
    D = predictions.shape[-1] // 2
    mean, log_std = predictions[..., :D], predictions[..., D:]
    return _losses(Loss(_gaussian), (mean, log_std), targets, weights)


@partial(jax.jit, static_argnums=0)
def _losses(
    loss: Loss, parts: tuple[jax.Array, ...], targets: jax.Array, weights: jax.Array | None
) -> jax.Array:
    """The losses of elements: of the parts of a prediction and a target."""
    o, dtype = parts[0], parts[0].dtype
    targets, counted = jnp.broadcast_to(targets, o.shape), None
    if weights is not None:
        weights = weights.reshape(weights.shape + (1,) * (o.ndim - weights.ndim))
        counted = weights.astype(bool)
        # 0 * NaN is NaN
        *parts, targets = (jnp.where(counted, x, 0) for x in (*parts, targets))  # type: ignore[assignment]
    losses = loss(*map(at_least_float32, (*parts, targets)))
    if weights is not None and weights.dtype != jnp.bool_:
        losses = losses * at_least_float32(weights)
    return (losses if counted is None else jnp.where(counted, losses, 0)).astype(dtype)


def _squared(o: jax.Array, y: jax.Array) -> jax.Array:
    import optax  # here, to keep `import jrnn` fast

    return optax.squared_error(o, y)  # (30)


def _absolute(o: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.abs(y - o)  # (31)


def _huber(o: jax.Array, y: jax.Array, *, delta: float) -> jax.Array:
    import optax  # here, to keep `import jrnn` fast

    return optax.huber_loss(o, y, delta=delta)  # (32)


def _quantile(o: jax.Array, y: jax.Array, *, q: tuple[float, ...]) -> jax.Array:
    levels = jnp.asarray(q, o.dtype).reshape((1,) * (o.ndim - 1) + (-1,)) if o.ndim else q[0]
    return jnp.maximum(levels * (y - o), (levels - 1) * (y - o))  # (33)


def _gaussian(mean: jax.Array, log_std: jax.Array, y: jax.Array) -> jax.Array:
    z = (y - mean) * jnp.exp(-log_std)
    return log_std + z * z / 2 + math.log(2 * math.pi) / 2  # (34)
