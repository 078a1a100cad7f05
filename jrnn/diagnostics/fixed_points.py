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

from collections.abc import Callable
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
from jrnn.diagnostics.basics import integer_within, short, widened
from jrnn.diagnostics.components import flat_states
from jrnn.diagnostics.dynamics import (
    Dynamics,
    advance,
    checked_sequence,
    dynamics_of,
    first_states,
)

if TYPE_CHECKING:
    import optax

EXACT_STEPS = 50  # Levenberg-Marquardt steps, at most
ROUNDING = 30  # times eps: how far a fixed point may move in a step, by rounding


class FixedPoints(NamedTuple):
    """The result of `fixed_points`: P points with N state variables each, NumPy arrays.

    The points with the fewest unstable directions come first; among equals, those that the most
    starts reached.

    Attributes:
        states: the points, in the form of the states of the network, each `[P, H]`.
        outputs: `[P, H]` h at each point, of a stack y of its last layer.
        speeds: `[P]` q.
        jacobians: `[P, N, N]` with the axes (out, in).
        eigenvalues: `[P, N]` complex, of the Jacobians, the largest modulus first.
        starts: `[P]` integers, how many starts ended at the point.
    """

    states: Any
    outputs: np.ndarray
    speeds: np.ndarray
    jacobians: np.ndarray
    eigenvalues: np.ndarray
    starts: np.ndarray

    def __repr__(self) -> str:
        """One line."""
        return short(self)

    @property
    def unstable(self) -> np.ndarray:
        """The number of unstable directions: eigenvalues above 1 in modulus, by more than rounding.

        Returns:
            `[P]` integers: 0 for a stable point; for a saddle between two of them usually 1.
        """
        moduli, most = np.abs(self.eigenvalues), np.finfo(self.jacobians.dtype).eps ** 0.5
        counts = (moduli > 1 + most).sum(-1)
        for p in np.flatnonzero(((moduli > 1) & (moduli <= 1 + most)).any(-1)):
            counts[p] = _count_unstable(self.jacobians[p])
        return counts


