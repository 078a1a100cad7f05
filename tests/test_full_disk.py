"""What is written onto a disk that is really full: the error names it, what was there stays.

The cases run in a process that may mount disks: this file, as a program, which prints what each
has raised.
"""

import errno
import json
import logging
import os
import sys
import traceback
from pathlib import Path

import jax
import numpy as np
import pytest
from char_model.results import write_curve
from disks import BLOCK, disk, needed, where_a_disk_may_be_mounted

import jrnn
from jrnn.checkpoint import Checkpoints
from jrnn.files import write_whole
from jrnn.metrics import csv_writer, write_csv
from jrnn.model_file import load_model, save_model
from jrnn.text import map_ids

pytestmark = pytest.mark.slow  # it starts processes

ROWS = [{"step": n, "characters": n, "train_bits": 2.0, "validation_bits": 2.0} for n in (1, 2)]


def assert_full(path, write):
    """What is on the disk is the same after a write that fails, and the error names the file."""
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with pytest.raises(OSError, match=r"No space left on device, writing [\d,]+ bytes: ") as caught:
        write()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def a_file(directory):
    path = directory / "file"
    with disk(directory, 4 * BLOCK):
        write_whole(path, b"old" * 1000)
        for blocks in (4, 5, 100):  # beside the old one there are three
            assert_full(path, lambda: write_whole(path, bytes(blocks * BLOCK)))
        write_whole(path, bytes(3 * BLOCK))
    with disk(directory, 4 * BLOCK):
        (directory / "much").write_bytes(bytes(4 * BLOCK))
        assert_full(path, lambda: write_whole(path, b"new"))


def a_table_and_a_picture(directory):
    with disk(directory, 2 * BLOCK):
        write_csv(directory / "metrics.csv", ROWS)
        counts = {"2-gram": 3.0, "3-gram": 2.5}
        path = directory / "curve.png"
        assert_full(path, lambda: write_curve(path, ROWS, counts))
        write_whole(directory / "much", bytes(BLOCK))
        path = directory / "metrics.csv"
        assert_full(path, lambda: write_csv(path, ROWS))


def rows_that_are_added_to_a_table(directory):
    """What is written in the end is every row but those that were refused, and no part of one."""
    path = directory / "metrics.csv"
    with disk(directory, 2 * BLOCK):
        write, row = csv_writer(path), {"note": "x" * (BLOCK // 3)}
        for _ in range(5):
            write(row)
        assert_full(path, lambda: write({"note": "x" * (3 * BLOCK)}))
        write({"note": "short"})
        lines = path.read_text().splitlines()
        assert lines == ["note", *[row["note"]] * 5, "short"]


def a_model(directory):
    def model(hidden):
        return jrnn.init_rnn(jax.random.key(0), 3, hidden)

    path = directory / "model.safetensors"
    with disk(directory, 3 * BLOCK):
        save_model(path, model(5), {"old": True})
        assert_full(path, lambda: save_model(path, model(60), {}))
        assert load_model(path)[1] == {"old": True}


def ids(directory):
    """A page that has no place on the disk is an error now, not the end of the process later."""
    for blocks in (3, 4):
        with disk(directory, 3 * BLOCK):
            count = blocks * BLOCK // 2
            parts = [np.full(count // 6, n, np.uint16) for n in range(6)]
            parts.append(np.full(count - 6 * (count // 6), 6, np.uint16))
            if blocks == 3:
                np.testing.assert_array_equal(
                    map_ids(iter(parts), count, directory), np.concatenate(parts)
                )
                continue
            with pytest.raises(OSError, match="No space left on device, writing a temp") as caught:
                map_ids(iter(parts), count, directory)
            assert caught.value.filename == str(directory)
            assert os.statvfs(directory).f_bfree == 3


def state(hidden):
    rng = np.random.default_rng(0)
    return {f"w{n}": jax.numpy.asarray(rng.normal(size=(hidden, hidden))) for n in range(6)}


def write(kept, step, score):
    kept.save(step, state(40), {"n": step}, score)
    kept.wait()


def checkpoints(directory):
    """Disks between one that takes nothing and one that takes it all: any part may not be written.

    pytest is not here to catch what orbax prints beside it.
    """
    with Checkpoints(directory / "whole") as measured:
        write(measured, 1, 1.0)
    whole, full = needed(directory / "whole"), directory / "full"
    message = f"a checkpoint was not written to {full}: .*No space left on device"
    for share in (0, 0.2, 0.4, 0.6):
        with disk(full, max(BLOCK, int(share * whole))), Checkpoints(full) as kept:
            for step in (1, 2):
                with pytest.raises(OSError, match=message):
                    write(kept, step, 1.0)
                assert os.listdir(full) == []
    with disk(full, 3 * whole), Checkpoints(full) as kept:
        write(kept, 1, 1.0)
        (full / "much").write_bytes(bytes(whole + whole // 2))
        for step in (2, 3):
            with pytest.raises(OSError, match=message):
                write(kept, step, 0.0)
            assert sorted(os.listdir(full)) == ["1", "much"]
        assert kept.latest().manifest == {"n": 1}
        (full / "much").unlink()
        write(kept, 4, 2.0)
        assert kept.latest().manifest == {"n": 4}


ROWS_AND_FILES = (a_file, a_table_and_a_picture, rows_that_are_added_to_a_table)
CASES = {f.__name__: f for f in (*ROWS_AND_FILES, a_model, ids, checkpoints)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the cases have raised, and what was printed."""
    run = where_a_disk_may_be_mounted(__file__, tmp_path_factory.mktemp("disks"))
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout) | {"printed": run.stderr}


@pytest.mark.parametrize("case", [*CASES, "printed"])
def test_a_full_disk(case, found):
    assert found[case] == "", found[case]


def raised_by(case, directory):
    directory.mkdir()
    try:
        case(directory)
    except BaseException:  # whatever it is, it is the finding
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs what it also raises
    print(json.dumps({n: raised_by(f, Path(sys.argv[1]) / n) for n, f in CASES.items()}))
