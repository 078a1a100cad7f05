"""The fused objective of any loss, for networks and stacks, against its parts one by one."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import LAW_RTOL, assert_close, on_two_devices, parameters, together, twice
from cover import in_tiers
from jax.sharding import PartitionSpec
from jaxprs import equations, sizes
from refusals import refused

import jrnn
from jrnn.cells.leaky import leaky
from jrnn.loss import blockwise, recurrent

T, B, I, H, D = 7, 3, 5, 4, 2
RNG = np.random.default_rng(0)
KEY = jax.random.key(3)


def normal(*shape):
    return RNG.normal(size=shape)


LOSSES = {
    "squared": (D, jrnn.squared_error),
    "absolute": (D, jrnn.absolute_error),
    "huber": (D, partial(jrnn.huber_loss, delta=0.5)),
    "quantile": (D, partial(jrnn.quantile_loss, quantile=(0.1, 0.7))),
    "gaussian": (2 * D, jrnn.gaussian_nll),
}
MIXED = jrnn.StackParams(
    (
        jrnn.LayerParams(
            parameters(jrnn.init_lstm, I, I), None, jrnn.LayerNormParams(normal(I), normal(I))
        ),
        jrnn.LayerParams(parameters(jrnn.init_gru, I, I), None, None),
        jrnn.LayerParams(
            jrnn.LeakyParams(*parameters(jrnn.init_rnn, I, I), None, normal(I)),
            None,
            jrnn.LayerNormParams(normal(I), normal(I)),
        ),
    )
)
KINDS = {"cell": (None, None, leaky("tanh", "state", learned=True))}
STATES = (jrnn.LSTMState(normal(I), normal(B, I)), normal(B, I), None)
AGAIN = (jrnn.LSTMState(None, normal(I)), normal(I), normal(B, I))
NETWORKS = {
    "rnn": (parameters(jrnn.init_rnn, I, H), normal(B, H), normal(H), jrnn.rnn, {}),
    "lstm": (
        parameters(jrnn.init_lstm, I, H),
        jrnn.LSTMState(normal(H), None),
        jrnn.LSTMState(normal(B, H), normal(H)),
        jrnn.lstm,
        {},
    ),
    "stack": (MIXED, STATES, AGAIN, jrnn.stack, KINDS),
    "stack with dropout": (
        MIXED,
        STATES,
        AGAIN,
        partial(jrnn.stack, key=KEY),
        {"dropout": 0.3, "residual": True} | KINDS,
    ),
}
XS, TARGETS = normal(T, B, I), normal(T, B, D)
LENGTHS, RESETS = np.array([T, 0, 4]), RNG.random((T, B)) < 0.3
INSIDE = np.arange(T)[:, None] < LENGTHS
COUNTED = RNG.random((T, B, D)) > 0.3
WEIGHTS = {
    "none": None,
    "one": np.float64(0.3),
    "mask": COUNTED[..., 0],
    "elements": np.where(COUNTED, normal(T, B, D), 0.0),
}


def readout_of(network, outputs):
    size = H if network in ("rnn", "lstm") else I
    return jrnn.ReadoutParams(
        np.random.default_rng(5).normal(size=(size, outputs)),
        np.random.default_rng(6).normal(size=outputs),
    )


def case(network, outputs, weights):
    """The arguments that have a gradient."""
    params, state, again, *_ = NETWORKS[network]
    found = {"params": params, "readout": readout_of(network, outputs), "xs": XS}
    found |= {"targets": TARGETS, "state": state, "again": again}
    return found | ({"weights": weights} if weights is not None and weights.dtype != bool else {})


def fused(network, loss, *, weights=None, **more):
    """J and the last states, as a function of `case`."""
    options = NETWORKS[network][4] | more
    key = KEY if "dropout" in options else None

    def of(at):
        given = at["state"], LENGTHS, RESETS, at["again"], None, None, None, key
        m = at.get("weights", weights)
        parts = (at["params"], at["readout"], at["xs"], at["targets"])
        return jrnn.rnn_loss(*parts, *given, loss=loss, weights=m, **options)

    return of


def apart(network, loss, *, weights=None):
    """The same by the network, the readout and the loss, one after the other."""
    run, options = NETWORKS[network][3:]

    def of(at):
        ends = LENGTHS, RESETS, at["again"]
        last, hs = run(at["params"], at["xs"], at["state"], *ends, **options)
        m = at.get("weights", weights)
        m = jnp.broadcast_to(1.0 if m is None else m, (T, B, D))
        m = jnp.where(INSIDE[..., None], m, jnp.zeros((), m.dtype))
        return loss(jrnn.readout(at["readout"], hs), at["targets"], m).sum(), last

    return of


def gradient(f):
    """Of J and of the last states, whose cotangents are all different."""

    def total(at):
        J, last = f(at)
        leaves = jax.tree.leaves(last)
        return J + sum(jnp.vdot(x, jnp.sin(jnp.arange(x.size)).reshape(x.shape)) for x in leaves)

    return jax.value_and_grad(total)


@in_tiers(network=NETWORKS, remat=[False, True], name=["squared", "gaussian"])
def test_it_is_its_parts(network, remat, name):
    outputs, loss = LOSSES[name]
    parts = fused(network, loss, remat=remat), apart(network, loss)
    assert_close(*together(*map(gradient, parts))(case(network, outputs, WEIGHTS["elements"])))


@in_tiers(name=LOSSES, weights=WEIGHTS)
def test_every_loss_and_every_form_of_weights(name, weights):
    outputs, loss = LOSSES[name]
    m = WEIGHTS[weights]
    for_each = m[..., None] if weights == "mask" else m
    parts = fused("rnn", loss, weights=m, remat=True), apart("rnn", loss, weights=for_each)
    assert_close(*together(*map(gradient, parts))(case("rnn", outputs, m)))


@in_tiers(network=["rnn", "stack"], weights=["mask", "elements"])
def test_nan_targets_that_do_not_count_change_no_bit(network, weights):
    m = WEIGHTS[weights]
    counted = (m[..., None] if m.ndim == 2 else m) != 0
    run = jax.jit(gradient(fused(network, jrnn.squared_error, weights=m, remat=True)))
    clean = case(network, D, None)
    spoiled = clean | {"targets": np.where(counted & INSIDE[..., None], TARGETS, np.nan)}
    spoiled["xs"] = np.where(INSIDE[..., None], XS, np.nan)
    found, expected = run(spoiled), run(clean)
    assert np.isfinite(found[0])
    assert_close(found, expected, 0.0)


@in_tiers(name=["squared", "gaussian"], weights=WEIGHTS)
def test_blocks_of_positions(monkeypatch, name, weights):
    """21 positions in blocks of 4, with a rest."""
    monkeypatch.setattr(blockwise, "POSITIONS", 4)
    monkeypatch.setattr(blockwise, "LOGITS", 1)
    (outputs, loss), m = LOSSES[name], WEIGHTS[weights]
    params, hs, y = readout_of("rnn", outputs), normal(T, B, H) / 4, TARGETS
    floats = {} if m is None or m.dtype == bool else {"m": m}
    given = {"params": params, "hs": hs, "y": y} | floats
    by_blocks = lambda at: blockwise.cost(
        None, loss, at["params"], at["hs"], at["y"], at.get("m", m)
    )
    whole = lambda at: loss(jrnn.readout(at["params"], at["hs"]), at["y"], at.get("m", m)).sum()
    assert_close(*together(jax.value_and_grad(by_blocks), jax.value_and_grad(whole))(given))
    assert_close(*together(twice(by_blocks), twice(whole))(given))


@pytest.mark.parametrize("own", [False, True], ids=["as it is", "with a parameter of its own"])
def test_outputs_never_exist_whole(monkeypatch, own):
    monkeypatch.setattr(blockwise, "POSITIONS", 4)
    monkeypatch.setattr(blockwise, "LOGITS", 1)
    monkeypatch.delattr(blockwise, "_sum_by_positions" if own else "_sum_by_checkpoints")
    params, hs = jrnn.ReadoutParams(normal(H, 20), None), normal(20, 10, H)
    y = normal(20, 10, 1)  # of quantiles, so that the targets are smaller
    loss = partial(jrnn.quantile_loss, quantile=0.5)

    def cost(params, hs, scale):
        scaled = (lambda o, y: scale * loss(o, y)) if own else loss
        return blockwise.cost(None, scaled, params, hs, y, None)

    program = jax.make_jaxpr(jax.grad(cost, (0, 1)))(params, hs, 2.0)
    assert max(n for e in equations(program) for n in sizes(e)) < 200 * 20


@in_tiers(remat=[False, True], weights=["none", "mask", "elements"])
def test_a_loss_with_a_parameter_of_its_own(monkeypatch, remat, weights):
    """In blocks of any size, where no custom rule may close over it; by gradients in it, too."""
    at = case("rnn", D, None) | {"log_scale": np.float64(0.3)}
    m = WEIGHTS[weights]
    for_each = m[..., None] if weights == "mask" else m

    def scaled(run, m):
        def of(at):
            def loss(o, y, *m):
                return jrnn.squared_error(o, y, *m) * jnp.exp(-2 * at["log_scale"])

            return run("rnn", loss, weights=m)(at)

        return of

    expected = jax.jit(gradient(scaled(apart, for_each)))(at)
    for block in (4, 10**6):
        monkeypatch.setattr(blockwise, "POSITIONS", block)
        monkeypatch.setattr(blockwise, "LOGITS", block)
        recurrent._rnn_loss.clear_cache()
        assert_close(jax.jit(gradient(scaled(partial(fused, remat=remat), m)))(at), expected)


def test_a_stack_of_classes_is_rnn_cross_entropy():
    labels = RNG.integers(0, D, (T, B))
    weights = jrnn.sequence_mask(LENGTHS, T)
    for network in ("stack", "stack with dropout"):
        params, state, again, run, options = NETWORKS[network]
        readout = readout_of(network, D)
        last, hs = run(params, XS, state, LENGTHS, RESETS, again, **options)
        expected = jrnn.readout_cross_entropy(readout, hs, labels, weights), last
        given = state, LENGTHS, RESETS, again, None, None, None, KEY
        found = jrnn.rnn_cross_entropy(params, readout, XS, labels, *given, remat=True, **options)
        assert_close(found, expected)


def test_gaps_and_recurrent_masks_of_a_stack():
    mask = RNG.random((T, B)) > 0.4
    m = (normal(I), None, normal(B, I))
    xs = np.where(mask[..., None], XS, np.nan)
    targets = np.where(mask[..., None], TARGETS, np.nan)
    readout = readout_of("stack", D)
    last, hs = jrnn.stack(MIXED, xs, STATES, None, RESETS, AGAIN, None, mask, m, **KINDS)
    expected = jrnn.squared_error(jrnn.readout(readout, hs), targets, mask).sum(), last
    given = STATES, None, RESETS, AGAIN, mask, m
    for remat in (False, True):
        options = {"loss": jrnn.squared_error, "remat": remat} | KINDS
        found = jrnn.rnn_loss(MIXED, readout, xs, targets, *given, **options)
        assert_close(found, expected, 10 * LAW_RTOL)


def test_losses_of_users():
    """From optax, and with counts as targets."""
    counts = RNG.integers(0, 4, (T, B, D))
    poisson = lambda log_rate, n: jnp.exp(log_rate) - n.astype(log_rate.dtype) * log_rate
    params, readout = NETWORKS["rnn"][0], readout_of("rnn", D)
    outputs = jrnn.readout(readout, jrnn.rnn(params, XS)[1])
    for loss, targets in ((optax.squared_error, TARGETS), (poisson, counts)):
        J, _ = jrnn.rnn_loss(params, readout, XS, targets, loss=loss)
        assert_close(J, loss(outputs, targets).sum(), LAW_RTOL)


def halved(x):
    """Each number until it is at most 1, by a loop that has no derivative in reverse mode."""
    above = lambda x: jnp.abs(x) > 1
    return jax.lax.while_loop(lambda x: above(x).any(), lambda x: jnp.where(above(x), x / 2, x), x)


def test_a_loss_is_differentiated_only_in_what_is_asked(monkeypatch):
    """Its cost needs no derivative, and a gradient by parameters none in the targets."""
    params, readout = NETWORKS["rnn"][0], readout_of("rnn", D)
    of_target = lambda o, y: (o - halved(y)) ** 2
    run = lambda loss, m: (
        lambda params: jrnn.rnn_loss(params, readout, XS, 3 * TARGETS, loss=loss, weights=m)
    )
    calls = [
        *(jax.grad(run(of_target, m), has_aux=True) for m in (None, WEIGHTS["elements"])),
        *(run(loss, WEIGHTS["elements"]) for loss in (of_target, lambda o, y: halved(o) * y)),
    ]
    whole = [call(params) for call in calls]
    monkeypatch.setattr(blockwise, "POSITIONS", 4)
    monkeypatch.setattr(blockwise, "LOGITS", 1)
    recurrent._rnn_loss.clear_cache()
    assert_close([call(params) for call in calls], whole)


@pytest.mark.parametrize("blocks", [False, True])
def test_a_loss_of_users_that_divides_by_the_target(monkeypatch, blocks):
    """Where nothing counts the target is 0, and the derivative of the loss there is not finite."""
    if blocks:
        monkeypatch.setattr(blockwise, "POSITIONS", 2)
        monkeypatch.setattr(blockwise, "LOGITS", 2 * D)
    relative = lambda o, y: jnp.abs((o - y) / y)
    params, readout, targets = NETWORKS["rnn"][0], readout_of("rnn", D), np.full((T, B, D), 2.0)
    lengths, element = np.array([T, 1, 0][:B]), np.ones((T, B, D), bool)
    element[2, 0, 1] = False
    by_lengths = jrnn.sequence_mask(lengths, T)[..., None]
    for options, counts in (
        ({"lengths": lengths}, by_lengths),
        ({"mask": by_lengths[..., 0]}, by_lengths),
        ({"weights": element}, element),
    ):

        def plain(params, readout, options=options, counts=counts):
            own = {name: x for name, x in options.items() if name != "weights"}
            outputs = jrnn.readout(readout, jrnn.rnn(params, XS, **own)[1])
            return jnp.where(counts, relative(outputs, targets), 0).sum()

        def fused(params, readout, options=options):
            return jrnn.rnn_loss(params, readout, XS, targets, loss=relative, **options)[0]

        found = jax.value_and_grad(fused, (0, 1))(params, readout)
        assert_close(found, jax.value_and_grad(plain, (0, 1))(params, readout), LAW_RTOL)


POSITIONS = {  # losses of which one reads what the others of its position read, by their targets
    "softmax": (D, lambda o, y: (jax.nn.softmax(o) - y) ** 2),
    "scale": (D, lambda o, y: (y[..., 1:] * (o - y[..., :1])) ** 2),
    "relative": (D, lambda o, y: ((o - y) / y) ** 2),
    "one target": (1, lambda o, y: (o - y.squeeze(-1)[..., None]) ** 2),
    "three targets": (3, lambda o, y: (o - y[..., :2]) ** 2 * jnp.exp(y[..., 2:])),
}


@in_tiers(name=POSITIONS, remat=[False, True], blocks=[False, True])
def test_weights_of_elements_that_share_outputs_and_targets(monkeypatch, name, remat, blocks):
    """Targets that no loss reads are NaN or, where the loss divides by them, 0."""
    if blocks:
        monkeypatch.setattr(blockwise, "POSITIONS", 4)
        monkeypatch.setattr(blockwise, "LOGITS", 1)
    size, loss = POSITIONS[name]
    params, readout, m = NETWORKS["rnn"][0], readout_of("rnn", D), WEIGHTS["elements"].copy()
    m[2:4] = 0.0
    unread = ~m.any(-1, keepdims=True) if name == "scale" or size != D else m == 0
    y = np.where(unread, 0.0 if name == "relative" else np.nan, normal(T, B, size))

    def plain(params, readout, y, m):
        y = jnp.where(unread, 1.0, y)
        losses = loss(jrnn.readout(readout, jrnn.rnn(params, XS)[1]), y)
        return jnp.where(m != 0, m * losses, 0.0).sum()

    def fused(params, readout, y, m):
        options = {"weights": m, "loss": loss, "remat": remat}
        return jrnn.rnn_loss(params, readout, XS, y, **options)[0]

    first = lambda f: jax.value_and_grad(f, (0, 1, 2, 3))
    found, expected = together(first(fused), first(plain))(params, readout, y, m)
    assert_close(found, expected)
    second = lambda f: jax.grad(lambda r: (jax.grad(f, 1)(params, r, y, m).w_ho ** 2).sum())
    assert_close(*together(second(fused), second(plain))(readout))


@pytest.mark.usefixtures("float32")
def test_half_precision_reaches_the_loss_as_float32():
    narrow = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tree)
    seen = []

    def loss(o, y):
        seen.append((o.dtype, y.dtype))
        return jrnn.squared_error(o, y)

    given = narrow((NETWORKS["rnn"][0], readout_of("rnn", D), XS, TARGETS))
    J, _ = jrnn.rnn_loss(*given, loss=loss)
    assert J.dtype == jnp.float32
    assert seen[-1] == (jnp.float32, jnp.float32)


def test_an_equal_partial_compiles_nothing():
    params, readout = NETWORKS["rnn"][0], readout_of("rnn", D)
    run = lambda: jrnn.rnn_loss(
        params, readout, XS, TARGETS, loss=partial(jrnn.quantile_loss, quantile=0.9)
    )
    run()
    before = recurrent._rnn_loss._cache_size()
    run()
    assert recurrent._rnn_loss._cache_size() == before


def test_vmap_of_sequences():
    params, readout = NETWORKS["rnn"][0], readout_of("rnn", D)
    f = partial(jrnn.rnn_loss, loss=jrnn.squared_error, remat=True)
    mapped = jax.vmap(f, (None, None, 1, 1))(params, readout, XS, TARGETS)[0]
    assert_close(mapped.sum(), f(params, readout, XS, TARGETS)[0], LAW_RTOL)


@pytest.mark.parametrize("remat", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_one_sequence_is_a_batch_of_one(remat):
    """Of one output, with weights `[T, 1]`."""
    params, readout = jrnn.StackParams(MIXED.layers[1:2]), readout_of("stack", 1)
    options = {"loss": jrnn.squared_error, "remat": remat}

    def gradient(b):
        def cost(params, readout, xs):
            data = xs, TARGETS[:, b, :1], None, LENGTHS[b], RESETS[:, b]
            m = WEIGHTS["elements"][:, b, :1]
            return jrnn.rnn_loss(params, readout, *data, weights=m, **options)[0]

        return jax.jit(jax.value_and_grad(cost, (0, 1, 2)))(params, readout, XS[:, b])

    J, (*d, dxs) = gradient(np.s_[2:])
    assert_close(gradient(2), (J, (*d, dxs[:, 0])), LAW_RTOL)


@pytest.mark.parametrize(
    "remat", [pytest.param(False, marks=pytest.mark.thorough), True], ids=["whole", "remat"]
)
def test_two_devices_are_one(remat):
    readout, xs, targets = readout_of("stack", D), normal(T, 4, I), normal(T, 4, D)
    options = {"loss": jrnn.squared_error, "residual": True, "remat": remat} | KINDS
    cost = lambda params, *data: jrnn.rnn_loss(params, readout, *data, **options)[0]
    local = lambda *given: jax.lax.psum(cost(*given), "data")
    batch = PartitionSpec(None, "data")
    split = on_two_devices(local, (PartitionSpec(), batch, batch))
    found, expected = (jax.jit(jax.value_and_grad(f)) for f in (split, cost))
    assert_close(found(MIXED, xs, targets), expected(MIXED, xs, targets), 10 * LAW_RTOL)


@pytest.mark.optimized
@pytest.mark.parametrize("network", ["rnn", "stack"])
def test_memory_grows_as_the_square_root_of_the_length(network):
    """The temporary bytes of the gradient, next to the states of all steps of one layer."""
    H, used = 32, {}
    like = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
    make = lambda: {
        "rnn": lambda: jrnn.init_rnn(KEY, 4, H, dtype=jnp.float32),
        "stack": lambda: jrnn.init_stack(
            KEY, 4, (H, H), cell="gru", layer_norm=True, dtype=jnp.float32
        ),
    }[network]()
    readout = jrnn.ReadoutParams(like(H, 2), like(2))

    def cost(params, readout, xs, targets):
        return jrnn.rnn_loss(params, readout, xs, targets, loss=jrnn.gaussian_nll, remat=True)[0]

    for T in (1024, 16384):
        given = jax.eval_shape(make), readout, like(T, 2, 4), like(T, 2, 1)
        program = jax.jit(jax.grad(cost, (0, 1))).lower(*given).compile()
        used[T] = program.memory_analysis().temp_size_in_bytes
    assert used[16384] < 6 * used[1024]  # the length is 16 times as large
    assert used[16384] < 0.3 * 4 * 16384 * 2 * H


@dataclass
class Unhashable:
    scale: float

    def __call__(self, o, y):
        return self.scale * (o - y) ** 2


PARAMS, READOUT = NETWORKS["rnn"][0], readout_of("rnn", D)
BOTH = parameters(jrnn.init_stack, I, (H, H), bidirectional=True)
objective = partial(jrnn.rnn_loss, PARAMS, READOUT, XS)
REFUSED = {
    "a stack that reads both ways": (
        lambda: jrnn.rnn_loss(BOTH, READOUT, XS, TARGETS, loss=jrnn.squared_error),
        "layers[0].backward: expected None; got a network that reads backwards. "
        "A segment would need all steps after it:"
        " see jrnn.readout_cross_entropy.",
    ),
    "a mask of the wrong shape": (
        lambda: objective(TARGETS, loss=jrnn.squared_error, weights=np.ones((B, T), bool)),
        "weights: expected shape [7, 3], [7, 3, 2] or []; got bool[3, 7].",
    ),
    "a mask of elements that a loss of positions has not": (
        lambda: objective(
            TARGETS, loss=lambda o, y: ((o - y) ** 2).sum(-1), weights=np.ones((T, B, D), bool)
        ),
        "weights: expected shape [7, 3] or []; got bool[7, 3, 2].",
    ),
    "targets of other steps": (
        lambda: objective(TARGETS[1:], loss=jrnn.squared_error),
        "targets: expected shape [7, 3, '...']; got float64[6, 3, 2]. Every step has its target;",
    ),
    "targets of another size": (
        lambda: objective(TARGETS[..., :1], loss=jrnn.squared_error),
        "targets: expected shape [7, 3, 2]; got float64[7, 3, 1].",
    ),
    "targets of another dtype": (
        lambda: objective(TARGETS.astype(np.float32), loss=jrnn.squared_error),
        "targets: expected the dtype of rnn_params, float64; got float32.",
    ),
    "a loss that sums": (
        lambda: objective(TARGETS, loss=lambda o, y: ((o - y) ** 2).sum()),
        "loss: expected losses of shape [7, 3, '...']; got float64[]. rnn_loss sums them; the loss",
    ),
    "targets that are no array": (
        lambda: objective([[1.0]], loss=jrnn.squared_error),
        "targets: expected a JAX or NumPy array; got list.",
    ),
    "no loss": (
        lambda: objective(TARGETS, loss="squared"),
        "loss: expected a function of outputs and targets; got str. See jrnn.squared_error.",
    ),
    "a loss that is not hashable": (
        lambda: objective(TARGETS, loss=Unhashable(1.0)),
        "loss: expected a hashable function; got Unhashable. Wrap it once: own = lambda o, y: ",
    ),
    "a quantile outside": (
        lambda: objective(TARGETS, loss=partial(jrnn.quantile_loss, quantile=9)),
        "quantile: expected a number between 0 and 1, or a sequence of one for each output; got 9.",
    ),
    "data for a stack": (
        lambda: jrnn.rnn_loss(
            *(MIXED, readout_of("stack", D), XS, TARGETS),
            **({"data": {}, "loss": jrnn.squared_error} | KINDS),
        ),
        "data: expected None for a stack; got dict. Cells that read data run alone, not in a "
        "stack.",
    ),
}
test_refused = refused(REFUSED)
