"""How a reader finds through the kernel: few files to a call, and imports that form a stack."""

import ast
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from cases import make_case

import jrnn

ROOT = Path(jrnn.__file__).parent
INSIDE = ("kernel", "cells")
SOURCES = sorted(ROOT.rglob("*.py"))


# --- files ---------------------------------------------------------------------------------------


def files_passed(f, *args):
    """The files of the kernel in which Python calls a function while JAX traces and lowers f."""
    jax.clear_caches()  # no trace is remembered
    seen, before = set(), sys.getprofile()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_name != "<module>":
            seen.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        jax.jit(f).trace(*args).lower()
    finally:
        sys.setprofile(before)
    inside = (Path(name) for name in seen if name.startswith(str(ROOT)))
    names = (path.relative_to(ROOT) for path in inside)
    return sorted(str(name) for name in names if name.parts[0] in INSIDE)


def cost(params, xs):
    return jnp.sum(jrnn.rnn(params, xs)[1] ** 2)


@pytest.mark.parametrize("batch", [True, False], ids=["batch", "one"])
@pytest.mark.parametrize(("f", "most"), [(cost, 7), (jax.grad(cost), 9)], ids=["call", "gradient"])
def test_a_call_passes_through_few_files(f, most, batch):
    case = make_case(batch=batch)
    found = files_passed(f, case.params, case.xs)
    print(len(found), found)
    assert "kernel/step.py" in found
    assert len(found) <= most, found


# --- imports -------------------------------------------------------------------------------------


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): ast.parse(path.read_text()) for path in SOURCES}


def imports(tree, nested=False):
    """(module, name) of every import of the package when the module is loaded."""
    for node in ast.walk(tree) if nested else statements(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jrnn"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, None) if whole in MODULES else (node.module, alias.name)
        if isinstance(node, ast.Import):
            yield from ((a.name, None) for a in node.names if a.name in MODULES)


def statements(tree):
    """Those that run when the module is loaded; not what only type checkers read."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node


def test_the_kernel_and_the_cells_form_a_stack():
    inside = {m for m in MODULES if m.split(".")[1:2] and m.split(".")[1] in INSIDE}
    assert {"jrnn.kernel", "jrnn.kernel.step", "jrnn.cells", "jrnn.cells.elman"} <= inside
    below = {m: {of for of, _ in imports(MODULES[m])} & inside - {m} for m in inside}
    placed = set()
    while ready := {m for m, of in below.items() if m not in placed and of <= placed}:
        placed |= ready
    assert placed == inside, f"in a cycle: {sorted(inside - placed)}"


def test_nothing_below_imports_the_kernel_or_the_cells():
    """What they import of the rest of the package, when it is loaded, does not import them."""
    inside = {m for m in MODULES if m.split(".")[1:2] and m.split(".")[1] in INSIDE}
    outside = {of for m in inside for of, _ in imports(MODULES[m])} - inside - {"jrnn"}
    assert "jrnn.arrays" in outside
    for module in outside:
        assert not {of for of, _ in imports(MODULES[module])} & inside, module


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_no_private_name_is_used_in_another_file():
    wrong = []
    for module, tree in MODULES.items():
        mine = dict(imports(tree, nested=True))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jrnn"):
                names = [a for a in node.names if f"{node.module}.{a.name}" not in MODULES]
                wrong += [(module, a.name) for a in names if is_private(a.name)]
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                of = node.value
                if isinstance(of, ast.Name) and any(m.endswith(f".{of.id}") for m in mine):
                    wrong.append((module, f"{of.id}.{node.attr}"))
    assert not wrong
