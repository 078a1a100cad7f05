"""Write, verify and restore checkpoints of a training run.

A checkpoint is a directory, named by its step. orbax-checkpoint writes it in the background to a
temporary directory and renames that when it is complete. If the run is killed or the disk is full,
the earlier checkpoints remain, and the incomplete one is removed. A checkpoint contains

    state       every array of the state by its path; for a random key its data
    manifest    a JSON object of the caller, the score, shapes and dtypes, and the SHA-256 of all
                of that and of the arrays. On load the SHA-256 must match, so a checkpoint is either
                bit for bit what was written, or refused.

With several processes the first one reads and writes for all. A checkpoint does not depend on
devices: a run can continue on others.
"""

import errno
import hashlib
import json
import math
import operator
import os
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jrnn import checks, orbax_manager
from jrnn.arrays import named_leaves
from jrnn.files import check_utf8
from jrnn.pytree_json import check_all_keys


class Checkpoint(NamedTuple):
    """A checkpoint that was read from disk.

    Attributes:
        path: its directory.
        step: the number of training steps before it.
        arrays: the arrays of the state, by their path in it.
        manifest: the JSON object of the caller.
    """

    path: Path
    step: int
    arrays: dict[str, np.ndarray]
    manifest: dict[str, Any]


NOTHING = {"": np.zeros(1)}  # orbax refuses an empty tree

# A read that fails so says nothing of the checkpoint, which stays.
OF_THE_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EACCES}


