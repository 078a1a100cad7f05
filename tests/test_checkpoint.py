"""Checkpoints: what is written comes back bit for bit, and what is broken is never believed."""

import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jrnn
from jrnn import checkpoint, orbax_manager
from jrnn.checkpoint import Checkpoints, restore
from jrnn.parallel import batch_mesh
from jrnn.training import init_train_state

B, H = 4, 6
MANIFEST = {"rows": [{"step": 1, "bits": 0.1 + 0.2}], "text": "é", "none": None}


def make_state(seed=0, hidden=H, mesh=None, states=1):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "w": jax.random.normal(keys[0], (hidden, hidden)),
        "b": jax.random.normal(keys[1], (hidden,), jnp.bfloat16),
    }
    carry = jax.random.normal(keys[2], (B, hidden))
    carry = carry if states == 1 else jrnn.LSTMState(carry, 2 * carry)
    return init_train_state(params, optax.adam(1e-3), carry, jax.random.key(seed), mesh=mesh)


def data_of(state):
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(data_of(a)), jax.tree.leaves(data_of(b)), strict=True):
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def steps_in(directory):
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def test_numpy_arrays_come_back_as_they_were_when_they_were_saved(tmp_path):
    state = {"w": np.ones(3), "n": np.int32(4)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        state["w"][:] = 2  # while it is written in the background
        checkpoints.wait()
        found = restore(checkpoints.latest(), state)
    assert found["w"].tolist() == [1, 1, 1]
    assert found["n"] == 4
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="state, w: expected"),
    ):
        checkpoints.save(2, {"w": 1.0}, {})


@pytest.mark.usefixtures("float32")
def test_64_bits_are_not_narrowed_to_32(tmp_path):
    state = {"n": np.int64(2**40), "w": np.full(2, 1 + 1e-12)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        found = checkpoints.latest()
    assert restore(found, state)["n"] == 2**40
    assert restore(found, state)["w"].tolist() == state["w"].tolist()
    expected = r"n: expected int32\[\]; got int64\[\]. It has 64 bits: jax.config.update"
    for like in (jax.tree.map(jnp.asarray, state), jax.eval_shape(lambda: state)):
        with pytest.raises(ValueError, match=expected):
            restore(found, like)


@pytest.mark.parametrize("state", [{}, {"none": np.zeros((0, 3), np.int8)}, np.zeros(0)])
@pytest.mark.parametrize("beside", [[], [np.ones(2)]])
def test_arrays_of_size_zero_and_states_without_arrays(state, beside, tmp_path):
    state = [state, *beside]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        back = restore(checkpoints.latest(), state)
    jax.tree.map(partial(np.testing.assert_array_equal, strict=True), back, state)


def test_the_types_of_a_state_are_enough_for_its_random_key(tmp_path):
    key = jax.random.key(3, impl="rbg")
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"key": key}, {})
        back = restore(checkpoints.latest(), jax.eval_shape(lambda: {"key": key}))
    assert back["key"].dtype == key.dtype
    assert jax.random.bits(back["key"]) == jax.random.bits(key)


def test_restored_parameters_run_on_a_mesh(tmp_path):
    """They are committed to a device only where the state that they replace is."""
    mesh, w = batch_mesh(2), jnp.ones((4, 2))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": w}, {})
        found = checkpoints.latest()
    split = jax.device_put(w, NamedSharding(mesh, PartitionSpec("batch")))
    back = restore(found, {"w": w})["w"]
    np.testing.assert_array_equal(back + split, 2 * w)
    jax.jit(lambda x: 0 * x, donate_argnums=0)(back).block_until_ready()
    np.testing.assert_array_equal(restore(found, {"w": w})["w"], w)
    assert restore(found, {"w": jax.device_put(w, jax.devices()[1])})["w"].committed


def test_who_reads_leaves_what_another_process_is_writing(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(), {})
    writing = tmp_path / f"2{orbax_manager.orbax().path.step.TMP_DIR_SUFFIX}"
    writing.mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest().step == 1
        assert writing.exists()
        checkpoints.save(3, make_state(), {})
        assert not writing.exists()  # of a run that was killed: one process writes


