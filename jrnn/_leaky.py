"""Leaky and rate networks as their users see them: parameters, one step, a sequence."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import lecun_normal, orthogonal

from jrnn import checks
from jrnn._network import run, spec_of, step
from jrnn._unroll import init_cell
from jrnn.arrays import ArrayLike, Initializer, InputsAre, broadcast, steps
from jrnn.cells import Named, UncheckedCell
from jrnn.cells import leaky as cells
from jrnn.cells.elman import Activation, ActivationName
from jrnn.cells.leaky import Leak
from jrnn.types import LeakyParams


def init_leaky(
    key: jax.Array,
    input_size: int | None,
    hidden_size: int,
    *,
    alpha: float | ArrayLike | None = None,
    dt_over_tau: float | ArrayLike | None = None,
    learned: bool = False,
    bias: bool = True,
    w_ih_init: Initializer = lecun_normal(),  # noqa: B008
    w_hh_init: Initializer = orthogonal(),  # noqa: B008
    dtype: Any = None,
) -> LeakyParams:
    """Draw the parameters of a leaky network. Give its leak by `alpha` or by `dt_over_tau`.

    Args:
        key: a JAX random key.
        input_size: I, or None, as in `init_rnn`.
        hidden_size: H, features of the state.
        alpha: the share of the new in a step, in (0, 1], a number or `[H]`. Euler's method for a
            time constant tau has alpha = dt / tau; 1 is an Elman network.
        dt_over_tau: a time step in units of tau, above 0, a number or `[H]`: alpha is
            1 - exp(-dt / tau), which is exact for inputs that are constant within a step.
        learned: whether the leak is learned, for each unit: `log_tau` is a parameter then, the
            logarithm of tau / dt, so that alpha stays in (0, 1). An alpha of 1 cannot be learned.
        bias: False leaves `b_h` out (None in its place).
        w_ih_init: as in `init_rnn`.
        w_hh_init: as in `init_rnn`.
        dtype: a floating dtype; None is JAX's default float.

    Returns:
        `LeakyParams` of `w_ih [I, H]` or None, `w_hh [H, H]`, `b_h [H]` or None, and of the leak
        `[H]`: `alpha`, whose gradient is 0, or `log_tau`. A weight decay must leave `alpha` out.

    Raises:
        ValueError: a size below 1, a dtype that is not floating; both or neither of `alpha` and
            `dt_over_tau`, or one outside its range.
    """
    checks.key(key)
    checks.sizes(hidden_size=hidden_size)
    checks.flag("learned", learned)
    share, rate = checks.leak(alpha, dt_over_tau, bool(learned), hidden_size)
    cell = cells.leaky("tanh", "state", learned=bool(learned))
    unit = {"log_tau": -np.log(rate)} if learned else {"alpha": share}
    options: dict[str, Any] = {"bias": bias, "w_ih_init": w_ih_init, "w_hh_init": w_hh_init}
    return init_cell(cell, key, input_size, hidden_size, dtype=dtype, **options, **unit)


def leaky_cell(
    params: LeakyParams,
    state: ArrayLike,
    x_t: ArrayLike,
    dt: ArrayLike | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
    leak: Leak = "state",
    inputs: InputsAre | None = None,
) -> jax.Array:
    """One step of a leaky network, (28) or (29).

    Differentiated by JAX, in forward and reverse mode.

    Args:
        params: as in `leaky`.
        state: `[H]` or `[B, H]`, before the step; `[H]` is shared by a batch.
        x_t: `[I]` or `[B, I]` input, or `[]` or `[B]` token ids; without `w_ih` `[H]`, `[B, H]`.
        dt: None, `[]` or `[B]`, as in `leaky`.
        activation: as in `rnn`.
        leak: as in `leaky`.
        inputs: as in `rnn`.

    Returns:
        The state after the step, `[H]` or `[B, H]`: h_t, or v_t, of which h_t is phi(v_t).

    Raises:
        ValueError: as `leaky`.
    """
    cell, data = _cell(params, activation, leak), None
    batch = dt is not None and np.ndim(dt) > 0
    x_t = checks.cell_arguments(
        cell, params, state, x_t, reading=inputs, of_a_batch=batch, named="state"
    )
    if dt is not None:
        dt = np.asarray(dt, float) if isinstance(dt, (int, float)) else dt
        checks.time_steps(dt, (), steps(x_t))
        cell, data = _cell(params, activation, leak, unequal=True), _data(params, dt, steps(x_t))
    return step(params, state, x_t, data, spec=spec_of(cell, params))


def leaky(
    params: LeakyParams,
    xs: ArrayLike,
    state: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: ArrayLike | None = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    dt: ArrayLike | None = None,
    *,
    activation: ActivationName | Activation = "tanh",
    leak: Leak = "state",
    reverse: bool = False,
    clip_delta: float | None = None,
    compute_dtype: Any = None,
    remat: bool = False,
    inputs: InputsAre | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Run a leaky network over a sequence, or over a batch of sequences.

        a_t = x_t w_ih + h_{t-1} w_hh + b_h                                         (1)
        h_t = (1 - alpha) * h_{t-1} + alpha * phi(a_t)          leak="state"       (28)
        v_t = (1 - alpha) * v_{t-1} + alpha * a_t               leak="input"       (29)
        h_t = phi(v_t)

    (29) is the rate network of neuroscience, of which v is the current and h the rate (Sompolinsky,
    Crisanti and Sommers, Chaos in random neural networks, 1988). The gradient is backpropagation
    through time, derived by hand (`jrnn/cells/leaky.py`). Derivatives and
    `jax.vmap` are as in `rnn`.

    The page on cells shows noise and connections that are missing.

    Args:
        params: `w_ih [I, H]` or None, `w_hh [H, H]`, `b_h [H]` or None, and `alpha [H]` in (0, 1]
            or `log_tau [H]`, of one floating dtype; see `init_leaky`.
        xs: as in `rnn`.
        state: before the first step, h_0 or, with leak="input", v_0: None (zeros), `[H]` or
            `[B, H]`.
        lengths: as in `rnn`.
        resets: as in `rnn`.
        reset_state: as `state`.
        recurrent_mask: as in `rnn`.
        mask: as in `rnn`.
        dt: the length of each step, `[T]` (shared) or `[T, B]`, at least 0, in units of the step
            that `alpha` or `log_tau` is for: alpha_t is 1 - (1 - alpha)^dt_t. It has a gradient.
            None: all are 1.
        activation: as in `rnn`.
        leak: "state" for (28), "input" for (29).
        reverse: as in `rnn`.
        clip_delta: as in `rnn`. The part of 1 - alpha is not clipped.
        compute_dtype: as in `rnn`; the state is not rounded.
        remat: as in `rnn`.
        inputs: as in `rnn`.

    Returns:
        The state after the last step, `[H]` or `[B, H]`: h_T or v_T, and all h_t, `[T, H]` or
        `[T, B, H]`; dtypes as in `rnn`.

    Raises:
        ValueError: what `rnn` refuses; parameters of another network, or with both or neither of
            `alpha` and `log_tau`; a concrete alpha outside (0, 1]; an unknown `leak`.
    """
    cell, data = _cell(params, activation, leak), None
    arrays = (state, lengths, resets, reset_state, recurrent_mask, mask)
    read: dict[str, Any] = {"reading": inputs, "named": "state", "compute_dtype": compute_dtype}
    read["of_a_batch"] = dt is not None and np.ndim(dt) > 1
    xs = checks.network_arguments(cell, params, xs, *arrays, **read)
    if dt is not None:
        lead = steps(xs)
        checks.time_steps(dt, lead[:1], lead[1:])
        cell, data = _cell(params, activation, leak, unequal=True), _data(params, dt, lead)
    options = {"clip_delta": clip_delta, "compute_dtype": compute_dtype, "remat": remat}
    return run(cell, params, xs, *arrays, data, reverse=reverse, **options)


def _cell(params: LeakyParams, activation: Any, leak: Leak, unequal: bool = False) -> UncheckedCell:
    checks.leaky_params(params)
    return cells.leaky(activation, leak, learned=params.log_tau is not None, unequal=unequal)


@partial(jax.jit, static_argnums=2)  # else an eager call takes twice the time
def _data(params: LeakyParams, dt: Any, lead: tuple[int, ...]) -> Named:
    """dt of every step, sequence and unit."""
    dt = jnp.asarray(dt, jnp.result_type(params.w_hh))
    dt = dt.reshape(dt.shape + (1,) * (len(lead) + 1 - dt.ndim))
    return {"dt": broadcast(dt, (*lead, params.w_hh.shape[0]))}
