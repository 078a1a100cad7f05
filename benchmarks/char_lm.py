"""The character model's training step, jrnn beside PyTorch: same data, same recipe, in turn.

    python benchmarks/char_lm.py                 # speed: 60 steps of each, alternating
    python benchmarks/char_lm.py --steps 1500    # and what each of them learns

The recipe: H = 256, chunks of 128 over 32 streams, Adam at 2e-3, gradients clipped to norm 1,
orthogonal w_hh, the state carried over the chunks. Both start from the same parameters, and their
first losses must agree. PyTorch takes the ids as one-hot vectors, as
`nn.RNN` must; it has the cores that JAX has.
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import char_lm
from char_data import load_data, training_chunks

from jrnn.text import chunks
from jrnn.training import init_train_state, make_train_step

CORES = len(os.sched_getaffinity(0))


class Torch:
    """`nn.RNN` and a linear readout, from the same parameters."""

    def __init__(self, model, args):
        self.vocabulary, hidden = model.rnn.w_ih.shape
        self.rnn = torch.nn.RNN(self.vocabulary, hidden)
        self.readout = torch.nn.Linear(hidden, self.vocabulary)
        pairs = {
            self.rnn.weight_ih_l0: model.rnn.w_ih.T,
            self.rnn.weight_hh_l0: model.rnn.w_hh.T,
            self.rnn.bias_ih_l0: model.rnn.b_h,
            self.rnn.bias_hh_l0: jnp.zeros(hidden),
            self.readout.weight: model.readout.w_ho.T,
            self.readout.bias: model.readout.b_o,
        }
        with torch.no_grad():
            for parameter, value in pairs.items():
                parameter.copy_(torch.tensor(np.asarray(value)))
        self.rnn.bias_hh_l0.requires_grad_(False)  # a second bias would learn twice as fast
        self.parameters = [
            p for m in (self.rnn, self.readout) for p in m.parameters() if p.requires_grad
        ]
        self.optimizer = torch.optim.Adam(self.parameters, args.learning_rate)
        self.clip = args.clip
        self.zeros = torch.zeros(1, args.batch_size, hidden)

    def loss(self, batch, h):
        xs, labels = (torch.from_numpy(np.ascontiguousarray(a)).long() for a in batch)
        vectors = torch.nn.functional.one_hot(xs, self.vocabulary).float()
        hs, h = self.rnn(vectors, h)
        logits = self.readout(hs).reshape(-1, self.vocabulary)
        return torch.nn.functional.cross_entropy(logits, labels.reshape(-1)), h.detach()

    def step(self, batch, first):
        if first:
            self.h = self.zeros
        self.optimizer.zero_grad()
        loss, self.h = self.loss(batch, self.h)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def bits(self, streams):
        h, nats = self.zeros, 0.0
        for batch in chunks(streams, 256):
            loss, h = self.loss(batch, h)
            nats += loss.item() * batch[0].size
        return nats / streams[1:].size / np.log(2)


class Jrnn:
    """The training step of `examples/char_lm.py`."""

    def __init__(self, model, args):
        optimizer = char_lm.make_optimizer(args)
        self.zeros = jnp.zeros((args.batch_size, args.hidden_size))
        self.state = init_train_state(model, optimizer, self.zeros, jax.random.key(0))
        self.train_step = make_train_step(char_lm.make_loss(args.activation), optimizer)
        self.evaluate = char_lm.make_evaluate(args.activation)

    def step(self, batch, first):
        if first:
            self.state = self.state._replace(carry=jnp.zeros_like(self.zeros))
        self.state, metrics = self.train_step(self.state, batch)
        jax.block_until_ready(self.state)
        return float(metrics.loss)

    def bits(self, streams):
        return self.evaluate(self.state.params, streams)


def main():
    """Compare, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    recipe = "--length 128 --learning-rate 2e-3 --schedule constant"
    args = char_lm.parse(recipe.split())
    torch.set_num_threads(CORES)
    data = load_data(None, args.batch_size, args.length)
    model = char_lm.init_model(jax.random.key(0), args, len(data.alphabet.characters))
    runs = {"jrnn": Jrnn(model, args), "torch": Torch(model, args)}
    source = training_chunks(data.streams, args.length)
    seconds = {name: [] for name in runs}
    for n in range(steps):
        batch, first = next(source)
        losses = {}
        for name, run in runs.items():
            start = time.perf_counter()
            losses[name] = run.step(batch, first)
            seconds[name].append(time.perf_counter() - start)
        if n < 3:  # later on, rounding grows
            np.testing.assert_allclose(losses["jrnn"], losses["torch"], rtol=1e-4)
    print(
        f"\n{CORES} cores ({platform.processor() or platform.machine()}), Python "
        f"{platform.python_version()}, jax {jax.__version__}, torch {torch.__version__}; "
        f"{steps} steps, recipe {recipe}"
    )
    print("        median ms   min ms  characters/s (median)  validation bits")
    for name, run in runs.items():
        t = np.array(seconds[name][3:])  # the first ones compile
        rate = args.length * args.batch_size / np.median(t)
        bits = run.bits(data.validation_streams)
        print(
            f"  {name:5s} {1e3 * np.median(t):9.1f} {1e3 * t.min():8.1f} {rate:22,.0f} {bits:16.3f}"
        )
    ratio = np.median(np.array(seconds["torch"][3:]) / np.array(seconds["jrnn"][3:]))
    print(f"  torch's time over jrnn's, step by step: median {ratio:.2f}")


if __name__ == "__main__":
    main()
