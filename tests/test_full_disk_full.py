"""The example on a disk that is really full: no checkpoint fits, or not even the model.

This file, as a program, is a run of it on a disk of the size that it is given; what the run has
left is copied beside.
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disks import BLOCK, disk, needed, where_a_disk_may_be_mounted
from programs import ROOT, TEXT

from jrnn.model_file import load_model

# Wide enough that its checkpoint is larger than all else that it writes.
OPTIONS = ["--hidden-size=160", "--length=16", "--batch-size=4", "--eval-every=20"]
OPTIONS += ["--checkpoint-every=10"]
STEPS = 40
FILES = ("model.safetensors", "best.safetensors", "metrics.csv", "curve.png")
BEGUN = {"out", "out/.lock", "out/unfinished", "out/unfinished/checkpoints"}
NOT_WRITTEN = "a checkpoint was not written to "


@pytest.fixture(scope="module")
def sizes(quick_children, text_file, tmp_path_factory):
    """What the files of a run need of a disk."""
    out = tmp_path_factory.mktemp("measured")
    command = [sys.executable, "examples/char_lm.py", *OPTIONS, f"--steps={STEPS}"]
    command += ["--keep=1", "--text", str(text_file), "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found = {path.name: needed(path) for path in out.iterdir()}
    found["checkpoints"] = min(needed(path) for path in (out / "checkpoints").iterdir())
    found["ids"] = -(-len(TEXT) // BLOCK) * BLOCK
    return found


def run(size, tmp_path, text_file, *options):
    """The run, what it said, and what was on its disk in the end."""
    command = [__file__, size, tmp_path, *OPTIONS, "--text", text_file, *options]
    found = where_a_disk_may_be_mounted(*command)
    left = {p.relative_to(tmp_path / "left") for p in (tmp_path / "left").rglob("*")}
    assert "Traceback" not in found.stderr
    return found, {str(path) for path in left}


def test_all_but_a_checkpoint_fits(sizes, text_file, tmp_path):
    size = sum(sizes[name] for name in (*FILES, ".lock", "ids"))
    assert size + BLOCK < 0.7 * sizes["checkpoints"]
    found, left = run(size + BLOCK, tmp_path, text_file, f"--steps={STEPS}")
    assert found.returncode == 0, found.stderr
    assert found.stderr.count(NOT_WRITTEN) == STEPS // 10
    assert left == BEGUN - {"out/unfinished", "out/unfinished/checkpoints"} | {
        f"out/{name}" for name in (*FILES, "checkpoints")
    }
    load_model(tmp_path / "left/out/model.safetensors")


def test_the_model_fits_and_the_picture_does_not(sizes, text_file, tmp_path):
    size = sum(sizes[name] for name in (*FILES[:3], ".lock", "ids"))
    found, left = run(size + BLOCK, tmp_path, text_file, f"--steps={STEPS}")
    assert found.returncode == 1
    assert found.stderr.endswith(f" bytes: '{tmp_path}/disk/out/unfinished/curve.png'\n")
    assert "the network is" in found.stdout  # how good it is, all the same
    assert left == BEGUN | {f"out/unfinished/{name}" for name in FILES[:3]}
    load_model(tmp_path / "left/out/unfinished/model.safetensors")


def test_not_even_the_model_fits(sizes, text_file, tmp_path):
    found, left = run(sizes["model.safetensors"], tmp_path, text_file, f"--steps={STEPS}")
    assert found.returncode == 1
    assert found.stderr.count(NOT_WRITTEN) == STEPS // 10
    error = found.stderr.splitlines()[-1]
    assert error.startswith("error: [Errno 28] No space left on device, writing ")
    assert error.endswith(f" bytes: '{tmp_path}/disk/out/unfinished/model.safetensors'")
    assert left == BEGUN


def test_it_stops_as_told(sizes, text_file, tmp_path):
    options = (f"--steps={STEPS}", f"--eval-every={STEPS}", "--on-save-error=stop")
    found, left = run(sizes["model.safetensors"] + sizes["ids"], tmp_path, text_file, *options)
    assert found.returncode == 1
    assert found.stderr.count(NOT_WRITTEN) == 1
    assert found.stderr.splitlines()[-1].startswith(f"error: {NOT_WRITTEN}")
    assert left == BEGUN


def test_a_run_that_is_interrupted_says_what_is_not_saved(sizes, text_file, tmp_path):
    size = sum(sizes[name] for name in (*FILES, ".lock", "ids"))
    found, left = run(size + BLOCK, tmp_path, text_file, "--steps=1000000", "interrupt")
    assert found.returncode == 1  # a scheduler takes 0 as saved
    assert "no checkpoint of it was written" in found.stdout
    assert "out/unfinished/model.safetensors" in left


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_children")]


def main(size, directory, *options):
    where, interrupt = Path(directory), options[-1] == "interrupt"
    command = [sys.executable, "examples/char_lm.py", "--out", where / "disk/out"]
    command += options[:-1] if interrupt else options
    with disk(where / "disk", int(size)):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                sys.stderr.write(line)
                if interrupt and NOT_WRITTEN in line:
                    process.send_signal(signal.SIGTERM)
                    interrupt = False
        shutil.copytree(where / "disk", where / "left")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
