"""Recurrent networks in JAX whose gradients are derived by hand."""

from importlib.metadata import version

from jrnn import derivation as derivation
from jrnn import diagnostics as diagnostics
from jrnn import initializers as initializers
from jrnn import interop as interop
from jrnn import model_file as model_file
from jrnn import native as native
from jrnn import parallel as parallel
from jrnn import plot as plot
from jrnn import sampling as sampling
from jrnn import testing as testing
from jrnn import text as text
from jrnn import training as training
from jrnn._explain import Explanation as Explanation
from jrnn._explain import explain as explain
from jrnn._generate import generate as generate
from jrnn._gru import gru as gru
from jrnn._gru import gru_cell as gru_cell
from jrnn._gru import init_gru as init_gru
from jrnn._layers import dropout_mask as dropout_mask
from jrnn._leaky import init_leaky as init_leaky
from jrnn._leaky import leaky as leaky
from jrnn._leaky import leaky_cell as leaky_cell
from jrnn._lstm import init_lstm as init_lstm
from jrnn._lstm import lstm as lstm
from jrnn._lstm import lstm_cell as lstm_cell
from jrnn._rnn import init_rnn as init_rnn
from jrnn._rnn import rnn as rnn
from jrnn._rnn import rnn_cell as rnn_cell
from jrnn._stack import init_stack as init_stack
from jrnn._stack import stack as stack
from jrnn._stack_step import stack_step as stack_step
from jrnn._stack_step import zero_state as zero_state
from jrnn._unroll import init_cell as init_cell
from jrnn._unroll import unroll as unroll
from jrnn.cells import Cell as Cell
from jrnn.cells import StepCotangents as StepCotangents
from jrnn.cells.elman import Activation as Activation
from jrnn.cells.elman import ActivationName as ActivationName
from jrnn.lengths import mean_over_time as mean_over_time
from jrnn.lengths import sequence_mask as sequence_mask
from jrnn.loss.blockwise import readout_cross_entropy as readout_cross_entropy
from jrnn.loss.recurrent import rnn_cross_entropy as rnn_cross_entropy
from jrnn.loss.recurrent import rnn_loss as rnn_loss
from jrnn.loss.regression import absolute_error as absolute_error
from jrnn.loss.regression import gaussian_nll as gaussian_nll
from jrnn.loss.regression import huber_loss as huber_loss
from jrnn.loss.regression import quantile_loss as quantile_loss
from jrnn.loss.regression import squared_error as squared_error
from jrnn.loss.softmax import init_readout as init_readout
from jrnn.loss.softmax import readout as readout
from jrnn.loss.softmax import softmax_cross_entropy as softmax_cross_entropy
from jrnn.types import GRUParams as GRUParams
from jrnn.types import LayerNormParams as LayerNormParams
from jrnn.types import LayerParams as LayerParams
from jrnn.types import LeakyParams as LeakyParams
from jrnn.types import LSTMParams as LSTMParams
from jrnn.types import LSTMState as LSTMState
from jrnn.types import ReadoutParams as ReadoutParams
from jrnn.types import RNNParams as RNNParams
from jrnn.types import StackParams as StackParams
from jrnn.types import summary as summary

__version__ = version("jrnn")
