"""PyTorch: `nn.RNN`, `nn.LSTM` and `nn.GRU`, time-major.

On a CPU it uses as many threads as this process has cores. On a GPU, if JAX runs on one, it uses
cuDNN, which rounds float32 to TF32 by default, like JAX.
"""

from typing import Any

import jax
import numpy as np
import torch

import jrnn
from benchmarks.cases import Group, data
from benchmarks.measuring import Program
from jrnn.native import cpu_cores as cores

torch.set_num_threads(cores())
MODULES = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def device_like_jax() -> str | None:
    """Torch's name of JAX's device; None if this torch cannot use it."""
    if jax.default_backend() == "gpu":
        return "cuda" if torch.cuda.is_available() else None
    return "cpu" if jax.default_backend() == "cpu" else None


def _network(params: Any, cell: str, device: str) -> torch.nn.RNNBase:
    rnn = MODULES[cell](len(params.w_ih), len(params.w_hh))
    with torch.no_grad():
        for own, given in zip(_learned(rnn), (params.w_ih, params.w_hh, params.b_h), strict=True):
            own.copy_(torch.tensor(np.asarray(given).T))
        rnn.bias_hh_l0.zero_()
    rnn.bias_hh_l0.requires_grad_(False)  # a second bias would learn twice as fast
    return rnn.to(device)


def _learned(rnn: torch.nn.RNNBase) -> list[torch.Tensor]:
    return [rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0]


def _common(tensors: Any, names: Any = ("w_ih", "w_hh", "b_h")) -> dict[str, Any]:
    arrays = (tensor.detach().float().cpu().numpy().T for tensor in tensors)
    return dict(zip(names, arrays, strict=True))


def program(group: Group) -> Program:
    """The states, or the cost sum(hs * y) and its gradient, in float32, without compilation."""
    device, given = device_like_jax() or "cpu", data(group.case, group.cell)
    rnn = _network(given.params, group.cell, device)
    rnn.flatten_parameters()  # the layout for cuDNN; no effect on a CPU
    xs, y = (torch.from_numpy(a).to(device) for a in (given.xs, given.y))

    def states() -> Any:
        with torch.inference_mode():
            return rnn(xs)[0]

    def gradient() -> Any:
        return torch.autograd.grad((rnn(xs)[0] * y).sum(), _learned(rnn))

    def call() -> Any:
        result = gradient() if group.gradient else states()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    if not group.gradient:
        return Program("torch", call, lambda hs: {"hs": hs.cpu().numpy()})
    return Program("torch", call, _common)


class Trainer:
    """A training step of a network with a `Linear`; ids are one-hot vectors."""

    def __init__(self, model: Any, args: Any) -> None:
        self.vocabulary, hidden = len(model.rnn.w_ih), len(model.rnn.w_hh)
        self.device = device = device_like_jax() or "cpu"
        self.given = model.rnn
        self.rnn = _network(model.rnn, args.cell, device)
        self.readout = torch.nn.Linear(hidden, self.vocabulary)
        with torch.no_grad():
            self.readout.weight.copy_(torch.tensor(np.asarray(model.readout.w_ho)).T)
            self.readout.bias.copy_(torch.tensor(np.asarray(model.readout.b_o)))
        self.readout.to(device)
        self.trained = [*_learned(self.rnn), *self.readout.parameters()]
        self.optimizer = torch.optim.Adam(self.trained, args.learning_rate)
        self.clip = args.clip
        h = torch.zeros(1, args.batch_size, hidden, device=device)
        self.zeros = self.state = (h, h) if args.cell == "lstm" else h

    def step(self, batch: Any, first: bool) -> float:
        arrays = (torch.from_numpy(np.ascontiguousarray(a)) for a in batch)
        ids, labels = (a.to(self.device).long() for a in arrays)
        vectors = torch.nn.functional.one_hot(ids, self.vocabulary).float()
        hs, state = self.rnn(vectors, self.zeros if first else self.state)
        self.state = jax.tree.map(torch.Tensor.detach, state)
        logits = self.readout(hs).reshape(-1, self.vocabulary)
        loss = torch.nn.functional.cross_entropy(logits, labels.reshape(-1))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        return loss.item()

    def model(self) -> Any:
        """The learned (parameters of the network, ReadoutParams)."""
        readout = _common(self.readout.parameters(), ("w_ho", "b_o"))
        return self.given._replace(**_common(_learned(self.rnn))), jrnn.ReadoutParams(**readout)
