"""What the package must compute, in NumPy loops over sequences and steps. Imports nothing of it."""

from typing import NamedTuple

import numpy as np
from oracle_cells import ACTIVATIONS as ACTIVATIONS
from oracle_cells import CELLS as CELLS
from oracle_cells import elman

# --- one segment, which knows nothing of lengths, resets and directions ---------------------------


class Weights(NamedTuple):
    """One array for each block that is fed: lists of [I, H], None for xs as they are; of [H, H]."""

    w_ih: list | None
    w_hh: list
    b: list  # one for every block


def _output(cell, s):
    return s[0] if cell.output is None else cell.output[0](s[0])


def forward(cell, weights, xs, start, m, unit, data):
    """(states before, blocks, states after) of every step."""
    H, steps, s = len(weights.w_hh[0]), [], start
    for t in range(len(xs)):
        blocks = [b.copy() for b in weights.b]
        for n, g in enumerate(cell.x):
            whole = weights.w_ih is None
            blocks[g] += xs[t, n * H : (n + 1) * H] if whole else xs[t] @ weights.w_ih[n]
        for n, g in enumerate(cell.h):
            blocks[g] += (m * _output(cell, s)) @ weights.w_hh[n]
        after = cell.step(blocks, s, unit, data[t])
        steps.append((s, blocks, after))
        s = after
    return steps


def backward(cell, weights, xs, start, m, unit, data, d_last, dhs, clip=np.inf):
    """The cotangents of every argument, from those of the last states and of all outputs."""
    steps = forward(cell, weights, xs, start, m, unit, data)
    H = len(m)
    d = {
        "w_ih": [np.zeros((xs.shape[1], H)) for _ in cell.x],
        "w_hh": [np.zeros((H, H)) for _ in cell.h],
        "b": [np.zeros(H) for _ in weights.b],
        "xs": np.zeros(xs.shape),
        "m": np.zeros(H),
        "unit": {name: np.zeros(H) for name in unit},
        "data": [{} for _ in steps],
    }
    ds = list(d_last)
    for t, (before, blocks, after) in reversed(list(enumerate(steps))):
        ds[0] = ds[0] + _through_output(cell, after, dhs[t])
        deltas, ds, d_unit, d["data"][t] = cell.adjoint(ds, blocks, before, unit, data[t])
        deltas = [np.clip(delta, -clip, clip) for delta in deltas]
        h = _output(cell, before)
        dh = np.zeros(H)
        for g, delta in enumerate(deltas):
            d["b"][g] += delta
        for n, g in enumerate(cell.x):
            if weights.w_ih is None:
                d["xs"][t, n * H : (n + 1) * H] = deltas[g]
            else:
                d["w_ih"][n] += np.outer(xs[t], deltas[g])
                d["xs"][t] += weights.w_ih[n] @ deltas[g]
        for n, g in enumerate(cell.h):
            d["w_hh"][n] += np.outer(m * h, deltas[g])
            dh += weights.w_hh[n] @ deltas[g]
        d["m"] += h * dh
        ds = list(ds)
        ds[0] = ds[0] + _through_output(cell, before, m * dh)
        for name, x in d_unit.items():
            d["unit"][name] += x
    return steps, {**d, "start": ds}


def _through_output(cell, s, dh):
    return dh if cell.output is None else cell.output[1](s[0]) * dh


# --- one sequence --------------------------------------------------------------------------------


def segments(counted, resets, reverse):
    """The steps of each segment, in the order of reading, and whether the first state enters it.

    A segment begins with the first step that counts after a reset; its steps that count run alone.
    """
    parts, waiting, first_is_reset = [], False, False
    for t in range(len(counted)):
        waiting = waiting or bool(resets[t])
        if counted[t]:
            if waiting or not parts:
                first_is_reset = first_is_reset or (waiting and not parts)
                parts.append([])
            parts[-1].append(t)
            waiting = False
    if reverse:
        return [(part[::-1], n == 0) for n, part in enumerate(parts[::-1])]
    return [(part, n == 0 and not first_is_reset) for n, part in enumerate(parts)]


