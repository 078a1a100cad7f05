"""The native kernel: when it runs, when it does not, and that it is refused if it does not fit.

What it computes is proven where every backend is, in `tests/kernel`: a call that names no backend
runs on it.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import B, H, I, T, assert_close, make_case
from jax import export, lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from native_built import bfloat16, built
from native_shapes import main as compare_with_xla
from programs import ROOT

import jrnn
from jrnn import kernel, native
from jrnn.cells.elman import elman
from jrnn.kernel import dispatch, reference
from jrnn.kernel.backends.native import Native

CASE = make_case()


def gradient(params):
    return jax.grad(lambda p: jnp.sum(jnp.sin(jrnn.rnn(p, CASE.xs, CASE.h0)[1])))(params)


def calls(program):
    """The number of calls of the library in a compiled program."""
    return program.compile().as_text().count('custom_call_target="jrnn_native_')


@built
def test_it_is_there_where_it_is_required():
    assert native.available(), native.why_not()
    assert native.why_not() is None


@built
def test_it_is_turned_off_and_on():
    """A function that was compiled before is compiled again."""
    found = jax.jit(gradient)
    numbers, values = [], []
    for on in (True, False, True):
        jax.config.update("jrnn_native", on)
        numbers.append(calls(found.lower(CASE.params)))
        values.append(found(CASE.params))
    assert numbers == [2, 0, 2]
    assert_close(values[0], values[1])
    assert_close(values[0], values[2], 0.0)


def slices_on(cores):
    """Of `CASE`: one for each core, but no more than there are sequences and memory allows."""
    return max(1, min(cores, B, max(2, T * B // (I + H))))


@built
def test_what_a_call_takes_is_explained():
    forward, backward = jrnn.explain(jrnn.rnn, CASE.params, CASE.xs, platform="cpu")
    isa = native.ISAS[native.library().isa]
    slices = slices_on(native.cpu_cores())
    said = f"native, {isa}, {slices} slice{'s' * (slices > 1)}"
    assert forward.backend == backward.backend == said
    with native.turned(False):
        assert jrnn.explain(jrnn.rnn, CASE.params, CASE.xs)[0].backend.startswith("XLA, ")


@built
def test_an_exported_program_has_no_native_code():
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), CASE.params)
    exported = export.export(jax.jit(gradient), platforms=["cpu", "tpu"])(shapes)
    assert "jrnn_native" not in exported.mlir_module()
    assert_close(exported.call(CASE.params), gradient(CASE.params))


@built
def test_a_batch_on_several_devices():
    """Each device of a `shard_map` has its share of the cores; what XLA cuts has XLA's loops."""
    mesh, cut = jax.make_mesh((2,), ("batch",), (AxisType.Auto,)), P(None, "batch")
    xs = np.tile(CASE.xs, (1, 2, 1))

    def cost(params, xs):
        return jnp.sum(jnp.sin(jrnn.rnn(params, xs)[1]))

    def summed(params, xs):
        return jax.grad(lambda params: lax.psum(cost(params, xs), "batch"))(params)

    by_hand = jax.jit(jax.shard_map(summed, mesh=mesh, in_specs=(P(), cut), out_specs=P()))
    by_xla = jax.jit(jax.grad(cost))
    on_both = jax.device_put(xs, NamedSharding(mesh, cut))
    slices = f"slices = {slices_on(native.cpu_cores() // 2)} :"
    assert by_hand.lower(CASE.params, xs).as_text().count(slices) == 2
    assert calls(by_hand.lower(CASE.params, xs)) == 2
    assert calls(by_xla.lower(CASE.params, xs)) == 2
    assert calls(by_xla.lower(CASE.params, on_both)) == 0
    expected = by_xla(CASE.params, xs)
    assert_close(by_hand(CASE.params, xs), expected)
    assert_close(by_xla(CASE.params, on_both), expected)
    assert_close(jax.grad(cost)(CASE.params, on_both), expected)


