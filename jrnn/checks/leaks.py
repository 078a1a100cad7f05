"""Checks of leaky networks: the leak and the time steps."""

from typing import Any

import numpy as np

from jrnn.checks.basics import array, concrete, describe, is_float, refuse, shown
from jrnn.checks.networks import of_kind, share
from jrnn.types import LeakyParams


def leak(alpha: Any, dt_over_tau: Any, learned: bool, H: int) -> tuple[np.ndarray, np.ndarray]:
    """Check the leak of new parameters; return alpha and dt / tau, `[H]` in float64."""
    if (alpha is None) == (dt_over_tau is None):
        came = "neither" if alpha is None else "both"
        repair = "alpha = 0.1, for example, is a tenth of the new in each step."
        refuse("alpha, dt_over_tau", "one of the two", came, repair)
    name, given = ("dt_over_tau", dt_over_tau) if alpha is None else ("alpha", alpha)
    try:
        value = np.broadcast_to(np.asarray(given, np.float64), (H,))
    except (TypeError, ValueError):
        refuse(name, f"a number or an array [H] = [{H}]", shown(given), "One for each unit.")
    if name == "alpha":
        share(value, learned)
        with np.errstate(divide="ignore"):
            return value, -np.log1p(-value)
    if not ((value > 0) & (value < np.inf)).all():
        refuse(name, "finite numbers above 0", shown(given), "dt / tau, such as 0.1.")
    return -np.expm1(-value), value


def place_of_leak(leak: Any) -> None:
    """Refuse an unknown place."""
    if leak not in ("state", "input"):
        repair = '"state" is h = (1 - alpha) h + alpha phi(a); "input" is the rate network.'
        refuse("leak", '"state" or "input"', shown(leak), repair)


def leaky_params(params: Any) -> None:
    """Check the class, and which of its leaks is there."""
    of_kind(params, LeakyParams)
    if (params.alpha is None) == (params.log_tau is None):
        came = "neither" if params.alpha is None else "both"
        repair = "alpha is a fixed leak, log_tau a learned one; see jrnn.init_leaky."
        refuse("alpha, log_tau", "one of the two", came, repair)


def time_steps(dt: Any, time: tuple[int, ...], batch: tuple[int, ...]) -> None:
    """Check the lengths of all steps, or of one, for which `time` is ()."""
    array("dt", dt)
    if dt.shape not in (time, (*time, *batch)):
        wanted, axes = (f"[T] = {list(time)}", "[T, B]") if time else ("[]", "[B]")
        wanted += f" or {axes} = {[*time, *batch]}" if batch else ""
        refuse("dt", f"shape {wanted}", describe(dt), "The length of each step.")
    if not is_float(dt):
        refuse("dt", "a floating dtype", describe(dt), "Cast it by .astype.")
    values = concrete(dt)
    if values is not None and (values < 0).any():
        wrong = values[values < 0][0]
        refuse("dt", "numbers of at least 0", float(wrong), "Time does not run backwards.")
