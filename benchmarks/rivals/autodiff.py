"""Plain scans differentiated by JAX, as written without a library.

naive           x_t w_ih and h_{t-1} w_hh inside the loop
hoisted         x_t w_ih + b_h for all t in one matmul before the loop
hoisted x4      the same, four steps in one iteration (`unroll=4`)

"Autodiff" in a table is the best of the three.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.cases import Group, ends
from benchmarks.rivals import Recurrence


def _lstm(x: Any, h: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
    i, f, g, o = jnp.split(x + h, 4, -1)
    c = jax.nn.sigmoid(f) * states[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(x: Any, h: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = jnp.split(x, 3, -1), jnp.split(h, 3, -1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * states[0],)


# The step, from x_t w_ih + b_h, h_{t-1} w_hh and the states before it, of which h is the first; and
# the number of states. Every program is compared with one of them.
CELLS: dict[str, tuple[Callable[..., tuple[Any, ...]], int]] = {
    "rnn": (lambda x, h, states: (jnp.tanh(x + h),), 1),
    "relu": (lambda x, h, states: (jax.nn.relu(x + h),), 1),  # of an Elman network
    "lstm": (_lstm, 2),
    "gru": (_gru, 1),
}


def hoisted(
    params: Any,
    xs: Any,
    h0: Any = None,
    *,
    cell: str = "rnn",
    hoist: bool = True,
    unroll: int = 1,
    mixed: bool = False,
    lengths: Any = None,
    resets: Any = None,
) -> Any:
    """hs of xs [T, ..., I] or of ids [T, ...]; states are kept after the end, and 0 at a reset.

    `mixed`: operands of matmuls, and hs, are bfloat16, as with jrnn's `compute_dtype`.
    """
    matmul: Any = matmul_of_rounded if mixed else jnp.matmul
    cell_step, states = CELLS[cell]

    def project(xs: Any) -> Any:
        ids = jnp.issubdtype(xs.dtype, jnp.integer)
        return (params.w_ih[xs] if ids else matmul(xs, params.w_ih)) + params.b_h

    def step(held: Any, given: Any) -> Any:
        x, *ends_t = given
        before = held
        if ends_t:
            valid, reset = (each[:, None] for each in ends_t)
            before = jax.tree.map(lambda s: jnp.where(reset, 0.0, s), held)
        projected = x if hoist else project(x)
        after = cell_step(projected, matmul(before[0], params.w_hh), before)
        if not ends_t:
            return after, after[0]
        kept = jax.tree.map(lambda a, s: jnp.where(valid, a, s), after, held)
        return kept, jnp.where(valid, kept[0], 0.0)

    inputs = project(xs) if hoist else xs
    first = inputs[0] if hoist else project(xs[0])  # for its shape and mesh axes; XLA removes it
    zeros = jnp.zeros_like(first[..., : len(params.w_hh)])
    start = (zeros if h0 is None else h0, *(zeros,) * (states - 1))
    valid = () if resets is None else (jnp.arange(len(xs))[:, None] < lengths, resets)
    hs = lax.scan(step, start, (inputs, *valid), unroll=unroll)[1]
    # Rounded at the end, because jaxlib 0.10.2 takes time quadratic in T to stack bfloat16.
    return hs.astype(jnp.bfloat16) if mixed else hs


SCANS: dict[str, Callable[..., Any]] = {
    "naive": partial(hoisted, hoist=False),
    "hoisted": hoisted,
    "hoisted x4": partial(hoisted, unroll=4),
}


def scans(cell: str) -> dict[str, Callable[..., Any]]:
    """The three scans of a cell."""
    return {name: partial(scan, cell=cell) for name, scan in SCANS.items()}


def _rounded(a: Any, w: Any) -> Any:
    a, w = a.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    return jnp.matmul(a, w, preferred_element_type=jnp.float32)


def _rounded_bwd(residuals: Any, g: Any) -> Any:
    a, w = residuals
    flat_a, flat_g = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
    return _rounded(g, w.T), _rounded(flat_a.T, flat_g)


# a w in float32 with operands rounded to bfloat16, also in the gradient
matmul_of_rounded = jax.custom_vjp(_rounded)
matmul_of_rounded.defvjp(lambda a, w: (_rounded(a, w), (a, w)), _rounded_bwd)


def recurrences(group: Group) -> list[Recurrence]:
    """The three scans; in bfloat16 they round what jrnn's mixed precision rounds."""
    options: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    if group.route == "ends":
        options, changes = dict(ends(group.case)), {"kind": "ends"}
    elif group.dtype == "bfloat16":
        options, changes = {"mixed": True}, {"dtype": jnp.bfloat16}
    found = scans(group.cell).items()
    return [Recurrence(name, partial(scan, **options), **changes) for name, scan in found]