@built
def test_the_gradient_of_inputs_is_computed_where_it_is_wanted():
    def dx(wanted):
        which = (0, 1) if wanted else 0
        f = jax.grad(lambda params, xs: jrnn.rnn(params, xs)[1].sum(), which)
        return jax.jit(f).lower(CASE.params, CASE.xs).as_text()

    assert "wanted = 0 :" in dx(False)
    assert "wanted = 1 :" in dx(True)


@built
@pytest.mark.parametrize("route", ["compute_dtype", "user's cell", "weights"])
def test_what_it_does_not_serve_runs_elsewhere(route):
    def cost(params):
        if route == "user's cell":
            phi = jrnn.Activation(jnp.tanh, lambda h: 1 - h * h)
            return jrnn.rnn(params, CASE.xs, activation=phi)[1].sum()
        return jrnn.rnn(params, CASE.xs, compute_dtype=jnp.bfloat16)[1].sum(dtype=jnp.float32)

    params, f = CASE.params, jax.grad(cost)
    if route == "weights":
        params = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
        f = jax.vmap(gradient)
    assert calls(jax.jit(f).lower(params)) == 0


@bfloat16
@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    "kind", ["rnn", "lstm", *(pytest.param(x, marks=pytest.mark.slow) for x in ("leaky", "gru"))]
)
def test_bfloat16_is_that_of_the_scans(kind):
    """The same numbers are rounded: sums in another order are all that differs."""
    options = {"alpha": 0.3} if kind == "leaky" else {}
    params = getattr(jrnn, f"init_{kind}")(jax.random.key(0), 17, 37, **options)
    xs, dhs = (jax.random.normal(jax.random.key(n), (12, 3, n)) for n in (17, 37))
    lengths = jnp.array([12, 7, 0])

    def cost(params, xs):
        run = getattr(jrnn, kind)
        last, hs = run(params, xs, lengths=lengths, compute_dtype=jnp.bfloat16)
        return jnp.vdot(dhs, hs.astype(jnp.float32)) + sum(x.sum() for x in jax.tree.leaves(last))

    found = []
    for on in (True, False):
        with native.turned(on):
            f = jax.jit(jax.grad(cost, (0, 1)))
            assert calls(f.lower(params, xs)) == 2 * on
            found.append(f(params, xs))
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b)


@bfloat16
@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("network", ["rnn", "lstm", "gru"])
def test_an_infinite_input_in_bfloat16_saturates_the_units_of_its_step(network):
    """Units of an odd number are in pairs, of which the last has one unit that there is not."""
    params = getattr(jrnn, f"init_{network}")(jax.random.key(0), 7, 9)
    xs = jax.random.normal(jax.random.key(1), (6, 3, 7)).at[2, 1, 3].set(jnp.inf)
    run = lambda xs: getattr(jrnn, network)(params, xs, compute_dtype=jnp.bfloat16)[1]
    assert calls(jax.jit(run).lower(xs)) == 1
    assert jnp.isfinite(run(xs)).all()


@built
@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="a Linux without huge pages"
)
def test_large_results_may_lie_in_huge_pages():
    """`hg` are the flags of memory whose owner asked for them: native/shim/pages.h."""
    params = jrnn.init_rnn(jax.random.key(0), I, 256)
    _, hs = jrnn.rnn(params, jnp.zeros((520, 32, I)))  # 34 MB
    hs.block_until_ready()  # the flags are set while it is computed
    inside, flags = False, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            begin, end = (int(bound, 16) for bound in bounds.groups())
            inside = begin <= hs.unsafe_buffer_pointer() < end
        elif inside and line.startswith("VmFlags"):
            flags = line
    assert "hg" in flags.split(), flags


