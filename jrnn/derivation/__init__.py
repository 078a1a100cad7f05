"""The gradient of a recurrent network in every form in which the sources derive it.

Every form gives the same numbers as `jax.grad` through `jrnn.rnn`; `docs/derivation.md` explains
them in order, `docs/gates.md` those of LSTM and GRU. The functions take one sequence (use
`jax.vmap` for a batch) and return `Gradients`, `LSTMGradients` or `GRUGradients`.
"""

from jrnn.derivation.decompositions import deltas_by_loss as deltas_by_loss
from jrnn.derivation.decompositions import gradients_per_step as gradients_per_step
from jrnn.derivation.decompositions import gradients_per_use as gradients_per_use
from jrnn.derivation.double_sum import gradients_double_sum as gradients_double_sum
from jrnn.derivation.finite_difference import finite_differences as finite_differences
from jrnn.derivation.finite_difference import (
    gradients_finite_difference as gradients_finite_difference,
)
from jrnn.derivation.forward import Gradients as Gradients
from jrnn.derivation.forward import Trajectory as Trajectory
from jrnn.derivation.forward import gru_scan as gru_scan
from jrnn.derivation.forward import lstm_scan as lstm_scan
from jrnn.derivation.forward import rnn_scan as rnn_scan
from jrnn.derivation.forward import trajectory as trajectory
from jrnn.derivation.gru import GRUGates as GRUGates
from jrnn.derivation.gru import GRUGradients as GRUGradients
from jrnn.derivation.gru import GRUTrajectory as GRUTrajectory
from jrnn.derivation.gru import gru_double_sum as gru_double_sum
from jrnn.derivation.gru import gru_jacobians as gru_jacobians
from jrnn.derivation.gru import gru_recursion as gru_recursion
from jrnn.derivation.gru import gru_trajectory as gru_trajectory
from jrnn.derivation.jacobians import state_jacobian as state_jacobian
from jrnn.derivation.jacobians import state_jacobian_product as state_jacobian_product
from jrnn.derivation.lstm import LSTMGates as LSTMGates
from jrnn.derivation.lstm import LSTMGradients as LSTMGradients
from jrnn.derivation.lstm import LSTMTrajectory as LSTMTrajectory
from jrnn.derivation.lstm import lstm_double_sum as lstm_double_sum
from jrnn.derivation.lstm import lstm_jacobians as lstm_jacobians
from jrnn.derivation.lstm import lstm_recursion as lstm_recursion
from jrnn.derivation.lstm import lstm_trajectory as lstm_trajectory
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
