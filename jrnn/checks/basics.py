"""Checks of single arrays, numbers and options, and the error that all checks raise."""

from functools import lru_cache
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.arrays import are_ids

IN_64_BITS = "JAX has it after jax.config.update('jax_enable_x64', True)"


def refuse(argument: str, expected: str, came: object, repair: str) -> NoReturn:
    """Raise the ValueError of all checks."""
    raise ValueError(f"{argument}: expected {expected}; got {came}. {repair}")


def describe(x: Any) -> str:
    return f"{jnp.result_type(x)}{list(np.shape(x))}"


def kind_of(x: Any) -> str:
    """The dtype and shape of an array, or else the class."""
    return describe(x) if hasattr(x, "dtype") else type(x).__name__


def shown(option: Any) -> str:
    """The value of an option for a message, but never a whole array."""
    shape = getattr(option, "shape", ())
    return f"an array {list(shape)}" if shape else repr(option)


def repair_of_module(x: Any, otherwise: str) -> str:
    """The repair for what should be parameters; a `jrnn.nnx.Stack` has them inside."""
    return "Its .pure() gives the parameters." if hasattr(x, "pure") else otherwise


def key(value: Any) -> None:
    """Refuse all but one random key, of the new kind or of the old one, a vector of uint32."""
    dtype = getattr(value, "dtype", None)
    is_new = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (is_new or dtype == np.uint32) or np.ndim(value) != (0 if is_new else 1):
        came = shown(value) if dtype is None else describe(value)
        refuse("key", "one random key of JAX", came, "jax.random.key(0) makes one.")


def array(argument: str, x: Any) -> None:
    if isinstance(x, jax.Array):
        there(argument, x)
        return
    if not isinstance(x, (np.ndarray, np.generic)):
        refuse(argument, "a JAX or NumPy array", type(x).__name__, _into_an_array(argument, x))
    if isinstance(x, np.ma.MaskedArray):
        repair = "Fill it by .filled(0); lengths or weights say which steps do not count."
        refuse(argument, "an array without a mask of its own", "a masked array", repair)
    if not _in_jax(x.dtype):
        repair = "Cast it by .astype: JAX has numbers of up to 64 bits in the machine's byte order."
        refuse(argument, "a dtype that JAX has", f"{x.dtype}{list(x.shape)}", repair)


def _into_an_array(argument: str, x: Any) -> str:
    """The repair for another type: choose one part, pad sequences, or convert."""
    if fields := getattr(x, "_fields", ()):
        return f"It has the fields {', '.join(fields)}: pass one of them, such as .{fields[0]}."
    fields = getattr(x[0], "_fields", ()) if isinstance(x, tuple) and len(x) == 2 else ()
    if fields and type(x[0]) is type(x[1]):
        name = fields[0]
        joined = f"jnp.concatenate([part.{name} for part in {argument}], -1)"
        return f"Of two directions pass {joined}, of two layers the last, [-1].{name}."
    if isinstance(x, tuple) and any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(x)):
        return "Pass one of its parts, such as the last, [-1]."
    if isinstance(x, (list, tuple)) and len({_extent(part) for part in x}) > 1:
        return (
            "Its parts differ in length: pad each to T steps, join them by jnp.stack(..., axis=1), "
            "and pass their lengths."
        )
    return "Convert it by jnp.asarray."


def _extent(x: Any) -> Any:
    return getattr(x, "shape", None) or (len(x) if isinstance(x, (list, tuple)) else None)


def there(argument: str, x: Any) -> None:
    """Refuse an array whose buffer was donated or deleted."""
    if not isinstance(x, jax.core.Tracer) and x.is_deleted():
        repair = "A training step donates its state: use the state that it returned."
        refuse(argument, "an array that was not donated", "one that was donated or deleted", repair)


def not_explicit(argument: str, x: Any) -> None:
    """Refuse an array that is split over Explicit axes; only these are in the type of an array."""
    sharding = jax.typeof(x).sharding
    if any(sharding.spec):
        axes = len(sharding.mesh.axis_names)
        auto = "axis_types=(jax.sharding.AxisType.Auto,)" + (f" * {axes}" if axes > 1 else "")
        repair = f"Give jax.make_mesh {auto}, or map over the batch by jax.shard_map."
        came = f"one split over Explicit axes, {sharding.spec}"
        refuse(argument, "an array split over Auto axes", came, repair)


@lru_cache
def _in_jax(dtype: np.dtype) -> bool:
    try:
        jax.typeof(np.zeros((), dtype))
    except TypeError:
        return False
    return True


def shape(argument: str, x: Any, shape: tuple[int | None, ...], axes: str, repair: str) -> None:
    array(argument, x)
    given = x.shape
    if len(given) != len(shape) or any(
        n not in (None, m) for n, m in zip(shape, given, strict=True)
    ):
        sizes = ", ".join("any" if n is None else str(n) for n in shape)
        refuse(argument, f"shape {axes} = [{sizes}]", describe(x), repair)