@built
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_any_number_of_slices(slices):
    spec = kernel.Spec(elman("tanh"), backend=Native(slices))
    weights, inputs = kernel.Weights(*CASE.params), (CASE.xs, (CASE.h0,))

    def results(spec, run=kernel.transforms.unroll):
        f = lambda w: kernel.unroll(spec, w, *inputs, run=run)
        outputs, vjp = jax.vjp(f, weights)
        return outputs, vjp(jax.tree.map(jnp.cos, outputs))

    by_scan = results(kernel.Spec(elman("tanh")), reference.unroll_by_scan)
    assert_close(jax.jit(results, static_argnums=0)(spec), by_scan)


@built
@pytest.mark.parametrize("cell", ["tanh", "relu", "sigmoid", "identity", "leaky", "lstm", "gru"])
def test_special_numbers_are_those_of_xla(cell):
    """Infinities, NaN, -0, numbers that overflow exp, and denormal ones."""
    numbers = [np.inf, -np.inf, np.nan, -0.0, 0.0, 88.0, -86.9, -88.0, -104.0, 1e30, 1e-39, -1e-39]
    xs = np.array(numbers, np.float32)[None, :, None]
    one = lambda blocks: np.ones((1, blocks), np.float32)
    network, params, options = {
        "lstm": (jrnn.lstm, jrnn.LSTMParams(one(4), 0 * one(4), None), {}),
        "gru": (jrnn.gru, jrnn.GRUParams(one(3), 0 * one(3), None, None), {}),
        "leaky": (
            jrnn.leaky,
            jrnn.LeakyParams(one(1), 0 * one(1), None, one(1)[0] / 2, None),
            {"leak": "state"},
        ),
    }.get(cell, (jrnn.rnn, jrnn.RNNParams(one(1), 0 * one(1), None), {"activation": cell}))

    def states(params, xs):
        return network(params, xs, **options)[1]

    def gradient(params, xs):
        return jax.grad(lambda xs: jnp.nansum(states(params, xs)))(xs)

    for f in (states, gradient):
        found = jax.jit(f)(params, xs)
        assert calls(jax.jit(f).lower(params, xs))
        with native.turned(False):
            expected = jax.jit(f)(params, xs)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(~np.isnan(found), numbers)
        np.testing.assert_array_equal(np.signbit(found)[numbers], np.signbit(expected)[numbers])
        np.testing.assert_allclose(found, expected, 1e-6, 1e-37)


@built
@pytest.mark.parametrize("network", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("hidden_size", [128, 200])
def test_large_networks_round_little_more_than_xla(network, hidden_size):
    """With tiles a product of float32 is a sum of products of its parts. FMAs add all terms to one
    sum, where XLA has several: up to 1.9 times its error with jax 0.10, 2.0 with jax 0.12 (AMD
    EPYC, family 25, model 17)."""
    init = getattr(jrnn, f"init_{network}")
    params = init(jax.random.key(0), 40, hidden_size, dtype=jnp.float32)
    xs = jax.random.normal(jax.random.key(1), (6, 32, 40), jnp.float32)

    def results(params, xs):
        run = lambda *args: jnp.sin(getattr(jrnn, network)(*args)[1])
        return run(params, xs), jax.grad(lambda *args: run(*args).sum(), (0, 1))(params, xs)

    found = jax.jit(results)(params, xs)
    assert calls(jax.jit(results).lower(params, xs))
    with native.turned(False):
        by_xla = jax.jit(results)(params, xs)
    exact = results(*jax.tree.map(lambda x: x.astype(jnp.float64), (params, xs)))

    def error(x, exact):
        return np.linalg.norm(np.float64(x) - exact)

    tiles = native.library().isa == native.TILES
    for one, other, true in zip(*map(jax.tree.leaves, (found, by_xla, exact)), strict=True):
        most = (1.3 if one.ndim > 1 else 1.5) if tiles else 2.2
        assert error(one, true) <= most * error(other, true)


@built
def test_infinite_inputs_of_a_large_network_are_those_of_xla():
    """Numbers whose smaller parts are 0 times one whose parts must not make it NaN."""
    params = jrnn.RNNParams(np.full((40, 200), 0.125, np.float32), np.full((200,) * 2, 0.25), None)
    params = jax.tree.map(np.float32, params)
    xs = np.random.default_rng(0).random((6, 32, 40), np.float32)
    xs[0, 3, 7], xs[1, 0, 0], xs[1, 20, 1] = np.inf, 3.4e38, np.nan
    run = lambda params: jrnn.rnn(params, xs, activation="relu")[1]
    both = jax.jit(lambda params: (run(params), jax.grad(lambda p: run(p).sum())(params)))
    found = both(params)
    assert calls(both.lower(params))
    with native.turned(False):
        expected = both(params)
    # One sum of FMAs rounds equal terms to the same side: 1.04e-5 (AMD EPYC, family 25, model 17).
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-4), found, expected)
    assert np.isinf(found[0]).any()
    assert np.isfinite(found[0]).any()