def test_who_reads_sees_what_another_process_has_written(tmp_path):
    """An evaluation beside a training run opens the directory once, and reads again and again."""
    write = """if True:
        import sys
        from jrnn.checkpoint import Checkpoints
        import numpy as np
        with Checkpoints(sys.argv[1], keep=1) as checkpoints:
            for step in map(int, sys.argv[2:]):
                checkpoints.save(step, {"w": np.full(2, step)}, {}, score=1 / step)
    """
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        for steps in (["1"], ["2", "3"]):
            subprocess.run([sys.executable, "-c", write, str(tmp_path), *steps], check=True)
            for found in (checkpoints.latest(), checkpoints.best()):
                assert found.step == found.arrays["w"][0] == int(steps[-1])


def test_a_checkpoint_that_another_process_removes_meanwhile_is_passed_over(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"w": np.full(2, step)}, {})
    with Checkpoints(tmp_path) as checkpoints:
        listed = checkpoints._latest_first()
        monkeypatch.setattr(checkpoints, "_latest_first", lambda: listed)
        shutil.rmtree(tmp_path / "2")
        assert checkpoints.latest(say=pytest.fail).step == 1
    assert steps_in(tmp_path) == [1]


@pytest.mark.parametrize("states", [1, 2], ids=["h", "LSTMState"])
@pytest.mark.parametrize("devices", [None, 2])
def test_a_state_comes_back_bit_for_bit_on_other_devices_too(devices, states, tmp_path):
    mesh = devices and batch_mesh(devices)
    make = partial(make_state, states=states)
    state = make(mesh=mesh)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state, MANIFEST)
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.latest()
    assert (found.step, found.manifest) == (7, MANIFEST)
    for like in (make(1, mesh=mesh), make(1), make(1, mesh=batch_mesh(2))):
        back = restore(found, like)
        assert_same(back, state)
        for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(like), strict=True):
            assert x.sharding.is_equivalent_to(y.sharding, x.ndim)


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    state = make_state()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, score in enumerate([3.0, 1.0, None, 2.0, 5.0], 1):
            checkpoints.save(step, state, {}, score)
        checkpoints.save(5, make_state(1), {}, exist_ok=True)  # there already
        checkpoints.wait()
        assert steps_in(tmp_path) == [2, 4, 5]
        assert_same(restore(checkpoints.latest(), state), state)
        assert (checkpoints.best().step, checkpoints.latest().step) == (2, 5)
        checkpoints.clear()
        assert (steps_in(tmp_path), checkpoints.latest(), checkpoints.best()) == ([], None, None)


def test_the_best_is_of_the_lowest_score_and_of_equal_ones_the_latest(tmp_path):
    scores = {1: 2.0, 2: 1.0, 3: 1.0, 4: None, 5: float("nan"), 6: 3.0}
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        checkpoints.save(0, {"w": jnp.zeros(2)}, {})
        checkpoints.wait()
        assert (checkpoints.best(), checkpoints.latest().step) == (None, 0)
        for step, score in scores.items():
            checkpoints.save(step, {"w": jnp.full(2, step)}, {}, score)
    with Checkpoints(tmp_path, keep=9) as checkpoints:  # of another process
        for step in (3, 2, 1):
            found = checkpoints.best(pytest.fail)
            assert (found.step, found.arrays["w"][0]) == (step, step)
            shutil.rmtree(tmp_path / str(step) / "state")
            with pytest.warns(UserWarning, match=f"{step}: expected a whole checkpoint"):
                found = checkpoints.best()
        assert found.step == 6
        cut(tmp_path / "6" / "manifest" / "metadata")  # the score is not known
        with pytest.warns(UserWarning, match="6: expected a whole checkpoint"):
            assert checkpoints.best() is None


def test_what_is_being_written_is_waited_for(tmp_path):
    """The best is not the newest, since its score is not on the disk yet; `clear` leaves none."""
    big = {"w": jnp.zeros((1000, 1000))}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, big, {}, score=1.0)
        checkpoints.wait()
        checkpoints.save(2, big, {}, score=9.0)
        assert checkpoints.best(pytest.fail).step == 1
        checkpoints.save(3, big, {}, score=9.0)
        checkpoints.clear()
        assert checkpoints.latest(pytest.fail) is None
    assert not [path for path in tmp_path.iterdir() if path.name.isdigit()]


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")])
def test_a_checkpoint_that_the_machine_cannot_read_now_stays(tmp_path, monkeypatch, error):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.zeros(2)}, {})

    def fails(*arguments):
        raise error

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints, "_read", fails)
        with pytest.raises(type(error)):
            checkpoints.latest(pytest.fail)
    assert (tmp_path / "1").is_dir()


