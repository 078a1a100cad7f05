"""The perceptual decision: its trials, its network, and a toy run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import perceptual_decision
import perceptual_network as own
import pytest
from cases import assert_close
from programs import unboxed

pytestmark = pytest.mark.usefixtures("float32")
TOY = ["--hidden-size=10", "--batch-size=4", "--steps=60", "--tests=8", "--starts=6"]
H = 10


def test_the_trials():
    coherence = jnp.array([16.0, -4.0, 1.0])
    motion = jnp.array([80.0, 500.0, 1500.0])
    trials = own.make_trials(jax.random.key(0), coherence, motion)
    u, z, counted = map(np.asarray, trials[:3])
    begin, end = 5, 5 + np.array([4, 25, 75])
    assert (own.STEPS, trials.last.tolist()) == (95, (end + 14).tolist())
    t = np.arange(own.STEPS)[:, None]
    moving, decided = (t >= begin) & (t < end), (t >= end) & (t < end + 15)
    strength = (1 + 0.032 * np.array([16, -4, 1])) / 2
    np.testing.assert_allclose(u[..., 0], moving * strength, atol=0.2)  # of the noise
    np.testing.assert_allclose(u[..., 1], moving * (1 - strength), atol=0.2)
    np.testing.assert_allclose(u[..., 2], np.broadcast_to(t >= begin, u.shape[:2]), atol=0.2)
    assert (u >= 0).all()
    np.testing.assert_array_equal(counted, (t < begin) | decided)
    right = np.array([True, False, True])
    np.testing.assert_allclose(z[..., 0], np.where(decided & right, 1, 0.2), rtol=1e-6)
    np.testing.assert_allclose(z[..., 1], np.where(decided & ~right, 1, 0.2), rtol=1e-6)


def test_random_trials():
    trials = own.random_trials(jax.random.key(0), jnp.asarray(own.COHERENCES), 2000)
    answer = np.asarray(trials.targets)[trials.last, np.arange(2000)]
    assert 0.45 < (answer[:, 0] > 0.5).mean() < 0.55
    motion = own.DT * (np.asarray(trials.last) + 1) - own.FIXATION - own.DECISION
    assert (motion.min(), motion.max()) == (80, 1500)
    assert 380 < motion.mean() < 410  # 80 and an exponential of 330, which is cut and rounded down


def test_dales_law():
    free = own.init_free(jax.random.key(0), H)
    # Training makes free parameters of either sign.
    free = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), free)
    model = own.model_of(free)
    w_hh, w_ho = np.asarray(model.recurrent.w_hh), np.asarray(model.readout.w_ho)
    assert (w_hh[:8] >= 0).all()
    assert (w_hh[8:] <= 0).all()
    assert (w_hh[:8] > 0).any()
    assert (w_hh[8:] < 0).any()
    assert not np.diagonal(w_hh).any()
    assert (w_ho >= 0).all()
    assert not w_ho[8:].any()
    assert (model.w_in >= 0).all()


def test_a_new_network_is_balanced():
    free = own.init_free(jax.random.key(0), 100)
    w_hh = np.asarray(own.model_of(free).recurrent.w_hh)
    assert np.abs(np.linalg.eigvals(w_hh)).max() == pytest.approx(1.5, rel=1e-4)
    assert w_hh[:80].sum() == pytest.approx(-w_hh[80:].sum(), rel=0.05)


@pytest.mark.slow
def test_the_loss_and_its_gradient_are_those_of_a_plain_scan():
    free = own.init_free(jax.random.key(0), H)
    trials = own.random_trials(jax.random.key(1), jnp.asarray(own.COHERENCES), 3)
    noise = own.draw_noise(jax.random.key(2), trials, H)
    assert np.asarray(noise).std() == pytest.approx(0.15 * np.sqrt(2 / 0.2), rel=0.05)
    found, expected = (
        jax.jit(jax.value_and_grad(lambda free, run=run: own.loss(free, trials, noise, run)))(free)
        for run in (own.run, own.run_plain)
    )
    assert_close(found, expected, 1e-4)
    # The loss is a mean over the steps that count.
    hs = own.run_plain(own.model_of(free).recurrent, trials.inputs @ free.w_in + noise)
    z = np.asarray(hs) @ own.model_of(free).readout.w_ho
    errors = np.square(z - trials.targets).mean(-1)[np.asarray(trials.counted)]
    assert float(found[0]) == pytest.approx(errors.mean(), rel=1e-4)


@pytest.mark.slow
def test_a_toy_run(tmp_path, capsys):
    assert perceptual_decision.main(["--out", str(tmp_path), *TOY]) == 0
    found = json.loads((tmp_path / "perceptual_decision.json").read_text())
    assert (tmp_path / "perceptual_decision.png").read_bytes().startswith(b"\x89PNG")
    assert len(found["losses"]) == 60
    assert np.mean(found["losses"][-10:]) < found["losses"][0]
    assert set(found["right"]) == {str(s * c) for c in own.COHERENCES for s in (1, -1)}
    assert found["correct"]["16"] == pytest.approx(
        (found["right"]["16"] + 1 - found["right"]["-16"]) / 2
    )
    assert found["milliseconds of a gradient"]["difference"] < 1e-4
    printed = capsys.readouterr().out
    assert "correct answers (%) by coherence: 1 %: " in printed
    assert printed.count("fixed point, ") == len(found["points"])


@pytest.mark.parametrize(
    "option", ["--steps=0", "--speed=-1", "--hidden-size=x", "--hidden-size=4", "--seed=-1"]
)
def test_options_that_are_none(option, capsys):
    with pytest.raises(SystemExit):
        perceptual_decision.main([option])
    assert option.split("=")[0] in unboxed(capsys.readouterr().err)


def test_sizes_that_cannot_fit(tmp_path, capsys):
    status = perceptual_decision.main(["--out", str(tmp_path), "--hidden-size=1000000"])
    assert status == 1
    assert capsys.readouterr().err.startswith("error: memory: expected at least ")
