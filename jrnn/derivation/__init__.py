"""The gradient of a recurrent network in every form in which the sources derive it.

Every form gives the same numbers as `jax.grad` through `jrnn.rnn`; `docs/derivation.md` explains
them in order. The functions take one sequence (use `jax.vmap` for a batch) and return `Gradients`.
"""

from jrnn.derivation.decompositions import deltas_by_loss as deltas_by_loss
from jrnn.derivation.decompositions import gradients_per_step as gradients_per_step
from jrnn.derivation.decompositions import gradients_per_use as gradients_per_use
from jrnn.derivation.double_sum import gradients_double_sum as gradients_double_sum
from jrnn.derivation.finite_difference import (
    gradients_finite_difference as gradients_finite_difference,
)
from jrnn.derivation.forward import Gradients as Gradients
from jrnn.derivation.forward import Trajectory as Trajectory
from jrnn.derivation.forward import rnn_scan as rnn_scan
from jrnn.derivation.forward import trajectory as trajectory
from jrnn.derivation.jacobians import state_jacobian as state_jacobian
from jrnn.derivation.jacobians import state_jacobian_product as state_jacobian_product
from jrnn.derivation.recursion import assemble as assemble
from jrnn.derivation.recursion import gradients_recursion as gradients_recursion
from jrnn.derivation.sensitivity import SensitivityCarry as SensitivityCarry
from jrnn.derivation.sensitivity import SensitivityOutput as SensitivityOutput
from jrnn.derivation.sensitivity import gradients_sensitivity as gradients_sensitivity
from jrnn.derivation.sensitivity import sensitivity_init as sensitivity_init
from jrnn.derivation.sensitivity import sensitivity_step as sensitivity_step
from jrnn.derivation.softmax import cross_entropy_derivative as cross_entropy_derivative
from jrnn.derivation.softmax import logits_derivative as logits_derivative
from jrnn.derivation.softmax import softmax_jacobian as softmax_jacobian
from jrnn.derivation.truncated import GradientDistance as GradientDistance
from jrnn.derivation.truncated import gradient_distance as gradient_distance
from jrnn.derivation.truncated import gradients_truncated as gradients_truncated
