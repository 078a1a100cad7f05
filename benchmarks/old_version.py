"""An older version of jrnn in the process of this one.

Its files are copied to a directory of their own, where the word `jrnn` becomes another name: in
imports, also those that a function makes when it is called, and in the names that are registered
with JAX. So the two packages share no module and no registered name.
"""

import importlib
import io
import itertools
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jrnn.checks import refuse

ROOT = Path(__file__).parents[1]
_numbers = itertools.count(1)  # JAX does not forget a registered name: each package has a new one


@contextmanager
def loaded(old: str) -> Iterator[Any]:
    """The package of a git revision, or of a directory that holds `jrnn/`, inside the block.

    Args:
        old: the revision or the directory; a name of both is that of the directory.

    Raises:
        ValueError: it is neither.
    """
    name = f"jrnn_old{next(_numbers)}"
    with TemporaryDirectory() as folder:
        tree = Path(old)
        if not (tree / "jrnn/__init__.py").is_file():
            tree = Path(folder, "tree")
            _check_out(old, tree)
        _copy(tree / "jrnn", Path(folder), name)
        sys.path.insert(0, folder)
        try:
            yield importlib.import_module(name)
        finally:
            sys.path.remove(folder)
            for module in [m for m in sys.modules if m.split(".")[0] == name]:
                del sys.modules[module]


def git(*words: str) -> str:
    """The output of git for this repository, such as a commit; "" without one."""
    try:
        return _git(*words).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout


def _check_out(revision: str, folder: Path) -> None:
    try:
        archive = _git("archive", "--end-of-options", revision, "jrnn/__init__.py", "jrnn")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode().strip() or error
        expected = "a git revision of this repository, or a directory, that has jrnn/__init__.py"
        refuse("--old", expected, f"{revision!r} (git: {said})", "git log lists the revisions.")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def _copy(package: Path, folder: Path, name: str) -> None:
    """The package by another name, and what `importlib.metadata.version` reads of it."""
    there = folder / name
    shutil.copytree(package, there, ignore=shutil.ignore_patterns("__pycache__"))
    for path in there.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\bjrnn\b", name, text), encoding="utf-8")
    metadata = folder / f"{name}-0.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
