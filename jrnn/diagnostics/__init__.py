"""Measure the gradient by lag, by step and by direction, and the gates of a network.

Every function takes a network of any kind; `jrnn.plot` draws the results.
"""

from jrnn.diagnostics._gates import gates as gates
from jrnn.diagnostics.dynamics import trajectory as trajectory
from jrnn.diagnostics.exponents import lyapunov_exponents as lyapunov_exponents
from jrnn.diagnostics.flow import GradientFlow as GradientFlow
from jrnn.diagnostics.flow import gradient_flow as gradient_flow
from jrnn.diagnostics.flow import influence as influence
