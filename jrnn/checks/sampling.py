"""Checks of sampling: parameters, logits, and the drawn tokens."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jrnn.arrays import named_leaves, wide
from jrnn.checks.basics import concrete, refuse


def finite_parameters(**params: Any) -> None:
    """Check concrete parameters; elements of `b_o` may be -inf, but not all of them."""
    for argument, tree in params.items():
        for name, x in named_leaves(tree):
            values = concrete(x)
            if values is None:
                continue
            never = values == (-np.inf if name == "b_o" else np.nan)
            wrong = ~(np.isfinite(values) | never & (not never.all()))
            if wrong.any():
                where = tuple(int(i) for i in np.argwhere(wrong)[0])
                came = f"{values[where]} at {list(where)}, {int(wrong.sum())} of {wrong.size} such"
                repair = "Use parameters from before training diverged."
                refuse(f"{argument}.{name}", "finite numbers", came, repair)


def distribution(logits: Any) -> None:
    """Check concrete logits [..., O], in the dtype of the computation."""
    values = concrete(logits)
    if values is None:
        return
    dtype = wide(jnp.result_type(values))
    with np.errstate(over="ignore"):
        largest = np.asarray(values, dtype).max(-1)
    wrong = ~np.isfinite(largest)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        came = f"{largest[where]} as the largest at {list(where)}"
        repair = "Use -inf only for tokens that must never be drawn; at least one other is needed."
        refuse("logits", f"numbers of {dtype}, or -inf", came, repair)


def drawn(tokens: np.ndarray, start: int) -> None:
    """Check drawn tokens [num_samples, n], from number `start` on; -1 means invalid logits."""
    if (tokens < 0).any():
        sample, n = (int(i) for i in np.argwhere(tokens < 0)[0])
        came = f"others at token {start + n} of sample {sample}"
        repair = "The state has overflowed: take a bounded activation, or a smaller w_hh."
        refuse("generate", "finite logits at every token", came, repair)
