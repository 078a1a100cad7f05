"""The native kernel: whole loops over time in C++, for CPUs with AVX2 or AVX-512.

It takes the place of XLA's loops where it was built and the call allows it (`jrnn.explain` shows
what runs a call), with the same results up to rounding. To turn it off, set `JRNN_NATIVE=0` in the
environment, or at any time

    jax.config.update("jrnn_native", False)

which belongs to the key of compiled functions: they are compiled again.
"""

import contextlib
import ctypes
import functools
import os
import re
import runpy
from ctypes import c_char_p, c_int64
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax._src import config  # for an option of jrnn's own; the public `jax.config` cannot add one

FILE = "libjrnn.so.1"
HANDLERS = "forward", "backward", "loss", "loss_gradient"
TILES = 1024
ISAS = {TILES: "AVX-512 with AMX", 512: "AVX-512", 2: "AVX2"}


_enabled: Any = config.bool_state(
    "jrnn_native",
    True,
    "Whether jrnn's native kernel may run.",
    include_in_jit_key=True,
    include_in_trace_context=True,
)


class Library(NamedTuple):
    """The loaded library, whose handlers JAX knows.

    Attributes:
        path: the file.
        isa: a key of ISAS.
        has_bfloat16: whether this processor multiplies it.
        scratch_bytes: a function of C, see native/shim.
        loss_scratch_bytes: the same of the losses.
    """

    path: Path
    isa: int
    has_bfloat16: bool
    scratch_bytes: Any
    loss_scratch_bytes: Any


def available() -> bool:
    """Say whether the native kernel can run here; `why_not` says why it cannot.

    Returns:
        True if it was built, fits this JAX and this processor, and is loaded. It may still be
        turned off.
    """
    return isinstance(_load(), Library)


def enabled() -> bool:
    """Say whether the native kernel runs where it can: it is available and was not turned off.

    Returns:
        True or False; it holds for programs that are compiled now.
    """
    return not is_off() and available()


def is_off() -> bool:
    """Say whether the native kernel was turned off. This does not load it.

    Returns:
        True or False; it holds for programs that are compiled now.
    """
    return not _enabled.value


def turned(on: bool) -> contextlib.AbstractContextManager[Any]:
    """Turn the native kernel on or off in a block, for this thread.

    Args:
        on: whether it may run.

    Returns:
        A context manager, for around the call that compiles, not for inside a jitted function.
    """
    return cast(contextlib.AbstractContextManager[Any], _enabled(on))


def cpu_cores() -> int:
    """The cores that this process may use.

    Returns:
        Their number.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux; elsewhere a process may use every core
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def why_not() -> str | None:
    """Say why the native kernel cannot run here.

    Returns:
        One sentence, or None if it can.
    """
    found = _load()
    return None if isinstance(found, Library) else found


def library() -> Library:
    """The loaded library.

    Returns:
        The `Library`.

    Raises:
        RuntimeError: it is not available.
    """
    found = _load()
    if not isinstance(found, Library):
        raise RuntimeError(found)
    return found


def call(name: str, results: Any, arguments: Any, **options: int | float) -> list[jax.Array]:
    """A call of the library, in a program that is lowered for a CPU.

    Args:
        name: of the handler, such as "forward".
        results: their types.
        arguments: the arrays.
        options: the attributes of the call, without `isa`.

    Returns:
        The results.
    """
    function: Any = jax.ffi.ffi_call(f"jrnn_native_{name}", results)
    attributes = {k: np.int64(x) if isinstance(x, int) else x for k, x in options.items()}
    return cast(list[jax.Array], function(*arguments, isa=np.int64(library().isa), **attributes))


@functools.cache
def _load() -> Library | str:
    """The first library that fits, or the reason why there is none."""
    reasons = []
    for file in _files():
        found = _open(file)
        if isinstance(found, Library):
            return found
        reasons.append(found)
    return (*reasons, "The native kernel was not built: there was no compiler, or it failed.")[0]


def _files() -> list[Path]:
    """The library in this folder, and among the installed files.

    The installed one is in another folder after `pip install -e`, and if Python runs in a clone and
    reads the package there.
    """
    files = [Path(__file__).parent / FILE]
    with contextlib.suppress(PackageNotFoundError):
        installed = distribution("jrnn").files or []
        files += [Path(str(file.locate())) for file in installed if file.name == FILE]
    return [file for file in dict.fromkeys(files) if file.is_file()]


def _open(file: Path) -> Library | str:
    """A library, or the reason why it does not fit. Nothing is registered before all checks."""
    try:
        loaded = ctypes.CDLL(str(file))
        names = "build", "isa", "has_bfloat16", "scratch_bytes", "loss_scratch_bytes"
        build, isa, has_bfloat16, *scratch = (getattr(loaded, f"jrnn_native_{n}") for n in names)
        symbols = (f"Jrnn{name.title().replace('_', '')}Handler" for name in HANDLERS)
        handlers = {name: getattr(loaded, f) for name, f in zip(HANDLERS, symbols, strict=True)}
    except (OSError, AttributeError) as error:
        return f"{file} cannot be loaded: {error}."
    build.restype, isa.restype, has_bfloat16.argtypes = c_char_p, c_int64, [c_int64]
    for function, arguments in zip(scratch, (12, 7), strict=True):
        function.restype, function.argtypes = c_int64, [c_int64] * arguments
    if (wrong := _wrong_build(build().decode())) is not None:
        return f"{file} {wrong}."
    if isa() not in ISAS:
        return "This processor has neither AVX2 nor AVX-512."
    for name, handler in handlers.items():
        target = jax.ffi.pycapsule(handler)
        jax.ffi.register_ffi_target(f"jrnn_native_{name}", target, platform="cpu")
    return Library(file, isa(), bool(has_bfloat16(isa())), *scratch)


def _wrong_build(build: str) -> str | None:
    """The reason why a library does not fit, by what it says of its build; or None."""
    ffi, package, sources = build.split(" ")  # none is left out by a build of one's own
    again = "Install jrnn again"
    try:
        header = Path(jax.ffi.include_dir(), "xla/ffi/api/c_api.h").read_text()
    except OSError as error:
        return f"cannot be compared with this jaxlib, which has no headers: {error}"
    own = re.findall(r"#define XLA_FFI_API_M(?:AJ|IN)OR (\d+)", header)
    if len(own) != 2:
        return "cannot be compared with this jaxlib, whose headers name no version of XLA's FFI"
    (major, minor), (here_major, here_minor) = (map(int, x) for x in (ffi.split("."), own))
    if major != here_major or minor > here_minor:  # an older minor runs on a newer JAX
        here = f"{here_major}.{here_minor}"
        return f"needs version {ffi} of XLA's FFI, and this jaxlib has {here}. {again}"
    if package != version("jrnn"):
        return f"was built for jrnn {package}, and this is {version('jrnn')}. {again}"
    folder = Path(__file__).parents[1] / "native"
    script = folder / "source_hash.py"  # of a clone; an installed package has no sources
    if script.is_file() and sources != runpy.run_path(str(script))["source_hash"](folder):
        return f"was built from other sources than those of this tree. {again}"
    return None
