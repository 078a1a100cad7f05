"""Which answers the checks look at: the stubs that you fill in, or the solutions."""

import importlib

import jax
import pytest


def pytest_configure():
    """64-bit floats, to compare ten digits."""
    jax.config.update("jax_enable_x64", True)


def pytest_addoption(parser):
    """Add `--solutions`."""
    parser.addoption("--solutions", action="store_true", help="check the solutions, not the stubs")


@pytest.fixture
def answers(request):
    """The module of the answers."""
    return importlib.import_module("solutions" if request.config.option.solutions else "stubs")
