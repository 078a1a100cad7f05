"""PyTorch: `nn.RNN`, `nn.LSTM` and `nn.GRU`, time-major.

On a CPU it uses as many threads as this process has cores. On a GPU, if JAX runs on one, it uses
cuDNN, which rounds float32 to TF32 by default, like JAX.
"""

from typing import Any

import jax
import numpy as np
import torch

import jrnn
from benchmarks.cases import Case, Data
from benchmarks.measuring import Program
from jrnn.native import cpu_cores as cores

torch.set_num_threads(cores())


def device_like_jax() -> str | None:
    """Torch's name of JAX's device; None if this torch cannot use it."""
    if jax.default_backend() == "gpu":
        return "cuda" if torch.cuda.is_available() else None
    return "cpu" if jax.default_backend() == "cpu" else None


MODULES = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def _rnn(params: Any, device: str = "cpu", cell: str = "rnn") -> torch.nn.RNNBase:
    rnn = MODULES[cell](len(params.w_ih), len(params.w_hh))
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(_tensor(params.w_ih).T)
        rnn.weight_hh_l0.copy_(_tensor(params.w_hh).T)
        rnn.bias_ih_l0.copy_(_tensor(params.b_h))
        rnn.bias_hh_l0.zero_()
    rnn.bias_hh_l0.requires_grad_(False)  # a second bias would learn twice as fast
    return rnn.to(device)


def _tensor(array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array))


def _numpy(tensor: torch.Tensor) -> Any:
    return tensor.float().cpu().numpy()


def _common(ih: Any, hh: Any, b: Any) -> dict[str, Any]:
    return {"w_ih": _numpy(ih).T, "w_hh": _numpy(hh).T, "b_h": _numpy(b)}


def programs(
    case: Case, data: Data, gradient: bool, dtype: str = "float32", cell: str = "rnn"
) -> list[Program]:
    """The states, or the cost sum(hs * y) and its gradient, without compilation."""
    device, kind = device_like_jax() or "cpu", getattr(torch, dtype)
    rnn = _rnn(data.params, device, cell).to(kind)
    rnn.flatten_parameters()  # the layout for cuDNN; no effect on a CPU
    xs, y = (torch.from_numpy(a).to(device, kind) for a in (data.xs, data.y))
    trained = [rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0]

    def finished(result: Any) -> Any:
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    def states() -> Any:
        with torch.inference_mode():
            return finished(rnn(xs)[0])

    def cost_and_gradient() -> Any:
        cost = (rnn(xs)[0] * y).sum(dtype=torch.float32)
        return finished((cost.detach(), torch.autograd.grad(cost, trained)))

    if not gradient:
        return [Program("torch", states, lambda hs: {"hs": _numpy(hs)})]
    return [Program("torch", cost_and_gradient, lambda result: _common(*result[1]))]


class Trainer:
    """A training step of a network with a `Linear`; ids are one-hot vectors."""

    def __init__(self, model: Any, batch_size: int, learning_rate: float, clip: float) -> None:
        self.vocabulary, hidden = len(model.rnn.w_ih), len(model.rnn.w_hh)
        self.device = device = device_like_jax() or "cpu"
        self.given = model.rnn
        cell = type(model.rnn).__name__.removesuffix("Params").lower()
        self.rnn = _rnn(model.rnn, device, cell)
        self.readout = torch.nn.Linear(hidden, self.vocabulary)
        with torch.no_grad():
            self.readout.weight.copy_(_tensor(model.readout.w_ho).T)
            self.readout.bias.copy_(_tensor(model.readout.b_o))
        self.readout.to(device)
        modules = (self.rnn, self.readout)
        self.trained = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.trained, learning_rate)
        self.clip = clip
        h = torch.zeros(1, batch_size, hidden, device=device)
        self.zeros = self.state = (h, h) if cell == "lstm" else h

    def step(self, batch: Any, first: bool) -> float:
        arrays = (torch.from_numpy(np.ascontiguousarray(a)) for a in batch)
        ids, labels = (a.to(self.device).long() for a in arrays)
        vectors = torch.nn.functional.one_hot(ids, self.vocabulary).float()
        hs, state = self.rnn(vectors, self.zeros if first else self.state)
        self.state = (
            tuple(x.detach() for x in state) if isinstance(state, tuple) else state.detach()
        )
        logits = self.readout(hs).reshape(-1, self.vocabulary)
        loss = torch.nn.functional.cross_entropy(logits, labels.reshape(-1))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        return loss.item()

    def model(self) -> Any:
        """The learned (parameters of the network, ReadoutParams)."""
        ih, hh, b = (
            p.detach() for p in (self.rnn.weight_ih_l0, self.rnn.weight_hh_l0, self.rnn.bias_ih_l0)
        )
        readout = (_numpy(p.detach()) for p in (self.readout.weight.T, self.readout.bias))
        return self.given._replace(**_common(ih, hh, b)), jrnn.ReadoutParams(*readout)
