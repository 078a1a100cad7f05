"""A run that is killed loses nothing: SIGKILL at random moments, alone and of two processes.

    python -m pytest -m slow -n 0 tests/test_kills_full.py              # four kills
    JRNN_KILLS=20 python -m pytest -m slow -n 0 tests/test_kills_full.py

JRNN_SEED repeats the moments of an earlier run, which prints its seed.
"""

import os
import random
import signal
import time

import jax
import numpy as np
import pytest
from test_processes import TEXT, finish, start, start_two

from jrnn.model_file import load_model

KILLS = int(os.environ.get("JRNN_KILLS", "4"))
SEED = int(os.environ.get("JRNN_SEED", str(time.time_ns() % 10**6)))
# Checkpoints so often that a good part of the time is spent in writing them.
OPTIONS = ["--hidden-size=64", "--length=16", "--batch-size=4", "--eval-every=500"]
OPTIONS += ["--steps=3000", "--checkpoint-every=20", "--resume"]
OF_TWO = [*OPTIONS, "--steps=200"]  # which meet at every step
HEARTBEAT_SECONDS = 30  # as in examples/char_lm.py: until then the other process has ended


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "table.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def uninterrupted(text_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    ((status, _, error),) = finish(start("--text", text_file, "--out", out, *OPTIONS))
    assert status == 0, error
    return out


def assert_same_end(out, whole):
    ours, expected = (load_model(d / "model.safetensors") for d in (out, whole))
    jax.tree.map(np.testing.assert_array_equal, ours[:2], expected[:2])
    assert ours[2] == expected[2]
    without_speed = [
        [line.rsplit(",", 1)[0] for line in (d / "metrics.csv").read_text().splitlines()]
        for d in (out, whole)
    ]
    assert without_speed[0] == without_speed[1]


def writing(out):
    """Whether a checkpoint is being written."""
    return any((out / "unfinished" / "checkpoints").glob("*tmp*"))


def await_the_moment(process, out, moment, within_a_write):
    """Wait for a time, and then for a write if that is asked for; or until the process ends."""
    deadline = time.monotonic() + moment
    while process.poll() is None:
        if time.monotonic() > deadline and (writing(out) or not within_a_write):
            return
        time.sleep(0.001)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_if_it_had_not_been(
    text_file, uninterrupted, tmp_path, capfd
):
    chance, in_writes, ended = random.Random(SEED), 0, 0
    for number in range(KILLS):
        process = start("--text", text_file, "--out", tmp_path, *OPTIONS)
        await_the_moment(process, tmp_path, chance.uniform(0, 12), within_a_write=number % 2)
        in_writes += writing(tmp_path)
        ended += process.poll() is not None
        process.kill()
        finish(process)
    ((status, _, error),) = finish(start("--text", text_file, "--out", tmp_path, *OPTIONS))
    with capfd.disabled():
        print(f"\nseed {SEED}: {KILLS} kills, {in_writes} within a write, {ended} after the end")
    assert status == 0, error
    assert "refused" not in error
    assert_same_end(tmp_path, uninterrupted)
    assert in_writes or ended


def start_two_and_wait(command, out):
    """Two processes that have a checkpoint and are writing the next."""
    two = start_two(*command)
    while two[0].poll() is None and not (out / "unfinished" / "checkpoints" / "20").exists():
        time.sleep(0.01)
    await_the_moment(two[0], out, 0, within_a_write=True)
    return two


def assert_resumed(command):
    ended = finish(*start_two(*command))
    assert [status for status, *_ in ended] == [0, 0], ended
    assert "resumed     checkpoint" in ended[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_one_of_two_processes_is_killed_and_the_other_ends(killed, text_file, tmp_path):
    command = ("--text", text_file, "--out", tmp_path, *OF_TWO)
    two = start_two_and_wait(command, tmp_path)
    two[killed].send_signal(signal.SIGKILL)
    began = time.monotonic()
    status, _, error = finish(two[1 - killed], two[killed])[0]
    assert time.monotonic() - began < HEARTBEAT_SECONDS + 10
    assert status != 0
    assert "another task died" in error or "stopped sending heartbeats" in error
    assert_resumed(command)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(
    signum, status, text_file, tmp_path
):
    command = ("--text", text_file, "--out", tmp_path, *OF_TWO)
    two = start_two_and_wait(command, tmp_path)
    for _ in range(3):  # an impatient person
        two[1].send_signal(signum)
    ended = finish(*two)
    assert [status for status, *_ in ended] == [0, status], ended
    assert "interrupted after step" in ended[0][1]
    assert_resumed(command)