def fixed_points(
    params: Any,
    x_t: ArrayLike | None,
    states: Any,
    data: Named | None = None,
    *,
    mask: ArrayLike | None = None,
    starts: int = 256,
    noise: float = 0.0,
    key: jax.Array | None = None,
    speed: float | None = None,
    steps: int = 200,
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
        x_t: the input to hold: `[I]`, or a token id `[]`; without `w_ih` the vector that is added
            to a_t.
        states: where to start: states in the form of the network's (see `trajectory`), with any
            leading axes, such as `[T, B, H]`.
        data: the arrays `[H]` that `cell` names, held as well.
        mask: of the states, as in `principal_components`: where to start.
        starts: how many of the states to start from, drawn at random; all of them if they are
            fewer.
        noise: the standard deviation of Gaussian noise that is added to each start.
        key: a JAX random key for the draw and the noise; None: `jax.random.key(0)`.
        speed: None for fixed points, as exact as the dtype allows. A number for slow points: each
            descent stops at the first state whose q is at most this.
        steps: of the optimiser, at most. A start that has not arrived then (for fixed points, after
            the Levenberg-Marquardt steps that follow) is left out.
        merge: points of which no state variable differs by more than this are one point.
        optimizer: of optax; None is `optax.lbfgs()`, for each start with its own line search.
        activation: as in `trajectory`.
        cell: as in `trajectory`.
        residual: as in `trajectory`.

    Returns:
        `FixedPoints`, with P = 0 if no start arrives. Half precision is computed in float32. In
        float64 points are accurate to about 1e-15 divided by the smallest |1 - lambda|, in float32
        to 1e-6 divided by it.

    Raises:
        ValueError: as `trajectory`; no `x_t`, or several steps of it; states of another network,
            or that are not finite; an option outside its range; traced arguments, since the number
            of points depends on values.
    """
    checks.held_input(x_t)
    with jax.default_matmul_precision("highest"):  # an accelerator's default moves fixed points
        dynamics = dynamics_of(params, activation, cell, residual)
    checks.values("params, x_t, states, data, mask", (params, x_t, states, data, mask))
    states = states if mask is None else _counted(states, mask)
    _check_arrays(dynamics, params, x_t, states, data)
    integer_within("starts", starts, 1, np.inf, "It is the number of descents.")
    integer_within("steps", steps, 0, np.inf, "Each start takes as many at most.")
    checks.not_negative("noise", noise, "It is a standard deviation.")
    checks.not_negative("merge", merge, "It is a distance between states.")
    checks.not_negative("speed", 0 if speed is None else speed, "None finds fixed points.")
    key = jax.random.key(0) if key is None else key
    checks.key(key)
    optimizer = _lbfgs() if optimizer is None else optimizer
    checks.optimizer(optimizer)
    held, states = widened(((params, x_t, data), states))
    first = _starts(states, int(starts), float(noise), key)
    limit = None if speed is None else jnp.asarray(speed, first.dtype)
    # The optimisers of optax mix dtypes and ranks.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        most = min(int(steps), np.iinfo(np.int32).max)  # of the counter of the loop
        found = _search(held, first, limit, most, dynamics=dynamics, optimizer=optimizer)
    ends, speeds, arrived = jax.device_get(found)
    points, counts = _distinct(ends, speeds, arrived, merge)
    return _described(held, points, counts, dynamics, merge if speed is None else None)


def _check_arrays(dynamics: Dynamics, params: Any, x_t: Any, states: Any, data: Any) -> None:
    cells = [spec.cell for spec in dynamics.specs]
    if not dynamics.stacked:
        checks.cell_arguments(cells[0], params, None, x_t, data)
        checks.start_states("states", states, cells[0], params)
        return
    checks.no_data_of_a_stack(data)
    networks = [layer.forward for layer in params.layers]
    checks.cell_arguments(cells[0], networks[0], None, x_t)
    checked_sequence(dynamics, params, jnp.asarray(x_t)[None], None, None)
    checks.states_of_layers(states, cells, networks)


# --- the search ----------------------------------------------------------------------------------


class Map(NamedTuple):
    """F as a function of one vector of all state variables.

    Attributes:
        step: s `[N]` -> F(s) `[N]`, output `[H]`.
        unravel: s `[N]` -> the states.
    """

    step: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    unravel: Callable[[jax.Array], Any]

    def residual(self, s: jax.Array) -> jax.Array:
        """`[N]`: F(s) - s."""
        return self.step(s)[0] - s

    def speed(self, s: jax.Array) -> jax.Array:
        """`[]`: q."""
        return jnp.square(self.residual(s)).sum() / 2


def _map(held: Any, dynamics: Dynamics) -> Map:
    params, x_t, data = held
    _, unravel = ravel_pytree(first_states(dynamics, params, None, ()))

    def step(s: jax.Array) -> tuple[jax.Array, jax.Array]:
        after, output = advance(dynamics, params, unravel(s), jnp.asarray(x_t), data)
        return ravel_pytree(after)[0], output

    return Map(step, unravel)


def _counted(states: Any, mask: Any) -> Any:
    """The states that count, each `[S, H]`."""
    checks.states_alike(states, mask)
    return jax.tree.map(lambda x: x[np.asarray(mask)], states)


def _starts(states: Any, count: int, noise: float, key: jax.Array) -> jax.Array:
    """`[K, N]`."""
    flat = flat_states(states)
    first = flat.reshape(-1, flat.shape[-1])
    key_draw, key_noise = jax.random.split(key)
    if count < len(first):
        first = jax.random.choice(key_draw, first, (count,), replace=False)
    return first + noise * jax.random.normal(key_noise, first.shape, first.dtype)


@partial(jax.jit, static_argnames=("dynamics", "optimizer"))
def _search(
    held: Any,
    first: jax.Array,
    speed: jax.Array | None,
    steps: int,
    *,
    dynamics: Dynamics,
    optimizer: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The end of each descent `[K, N]`, q there `[K]`, and whether it arrived `[K]`."""
    import optax

    F, eps = _map(held, dynamics), float(np.finfo(first.dtype).eps)
    optimizer = optax.with_extra_args_support(optimizer)  # those of a line search

    def limit(s: jax.Array, share: float) -> jax.Array:
        if speed is not None:
            return speed
        move = share * (1 + jnp.abs(s).max())  # of each variable
        return s.size / 2 * jnp.square(move)

    near = partial(limit, share=eps**0.5)
    ends = jax.vmap(partial(_descend, F, optimizer, steps, near))(first)
    if speed is None:
        ends = lax.map(partial(_refine, F), ends)  # one Jacobian at a time
    speeds = jax.vmap(F.speed)(ends)
    return ends, speeds, speeds <= jax.vmap(partial(limit, share=ROUNDING * eps))(ends)


def _descend(
    F: Map, optimizer: Any, steps: int, limit: Callable[[jax.Array], jax.Array], start: jax.Array
) -> jax.Array:
    def goes(carry: Any) -> jax.Array:
        s, q, _, n = carry
        return (q > limit(s)) & (n < steps)

    def step(carry: Any) -> Any:
        s, _, state, n = carry
        q, slope = jax.value_and_grad(F.speed)(s)
        given = {"value": q, "grad": slope, "value_fn": F.speed}
        change, state = optimizer.update(slope, state, s, **given)
        return s + change, F.speed(s + change), state, n + 1

    carry = start, F.speed(start), optimizer.init(start), 0
    return lax.while_loop(goes, step, carry)[0]


def _refine(F: Map, start: jax.Array) -> jax.Array:
    """Levenberg-Marquardt steps until one lowers the speed by less than a tenth."""
    one = jnp.eye(start.size, dtype=start.dtype)

    def goes(carry: Any) -> jax.Array:
        _, _, goes_on, n = carry
        return goes_on & (n < EXACT_STEPS)

    def step(carry: Any) -> Any:
        s, q, _, n = carry
        r, A = F.residual(s), jax.jacfwd(F.residual)(s)
        # The least squares of A d = r and |r| d = 0, whose normal equations are those above.
        Q, R = jnp.linalg.qr(jnp.concatenate([A, jnp.sqrt(2 * q) * one]))
        after = s - jax.scipy.linalg.solve_triangular(R, Q[: s.size].T @ r)
        q_after = F.speed(after)  # NaN where R is singular
        lower = q_after < q
        return jnp.where(lower, after, s), jnp.where(lower, q_after, q), q_after < 0.9 * q, n + 1

    return lax.while_loop(goes, step, (start, F.speed(start), jnp.asarray(True), 0))[0]


@lru_cache(1)  # jit compiles once for each optimiser
def _lbfgs() -> Any:
    import optax

    return optax.lbfgs()


# --- the points ----------------------------------------------------------------------------------


def _distinct(
    ends: np.ndarray, speeds: np.ndarray, arrived: np.ndarray, merge: float
) -> tuple[np.ndarray, np.ndarray]:
    """The different points `[P, N]`, of those that are merged the slowest; their starts `[P]`."""
    ordered = ends[arrived][np.argsort(speeds[arrived])]
    points, counts = ordered[:0], np.zeros(0, np.int64)
    for end in ordered:
        same = np.abs(points - end).max(-1, initial=0) <= merge
        if same.any():
            counts[int(same.argmax())] += 1
        else:
            points, counts = np.concatenate([points, end[None]]), np.append(counts, 1)
    return points, counts


def _described(
    held: Any, points: np.ndarray, counts: np.ndarray, dynamics: Dynamics, merge: float | None
) -> FixedPoints:
    """The points that have a fixed point within `merge`; None: all."""
    unravelled, *found = jax.device_get(_at_points(held, points, dynamics=dynamics))
    outputs, residuals, jacobians = found
    speeds = np.square(residuals).sum(-1) / 2
    eigenvalues = np.linalg.eigvals(jacobians.astype(np.float64)).astype(np.complex128)
    eigenvalues = np.take_along_axis(eigenvalues, np.argsort(-np.abs(eigenvalues), -1), -1)
    result = FixedPoints(unravelled, outputs, speeds, jacobians, eigenvalues, counts)
    order = np.lexsort((-counts, result.unstable))
    if merge is not None:
        order = order[_are_fixed(points, residuals, jacobians, merge)[order]]
    return jax.tree.map(lambda x: x[order], result)


def _count_unstable(jacobian: np.ndarray) -> int:
    """The eigenvalues of `[N, N]` above 1 in modulus, by more than rounding of its entries.

    A change E of the matrix moves an eigenvalue by at most |E| times its condition number, the
    product of the norms of its left and right eigenvectors; one that is defective by sqrt(|E|).
    """
    eps, J = float(np.finfo(jacobian.dtype).eps), jacobian.astype(np.float64)
    eigenvalues, right = np.linalg.eig(J)
    try:
        sensitive = np.linalg.norm(right, axis=0) * np.linalg.norm(np.linalg.inv(right), axis=1)
    except np.linalg.LinAlgError:  # exactly defective
        sensitive = np.full(len(J), np.inf)
    rounding = np.minimum(eps**0.5, ROUNDING * eps * np.linalg.norm(J) * sensitive)
    return int((np.abs(eigenvalues) > 1 + rounding).sum())


def _are_fixed(
    points: np.ndarray, residuals: np.ndarray, jacobians: np.ndarray, merge: float
) -> np.ndarray:
    """Which points `[P]` are fixed, or have a fixed point within `merge` by Newton's method.

    Where a network nearly stands still and has no fixed point, the residual r may be as small as
    rounding in each variable, but it adds up along one direction. So it is judged along the
    singular directions of A = U S V^T: (U^T r)_i is rounding, or a step of (U^T r)_i / S_i short.
    """
    U, S, _ = np.linalg.svd(jacobians.astype(np.float64) - np.eye(points.shape[-1]))
    along = np.abs(np.einsum("pji,pj->pi", U, residuals.astype(np.float64)))
    size = 1 + np.abs(points).max(-1, initial=0, keepdims=True)
    rounding = ROUNDING * np.finfo(jacobians.dtype).eps * size
    return (along <= np.maximum(rounding, merge * S)).all(-1)


@partial(jax.jit, static_argnames="dynamics")
def _at_points(held: Any, points: jax.Array, *, dynamics: Dynamics) -> Any:
    """The states, outputs, residuals and Jacobians."""
    F = _map(held, dynamics)

    def at(s: jax.Array) -> Any:
        return F.unravel(s), F.step(s)[1], F.residual(s), jax.jacfwd(lambda s: F.step(s)[0])(s)

    return lax.map(at, points)
