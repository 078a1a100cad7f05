"""A trained network in one file: arrays and a JSON header, in the safetensors format. No pickle.

The format (8 bytes of length, a JSON header, the arrays) holds data only, so that a file from a
stranger can be opened, and is read by many other programs. Needs the package safetensors.
"""

import json
import os
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jrnn import checks
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
    save_file = _safetensors().numpy.save_file
    leaves = jax.tree_util.tree_leaves_with_path({"rnn": rnn_params, "readout": readout_params})
    arrays = {
        jax.tree_util.keystr(key, simple=True, separator="."): np.ascontiguousarray(leaf)
        for key, leaf in leaves
    }
    unfinished = Path(f"{path}.unfinished")
    save_file(arrays, unfinished, metadata={"format": _FORMAT, "settings": json.dumps(settings)})
    os.replace(unfinished, path)


def load_model(
    path: str | PathLike[str],
) -> tuple[RNNParams, ReadoutParams, dict[str, Any]]:
    """Read what `save_model` wrote.

    Args:
        path: the file.

    Returns:
        `(rnn_params, readout_params, settings)`, the arrays as NumPy arrays.

    Raises:
        ImportError: safetensors is missing.
        OSError: the file is missing or cannot be read.
        ValueError: the file is cut short, is no model, or its arrays do not fit together.
    """
    with Path(path).open("rb"):  # an OSError with the path, whatever safetensors makes of it
        pass
    try:
        with _safetensors().safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except _safetensors().SafetensorError as error:
        raise ValueError(
            f"model file {path}: expected a whole safetensors file; got {error}. {_REPAIR}"
        ) from error
    if header.get("format") != _FORMAT:
        came = header.get("format", "none")
        raise ValueError(f"model file {path}: expected format '{_FORMAT}'; got {came}. {_REPAIR}")
    expected = {"rnn.w_ih", "rnn.w_hh", "readout.w_ho"}
    if not expected <= arrays.keys() <= expected | {"rnn.b_h", "readout.b_o"}:
        raise ValueError(
            f"model file {path}: expected the arrays {sorted(expected)} and biases; "
            f"got {sorted(arrays)}. {_REPAIR}"
        )
    rnn_params = RNNParams(arrays["rnn.w_ih"], arrays["rnn.w_hh"], arrays.get("rnn.b_h"))
    readout_params = ReadoutParams(arrays["readout.w_ho"], arrays.get("readout.b_o"))
    try:
        checks.rnn_params(rnn_params)
        checks.readout_arguments(readout_params, rnn_params.w_hh)
    except ValueError as error:
        raise ValueError(f"model file {path}: {error} {_REPAIR}") from error
    return rnn_params, readout_params, json.loads(header["settings"])


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("model files need safetensors: pip install 'jrnn[train]'") from error
    return safetensors
