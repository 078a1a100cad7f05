"""Temporary bytes of the gradient by T, from programs that are compiled and not run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import jrnn
from benchmarks.rivals.autodiff import scans
from jrnn import native
from jrnn.plot import _colors as colors
from pictures import figure

B, I, H = 32, 64, 256
LENGTHS = tuple(2**n for n in range(6, 15))
MB = 1e6

Last = Callable[[Any, Any], Any]  # (params, xs) -> the last states [B, H]


def temporary_bytes(last: Last, T: int) -> int:
    """The temporary bytes of the gradient of a loss of the last states."""
    params = jax.eval_shape(lambda: jrnn.init_rnn(jax.random.key(0), I, H))
    xs = jax.ShapeDtypeStruct((T, B, I), "float32")
    gradient = jax.jit(jax.grad(lambda params, xs: jnp.mean(last(params, xs) ** 2)))
    with native.turned(False):  # the same on every machine; the native kernel needs as much
        analysis: Any = gradient.lower(params, xs).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def jrnn_last(params: Any, xs: Any, *, remat: bool) -> Any:
    """The last states of jrnn."""
    return jrnn.rnn(params, xs, remat=remat)[0]


def scan_last(scan: Any, params: Any, xs: Any) -> Any:
    """The last states of a plain scan."""
    return scan(params, xs)[-1]


def draw(lengths: tuple[int, ...] = LENGTHS) -> Figure:
    """Draw one line for each program."""
    plain = [partial(scan_last, scan) for scan in scans("rnn").values()]
    lines = {
        "plain scan, autodiff (smallest of three)": (plain, colors.VERMILION, "s"),
        "jrnn": ([partial(jrnn_last, remat=False)], colors.BLUE, "o"),
        "jrnn, remat=True": ([partial(jrnn_last, remat=True)], colors.GREEN, "^"),
    }
    drawn = figure(4)
    panel = drawn.subplots()
    for label, (programs, color, marker) in lines.items():
        found = [min(temporary_bytes(p, T) for p in programs) / MB for T in lengths]
        panel.plot(lengths, found, color=color, marker=marker, label=label)
    states = [4 * T * B * H / MB for T in lengths]
    panel.plot(lengths, states, color="gray", linestyle=":", label="the states of all steps")
    panel.set_xscale("log", base=2)
    panel.set_xticks(lengths, [f"{T:,}" for T in lengths])
    panel.minorticks_off()
    panel.set(yscale="log", xlabel="T (steps)", ylabel="temporary memory (MB)")
    panel.yaxis.set_major_formatter("{x:,g}")
    panel.set_title(f"Memory of the gradient: Elman, B = {B}, I = {I}, H = {H}")
    panel.legend()
    return drawn