def one_sequence(cell, weights, call, reverse, clip):
    """The last states, the outputs and the cotangents; `call` holds the arrays of one sequence."""
    xs, H = call["xs"], len(call["m"])
    T = len(xs)
    hs, last, d_data = np.zeros((T, H)), call["start"], [{} for _ in range(T)]
    zero = [np.zeros(H)] * cell.states
    d = {"xs": np.zeros(xs.shape), "start": zero, "reset_state": zero}
    parts = segments(call["counted"], call["resets"], reverse)
    if not parts:
        d["start"] = call["d_last"]
    for n, (part, from_start) in enumerate(parts):
        start = "start" if from_start else "reset_state"
        data = [call["data"][t] for t in part]
        given = (cell, weights, xs[part], call[start], call["m"], call["unit"], data)
        d_last = call["d_last"] if n == len(parts) - 1 else zero
        steps, found = backward(*given, d_last, call["dhs"][part], clip)
        for t, (_, _, after), d_t in zip(part, steps, found["data"], strict=True):
            hs[t], last, d_data[t] = _output(cell, after), after, d_t
        d["xs"][part] = found["xs"]
        d[start] = [a + b for a, b in zip(d[start], found["start"], strict=True)]
        for name in ("w_ih", "w_hh", "b", "m"):
            d[name] = d.get(name, 0) + np.array(found[name])
        d["unit"] = {k: d.get("unit", {}).get(k, 0) + x for k, x in found["unit"].items()}
    return last, hs, {**d, "data": d_data}


# --- a batch, in the layouts of the package -------------------------------------------------------


