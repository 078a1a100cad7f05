"""A small character model before and after training, measured as in `examples/gradient_flow.py`."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import gradient_flow
from char_model.data import load_data
from char_model.settings import Settings as ModelSettings

STEPS = 400


@cache
def before_and_after(w_hh_init: str) -> list[gradient_flow.Measured]:
    """The two measurements of the training from one initial w_hh."""
    with TemporaryDirectory() as folder:
        settings = gradient_flow.Settings(
            Path(folder), steps=STEPS, hidden_size=64, length=200, max_lag=60, exponents=1
        )
        model = ModelSettings(hidden_size=settings.hidden_size)
        data = load_data(settings.text, model.batch_size, model.length, settings.out)
        return gradient_flow.train_and_measure(w_hh_init, data, settings)
