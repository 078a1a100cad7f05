"""The marks of tests that need the native kernel; where it is required they run and fail."""

import os

import pytest

from jrnn import native

bfloat16 = pytest.mark.skipif(
    not (native.enabled() and native.library().has_bfloat16),
    reason="the native kernel does not run, or the processor multiplies no vectors of bfloat16",
)
built = pytest.mark.skipif(
    not native.enabled() and os.environ.get("JRNN_REQUIRE_NATIVE", "0") == "0",
    reason=f"the native kernel does not run here: {native.why_not() or 'it is turned off'}",
)
