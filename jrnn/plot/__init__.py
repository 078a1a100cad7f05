"""Plot the results of `jrnn.diagnostics`; each title states the main finding.

matplotlib comes with the extra `plot` and is imported when a plot is made. Without `axes`, a plot
is a new `matplotlib.figure.Figure` that pyplot does not manage: it uses no window, no backend and
no global state. Save it with `axes.figure.savefig(...)`. Colours are told apart by colour-blind
readers, on light and on dark backgrounds.
"""

from jrnn.plot.gates import plot_forget_gate as plot_forget_gate
from jrnn.plot.gradients import plot_gradient_flow as plot_gradient_flow
from jrnn.plot.gradients import plot_influence as plot_influence
from jrnn.plot.gradients import plot_lyapunov_exponents as plot_lyapunov_exponents
from jrnn.plot.states import plot_fixed_points as plot_fixed_points
from jrnn.plot.states import plot_principal_components as plot_principal_components