def for_each_unit(argument: str, x: Any, H: int, dtype: Any) -> jax.Array:
    """Return a copy, which may be donated while x is kept: a number or `[H]` as `[H]`."""
    try:
        return jnp.broadcast_to(jnp.array(x, dtype), (H,))
    except (TypeError, ValueError):
        refuse(argument, f"a number or an array [H] = [{H}]", shown(x), "One for each unit.")


def is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def floating(argument: str, x: Any) -> None:
    if not is_float(x):
        refuse(argument, "a floating dtype", describe(x), "Cast it by .astype(jnp.float32).")


def parameters(argument: str, x: Any) -> None:
    """Refuse dtypes that are not floating, and float64 if JAX is not in 64-bit mode."""
    floating(argument, x)
    widest = jax.dtypes.canonicalize_dtype(x.dtype)
    if isinstance(x, jax.Array) and x.dtype != widest:
        repair = f"{IN_64_BITS}; or cast the parameters by .astype(jnp.{widest})."
        refuse(argument, f"at most {widest}", describe(x), repair)


def same_dtype(argument: str, x: Any, reference_name: str, reference: Any) -> None:
    if jnp.result_type(x) != jnp.result_type(reference):
        dtype = jnp.result_type(reference)
        repair = f"One floating dtype runs through a call: take {argument}.astype(jnp.{dtype})."
        refuse(argument, f"the dtype of {reference_name}, {dtype}", jnp.result_type(x), repair)


def concrete(x: Any) -> np.ndarray | None:
    """The values, or None if they are traced or not all in this process."""
    if isinstance(x, jax.core.Tracer):
        return None
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return None
    return np.asarray(x)


def ids_within(
    argument: str, ids: Any, size: int, what: str, counted: np.ndarray | None = None
) -> None:
    """Refuse concrete ids outside [0, size); only those in the mask `counted` matter."""
    values = concrete(ids)
    if values is None or values.size == 0:
        return
    values = values.astype(np.int64)  # `size` may not fit into the dtype of the ids
    wrong = (values < 0) | (values >= size)
    if counted is not None:
        wrong &= counted
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        value = values[where]
        came = f"{value} at {list(where)}, {int(wrong.sum())} ids outside in all"
        repair = "Ids and classes count from 0, in the order that the parameters were made for."
        if argument == "labels":
            repair += f" Give those that do not count a weight of 0: weights=labels != {value}."
        refuse(argument, f"ids from 0 to {size - 1} ({what})", came, repair)


def ids(argument: str, ids: Any, size: int, what: str) -> None:
    array(argument, ids)
    if not are_ids(ids):
        refuse(argument, "integers", describe(ids), "Ids count from 0.")
    ids_within(argument, ids, size, f"{size} {what}")


def sizes(**values: Any) -> None:
    for argument, n in values.items():
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
            refuse(argument, "a positive integer", shown(n), "The least is 1.")


def square(shape: Any) -> None:
    """Refuse a shape that is not [H, H]."""
    if len(shape) != 2 or shape[0] != shape[1]:
        repair = "It is made for w_hh; w_ih takes any of jax.nn.initializers."
        refuse("shape", "[H, H]", list(shape), repair)


def number(argument: str, value: Any, above: float = -np.inf) -> None:
    if not (is_number(value) and above < value < np.inf):
        least = "" if above == -np.inf else f" above {above}"
        refuse(
            argument,
            f"a finite number{least}",
            shown(value),
            "It must be a constant number.",
        )


def is_number(x: Any) -> bool:
    if isinstance(x, jax.core.Tracer):
        return False
    return np.ndim(x) == 0 and isinstance(np.asarray(x).item(), (int, float))


def positive_or_none(argument: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not is_number(value) or not 0 < value < np.inf:
        refuse(argument, "a positive number or None", shown(value), "None leaves it out.")
    return float(value)


def flag(argument: str, value: Any) -> None:
    if not isinstance(value, (bool, np.bool_)):
        refuse(argument, "True or False", shown(value), "It is fixed when the call is compiled.")


def floating_dtype(dtype: Any) -> np.dtype:
    """The dtype of new parameters."""
    repair = "Leave it out for JAX's default float."
    try:
        asked = jnp.dtype(float if dtype is None else dtype)
    except TypeError:
        refuse("dtype", "a floating dtype or None", repr(dtype), repair)
    if not jnp.issubdtype(asked, jnp.floating):
        refuse("dtype", "a floating dtype or None", asked, repair)
    given = jax.dtypes.canonicalize_dtype(asked)  # float32 for float64, except in 64-bit mode
    if dtype is not None and given != asked:
        refuse("dtype", f"at most {given}", asked, f"{IN_64_BITS}.")
    return given
