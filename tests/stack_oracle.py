"""What a stack must compute, in NumPy, out of what one network must: `oracle.rnn`."""

import numpy as np
import oracle

EPSILON = 1e-5


def norm(scale, offset, u, dn):
    """Of one step: n, and the cotangents of scale, offset and u, by the Jacobian."""
    H = len(u)
    sigma = np.sqrt(np.var(u) + EPSILON)
    z = (u - np.mean(u)) / sigma
    du = np.zeros(H)
    for k in range(H):
        for j in range(H):
            du[j] += dn[k] * scale[k] / sigma * ((k == j) - 1 / H - z[k] * z[j] / H)
    return scale * z + offset, dn * z, dn, du


def norms(parameters, us, dns, lengths):
    """The same of every step inside: arrays [T, B, H], sums for the parameters; else 0."""
    ns, dus = np.zeros_like(us), np.zeros_like(us)
    dscale, doffset = np.zeros(us.shape[-1]), np.zeros(us.shape[-1])
    for b, n in enumerate(lengths):
        for t in range(n):
            ns[t, b], ds, do, dus[t, b] = norm(*parameters, us[t, b], dns[t, b])
            dscale, doffset = dscale + ds, doffset + do
    return ns, [dscale, doffset], dus


def layer(params, xs, h0, again, lengths, resets, dh_last, dus):
    """`(h_last, us)` of (21), and the cotangents of the networks' leaves, xs, h0 and again."""
    networks = [network for network in (params.forward, params.backward) if network is not None]
    h_lasts, us, leaves, dxs, dh0s, dagains = [], [], [], 0.0, [], []
    for i, network in enumerate(networks):
        start, reset_state, dh, du = (
            np.split(x, len(networks), -1)[i] for x in (h0, again, dh_last, dus)
        )
        marks = {"lengths": lengths, "resets": resets, "reset_state": reset_state}
        (h, hs), d = oracle.rnn(network, xs, start, "tanh", dh, du, **marks, reverse=i == 1)
        h_lasts.append(h)
        us.append(hs)
        leaves += [d[name] for name in ("w_ih", "w_hh", "b_h")]
        dxs = dxs + d["xs"]
        dh0s.append(d["h0"])
        dagains.append(d["reset_state"])
    concatenated = [np.concatenate(parts, -1) for parts in (h_lasts, us, dh0s, dagains)]
    return concatenated[:2], (leaves, dxs, *concatenated[2:])


def stack(params, xs, h0, lengths, resets, reset_state, masks, residual, dh_last, dys):
    """`(h_last, ys)`, and the cotangents of the leaves of params, of xs, h0 and reset_state.

    Everything is given: xs [T, B, I], the states of every layer, a mask of each layer's inputs.
    """
    inside = (np.arange(len(xs))[:, None] < lengths)[..., None]
    h_last, inputs, us = [], [xs], []
    marks = (lengths, resets)
    for i, part in enumerate(params.layers):
        states = (h0[i], reset_state[i], *marks, dh_last[i])
        dus = np.zeros((*xs.shape[:2], dh_last[i].shape[-1]))
        (h, u), _ = layer(part, inputs[i] * masks[i], *states, dus)
        n = u if part.norm is None else norms(part.norm, u, dus, lengths)[0]
        h_last.append(h)
        us.append(u)
        inputs.append((n + inputs[i] if residual else n) * inside)
    leaves, dh0, dagain, dys = [], [], [], dys * inside
    for i, part in reversed(list(enumerate(params.layers))):
        dnorm, dus = [], dys
        if part.norm is not None:
            _, dnorm, dus = norms(part.norm, us[i], dys, lengths)
        states = (h0[i], reset_state[i], *marks, dh_last[i])
        _, (d, dxs, dstart, dreset) = layer(part, inputs[i] * masks[i], *states, dus)
        leaves = d + dnorm + leaves
        dh0, dagain = [dstart, *dh0], [dreset, *dagain]
        dys = masks[i] * dxs + (dys if residual else 0)
    return (tuple(h_last), inputs[-1]), (leaves, dys, tuple(dh0), tuple(dagain))
