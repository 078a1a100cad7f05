"""A trained network in one file: arrays and a JSON header, in the safetensors format. No pickle.

The format (8 bytes of length, a JSON header, the arrays) holds data only, so that a file from a
stranger can be opened, and is read by many other programs. Needs the package safetensors.
"""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jrnn import checks
from jrnn.arrays import named_leaves
from jrnn.extras import install
from jrnn.files import write_whole
from jrnn.types import ReadoutParams, RNNParams

_FORMAT = "jrnn 1"
_REPAIR = "Train the model again, or give the file that training wrote."


def save_model(
    path: str | PathLike[str],
    rnn_params: RNNParams,
    readout_params: ReadoutParams,
    settings: dict[str, Any],
) -> None:
    """Write a network and its settings; an older file at `path` is replaced once all is written.

    Args:
        path: the file.
        rnn_params: of the network.
        readout_params: of its readout.
        settings: whatever JSON can hold.

    Raises:
        ImportError: safetensors is missing.
        OSError: the file cannot be written.
    """
    to_bytes = _safetensors().numpy.save
    leaves = named_leaves({"rnn": rnn_params, "readout": readout_params})
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in leaves}
    content = to_bytes(arrays, {"format": _FORMAT, "settings": json.dumps(settings)})
    write_whole(path, content)


def load_model(
    path: str | PathLike[str],
) -> tuple[RNNParams, ReadoutParams, dict[str, Any]]:
    """Read what `save_model` wrote.

    Args:
        path: the file.

    Returns:
        `(rnn_params, readout_params, settings)`.

    Raises:
        ImportError: safetensors is missing.
        OSError: the file is missing or cannot be read.
        ValueError: the file is cut short, is no model, or its arrays do not fit together.
    """
    name = f"model file {path}"
    with Path(path).open("rb"):  # an OSError with the path, whatever safetensors makes of it
        pass
    try:
        with _safetensors().safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                came = f"format {header.get('format', 'none')}"
                checks.refuse(name, f"format {_FORMAT}", came, _REPAIR)
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        settings = json.loads(header.get("settings", "null"))
    except (_safetensors().SafetensorError, json.JSONDecodeError) as error:
        checks.refuse(name, "a whole safetensors file", error, _REPAIR)
    if not isinstance(settings, dict):
        checks.refuse(name, "settings as a JSON object", repr(settings), _REPAIR)
    return *_parameters(name, arrays), settings


def _parameters(name: str, arrays: dict[str, np.ndarray]) -> tuple[RNNParams, ReadoutParams]:
    needed = {"rnn.w_ih", "rnn.w_hh", "readout.w_ho"}
    if not needed <= arrays.keys() <= needed | {"rnn.b_h", "readout.b_o"}:
        expected = f"the arrays {', '.join(sorted(needed))} and biases"
        checks.refuse(name, expected, sorted(arrays), _REPAIR)
    found = {key: jnp.asarray(value) for key, value in arrays.items()}
    rnn_params = RNNParams(found["rnn.w_ih"], found["rnn.w_hh"], found.get("rnn.b_h"))
    readout_params = ReadoutParams(found["readout.w_ho"], found.get("readout.b_o"))
    try:
        checks.rnn_params(rnn_params)
        checks.readout_arguments(readout_params, rnn_params.w_hh)
    except ValueError as error:
        raise ValueError(f"{name}: {error} {_REPAIR}") from error
    return rnn_params, readout_params


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"model files need safetensors: {install('train')}") from error
    return safetensors
