"""Convert a pytree of parameters to JSON and named arrays and back, bit for bit.

    null                            None
    "params.rnn.w_ih"               the array of this name
    {"list": [...]}                 a list; "tuple" for a tuple
    {"dict": {key: ...}}            a dict, in its order
    {"RNNParams": {field: ...}}     a NamedTuple, by the name of its class

The name of an array is its path: "params", then keys, fields and positions (`arrays.path_key`),
joined by dots. Anything that could not be restored exactly is refused when it is saved.
"""

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jrnn import checks
from jrnn.arrays import path_key
from jrnn.cells import UncheckedCell
from jrnn.types import KINDS

_CONTAINERS = {"dict": dict, "list": list, "tuple": tuple}
_KINDS = "As in {'Model': Model}."
_CELLS = "As in {'mgu': MGU}. A file tells cells by the class of their parameters."
_LEVELS = 100  # of nesting; JSON readers accept a few hundred

Kinds = Mapping[str, Any]  # NamedTuple classes by their names in JSON
Cells = Mapping[str, UncheckedCell]  # cells by their names in JSON


def known_kinds(kinds: Kinds | None, cells: Cells | None = None) -> dict[str, type]:
    """Containers and the NamedTuple classes of this package and of the caller, by name.

    Args:
        kinds: the classes of the caller.
        cells: the cells of the caller, whose names stand for the classes of their parameters.

    Returns:
        All classes by name.

    Raises:
        ValueError: no mapping; a class is not a NamedTuple, or its name is already used; something
            that is no cell, or two cells with parameters of one class.
    """
    own = _CONTAINERS | {kind.__name__: kind for kind in KINDS}
    for argument, x, repair in (("kinds", kinds, _KINDS), ("cells", cells, _CELLS)):
        if x is not None and not isinstance(x, Mapping):
            checks.refuse(argument, "a mapping with names as keys", type(x).__name__, repair)
    given = {} if kinds is None else dict(kinds)
    for name, cell in (cells or {}).items():
        kind = getattr(cell, "params", None)
        if kind is None or kind in given.values() or kind in own.values():
            expected = "jrnn.Cells, each with a class of parameters of its own"
            came = f"{name!r}: {getattr(cell, 'name', cell)!r}"
            checks.refuse("cells", expected, came, _CELLS)
        given[name] = kind
    for name, kind in given.items():
        if not _is_named_tuple(kind) or own.get(name, kind) is not kind:
            expected = f"NamedTuples, by other names than {', '.join(own)}"
            checks.refuse("kinds", expected, f"{name!r}: {kind!r}", _KINDS)
    return given | own


def to_json(params: Any, kinds: Kinds, dtypes: set[str]) -> tuple[Any, dict[str, np.ndarray]]:
    """Split a pytree into a JSON structure and arrays.

    Args:
        params: a pytree of containers, NamedTuples of `kinds` and arrays.
        kinds: from `known_kinds`.
        dtypes: the names of the allowed dtypes.

    Returns:
        The structure, for JSON, and the arrays by name.

    Raises:
        ValueError: a part cannot be restored exactly; the message gives its path.
    """
    names = {kind: name for name, kind in kinds.items()}
    arrays: dict[str, np.ndarray] = {}

    def flatten(name: str, x: Any, level: int) -> Any:
        if x is None:
            return None
        if type(x) not in names:
            arrays[name] = _to_numpy(name, x, dtypes)
            return name
        _check_level("params", level)
        if isinstance(x, dict):
            _check_keys(name, x)
        nodes = {
            key: flatten(f"{name}.{path_key(key)}", child, level + 1) for key, child in _children(x)
        }
        return {names[type(x)]: list(nodes.values()) if type(x) in (list, tuple) else nodes}

    return flatten("params", params, 0), arrays