def test_a_url_is_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="directory: expected a path; got 'gs://bucket/run'"):
        Checkpoints("gs://bucket/run")
    assert not list(tmp_path.iterdir())


SCORES = [5.0, 1.0, 4.0, None, float("nan"), 3.0, 2.0]
RESUMED = {
    "no scores": (7 * [None], [[1, 2], [3, 4], [5, 6], [6, 7]]),
    "equal scores": (7 * [1.0], [[1, 2], [3, 4], [5, 6], [6, 7]]),
    "scores": (SCORES, [[1, 2], [2, 3, 4], [2, 5, 6], [2, 6, 7]]),
}


@pytest.mark.parametrize("name", RESUMED)
def test_those_of_earlier_processes_count(name, tmp_path):
    (scores, remain), found = RESUMED[name], []
    for steps in ((1, 2), (3, 4), (5, 6), (7,)):
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            for step in steps:
                checkpoints.save(step, {"w": jnp.zeros(2)}, {}, scores[step - 1])
        found.append(steps_in(tmp_path))
    assert found == remain


def test_what_a_killed_process_did_not_remove_the_next_one_does(tmp_path):
    """It is killed between the last step of a save and the removal of the oldest one."""
    with Checkpoints(tmp_path / "whole", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"w": jnp.zeros(2)}, {})
            checkpoints.wait()
            whole = tmp_path / "whole" / str(step)
            shutil.copytree(whole, tmp_path / "killed" / str(step))
    with Checkpoints(tmp_path / "killed", keep=2) as checkpoints:
        assert checkpoints.latest().step == 3
        assert steps_in(tmp_path / "killed") == [1, 2, 3]
        checkpoints.save(4, {"w": jnp.zeros(2)}, {})
    assert steps_in(tmp_path / "killed") == [3, 4]


def test_a_checkpoint_without_a_score_or_a_manifest_is_no_best_one(tmp_path):
    """One of version 0.2.0 has no score; of a broken one it is not known."""
    for step in (1, 2, 3):
        with Checkpoints(tmp_path, keep=3) as checkpoints:
            checkpoints.save(step, {"w": jnp.zeros(2)}, {}, float(step))
    manifests = [tmp_path / str(step) / "manifest" / "metadata" for step in (1, 2)]
    manifests[0].write_text(manifests[0].read_text().replace('"score": 1.0, ', ""))
    cut(manifests[1])
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(4, {"w": jnp.zeros(2)}, {}, 4.0)
    assert steps_in(tmp_path) == [3, 4]


def test_a_number_that_is_not_above_all_others_is_refused(tmp_path):
    state = {"w": jnp.zeros(2)}
    for again in (False, True):  # in this process, and in the next
        with Checkpoints(tmp_path) as checkpoints:
            if not again:
                checkpoints.save(80, state, {})
            for step in (3, 80):
                said = rf"step: expected a number above 80, .* in {tmp_path}; got {step}\. Go on"
                with pytest.raises(ValueError, match=said):
                    checkpoints.save(step, {"w": jnp.ones(2)}, {})
            with pytest.raises(ValueError, match="step: expected"):
                checkpoints.save(3, state, {}, exist_ok=True)
            assert checkpoints.latest().arrays["w"].sum() == 0
    assert steps_in(tmp_path) == [80]


@pytest.mark.parametrize("step", [1500.0, np.float32(2), -1, True, "5", np.arange(2), None])
def test_a_number_that_is_no_count_is_refused(step, tmp_path):
    """orbax would write it, and not find it again."""
    said = r"step: expected an integer >= 0; got .* int\(step\)"
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match=said):
        checkpoints.save(step, {"w": jnp.zeros(2)}, {})
    assert steps_in(tmp_path) == []


def test_integers_of_numpy_and_jax_count(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (0, np.int64(1), jnp.int32(2)):
            checkpoints.save(step, {"w": jnp.zeros(2)}, {})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest().step == 2
    assert steps_in(tmp_path) == [0, 1, 2]


def test_a_score_that_is_no_number_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r"score: expected a number or None; got 'low'\."):
            checkpoints.save(1, {"w": jnp.zeros(2)}, {}, score="low")
        checkpoints.save(1, {"w": jnp.zeros(2)}, {}, score=np.float32(2))
    assert steps_in(tmp_path) == [1]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def arrays_of(step):
    return [p for p in (step / "state").rglob("*") if p.parent.name == "d"]


