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

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)  # JAX does not forget a registered name: each package has a new one


@contextmanager
def loaded(old: str | None) -> Iterator[Any]:
    """The package of a git revision, or of a directory that holds `jrnn/`; None without a name.

    Args:
        old: the revision or the directory; a name of both is that of the directory.

    Raises:
        ValueError: it is neither.
    """
    if old is None:
        yield None
        return
    name = f"jrnn_old{next(_numbers)}"
    with TemporaryDirectory() as folder:
        tree = Path(old)
        if not (tree / "jrnn/__init__.py").is_file():
            tree = Path(folder, "tree")
            _check_out(old, tree)
        package = shutil.copytree(tree / "jrnn", Path(folder, name))
        for path in package.rglob("*.py"):
            path.write_text(re.sub(r"\bjrnn\b", name, path.read_text("utf-8")), "utf-8")
        metadata = Path(folder, f"{name}-0.dist-info/METADATA")  # for importlib.metadata.version
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
        sys.path.insert(0, folder)
        try:
            yield importlib.import_module(name)
        finally:
            sys.path.remove(folder)
            for module in [m for m in sys.modules if m.split(".")[0] == name]:
                del sys.modules[module]


def _check_out(revision: str, folder: Path) -> None:
    words = ["git", "archive", "--end-of-options", revision, "jrnn/__init__.py", "jrnn"]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode().strip() or error
        expected = "a git revision of this repository, or a directory, that has jrnn/__init__.py"
        refuse("--old", expected, f"{revision!r} (git: {said})", "git log lists the revisions.")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        files.extractall(folder, filter="data")