def from_json(name: str, structure: Any, arrays: Mapping[str, Any], kinds: Kinds) -> Any:
    """Rebuild a pytree from a JSON structure and arrays.

    Args:
        name: the source, for messages.
        structure: from `to_json`; it may be invalid.
        arrays: the arrays by name.
        kinds: from `known_kinds`.

    Returns:
        The pytree.

    Raises:
        ValueError: the structure is invalid, or has an unknown class or other arrays.
    """
    left = dict(arrays)

    def unflatten(node: Any, level: int) -> Any:
        if node is None:
            return None
        if isinstance(node, str):
            if node not in left:
                checks.refuse(name, f"one array {node}", "none", "The file is incomplete.")
            return left.pop(node)
        _check_level(name, level)
        kind, content = _only_item(node)
        if kind not in kinds:
            repair = (
                "A class of your own is given as kinds={name: class}, a cell as cells={name: cell}."
            )
            checks.refuse(name, f"kinds of parameters among {', '.join(kinds)}", repr(kind), repair)
        cls = kinds[kind]
        children = dict(enumerate(content)) if isinstance(content, list) else content
        if not isinstance(children, dict) or (cls in (list, tuple)) != isinstance(content, list):
            repair = "save_model never writes this."
            checks.refuse(name, f"the content of a {kind}", type(content).__name__, repair)
        if _is_named_tuple(cls) and children.keys() != set(cls._fields):
            expected, came = (f"{kind}({', '.join(fields)})" for fields in (cls._fields, children))
            checks.refuse(name, expected, came, "Give the class that the file was written with.")
        found = {key: unflatten(child, level + 1) for key, child in children.items()}
        if _is_named_tuple(cls):
            return cls._make(found[field] for field in cls._fields)
        return found if cls is dict else cls(found.values())

    params = unflatten(structure, 0)
    if left:
        checks.refuse(
            name, "no arrays beside the parameters", ", ".join(left), "It is not a model file."
        )
    return params


def check_json(name: str, x: Any, level: int = 0) -> None:
    """Refuse a value that JSON cannot restore exactly.

    Args:
        name: the name of x, for the message.
        x: any value.
        level: the depth of x in the whole value.

    Raises:
        ValueError: a part cannot be restored exactly; the message gives its path.
    """
    if isinstance(x, (dict, list)):
        _check_level(name.partition(".")[0], level)
        if isinstance(x, dict):
            _check_keys(name, x)
        for key, child in _children(x):
            check_json(f"{name}.{path_key(key)}", child, level + 1)
    elif not _survives_json(x):
        expected = "a dict, a list, text, a finite number, True, False or None"
        came = repr(x) if isinstance(x, float) else type(x).__name__
        checks.refuse(name, expected, came, "JSON holds nothing else: lists for tuples.")


def _children(x: Any) -> Any:
    """The children of a node with their keys, positions or fields."""
    if isinstance(x, dict):
        return x.items()
    return zip(x._fields, x, strict=True) if _is_named_tuple(type(x)) else enumerate(x)


def _only_item(node: Any) -> Any:
    return next(iter(node.items())) if isinstance(node, dict) and len(node) == 1 else (None, None)


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _to_numpy(name: str, x: Any, dtypes: set[str]) -> np.ndarray:
    if type(x) is not np.ndarray and not isinstance(x, jax.Array):
        own = type(x).__name__
        expected = "an array, None, or a dict, list, tuple or known NamedTuple of them"
        repair = "jnp.asarray makes an array of a number; make other containers dicts."
        if _is_named_tuple(type(x)):
            repair = f"Give its class, here and to load_model: kinds={{{own!r}: {own}}}."
        checks.refuse(name, expected, own, repair)
    if str(x.dtype) not in dtypes:
        repair = "Cast it by .astype; of a random key, take jax.random.key_data(key)."
        checks.refuse(name, f"one of {', '.join(sorted(dtypes))}", x.dtype, repair)
    if isinstance(x, jax.core.Tracer):
        checks.refuse(name, "an array with values", "a traced one", "Save outside of jax.jit.")
    if isinstance(x, jax.Array):
        checks.there(name, x)
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        repair = "Collect it by jax.experimental.multihost_utils.process_allgather."
        checks.refuse(name, "an array of this process", "one of several processes", repair)
    return np.asarray(x, order="C")


def check_all_keys(name: str, x: Any) -> None:
    """Refuse keys that are no text: JSON would make `"1"` of 1, and one entry of both.

    Args:
        name: the name of x, for the message.
        x: what JSON can hold.

    Raises:
        ValueError: such a key, in x or in a part of it; the message gives its path.
    """
    if isinstance(x, dict):
        _check_keys(name, x)
    if isinstance(x, (dict, list, tuple)):
        for key, child in _children(x):
            check_all_keys(f"{name}.{path_key(key)}", child)


def _check_keys(name: str, x: dict[Any, Any]) -> None:
    for key in x:
        if not isinstance(key, str) or not _survives_json(key):
            checks.refuse(name, "keys that are text", f"{key!r:.80}", "JSON has no others.")


def _check_level(name: str, level: int) -> None:
    if level == _LEVELS:
        checks.refuse(name, f"at most {_LEVELS} levels of nesting", "more", "Make it flatter.")


def _survives_json(x: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(x, allow_nan=False)) == x)
    except (TypeError, ValueError, RecursionError):
        return False