class Checkpoints:
    """The checkpoints in a directory: the latest ones, and the one with the lowest score.

    Those of earlier processes count, too: after each save as many remain as were asked for.

    This is a context manager; on exit it waits until the last checkpoint is written. Otherwise call
    `wait` before the program ends. Every process of a run must create one and call the same methods
    in the same order.
    """

    def __init__(self, directory: str | PathLike[str], *, keep: int = 3) -> None:
        """Create the directory; the first `save` removes incomplete checkpoints of killed runs.

        So another process may read the checkpoints while a run writes; one process writes.

        Args:
            directory: the directory of the checkpoints.
            keep: how many of the latest checkpoints to keep.

        Raises:
            ImportError: orbax-checkpoint is missing.
            OSError: the directory cannot be created or written to.
            ValueError: `keep` is below 1, or the directory is a URL or its path not UTF-8.
        """
        checks.sizes(keep=keep)
        check_utf8("directory", directory)
        if "://" in os.fspath(directory):
            repair = "Write to a local disk, and copy what is complete."
            checks.refuse("directory", "a path", repr(os.fspath(directory)), repair)
        self.directory = Path(directory).resolve()
        if _is_writer():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._keep, self._saved = keep, False
            self._manager = orbax_manager.make(self.directory, keep)

    def save(
        self,
        step: int,
        state: Any,
        manifest: dict[str, Any],
        score: float | None = None,
        *,
        exist_ok: bool = False,
    ) -> None:
        """Copy the state to the host, and write it in the background.

        Args:
            step: the number of the checkpoint, an integer above all others.
            state: any pytree of arrays, of NumPy too, and random keys, on any devices or processes.
            manifest: a JSON object.
            score: lower is better; None for no score.
            exist_ok: if the latest checkpoint has this number, leave it as it is.

        Raises:
            ValueError: `step` is no integer above all others, a leaf is no array, the score no
                number, or the manifest no JSON; nothing is written.
            OSError: this checkpoint, as far as known yet, or the previous one could not be written;
                `wait` reports later failures. Incomplete files are removed.
        """
        step = _step_number(step)
        arrays = _to_host(state)  # by every process, since each may have a part
        if not _is_writer():
            return
        if (last := self._manager.latest_step()) is not None and step <= last:
            if exist_ok and step == last:
                return
            expected = f"a number above {last}, that of the latest checkpoint in {self.directory}"
            repair = "Go on from `latest`, take another directory, or remove all by `clear`."
            checks.refuse("step", expected, step, repair)
        if not self._saved:
            orbax_manager.remove_unfinished(self.directory)
            self._saved = True
        try:
            score = None if score is None else float(score)
        except (TypeError, ValueError):
            checks.refuse("score", "a number or None", checks.shown(score), "Lower is better.")
        specs = {k: _spec(x) for k, x in arrays.items()}
        content: dict[str, Any] = {"manifest": manifest, "score": score, "arrays": specs}
        try:
            text = json.dumps(content)
        except (TypeError, ValueError, RecursionError) as error:
            repair = "Save arrays in the state, and numbers of NumPy or JAX as float(x)."
            checks.refuse("manifest", "a JSON object", str(error), repair)
        check_all_keys("manifest", manifest)
        content = json.loads(text)
        args = orbax_manager.orbax().args
        stored = {name: x for name, x in arrays.items() if x.size}  # orbax refuses the others
        both = args.Composite(
            state=args.PyTreeSave(stored or NOTHING),
            manifest=args.JsonSave(content | {"sha256": _sha256(content, arrays)}),
        )
        metrics = {"score": orbax_manager.score_of(content)}
        self._to_oserror(lambda: self._manager.save(step, args=both, metrics=metrics, force=True))

    def wait(self) -> None:
        """Wait until all checkpoints are written.

        Raises:
            OSError: a checkpoint could not be written.
        """
        if _is_writer():
            self._to_oserror(self._manager.wait_until_finished)

    def _to_oserror(self, do: Callable[[], Any]) -> None:
        try:
            do()
        except BaseException as error:  # of many types; the next save would collide with this one
            self._manager = orbax_manager.make_again(self._manager, self.directory, self._keep)
            if not isinstance(error, Exception):  # Ctrl-C
                raise
            message = f"a checkpoint was not written to {self.directory}: {_reason(error)}"
            raise OSError(message) from error

    def latest(self, say: Callable[[str], Any] = warnings.warn) -> Checkpoint | None:
        """Read the latest complete checkpoint.

        An incomplete or modified checkpoint is renamed to `<step>.refused`, and the previous one
        is read.

        Args:
            say: called with a sentence for each refused checkpoint.

        Returns:
            The `Checkpoint`, on every process, or None.

        Raises:
            OSError: the directory cannot be read or changed, or a checkpoint of this object not be
                written.
        """
        return self._read_first(self._latest_first, say)

    def best(self, say: Callable[[str], Any] = warnings.warn) -> Checkpoint | None:
        """Read the checkpoint with the lowest score; of equal ones the latest.

        Incomplete and modified ones are passed over, as by `latest`.

        Args:
            say: called with a sentence for each refused checkpoint.

        Returns:
            The `Checkpoint`, on every process, or None: none was saved with a score.

        Raises:
            OSError: the directory cannot be read or changed, or a checkpoint of this object not be
                written.
        """
        return self._read_first(self._best_first, say)

    def _latest_first(self) -> list[int]:
        if self._saved:
            self.wait()  # orbax lists a checkpoint before it is written
        else:  # another process may write
            self._manager.reload()
        return sorted(self._manager.all_steps(), reverse=True)

    def _best_first(self) -> list[int]:
        """Checkpoints without a readable score come first: `_first_whole` refuses them."""
        score = partial(orbax_manager.saved_score, self.directory, unreadable=-math.inf)
        scores = {n: score(n) for n in self._latest_first()}
        return sorted((n for n in scores if scores[n] < math.inf), key=scores.__getitem__)

    def _read_first(
        self, order: Callable[[], list[int]], say: Callable[[str], Any]
    ) -> Checkpoint | None:
        """Read the first whole checkpoint; process 0 does, for all."""
        found = self._first_whole(order(), say) if _is_writer() else None
        return found if jax.process_count() == 1 else _broadcast(self.directory, found)

    def _first_whole(self, steps: list[int], say: Callable[[str], Any]) -> Checkpoint | None:
        for step in steps:
            path = self.directory / str(step)
            try:
                return self._read(step, path)
            except Exception as error:  # orbax and its libraries raise many types
                if (
                    isinstance(error, MemoryError)
                    or getattr(error, "errno", None) in OF_THE_MACHINE
                ):
                    raise
                reason = _reason(error)
            if not path.exists():  # the process that writes removed it meanwhile
                continue
            refused = path.with_name(f"{step}.refused")
            shutil.rmtree(refused, ignore_errors=True)
            os.rename(path, refused)
            self._manager.reload()
            say(
                f"checkpoint {path}: expected a whole checkpoint, as it was written; got {reason}. "
                f"It is {refused.name} now; the next one is taken."
            )
        return None

    def _read(self, step: int, path: Path) -> Checkpoint:
        args = orbax_manager.orbax().args
        both = args.Composite(state=args.PyTreeRestore(), manifest=args.JsonRestore())
        found = self._manager.restore(step, args=both)
        content, stored = dict(found.manifest), found.state
        arrays = {
            name: stored[name] if math.prod(shape) else np.zeros(shape, jnp.dtype(dtype))
            for name, (shape, dtype) in content["arrays"].items()
        }
        if content.pop("sha256", None) != _sha256(content, arrays):
            raise ValueError("a SHA-256 that does not match")
        return Checkpoint(path, step, arrays, content["manifest"])

    def clear(self) -> None:
        """Remove all checkpoints.

        Raises:
            OSError: one cannot be removed, or a checkpoint of this object not be written.
        """
        for step in self._latest_first() if _is_writer() else ():
            self._manager.delete(step)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not _is_writer():
            return
        try:
            self.wait()
        except OSError as lost:
            if error is None:
                raise
            error.add_note(str(lost))  # do not hide the first error
        finally:
            self._manager.close()


