"""A small character model before and after training, measured as in `examples/gradient_flow.py`."""

from functools import cache
from tempfile import TemporaryDirectory

import gradient_flow
from char_model.data import load_data
from char_model.settings import Settings

STEPS = 400
OPTIONS = [f"--steps={STEPS}", "--hidden-size=64", "--length=200", "--max-lag=60", "--exponents=1"]


@cache
def before_and_after(w_hh_init: str) -> list[gradient_flow.Measured]:
    """The two measurements of the training from one initial w_hh."""
    with TemporaryDirectory() as folder:
        args = gradient_flow.parse([*OPTIONS, f"--out={folder}"])
        settings = Settings(hidden_size=args.hidden_size)
        data = load_data(args.text, settings.batch_size, settings.length, args.out)
        return gradient_flow.train_and_measure(w_hh_init, data, args)
