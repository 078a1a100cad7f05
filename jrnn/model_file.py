"""Save trained parameters and settings in one safetensors file, without pickle.

The file holds data only, so opening a file from an unknown source is safe, and many other programs
can read its arrays. This needs the package safetensors.

Format 2: the metadata in the header has one key, "jrnn", whose value is a JSON text:

    sha256      the SHA-256 of the whole file without these 64 hexadecimal digits
    format      2
    params      the parameters: any pytree, and the names of its arrays, as in `pytree_json`
    settings    a JSON object

Parameters are restored bit for bit, including NaN and infinities.

Format 1, with {"rnn": RNNParams, "readout": ReadoutParams} and no checksum, can still be read.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from os import PathLike
from typing import Any

import jax
import numpy as np

from jrnn import checks
from jrnn.extras import install
from jrnn.files import naming, write_whole
from jrnn.pytree_json import Cells, Kinds, check_json, from_json, known_kinds, to_json

_DTYPES = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
_NO_DIGEST = b"0" * 64
_REPAIR = "Train the model again, or give the file that training wrote."


def save_model(
    path: str | PathLike[str],
    params: Any,
    settings: dict[str, Any],
    *,
    kinds: Kinds | None = None,
    cells: Cells | None = None,
) -> None:
    """Write parameters and settings to a file, which replaces an older one atomically.

    Args:
        path: the file.
        params: a JAX or NumPy array, or a pytree of them: None, dicts with string keys, lists,
            tuples, and the NamedTuples of this package.
        settings: a JSON object: dicts with string keys, lists, strings, finite numbers, booleans,
            None.
        kinds: your own NamedTuple classes by their names in the file.
        cells: your own cells by their names in the file, which has the name of a cell with the
            parameters of its class.

    Raises:
        ImportError: safetensors is missing.
        OSError: the file cannot be written.
        ValueError: something cannot be restored exactly. The message names it, and nothing is
            written.
    """
    if not isinstance(settings, dict):
        checks.refuse("settings", "a dict", type(settings).__name__, "Give {} for no settings.")
    check_json("settings", settings)
    known = known_kinds(kinds, cells)
    structure, arrays = to_json(params, known, set(_DTYPES.values()))
    content = _to_bytes(arrays, {"params": structure, "settings": settings})
    _from_bytes(f"model file {path}", content, known)  # write nothing that cannot be read
    write_whole(path, content)


def load_model(
    path: str | PathLike[str], *, kinds: Kinds | None = None, cells: Cells | None = None
) -> tuple[Any, dict[str, Any]]:
    """Read what `save_model` wrote.

    Args:
        path: the file.
        kinds: your own NamedTuple classes, as in `save_model`.
        cells: your own cells, as in `save_model`.

    Returns:
        `(params, settings)`, bit for bit. Arrays are JAX arrays on the default device, or NumPy
        arrays if JAX would narrow them (64 bits without jax_enable_x64).

    Raises:
        ImportError: safetensors is missing.
        OSError: the file is missing or cannot be read.
        ValueError: it was modified, is not a model file or not a regular file, or it has
            parameters of a class or a cell that is neither in this package nor given.
    """
    name, known = f"model file {path}", known_kinds(kinds, cells)
    return _from_bytes(name, _content(name, path), known, _to_jax)


def _content(name: str, path: str | PathLike[str]) -> bytes:
    """Read a regular file, without blocking on pipes."""
    nonblocking = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for its writer
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | nonblocking)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            checks.refuse(name, "a regular file", "a pipe or a device", _REPAIR)
        with naming(path):
            return file.read()


def _to_bytes(arrays: dict[str, np.ndarray], header: dict[str, Any]) -> bytes:
    text = json.dumps({"sha256": _NO_DIGEST.decode(), "format": 2} | header)
    try:
        content = _safetensors().numpy.save(arrays, {"jrnn": text})
    except _safetensors().SafetensorError as error:
        checks.refuse("params, settings", "what safetensors can hold", error, "Leave some out.")
    digest = _digest(content, content.index(_NO_DIGEST))
    return content.replace(_NO_DIGEST, digest, 1)


def _from_bytes(
    name: str, content: bytes, known: Kinds, convert: Callable[[np.ndarray], Any] = np.asarray
) -> tuple[Any, dict[str, Any]]:
    """The parameters, with converted arrays, and the settings."""
    try:
        structure, arrays, settings = _parse(content)
    except (_safetensors().SafetensorError, ValueError, RecursionError) as error:
        checks.refuse(name, "a whole model file of jrnn, format 1 or 2", error, _REPAIR)
    converted = {key: convert(x) for key, x in arrays.items()}
    return from_json(name, structure, converted, known), settings


def _parse(content: bytes) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]]:
    """The structure of the parameters, their arrays by name, and the settings."""
    arrays = {key: _array(x) for key, x in _safetensors().deserialize(content)}
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    if metadata.get("format") == "jrnn 1":
        structure, settings = _format_1(arrays), json.loads(metadata.get("settings", "null"))
    else:
        header = json.loads(metadata.get("jrnn", "null"))
        if not isinstance(header, dict) or header.get("format") != 2:
            raise ValueError("another format")
        if not _checksum_matches(content, header.get("sha256")):
            raise ValueError("a SHA-256 that does not match")
        structure, settings = header.get("params"), header.get("settings")
    if not isinstance(settings, dict):
        raise ValueError("settings that are not a JSON object")
    return structure, arrays, settings


def _array(tensor: dict[str, Any]) -> np.ndarray:
    if tensor["dtype"] not in _DTYPES:
        raise ValueError(f"the dtype {tensor['dtype']}")
    return np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])


def _format_1(arrays: dict[str, np.ndarray]) -> Any:
    """The structure of a format 1 file, as in format 2."""
    b_h, b_o = (name if name in arrays else None for name in ("rnn.b_h", "readout.b_o"))
    rnn = {"w_ih": "rnn.w_ih", "w_hh": "rnn.w_hh", "b_h": b_h}
    readout = {"w_ho": "readout.w_ho", "b_o": b_o}
    return {"dict": {"rnn": {"RNNParams": rnn}, "readout": {"ReadoutParams": readout}}}


def _checksum_matches(content: bytes, digest: Any) -> bool:
    given = str(digest).encode(errors="replace")
    start = content.find(given)
    return start >= 0 and _digest(content, start) == given


def _digest(content: bytes, start: int) -> bytes:
    """The SHA-256 of a file without the 64 digits at `start`."""
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(view[start + len(_NO_DIGEST) :])
    return digest.hexdigest().encode()


def _to_jax(x: np.ndarray) -> jax.Array | np.ndarray:
    canonical = jax.dtypes.canonicalize_dtype(x.dtype) == x.dtype
    return jax.device_put(x) if canonical else x  # jnp.asarray would compile for each shape


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"model files need safetensors: {install('train')}") from error
    return safetensors
