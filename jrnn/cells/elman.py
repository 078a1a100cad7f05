"""The Elman cell and its activations.

    h_t     = phi(a_t)                                                              (2)
    delta_t = phi'(h_t) * dh_t                                                      (9)

A backward pass that keeps only the states needs phi' as a function of h = phi(a), not of a:

    tanh      1 - h^2          relu      1 where h > 0, else 0 (so phi'(0) = 0)
    sigmoid   h (1 - h)        identity  1
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jrnn import checks
from jrnn.cells import CellOfActivation, StepCotangents, UncheckedCell
from jrnn.types import RNNParams

ActivationName = Literal["tanh", "relu", "sigmoid", "identity"]
Elementwise = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class UncheckedActivation:
    """An activation whose two functions are known to agree."""

    fn: Elementwise
    derivative_from_output: Elementwise


@dataclass(frozen=True)
class Activation(UncheckedActivation):
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
            hashable, not elementwise, changes the dtype, or reads a traced value.
    """

    def __post_init__(self) -> None:
        checks.activation_derivative(self.fn, self.derivative_from_output)


ACTIVATIONS: dict[str, UncheckedActivation] = {
    "tanh": UncheckedActivation(jnp.tanh, lambda h: 1 - h * h),
    "relu": UncheckedActivation(jax.nn.relu, lambda h: (h > 0).astype(h.dtype)),
    "sigmoid": UncheckedActivation(jax.nn.sigmoid, lambda h: h * (1 - h)),
    "identity": UncheckedActivation(lambda a: a, jnp.ones_like),
}


def elman(activation: ActivationName | Activation) -> UncheckedCell:
    """The Elman cell: (2), and its adjoint (9).

    Args:
        activation: as in `jrnn.rnn`.

    Returns:
        The cell; the same one for the same activation.

    Raises:
        ValueError: an unknown activation.
    """
    phi = find_activation(activation)
    return (_of_users if isinstance(phi, Activation) else _of_package)(phi)


def derivative(activation: ActivationName | Activation) -> Elementwise:
    """phi' as a function of h = phi(a).

    Args:
        activation: as in `jrnn.rnn`.

    Returns:
        The elementwise function.

    Raises:
        ValueError: an unknown activation.
    """
    return find_activation(activation).derivative_from_output


def cell_with(phi: UncheckedActivation) -> type[UncheckedCell]:
    """The class of a cell of the package with this activation.

    Args:
        phi: the activation.

    Returns:
        `UncheckedCell`, or `CellOfActivation`.
    """
    return CellOfActivation if isinstance(phi, Activation) else UncheckedCell


def find_activation(activation: ActivationName | Activation) -> UncheckedActivation:
    """The functions of an activation.

    Args:
        activation: as in `jrnn.rnn`.

    Returns:
        phi and phi'.

    Raises:
        ValueError: an unknown activation.
    """
    checks.activation(activation, Activation, ACTIVATIONS)
    return activation if isinstance(activation, Activation) else ACTIVATIONS[activation]


def _elman(phi: UncheckedActivation) -> UncheckedCell:
    return cell_with(phi)(
        name="elman",
        step=lambda blocks, before, unit, data: (phi.fn(blocks[0]),),
        adjoint=lambda d_after, blocks, before, unit, data, after: StepCotangents(
            (phi.derivative_from_output(after[0]) * d_after[0],)
        ),
        adjoint_reads_blocks=False,
        params=RNNParams,
    )


# jit compiles once for each cell: one activation must be one cell. The native kernel knows those
# of the package, however many others there are.
_of_package, _of_users = functools.cache(_elman), functools.lru_cache(256)(_elman)
