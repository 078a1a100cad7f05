"""orbax's manager of the checkpoints in a directory; one process reads and writes them all."""

import contextlib
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jrnn.extras import install


def orbax() -> Any:
    """Import the package orbax.checkpoint.

    Raises:
        ImportError: it is missing.
    """
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise ImportError(f"checkpoints need orbax-checkpoint: {install('train')}") from error
    return orbax.checkpoint


@dataclass(frozen=True)
class LatestAndBest:
    """orbax's policy of which checkpoints remain; it asks after each save, and then removes others.

    orbax forgets the scores when a process ends, and would keep every checkpoint without one.
    """

    directory: Path
    keep: int

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Say which checkpoints remain.

        Args:
            checkpoints: what orbax knows of each, in the order of their steps.
            context: unused.

        Returns:
            Whether each remains.
        """
        number = len(checkpoints)
        scores = [self._score(one) for one in checkpoints]
        best = min(range(number), key=lambda n: (scores[n], -n))  # of equal ones the latest
        return [n >= number - self.keep or n == best for n in range(number)]

    def _score(self, checkpoint: Any) -> float:
        """Lower is better; infinite where there is none, and where it cannot be read."""
        if checkpoint.metrics is not None:  # of this process
            return float(checkpoint.metrics["score"])
        return saved_score(self.directory, checkpoint.step, unreadable=math.inf)


def saved_score(directory: Path, step: int, *, unreadable: float) -> float:
    """The score of a checkpoint; infinite where there is none.

    Args:
        directory: of the checkpoints.
        step: of this one.
        unreadable: what counts where it cannot be read.

    Returns:
        A number; lower is better.
    """
    try:
        file = directory / str(step) / "manifest" / "metadata"
        return score_of(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError, AttributeError):
        return unreadable


def score_of(content: dict[str, Any]) -> float:
    """The score in the content of a checkpoint; infinite if it has none.

    Args:
        content: with a score or None; without one from jrnn 0.2.0 and before.

    Returns:
        A number.
    """
    score = content.get("score")
    return math.inf if score is None or math.isnan(score) else float(score)


def make(directory: Path, keep: int) -> Any:
    """Make the manager of the checkpoints in a directory; it keeps the latest and the best.

    Args:
        directory: an existing directory.
        keep: how many of the latest checkpoints to keep.

    Returns:
        The `CheckpointManager`.

    Raises:
        ImportError: orbax-checkpoint is missing.
    """
    ocp = orbax()
    one_process = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="jrnn"
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=LatestAndBest(directory, keep),
        # In the background orbax would wait for minutes if a directory cannot be created, and in
        # every save if one cannot be removed.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        cleanup_tmp_directories=False,
        multiprocessing_options=one_process,
        create=False,
    )
    types = ocp.type_handlers
    arrays = types.create_type_handler_registry(
        (np.ndarray, _separate_loops_handler()),
        (jax.Array, types.get_type_handler(jax.Array)),  # unused, but without it orbax warns
    )
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(
            type_handler_registry=arrays, multiprocessing_options=one_process
        ),
        "manifest": ocp.JsonCheckpointHandler(multiprocessing_options=one_process),
    }
    return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


def make_again(manager: Any, directory: Path, keep: int) -> Any:
    """Replace a manager whose write has failed, and remove what that has left.

    The old one has dropped checkpoints that still exist. Arrays, metadata and the final renaming
    are written by threads of their own; each may have failed, and `close` raises the error of one
    of them at a time.

    Args:
        manager: from `make`, with the same arguments.
        directory: an existing directory.
        keep: how many of the latest checkpoints to keep.

    Returns:
        A new `CheckpointManager`.
    """
    for _ in range(10):  # far more than it has threads
        with contextlib.suppress(Exception):  # of the same write, which the caller reports
            manager.close()
            break
    remove_unfinished(directory)
    return make(directory, keep)


def remove_unfinished(directory: Path) -> None:
    """Remove incomplete checkpoints of killed or failed writes, as far as possible.

    Args:
        directory: the directory of the checkpoints.

    Raises:
        ImportError: orbax-checkpoint is missing.
    """
    for thread in threading.enumerate():  # after a failure, other parts are still being written
        if type(thread).__module__.startswith("orbax."):
            with contextlib.suppress(RuntimeError):  # after Ctrl-C: one that was never started
                threading.Thread.join(thread)  # orbax's own join raises the thread's error
    for _ in range(1000):
        # TensorStore's threads report a failed write before they close its file, and an open file
        # takes space even after its removal. One second is far more than they need.
        writing = any(path.is_relative_to(directory) for path in _open_files())
        for unfinished in directory.glob(f"*{orbax().path.step.TMP_DIR_SUFFIX}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if not writing:
            return
        time.sleep(0.001)


def _open_files() -> Iterator[Path]:
    """The open files of this process, on systems with /proc (Linux)."""
    descriptors = Path("/proc/self/fd")
    for name in os.listdir(descriptors) if descriptors.is_dir() else ():
        with contextlib.suppress(OSError):  # closed in the meantime
            yield Path(os.readlink(descriptors / name))


def _separate_loops_handler() -> Any:
    """orbax's handler of NumPy arrays, with a separate event loop for each array.

    In a shared loop the first failure ends the loop: the other writes continue without being
    awaited, and each prints "Event loop is closed".
    """

    class SeparateLoopsHandler(orbax().type_handlers.NumpyHandler):  # type: ignore[misc]
        async def serialize(self, values: Any, infos: Any, args: Any = None) -> Any:
            futures: list[Any] = []
            for one in zip(values, infos, args, strict=True):
                futures += await super().serialize(*([x] for x in one))
            return futures

        async def deserialize(self, infos: Any, args: Any = None) -> Any:
            arrays: list[Any] = []
            for one in zip(infos, args, strict=True):
                arrays += await super().deserialize(*([x] for x in one))
            return arrays

    return SeparateLoopsHandler()
