"""Lyapunov exponents: how fast a small change of the state grows.

Step t multiplies a small change of the state s_{t-1}, which is h, of an LSTM h and c, by the
Jacobian with the axes (out, in), J_t = ds_t/ds_{t-1}; for an Elman network diag(phi'(h_t)) w_hh^T.
With Q_t R_t = J_t Q_{t-1} (a QR decomposition), the Lyapunov exponents are

    lambda_i = mean over t of log |R_t,ii|

(Benettin et al., Lyapunov characteristic exponents for smooth dynamical systems, Meccanica 15,
1980; for recurrent networks Engelken, Wolf and Abbott, Lyapunov spectra of chaotic recurrent
neural networks, Physical Review Research 5, 2023).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jrnn import checks, kernel
from jrnn._unroll import spec_of
from jrnn.arrays import ArrayLike
from jrnn.cells import Named, UncheckedCell
from jrnn.cells.elman import Activation, ActivationName
from jrnn.cells.kinds import cell_of
from jrnn.diagnostics.run import integer_within, norm, run_forward, widened


def lyapunov_exponents(
    rnn_params: Any,
    xs: ArrayLike,
    h0: Any = None,
    data: Named | None = None,
    *,
    n: int,
    warmup: int = 0,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
) -> jax.Array:
    """Compute how fast small changes of the state grow or shrink along one sequence.

    The exponents do not depend on the loss. If the largest is below 0, the state forgets its past;
    above 0, it is chaotic. The cost is T QR decompositions of `[S*H, n]`, for S = 2 states of an
    LSTM and S = 1 otherwise.

    Args:
        rnn_params: as in `gradient_flow`; `w_ih` may be None. Half precision is computed in
            float32.
        xs: `[T, I]` inputs or `[T]` token ids; use `jax.vmap` for several sequences.
        h0: the first state of one sequence, as in `gradient_flow`.
        data: as in `gradient_flow`.
        n: the number of exponents, at most S*H.
        warmup: the number of first steps to exclude from the mean, while the directions converge.
        activation: as in `gradient_flow`.
        cell: as in `gradient_flow`.

    Returns:
        `[n]`: the leading exponents, natural logarithms per step, the largest first (up to noise
        in a short mean). -inf for a direction that a step maps to 0, for example where phi' is 0;
        NaN if the states overflow.

    Raises:
        ValueError: as `jrnn.rnn`; a batch; n outside 1..S*H; warmup outside 0..T-1.
    """
    cell = cell_of(rnn_params, activation, cell)
    checks.one_sequence(xs)
    checks.network_arguments(cell, rnn_params, xs, h0, *(None,) * 5, data)
    T, S = xs.shape[0], cell.states
    size, name = S * rnn_params.w_hh.shape[0], "H" if S == 1 else f"{S}H"
    integer_within("n", n, 1, size, f"A state of size {name} = {size} has {size} exponents.")
    integer_within(
        "warmup", warmup, 0, T - 1, f"Of T = {T} steps one at least is left for the mean."
    )
    spec = spec_of(cell, rnn_params)
    return _lyapunov_exponents(rnn_params, xs, h0, data, int(warmup), spec=spec, n=int(n))


@partial(jax.jit, static_argnames=("spec", "n"))
def _lyapunov_exponents(*arguments: Any, spec: kernel.Spec, n: int) -> jax.Array:
    params, xs, h0, data, warmup = widened(arguments)
    run = run_forward(spec, params, xs, h0, data)

    def step(q: jax.Array, given: Any) -> tuple[jax.Array, jax.Array]:
        at, before = given
        one_step = partial(run.step, run.w_hh, at=at)
        columns = tuple(jnp.split(q, len(before)))  # of the changes of each state
        changed = jax.vmap(lambda d: jax.jvp(one_step, (before,), (d,))[1], 1, 1)(columns)
        changes = jnp.concatenate(changed)  # J_t Q_{t-1}
        q, r = jnp.linalg.qr(changes)
        left = jnp.abs(jnp.diagonal(r))
        rounding = np.finfo(left.dtype).eps * norm(changes, 0)
        return q, jnp.log(jnp.where(left <= rounding, 0, left))  # a lost direction: -inf

    # Random directions: unit vectors could all stay in an invariant subspace.
    size = sum(s.shape[-1] for s in run.before)
    first = jax.random.normal(jax.random.key(0), (size, n), run.w_hh.dtype)
    _, logs = lax.scan(step, jnp.linalg.qr(first)[0], (run.at, run.before))
    settled = (jnp.arange(len(logs), dtype=jnp.int32) >= warmup)[:, None]
    mean = jnp.mean(logs, 0, where=settled)
    finite = jnp.stack([jnp.isfinite(s).all() for s in run.after]).all()
    return jnp.where(finite, mean, jnp.nan)
