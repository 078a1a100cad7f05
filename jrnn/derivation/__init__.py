"""The gradients of a recurrent network as the sources derive them, each as crude as it is written."""

from jrnn.derivation.forward import Gradients as Gradients
from jrnn.derivation.forward import Trajectory as Trajectory
from jrnn.derivation.forward import rnn_scan as rnn_scan
from jrnn.derivation.forward import trajectory as trajectory
