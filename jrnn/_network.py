"""From the arrays of users to those of the kernel: a network of any cell, checked and run.

Every network of the package and every function over networks calls these. A sequence and a step
hold their own `jax.jit`, so that a second call outside a jitted function compiles nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jrnn import checks, kernel
from jrnn.arrays import ArrayLike, InputsAre, matmul_precision
from jrnn.cells import Arrays, Named, UncheckedCell

# --- checked --------------------------------------------------------------------------------------


def run_checked(
    cell: UncheckedCell,
    params: Any,
    xs: ArrayLike,
    *arrays: Any,
    named: str = "state",
    inputs: InputsAre | None = None,
    **options: Any,
) -> tuple[Any, jax.Array]:
    """`jrnn.unroll`, with the name that messages give to `state`; `arrays` from it to `data`."""
    read: dict[str, Any] = {"reading": inputs, "named": named}
    read["compute_dtype"] = options.get("compute_dtype")
    xs = checks.network_arguments(cell, params, xs, *arrays, **read)
    return run(cell, params, xs, *arrays, **options)


def run(
    cell: UncheckedCell,
    params: Any,
    xs: ArrayLike,
    *arrays: Any,
    reverse: bool = False,
    **options: Any,
) -> tuple[Any, jax.Array]:
    """The same of arrays that have passed the checks; the options, of `spec_of`, are checked."""
    checks.for_the_kernel(xs)
    checks.flag("reverse", reverse)
    spec = spec_of(cell, params, **options)
    return _run(params, xs, *arrays, spec=spec, reverse=bool(reverse))


def step_checked(
    cell: UncheckedCell,
    params: Any,
    state: Any,
    x_t: ArrayLike,
    *,
    named: str = "state",
    inputs: InputsAre | None = None,
) -> Any:
    """One step, differentiated by JAX in forward and reverse mode; `named` as in `run_checked`."""
    x_t = checks.cell_arguments(cell, params, state, x_t, reading=inputs, named=named)
    return step(params, state, x_t, spec=spec_of(cell, params))


def spec_of(
    cell: UncheckedCell,
    params: Any,
    compute_dtype: Any = None,
    clip_delta: float | None = None,
    remat: bool = False,
) -> kernel.Spec:
    """The static part of a call, from the options of `jrnn.unroll`, which are checked."""
    checks.flag("remat", remat)
    return kernel.Spec(
        cell,
        matmul_precision(),
        checks.compute_dtype(compute_dtype, params),
        checks.positive_or_none("clip_delta", clip_delta),
        kernel.Remat() if remat else None,
    )


# --- between the users' arrays and the kernel's ---------------------------------------------------


def run_network(
    spec: kernel.Spec,
    params: Any,
    xs: ArrayLike,
    state: Any = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    reset_state: Any = None,
    recurrent_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    data: Named | None = None,
    **options: Any,
) -> tuple[Any, jax.Array]:
    """`kernel.unroll` of arguments of `jrnn.unroll`, which have passed the checks."""
    weights, unit = weights_of(spec.cell, params)
    start, again = states_of(spec.cell, state), states_of(spec.cell, reset_state)
    given = (start, lengths, resets, again, recurrent_mask, mask, unit, data)
    last, hs = kernel.unroll(spec, weights, xs, *given, **options)
    return state_of(spec.cell, last), hs


_run = jax.jit(
    lambda *arrays, spec, reverse: run_network(spec, *arrays, reverse=reverse),
    static_argnames=("spec", "reverse"),
)


def step_network(
    params: Any, state: Any, x_t: ArrayLike, data: Named | None = None, *, spec: kernel.Spec
) -> Any:
    """`kernel.one_step` of arguments that have passed the checks; `step` is the same compiled."""
    weights, unit = weights_of(spec.cell, params)
    return state_of(
        spec.cell, kernel.one_step(spec, weights, x_t, states_of(spec.cell, state), unit, data)
    )


step = jax.jit(step_network, static_argnames="spec")


def weights_of(cell: UncheckedCell, params: Any) -> tuple[kernel.Weights, Named]:
    """The weights, of which the parts of the bias become one array, and the unit parameters."""
    H, dtype = params.w_hh.shape[0], params.w_hh.dtype
    given = {name: getattr(params, name) for name, _ in checks.bias_parts(cell)}
    if all(b is None for b in given.values()):
        bias = None
    elif len(given) == 1:
        (bias,) = given.values()
    else:
        zeros = {name: jnp.zeros(n * H, dtype) for name, n in checks.bias_parts(cell)}
        bias = jnp.concatenate([zeros[k] if b is None else b for k, b in given.items()])
    weights = kernel.Weights(params.w_ih, params.w_hh, bias)
    return weights, {name: getattr(params, name) for name in cell.unit}


def states_of(cell: UncheckedCell, state: Any) -> tuple[Any, ...]:
    """One array or None for each state, of a state as users give it."""
    if state is None:
        return (None,) * cell.states
    return (state,) if cell.states == 1 and cell.state is None else tuple(state)


def state_of(cell: UncheckedCell, states: Arrays) -> Any:
    """The inverse of `states_of`: a state as users get it."""
    if cell.state is not None:
        return cell.state(*states)
    return states[0] if cell.states == 1 else states


def output_of(cell: UncheckedCell, state: Any) -> jax.Array:
    """h_t of a state."""
    return kernel.output(cell, states_of(cell, state))
