"""Checkpoints of a training run: what is written, what is believed, what is put back.

A checkpoint is a directory, named by its step. orbax-checkpoint writes it in the background, beside
its place, and renames it once all of it is on the disk: a run that is killed meanwhile has the ones
before it. It holds

    state       every array of the state by its path, a random key as its data
    manifest    whatever JSON can hold, the shapes and dtypes, and the SHA-256 of all of that and
                of the arrays, which what is read back must have: it is bit for bit what was
                written, or it is refused

Of several processes the first one writes and reads, for all of them: a checkpoint knows of no
devices, and a run can go on with others than it began with.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jrnn import checks
from jrnn.arrays import named_leaves
from jrnn.extras import install

_NO_SCORE = float("inf")


class Checkpoint(NamedTuple):
    """What was read back."""

    path: Path
    step: int
    arrays: dict[str, np.ndarray]
    manifest: dict[str, Any]


class Checkpoints:
    """The checkpoints in a directory: the last few, and the one with the lowest score.

    A context manager; when it is left, what is being written gets finished. Every process of a run
    makes one and calls the same methods in the same order.
    """

    def __init__(self, directory: str | PathLike[str], *, keep: int = 3) -> None:
        """Make the directory, and remove what killed runs left unfinished in it.

        Args:
            directory: where the checkpoints are.
            keep: how many of the latest stay.

        Raises:
            ImportError: orbax-checkpoint is missing.
            OSError: the directory cannot be made or written to.
            ValueError: `keep` is below 1.
        """
        checks.sizes(keep=keep)
        self.directory = Path(directory).resolve()
        if _writes():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = _manager(self.directory, keep)

    def save(
        self, step: int, state: Any, manifest: dict[str, Any], score: float | None = None
    ) -> None:
        """Copy the state to the host, and write it in the background.

        Args:
            step: the number of the checkpoint, above all others; one that is there already stays.
            state: any pytree of arrays, random keys among them; on several devices or processes.
            manifest: what JSON can hold.
            score: lower is better; None where there is none.

        Raises:
            OSError: it cannot be written, as far as that is known by now; `wait` knows more. Or
                the one before it could not.
        """
        arrays = _to_host(state)  # by every process, for some of it may be elsewhere
        if not _writes():
            return
        content = {"manifest": manifest, "arrays": {k: _kind(x) for k, x in arrays.items()}}
        content = json.loads(json.dumps(content))
        args = _orbax().args.Composite(
            state=_orbax().args.StandardSave(arrays),
            manifest=_orbax().args.JsonSave(content | {"sha256": _sha256(content, arrays)}),
        )
        if step in self._manager.all_steps():  # a run that stops where it has just saved
            return
        metrics = {"score": _NO_SCORE if score is None else float(score)}
        self._reporting(lambda: self._manager.save(step, args=args, metrics=metrics, force=True))

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: something could not be written.
        """
        if _writes():
            self._reporting(self._manager.wait_until_finished)

    def _reporting(self, do: Callable[[], Any]) -> None:
        try:
            do()
        except (OSError, ValueError) as error:  # of Python; of tensorstore
            self._manager.reload()  # it has counted older ones out, which are still there
            reason = str(error).splitlines()[0]
            raise OSError(f"a checkpoint was not written to {self.directory}: {reason}") from error

    def latest(self, say: Callable[[str], Any] = warnings.warn) -> Checkpoint | None:
        """The latest whole checkpoint.

        One that is not whole, or not as it was written, is renamed to `<step>.refused`, and the
        one before it is taken.

        Args:
            say: is called with a sentence for each that is refused.

        Returns:
            The `Checkpoint`, on every process; None if there is none.

        Raises:
            OSError: the directory cannot be read or changed.
        """
        found = self._read_latest(say) if _writes() else None
        return found if jax.process_count() == 1 else _for_all(self.directory, found)

    def _read_latest(self, say: Callable[[str], Any]) -> Checkpoint | None:
        for step in sorted(self._manager.all_steps(), reverse=True):
            path = self.directory / str(step)
            try:
                return self._read(step, path)
            except Exception as error:  # whatever orbax and its libraries make of broken files
                reason = (str(error) or type(error).__name__).splitlines()[0]
            refused = path.with_name(f"{step}.refused")
            shutil.rmtree(refused, ignore_errors=True)
            os.rename(path, refused)
            self._manager.reload()
            say(
                f"checkpoint {path}: expected a whole checkpoint, as it was written; got {reason}. "
                f"It is {refused.name} now; the one before it is taken."
            )
        return None

    def _read(self, step: int, path: Path) -> Checkpoint:
        args = _orbax().args
        both = args.Composite(state=args.StandardRestore(), manifest=args.JsonRestore())
        found = self._manager.restore(step, args=both)
        content, arrays = dict(found.manifest), dict(found.state)
        if content.pop("sha256", None) != _sha256(content, arrays):
            raise ValueError("another SHA-256 than the one it was written with")
        return Checkpoint(path, step, arrays, content["manifest"])

    def clear(self) -> None:
        """Remove all of them.

        Raises:
            OSError: one cannot be removed.
        """
        for step in self._manager.all_steps() if _writes() else ():
            self._manager.delete(step)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if _writes():
            self._reporting(self._manager.close)


