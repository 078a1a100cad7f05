"""Planted faults: functions of the package with one piece of their text replaced."""

import inspect
import sys
from types import ModuleType

import pytest
from cases import RTOL, differences


def mutated(function, old, new, *, user=None):
    """A copy of a function's module, in which the function has `new` in the place of `old`.

    The package stays as it is, and what JAX remembers of it, too.

    Args:
        function: of a module; in a wrapper of JAX, such as `jax.jit`, too.
        old: what stands in the text of the function exactly once.
        new: what stands there instead.
        user: another module, which imports names of the former: the copy is of it, with those.

    Returns:
        The copy.
    """
    module, text = sys.modules[function.__module__], inspect.getsource(function)
    assert text.count(old) == 1, f"{function.__name__}: {text.count(old)} times {old}"
    wrong = _run(module, text, text.replace(old, new))
    if user in (None, module):
        return wrong
    copy = _run(user)
    for name, x in vars(wrong).items():
        if name in vars(copy) and getattr(module, name) is vars(copy)[name]:
            setattr(copy, name, x)
    return copy


def _run(module, old="", new=""):
    copy = ModuleType(module.__name__)
    copy.__file__ = module.__file__
    exec(compile(inspect.getsource(module).replace(old, new), module.__file__, "exec"), vars(copy))
    return copy


def planted(faults):
    """Parametrizes a test with `fault`: the first is quick, all others are thorough.

    Args:
        faults: `{function: {name: (old, new, ...)}}`.

    Returns:
        The decorator; each fault is `(function, old, new, ...)`.
    """
    rows = {
        f"{function.__name__}: {name}": (function, *texts)
        for function, of_function in faults.items()
        for name, texts in of_function.items()
    }
    params = [
        pytest.param(fault, id=name, marks=pytest.mark.thorough if n else ())
        for n, (name, fault) in enumerate(rows.items())
    ]
    return pytest.mark.parametrize("fault", params)


def assert_seen(found, expected):
    """Some array differs by much more than a test allows, or is NaN."""
    assert not all(d <= 10 * RTOL for d in differences(found, expected).values())
