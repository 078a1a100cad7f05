"""Stacks against each sequence alone in NumPy, and what must hold of them under JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stack_oracle
from cases import LAW_RTOL, assert_close, parameters

import jrnn

# Outputs of two directions are of sizes 8 and 12: all axes differ in size.
T, B, I = 7, 5, 3
LENGTHS = np.array([4, 0, 7, 1, 6])
P = 0.25


def make(hidden_sizes=(4, 6), I=I, seed=0, **options):
    """Parameters of order 1 and all arguments of a call, on every state a cotangent."""
    rng = np.random.default_rng(seed)
    params = parameters(jrnn.init_stack, I, hidden_sizes, seed=seed + 1, **options)
    widths = [H * (2 if options.get("bidirectional") else 1) for H in hidden_sizes]
    h0 = tuple(rng.normal(size=(B, n)) if i else rng.normal(size=n) for i, n in enumerate(widths))
    again = tuple(
        rng.normal(size=n) if i else rng.normal(size=(B, n)) for i, n in enumerate(widths)
    )
    return {
        "params": params,
        "xs": rng.normal(size=(T, B, I)),
        "h0": h0,
        "lengths": LENGTHS,
        "resets": rng.random((T, B)) < 0.3,
        "reset_state": again,
    }, (
        tuple(rng.normal(size=(B, n)) for n in widths),
        rng.normal(size=(T, B, widths[-1])),
    )


KEY = jax.random.key(7)


@partial(jax.jit, static_argnames=("dropout", "residual", "remat"))
def values_and_cotangents(arguments, cotangents, key=None, **options):
    """`(h_last, hs)` and the cotangents of params, xs, h0 and reset_state."""

    def call(params, xs, h0, reset_state):
        lengths, resets = arguments["lengths"], arguments["resets"]
        return jrnn.stack(params, xs, h0, lengths, resets, reset_state, key, **options)

    names = ("params", "xs", "h0", "reset_state")
    outputs, vjp = jax.vjp(call, *(arguments[name] for name in names))
    return outputs, vjp(jax.tree.map(jnp.asarray, cotangents))


def expected(arguments, cotangents, dropout=False, residual=False):
    """The same, of the oracle."""
    masks = [1.0]
    for i, layer in enumerate(arguments["params"].layers[:-1]):
        width = layer.forward.w_hh.shape[0] * (1 if layer.backward is None else 2)
        key = jax.random.fold_in(KEY, i + 1)
        draw = lambda t: jrnn.dropout_mask(jax.random.fold_in(key, t), P, (B, width))
        masks.append(np.array([draw(t) for t in range(T)]) if dropout else 1.0)
    outputs, (leaves, *d) = stack_oracle.stack(
        **arguments, masks=masks, residual=residual, dh_last=cotangents[0], dys=cotangents[1]
    )
    dparams = jax.tree.unflatten(jax.tree.structure(arguments["params"]), leaves)
    return outputs, (dparams, *d)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "both"])
def test_layers_of_two_widths(bidirectional):
    case = make(bidirectional=bidirectional)
    assert_close(values_and_cotangents(*case), expected(*case))


EVERYTHING = {"bidirectional": True, "layer_norm": True}


def test_norm_residual_and_dropout():
    case = make((4, 4), 8, **EVERYTHING)
    found = values_and_cotangents(*case, KEY, dropout=P, residual=True)
    assert_close(found, expected(*case, dropout=True, residual=True))


def full_case():
    return make((4, 4), 8, **EVERYTHING)


def full(case, **options):
    return values_and_cotangents(*case, KEY, dropout=P, residual=True, **options)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nothing_in_the_padding_changes_a_bit(poison):
    arguments, (dh_last, dys) = full_case()
    padding = np.arange(T)[:, None] >= LENGTHS
    poisoned = {
        **arguments,
        "xs": np.where(padding[..., None], poison, arguments["xs"]),
        "resets": arguments["resets"] | padding,
    }
    clean = full((arguments, (dh_last, np.where(padding[..., None], 0, dys))))
    found = full((poisoned, (dh_last, np.where(padding[..., None], poison, dys))))
    assert_close(found, clean, rtol=0.0)
    assert not np.any(np.asarray(found[0][1])[padding])
    assert not np.any(np.asarray(found[1][1])[padding])


def test_one_sequence_is_a_batch_of_one():
    (a, _), b = make(bidirectional=True), 4
    each = {name: a[name][:, b] for name in ("xs", "resets")}
    h0, again = ([h[b] if h.ndim == 2 else h for h in a[n]] for n in ("h0", "reset_state"))
    one = jrnn.stack(a["params"], each["xs"], h0, LENGTHS[b], each["resets"], again)
    h_last, hs = jrnn.stack(**a)
    assert_close(one, (tuple(h[b] for h in h_last), hs[:, b]), LAW_RTOL)
    mapped = jax.vmap(jrnn.stack, (None, 0, None, 0, 0))(
        a["params"], a["xs"].swapaxes(0, 1), None, LENGTHS, a["resets"].T
    )
    batch = jrnn.stack(a["params"], a["xs"], None, LENGTHS, a["resets"])
    assert_close((mapped[0], mapped[1].swapaxes(0, 1)), batch, LAW_RTOL)


def test_what_is_left_out():
    """No state is zeros, no lengths are all steps, ids are one-hot, no key is no dropout."""
    arguments, _ = make(bidirectional=True, bias=False)
    params, ids = arguments["params"], np.arange(T * B).reshape(T, B) % I
    zeros = (np.zeros(8), np.zeros((B, 12)))
    all_steps, no_reset = np.full(B, T), np.zeros((T, B), bool)
    given = jrnn.stack(params, np.eye(I)[ids], zeros, all_steps, no_reset, zeros, dropout=0.5)
    assert_close(jrnn.stack(params, ids, key=KEY), given, LAW_RTOL)
    assert_close(jrnn.stack(params, ids, (None, None)), given, LAW_RTOL)


def test_remat_changes_nothing():
    case = full_case()
    assert_close(full(case, remat=True), full(case), 10 * LAW_RTOL)


@pytest.mark.usefixtures("float32")
def test_half_precision():
    params = parameters(jrnn.init_stack, I, (4, 4), bidirectional=True, layer_norm=True)
    xs = np.random.default_rng(1).normal(size=(T, B, I)).astype(np.float32)
    h_last, hs = jrnn.stack(params, xs, lengths=LENGTHS, compute_dtype=jnp.bfloat16)
    assert [h.dtype for h in h_last] == [jnp.float32] * 2
    assert hs.dtype == jrnn.mean_over_time(hs, LENGTHS).dtype == jnp.bfloat16
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, xs))
    outputs = jrnn.stack(*narrow, lengths=LENGTHS, key=KEY, dropout=0.0)
    assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype(jnp.bfloat16)}
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (outputs[1], hs))
    np.testing.assert_allclose(*wide, atol=0.1)


def test_of_every_layer_its_states_and_outputs_are_kept():
    (arguments, _), n = make(layer_norm=True), T * B * 4
    params, xs = arguments["params"], arguments["xs"]
    _, vjp = jax.vjp(lambda params: jrnn.stack(params, xs, None, LENGTHS), params)
    large = sorted(leaf.shape for leaf in jax.tree.leaves(vjp) if leaf.size >= n)
    assert large == [(T, B, 4), (T, B, 4), (T, B, 6)]  # the last outputs are not


@pytest.mark.usefixtures("every_guard")
def test_strict_settings():
    run = values_and_cotangents.__wrapped__  # what has been traced before would not be again
    _, gradients = run(*full_case(), KEY, dropout=P, residual=True)
    assert all(np.isfinite(d).all() for d in jax.tree.leaves(gradients))


# --- dropout -------------------------------------------------------------------------------------


def test_a_dropout_mask():
    rate, shape = 0.3, (20, 50, 7)
    mask = np.asarray(jrnn.dropout_mask(KEY, rate, shape))
    assert np.isin(mask, [0, 1 / (1 - rate)]).all()
    assert abs(mask.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / mask.size)
    assert len({step.tobytes() for step in mask}) == 20  # another one at every step
    assert (jrnn.dropout_mask(KEY, 0.0, shape) == 1).all()
    traced = jax.eval_shape(lambda p: jrnn.dropout_mask(KEY, p, shape, jnp.bfloat16), rate)
    assert traced.dtype == jnp.bfloat16


def test_dropout_leaves_the_last_layer_alone():
    params = make(hidden_sizes=(4, 5))[0]["params"]
    _, hs = jrnn.stack(params, np.ones((T, B, I)), key=KEY, dropout=0.9)
    assert (hs != 0).all()


def test_without_a_key_one_layer_drops_nothing():
    params = make(hidden_sizes=(4,))[0]["params"]
    xs = np.ones((T, B, I))
    assert_close(jrnn.stack(params, xs, dropout=0.9), jrnn.stack(params, xs), rtol=0.0)


# --- the mean over time --------------------------------------------------------------------------


@pytest.mark.parametrize("poison", [0.0, np.nan, np.inf])
def test_the_mean_is_of_what_is_not_padding(poison):
    rng = np.random.default_rng(0)
    hs, dmean = rng.normal(size=(T, B, I)), rng.normal(size=(B, I))
    counts = np.maximum(LENGTHS, 1)[:, None]
    expected = np.stack([hs[:n, b].sum(0) for b, n in enumerate(LENGTHS)]) / counts
    inside = np.arange(T)[:, None] < LENGTHS
    found, vjp = jax.vjp(
        lambda hs: jrnn.mean_over_time(hs, LENGTHS), np.where(inside[..., None], hs, poison)
    )
    assert_close(found, expected)
    assert_close(vjp(jnp.asarray(dmean))[0], np.where(inside[..., None], dmean / counts, 0))


def test_the_mean_of_one_sequence_and_of_one_length():
    hs = np.arange(T * B * I, dtype=float).reshape(T, B, I)
    assert_close(jrnn.mean_over_time(hs), hs.mean(0))
    assert_close(jrnn.mean_over_time(hs, 4), hs[:4].mean(0))
    assert_close(jrnn.mean_over_time(hs[:, 0], 4), hs[:4, 0].mean(0))
    clipped = jax.jit(jrnn.mean_over_time)(hs, LENGTHS + 9)
    assert_close(clipped, hs.mean(0))


# --- parameters ----------------------------------------------------------------------------------


def test_parameters():
    params = jrnn.init_stack(
        jax.random.key(0), I, (4, 6), bidirectional=True, bias=False, dtype=jnp.float32
    )
    assert [layer.forward.w_ih.shape for layer in params.layers] == [(I, 4), (8, 6)]
    assert [layer.norm for layer in params.layers] == [None, None]
    leaves = jax.tree.leaves(params)
    assert len(leaves) == 8
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
    assert len({np.asarray(leaf).tobytes() for leaf in leaves}) == 8  # no draw twice
    norm = jrnn.init_stack(jax.random.key(0), I, [4], layer_norm=True).layers[0].norm
    assert_close(norm, jrnn.LayerNormParams(np.ones(4), np.zeros(4)), rtol=0.0)


def test_norm_is_norm():
    """Of a stack that starts so: mean 0, variance 1, but for epsilon."""
    params = jrnn.init_stack(jax.random.key(0), I, (16,), layer_norm=True)
    hs = np.asarray(jrnn.stack(params, make()[0]["xs"])[1])
    np.testing.assert_allclose(hs.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(hs.var(-1), 1, rtol=1e-2)
