"""The native kernel on many threads: the same bits in pools of every size, and no call hangs."""

import os
import subprocess
import sys

import pytest
from native_bits import digest, gradients
from native_built import built
from programs import ROOT, Process, finish

pytestmark = built


def digests(*, pool, slices, calls=10, threads=1):
    """What a new process, whose XLA has a pool of so many threads, makes."""
    environment = os.environ | {"NPROC": str(pool)}  # as XLA reads it
    command = [sys.executable, "tests/native_bits.py", str(slices), str(calls), str(threads)]
    run = subprocess.run(
        command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True, timeout=900
    )
    return run.stdout


def test_calls_again_have_the_same_bits():
    run, arguments = gradients(4, 20, 6, 3, 17)
    assert len({digest(run(*arguments)) for _ in range(20)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("slices", [2, 16])
def test_the_same_bits_in_pools_of_every_size(slices):
    assert len({digests(pool=pool, slices=slices) for pool in (1, 2, 16)}) == 1


@pytest.mark.slow
def test_ten_thousand_calls_of_four_threads_end():
    many = digests(pool=16, slices=4, calls=10_000, threads=4)
    assert many == digests(pool=1, slices=4)


@pytest.mark.slow
def test_four_programs_at_once():
    command = [sys.executable, "tests/native_bits.py", "2", "500", "2"]
    ended = finish(*(Process(command) for _ in range(4)))
    assert [status for status, *_ in ended] == [0] * 4, ended
    assert len({printed for _, printed, _ in ended}) == 1
