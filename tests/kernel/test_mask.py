"""Steps that are skipped wherever they stand: as if the steps that count were run alone."""

import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAW_RTOL, B, H, I, O, T, assert_close, make_case, sines
from test_lengths import LENGTHS, in_one_program, make_data, outputs_and_cotangents

import jrnn

RECORD = Path(__file__).parents[1] / "recorded/keras_masks.npz"
GAPS = np.random.default_rng(2).random((T, B)) < 0.6


def with_mask(mask, f=jrnn.rnn):
    """A function like `rnn` of the names in `test_lengths`, with a mask."""
    return lambda *arguments, **options: f(*arguments, mask, **options)


def everything(batch=True):
    """NaN wherever a step does not count; resets at skipped steps, the first one among them."""
    case, data = make_case(batch=batch), make_data(batch=batch, mask=True)
    mask = GAPS if batch else ~data["resets"]
    assert (data["resets"] & ~mask).sum() > 1
    xs, dhs = (np.where(mask[..., None], x, np.nan) for x in (case.xs, case.dhs))
    return case._replace(xs=xs, dhs=dhs), data | {"lengths": None}, mask


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_the_plain_scan_agrees(reverse):
    case, data, mask = everything()
    case = case._replace(xs=np.nan_to_num(case.xs))
    found, scan = (
        in_one_program(case, data, with_mask(mask, f), reverse=reverse)
        for f in (jrnn.rnn, jrnn.derivation.rnn_scan)
    )
    assert_close(found, scan)


def test_padding_on_the_right_is_lengths():
    case, data = make_case(), make_data(mask=True)
    mask = np.asarray(jrnn.sequence_mask(LENGTHS, T))
    for reverse in (False, True):
        by_lengths = outputs_and_cotangents(case, data, reverse=reverse)
        data_of = data | {"lengths": None}
        by_mask = outputs_and_cotangents(case, data_of, with_mask(mask), reverse=reverse)
        assert_close(by_mask, by_lengths, LAW_RTOL)


def test_a_mask_of_one_row_is_shared():
    case = make_case()
    one = jrnn.rnn(case.params, case.xs, case.h0, mask=GAPS[:, 0])
    each = jrnn.rnn(case.params, case.xs, case.h0, mask=np.repeat(GAPS[:, :1], B, 1))
    assert_close(one, each, 0.0)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("name", ["gaps", "left"])
def test_as_keras_does(name, reverse):
    """Its literal numbers; the outputs of skipped steps by `zero_output_for_mask`."""
    record = np.load(RECORD)
    params = jrnn.RNNParams(record["w_ih"], record["w_hh"], record["b_h"])
    xs, dhs, mask = (record[k].swapaxes(0, 1) for k in ("xs", "dhs", f"{name}.mask"))
    xs = np.where(mask[..., None], xs, np.nan)

    def cost(params):
        h_last, hs = jrnn.rnn(params, xs, mask=mask, reverse=reverse)
        return jnp.sum(hs * dhs), (h_last, hs.swapaxes(0, 1))

    (_, outputs), d = jax.value_and_grad(cost, has_aux=True)(params)
    key = f"{name}.{'reverse' if reverse else 'forwards'}"
    assert_close(outputs, (record[f"{key}.h_last"], record[f"{key}.hs"]))
    assert_close(d._asdict(), {k: record[f"{key}.d{k}"] for k in params._fields})


def test_differentiating_twice():
    case, data, mask = everything()
    case = case._replace(xs=np.nan_to_num(case.xs), dhs=np.nan_to_num(case.dhs))

    def slope(f):
        def cost(params):
            at = case._replace(params=params)
            return sines(outputs_and_cotangents(at, data, with_mask(mask, f)))

        return jax.jit(jax.grad(cost))(case.params)

    assert_close(slope(jrnn.rnn), slope(jrnn.derivation.rnn_scan))


def test_one_trace_for_all_masks():
    case = make_case()
    run = lambda mask: jrnn.rnn(case.params, case.xs, case.h0, mask=mask)
    run = jax.jit(chex.assert_max_traces(run, n=1))
    for mask in (GAPS, ~GAPS):
        assert_close(run(mask), jrnn.rnn(case.params, case.xs, case.h0, mask=mask), LAW_RTOL)


# --- the functions around it ---------------------------------------------------------------------


