"""Fixed points and slow points of a network while its input is held constant.

A step of the network is s_t = F(s_{t-1}, x). For a constant x a fixed point is a state with
F(s, x) = s, and a slow point a state at which the network moves little. Both have a small speed

    q(s) = 1/2 |F(s, x) - s|^2

(Sussillo and Barak, Opening the black box: low-dimensional dynamics in high-dimensional recurrent
neural networks, Neural Computation 25, 2013). An optax optimiser descends q from many states. To
find fixed points as exactly as the dtype allows, Levenberg-Marquardt steps follow,

    s <- s - (A^T A + |r|^2 I)^-1 A^T r        r = F(s, x) - s,   A = dF/ds - I

which converge quadratically even where fixed points are not isolated, as on a line attractor
(Yamashita and Fukushima, On the rate of convergence of the Levenberg-Marquardt method, 2001).

Near a fixed point a change of the state is multiplied by the Jacobian dF/ds in every step. An
eigenvalue lambda with |lambda| < 1 is a direction in which the network returns, with
|lambda| > 1 one in which it leaves.
"""

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from jrnn import checks
from jrnn.arrays import ArrayLike
from jrnn.cells import Named, UncheckedCell
from jrnn.cells.elman import Activation, ActivationName
from jrnn.diagnostics.dynamics import Dynamics, advance, dynamics_of, first_states
from jrnn.diagnostics.run import integer_within, widened

if TYPE_CHECKING:
    import optax

EXACT_STEPS = 50  # Levenberg-Marquardt steps, at most
ROUNDING = 100  # times eps: how far a fixed point may move in a step (mean over the units)


class FixedPoints(NamedTuple):
    """The result of `fixed_points`: P points with N state variables each, NumPy arrays.

    The points with the fewest unstable directions come first; among equals, those that the most
    starts reached.
    """

    states: Any  # the points, in the form of the states of the network, each [P, H]
    outputs: np.ndarray  # [P, H] h at each point, of a stack y of its last layer
    speeds: np.ndarray  # [P] q
    jacobians: np.ndarray  # [P, N, N] with the axes (out, in)
    eigenvalues: np.ndarray  # [P, N] complex, of the Jacobians, the largest modulus first
    starts: np.ndarray  # [P] integers, how many starts ended at the point

    @property
    def unstable(self) -> np.ndarray:
        """The number of unstable directions, eigenvalues above 1 in modulus.

        Returns:
            `[P]` integers: 0 for a stable point; for a saddle between two of them usually 1.
        """
        return (np.abs(self.eigenvalues) > 1).sum(-1)


def fixed_points(
    params: Any,
    x_t: ArrayLike | None,
    states: Any,
    data: Named | None = None,
    *,
    starts: int = 256,
    noise: float = 0.0,
    key: jax.Array | None = None,
    speed: float | None = None,
    steps: int = 1000,
    merge: float = 1e-3,
    optimizer: "optax.GradientTransformation | None" = None,
    activation: ActivationName | Activation | None = None,
    cell: UncheckedCell | None = None,
    residual: bool = False,
) -> FixedPoints:
    """Find the fixed points, or the slow points, of a network with a constant input.

    For example, of a trained rate network while a stimulus is held:

        visited = jrnn.diagnostics.trajectory(params, xs, cell=rate_cell)
        points = jrnn.diagnostics.fixed_points(params, x, visited, noise=0.1, cell=rate_cell)
        slow = jrnn.diagnostics.fixed_points(params, x, visited, speed=1e-4, cell=rate_cell)

    No search can prove that it found all points. Starts near the states that the network visits
    find those that matter to it; `noise` finds saddles and points next to these.

    Args:
        params: as in `trajectory`.
        x_t: the input to hold: `[I]`, or a token id `[]`; without `w_ih` what is added to a_t.
        states: where to start: states in the form of the network's (see `trajectory`), with any
            leading axes, such as `[T, B, H]`.
        data: the arrays `[H]` that `cell` names, held as well.
        starts: how many of the states to start from, drawn at random; all of them if they are
            fewer.
        noise: the standard deviation of Gaussian noise that is added to each start.
        key: a JAX random key for the draw and the noise; None: `jax.random.key(0)`.
        speed: None for fixed points, as exact as the dtype allows. A number for slow points: each
            descent stops at the first state whose q is at most this.
        steps: of the optimiser, at most; a start that needs more is left out.
        merge: points of which no state variable differs by more than this are one point.
        optimizer: of optax; None is `optax.lbfgs()`, for each start with its own line search.
        activation: as in `trajectory`.
        cell: as in `trajectory`.
        residual: as in `trajectory`.

    Returns:
        `FixedPoints`, with P = 0 if no start arrives. Half precision is computed in float32. In
        float64 points are accurate to about 1e-15 divided by the smallest |1 - lambda|.

    Raises:
        ValueError: as `trajectory`; no `x_t`, or several steps of it; states of another network,
            or that are not finite; an option outside its range; traced arguments, since the number
            of points depends on values.
    """
    checks.held_input(x_t)
    with jax.default_matmul_precision("highest"):  # an accelerator's default moves fixed points
        dynamics = dynamics_of(params, activation, cell, residual)
    _check(dynamics, params, x_t, states, data)
    integer_within("starts", starts, 1, np.inf, "It is the number of descents.")
    integer_within("steps", steps, 0, np.inf, "Each start takes as many at most.")
    for name, value, meaning in (
        ("noise", noise, "It is a standard deviation."),
        ("merge", merge, "It is a distance between states."),
        ("speed", 0 if speed is None else speed, "None finds fixed points."),
    ):
        checks.not_negative(name, value, meaning)
    optimizer = _lbfgs() if optimizer is None else optimizer
    checks.optimizer(optimizer)
    params, x_t, data, states = widened((params, x_t, data, states))

    first = _starts(states, int(starts), noise, jax.random.key(0) if key is None else key)
    limit = speed if speed is not None else _rounding(first)
    held = params, x_t, data
    reached = _descend(held, first, limit, steps, dynamics=dynamics, optimizer=optimizer)
    if speed is None:
        reached = _to_rounding(held, reached, dynamics=dynamics)
        limit = _rounding(reached)
    return _described(held, *_merged(reached, held, limit, merge, dynamics), dynamics)