def unroll(
    cell,
    weights,
    xs,
    start=None,
    lengths=None,
    resets=None,
    reset_state=None,
    recurrent_mask=None,
    mask=None,
    unit=None,
    data=None,
    *,
    d_last,
    dhs,
    reverse=False,
    clip=np.inf,
):
    """`(last, hs)` and the cotangents by name, as `kernel.unroll` takes and returns them."""
    w_ih, w_hh, b = (None if w is None else np.asarray(w, np.float64) for w in weights)
    xs, dhs, H = np.asarray(xs), np.asarray(dhs, np.float64), w_hh.shape[0]
    vectors = not np.issubdtype(xs.dtype, np.integer)
    batched = xs.ndim == 2 + vectors
    T, B = xs.shape[0], xs.shape[1] if batched else 1
    blocks = 1 + max(*cell.x, *cell.h)

    def per_sequence(x, missing=0.0):
        return np.broadcast_to(missing if x is None else np.asarray(x, np.float64), (B, H))

    def per_step(x):  # [T, ...] with or without a batch
        return np.asarray(x) if batched else np.asarray(x)[:, None]

    def flags(x, missing):
        x = np.full((T, B), missing) if x is None else np.asarray(x)
        return np.broadcast_to(x if x.ndim == 2 else x[:, None], (T, B))

    def split(w):
        return np.split(w, w.shape[-1] // H, -1)

    counted = flags(mask, True)
    if lengths is not None:
        counted = np.arange(T)[:, None] < np.broadcast_to(np.asarray(lengths), (B,))
    given = {"start": start, "reset_state": reset_state}
    states = {k: [per_sequence(s) for s in x or [None] * cell.states] for k, x in given.items()}
    m, marks = per_sequence(recurrent_mask, 1.0), flags(resets, False)
    fed = per_step(xs) if vectors else np.eye(len(w_ih))[np.clip(per_step(xs), 0, len(w_ih) - 1)]
    of_steps = {k: np.ndim(x) == dhs.ndim for k, x in (data or {}).items()}
    full = {
        k: per_step(x) if of_steps[k] else np.broadcast_to(per_sequence(x), (T, B, H))
        for k, x in (data or {}).items()
    }
    unit = {k: np.asarray(x, np.float64) for k, x in (unit or {}).items()}
    bias = [np.zeros(H)] * blocks if b is None else split(b)
    parts = Weights(None if w_ih is None else split(w_ih), split(w_hh), bias)
    found = []
    for n in range(B):
        call = {
            "xs": fed[:, n].astype(np.float64),
            "m": m[n],
            "unit": unit,
            "data": [{k: x[t, n].astype(np.float64) for k, x in full.items()} for t in range(T)],
            "counted": counted[:, n],
            "resets": marks[:, n],
            "d_last": [np.asarray(d, np.float64).reshape(B, H)[n] for d in d_last],
            "dhs": per_step(dhs)[:, n],
            **{k: [s[n] for s in x] for k, x in states.items()},
        }
        found.append(one_sequence(cell, parts, call, reverse, clip))

    def stack(rows, axis=0):
        return np.stack(rows, axis) if batched else rows[0]

    def of_sequences(rows, like):  # [H] is shared by the batch
        return np.stack(rows) if np.ndim(like) == 2 else sum(rows)

    lasts, hs, each = zip(*found, strict=True)
    outputs = tuple(stack([s[i] for s in lasts]) for i in range(cell.states)), stack(hs, 1)
    total = {"w_hh": np.concatenate(sum(d.get("w_hh", 0 * np.array(parts.w_hh)) for d in each), -1)}
    if w_ih is not None:
        total["w_ih"] = np.concatenate(
            sum(d.get("w_ih", 0 * np.array(parts.w_ih)) for d in each), -1
        )
    if b is not None:
        total["b"] = np.concatenate(sum(d.get("b", 0 * np.array(parts.b)) for d in each))
    if vectors:
        total["xs"] = stack([d["xs"] for d in each], 1)
    for name, x in given.items():
        if x is not None:
            total[name] = tuple(
                None if h is None else of_sequences([d[name][i] for d in each], h)
                for i, h in enumerate(x)
            )
    if recurrent_mask is not None:
        total["recurrent_mask"] = of_sequences(
            [d.get("m", np.zeros(H)) for d in each], recurrent_mask
        )
    if unit:
        total["unit"] = {k: sum(d.get("unit", {}).get(k, np.zeros(H)) for d in each) for k in unit}
    d_data = {}
    for k, x in (data or {}).items():
        if np.issubdtype(np.asarray(x).dtype, np.floating):
            rows = [np.stack([step.get(k, np.zeros(H)) for step in d["data"]]) for d in each]
            d_data[k] = stack(rows, 1) if of_steps[k] else of_sequences([r.sum(0) for r in rows], x)
    if d_data:
        total["data"] = d_data
    return outputs, total


def rnn(params, xs, h0, activation, dh_last, dhs, *, clip=np.inf, reset_state=None, **data):
    """`(h_last, hs)` and the cotangents by name, as `jrnn.rnn` takes and returns them."""
    again = None if reset_state is None else (reset_state,)
    (last, hs), d = unroll(
        elman(activation),
        params,
        xs,
        (h0,),
        reset_state=again,
        d_last=(dh_last,),
        dhs=dhs,
        clip=clip,
        **data,
    )
    d = {name: x[0] if isinstance(x, tuple) else x for name, x in d.items() if x is not None}
    names = {"b": "b_h", "start": "h0"}
    return (last[0], hs), {names.get(k, k): x for k, x in d.items() if x is not None}


def states(w_ih, w_hh, b_h, xs, h0, activation):
    """The pre-activations and states [T, H] of one sequence xs [T, I]."""
    weights = Weights([w_ih], [w_hh], [b_h])
    steps = forward(elman(activation), weights, xs, [h0], np.ones(len(h0)), {}, [{}] * len(xs))
    return np.array([a[0] for _, a, _ in steps]), np.array([s[0] for _, _, s in steps])


# --- the loss ------------------------------------------------------------------------------------


def cross_entropy(logits, labels, weights, dlosses):
    """Losses and cotangents by name, from the Jacobian of the softmax, position by position."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    O = logits.shape[-1]
    shape = logits.shape[:-1]
    weights = np.ones(shape) if weights is None else np.broadcast_to(weights, shape).astype(float)
    losses, dweights = np.zeros(shape), np.zeros(shape)
    dlogits, dlabels = np.zeros(logits.shape), np.zeros(logits.shape)
    for at in np.ndindex(shape):
        o = logits[at]
        y = np.eye(O)[labels[at]] if labels.ndim == len(shape) else labels[at]
        e = np.exp(o - o.max())
        p = e / e.sum()
        for k in range(O):
            losses[at] -= y[k] * np.log(p[k])
            dlabels[(*at, k)] = -weights[at] * dlosses[at] * np.log(p[k])
            for j in range(O):
                dp_k = p[k] * ((k == j) - p[j])
                dlogits[(*at, j)] += weights[at] * dlosses[at] * -y[k] / p[k] * dp_k
        dweights[at] = dlosses[at] * losses[at]
    d = {"logits": dlogits, "labels": dlabels, "weights": dweights}
    return weights * losses, d