BREAKS = {
    "flipped arrays": (flip, arrays_of),
    "cut arrays": (cut, arrays_of),
    "lost arrays": (Path.unlink, arrays_of),
    "flipped manifest": (flip, lambda step: [step / "manifest" / "metadata"]),
    "cut manifest": (cut, lambda step: [step / "manifest" / "metadata"]),
    "lost folder": (shutil.rmtree, lambda step: [step / "state"]),
}
OLDER, NEWER = 0, 1  # seeds


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    with Checkpoints(directory) as checkpoints:
        for step, seed in enumerate((OLDER, NEWER), 1):
            checkpoints.save(step, make_state(seed, 40), MANIFEST)
    return directory


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_checkpoint_is_refused_and_the_one_before_is_taken(
    name, two_checkpoints, tmp_path
):
    shutil.copytree(two_checkpoints, tmp_path, dirs_exist_ok=True)
    do, which = BREAKS[name]
    for path in which(tmp_path / "2"):
        do(path)
    older, newer, said = make_state(OLDER, 40), make_state(NEWER, 40), []
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(restore(checkpoints.latest(said.append), newer), older)
        (sentence,) = said
        assert sentence.startswith(f"checkpoint {tmp_path / '2'}: expected a whole checkpoint, as")
        assert sentence.endswith("It is 2.refused now; the next one is taken.")
        checkpoints.save(2, newer, MANIFEST)  # the run comes by again
        checkpoints.wait()
        assert_same(restore(checkpoints.latest(), older), newer)


@pytest.mark.parametrize("do", [flip, cut, Path.unlink])
def test_any_file_may_break_and_nothing_wrong_is_believed(do, two_checkpoints, tmp_path):
    """Some bytes are read by nobody; a checkpoint that has lost those is still whole."""
    states = {step: make_state(seed, 40) for step, seed in enumerate((OLDER, NEWER), 1)}
    files = sorted(p for p in (two_checkpoints / "2").rglob("*") if p.is_file())
    refused = 0
    for i, path in enumerate(files):
        copy = shutil.copytree(two_checkpoints, tmp_path / str(i))
        do(copy / path.relative_to(two_checkpoints))
        said = []
        with Checkpoints(copy) as checkpoints:
            found = checkpoints.latest(said.append)
        assert_same(restore(found, states[1]), states[found.step])
        assert found.step + len(said) == 2
        refused += len(said)
    assert 2 <= refused < len(files)


def test_a_sum_that_is_right_for_other_values_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(0), MANIFEST)
    path = tmp_path / "1" / "manifest" / "metadata"
    path.write_text(path.read_text().replace("0.30000000000000004", "0.3"))
    with pytest.warns(UserWarning, match="a SHA-256 that does"), Checkpoints(tmp_path) as found:
        assert found.latest() is None


def test_a_directory_is_no_checkpoint_and_an_array_no_json(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            ValueError, match="manifest: expected a JSON object; got Object of type"
        ):
            checkpoints.save(1, {"w": np.ones(2)}, {"loss": np.float32(1)})
        endless = {}
        endless["endless"] = endless
        with pytest.raises(ValueError, match="manifest: expected a JSON object; got Circular"):
            checkpoints.save(1, {"w": np.ones(2)}, endless)
        said = r"manifest\.a\.1: expected keys that are text; got 1\. JSON has no others\."
        with pytest.raises(ValueError, match=said):  # one of the two would be lost
            checkpoints.save(1, {"w": np.ones(2)}, {"a": (0, {"1": "x", 1: "y"})})
        assert checkpoints.latest() is None
    with pytest.raises(ValueError, match="checkpoint: expected a Checkpoint; got 'run'"):
        restore("run", {"w": np.ones(2)})
    with pytest.raises(ValueError, match=r"expected a Checkpoint; got None\. None was saved yet"):
        restore(None, {"w": np.ones(2)})


def test_a_number_of_python_in_the_state_to_restore_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"n": jnp.ones(())}, {})
        said = r"like, n: expected an array; got float. Convert it by jnp.asarray\."
        with pytest.raises(ValueError, match=said):
            restore(checkpoints.latest(), {"n": 1.0})


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(), MANIFEST)
        found = checkpoints.latest()
    with pytest.raises(ValueError, match=r"1, params.b: expected bfloat16\[3\]; got bfloat16\[6\]"):
        restore(found, make_state(hidden=3))
    with pytest.raises(ValueError, match=r"opt_state.0.count: expected no such array; got int"):
        restore(found, make_state()._replace(opt_state=()))
    carry = r"1, carry: expected no such array; got float.*The parameters fit: restore part"
    with pytest.raises(ValueError, match=carry):
        restore(found, make_state(states=2))