@built
def test_wrong_sizes_are_an_error_and_no_crash():
    shape = jax.ShapeDtypeStruct((T, B, H), jnp.float32)
    sizes = {"T": T, "B": B, "I": I, "H": H, "slices": 1, "cell": 0, "phi": 0, "input": 0}
    attributes = {"isa": native.library().isa, "bits": 32, "keep_gates": 0, **sizes}
    attributes = {k: np.int64(x) for k, x in attributes.items()}
    results = (*[shape] * 4, jax.ShapeDtypeStruct((8,), jnp.uint8))
    call = jax.ffi.ffi_call("jrnn_native_forward", results)
    with pytest.raises(Exception, match="jrnn native kernel: xs has 3 elements and not 105"):
        jax.block_until_ready(call(*[jnp.zeros(3, jnp.float32)] * 12, **attributes))
    wrong = attributes | {"T": np.int64(0)}
    with pytest.raises(Exception, match="out of range"):
        jax.block_until_ready(call(*[jnp.zeros(3, jnp.float32)] * 12, **wrong))


@bfloat16
def test_an_output_of_another_type_is_an_error():
    zeros = lambda *shape, dtype=jnp.float32: jnp.zeros(shape, dtype)
    arguments = (zeros(T, B, I), zeros(I, H), zeros(H, H), *[zeros(0)] * 7)
    arguments = (*arguments, zeros(0, dtype=jnp.int32), zeros(0, dtype=bool))
    sizes = {"T": T, "B": B, "I": I, "H": H, "slices": 1, "cell": 0, "phi": 0, "input": 0}
    nbytes = native.library().scratch_bytes(512, 16, 0, *sizes.values(), 0)
    attributes = {"isa": 512, "bits": 16, "keep_gates": 0, **sizes}
    attributes = {k: np.int64(x) for k, x in attributes.items()}
    types = {"hs": jnp.bfloat16, "kept": jnp.float32, "last": jnp.float32, "last_c": jnp.float32}
    shapes = {"hs": (T, B, H), "kept": (0,), "last": (B, H), "last_c": (0,)}

    def run(**wrong):
        results = [jax.ShapeDtypeStruct(shapes[k], (types | wrong)[k]) for k in shapes]
        scratch = jax.ShapeDtypeStruct((nbytes,), jnp.uint8)
        call = jax.ffi.ffi_call("jrnn_native_forward", (*results, scratch))
        return jax.block_until_ready(call(*arguments, **attributes))

    assert run()[0].dtype == jnp.bfloat16
    for name in ("hs", "last"):
        wrong = jnp.float32 if name == "hs" else jnp.bfloat16
        with pytest.raises(Exception, match=f"{name} has another type of elements"):
            run(**{name: wrong})


# --- a library that does not fit ------------------------------------------------------------------

ASK = "import jax.numpy as jnp; from jrnn import native; print(native.why_not()); jnp.ones(2)"


def package(folder, library=None):
    """A copy of the package, with a library of this content, as pip would install it."""
    shutil.copytree(
        Path(jrnn.__file__).parent,
        folder / "jrnn",
        ignore=shutil.ignore_patterns("*.so.1", "__pycache__"),
    )
    metadata = folder / f"jrnn-{jrnn.__version__}.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: jrnn\nVersion: {jrnn.__version__}\n")
    (metadata.parent / "RECORD").write_text(f"jrnn/{native.FILE},,\n")
    if library is not None:
        (folder / "jrnn" / native.FILE).write_bytes(library)
    return folder