def restore(checkpoint: Checkpoint, like: Any, *, part: str | None = None) -> Any:
    """Restore the state of a checkpoint, or a part of it, to the devices of a fresh state.

    Args:
        checkpoint: from `Checkpoints.latest` or `best`.
        like: a state with the same structure, shapes and dtypes, on any devices.
        part: the path of `like` in the saved state, such as "params"; the rest of the state is
            ignored, so sampling needs no optimiser. None for the whole state.

    Returns:
        The state, on the devices of `like`.

    Raises:
        ValueError: no `Checkpoint`, or one of other arrays (the message names the first) or
            without such a part; a leaf of `like` that is no array.
    """
    if not isinstance(checkpoint, Checkpoint):
        repair = "Checkpoints(directory).latest() reads one."
        if checkpoint is None:  # as `latest` and `best` return
            repair = "None was saved yet."
        checks.refuse("checkpoint", "a Checkpoint", repr(checkpoint)[:80], repair)
    name = f"checkpoint {checkpoint.path}"
    wanted, found = dict(named_leaves(like)), checkpoint.arrays
    for key, leaf in wanted.items():
        if not hasattr(leaf, "dtype"):
            repair = "Convert it by jnp.asarray."
            checks.refuse(f"like, {key}", "an array", type(leaf).__name__, repair)
    if part is not None:
        wanted, found = _named_below(part, wanted), _below(part, found)
        if wanted and not found:
            came = ", ".join(sorted({key.partition(".")[0] for key in checkpoint.arrays}))
            repair = 'It is a path in what was saved, such as "params.0".'
            checks.refuse(name, f"a part {part}", came, repair)
    names = sorted(wanted.keys() | found.keys())
    for key in sorted(names, key=lambda key: not key.startswith("params")):  # the model first
        expected, came = _describe(wanted.get(key)), _describe(found.get(key))
        if expected != came:
            repair = _repair(key, expected, came, part, wanted, found)
            checks.refuse(f"{name}, {key}", expected, came, repair)
    put = [_device_put(found[key], leaf) for key, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), put)


def _repair(
    key: str,
    expected: str,
    came: str,
    part: str | None,
    wanted: dict[str, Any],
    found: dict[str, np.ndarray],
) -> str:
    """The repair for the first array that is another one in the checkpoint."""
    if part is None and (fitting := _part_like(wanted, found)) is not None:
        return f'It has these arrays as a part of its state: give part="{fitting}".'
    if part is None and key.startswith("carry"):  # the parameters, before it, are the same
        return 'The parameters fit: restore part="params", and begin a new carry.'
    if "64[" in came and came.replace("64[", "32[") == expected:
        return 'It has 64 bits: jax.config.update("jax_enable_x64", True) before all else.'
    return "It is of another model or optimiser: give the options that it was made with."


def _step_number(step: Any) -> int:
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if number < 0:
        repair = "Count training steps: int(step)."
        checks.refuse("step", "an integer >= 0", checks.shown(step), repair)
    return number


