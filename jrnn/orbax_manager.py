"""orbax's manager of the checkpoints in a directory, of which one process writes and reads all."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jrnn.extras import install


def orbax() -> Any:
    """The package orbax.checkpoint.

    Raises:
        ImportError: it is missing.
    """
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise ImportError(f"checkpoints need orbax-checkpoint: {install('train')}") from error
    return orbax.checkpoint


def make(directory: Path, keep: int) -> Any:
    """The manager of the checkpoints in a directory, which keeps the latest and the best.

    Args:
        directory: where they are; it exists.
        keep: how many of the latest stay.

    Returns:
        The `CheckpointManager`.

    Raises:
        ImportError: orbax-checkpoint is missing.
    """
    from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

    ocp = orbax()
    best = policy.BestN(get_metric_fn=lambda metrics: metrics["score"], reverse=True, n=1)
    one_process = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="jrnn"
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy.AnyPreservationPolicy([policy.LatestN(keep), best]),
        # In the background each is waited for: for minutes, where a directory cannot be made; by
        # every save, where one cannot be removed.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        cleanup_tmp_directories=False,
        multiprocessing_options=one_process,
        create=False,
    )
    types = ocp.type_handlers
    arrays = types.create_type_handler_registry(
        (np.ndarray, _one_by_one()),
        (jax.Array, types.get_type_handler(jax.Array)),  # there are none, but it warns without
    )
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(
            type_handler_registry=arrays, multiprocessing_options=one_process
        ),
        "manifest": ocp.JsonCheckpointHandler(multiprocessing_options=one_process),
    }
    return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


def remove_unfinished(directory: Path) -> None:
    """Remove what a write that was killed or that failed has left; what can't be removed stays.

    Args:
        directory: where the checkpoints are.

    Raises:
        ImportError: orbax-checkpoint is missing.
    """
    for thread in threading.enumerate():  # one part has failed; others are still being written
        if type(thread).__module__.startswith("orbax."):
            threading.Thread.join(thread)  # whose own raises what the thread has raised
    for _ in range(1000):
        # TensorStore's threads report a failed write before they close its file, and a file that is
        # open takes space even after it was removed. One second is far more than they need.
        writing = any(path.is_relative_to(directory) for path in _open_files())
        for unfinished in directory.glob(f"*{orbax().path.step.TMP_DIR_SUFFIX}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if not writing:
            return
        time.sleep(0.001)


def _open_files() -> Iterator[Path]:
    """The files that this process has open, where the system says so (Linux)."""
    descriptors = Path("/proc/self/fd")
    for name in os.listdir(descriptors) if descriptors.is_dir() else ():
        with contextlib.suppress(OSError):  # closed meanwhile
            yield Path(os.readlink(descriptors / name))


def _one_by_one() -> Any:
    """orbax's handler of NumPy arrays; each is written and read in an event loop of its own.

    Where all share one, it ends with the first that fails: the others go on, nobody waits for them,
    and each prints "Event loop is closed".
    """

    class OneByOne(orbax().type_handlers.NumpyHandler):  # type: ignore[misc]
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

    return OneByOne()
