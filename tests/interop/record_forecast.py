"""Train torch's networks by the recipe of examples/co2_forecast.py, and record their errors.

pip install -r tests/interop/requirements.txt
pip install --no-deps statsmodels==0.15.0
PYTHONPATH=examples python tests/interop/record_forecast.py     the options are the example's

It reads the same windows by the same seeds, and draws initial weights and noise of its own. torch
has no mask of steps: the steps that count are moved to the front of each window, which is the same.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from co2_data import LONGEST, absolute_errors, levels, load
from co2_forecast import HORIZONS, WEIGHT_DECAY, Settings, window_starts
from command import mean_and_error

RECORD = Path(__file__).parents[1] / "recorded/forecast.json"
MODULES = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM}
RECIPE = ["difference", "seeds", "steps", "hidden_size", "window", "batch_size"]
RECIPE += ["learning_rate", "noise"]


class Model(torch.nn.Module):
    """A network, and the mean and the logarithm of the standard deviation of the next change."""

    def __init__(self, cell, inputs, hidden_size):
        super().__init__()
        self.rnn = MODULES[cell](inputs, hidden_size)
        self.readout = torch.nn.Linear(hidden_size, 2)

    def forward(self, xs, state=None):
        hs, state = self.rnn(xs, state)
        return self.readout(hs), state


def nll(outputs, targets):
    mean, log_std = outputs.split(1, -1)
    z = (targets - mean) * torch.exp(-log_std)
    return log_std + z * z / 2 + np.log(2 * np.pi) / 2


def train(args, job, seed):
    torch.manual_seed(seed)
    inputs, by = job.by.inputs(), job.by
    model = Model(args.cell, inputs.shape[1], args.hidden_size)
    adamw = torch.optim.AdamW(model.parameters(), args.learning_rate, weight_decay=WEIGHT_DECAY)
    cosine = torch.optim.lr_scheduler.LambdaLR(
        adamw, lambda n: (1 + np.cos(np.pi * n / args.steps)) / 2
    )
    for starts in window_starts(args, job.end, seed):
        at = starts + np.arange(args.window)[:, None]
        order = np.argsort(~by.seen[at], axis=0, kind="stable")  # the steps that count come first
        at = np.take_along_axis(at, order, 0)
        known = torch.tensor(by.seen[at] & by.seen[at + 1])
        xs = torch.tensor(inputs[at])
        xs[..., 0] += args.noise * torch.randn(at.shape)
        outputs, _ = model(xs)
        loss = nll(outputs, torch.tensor(by.xs[at + 1]))[known].mean()
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        cosine.step()
    return model


@torch.inference_mode()
def forecast(args, job, model):
    """`[LONGEST, N]` ppm: each mean is the next input."""
    by, origins = job.by, job.origins
    at = origins - args.window + np.arange(args.window)[:, None]
    if not by.seen[at].all():
        raise ValueError("torch would need a mask here")
    outputs, state = model(torch.tensor(by.inputs()[at]))
    means = [outputs[-1:, :, :1]]
    for ahead in range(LONGEST - 1):
        month = torch.tensor(by.month[origins + ahead])[None]
        outputs, state = model(torch.cat([means[-1], month], -1), state)
        means.append(outputs[..., :1])
    return levels(job.series, origins, torch.cat(means)[..., 0].numpy(), by)


def record(args):
    job = load(args)
    forecasts = [forecast(args, job, train(args, job, seed)) for seed in range(args.seeds)]
    errors = absolute_errors(job.series, job.origins, np.array(forecasts))
    return {str(h): errors[:, :h].mean(1).round(6).tolist() for h in HORIZONS}


if __name__ == "__main__":
    args, found = Settings.parse(), {}
    for cell in MODULES:
        found[cell] = record(replace(args, cell=cell))
        for h, errors in found[cell].items():
            print(f"{cell}, {h} months: {{:.3f}} ({{:.3f}})".format(*mean_and_error(errors)))
    if not args.validate:
        recipe = {name: vars(args)[name] for name in RECIPE}
        about = {"command": "python tests/interop/record_forecast.py", "torch": torch.__version__}
        RECORD.write_text(json.dumps({**about, "recipe": recipe, "errors": found}, indent=1) + "\n")
