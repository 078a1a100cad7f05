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
from jrnn.checks import refuse
from jrnn.interop import to_torch
from jrnn.native import cpu_cores as cores

torch.set_num_threads(cores())
MODULES = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
DEVICE = {"cpu": "cpu", "gpu": "cuda"}.get(jax.default_backend(), "none")
if DEVICE == "none" or (DEVICE == "cuda" and not torch.cuda.is_available()):
    refuse("--rivals", "torch that can use JAX's device", torch.__version__, "Leave torch out.")


def _network(params: Any, cell: str) -> torch.nn.RNNBase:
    rnn = MODULES[cell](len(params.w_ih), len(params.w_hh))
    rnn.load_state_dict({name: torch.tensor(x) for name, x in to_torch([(params, None)]).items()})
    rnn.bias_hh_l0.requires_grad_(False)  # a second bias, of 0, would learn twice as fast
    return rnn.to(DEVICE)


def _learned(rnn: torch.nn.RNNBase) -> list[torch.Tensor]:
    return [rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0]


def _common(tensors: Any, names: Any = ("w_ih", "w_hh", "b_h")) -> dict[str, Any]:
    arrays = (tensor.detach().float().cpu().numpy().T for tensor in tensors)
    return dict(zip(names, arrays, strict=True))


def program(group: Group) -> Program:
    """The states, or the cost sum(hs * y) and its gradient, in float32, without compilation."""
    params, *given = data(group.case, group.cell)
    rnn = _network(params, group.cell)
    rnn.flatten_parameters()  # the layout for cuDNN; no effect on a CPU
    xs, y = (torch.from_numpy(a).to(DEVICE) for a in given)

    def call() -> Any:
        if group.gradient:
            result = torch.autograd.grad((rnn(xs)[0] * y).sum(), _learned(rnn))
        else:
            with torch.inference_mode():
                result = rnn(xs)[0]
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return result

    arrays = _common if group.gradient else lambda hs: {"hs": hs.cpu().numpy()}
    return Program("torch", call, arrays)


class Trainer:
    """A training step of a network with a `Linear`; ids are one-hot vectors."""

    def __init__(self, model: Any, args: Any) -> None:
        self.given, self.clip = model, args.clip
        self.vocabulary, hidden = len(model.rnn.w_ih), len(model.rnn.w_hh)
        self.rnn = _network(model.rnn, args.cell)
        self.readout = torch.nn.Linear(hidden, self.vocabulary)
        given = {"weight": model.readout.w_ho.T, "bias": model.readout.b_o}
        self.readout.load_state_dict({k: torch.tensor(np.array(x)) for k, x in given.items()})
        self.readout.to(DEVICE)
        self.trained = [*_learned(self.rnn), *self.readout.parameters()]
        self.optimizer = torch.optim.Adam(self.trained, args.learning_rate)
        h = torch.zeros(1, args.batch_size, hidden, device=DEVICE)
        self.zeros = self.state = (h, h) if args.cell == "lstm" else h

    def step(self, batch: Any, first: bool) -> float:
        arrays = (torch.from_numpy(np.ascontiguousarray(a)) for a in batch)
        ids, labels = (a.to(DEVICE).long() for a in arrays)
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
        """The learned parameters, as they were given."""
        readout = _common(self.readout.parameters(), ("w_ho", "b_o"))
        rnn = self.given.rnn._replace(**_common(_learned(self.rnn)))
        return self.given._replace(rnn=rnn, readout=jrnn.ReadoutParams(**readout))