def answer(*folders):
    """What a new process, which finds the package in the first of these, says of the library."""
    run = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        cwd=folders[0],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


OWN = f" {jrnn.__version__} ".encode()


@built
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(b"0.3 ", b"0.9 ", "needs version 0.9 of XLA's FFI", marks=pytest.mark.slow),
        (OWN, b" 0.0.9 ", f"was built for jrnn 0.0.9, and this is {jrnn.__version__}"),
        pytest.param(
            b"jrnn_native_build", b"jrnn_native_bxxxx", "cannot be loaded: ", marks=pytest.mark.slow
        ),
        (b"\x7fELF", b"nono", "cannot be loaded: "),
    ],
    ids=["newer headers", "another version", "a symbol that lacks", "no library"],
)
def test_a_library_that_does_not_fit_is_refused_and_jax_works(tmp_path, old, new, said):
    content = native.library().path.read_bytes()
    assert old in content
    assert said in answer(package(tmp_path, content.replace(old, new)))


@built
def test_a_library_that_names_no_version_is_refused(tmp_path):
    """Such as one that `cmake` built, without `pip`."""
    content = native.library().path.read_bytes()
    build = re.search(OWN + rb"\w+", content)[0]
    nameless = build.replace(OWN, b"  ").ljust(len(build), b"\0")
    assert "was built for jrnn , and" in answer(package(tmp_path, content.replace(build, nameless)))


@built
def test_explain_says_why_bfloat16_is_not_native(monkeypatch):
    library = native.library()._replace(has_bfloat16=False)
    monkeypatch.setattr(native, "library", lambda: library)
    case = make_case()
    narrow = jax.tree.map(np.float32, (case.params, case.xs))
    found = [str(e) for e in jrnn.explain(jrnn.rnn, *narrow, compute_dtype=jnp.bfloat16)]
    assert all("this processor has no AVX512_BF16" in line for line in found)


def test_a_jaxlib_whose_headers_say_nothing_runs_no_library(monkeypatch, tmp_path):
    monkeypatch.setattr(jax.ffi, "include_dir", lambda: str(tmp_path))
    assert "this jaxlib, which has no headers: " in native._wrong_build("0.3 0.2.0 0")
    header = tmp_path / "xla/ffi/api/c_api.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define XLA_FFI_API_VERSION 3\n")
    assert "whose headers name no version" in native._wrong_build("0.3 0.2.0 0")


def test_files_of_an_editor_do_not_change_the_hash_of_the_sources(tmp_path):
    folder = shutil.copytree(ROOT / "native", tmp_path / "native")
    source_hash = runpy.run_path(str(folder / "source_hash.py"))["source_hash"]
    before = source_hash(folder)
    (folder / "core/.ipynb_checkpoints").mkdir()
    for name in (".core.h.swp", "core.h~", "core.h.orig"):
        (folder / "core" / name).touch()
    assert source_hash(folder) == before
    (folder / "core/new.h").touch()
    assert source_hash(folder) != before


def test_a_package_without_a_library(tmp_path):
    assert answer(package(tmp_path)).startswith("The native kernel was not built")


@built
@pytest.mark.slow
@pytest.mark.parametrize("own", [None, b"of an older build"])
def test_a_clone_finds_the_library_that_is_installed(tmp_path, own):
    """Python reads the package in the clone, whatever was installed from it."""
    clone, installed = package(tmp_path / "clone", own), tmp_path / "installed"
    shutil.rmtree(clone / f"jrnn-{jrnn.__version__}.dist-info")
    package(installed, native.library().path.read_bytes())
    assert answer(clone, installed) == "None"
    shutil.copytree(ROOT / "native", clone / "native")
    assert answer(clone, installed) == "None"
    (clone / "native/core/new.h").touch()
    said = (
        "cannot be loaded"
        if own
        else f"{installed}/jrnn/{native.FILE} was built from other sources"
    )
    assert said in answer(clone, installed)


