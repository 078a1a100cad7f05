"""What is drawn from: parameters, logits; and what was drawn."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jrnn.arrays import named_leaves, wide
from jrnn.checks.basics import concrete, refuse


def finite_parameters(**params: Any) -> None:
    """Concrete ones, by argument; a bias of logits may be -inf, but not all of it."""
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
                repair = "There is nothing to draw from: take parameters from before that."
                refuse(f"{argument}.{name}", "finite numbers", came, repair)


def distribution(logits: Any) -> None:
    """Concrete logits [..., O], in the dtype that they are computed with."""
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
        repair = "-inf is for tokens that are never drawn, and there must be others."
        refuse("logits", f"numbers of {dtype}, or -inf", came, repair)


def drawn(tokens: np.ndarray, start: int) -> None:
    """Tokens [num_samples, n] from number `start` on; -1 where there was no distribution."""
    if (tokens < 0).any():
        sample, n = (int(i) for i in np.argwhere(tokens < 0)[0])
        came = f"others at token {start + n} of sample {sample}"
        repair = "The state has overflowed: take a bounded activation, or a smaller w_hh."
        refuse("generate", "finite logits at every token", came, repair)
