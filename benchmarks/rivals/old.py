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
from statistics import geometric_mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import report
from jrnn.checks import refuse

# The bounds of new / old.
MEANS = {report.MS: 1.02, "compile_seconds": 1.05}  # geometric means of several groups
TIME = 1.03  # in one group: this, and twice the noise
MORE_BYTES = 1_000_000  # that row 1 and gradients of single sequences may need; all else, none

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


def worse(records: list[dict[str, Any]]) -> list[str]:
    """Where jrnn takes longer than the older version and noise, or needs more memory."""
    said: list[str] = []
    ratios: dict[str, list[float]] = {quantity: [] for quantity in MEANS}
    groups = report.grouped(records, ["route", "row", "dtype", "gradient"])
    for (route, row, dtype, gradient), group in groups.items():
        programs = {r["program"]: r for r in group}
        if "old again" not in programs:
            continue
        new, old, again = (programs[name] for name in ("jrnn", "old", "old again"))
        for quantity, found in ratios.items():
            found.append(new[quantity] / old[quantity])
        at = f"{route}, row {row}, {dtype}, {'gradient' if gradient else 'forward'}"
        ratio = new[report.MS] / old[report.MS]
        noise = abs(np.log(again[report.MS] / old[report.MS]))
        if ratio > TIME + 2 * noise:
            said.append(f"{at}: {ratio:.3f} times the time; the noise is {noise:.3f}")
        more = new[report.MB] - old[report.MB]
        if more > (MORE_BYTES if row == 1 or route == "vmap-grad" else 0):
            said.append(f"{at}: {more:,} more temporary bytes")
    for quantity, found in ratios.items():
        if len(found) > 1 and (mean := geometric_mean(found)) > MEANS[quantity]:
            said.append(f"geometric mean of {quantity}: {mean:.3f}, above {MEANS[quantity]}")
    return said
