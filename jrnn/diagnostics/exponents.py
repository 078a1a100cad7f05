"""Lyapunov exponents: how fast a small change of the states grows.

Step t multiplies a small change of the states s_{t-1} (h; of an LSTM h and c; of a stack those of
all layers) by the Jacobian with the axes (out, in), J_t = ds_t/ds_{t-1}; for an Elman network
diag(phi'(h_t)) w_hh^T. With Q_t R_t = J_t Q_{t-1} (a QR decomposition), the Lyapunov exponents are

    lambda_i = mean over t of log |R_t,ii|

(Benettin et al., Lyapunov characteristic exponents for smooth dynamical systems, Meccanica 15,
1980; for recurrent networks Engelken, Wolf and Abbott, Lyapunov spectra of chaotic recurrent
neural networks, Physical Review Research 5, 2023). A stack is a map of the states of all its
layers; since no layer reads one above it, its exponents are those of each layer, driven by the
outputs below.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.cells import Named, UncheckedCell
from jrnn.cells.elman import Activation, ActivationName
from jrnn.diagnostics.basics import integer_within, norm, widened
from jrnn.diagnostics.dynamics import (
    Dynamics,
    advance,
    checked_sequence,
    dynamics_of,
    first_states,
    of_every_step,
    size_of_states,
)


def lyapunov_exponents(
    params: Any,
    xs: ArrayLike,
    h0: Any = None,
    data: Named | None = None,
    *,
    n: int | None = None,
    warmup: int = 0,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
    residual: bool = False,
) -> jax.Array:
    """Compute how fast small changes of the states grow or shrink along one sequence.

    The exponents do not depend on the loss. If the largest is below 0, the network forgets its
    past; above 0, it is chaotic. The cost is T QR decompositions of `[N, n]` for N state variables:
    H, of an LSTM 2H, of a stack the sum over its layers.

    Args:
        params: as in `trajectory`; `w_ih` may be None. Half precision is computed in float32.
        xs: `[T, I]` inputs or `[T]` token ids; use `jax.vmap` for several sequences.
        h0: the first states of one sequence, as in `trajectory`.
        data: as in `trajectory`.
        n: the number of exponents, at most N; None: all of them, the spectrum.
        warmup: the number of first steps to exclude from the mean, while the directions converge.
        activation: as in `trajectory`.
        cell: as in `trajectory`.
        residual: as in `trajectory`.

    Returns:
        `[n]`: the leading exponents, natural logarithms per step, the largest first. -inf for a
        direction that a step maps to 0, for example where phi' is 0; NaN if the states overflow.

    Raises:
        ValueError: as `trajectory`; a batch; n outside 1..N; warmup outside 0..T-1.
    """
    dynamics = dynamics_of(params, activation, cell, residual)
    checks.one_sequence(xs)
    xs = checked_sequence(dynamics, params, xs, h0, data)
    size, axis = size_of_states(dynamics, params)
    n = size if n is None else n
    integer_within("n", n, 1, size, f"A state of size {axis} = {size} has {size} exponents.")
    T = xs.shape[0]
    repair = f"Of T = {T} steps one at least is left for the mean."
    integer_within("warmup", warmup, 0, T - 1, repair)
    return _lyapunov_exponents(params, xs, h0, data, int(warmup), dynamics=dynamics, n=int(n))


@partial(jax.jit, static_argnames=("dynamics", "n"))
def _lyapunov_exponents(*arguments: Any, dynamics: Dynamics, n: int) -> jax.Array:
    params, xs, h0, data, warmup = widened(arguments)
    start, unravel = ravel_pytree(first_states(dynamics, params, h0, ()))

    def step(carry: Any, at: Any) -> tuple[Any, Any]:
        before, q = carry

        def after(flat: jax.Array) -> jax.Array:
            return ravel_pytree(advance(dynamics, params, unravel(flat), *at)[0])[0]

        flat, change = jax.linearize(after, before)
        changes = jax.vmap(change, 1, 1)(q)  # J_t Q_{t-1}
        q, r = jnp.linalg.qr(changes)
        left = jnp.abs(jnp.diagonal(r))
        rounding = np.finfo(left.dtype).eps * norm(changes, 0)
        logs = jnp.log(jnp.where(left <= rounding, 0, left))  # a lost direction: -inf
        return (flat, q), (logs, jnp.isfinite(flat).all())

    # Random directions: unit vectors could all stay in an invariant subspace.
    first = jax.random.normal(jax.random.key(0), (start.size, n), start.dtype)
    carry = start, jnp.linalg.qr(first)[0]
    _, (logs, finite) = lax.scan(step, carry, of_every_step(params, xs, data))
    settled = (jnp.arange(len(logs), dtype=jnp.int32) >= warmup)[:, None]
    mean = jnp.mean(logs, 0, where=settled)
    return jnp.where(finite.all(), jnp.sort(mean, descending=True), jnp.nan)
