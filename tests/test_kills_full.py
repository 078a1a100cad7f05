"""A run that is killed loses nothing: SIGKILL at random moments, alone and of two processes.

    python -m pytest -m slow tests/test_kills_full.py              # four kills
    JRNN_KILLS=20 python -m pytest -m slow tests/test_kills_full.py

A moment is a step that has been saved, and half of the time a write that has begun: seconds would
mean another thing on every machine. JRNN_SEED repeats those of an earlier run, which has printed
it; pytest shows that of a run that fails.
"""

import os
import random
import signal
import time

import jax
import numpy as np
import pytest
from programs import finish, start, start_two

from jrnn.model_file import load_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_children")]
KILLS = int(os.environ.get("JRNN_KILLS", "4"))
SEED = int(os.environ.get("JRNN_SEED", str(time.time_ns() % 10**6)))
# Checkpoints so often that a good part of the time is spent in writing them.
OPTIONS = ["--hidden-size=64", "--length=16", "--batch-size=4", "--eval-every=500"]
CHECKPOINTS = "unfinished/checkpoints"  # of a run that goes on
STEPS = 1500
OPTIONS += [f"--steps={STEPS}", "--checkpoint-every=20", "--resume"]
OF_TWO = [*OPTIONS, "--steps=200"]  # which meet at every step
# JAX's own, after which the other process would have ended without that of examples/char_lm.py,
# which is 30; what is between them is for a machine that is slow.
DEFAULT_HEARTBEAT_SECONDS = 100


@pytest.fixture(scope="module")
def uninterrupted(quick_children, text_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    ((status, _, error),) = finish(start("--text", text_file, "--out", out, *OPTIONS))
    assert status == 0, error
    return out


def assert_same_end(out, whole):
    ours, expected = (load_model(d / "model.safetensors") for d in (out, whole))
    jax.tree.map(np.testing.assert_array_equal, ours[0], expected[0])
    assert ours[1] == expected[1]
    without_speed = [
        [line.rsplit(",", 1)[0] for line in (d / "metrics.csv").read_text().splitlines()]
        for d in (out, whole)
    ]
    assert without_speed[0] == without_speed[1]


# --- moments -------------------------------------------------------------------------------------


def latest(out):
    """The step of the last checkpoint, 0 where there is none."""
    return max((int(p.name) for p in (out / CHECKPOINTS).glob("[0-9]*[0-9]")), default=0)


def writing(out):
    """Whether a checkpoint is being written, or was when the run was killed."""
    return any((out / CHECKPOINTS).glob("*tmp*"))


def await_checkpoint(process, out, step):
    """Wait until the run has saved a step or a later one; it must not have ended."""
    while latest(out) < step:
        assert process.poll() is None, process.finish()
        time.sleep(0.001)


def stop_within_a_write(process, out):
    """Halt the process while it is writing a checkpoint; SIGCONT lets it go on."""
    while True:
        assert process.poll() is None, process.finish()
        if writing(out):
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if writing(out):
                return
            process.send_signal(signal.SIGCONT)
        time.sleep(0.001)


# --- tests ---------------------------------------------------------------------------------------


def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_if_it_had_not_been(
    text_file, uninterrupted, tmp_path
):
    chance, in_writes = random.Random(SEED), 0
    moments = sorted(chance.choices(range(STEPS - 300), k=KILLS))  # steps: the run goes on after
    print(f"seed {SEED}: kills after the steps {moments}")  # which pytest shows of a failure
    for number, moment in enumerate(moments):
        process = start("--text", text_file, "--out", tmp_path, *OPTIONS)
        await_checkpoint(process, tmp_path, moment)
        if number % 2:
            stop_within_a_write(process, tmp_path)
        process.kill()
        assert process.finish()[0] == -signal.SIGKILL  # it had not ended
        in_writes += writing(tmp_path)
    ((status, _, error),) = finish(start("--text", text_file, "--out", tmp_path, *OPTIONS))
    assert status == 0, error
    assert "refused" not in error
    assert_same_end(tmp_path, uninterrupted)
    assert in_writes >= KILLS // 2


def start_two_and_halt_one(command, out):
    """Two processes that have a checkpoint; the first is halted while it writes the next."""
    two = start_two(*command)
    await_checkpoint(two[0], out, 20)
    stop_within_a_write(two[0], out)
    return two


def assert_resumed(command):
    ended = finish(*start_two(*command))
    assert [status for status, *_ in ended] == [0, 0], ended
    assert "resumed     checkpoint" in ended[0][1]


@pytest.mark.parametrize("killed", [0, 1])
def test_one_of_two_processes_is_killed_and_the_other_ends(killed, text_file, tmp_path):
    command = ("--text", text_file, "--out", tmp_path, *OF_TWO)
    two = start_two_and_halt_one(command, tmp_path)
    two[killed].kill()
    two[0].send_signal(signal.SIGCONT)
    began = time.monotonic()
    (status, *_), (killed_status, *_) = finish(two[1 - killed], two[killed])
    assert time.monotonic() - began < DEFAULT_HEARTBEAT_SECONDS
    assert killed_status == -signal.SIGKILL
    assert status not in (0, -signal.SIGKILL)  # of its own accord
    assert_resumed(command)


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(
    signum, status, text_file, tmp_path
):
    command = ("--text", text_file, "--out", tmp_path, *OF_TWO)
    two = start_two_and_halt_one(command, tmp_path)
    for _ in range(3):  # an impatient person
        two[1].send_signal(signum)
    two[0].send_signal(signal.SIGCONT)
    ended = finish(*two)
    assert [status for status, *_ in ended] == [0, status], ended
    assert "interrupted after step" in ended[0][1]
    assert_resumed(command)
