"""float64 and JAX's strictest rules for every test, and two CPU devices for the mesh.

Most of the suite's time is compilation. The quick tier, which is what `python -m pytest` runs, and
the thorough one, `python -m pytest -m 'thorough and not optimized'`, therefore compile without most
of XLA's and LLVM's optimisations: 1,029 thorough tests of the kernel take 4.2 minutes, 18 with them
(Intel Xeon, family 6, model 207, two shared cores, 28 November 2026). Tests of the kernel's values,
memory, structure and time as users have them are marked `optimized` and run in a call of their own,
`python -m pytest -m optimized`: how a process compiles never changes while it runs, so no fixture
and no order of the tests can mix programs of the two kinds.
"""

import gc
import os
import signal

import jax
import numpy as np
import pytest
from programs import TEXT, end_all

from jrnn import native


def quick_compilation():
    """The environment of a process that compiles quickly."""
    # One module of LLVM for each program, not many: 0.84 of the processor time.
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_parallel_codegen_split_count=1"]
    if jax.__version_info__ < (0, 11):  # 0.45 of the time; newer ones know no such flag
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true", "XLA_FLAGS": " ".join(flags)}


def pytest_configure(config):
    """Before anything is compiled, here and in the processes that tests start."""
    if "not optimized" in config.option.markexpr:
        jax.config.update("jax_disable_most_optimizations", True)
        os.environ.update(quick_compilation())
    gc.set_threshold(50_000)  # tracing makes many objects and few cycles: 0.91 of the time
    # Nobody reads the keys of a cache that there is not, and the lines that led to an operation.
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_traceback_in_locations_limit", 0)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_num_cpu_devices", 2)
    # `nohup`, and a shell's background, let what they start ignore them, and all that this starts.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    gc.freeze()  # modules and tests stay: no collection goes through them


@pytest.fixture(autouse=True)
def data_of_its_own(request):
    """What a test draws from its module's RNG does not depend on the tests that ran before it."""
    if hasattr(request.module, "RNG"):
        request.module.RNG = np.random.default_rng(2)


@pytest.fixture(autouse=True)
def no_process_stays():
    """Neither on a core nor halted, when a test has failed."""
    yield
    end_all()


@pytest.fixture
def without_native():
    """For tests of the structure and the memory of XLA's loops."""
    with native.turned(False):
        yield


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    """The text of toy runs, which nobody writes to."""
    path = tmp_path_factory.mktemp("text") / "table.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def quick_children():
    """Processes that slow tests start, whose claim is not what XLA makes of a program."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick_compilation().items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def float32():
    """JAX as most users have it."""
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def every_guard():
    """NaNs and leaked tracers raise, beside the strict promotion of every test."""
    gc.freeze()  # after each trace JAX looks for tracers, which are new, in all that is not frozen
    with jax.debug_nans(True), jax.checking_leaks():
        yield


@pytest.fixture
def uncompiled():
    """Operation by operation, loops in Python: many programs of a few steps cost no compilation.

    The same arithmetic by the same rules, but not what XLA makes of the whole: a test of the same
    thing, compiled, belongs beside it. No trace is remembered, so faults may be planted.
    """
    with jax.disable_jit():
        yield
