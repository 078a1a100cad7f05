"""Planted faults: each comparison of the diagnostics has to see those that it is there for."""

from collections.abc import Callable
from dataclasses import dataclass

import flows
import numpy as np
import pytest

PHI = {"tanh": (np.tanh, lambda h: 1 - h**2), "identity": (lambda a: a, np.ones_like)}


def trajectory(params, xs, h0, activation):
    """h_1 to h_T, h_0 to h_{T-1}, and phi' of the former."""
    phi, dphi = PHI[activation]
    hs = [h0]
    for x in xs:
        a = x @ params.w_ih + hs[-1] @ params.w_hh
        hs.append(phi(a if params.b_h is None else a + params.b_h))
    return np.array(hs[1:]), np.array(hs[:-1]), dphi(np.array(hs[1:]))


def back_by_one(rows):
    return np.concatenate([rows[1:], np.zeros_like(rows[:1])])


def table_of(by_lag):
    """`[l, k]` as `[t, k]`."""
    k = np.arange(len(by_lag))
    return np.tril(np.take_along_axis(by_lag, np.maximum(k[:, None] - k, 0), axis=0))


@dataclass(frozen=True)
class Copy:
    """`jrnn.diagnostics` once more in NumPy, with a place for each fault."""

    step_back: Callable = lambda e, dphis, w_hh: back_by_one((dphis * e) @ w_hh.T)
    first_lag: int = 0
    counted: Callable = lambda m: m != 0
    counted_back: Callable = back_by_one
    norm: Callable = lambda x: np.sqrt((x**2).sum(-1))
    shares: tuple = (0.1, 0.5, 0.9)
    last_rank: Callable = lambda count: count - 1
    delta: Callable = lambda dh, c, dphi, w_hh: dphi * (dh + c)
    carried: Callable = lambda delta, w_hh: delta @ w_hh.T
    backwards: bool = True
    left_of_use: Callable = lambda hs, h_tm1s: h_tm1s
    norm_of_use: Callable = lambda h, delta: np.linalg.norm(h.T @ delta)
    table: Callable = table_of
    change: Callable = lambda q, dphi, w_hh: dphi[:, None] * (w_hh.T @ q)
    dphis: Callable = lambda dphis: dphis
    growth: Callable = lambda r: np.log(np.abs(r))
    keeps_q: bool = True
    settled: Callable = lambda logs, warmup: logs[warmup:]
    mean: Callable = np.mean

    def _losses(self, arguments, weights, activation):
        params, readout, xs, labels, h0, m = flows.as_batch(arguments, weights)
        hs, h_tm1s, dphis = trajectory(params, xs, h0, activation)
        p = np.exp(hs @ readout.w_ho + readout.b_o)
        dlogits = m[..., None] * (p / p.sum(-1, keepdims=True) - labels)
        return params.w_hh, hs, h_tm1s, dphis, dlogits @ readout.w_ho.T, m

    def _by_lag(self, e, dphis, w_hh):
        """e_t,l for every lag, in the rows of the states that they have arrived at."""
        for _ in range(self.first_lag):
            e = self.step_back(e, dphis, w_hh)
        for _ in range(len(e)):
            yield e
            e = self.step_back(e, dphis, w_hh)

    def _percentiles(self, norms, counted):
        ranks = np.array(self.shares) * self.last_rank(counted.sum())
        return np.interp(ranks, np.arange(counted.sum()), np.sort(norms[counted]))

    def gradient_flow(self, *arguments, weights, activation):
        w_hh, hs, h_tm1s, dphis, dhs, m = self._losses(arguments, weights, activation)
        counted, percentiles, counts = self.counted(m), [], []
        for e in self._by_lag(dhs, dphis, w_hh):
            percentiles.append(self._percentiles(self.norm(e), counted))
            counts.append(counted.sum())
            counted = self.counted_back(counted)
        uses, c = np.zeros(len(hs)), np.zeros_like(dhs[0])
        left = self.left_of_use(hs, h_tm1s)
        for k in reversed(range(len(hs))) if self.backwards else range(len(hs)):
            delta = self.delta(dhs[k], c, dphis[k], w_hh)
            uses[k] = self.norm_of_use(left[k], delta)
            c = self.carried(delta, w_hh)
        return np.arange(len(hs)), np.array(percentiles).T, uses, np.array(counts)

    def influence(self, *arguments, weights, activation):
        w_hh, _, _, dphis, dhs, _ = self._losses(arguments, weights, activation)
        by_lag = [self.norm(e)[:, 0] for e in self._by_lag(dhs, dphis, w_hh)]
        return self.table(np.array(by_lag))

    def lyapunov_exponents(self, params, xs, h0=None, *, n, warmup=0, activation="tanh"):
        H = len(params.w_hh)
        xs = np.eye(len(params.w_ih))[xs] if xs.ndim == 1 else xs
        _, _, dphis = trajectory(params, xs, np.zeros(H) if h0 is None else h0, activation)
        q, logs = np.linalg.qr(np.random.default_rng(0).normal(size=(H, n)))[0], []
        for dphi in self.dphis(dphis):
            changes = self.change(q, dphi, params.w_hh)
            q, r = np.linalg.qr(changes)
            with np.errstate(invalid="ignore"):  # what a fault may take the logarithm of
                logs.append(self.growth(np.diag(r)))
            q = q if self.keeps_q else changes
        return self.mean(self.settled(np.array(logs), warmup), 0)


