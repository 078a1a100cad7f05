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


def gradients(w_ih, w_hh, b_h, xs, h0, activation, dh_last, dhs):
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
        da = np.array([dh[j] * dphi(a[t, j]) for j in range(H)])
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


def _one_sequence(xs, b, I):
    """Sequence b as vectors, token ids as one-hot."""
    x = np.asarray(xs)[:, b] if b is not None else np.asarray(xs)
    return np.eye(I)[x] if np.issubdtype(x.dtype, np.integer) else x


def rnn(params, xs, h0, activation, dh_last, dhs):
    """`(h_last, hs)` and the cotangents by name, as `jrnn.rnn` takes and returns them."""
    w_ih, w_hh, b_h = (None if p is None else np.asarray(p) for p in params)
    I, H = w_ih.shape
    vectors = not np.issubdtype(np.asarray(xs).dtype, np.integer)
    batched = np.ndim(xs) == 2 + vectors
    bias = np.zeros(H) if b_h is None else b_h
    start = np.zeros(H) if h0 is None else np.asarray(h0)
    names = ["w_ih", "w_hh"] + ["b_h"] * (b_h is not None)
    total = dict.fromkeys(names, 0.0)
    hs, dxs, dh0 = [], [], []
    for b in range(np.shape(xs)[1]) if batched else [None]:
        of = (..., b, slice(None)) if batched else ...
        x = _one_sequence(xs, b, I)
        h = start[b] if start.ndim == 2 else start
        args = (w_ih, w_hh, bias, x, h, activation)
        hs.append(states(*args)[1])
        d = gradients(*args, np.asarray(dh_last)[of], np.asarray(dhs)[of])
        dxs.append(d["xs"])
        dh0.append(d["h0"])
        for name in names:
            total[name] = total[name] + d[name]
    if vectors:
        total["xs"] = np.stack(dxs, 1) if batched else dxs[0]
    if h0 is not None:
        total["h0"] = np.stack(dh0) if start.ndim == 2 else sum(dh0)
    hs = np.stack(hs, 1) if batched else hs[0]
    return (hs[-1], hs), total


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
