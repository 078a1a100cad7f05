"""One step in time: the activations, and what the kernel has to know of a cell.

    a_t = x_t w_ih + h_{t-1} w_hh + b_h                                             (1)
    h_t = phi(a_t)                                                                  (2)

A backward pass that keeps only the states needs phi' as a function of h = phi(a), not of a:

    tanh      1 - h^2          relu      1 where h > 0, else 0 (so phi'(0) = 0)
    sigmoid   h (1 - h)        identity  1
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jrnn import checks

ActivationName = Literal["tanh", "relu", "sigmoid", "identity"]
Elementwise = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class _Activation:
    fn: Elementwise
    derivative_from_output: Elementwise


@dataclass(frozen=True)
class Activation(_Activation):
    """An activation phi of the user's own.

    Hashable, as an option of a jitted function must be: two instances are equal if they were made
    from the same two functions, so make it once, outside the training loop.

    Args:
        fn: phi, elementwise: an array to an array of the same shape and dtype.
        derivative_from_output: phi' as a function of h = phi(a), elementwise. A function whose
            derivative its output does not determine (gelu, sin) is no activation here.

    Raises:
        ValueError: `derivative_from_output(fn(a))` is not the derivative that automatic
            differentiation finds, to 1e-6 somewhere on -3 <= a <= 3; or one of the two is not
            hashable, not elementwise, or changes the dtype.
    """

    def __post_init__(self) -> None:
        checks.activation_derivative(self.fn, self.derivative_from_output)


_ACTIVATIONS: dict[str, _Activation] = {
    "tanh": _Activation(jnp.tanh, lambda h: 1 - h * h),
    "relu": _Activation(jax.nn.relu, lambda h: (h > 0).astype(h.dtype)),
    "sigmoid": _Activation(jax.nn.sigmoid, lambda h: h * (1 - h)),
    "identity": _Activation(lambda a: a, jnp.ones_like),
}


class Cell(NamedTuple):
    """What belongs to one kind of cell; the rest of the recurrence is the kernel's (`bptt/`).

    Of a cell the kernel knows that a_t = x_t w_ih + h_{t-1} w_hh + b_h enters it, and these two
    functions, elementwise over `[B, H]` or `[H]`:
    """

    # (a_t, h_tm1) -> h_t
    step: Callable[[jax.Array, jax.Array], jax.Array]
    # (dh_t, h_tm1, h_t) -> delta_t, and what reaches dh_tm1 beside a_t (None: nothing does)
    adjoint: Callable[
        [jax.Array, jax.Array, jax.Array],
        tuple[jax.Array, jax.Array | None],
    ]


def elman(activation: ActivationName | Activation) -> Cell:
    """The Elman cell: equation (2), and its adjoint delta_t = phi'(h_t) dh_t, the front of (9).

    Args:
        activation: as in `jrnn.rnn`.

    Returns:
        The `Cell`; the same one for the same activation.

    Raises:
        ValueError: an unknown activation.
    """
    return _elman(_find(activation))


def derivative(activation: ActivationName | Activation) -> Elementwise:
    """phi' as a function of h = phi(a).

    Args:
        activation: as in `jrnn.rnn`.

    Returns:
        The elementwise function.

    Raises:
        ValueError: an unknown activation.
    """
    return _find(activation).derivative_from_output


def _find(activation: ActivationName | Activation) -> _Activation:
    checks.activation(activation, Activation, _ACTIVATIONS)
    return activation if isinstance(activation, Activation) else _ACTIVATIONS[activation]


@functools.lru_cache(256)  # one activation is one cell, or jit would compile it again
def _elman(phi: _Activation) -> Cell:
    return Cell(
        step=lambda a_t, h_tm1: phi.fn(a_t),
        adjoint=lambda dh_t, h_tm1, h_t: (phi.derivative_from_output(h_t) * dh_t, None),
    )
