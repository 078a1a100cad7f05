"""What the package must compute, in NumPy loops over single examples. Imports nothing of it.

Derivatives of activations are functions of the pre-activation here, of the state in the package.
"""

import numpy as np

ACTIVATIONS = {
    "tanh": (np.tanh, lambda a: 1 / np.cosh(a) ** 2),
    "relu": (lambda a: a if a > 0 else 0.0, lambda a: float(a > 0)),
    "sigmoid": (
        lambda a: 1 / (1 + np.exp(-a)),
        lambda a: np.exp(-a) / (1 + np.exp(-a)) ** 2,
    ),
    "identity": (lambda a: a, lambda a: 1.0),
}


def states(w_ih, w_hh, b_h, xs, h0, activation):
    """The pre-activations and states [T, H] of one sequence xs [T, I]."""
    phi = ACTIVATIONS[activation][0]
    T, H = len(xs), len(w_hh)
    a, hs = np.zeros((T, H)), np.zeros((T, H))
    for t in range(T):
        before = hs[t - 1] if t else h0
        for j in range(H):
            a[t, j] = b_h[j]
            for i in range(len(w_ih)):
                a[t, j] += xs[t, i] * w_ih[i, j]
            for i in range(H):
                a[t, j] += before[i] * w_hh[i, j]
            hs[t, j] = phi(a[t, j])
    return a, hs


def gradients(w_ih, w_hh, b_h, xs, h0, activation, dh_last, dhs, clip=np.inf):
    """Cotangents of every argument of one sequence, from those of the last state and all states."""
    dphi = ACTIVATIONS[activation][1]
    a, hs = states(w_ih, w_hh, b_h, xs, h0, activation)
    T, H = hs.shape
    I = len(w_ih)
    d = {
        "w_ih": np.zeros((I, H)),
        "w_hh": np.zeros((H, H)),
        "b_h": np.zeros(H),
        "xs": np.zeros((T, I)),
    }
    dh = dh_last.copy()
    for t in reversed(range(T)):
        dh = dh + dhs[t]
        da = np.array([max(-clip, min(clip, dh[j] * dphi(a[t, j]))) for j in range(H)])
        before = hs[t - 1] if t else h0
        dh = np.zeros(H)
        for j in range(H):
            d["b_h"][j] += da[j]
            for i in range(I):
                d["w_ih"][i, j] += xs[t, i] * da[j]
                d["xs"][t, i] += w_ih[i, j] * da[j]
            for i in range(H):
                d["w_hh"][i, j] += before[i] * da[j]
                dh[i] += w_hh[i, j] * da[j]
    return {**d, "h0": dh}


def segments(n, resets, reverse):
    """The steps of each segment of n steps, in the order of reading; from h0: only the first."""
    borders = [t for t in range(1, n) if resets[t]]
    parts = [list(range(s, e)) for s, e in zip([0, *borders], [*borders, n], strict=True) if s < e]
    return [part[::-1] for part in parts[::-1]] if reverse else parts


def one_sequence(
    w_ih, w_hh, b_h, xs, h0, activation, dh_last, dhs, n, resets, h_r, m, reverse, clip
):
    """A sequence of which n steps count, each segment run alone: the last state, all, cotangents.

    A mask m of the states is a w_hh whose rows are multiplied by it.
    """
    T, H = len(xs), len(w_hh)
    masked = m[:, None] * w_hh
    shapes = {"w_ih": w_ih, "w_hh": w_hh, "b_h": b_h, "xs": xs, "h0": h0}
    d = {name: np.zeros(x.shape) for name, x in {**shapes, "reset_state": h0, "m": h0}.items()}
    hs, h_last = np.zeros((T, H)), h0
    parts = segments(n, resets, reverse)
    if not parts:
        d["h0"] += dh_last
    for part in parts:
        first = part is parts[0] and not (resets[0] and not reverse)
        start = h0 if first else h_r
        dh_end = dh_last if part is parts[-1] else np.zeros(H)
        args = (w_ih, masked, b_h, xs[part], start, activation)
        hs[part] = states(*args)[1]
        h_last = hs[part[-1]]
        found = gradients(*args, dh_end, dhs[part], clip)
        d["w_ih"] += found["w_ih"]
        d["b_h"] += found["b_h"]
        d["w_hh"] += m[:, None] * found["w_hh"]
        d["m"] += (found["w_hh"] * w_hh).sum(1)
        d["xs"][part] = found["xs"]
        d["h0" if first else "reset_state"] += found["h0"]
    return h_last, hs, d


def rnn(
    params,
    xs,
    h0,
    activation,
    dh_last,
    dhs,
    *,
    lengths=None,
    resets=None,
    reset_state=None,
    recurrent_mask=None,
    reverse=False,
    clip=np.inf,
):
    """`(h_last, hs)` and the cotangents by name, as `jrnn.rnn` takes and returns them."""
    w_ih, w_hh, b_h = (None if p is None else np.asarray(p) for p in params)
    I, H = w_ih.shape
    xs = np.asarray(xs)
    vectors = not np.issubdtype(xs.dtype, np.integer)
    batched = xs.ndim == 2 + vectors
    T, B = (xs.shape[0], xs.shape[1] if batched else 1)

    def per_sequence(x, shape, missing):
        x = np.full(shape, missing) if x is None else np.asarray(x)
        return np.broadcast_to(x, shape)

    def over_batch(x):  # [T, ...] with or without a batch
        return np.asarray(x) if batched else np.asarray(x)[:, None]

    given = {"h0": h0, "reset_state": reset_state, "recurrent_mask": recurrent_mask}
    missing = {"h0": 0.0, "reset_state": 0.0, "recurrent_mask": 1.0}
    full = {name: per_sequence(h, (B, H), missing[name]) for name, h in given.items()}
    n = per_sequence(lengths, (B,), T)
    marks = np.zeros((T, B), bool) if resets is None else np.asarray(resets)
    marks = np.broadcast_to(marks if marks.ndim == 2 else marks[:, None], (T, B))
    x = over_batch(xs) if vectors else np.eye(I)[np.clip(over_batch(xs), 0, I - 1)]
    bias = np.zeros(H) if b_h is None else b_h
    dh_last = np.asarray(dh_last).reshape(B, H)
    total = dict.fromkeys(["w_ih", "w_hh"] + ["b_h"] * (b_h is not None), 0.0)
    last, hs, each = [], [], {"xs": [], "h0": [], "reset_state": [], "m": []}
    for b in range(B):
        found = one_sequence(
            *(w_ih, w_hh, bias, x[:, b], full["h0"][b], activation, dh_last[b]),
            *(over_batch(dhs)[:, b], n[b], marks[:, b], full["reset_state"][b]),
            *(full["recurrent_mask"][b], reverse, clip),
        )
        last.append(found[0])
        hs.append(found[1])
        for name, d in found[2].items():
            if name in each:
                each[name].append(d)
            elif name in total:
                total[name] = total[name] + d
    each["recurrent_mask"] = each.pop("m")
    if vectors:
        total["xs"] = np.stack(each["xs"], 1) if batched else each["xs"][0]
    for name, h in given.items():
        if h is not None:
            total[name] = np.stack(each[name]) if np.ndim(h) == 2 else sum(each[name])
    hs = np.stack(hs, 1) if batched else hs[0]
    return (np.stack(last) if batched else last[0], hs), total


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