@built
def test_random_networks_marks_and_options_agree_with_xla():
    """The first ones of `native_shapes.py`; `.ci/native` compares 300 shapes."""
    compare_with_xla(3, 3)


@built
@pytest.mark.parametrize(
    ("network", "T", "B", "I", "H", "halved", "number"),
    [
        ("rnn", 1, 1, 256, 512, False, 0),  # the weights are copied for one step
        ("rnn", 200, 4, 256, 512, False, 2),
        ("rnn", 400, 3, 256, 512, False, 0),  # the cores would read w_hh for few sequences
        ("rnn", 400, 1, 32, 384, False, 2),
        ("lstm", 400, 1, 32, 384, False, 0),
        ("lstm", 400, 2, 32, 384, False, 2),
        ("rnn", 400, 1, 256, 512, True, 2),
        ("lstm", 400, 1, 32, 392, True, 2),
        ("lstm", 800, 1, 32, 1024, True, 0),
    ],
)
def test_few_sequences_of_large_networks_run_elsewhere(
    monkeypatch, network, T, B, I, H, halved, number
):
    monkeypatch.setattr(dispatch, "is_halved", lambda *_: halved)
    init = getattr(jrnn, f"init_{network}")
    params = jax.eval_shape(lambda key: init(key, I, H, dtype=jnp.float32), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((T, B, I), jnp.float32)
    gradient = jax.grad(lambda params, xs: getattr(jrnn, network)(params, xs)[1].sum())
    assert calls(jax.jit(gradient).lower(params, xs)) == number


@built
@pytest.mark.parametrize("network", ["rnn", "lstm", "gru", "leaky"])
def test_the_halves_of_one_sequence(monkeypatch, network):
    """Two cores meet; with resets one goes forward alone."""
    monkeypatch.setattr(dispatch, "is_halved", lambda *_: True)
    options = {"alpha": 0.3} if network == "leaky" else {}
    params = getattr(jrnn, f"init_{network}")(jax.random.key(0), 20, 70, **options)
    resets = np.arange(700)[:, None] % 90 == 0

    def gradient(params, xs, resets):
        cost = lambda params, xs: jnp.sin(
            getattr(jrnn, network)(params, xs, resets=resets)[1]
        ).mean()
        return jax.value_and_grad(cost, (0, 1))(params, xs)

    for marks in (None, resets):
        xs = jax.random.normal(jax.random.key(1), (700, 1, 20), params.w_hh.dtype)
        lowered = jax.jit(gradient).lower(params, xs, marks)
        assert lowered.as_text().count("slices = 2 :") == 2
        found = lowered.compile()(params, xs, marks)
        with native.turned(False):
            assert_close(found, jax.jit(gradient)(params, xs, marks))


@pytest.mark.parametrize(
    ("T", "H", "cores", "isa", "forward", "backward"),
    [
        (1024, 128, 2, 512, True, False),
        (1024, 256, 16, 2, True, True),
        (1024, 256, 1, 512, False, False),
        (1024, 256, 2, native.TILES, False, False),
        (16, 256, 2, 512, False, False),
        (1024, 64, 2, 512, False, False),
    ],
)
def test_one_sequence_is_halved_where_it_pays(monkeypatch, T, H, cores, isa, forward, backward):
    monkeypatch.setattr(native, "cpu_cores", lambda: cores)
    monkeypatch.setattr(native, "library", lambda: SimpleNamespace(isa=isa))
    spec, shape = kernel.Spec(elman("tanh")), dispatch.Shape(T, 1, 32, H)
    found = [dispatch.is_halved(spec, shape, d) for d in ("forward", "backward")]
    assert found == [forward, backward]
    assert not dispatch.is_halved(spec, shape._replace(B=2), "forward")
