"""Disks that are really full: file systems of any size, mounted for a process and its children."""

import contextlib
import os
import subprocess
import sys
import tempfile
from functools import cache

import pytest
from programs import ROOT

BLOCK = 4096


@cache
def _in_a_namespace():
    """The command before one that may mount, in a namespace of its own, which ends with it."""
    for options in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        with contextlib.suppress(OSError):
            command = ["unshare", *options]
            trial = [*command, "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
            if subprocess.run(trial, capture_output=True).returncode == 0:
                return command
    return None


def where_a_disk_may_be_mounted(*command):
    """Run a Python command where `disk` works; skip the test if that is nowhere."""
    if _in_a_namespace() is None:
        pytest.skip("this user may mount no file system, not even in a namespace of its own")
    command = [*_in_a_namespace(), sys.executable, *map(str, command)]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "examples")))
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@contextlib.contextmanager
def disk(directory, size):
    """A file system of so many bytes."""
    os.makedirs(directory, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "none"]
    subprocess.run(["mount", *options, directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def needed(path):
    """The bytes that a file, or what is in a directory, takes of such a disk."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(-(-p.stat().st_size // BLOCK) * BLOCK for p in files)
