"""Argument checks of the public functions.

Shapes and dtypes are static, so these checks run once per trace and cost nothing in a compiled
program. Values (token ids, labels) are checked only if they are concrete. Every error is a
ValueError that names the argument, the expected value, the given value, and the repair.

chex states the contract between the parts inside the package. It is imported where it is used,
because importing chex takes as long as importing the rest of this package.
"""

from jrnn.checks.basics import array as array
from jrnn.checks.basics import concrete as concrete
from jrnn.checks.basics import describe as describe
from jrnn.checks.basics import flag as flag
from jrnn.checks.basics import floating_dtype as floating_dtype
from jrnn.checks.basics import ids as ids
from jrnn.checks.basics import key as key
from jrnn.checks.basics import number as number
from jrnn.checks.basics import positive_or_none as positive_or_none
from jrnn.checks.basics import refuse as refuse
from jrnn.checks.basics import shape as shape
from jrnn.checks.basics import sizes as sizes
from jrnn.checks.basics import square as square
from jrnn.checks.basics import there as there
from jrnn.checks.cells import a_cell as a_cell
from jrnn.checks.cells import cell as cell
from jrnn.checks.devices import batch_mesh as batch_mesh
from jrnn.checks.devices import divided as divided
from jrnn.checks.devices import loss_of_the_whole_batch as loss_of_the_whole_batch
from jrnn.checks.entries import blocks as blocks
from jrnn.checks.entries import entries as entries
from jrnn.checks.entries import layer_arrays as layer_arrays
from jrnn.checks.entries import layers as layers
from jrnn.checks.entries import mapping as mapping
from jrnn.checks.entries import one_dtype as one_dtype
from jrnn.checks.inside import held_input as held_input
from jrnn.checks.inside import no_data_of_a_stack as no_data_of_a_stack
from jrnn.checks.inside import not_negative as not_negative
from jrnn.checks.inside import optimizer as optimizer
from jrnn.checks.inside import residual_of_a_stack as residual_of_a_stack
from jrnn.checks.inside import start_states as start_states
from jrnn.checks.inside import states_alike as states_alike
from jrnn.checks.inside import states_of_components as states_of_components
from jrnn.checks.inside import states_of_layers as states_of_layers
from jrnn.checks.inside import values as values
from jrnn.checks.leaks import leak as leak
from jrnn.checks.leaks import leaky_params as leaky_params
from jrnn.checks.leaks import place_of_leak as place_of_leak
from jrnn.checks.leaks import time_steps as time_steps
from jrnn.checks.losses import cross_entropy_arguments as cross_entropy_arguments
from jrnn.checks.losses import logits as logits
from jrnn.checks.losses import objective_arguments as objective_arguments
from jrnn.checks.losses import objective_of as objective_of
from jrnn.checks.losses import of_a_batch as of_a_batch
from jrnn.checks.losses import quantiles as quantiles
from jrnn.checks.losses import readout_arguments as readout_arguments
from jrnn.checks.losses import readout_cross_entropy_arguments as readout_cross_entropy_arguments
from jrnn.checks.losses import readout_params as readout_params
from jrnn.checks.losses import regression_arguments as regression_arguments
from jrnn.checks.options import activation as activation
from jrnn.checks.options import activation_derivative as activation_derivative
from jrnn.checks.options import compute_dtype as compute_dtype
from jrnn.checks.options import loss_and_carry as loss_and_carry
from jrnn.checks.options import loss_function as loss_function
from jrnn.checks.options import no_sampling_options as no_sampling_options
from jrnn.checks.options import nonfinite as nonfinite
from jrnn.checks.options import sampling_options as sampling_options
from jrnn.checks.sampling import distribution as distribution
from jrnn.checks.sampling import drawn as drawn
from jrnn.checks.sampling import drawn_inputs as drawn_inputs
from jrnn.checks.sampling import finite_parameters as finite_parameters
from jrnn.checks.sampling import generate_arguments as generate_arguments
from jrnn.checks.sampling import key_of_tokens as key_of_tokens
from jrnn.checks.sampling import sampler_arguments as sampler_arguments
from jrnn.checks.sequences import bias_parts as bias_parts
from jrnn.checks.sequences import cell_arguments as cell_arguments
from jrnn.checks.sequences import known_steps as known_steps
from jrnn.checks.sequences import lengths as lengths
from jrnn.checks.sequences import network as network
from jrnn.checks.sequences import network_arguments as network_arguments
from jrnn.checks.sequences import network_of_inputs as network_of_inputs
from jrnn.checks.sequences import of_kind as of_kind
from jrnn.checks.sequences import one_sequence as one_sequence
from jrnn.checks.sequences import one_step as one_step
from jrnn.checks.sequences import times as times
from jrnn.checks.stacks import cell_name as cell_name
from jrnn.checks.stacks import dropout_between as dropout_between
from jrnn.checks.stacks import dropout_rate as dropout_rate
from jrnn.checks.stacks import for_each_layer as for_each_layer
from jrnn.checks.stacks import forwards as forwards
from jrnn.checks.stacks import mean_arguments as mean_arguments
from jrnn.checks.stacks import one_direction as one_direction
from jrnn.checks.stacks import residual as residual
from jrnn.checks.stacks import stack_arguments as stack_arguments
from jrnn.checks.stacks import stack_of_layers as stack_of_layers
from jrnn.checks.stacks import stack_sizes as stack_sizes
from jrnn.checks.stacks import stack_step_arguments as stack_step_arguments
from jrnn.checks.stacks import within as within