FLOW, INFLUENCE = flows.flow_differs, flows.influence_differs
ROTATION, SPECTRUM = flows.rotation_differs, flows.spectrum_differs
DETERMINANT, GROWTH = flows.determinant_differs, flows.growth_differs
# What is put in a place of the copy, and the comparisons that have to see it, each by itself.
FAULTS = {
    "w_hh not transposed": (
        {"step_back": lambda e, dphis, w_hh: back_by_one((dphis * e) @ w_hh)},
        [FLOW, INFLUENCE],
    ),
    "phi' missing": (
        {"step_back": lambda e, dphis, w_hh: back_by_one(e @ w_hh.T)},
        [FLOW, INFLUENCE],
    ),
    "phi' of the step before": (
        {"step_back": lambda e, dphis, w_hh: back_by_one((np.roll(dphis, 1, 0) * e) @ w_hh.T)},
        [FLOW, INFLUENCE],
    ),
    "phi' of the step after": (
        {"step_back": lambda e, dphis, w_hh: back_by_one((np.roll(dphis, -1, 0) * e) @ w_hh.T)},
        [FLOW, INFLUENCE],
    ),
    "no step back": (
        {"step_back": lambda e, dphis, w_hh: (dphis * e) @ w_hh.T},
        [FLOW, INFLUENCE],
    ),
    "lags off by one": ({"first_lag": 1}, [FLOW, INFLUENCE]),
    "states before the first counted": ({"counted_back": lambda counted: counted}, [FLOW]),
    "losses of weight 0 counted": ({"counted": lambda m: np.ones_like(m, bool)}, [FLOW]),
    "the 80th for the 90th": ({"shares": (0.1, 0.5, 0.8)}, [FLOW]),
    "a rank too far": ({"last_rank": lambda count: count}, [FLOW]),
    "no root": ({"norm": lambda x: (x**2).sum(-1)}, [FLOW, INFLUENCE]),
    "sum for norm": ({"norm": lambda x: np.abs(x).sum(-1)}, [FLOW, INFLUENCE]),
    "deltas: w_hh not transposed": ({"carried": lambda delta, w_hh: delta @ w_hh}, [FLOW]),
    "deltas: phi' missing": ({"delta": lambda dh, c, dphi, w_hh: dh + c}, [FLOW]),
    "deltas: of one loss only": ({"delta": lambda dh, c, dphi, w_hh: dphi * dh}, [FLOW]),
    "deltas: in the order of time": ({"backwards": False}, [FLOW]),
    "uses: h_t for h_{t-1}": ({"left_of_use": lambda hs, h_tm1s: hs}, [FLOW]),
    "uses: norms before the sum over b": (
        {"norm_of_use": lambda h, d: np.linalg.norm(h, axis=-1) @ np.linalg.norm(d, axis=-1)},
        [FLOW],
    ),
    "table: transposed": ({"table": lambda by_lag: table_of(by_lag).T}, [INFLUENCE]),
    "table: a row per lag": ({"table": lambda by_lag: np.tril(by_lag.T)}, [INFLUENCE]),
    "table: not cut": (
        {"table": lambda by_lag: table_of(by_lag) + np.triu(by_lag[:1].repeat(len(by_lag), 0), 1)},
        [INFLUENCE],
    ),
    "exponents: w_hh not transposed": (
        {"change": lambda q, dphi, w_hh: dphi[:, None] * (w_hh @ q)},
        [GROWTH],
    ),
    "exponents: phi' missing": (
        {"change": lambda q, dphi, w_hh: w_hh.T @ q},
        [DETERMINANT, GROWTH],
    ),
    "exponents: phi' of the step before": (
        {"dphis": lambda dphis: np.roll(dphis, 1, 0)},
        [DETERMINANT, GROWTH],
    ),
    "exponents: QR's signs kept": ({"growth": np.log}, [ROTATION]),
    "exponents: no log": ({"growth": np.abs}, [ROTATION]),
    "exponents: base 2": ({"growth": lambda r: np.log2(np.abs(r))}, [ROTATION]),
    "exponents: QR never kept": ({"keeps_q": False}, [ROTATION]),
    "exponents: warm-up averaged": ({"settled": lambda logs, warmup: logs}, [SPECTRUM]),
    "exponents: a sum": ({"mean": np.sum}, [ROTATION]),
}
CHECKS = sorted({c for _, checks in FAULTS.values() for c in checks}, key=lambda c: c.__name__)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_the_copy_without_a_fault(check):
    check(Copy())


def test_the_copy_counts_as_the_module_does():
    FLOW(Copy(), "floats")


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fault):
    places, checks = FAULTS[fault]
    for check in checks:
        case = {"case": "floats"} if "weight 0" in fault else {}
        with pytest.raises(AssertionError):
            check(Copy(**places), **case)
