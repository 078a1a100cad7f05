"""Plot how gradients of the character model vanish or explode, before and after training.

    python examples/gradient_flow.py                    # some minutes on two cores
    python examples/gradient_flow.py --steps 100        # a quick look

The model of `char_lm.py` is trained twice, from an orthogonal w_hh and from a small Gaussian one.
The plots show, on the validation text, before and after training: the norm of one step's gradient
by lag, the contribution of each step to the gradient of w_hh, the states on which each loss
depends, and the Lyapunov exponents along one stream of the text. One more plot compares kinds of
networks before training: Elman, GRU, and LSTM with two biases of the forget gate.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import command
import jax
import numpy as np
from char_model.data import Data, load_data
from char_model.loop import make_training, run_steps
from char_model.model import W_HH_INITS, check_memory, make_evaluate
from char_model.settings import Settings as ModelSettings
from char_model.signals import StopFlag
from devices import on_devices
from matplotlib.figure import Figure
from networks import Model

import jrnn
from jrnn import diagnostics, plot
from jrnn.parallel import batch_mesh

KINDS: dict[str, Callable[..., Any]] = {  # next to the Elman network that is trained
    "GRU": jrnn.init_gru,
    "LSTM, forget bias 0": partial(jrnn.init_lstm, forget_bias=0.0),
    "LSTM, forget bias 1": jrnn.init_lstm,
}
LAGS = (1, 10, 50, 100)  # in the printed table
OPTION_OF_SIZE = "--hidden-size"  # the rest is as in `char_lm.py`
STREAMS = 8  # measured in parallel
TABLE_STEPS = 100  # in an influence table


@dataclass(frozen=True)
class Settings(command.Checked):
    """Plot how gradients of the character model vanish or explode, before and after training."""

    out: Path = Path("out/gradient_flow")  # directory
    text: tuple[str, ...] | None = None  # UTF-8 files to train on; None: CPython's reference
    seed: command.NotNegative = 0
    steps: command.Positive = 2000  # of each training
    hidden_size: command.Positive = 256
    length: command.Positive = 500  # steps that are measured
    max_lag: command.Positive = 100
    exponents: command.Positive = 64  # how many


class Measured(NamedTuple):
    """The diagnostics of one model."""

    name: str
    flow: diagnostics.GradientFlow
    exponents: np.ndarray  # [n]
    influence: np.ndarray  # [TABLE_STEPS, TABLE_STEPS]


def measure(
    name: str, model: Model, streams: np.ndarray, settings: Settings, exponents: int
) -> Measured:
    """Compute all diagnostics of a model at the start of the validation streams `[T, B]`."""
    rnn, readout = model
    xs, labels = streams[:-1][: settings.length], streams[1:][: settings.length]
    flow = diagnostics.gradient_flow(rnn, readout, xs, labels, max_lag=settings.max_lag)
    start = slice(TABLE_STEPS)
    return Measured(
        name,
        jax.device_get(flow),
        np.asarray(
            diagnostics.lyapunov_exponents(
                rnn, xs[:, 0], n=min(exponents, settings.hidden_size), warmup=len(xs) // 10
            )
        ),
        np.asarray(diagnostics.influence(rnn, readout, xs[start, 0], labels[start, 0])),
    )


def train_and_measure(w_hh_init: Any, data: Data, settings: Settings) -> list[Measured]:
    """Train once like `char_lm.py`, and measure before and after."""
    given = {name: getattr(settings, name) for name in ("steps", "hidden_size", "seed")}
    options = ModelSettings(w_hh_init=w_hh_init, eval_every=settings.steps, **given)
    mesh = batch_mesh(1)
    first = make_training(options, data, mesh)[0].params  # a copy: training steps donate theirs
    with StopFlag() as stop, stop.deferred():
        state, _ = run_steps(options, data, mesh, stop)
    if stop.signum is not None:
        raise KeyboardInterrupt
    bits = make_evaluate(options, data.validation_streams, mesh)(state.params)
    trained = f"{w_hh_init}, after {settings.steps:,} steps ({bits:.2f} bits per character)"
    streams = data.validation_streams[:, :STREAMS]
    return [
        measure(f"{w_hh_init}, at the start", first, streams, settings, settings.exponents),
        measure(trained, state.params, streams, settings, settings.exponents),
    ]


def measure_kinds(data: Data, settings: Settings) -> list[Measured]:
    """Measure new networks of other kinds."""
    O, streams = len(data.alphabet.characters), data.validation_streams[:, :STREAMS]
    key_rnn, key_readout = jax.random.split(jax.random.key(settings.seed))
    readout = jrnn.init_readout(key_readout, settings.hidden_size, O)
    return [
        measure(name, Model(init(key_rnn, O, settings.hidden_size), readout), streams, settings, 1)
        for name, init in KINDS.items()
    ]


def measure_all(settings: Settings) -> tuple[list[Measured], list[Measured]]:
    """Run and measure both trainings; and measure the kinds of networks."""
    settings.out.mkdir(parents=True, exist_ok=True)
    options = ModelSettings(hidden_size=settings.hidden_size)
    data = load_data(settings.text, options.batch_size, options.length, settings.out)
    check_memory(options, len(data.alphabet.characters), batch_mesh(1), OPTION_OF_SIZE)
    kinds = measure_kinds(data, settings)
    trained = [m for init in W_HH_INITS for m in train_and_measure(init, data, settings)]
    return trained, kinds


# --- results -------------------------------------------------------------------------------------


def table(measured: list[Measured]) -> str:
    """A table of median norms at some lags, relative to lag 0, and the largest exponent."""
    head = "".join(f"{f'lag {lag}':>10s}" for lag in LAGS)
    lines = [f"{'median norm as a share of lag 0':56s}{head}{'exponent':>10s}"]
    for m in measured:
        median = m.flow.percentiles[1]  # by lag, from 0
        shares = {l: median[l] / median[0] for l in LAGS if l < len(median)}
        cells = (f"{shares[l]:.1e}" if shares.get(l) else "-" for l in LAGS)
        row = "".join(f"{cell:>10s}" for cell in cells)
        lines.append(f"{m.name:56s}{row}{m.exponents.max():10.3f}")
    return "\n".join([*lines, "(-: not measured, or below the range of float32)"])


def name_panels(panels: Any, name: str) -> None:
    """Add the name of the model to the title of each panel."""
    for panel in np.ravel(panels):
        panel.set_title(f"{name}\n{panel.get_title()}", fontsize="medium")


def draw_flows(measured: list[Measured], path: Path) -> None:
    """Plot one row per model, with equal axes in each column."""
    figure = Figure(figsize=(12, 3.8 * len(measured)), layout="constrained")
    rows = figure.subplots(len(measured), 2, sharex="col", sharey="col", squeeze=False)
    for m, row in zip(measured, rows, strict=True):
        name_panels(plot.plot_gradient_flow(m.flow, row), m.name)
    for panel in rows[0]:
        panel.set_yscale("log")
    top = max(np.nanmax(m.flow.percentiles) for m in measured)
    rows[0, 0].set_ylim(top * 1e-12, top * 3)  # a Gaussian start falls far below
    figure.savefig(path, dpi=110)


def draw_kinds(flows: dict[str, diagnostics.GradientFlow], path: Path) -> None:
    """Plot the norms by lag of all kinds in one panel."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    panel = figure.subplots()
    for name, flow in flows.items():
        low, median, high = np.where(flow.percentiles > 0, flow.percentiles, np.nan)
        (line,) = panel.plot(flow.lags, median, label=name)
        panel.fill_between(flow.lags, low, high, alpha=0.15, color=line.get_color())
    panel.set(
        xlabel="lag l (steps)",
        ylabel=r"$\|dJ_t / ds_{t-l}\|$ (nats per unit of state)",
        yscale="log",
        title="Loss of one step, by lag, before training\nmedian and 10th to 90th percentile",
    )
    panel.legend()
    figure.savefig(path, dpi=110)