def compressed(mask, x):
    """The steps that count in front, and the lengths."""
    order = np.argsort(~mask, 0, kind="stable")
    moved = np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), 0)
    return moved, mask.sum(0)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_stack_is_that_of_the_steps_that_count(bidirectional):
    params = jrnn.init_stack(
        jax.random.key(0), I, (I, I), bidirectional=bidirectional, layer_norm=True
    )
    xs, lengths = compressed(GAPS, make_case().xs)
    residual = not bidirectional
    junk = np.where(GAPS[..., None], make_case().xs, np.nan)
    h_last, ys = jrnn.stack(params, junk, mask=GAPS, residual=residual)
    h_last_alone, alone = jrnn.stack(params, xs, None, lengths, residual=residual)
    moved, _ = compressed(GAPS, np.asarray(ys))
    assert_close((h_last, moved), (h_last_alone, alone), LAW_RTOL)
    assert not np.asarray(ys)[~GAPS].any()


@pytest.mark.parametrize("remat", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_the_objective_is_that_of_the_steps_that_count(remat):
    case = make_case()
    rng = np.random.default_rng(5)
    readout = jrnn.ReadoutParams(rng.normal(size=(H, O)), rng.normal(size=O))
    labels, weights = rng.integers(0, O, (T, B)), rng.random((T, B))

    def cost(params, readout, h0, xs, labels, weights, **data):
        J, h_last = jrnn.rnn_cross_entropy(
            params, readout, xs, labels, h0, weights=weights, remat=remat, **data
        )
        return J + jnp.sum(h_last * case.dh_last)

    gradient = jax.value_and_grad(cost, (0, 1, 2))
    at = (case.params, readout, case.h0)
    junk = np.where(GAPS[..., None], case.xs, np.nan), np.where(GAPS, labels, -1), weights
    found = gradient(*at, *junk, mask=GAPS)
    (xs, lengths), (ys, _), (ws, _) = (compressed(GAPS, x) for x in (case.xs, labels, weights))
    assert_close(found, gradient(*at, xs, ys, ws, lengths=lengths))


def test_the_mean_over_the_steps_that_count():
    hs = np.where(GAPS[..., None], make_case().dhs, np.nan)
    moved, lengths = compressed(GAPS, hs)
    assert_close(jrnn.mean_over_time(hs, mask=GAPS), jrnn.mean_over_time(moved, lengths), LAW_RTOL)
    none = jrnn.mean_over_time(hs, mask=np.zeros((T, B), bool))
    assert not np.asarray(none).any()
    one = jrnn.mean_over_time(hs[:, 0], mask=GAPS[:, 0])
    assert_close(one, np.nanmean(hs[:, 0], 0), LAW_RTOL)


# --- what is refused -----------------------------------------------------------------------------

REFUSED = {
    "numbers": (GAPS.astype(float), None, "mask: expected a bool dtype; got float64[7, 3]."),
    "a batch of another size": (GAPS[:, :2], None, "mask: expected shape [T] = [7] or [T, B]"),
    "other steps": (GAPS[1:], None, "mask: expected shape [T] = [7] or [T, B] = [7, 3]"),
    "beside lengths": (GAPS, LENGTHS, "mask: expected lengths or mask; got both."),
}


@pytest.mark.parametrize("wrong", REFUSED)
@pytest.mark.parametrize(
    "f",
    [
        lambda case, *ends: jrnn.rnn(case.params, case.xs, None, ends[1], mask=ends[0]),
        lambda case, *ends: jrnn.derivation.rnn_scan(
            case.params, case.xs, None, ends[1], mask=ends[0]
        ),
        lambda case, *ends: jrnn.mean_over_time(case.dhs, ends[1], ends[0]),
        lambda case, *ends: jrnn.stack(
            jrnn.StackParams((jrnn.LayerParams(case.params, None, None),)),
            case.xs,
            None,
            ends[1],
            mask=ends[0],
        ),
        lambda case, *ends: jrnn.rnn_cross_entropy(
            case.params,
            jrnn.ReadoutParams(np.ones((H, O)), None),
            case.xs,
            np.zeros((T, B), int),
            None,
            ends[1],
            mask=ends[0],
        ),
    ],
    ids=["rnn", "rnn_scan", "mean_over_time", "stack", "rnn_cross_entropy"],
)
def test_refused(f, wrong):
    mask, lengths, message = REFUSED[wrong]
    with pytest.raises(ValueError, match=re.escape(message)):
        f(make_case(), mask, lengths)