def restore(checkpoint: Checkpoint, like: Any) -> Any:
    """The state of a checkpoint, where a fresh state has its arrays.

    Args:
        checkpoint: of `Checkpoints.latest`.
        like: a state of the same structure, shapes and dtypes; on any devices.

    Returns:
        The state, on the devices of `like`.

    Raises:
        ValueError: the checkpoint has other arrays; the message names the first.
    """
    wanted = dict(named_leaves(like))
    for name in sorted(wanted.keys() | checkpoint.arrays.keys()):
        expected, came = _kind_of(wanted.get(name)), _kind_of(checkpoint.arrays.get(name))
        if expected != came:
            repair = "It is of another model or optimiser: give the options that it was made with."
            checks.refuse(f"checkpoint {checkpoint.path}, {name}", expected, came, repair)
    put = [_put(checkpoint.arrays[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), put)


# --- arrays --------------------------------------------------------------------------------------


def _data(x: Any) -> Any:
    """The array itself; of random keys their data."""
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _to_host(state: Any) -> dict[str, np.ndarray]:
    """Every array as a whole, whichever processes have it."""
    named = {name: _data(x) for name, x in named_leaves(state)}
    return {
        name: np.asarray(x)
        if x.is_fully_addressable or x.is_fully_replicated
        else np.asarray(multihost_utils.process_allgather(x, tiled=True))
        for name, x in named.items()
    }


def _put(array: np.ndarray, like: Any) -> Any:
    """The array on the devices of another, each of which takes its part."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(array, _data(like)), impl=jax.random.key_impl(like))
    return jax.make_array_from_callback(array.shape, like.sharding, lambda part: array[part])


def _kind(x: Any) -> list[Any]:
    return [list(x.shape), str(x.dtype)]


def _kind_of(x: Any) -> str:
    """Of an array or none, in words."""
    return "no such array" if x is None else checks.describe(_data(x))


def _sha256(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(content["arrays"]):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


# --- processes -----------------------------------------------------------------------------------


def _writes() -> bool:
    return jax.process_index() == 0


def _for_all(directory: Path, found: Checkpoint | None) -> Checkpoint | None:
    """What the first process has read, on every process."""
    head = None
    if found is not None:
        head = [found.step, found.manifest, {k: _kind(x) for k, x in found.arrays.items()}]
    text = np.frombuffer(json.dumps(head).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.array(text.size)))
    text = text if found is not None or _writes() else np.zeros(size, np.uint8)
    head = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(text)).tobytes())
    if head is None:
        return None
    step, manifest, kinds = head
    mine = found.arrays if found is not None else {}
    arrays = {
        name: np.asarray(
            multihost_utils.broadcast_one_to_all(
                mine.get(name, np.zeros(shape, jnp.dtype(dtype)))  # the first process' counts
            )
        )
        for name, (shape, dtype) in kinds.items()
    }
    return Checkpoint(directory / str(step), step, arrays, manifest)


# --- orbax ---------------------------------------------------------------------------------------


def _orbax() -> Any:
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise ImportError(f"checkpoints need orbax-checkpoint: {install('train')}") from error
    return orbax.checkpoint


def _manager(directory: Path, keep: int) -> Any:
    orbax = _orbax()
    from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

    best = policy.BestN(get_metric_fn=lambda metrics: metrics["score"], reverse=True, n=1)
    options = orbax.CheckpointManagerOptions(
        preservation_policy=policy.AnyPreservationPolicy([policy.LatestN(keep), best]),
        cleanup_tmp_directories=True,
        # In the background it is waited for, for minutes, where it cannot be made.
        async_options=orbax.AsyncOptions(create_directories_asynchronously=False),
        multiprocessing_options=orbax.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="jrnn"
        ),
        create=False,
    )
    return orbax.CheckpointManager(directory, options=options)
