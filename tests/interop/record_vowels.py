"""Train torch's networks by the recipe of examples/japanese_vowels.py, and print both accuracies.

pip install -r tests/interop/requirements.txt
pip install --no-deps aeon==1.6.0
PYTHONPATH=examples python tests/interop/record_vowels.py      the options are the example's

Both train every model with the same seeds, batches, optimiser and number of epochs. Each library
uses its default initialisation (torch with two biases), and stops after the last epoch.
"""

import numpy as np
import torch
from command import mean_and_error
from japanese_vowels import Settings, epoch_orders, load_data, run

MODULES = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


class Classifier(torch.nn.Module):
    """One label per sequence, from the last state or the mean of all; packed sequences."""

    def __init__(self, cell, sizes, both, last):
        super().__init__()
        I, H, O = sizes
        self.rnn = MODULES[cell](I, H, bidirectional=both)
        self.readout = torch.nn.Linear(2 * H if both else H, O)
        self.last = last

    def forward(self, xs, lengths):
        packed = torch.nn.utils.rnn.pack_padded_sequence(xs, lengths, enforce_sorted=False)
        hs, state = self.rnn(packed)
        h_last = state[0] if isinstance(state, tuple) else state  # (h, c) of an LSTM
        if self.last:
            return self.readout(h_last.transpose(0, 1).flatten(1))  # [D, B, H] -> [B, D * H]
        hs, _ = torch.nn.utils.rnn.pad_packed_sequence(hs)
        return self.readout(hs.sum(0) / lengths[:, None])


def accuracy(name, args, train, test, seed):
    """Train a model with AdamW; return its accuracy on `test`."""
    torch.manual_seed(seed)
    sizes = train.xs.shape[2], args.hidden_size, len(train.classes)
    model = Classifier(args.cell, sizes, name.endswith("-both"), name.startswith("last-"))
    orders = epoch_orders(seed, args.epochs, len(train.labels), args.batch_size)
    orders = orders.reshape(-1, orders.shape[-1])
    options = {"lr": args.learning_rate, "weight_decay": args.weight_decay}
    adamw = torch.optim.AdamW(model.parameters(), **options)
    falling = args.schedule == "cosine"
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adamw, lambda n: (1 + np.cos(np.pi * n / len(orders))) / 2 if falling else 1.0
    )
    xs, lengths, labels = (torch.from_numpy(a) for a in train[:3])
    for chosen in orders:
        logits = model(xs[:, chosen], lengths[chosen])
        loss = torch.nn.functional.cross_entropy(logits, labels[chosen].long())
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        schedule.step()
    xs, lengths, labels = (torch.from_numpy(a) for a in test[:3])
    with torch.inference_mode():
        return float((model(xs, lengths).argmax(-1) == labels).double().mean())


if __name__ == "__main__":
    args = Settings.parse(None)
    args.out.mkdir(parents=True, exist_ok=True)
    train, test = load_data(args)
    for name in args.models:
        found = {"jrnn": run(name, args, train, test)["accuracies"][-1]}
        found["torch"] = [accuracy(name, args, train, test, seed) for seed in range(args.seeds)]
        (own, own_error), (other, other_error) = map(mean_and_error, found.values())
        print(f"{args.cell}, {name}: jrnn {100 * own:.1f} ({100 * own_error:.1f}) %, ", end="")
        print(
            f"torch {100 * other:.1f} ({100 * other_error:.1f}) %; difference / its error ", end=""
        )
        print(f"{(own - other) / np.hypot(own_error, other_error):+.1f}; torch {found['torch']}")
