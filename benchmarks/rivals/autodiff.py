"""Plain scans differentiated by JAX, as written without a library.

naive           x_t w_ih and h_{t-1} w_hh inside the loop
hoisted         x_t w_ih + b_h for all t in one matmul before the loop
hoisted x4      the same, four steps in one iteration (`unroll=4`)

"Autodiff" in a claim is the best of the three.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import jrnn
from benchmarks.cases import Case, Ends, ends
from benchmarks.rivals import CharacterModel, Recurrence

Matmul = Callable[[Any, Any], Any]


class Cell(NamedTuple):
    """A recurrence, as a step from x_t w_ih + b_h, h_{t-1} w_hh and the states before it."""

    step: Callable[[Any, Any, tuple[Any, ...]], tuple[Any, ...]]
    states: int = 1  # the first is h


def elman(phi: Callable[[Any], Any]) -> Cell:
    """h = phi(x + h)."""
    return Cell(lambda x, h, states: (phi(x + h),))


def _lstm(x: Any, h: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
    i, f, g, o = jnp.split(x + h, 4, -1)
    c = jax.nn.sigmoid(f) * states[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(x: Any, h: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = jnp.split(x, 3, -1), jnp.split(h, 3, -1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * states[0],)


TANH = elman(jnp.tanh)
# The recurrences by cell and activation; every program of a cell is compared with one of them.
CELLS: dict[str, dict[str, Cell]] = {
    "rnn": {"tanh": TANH, "relu": elman(jax.nn.relu)},
    "lstm": {"tanh": Cell(_lstm, states=2)},
    "gru": {"tanh": Cell(_gru)},
}


def naive(
    params: Any, xs: Any, h0: Any = None, *, cell: Cell = TANH, matmul: Matmul = jnp.matmul
) -> Any:
    """hs of xs [T, ..., I] or of ids [T, ...]."""

    def step(states: Any, x: Any) -> Any:
        projected = _project(params, x, matmul)
        states = cell.step(projected, matmul(states[0], params.w_hh), states)
        return states, states[0]

    first = _project(params, xs[0], matmul)  # for its shape and mesh axes; XLA removes it
    return lax.scan(step, _start(cell, params, first, h0), xs)[1]


def hoisted(
    params: Any,
    xs: Any,
    h0: Any = None,
    *,
    cell: Cell = TANH,
    unroll: int = 1,
    matmul: Matmul = jnp.matmul,
) -> Any:
    """The same, with the inputs projected before the loop."""

    def step(states: Any, projected: Any) -> Any:
        states = cell.step(projected, matmul(states[0], params.w_hh), states)
        return states, states[0]

    projected = _project(params, xs, matmul)
    return lax.scan(step, _start(cell, params, projected[0], h0), projected, unroll=unroll)[1]


def _start(cell: Cell, params: Any, projected: Any, h0: Any = None) -> tuple[Any, ...]:
    """The states before the first step, of the mesh axes of the projection."""
    zeros = jnp.zeros_like(projected[..., : len(params.w_hh)])
    return (zeros if h0 is None else h0, *(zeros,) * (cell.states - 1))


def masked(
    given: Ends,
    params: Any,
    xs: Any,
    *,
    cell: Cell = TANH,
    hoist: bool = True,
    unroll: int = 1,
) -> Any:
    """hs with lengths and resets: the states are kept after the end, and 0 at a reset."""

    def step(held: Any, given_t: Any) -> Any:
        x, valid, reset = given_t
        before = jax.tree.map(lambda s: jnp.where(reset[:, None], 0.0, s), held)
        projected = x if hoist else _project(params, x, jnp.matmul)
        after = cell.step(projected, before[0] @ params.w_hh, before)
        states = jax.tree.map(lambda a, s: jnp.where(valid[:, None], a, s), after, held)
        return states, jnp.where(valid[:, None], states[0], 0.0)

    valid = jnp.arange(len(xs))[:, None] < given.lengths
    inputs = _project(params, xs, jnp.matmul) if hoist else xs
    start = (jnp.zeros((xs.shape[1], len(params.w_hh)), xs.dtype),) * cell.states
    return lax.scan(step, start, (inputs, valid, given.resets), unroll=unroll)[1]


def _project(params: Any, xs: Any, matmul: Matmul) -> Any:
    if jnp.issubdtype(xs.dtype, jnp.integer):
        return params.w_ih[xs] + params.b_h
    return matmul(xs, params.w_ih) + params.b_h


SCANS: dict[str, Callable[..., Any]] = {
    "naive": naive,
    "hoisted": hoisted,
    "hoisted x4": partial(hoisted, unroll=4),
}


def scans(cell: str) -> dict[str, Callable[..., Any]]:
    """The three scans of a cell."""
    return {name: partial(scan, cell=CELLS[cell]["tanh"]) for name, scan in SCANS.items()}


def recurrences(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """The three scans in float32."""
    return [Recurrence(name, scan) for name, scan in scans(cell).items()]


def recurrences_with_ends(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """The three scans, masked."""
    scan = partial(masked, ends(case), cell=CELLS[cell]["tanh"])
    three = [partial(scan, hoist=False), scan, partial(scan, unroll=4)]
    return [Recurrence(n, f, ends=True) for n, f in zip(SCANS, three, strict=True)]


@jax.custom_vjp
def matmul_of_rounded(a: Any, w: Any) -> Any:
    """a w in float32 with operands rounded to bfloat16, also in the gradient."""
    return _rounded(a, w)


def _rounded(a: Any, w: Any) -> Any:
    a, w = a.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    return jnp.matmul(a, w, preferred_element_type=jnp.float32)


def _matmul_fwd(a: Any, w: Any) -> Any:
    return _rounded(a, w), (a, w)


def _matmul_bwd(residuals: Any, g: Any) -> Any:
    a, w = residuals
    flat_a, flat_g = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
    return _rounded(g, w.T), _rounded(flat_a.T, flat_g)


matmul_of_rounded.defvjp(_matmul_fwd, _matmul_bwd)


def recurrences_bfloat16(case: Case, cell: str = "rnn") -> list[Recurrence]:
    """Scans all in bfloat16, and with jrnn's mixed precision: only operands in bfloat16."""
    found = []
    for name, scan in scans(cell).items():
        half = Recurrence(f"{name} bfloat16", scan)
        found.append(half._replace(input_dtype=jnp.bfloat16, state_dtype=jnp.bfloat16))
    for name, scan in scans(cell).items():
        # Rounded at the end, because jaxlib 0.10.2 takes time quadratic in T to stack bfloat16.
        states = partial(_mixed, partial(scan, matmul=matmul_of_rounded))
        found.append(Recurrence(f"{name} mixed", states, state_dtype=jnp.bfloat16))
    return found


def _mixed(scan: Any, params: Any, xs: Any) -> Any:
    return scan(params, xs).astype(jnp.bfloat16)


def character_models(model: Any) -> dict[str, CharacterModel]:
    """The three scans with a readout; ids are looked up."""

    def logits(scan: Any, own: Any, ids: Any, h0: Any) -> Any:
        rnn, readout = own
        hs = scan(rnn, ids, h0)
        return hs @ readout.w_ho + readout.b_o, hs[-1]

    own = (jrnn.RNNParams(*model.rnn), jrnn.ReadoutParams(*model.readout))
    return {
        name: CharacterModel(own, partial(logits, scan), lambda own: own)
        for name, scan in SCANS.items()
    }
