"""float64 and JAX's strictest rules for every test, and two CPU devices for the mesh."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture
def optimized():
    """Compiled as users have it: what tests of the kernel's values, memory and time ask for."""


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """Without most of LLVM's optimisations; most of the suite's time is compilation."""
    slow = request.node.get_closest_marker("slow")
    quick = slow is None and "optimized" not in request.fixturenames
    if quick != jax.config.read("jax_disable_most_optimizations"):
        jax.config.update("jax_disable_most_optimizations", quick)
        jax.clear_caches()  # which take no notice


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
def uncompiled():
    """Operation by operation, loops in Python: many programs of a few steps cost no compilation.

    The same arithmetic by the same rules, but not what XLA makes of the whole: a test of the same
    thing, compiled, belongs beside it. No trace is remembered, so faults may be planted.
    """
    with jax.disable_jit():
        yield
