"""What the examples share: numbers of a command line, and in one line what JAX has not got."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass

import command
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices import on_devices, require_memory
from programs import ROOT

pytestmark = pytest.mark.slow  # it starts processes

PROGRAMS = ["char_lm", "adding_problem", "gradient_flow", "japanese_vowels"]
PROGRAMS += ["co2_forecast", "perceptual_decision"]


@dataclass(frozen=True)
class Numbers(command.Checked):
    positive: command.Positive = 1
    not_negative: command.NotNegative = 0
    positive_float: command.PositiveFloat = 1.0
    several: tuple[command.Positive, ...] = ()


BAD_NUMBERS = [
    ("positive", 0, "an integer from 1 to 2,147,483,647"),
    ("positive", 2**31, "an integer from 1 to 2,147,483,647"),
    ("not_negative", -1, "an integer from 0 to 2,147,483,647"),
    ("positive_float", 0.0, "a number from 1.18e-38 to 3.4e+38"),
    ("positive_float", np.nan, "a number from 1.18e-38 to 3.4e+38"),
    ("positive_float", 1e300, "a number from 1.18e-38 to 3.4e+38"),  # inf in float32
    ("positive_float", 1e-300, "a number from 1.18e-38 to 3.4e+38"),  # 0 in float32
    ("several", (1, 0), "an integer from 1 to 2,147,483,647"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD_NUMBERS)
def test_a_number_that_is_none(name, value, expected):
    option = name.replace("_", "-")
    with pytest.raises(ValueError, match=re.escape(f"--{option}: expected {expected}; got ")):
        Numbers(**{name: value})


def test_numbers():
    options = ["--positive=2147483647", "--positive-float=1e-3", "--several", "1", "2"]
    assert Numbers.parse(options) == Numbers(2**31 - 1, 0, 1e-3, (1, 2))


LONG = "9" * 5000  # more digits than Python reads


@pytest.mark.parametrize(
    "option", ["--positive=1e3", f"--positive={LONG}", "--positive-float=fast", "--several=x"]
)
def test_text_that_is_no_number(option, capsys):
    with pytest.raises(SystemExit):
        Numbers.parse([option])
    assert option.partition("=")[0] in capsys.readouterr().err


# --- memory --------------------------------------------------------------------------------------

HUGE = 2**23  # its square, in float32, is more than a process can address, however much memory


@jax.jit
def sort_products(x):
    return jnp.sort(jnp.outer(x, x), 0)[0]


OUT_OF_MEMORY = r".*: Out of memory allocating \d+ bytes"  # it differs what stands before it
WITHOUT_MEMORY = {
    "an array of JAX": (lambda: jnp.zeros((HUGE, HUGE), jnp.float32), OUT_OF_MEMORY),
    "a compiled program": (lambda: sort_products(jnp.ones(HUGE, jnp.float32)), OUT_OF_MEMORY),
    "what waits for one": (lambda: sort_products(jnp.ones(HUGE, jnp.float32)) + 1, OUT_OF_MEMORY),
    "an array of NumPy": (lambda: np.zeros((HUGE, HUGE), np.float32), "Unable to allocate"),
    "a list": (lambda: [None] * 2**60, "no more"),
}


@pytest.mark.parametrize("name", WITHOUT_MEMORY)
def test_memory_that_is_not_there(name):
    run, came = WITHOUT_MEMORY[name]
    message = (
        rf"^memory: expected as much as the run needs; got {came}.*\. Give a smaller --size\.$"
    )
    with pytest.raises(ValueError, match=message), on_devices("--size"):
        jax.block_until_ready(run())


def test_what_is_no_lack_of_memory_is_not_called_so():
    def fail(x):
        raise RuntimeError("a fault of the program")

    result, error = jax.ShapeDtypeStruct((), jnp.float32), jax.errors.JaxRuntimeError
    with pytest.raises(error, match="a fault of the"), on_devices("--size"):
        jax.block_until_ready(jax.pure_callback(fail, result, jnp.float32(1)))


def test_sizes_that_cannot_fit():
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    require_memory(there // 4, "the states", "--size")
    require_memory(there // 8, "the states", "--size", devices=2)
    message = rf"memory: expected at least .* GB for the states; got {there / 1e9:,.1f} GB\. Give a"
    for numbers, devices in ((there // 4 + 1, 1), (there // 8 + 1, 2)):
        with pytest.raises(ValueError, match=message):
            require_memory(numbers, "the states", "--size", devices)


# --- in a process of its own ---------------------------------------------------------------------


def beside_the_examples(code, *options, **environment):
    lines = ["import sys", "sys.path.insert(0, 'examples')", *code]
    command = [sys.executable, *options, "-c", "\n".join(lines)]
    environment = os.environ | environment
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_devices_that_are_not_there(tmp_path):
    """Of every program, by Python without docstrings and assertions."""
    arguments = ["--out", str(tmp_path)]
    mains = ["char_model.main", *PROGRAMS[1:]]
    code = [f"import {', '.join(mains)}"]
    code += [f"print({name}.main({arguments}))" for name in mains]
    run = beside_the_examples(code, "-OO", JAX_PLATFORMS="bogus")
    assert run.stdout == "1\n" * len(PROGRAMS), run.stderr
    line = (
        r"error: JAX_PLATFORMS: expected platforms that JAX has here; got bogus: Unable to "
        r"initialize backend 'bogus': Backend 'bogus' is not in the list .*\. Unset it, or take "
        r"cpu\.\n"
    )
    assert re.fullmatch(f"({line}){{{len(PROGRAMS)}}}", run.stderr), run.stderr


def test_devices_of_which_jax_says_nothing():
    """It asserts that there are some."""
    code = ["from devices import on_devices", "with on_devices('--size'): pass"]
    run = beside_the_examples(code, JAX_PLATFORMS="cuda", CUDA_VISIBLE_DEVICES="-1")
    message = "ValueError: JAX_PLATFORMS: expected platforms that JAX has here; got cuda"
    assert message in run.stderr.splitlines()[-1]


def test_a_missing_package_says_how_to_get_it():
    """Of every program, and of the package that a program imports."""
    code = ["import runpy", "sys.modules['tqdm'] = None"]
    for name in PROGRAMS:
        code += ["try:", f"    runpy.run_path('examples/{name}.py', run_name='__main__')"]
        code += ["except SystemExit as error:", "    print(error)"]
    code += ["try:", "    import char_model", "except ImportError as error:", "    print(error)"]
    run = beside_the_examples(code)
    said = "tqdm is missing: pip install -e '.[examples]', in the clone of jrnn, brings it\n"
    assert run.stdout == f"error: {said}" * len(PROGRAMS) + said, run.stderr


def test_only_the_character_model_needs_its_packages():
    code = ["sys.modules['orbax'] = sys.modules['safetensors'] = None"]
    code += ["import adding_problem, co2_forecast, japanese_vowels, perceptual_decision"]
    run = beside_the_examples(code)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", ["closed pipe", "full disk"])
def test_a_report_that_cannot_be_written_is_dropped(name):
    """The results are in files."""
    closed = ["reader, writer = os.pipe()", "os.close(reader)"]
    full = ["writer = os.open('/dev/full', os.O_WRONLY)"]
    run = beside_the_examples(
        [
            "import os, command",
            *(closed if name == "closed pipe" else full),
            "os.dup2(writer, 1)",
            "sys.exit(command.exit_status(lambda: 'row ' * 10**5, ''))",
        ]
    )
    assert (run.returncode, run.stderr) == (0, "")