# --- arrays --------------------------------------------------------------------------------------


def _data(x: Any) -> Any:
    """The array itself, or the data of a random key; for a type, the type of that."""
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    of_type = isinstance(x, jax.ShapeDtypeStruct)
    return jax.eval_shape(jax.random.key_data, x) if of_type else jax.random.key_data(x)


def _to_host(state: Any) -> dict[str, np.ndarray]:
    """Every array as a whole, gathered from all processes."""
    found = {}
    for name, x in named_leaves(state):
        checks.array(f"state, {name}", x)
        x = _data(x)
        if not isinstance(x, jax.Array):
            found[name] = np.array(x)  # a copy: it is written in the background
        elif x.is_fully_addressable or x.is_fully_replicated:
            found[name] = np.asarray(x)
        else:
            found[name] = np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return found


def _device_put(array: np.ndarray, like: Any) -> Any:
    """Put an array on the devices of `like`, with its sharding."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        impl: list[Any] = []  # it is asked of a tracer, since `like` may be a type
        jax.eval_shape(lambda key: impl.append(jax.random.key_impl(key)), like)
        return jax.random.wrap_key_data(_device_put(array, _data(like)), impl=impl[0])
    if isinstance(like, (np.ndarray, np.generic)):
        return array
    if like.sharding is None or not getattr(like, "committed", True):
        return jnp.asarray(array)  # uncommitted too: a mesh would refuse one on a single device
    return jax.make_array_from_callback(array.shape, like.sharding, lambda part: array[part])


def _spec(x: Any) -> list[Any]:
    return [list(x.shape), str(x.dtype)]


def _describe(x: Any) -> str:
    """Describe an array or None in words, with all its bits."""
    if x is None:
        return "no such array"
    shape, dtype = _spec(_data(x))
    return f"{dtype}{shape}"


def _part_like(wanted: dict[str, Any], found: dict[str, np.ndarray]) -> str | None:
    """The part of a checkpoint that has exactly these arrays: "params", or the shortest path."""
    first = next(iter(wanted), None)
    if not first:  # no array, or a single one, which may be like any other
        return "params" if first == "" and _are_alike(wanted, found, "params") else None
    parts = [key.removesuffix(f".{first}") for key in found if key.endswith(f".{first}")]
    parts = [part for part in parts if _are_alike(wanted, found, part)]
    return min(parts, key=lambda part: (part != "params", len(part)), default=None)


def _are_alike(wanted: dict[str, Any], found: dict[str, np.ndarray], part: str) -> bool:
    like, there = _named_below(part, wanted), _below(part, found)
    return {k: _describe(x) for k, x in like.items()} == {k: _describe(x) for k, x in there.items()}


def _named_below(part: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays by the names that they have as this part of a state."""
    return {f"{part}.{name}" if name else part: x for name, x in arrays.items()}


def _below(part: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays of this part of a state."""
    return {name: x for name, x in arrays.items() if name == part or name.startswith(f"{part}.")}


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _sha256(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(content["arrays"]):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


# --- processes -----------------------------------------------------------------------------------


def _is_writer() -> bool:
    return jax.process_index() == 0


def _broadcast(directory: Path, found: Checkpoint | None) -> Checkpoint | None:
    """Broadcast the checkpoint that the first process has read to all processes."""
    head = None
    if found is not None:
        head = [found.step, found.manifest, {k: _spec(x) for k, x in found.arrays.items()}]
    text = json.dumps(head).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(text))))
    head = json.loads(_broadcast_bytes(text, size))
    if head is None:
        return None
    step, manifest, kinds = head
    arrays = {}
    for name, (shape, dtype) in kinds.items():
        array = np.zeros(shape, jnp.dtype(dtype)) if found is None else found.arrays[name]
        data = _broadcast_bytes(array.tobytes(), array.nbytes)
        arrays[name] = np.frombuffer(data, array.dtype).reshape(shape)
    return Checkpoint(directory / str(step), step, arrays, manifest)


def _broadcast_bytes(data: bytes, size: int) -> bytes:
    """Those of the first process; as an array JAX would narrow 64 bits to 32."""
    mine = np.frombuffer(data if _is_writer() else bytes(size), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(mine)).tobytes()