def test_the_parameters_alone_take_no_optimiser(tmp_path):
    state = make_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, MANIFEST)
        found = checkpoints.latest()
    other = make_state(1).params
    for part, like, saved in [
        ("params", other, state.params),
        ("params.w", other["w"], state.params["w"]),
        ("step", jnp.ones_like(state.step), state.step),
        ("key", jax.random.key(1), state.key),
    ]:
        back = restore(found, like, part=part)
        for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(saved), strict=True):
            assert x.dtype == y.dtype
            assert (x == y).all()
    name = f"checkpoint {tmp_path / '1'}"
    parts = "carry, key, nonfinite, opt_state, params, step"
    for part in ("weights", "param", "params.v", ""):
        with pytest.raises(ValueError, match=f"{name}: expected a part {part}; got {parts}\\. It"):
            restore(found, other, part=part)
    with pytest.raises(ValueError, match=r"1, params\.w: expected \w+\[3, 3\]; got \w+\[6, 6\]"):
        restore(found, other | {"w": jnp.zeros((3, 3))}, part="params")
    for like, came in [
        ({"w": other["w"]}, "b: expected no such array; got bfl"),
        (other | {"c": other["b"]}, r"c: expected bfloat16\[6\]; got no such array"),
    ]:
        with pytest.raises(ValueError, match=rf"1, params\.{came}"):
            restore(found, like, part="params")
    with pytest.raises(ValueError, match=r'It has these arrays .*: give part="params"\.$'):
        restore(found, other)
    with pytest.raises(ValueError, match=r"It is of another model or optimiser: give the options"):
        restore(found, {"w": other["w"]})


def test_two_paths_that_look_alike_are_two(tmp_path):
    state = {
        "a": {"b": jnp.zeros(2), "": jnp.full(2, 1.0)},
        "a.b": jnp.full(2, 2.0),
        "a.": jnp.full(2, 3.0),
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        back = restore(checkpoints.latest(), jax.tree.map(jnp.ones_like, state))
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_a_disk_that_is_full_is_said_and_costs_no_older_checkpoint(tmp_path):
    """A limit on the size of files stands for the disk."""
    state, soft_hard = make_state(0, 64), resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, MANIFEST)
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, soft_hard[1]))
        try:
            checkpoints.save(2, state, MANIFEST)
            with pytest.raises(OSError, match=r"a checkpoint was not written to .*too large"):
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, soft_hard)
        assert checkpoints.latest().step == 1
        checkpoints.save(3, state, MANIFEST)
        checkpoints.wait()
        assert checkpoints.latest().step == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which files are open")
def test_what_a_failed_write_still_has_open_is_waited_for(tmp_path):
    """TensorStore reports a failed write before it closes the file, which takes space until then.

    A thread that does the same by a clock of events: it closes its file when it has seen it go.
    """
    unfinished = tmp_path / f"3{orbax_manager.orbax().path.step.TMP_DIR_SUFFIX}"
    unfinished.mkdir()
    file = (unfinished / "part").open("wb")

    def close_when_removed():
        while os.fstat(file.fileno()).st_nlink:
            time.sleep(0.001)
        time.sleep(0.05)
        file.close()

    writer = threading.Thread(target=close_when_removed)
    writer.start()
    orbax_manager.remove_unfinished(tmp_path)
    assert file.closed
    assert list(tmp_path.iterdir()) == []
    writer.join()


def test_a_directory_that_vanishes_is_said_at_once(tmp_path):
    with Checkpoints(tmp_path / "there") as checkpoints:
        shutil.rmtree(tmp_path / "there")
        (tmp_path / "there").touch()
        with pytest.raises(OSError, match=r"a checkpoint was not written to .*Not a directory"):
            checkpoints.save(1, make_state(), MANIFEST)


def directory_of_bytes(parent):
    return parent / os.fsdecode(b"\xff")


@pytest.fixture
def unchecked(monkeypatch, caplog):
    """Such a path goes as far as to orbax, whose log has it too, which no worker may report."""
    monkeypatch.setattr(checkpoint, "check_utf8", lambda *arguments: None)
    caplog.set_level(logging.CRITICAL, logger="absl")


