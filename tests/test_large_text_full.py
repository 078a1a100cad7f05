"""The character model on a text larger than the memory that it may take."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import ROOT

TEXT_BYTES = 2_000_000_000
MOST_BYTES = 1_000_000_000  # of anonymous memory: pages of a mapped file can be dropped at any time


def write_text(path):
    """English with characters of two and three bytes, again and again."""
    from pydoc_data.topics import topics

    text = "".join(topics.values()).replace("'", "\N{RIGHT SINGLE QUOTATION MARK}") + "é"
    page = text.encode()
    with path.open("wb") as file:
        for _ in range(-(-TEXT_BYTES // len(page))):
            file.write(page)


def anonymous_bytes(process):
    """What a running process holds that no file backs; 0 once it has ended."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return 0


@pytest.mark.slow
def test_two_gigabytes_in_less_than_one(tmp_path):
    """It needs 4 GB of disk."""
    free = shutil.disk_usage(tmp_path).free
    assert free > 2.1 * TEXT_BYTES, f"{free:,} bytes are free on the disk of {tmp_path}"
    text, out = tmp_path / "text", tmp_path / "out"
    write_text(text)
    command = [sys.executable, "-u", "examples/char_lm.py", "--text", text, "--out", out]
    start, peak, seen = time.perf_counter(), 0, {}
    with (tmp_path / "printed").open("w+") as printed:
        process = subprocess.Popen([*command, "--steps=5"], cwd=ROOT, stdout=printed)
        try:
            while process.poll() is None:
                peak = max(peak, anonymous_bytes(process))
                lines = (tmp_path / "printed").read_text()
                for phase in ("text ", "devices", "a sample"):
                    if phase in lines:
                        seen.setdefault(phase, time.perf_counter() - start)
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
            text.unlink()
    seconds = time.perf_counter() - start
    print(f"{seen} {seconds:.0f} s, at most {peak / 1e6:,.0f} MB of anonymous memory")
    assert process.returncode == 0
    assert peak < MOST_BYTES
    assert peak > MOST_BYTES / 100  # it was measured
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "best.safetensors",
        "checkpoints",
        "curve.png",
        "metrics.csv",
        "model.safetensors",
    ]