def draw_influences(measured: list[Measured], path: Path) -> None:
    """Plot two influence tables per figure, with equal colours."""
    figure = Figure(figsize=(13, 5.5 * (len(measured) // 2)), layout="constrained")
    panels = figure.subplots(len(measured) // 2, 2).ravel()
    top = max(m.influence.max() for m in measured)
    for m, panel in zip(measured, panels, strict=True):
        plot.plot_influence(m.influence, panel).images[0].set_clim(top * 1e-8, top)
        name_panels(panel, m.name)
    figure.savefig(path, dpi=110)


def draw_exponents(measured: list[Measured], path: Path) -> None:
    """Plot two spectra per figure, with equal axes."""
    figure = Figure(figsize=(12, 4.5 * (len(measured) // 2)), layout="constrained")
    panels = figure.subplots(len(measured) // 2, 2, sharex=True, sharey=True).ravel()
    for m, panel in zip(measured, panels, strict=True):
        name_panels(plot.plot_lyapunov_exponents(m.exponents, panel), m.name)
    figure.savefig(path, dpi=110)


def results(settings: Settings) -> str:
    """Measure all networks and draw the pictures; return the table."""
    with on_devices(f"{OPTION_OF_SIZE}, --length or --max-lag"):
        measured, kinds = measure_all(settings)
    flows = {"Elman, orthogonal w_hh": measured[0].flow, **{m.name: m.flow for m in kinds}}
    draw_kinds(flows, settings.out / "kinds.png")
    draw_flows(measured, settings.out / "gradient_flow.png")
    draw_influences(measured, settings.out / "influence.png")
    draw_exponents(measured, settings.out / "lyapunov_exponents.png")
    names = "kinds.png, gradient_flow.png, influence.png and lyapunov_exponents.png"
    return f"\n{table([*measured, *kinds])}\n\n{names} are in {settings.out}"


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, 1 after bad input, or 130 after Ctrl-C."""
    settings = Settings.parse(argv)
    return command.exit_status(lambda: results(settings), "not all pictures are drawn")


if __name__ == "__main__":
    sys.exit(main())