def test_a_path_that_is_another_one_in_utf8_is_refused(tmp_path, monkeypatch):
    said = r"directory: expected a path in UTF-8; got '.*(udcff|xe9).* or a UTF-8 locale"
    for path in (directory_of_bytes(tmp_path), directory_of_bytes(tmp_path) / "inside"):
        with pytest.raises(ValueError, match=said):
            Checkpoints(path)
    directory_of_bytes(tmp_path).mkdir()
    monkeypatch.chdir(directory_of_bytes(tmp_path))
    with pytest.raises(ValueError, match=said):
        Checkpoints("relative")
    monkeypatch.chdir(tmp_path)
    with Checkpoints("\xe9"):
        pass
    monkeypatch.setattr(os, "fsencode", lambda path: path.encode("latin-1"))
    with pytest.raises(ValueError, match=said):
        Checkpoints("\xe9")


@pytest.mark.usefixtures("unchecked")
def test_whatever_the_libraries_raise_is_an_oserror_with_its_reason(tmp_path):
    with Checkpoints(directory_of_bytes(tmp_path)) as checkpoints:
        checkpoints.save(1, make_state(), MANIFEST)
        with pytest.raises(OSError, match="a checkpoint was not written to") as caught:
            checkpoints.wait()
        assert isinstance(caught.value.__cause__, RuntimeError)
    assert list(directory_of_bytes(tmp_path).iterdir()) == []


@pytest.mark.parametrize("error", [AssertionError(), MemoryError(), TimeoutError("a\nb")])
def test_an_error_without_a_message_is_named(error, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", fail)
        reason = str(error)[:1] or type(error).__name__
        with pytest.raises(OSError, match=f"not written to {tmp_path}: {reason}$"):
            checkpoints.save(1, make_state(), {})
        error = KeyboardInterrupt()
        monkeypatch.setattr(checkpoints._manager, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(1, make_state(), {})


def test_the_save_after_an_interrupted_one_is_whole(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        handler = type(checkpoints._manager._checkpointer._handler)
        save = handler.async_save

        async def interrupted(*args, **kwargs):
            await save(*args, **kwargs)
            raise KeyboardInterrupt

        monkeypatch.setattr(handler, "async_save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(1, {"w": jnp.zeros(2)}, {})
        monkeypatch.undo()
        assert not list(tmp_path.iterdir())
        checkpoints.save(1, {"w": jnp.ones(2)}, {})
        assert checkpoints.latest(pytest.fail).arrays["w"].sum() == 2


def test_a_thread_that_was_interrupted_before_its_start_is_not_waited_for(tmp_path, monkeypatch):
    thread = type("Thread", (threading.Thread,), {"__module__": "orbax.checkpoint"})()
    monkeypatch.setattr(threading, "enumerate", lambda: [thread])
    orbax_manager.remove_unfinished(tmp_path)


@pytest.mark.usefixtures("unchecked")
def test_a_failed_write_is_reported_once(tmp_path, monkeypatch):
    """Metadata and arrays are written by threads of their own, and both fail on a full disk."""

    def fail():
        if threading.current_thread() is not threading.main_thread():
            raise OSError("No space left on device")

    with Checkpoints(directory_of_bytes(tmp_path)) as checkpoints:
        metadata = checkpoints._manager._non_blocking_metadata_store
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "wait_until_finished", fail)
            checkpoints.save(1, make_state(), MANIFEST)
            with pytest.raises(OSError, match=r"not written to .*No space left"):
                checkpoints.wait()
        checkpoints.wait()


@pytest.mark.usefixtures("unchecked")
def test_a_failed_write_does_not_hide_the_error_before_it(tmp_path):
    checkpoints, first = Checkpoints(directory_of_bytes(tmp_path)), KeyError()
    checkpoints.save(1, make_state(), MANIFEST)
    assert not checkpoints.__exit__(KeyError, first, None)
    (note,) = first.__notes__
    assert note.startswith(f"a checkpoint was not written to {directory_of_bytes(tmp_path)}")


def test_bad_arguments(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Checkpoints(tmp_path / "file")
    with pytest.raises(
        ValueError, match=r"keep: expected a positive integer; got 0\. The least is 1\."
    ):
        Checkpoints(tmp_path, keep=0)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(
        ImportError,
        match=r"need orbax-checkpoint: pip install -e '\.\[train\]', in the clone of jrnn",
    ):
        Checkpoints(tmp_path)
