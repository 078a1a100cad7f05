"""Measure the gradient by lag, by step and by direction; look at states, gates and fixed points.

Every function takes a network of any kind; `trajectory`, `fixed_points` and `lyapunov_exponents`
take stacks as well. `jrnn.plot` draws the results.
"""

from jrnn.diagnostics._gates import gates as gates
from jrnn.diagnostics.components import PrincipalComponents as PrincipalComponents
from jrnn.diagnostics.components import principal_components as principal_components
from jrnn.diagnostics.components import project as project
from jrnn.diagnostics.dynamics import trajectory as trajectory
from jrnn.diagnostics.exponents import lyapunov_exponents as lyapunov_exponents
from jrnn.diagnostics.fixed_points import FixedPoints as FixedPoints
from jrnn.diagnostics.fixed_points import fixed_points as fixed_points
from jrnn.diagnostics.flow import GradientFlow as GradientFlow
from jrnn.diagnostics.flow import gradient_flow as gradient_flow
from jrnn.diagnostics.flow import influence as influence
