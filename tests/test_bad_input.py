"""Every refusal, by its text: the argument, what was expected, what came, the repair."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import B, H, I, O, T, make_case, parameters
from refusals import refused

import jrnn
from jrnn import kernel
from jrnn.loss import blockwise

CASE = make_case()
IDS = make_case(ids=True)
P = CASE.params
ONE = P._replace(w_ih=P.w_ih[:1])  # a single feature
READOUT = jrnn.ReadoutParams(np.ones((H, O)), np.ones(O))
LOGITS = np.zeros((T, B, O))
LABELS = np.zeros((T, B), np.int64)
NEXT = jrnn.ReadoutParams(np.ones((H, I)), None)
STACK = parameters(jrnn.init_stack, I, (4, 6), bidirectional=True, layer_norm=True)
SQUARE = parameters(jrnn.init_stack, I, (I, I))
RATE = jrnn.cells.leaky.leaky("tanh", "input", learned=False)
LEAKY = parameters(jrnn.init_leaky, I, H, alpha=0.5)
ONE_LAYER = parameters(jrnn.init_stack, I, (H,))
PAIRS = (
    "jrnn.interop.from_torch(state_dict, stack=True) returns a stack; any pair (forward, backward) "
    "is LayerParams(*pair, norm=None)."
)
LAYERS = f"Several LayerParams become one by StackParams(tuple(layers)). {PAIRS}"


@pytest.fixture(autouse=True)
def kernel_is_out_of_bounds(monkeypatch):
    """A refusal comes before any kernel code."""

    def entered(*args, **options):
        raise AssertionError("the kernel was entered")

    monkeypatch.setattr(kernel, "unroll", entered)
    monkeypatch.setattr(kernel, "one_step", entered)
    monkeypatch.setattr(blockwise, "cost", entered)


def bad_id(value):
    xs = IDS.xs.copy()
    xs[3, 1] = value
    return xs


def narrow(tree):
    return jax.tree.map(lambda x: x.astype(np.float32), tree)


class OtherArray:
    """With a shape and a dtype, as many libraries have arrays."""

    def __init__(self, x):
        self.shape, self.dtype, self.ndim = x.shape, x.dtype, x.ndim


def layer(index, **parts):
    """STACK with other parts in a layer."""
    layers = list(STACK.layers)
    layers[index] = layers[index]._replace(**parts)
    return jrnn.StackParams(tuple(layers))


REFUSED = {
    "compute_dtype of integers": (
        lambda: jrnn.rnn(P, CASE.xs, compute_dtype=np.int32),
        "compute_dtype: expected a floating dtype narrower than that of the parameters, float64, "
        "or None; got int32. For mixed precision: parameters in float32, "
        "compute_dtype=jnp.bfloat16.",
    ),
    "compute_dtype that is none": (
        lambda: jrnn.rnn(P, CASE.xs, compute_dtype="brief"),
        "compute_dtype: expected a floating dtype narrower than that of the parameters, float64, "
        "or None; got 'brief'.",
    ),
    "compute_dtype wider than the parameters": (
        lambda: jrnn.rnn(
            *jax.tree.map(lambda x: x.astype(np.float32), (P, CASE.xs)), compute_dtype=np.float64
        ),
        "compute_dtype: expected a floating dtype narrower than that of the parameters, float32, "
        "or None; got float64.",
    ),
    "remat that is no flag": (
        lambda: jrnn.rnn(P, CASE.xs, remat=16),
        "remat: expected True or False; got 16. It is fixed when the call is compiled.",
    ),
    "readout of another size": (
        lambda: jrnn.rnn_cross_entropy(
            P, jrnn.ReadoutParams(np.ones((H + 1, O)), None), CASE.xs, LABELS
        ),
        "w_ho: expected shape [H, O] = [4, any]; got float64[5, 6]. "
        "w_hh makes states of size H = 4.",
    ),
    "readout of another dtype": (
        lambda: jrnn.rnn_cross_entropy(
            P, jrnn.ReadoutParams(np.ones((H, O), np.float32), None), CASE.xs, LABELS
        ),
        "w_ho: expected the dtype of rnn_params, float64; got float32.",
    ),
    "labels of another length": (
        lambda: jrnn.rnn_cross_entropy(P, READOUT, CASE.xs, LABELS[1:]),
        "labels: expected ids of shape [7, 3]; got int64[6, 3]. "
        "Integer labels are ids; one per position.",
    ),
    "rank 1": (
        lambda: jrnn.rnn(P, np.zeros(T)),
        "xs: expected vectors [T, I] or [T, B, I]; got float64[7]. "
        "A single feature is an axis of size 1.",
    ),
    "rank 4": (
        lambda: jrnn.rnn(P, np.zeros((2, T, B, I))),
        "xs: expected vectors [T, I] or [T, B, I]; got float64[2, 7, 3, 5].",
    ),
    "wrong input size": (
        lambda: jrnn.rnn(P, np.zeros((T, B, I + 1))),
        "xs: expected vectors [T, I] or [T, B, I] with I = 5; got float64[7, 3, 6]. "
        "w_ih [5, 4] takes vectors of size I = 5.",
    ),
    "no step": (
        lambda: jrnn.rnn(P, np.zeros((0, B, I))),
        "xs: expected at least one step (T >= 1); got float64[0, 3, 5].",
    ),
    "mixed dtypes": (
        lambda: jrnn.rnn(P, CASE.xs.astype(np.float32)),
        "xs: expected the dtype of params, float64; got float32. "
        "One floating dtype runs through a call: take xs.astype(jnp.float64).",
    ),
    "mixed dtypes in h0": (
        lambda: jrnn.rnn(P, CASE.xs, CASE.h0.astype(np.float32)),
        "h0: expected the dtype of params, float64; got float32.",
    ),
    "mixed dtypes in the parameters": (
        lambda: jrnn.rnn(P._replace(b_h=P.b_h.astype(np.float32)), CASE.xs),
        "b_h: expected the dtype of w_hh, float64; got float32.",
    ),
    "integer parameters": (
        lambda: jrnn.rnn(P._replace(w_hh=np.ones((H, H), int)), CASE.xs),
        "w_hh: expected a floating dtype; got int64[4, 4]. Cast it by .astype(jnp.float32).",
    ),
    "mismatched batch": (
        lambda: jrnn.rnn(P, CASE.xs, np.zeros((B + 1, H))),
        "h0: expected [H] = [4] or [B, H] = [3, 4]; got float64[4, 4]. [H] is shared by the batch.",
    ),
    "a state of torch": (
        lambda: jrnn.rnn(P, CASE.xs, np.zeros((1, B, H))),
        "h0: expected [H] = [4] or [B, H] = [3, 4]; got float64[1, 3, 4]. Take h0[0]: a state has "
        "no axis of layers, as one of torch has.",
    ),
    "state of a batch for one sequence": (
        lambda: jrnn.rnn(P, CASE.xs[:, 0], CASE.h0),
        "h0: expected [H] = [4]; got float64[3, 4]. One sequence has one state.",
    ),
    "negative length": (
        lambda: jrnn.rnn(P, CASE.xs, None, np.array([1, -1, 7])),
        "lengths: expected integers from 0 to T = 7; got -1. "
        "A length counts the steps of a sequence before its padding.",
    ),
    "length above T": (
        lambda: jrnn.rnn(P, CASE.xs, None, 8),
        "lengths: expected integers from 0 to T = 7; got 8.",
    ),
    "lengths of another batch": (
        lambda: jrnn.rnn(P, CASE.xs, None, np.array([1, 2])),
        "lengths: expected shape [] or [B] = [3]; got int64[2]. One length per sequence.",
    ),
    "lengths of one sequence": (
        lambda: jrnn.rnn(P, CASE.xs[:, 0], None, np.array([1, 2])),
        "lengths: expected shape []; got int64[2]. One length per sequence.",
    ),
    "float lengths": (
        lambda: jrnn.rnn(P, CASE.xs, None, np.ones(B)),
        "lengths: expected integers; got float64[3]. "
        "They count steps: cast them by .astype(jnp.int32).",
    ),
    "a mask for lengths": (
        lambda: jrnn.rnn(P, CASE.xs, None, np.ones((T, B), bool)),
        "lengths: expected integers; got bool[7, 3]. A flag for each step is mask=.",
    ),
    "dropout in init_stack": (
        lambda: jrnn.init_stack(jax.random.key(0), 3, (4, 4), cell="lstm", dropout=0.1),
        "init_stack: expected options among bias, forget_bias, w_ih_init, w_hh_init, dtype; "
        "got dropout. Dropout and what else belongs to a call is an option of jrnn.stack.",
    ),
    "a number as a key for dropout": (
        lambda: jrnn.stack(STACK, CASE.xs, key=1, dropout=0.1),
        "key: expected one random key of JAX; got 1. jax.random.key(0) makes one.",
    ),
    "a number as a key for dropout in a loss": (
        lambda: jrnn.rnn_cross_entropy(
            parameters(jrnn.init_stack, I, (4, H)), READOUT, CASE.xs, LABELS, key=1, dropout=0.1
        ),
        "key: expected one random key of JAX; got 1. jax.random.key(0) makes one.",
    ),
    "lengths of no array": (
        lambda: jrnn.rnn(P, CASE.xs, None, [1, 2, 3]),
        "lengths: expected a JAX or NumPy array; got list. Convert it by jnp.asarray.",
    ),
    "a mask of two axes of lengths": (
        lambda: jrnn.sequence_mask(np.ones((2, 3), int), 4),
        "lengths: expected shape [] or [B]; got int64[2, 3].",
    ),
    "integer resets": (
        lambda: jrnn.rnn(P, CASE.xs, None, None, np.zeros((T, B), int)),
        "resets: expected a bool dtype; got int64[7, 3]. Compare: resets = flags != 0.",
    ),
    "resets of another length": (
        lambda: jrnn.rnn(P, CASE.xs, None, None, np.zeros((B, T), bool)),
        "resets: expected shape [T] = [7] or [T, B] = [7, 3]; got bool[3, 7]. "
        "True where a segment begins; [T] is shared by the batch.",
    ),
    "resets of a batch for one sequence": (
        lambda: jrnn.rnn(P, CASE.xs[:, 0], None, None, np.zeros((T, B), bool)),
        "resets: expected shape [T] = [7]; got bool[7, 3].",
    ),
    "reset state of another batch": (
        lambda: jrnn.rnn(P, CASE.xs, None, None, np.zeros(T, bool), np.zeros((B + 1, H))),
        "reset_state: expected [H] = [4] or [B, H] = [3, 4]; got float64[4, 4].",
    ),
    "bool mask": (
        lambda: jrnn.rnn(P, CASE.xs, recurrent_mask=np.ones(H, bool)),
        "recurrent_mask: expected a floating dtype; got bool[4]. Cast it by .astype(jnp.float32).",
    ),
    "a mask of connections": (
        lambda: jrnn.rnn(P, CASE.xs, recurrent_mask=np.ones((H, H))),
        "got float64[4, 4]. A mask of connections multiplies w_hh, before the call.",
    ),
    "a seed for a key": (
        lambda: jrnn.init_lstm(0, I, H),
        "key: expected one random key of JAX; got 0. jax.random.key(0) makes one.",
    ),
    "keys for a key": (
        lambda: jrnn.init_stack(jax.random.split(jax.random.key(0), 4), I, (H,)),
        "key: expected one random key of JAX; got key<fry>[4]. jax.random.key(0) makes one.",
    ),
    "clip_delta of zero": (
        lambda: jrnn.rnn(P, CASE.xs, clip_delta=0.0),
        "clip_delta: expected a positive number or None; got 0.0. None leaves it out.",
    ),
    "clip_delta that is traced": (
        lambda: jax.jit(lambda clip: jrnn.rnn(P, CASE.xs, clip_delta=clip))(1.0),
        "clip_delta: expected a positive number or None; got ",
    ),
    "a leak of a cell": (
        lambda: jrnn.cells.leaky.leaky("tanh", "rate", learned=False),
        'leak: expected "state" or "input"; got \'rate\'. "state" is h = (1 - alpha) h + alpha',
    ),
    "alpha for a cell": (
        lambda: jrnn.unroll(RATE, LEAKY._replace(alpha=np.arange(H) + 1.0), CASE.xs),
        "alpha: expected numbers in (0, 1]; got 2.0. It is the share of the new state in a step",
    ),
    "no features": (
        lambda: jrnn.rnn(P._replace(w_ih=np.ones((0, H))), CASE.xs[..., :0]),
        "w_ih: expected axes of at least 1; got shape [0, 4]. Without inputs w_ih is None.",
    ),
    "no units": (
        lambda: jrnn.rnn(jrnn.RNNParams(None, np.ones((0, 0)), None), CASE.xs[..., :0]),
        "w_hh: expected axes of at least 1; got shape [0, 0]. Without inputs w_ih is None.",
    ),
    "reverse of no bool": (
        lambda: jrnn.rnn(P, CASE.xs, reverse=1),
        "reverse: expected True or False; got 1. It is fixed when the call is compiled.",
    ),
    "integer state": (
        lambda: jrnn.rnn(P, CASE.xs, np.zeros((B, H), int)),
        "h0: expected a floating dtype; got int64[3, 4].",
    ),
    "id too large": (
        lambda: jrnn.rnn(P, bad_id(I)),
        "xs: expected ids from 0 to 4 (I = 5 rows of w_ih); got 5 at [3, 1], 1 ids outside in all.",
    ),
    "negative id": (
        lambda: jrnn.rnn(P, jnp.asarray(bad_id(-1))),
        "xs: expected ids from 0 to 4 (I = 5 rows of w_ih); got -1 at [3, 1], 1 ids outside",
    ),
    "negative id under grad": (
        lambda: jax.grad(lambda p: jrnn.rnn(p, bad_id(-1))[0].sum())(P),
        "xs: expected ids from 0 to 4",
    ),
    "counts as integers": (
        lambda: jrnn.rnn(P, np.ones((T, B, I), int)),
        "xs: expected integer token ids [T] or [T, B]; got int64[7, 3, 5]. "
        'Integers are token ids; give inputs="features"; or cast features by .astype("float64").',
    ),
    "floats as ids": (
        lambda: jrnn.rnn(P, CASE.xs, inputs="ids"),
        'xs: expected integers, as inputs="ids" says; got float64[7, 3, 5]. '
        "Cast ids by .astype(jnp.int32); of floats leave inputs out.",
    ),
    "bool as ids": (
        lambda: jrnn.rnn(P, np.ones((T, B), bool), inputs="ids"),
        'xs: expected integers, as inputs="ids" says; got bool[7, 3].',
    ),
    "an unknown way of reading": (
        lambda: jrnn.rnn(P, CASE.xs, inputs="tokens"),
        'inputs: expected "ids", "features" or None; got \'tokens\'. '
        "It says how integers are read; floats are features.",
    ),
    "features of another width": (
        lambda: jrnn.rnn(P, np.ones((T, B, I + 1), np.int8), inputs="features"),
        "xs: expected vectors [T, I] or [T, B, I] with I = 5; got float64[7, 3, 6].",
    ),
    "complex features": (
        lambda: jrnn.rnn(P, CASE.xs.astype(complex), inputs="features"),
        "xs: expected vectors [T, I] or [T, B, I], or integer token ids [T] or [T, B]; got complex",
    ),
    "ids of no step": (
        lambda: jrnn.rnn(P, np.array(3)),
        "xs: expected integer token ids [T] or [T, B]; got int64[]. "
        "Integers are token ids; vectors are floats.",
    ),
    "an id of four bits": (
        lambda: jrnn.rnn(parameters(jrnn.init_rnn, 6, H), jnp.array([1, 7], jnp.int4)),
        "xs: expected ids from 0 to 5 (I = 6 rows of w_ih); got 7 at [1]",
    ),
    "bool inputs": (
        lambda: jrnn.rnn(P, np.ones((T, B, I), bool)),
        "xs: expected vectors [T, I] or [T, B, I], or integer token ids [T] or [T, B]; "
        'got bool[7, 3, 5]. Ids are integers; give inputs="features"; or cast features by '
        '.astype("float64").',
    ),
    "a list": (
        lambda: jrnn.rnn(P, [[1.0] * I] * T),
        "xs: expected a JAX or NumPy array; got list. Convert it by jnp.asarray.",
    ),
    "an array of another library": (
        lambda: jrnn.rnn(P, OtherArray(CASE.xs)),
        "xs: expected a JAX or NumPy array; got OtherArray. Convert it by jnp.asarray.",
    ),
    "parameters of another library": (
        lambda: jrnn.rnn(P._replace(w_hh=OtherArray(P.w_hh)), CASE.xs),
        "w_hh: expected a JAX or NumPy array; got OtherArray.",
    ),
    "shapes in place of arrays": (
        lambda: jrnn.rnn(P, jax.ShapeDtypeStruct((T, B, I), np.float64)),
        "xs: expected a JAX or NumPy array; got ShapeDtypeStruct.",
    ),
    "an array with a mask": (
        lambda: jrnn.rnn(P, np.ma.masked_invalid(CASE.xs)),
        "xs: expected an array without a mask of its own; got a masked array. "
        "Fill it by .filled(0); lengths or weights say which steps do not count.",
    ),
    "random keys as inputs": (
        lambda: jrnn.rnn(P, jax.random.split(jax.random.key(0), (T, B, I))),
        "or integer token ids [T] or [T, B]; got key<fry>[7, 3, 5].",
    ),
    "a large array as an option": (
        lambda: jrnn.rnn(P, CASE.xs, clip_delta=np.ones((7, 7))),
        "clip_delta: expected a positive number or None; got an array [7, 7]. None leaves it out.",
    ),
    "a shape of w_hh": (
        lambda: jrnn.rnn(P._replace(w_hh=np.ones((H, H + 1))), CASE.xs),
        "w_hh: expected shape [H, H] = [4, 4]; got float64[4, 5]. It maps a state to a state.",
    ),
    "a transposed w_ih": (
        lambda: jrnn.rnn(P._replace(w_ih=np.ones((H, I))), CASE.xs),
        "w_ih: expected shape [I, H] = [any, 4]; got float64[4, 5]. "
        "Use x @ w_ih: transpose an (H, I) weight.",
    ),
    "a shape of b_h": (
        lambda: jrnn.rnn(P._replace(b_h=np.ones((1, H))), CASE.xs),
        "b_h: expected shape [H] = [4]; got float64[1, 4]. Use None for no bias.",
    ),
    "no parameters": (
        lambda: jrnn.rnn({"w_ih": 1}, CASE.xs),
        "params: expected RNNParams(w_ih, w_hh, b_h); got dict. See jrnn.init_rnn.",
    ),
    "unknown activation": (
        lambda: jrnn.rnn(P, CASE.xs, activation="gelu"),
        'activation: expected one of "tanh", "relu", "sigmoid", "identity", or a jrnn.Activation; '
        "got 'gelu'. A function of your own is jrnn.Activation(fn, derivative_from_output).",
    ),
    "a function as activation": (
        lambda: jrnn.rnn(P, CASE.xs, activation=jnp.sin),
        "A function of your own is jrnn.Activation(fn, derivative_from_output).",
    ),
    "the function of a name as activation": (
        lambda: jrnn.rnn(P, CASE.xs, activation=jax.nn.relu),
        'Give its name, "relu".',
    ),
    "the function of another name as activation": (
        lambda: jrnn.stack(STACK, CASE.xs, activation=jnp.tanh),
        'Give its name, "tanh".',
    ),
    "an unhashable activation": (
        lambda: jrnn.rnn(P, CASE.xs, activation=["tanh"]),
        "activation: expected one of",
    ),
    "unknown activation of a cell": (
        lambda: jrnn.rnn_cell(P, CASE.h0, CASE.xs[0], activation="gelu"),
        "activation: expected one of",
    ),
    "a derivative of the input": (
        lambda: jrnn.Activation(jnp.tanh, lambda a: 1 - jnp.tanh(a) ** 2),
        "derivative_from_output: expected phi' as a function of h = phi(a), so ",
    ),
    "a derivative of gelu": (
        lambda: jrnn.Activation(jax.nn.gelu, jax.vmap(jax.grad(jax.nn.gelu))),
        "A function whose derivative its output does not determine cannot be used.",
    ),
    "a derivative that is NaN": (
        lambda: jrnn.Activation(jnp.tanh, lambda h: jnp.sqrt(-1 - h**2)),
        "; got nan. tanh, for example, is Activation(jnp.tanh, lambda h: 1 - h**2). "
        "A function whose derivative its output does not determine cannot be used.",
    ),
    "a derivative of another shape": (
        lambda: jrnn.Activation(jnp.tanh, lambda h: 1 - (h**2).mean()),
        "fn, derivative_from_output: expected two hashable functions of an array to one of its "
        "shape and dtype, elementwise; got TypeError: results bfloat16[120], bfloat16[] of "
        "bfloat16[120]. Write both with jnp; ",
    ),
    "a derivative that is 0.09 % off": (
        lambda: jrnn.Activation(jnp.tanh, lambda h: 1.0009 * (1 - h * h)),
        "derivative_from_output: expected phi' as a function of h = phi(a), so ",
    ),
    "a function of NumPy": (
        lambda: jrnn.Activation(np.tanh, lambda h: 1 - h * h),
        "Write both with jnp; tanh, for example, is Activation(jnp.tanh, lambda h: 1 - h**2).",
    ),
    "a function of the whole array": (
        lambda: jrnn.Activation(jax.nn.softmax, lambda h: h * (1 - h)),
        "fn, derivative_from_output: expected two hashable functions of an array to one of its",
    ),
    "a function that widens": (
        lambda: jrnn.Activation(lambda a: jnp.tanh(a.astype(jnp.float32)), lambda h: 1 - h * h),
        "fn, derivative_from_output: expected two hashable functions of an array to one of its",
    ),
    "a function without a hash": (
        lambda: jrnn.Activation([], lambda h: 1 - h * h),
        "got TypeError: unhashable type: 'list'. Write both with jnp;",
    ),
    "one step, wrong input": (
        lambda: jrnn.rnn_cell(P, CASE.h0, np.zeros((B, I + 1))),
        "x_t: expected vectors [I] or [B, I] with I = 5; got float64[3, 6].",
    ),
    "one step, wrong rank": (
        lambda: jrnn.rnn_cell(P, CASE.h0, CASE.xs),
        "x_t: expected vectors [I] or [B, I]; got float64[7, 3, 5].",
    ),
    "one step, wrong state": (
        lambda: jrnn.rnn_cell(P, np.zeros((B, H + 1)), CASE.xs[0]),
        "h_tm1: expected [H] = [4] or [B, H] = [3, 4]; got float64[3, 5].",
    ),
    "one step, wrong id": (
        lambda: jrnn.rnn_cell(P, CASE.h0, np.array([0, 5, 1])),
        "x_t: expected ids from 0 to 4 (I = 5 rows of w_ih); got 5 at [1]",
    ),
    "the scan, wrong state": (
        lambda: jrnn.derivation.rnn_scan(P, CASE.xs, np.zeros((B + 1, H))),
        "h0: expected [H] = [4] or [B, H] = [3, 4]; got float64[4, 4].",
    ),
    "sizes": (
        lambda: jrnn.init_rnn(jax.random.key(0), 5, 0),
        "hidden_size: expected a positive integer; got 0.",
    ),
    "sizes of a readout": (
        lambda: jrnn.init_readout(jax.random.key(0), 5.0, 2),
        "hidden_size: expected a positive integer; got 5.0.",
    ),
    "dtype": (
        lambda: jrnn.init_rnn(jax.random.key(0), 5, 4, dtype=jnp.int32),
        "dtype: expected a floating dtype or None; got int32.",
    ),
    "dtype of no name": (
        lambda: jrnn.init_readout(jax.random.key(0), 5, 4, dtype="foo"),
        "dtype: expected a floating dtype or None; got 'foo'. Leave it out for JAX's default",
    ),
    "no layer": (
        lambda: jrnn.init_stack(jax.random.key(0), I, ()),
        "hidden_sizes: expected a sequence of sizes, one per layer; got (). "
        "(128, 64) is two layers.",
    ),
    "one size for all layers": (
        lambda: jrnn.init_stack(jax.random.key(0), I, 64),
        "hidden_sizes: expected a sequence of sizes, one per layer; got 64.",
    ),
    "a layer of size 0": (
        lambda: jrnn.init_stack(jax.random.key(0), I, (4, 0)),
        "hidden_sizes[1]: expected a positive integer; got 0.",
    ),
    "both directions, by number": (
        lambda: jrnn.init_stack(jax.random.key(0), I, (4,), bidirectional=2),
        "bidirectional: expected True or False; got 2.",
    ),
    "a norm by name": (
        lambda: jrnn.init_stack(jax.random.key(0), I, (4,), layer_norm="yes"),
        "layer_norm: expected True or False; got 'yes'.",
    ),
    "a stack of one network": (
        lambda: jrnn.stack(P, CASE.xs),
        "params: expected StackParams(layers) of at least one layer; got RNNParams. See "
        "jrnn.init_stack.",
    ),
    "a list of layers": (
        lambda: jrnn.stack(list(STACK.layers), CASE.xs),
        f"params: expected StackParams(layers) of at least one layer; got list. {LAYERS}",
    ),
    "a list of layers in a loss": (
        lambda: jrnn.rnn_cross_entropy(list(STACK.layers), READOUT, CASE.xs, LABELS),
        f"params: expected StackParams(layers) of at least one layer; got list. {LAYERS}",
    ),
    "pairs as layers": (
        lambda: jrnn.stack(jrnn.StackParams(((P, None),)), CASE.xs),
        f"layers[0]: expected LayerParams(forward, backward, norm); got tuple. {PAIRS}",
    ),
    "a stack of no layer": (
        lambda: jrnn.stack(jrnn.StackParams(()), CASE.xs),
        "params: expected StackParams(layers) of at least one layer; got StackParams without any.",
    ),
    "a network as a layer": (
        lambda: jrnn.stack(jrnn.StackParams((P,)), CASE.xs),
        "layers[0]: expected LayerParams(forward, backward, norm); got RNNParams.",
    ),
    "layers in the wrong order": (
        lambda: jrnn.stack(jrnn.StackParams(STACK.layers[::-1]), CASE.xs),
        "layers[1].forward.w_ih: expected shape [I, H] = [12, any]; got float64[5, 4]. "
        "The outputs of layer 0 are of size 12.",
    ),
    "a bad weight in a layer": (
        lambda: jrnn.stack(layer(1, forward=P._replace(w_hh=np.ones((H, H + 1)))), CASE.xs),
        "layers[1].forward.w_hh: expected shape [H, H] = [4, 4]; got float64[4, 5].",
    ),
    "a layer of another dtype": (
        lambda: jrnn.stack(
            STACK._replace(layers=(STACK.layers[0], narrow(STACK.layers[1]))), CASE.xs
        ),
        "layers[1].forward.w_hh: expected the dtype of layers[0].forward.w_hh, float64; "
        "got float32.",
    ),
    "directions of two sizes": (
        lambda: jrnn.stack(layer(0, backward=STACK.layers[1].backward), CASE.xs),
        "layers[0].backward.w_ih: expected shape [I, H] = [5, 4]; got float64[8, 6]. "
        "Both directions have one shape.",
    ),
    "directions of two dtypes": (
        lambda: jrnn.stack(layer(0, backward=narrow(P)), CASE.xs),
        "layers[0].backward.w_hh: expected the dtype of forward.w_hh, float64; got float32.",
    ),
    "a norm of one direction": (
        lambda: jrnn.stack(layer(0, norm=jrnn.LayerNormParams(np.ones(4), np.zeros(4))), CASE.xs),
        "layers[0].norm.scale: expected shape [D*H] = [8]; got float64[4]. "
        "One for every output, in both directions.",
    ),
    "a norm of another dtype": (
        lambda: jrnn.stack(
            layer(0, norm=jrnn.LayerNormParams(np.ones(8), np.zeros(8, np.float32))), CASE.xs
        ),
        "layers[0].norm.offset: expected the dtype of forward.w_hh, float64; got float32.",
    ),
    "inputs of another width for a stack": (
        lambda: jrnn.stack(STACK, np.zeros((T, B, I + 1))),
        "xs: expected vectors [T, I] or [T, B, I] with I = 5; got float64[7, 3, 6].",
    ),
    "one state for all layers": (
        lambda: jrnn.stack(STACK, CASE.xs, np.zeros((2, B, 8))),
        "h0: expected None or a tuple of 2 states, one for each layer; got float64[2, 3, 8]. "
        "tuple(h0) is one.",
    ),
    "a state too few": (
        lambda: jrnn.stack(STACK, CASE.xs, (np.zeros(8),)),
        "h0: expected None or a tuple of 2 states, one for each layer; got 1 of them.",
    ),
    "a state of one direction": (
        lambda: jrnn.stack(STACK, CASE.xs, (None, np.zeros((B, 6)))),
        "h0[1]: expected [2H] = [12] or [B, 2H] = [3, 12]; got float64[3, 6].",
    ),
    "a reset state of another layer": (
        lambda: jrnn.stack(STACK, CASE.xs, reset_state=(np.zeros(12), None)),
        "reset_state[0]: expected [2H] = [8] or [B, 2H] = [3, 8]; got float64[12].",
    ),
    "one mask for all layers": (
        lambda: jrnn.stack(STACK, CASE.xs, recurrent_mask=np.ones((B, 8))),
        "recurrent_mask: expected None or a tuple of 2 masks, one for each layer; got float64[3, "
        "8]. None masks nothing; tuple(jrnn.dropout_mask(k, rate, (B, H)) for k, H in zip(keys, "
        "(8, 12))) has the form.",
    ),
    "dropout of everything": (
        lambda: jrnn.stack(STACK, CASE.xs, dropout=1.0),
        "dropout: expected a number in [0, 1); got 1.0. It is the share that becomes 0.",
    ),
    "a negative dropout": (
        lambda: jrnn.stack(STACK, CASE.xs, dropout=-0.1),
        "dropout: expected a number in [0, 1); got -0.1.",
    ),
    "dropout in words": (
        lambda: jrnn.stack(STACK, CASE.xs, dropout=None),
        "dropout: expected a number in [0, 1); got None.",
    ),
    "lengths as a state": (
        lambda: jrnn.rnn(P, CASE.xs, np.full(B, T)),
        "h0: expected a state, or None for zeros; got int64[3]. Was it meant as lengths=?",
    ),
    "one length as a state": (
        lambda: jrnn.rnn(P, CASE.xs, T),
        "h0: expected a state, or None for zeros; got int. Was it meant as lengths=?",
    ),
    "lengths as the states of a stack": (
        lambda: jrnn.stack(STACK, CASE.xs, jnp.full(B, T)),
        "h0: expected a state, or None for zeros; got int64[3]. Was it meant as lengths=?",
    ),
    "lengths as the state of an LSTM": (
        lambda: jrnn.lstm(parameters(jrnn.init_lstm, I, H), CASE.xs, np.full(B, T)),
        "state: expected a state, or None for zeros; got int64[3]. Was it meant as lengths=?",
    ),
    "a mask of steps as a state": (
        lambda: jrnn.rnn(P, CASE.xs, np.ones((T, B), bool)),
        f"h0: expected a state, or None for zeros; got bool[{T}, {B}]. "
        "Was it meant as mask= or resets=?",
    ),
    "dropout of one layer": (
        lambda: jrnn.stack(ONE_LAYER, CASE.xs, key=jax.random.key(0), dropout=0.3),
        "dropout: expected 0 for one layer, since it is between layers; got 0.3. "
        "Multiply xs or hs by a jrnn.dropout_mask",
    ),
    "dropout of one network in a loss": (
        lambda: jrnn.rnn_cross_entropy(
            *(P, READOUT, CASE.xs, LABELS), key=jax.random.key(0), dropout=0.3
        ),
        "dropout: expected 0 for one layer, since it is between layers; got 0.3.",
    ),
    "a traced dropout": (
        lambda: jax.jit(lambda p: jrnn.stack(STACK, CASE.xs, key=jax.random.key(0), dropout=p))(
            0.1
        ),
        "dropout: expected a constant number; got a traced one. Bind it by functools.partial; or",
    ),
    "a traced dropout in a loss": (
        lambda: jax.jit(lambda p: jrnn.rnn_cross_entropy(P, READOUT, CASE.xs, LABELS, dropout=p))(
            0.1
        ),
        "dropout: expected a constant number; got a traced one.",
    ),
    "a mask without a key": (
        lambda: jrnn.dropout_mask(0, 0.1, (3,)),
        "key: expected one random key of JAX; got 0. jax.random.key(0) makes one.",
    ),
    "a mask of a size": (
        lambda: jrnn.dropout_mask(jax.random.key(0), 0.1, 3),
        "shape: expected a sequence of sizes; got 3. (3,) is one.",
    ),
    "a mask of everything": (
        lambda: jrnn.dropout_mask(jax.random.key(0), 1, (3,)),
        "rate: expected a number in [0, 1); got 1.",
    ),
    "a mask of integers": (
        lambda: jrnn.dropout_mask(jax.random.key(0), 0.5, (3,), jnp.int32),
        "dtype: expected a floating dtype or None; got int32.",
    ),
    "a residual connection by number": (
        lambda: jrnn.stack(SQUARE, CASE.xs, residual=1),
        "residual: expected True or False; got 1.",
    ),
    "a residual connection to narrower inputs": (
        lambda: jrnn.stack(STACK, CASE.xs, residual=True),
        "residual: expected inputs of layer 0 as wide as its outputs, 8, or False; got 5. "
        "Run layers of other widths as a stack of their own: StackParams(layers[:1]).",
    ),
    "a residual connection to ids": (
        lambda: jrnn.stack(SQUARE, IDS.xs, residual=True),
        "residual: expected vectors to add to the outputs of layer 0, or False; got ids. "
        "Run the first layer as a stack of its own: StackParams(params.layers[:1]).",
    ),
    "remat of a stack that is no flag": (
        lambda: jrnn.stack(STACK, CASE.xs, remat=16),
        "remat: expected True or False; got 16.",
    ),
    "unknown activation of a stack": (
        lambda: jrnn.stack(STACK, CASE.xs, activation="gelu"),
        "activation: expected one of",
    ),
    "a length above T in a stack": (
        lambda: jrnn.stack(STACK, CASE.xs, None, np.array([0, T + 1, 2])),
        "lengths: expected integers from 0 to T = 7; got 8.",
    ),
    "resets of a stack as integers": (
        lambda: jrnn.stack(STACK, CASE.xs, None, None, LABELS),
        "resets: expected a bool dtype; got int64[7, 3].",
    ),
    "a mean over negative lengths": (
        lambda: jrnn.mean_over_time(CASE.dhs, np.array([1, -1, 2])),
        "lengths: expected integers from 0 to T = 7; got -1.",
    ),
    "a mean of other lengths": (
        lambda: jrnn.mean_over_time(CASE.dhs, np.array([1, 2])),
        "lengths: expected shape [] or [B] = [3]; got int64[2].",
    ),
    "a mean of no step": (
        lambda: jrnn.mean_over_time(np.zeros((0, H))),
        "hs: expected states [T, H] or [T, B, H]; got float64[0, 4]. "
        "Time leads, with at least one step.",
    ),
    "a mean of integers": (
        lambda: jrnn.mean_over_time(np.zeros((T, H), int)),
        "hs: expected a floating dtype; got int64[7, 4].",
    ),
    "states of another size": (
        lambda: jrnn.readout(READOUT, np.zeros((T, H + 1))),
        "hs: expected states [..., H] with H = 4; got float64[7, 5]. The last axis is the state.",
    ),
    "states of another dtype": (
        lambda: jrnn.readout(READOUT, np.zeros((T, H), np.float32)),
        "hs: expected the dtype of params, float64; got float32.",
    ),
    "a shape of b_o": (
        lambda: jrnn.readout(READOUT._replace(b_o=np.ones(H + 1)), CASE.dhs),
        "b_o: expected shape [O] = [6]; got float64[5].",
    ),
    "a readout the other way round": (
        lambda: jrnn.readout(READOUT._replace(w_ho=READOUT.w_ho.T), CASE.dhs),
        "w_ho: expected shape [H, O] = [any, 6], with O that of b_o; got float64[6, 4]. "
        "It looks transposed: pass w_ho.T, or give a b_o [4].",
    ),
    "a readout the other way round, without a bias": (
        lambda: jrnn.readout(jrnn.ReadoutParams(READOUT.w_ho.T, None), CASE.dhs),
        "hs: expected states [..., H] with H = 6; got float64[7, 3, 4]. "
        "w_ho is [H, O] = [6, 4]. It looks transposed: pass w_ho.T.",
    ),
    "parameters of another layer": (
        lambda: jrnn.readout(P, CASE.dhs),
        "params: expected ReadoutParams(w_ho, b_o); got RNNParams. See jrnn.init_readout.",
    ),
    "integer one-hot labels": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, np.zeros((T, B, O), int)),
        "labels: expected ids of shape [7, 3]; got int64[7, 3, 6]. "
        "Integer labels are ids; cast one-hot labels to float.",
    ),
    "labels of another shape": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, LABELS.T),
        "labels: expected ids of shape [7, 3]; got int64[3, 7].",
    ),
    "float labels of another shape": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, np.zeros((T, B))),
        "labels: expected shape [..., O] = [7, 3, 6]; got float64[7, 3]. "
        "Float labels give every class its share; ids are integers [...].",
    ),
    "float labels of sequences": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, np.zeros((B, O))),
        "If they are one for each sequence, at its end, give labels=jnp.broadcast_to(labels, "
        "(7, 3, 6)) and weights=jnp.arange(7)[:, None] == lengths[None] - 1; without padding "
        "lengths is jnp.full(3, 7).",
    ),
    "float labels of another dtype": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, LOGITS.astype(np.float32)),
        "labels: expected the dtype of logits, float64; got float32.",
    ),
    "a label outside": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, LABELS + O),
        "labels: expected ids from 0 to 5 (O = 6 classes); got 6 at [0, 0], 21 ids outside in all.",
    ),
    "a label outside that counts": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, LABELS - 100, np.arange(21).reshape(T, B) == 4),
        "labels: expected ids from 0 to 5 (O = 6 classes); got -100 at [1, 1], 1 ids outside",
    ),
    "integer logits": (
        lambda: jrnn.softmax_cross_entropy(LOGITS.astype(int), LABELS),
        "logits: expected a floating dtype; got int64[7, 3, 6].",
    ),
    "weights of another shape": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, LABELS, np.ones(T)),
        "weights: expected shape [7, 3] or []; got float64[7]. One weight per position, or one",
    ),
    "integer weights": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, LABELS, np.ones((T, B), int)),
        "weights: expected a bool or floating dtype; got int64[7, 3]. A mask is bool, a weight is",
    ),
    "weights of another dtype": (
        lambda: jrnn.softmax_cross_entropy(LOGITS, LABELS, np.ones((T, B), np.float32)),
        "weights: expected the dtype of logits, float64; got float32.",
    ),
    "the fused cost: states of another size": (
        lambda: jrnn.readout_cross_entropy(READOUT, np.zeros((T, B, H + 1)), LABELS),
        "hs: expected states [..., H] with H = 4; got float64[7, 3, 5].",
    ),
    "the fused cost: no class": (
        lambda: jrnn.readout_cross_entropy(
            jrnn.ReadoutParams(np.ones((H, 0)), None), CASE.dhs, LABELS
        ),
        "w_ho: expected [H, O] with O >= 1; got float64[4, 0]. There is no class to choose.",
    ),
    "the fused cost: labels of another shape": (
        lambda: jrnn.readout_cross_entropy(READOUT, CASE.dhs, LABELS.T),
        "labels: expected ids of shape [7, 3]; got int64[3, 7].",
    ),
    "the fused cost: float labels of another shape": (
        lambda: jrnn.readout_cross_entropy(READOUT, CASE.dhs, np.zeros((T, B))),
        "labels: expected shape [..., O] = [7, 3, 6]; got float64[7, 3].",
    ),
    "the fused cost: labels of another dtype": (
        lambda: jrnn.readout_cross_entropy(READOUT, CASE.dhs, LOGITS.astype(np.float32)),
        "labels: expected the dtype of params, float64; got float32.",
    ),
    "the fused cost: a label outside": (
        lambda: jrnn.readout_cross_entropy(READOUT, CASE.dhs, LABELS + O),
        "labels: expected ids from 0 to 5 (O = 6 classes); got 6 at [0, 0], 21 ids outside in all.",
    ),
    "the fused cost: weights of another shape": (
        lambda: jrnn.readout_cross_entropy(READOUT, CASE.dhs, LABELS, np.ones(T)),
        "weights: expected shape [7, 3] or []; got float64[7].",
    ),
    "the fused cost: weights of another dtype": (
        lambda: jrnn.readout_cross_entropy(READOUT, CASE.dhs, LABELS, np.ones((T, B), np.float32)),
        "weights: expected the dtype of params, float64; got float32.",
    ),
    "an empty prompt": (
        lambda: jrnn.sampling.generate(P, NEXT, jax.random.key(0), np.zeros(0, int), 3),
        "prompt: expected at least one integer id; got int64[0].",
    ),
    "a prompt outside": (
        lambda: jrnn.sampling.generate(P, NEXT, jax.random.key(0), np.array([0, 9]), 3),
        "prompt: expected ids from 0 to 4 (O = 5 tokens); got 9 at [1]",
    ),
    "a readout of other tokens": (
        lambda: jrnn.sampling.generate(P, READOUT, jax.random.key(0), np.array([0]), 3),
        "readout_params: expected w_ho [H, O] = [4, 5], a logit for every input id; got [4, 6]. "
        "Each generated token is the next input. To read ids by a table of embeddings, make "
        "w_ih = table @ w_ih.",
    ),
    "a negative temperature": (
        lambda: jrnn.sampling.generate(
            P, NEXT, jax.random.key(0), np.array([0]), 3, temperature=-1.0
        ),
        "temperature: expected a number >= 0; got -1.0. 0 is greedy; 1 changes nothing.",
    ),
    "top_k of 0": (
        lambda: jrnn.sampling.generate(P, NEXT, jax.random.key(0), np.array([0]), 3, top_k=0),
        "top_k: expected an integer >= 1 or None; got 0.",
    ),
    "top_k of a fraction": (
        lambda: jrnn.sampling.sample_token(jax.random.key(0), LOGITS, top_k=2.5),
        "top_k: expected an integer >= 1 or None; got 2.5.",
    ),
    "a seed as the key of a token": (
        lambda: jrnn.sampling.sample_token(0, LOGITS),
        "key: expected one random key of JAX; got 0. jax.random.key(0) makes one.",
    ),
    "no key of a sample": (
        lambda: jrnn.sampling.generate(P, NEXT, None, np.array([0]), 3),
        "key: expected one random key of JAX; got None.",
    ),
    "a temperature of None": (
        lambda: jrnn.sampling.sample_token(jax.random.key(0), LOGITS, None),
        "temperature: expected a number >= 0; got None.",
    ),
    "logits of no class": (
        lambda: jrnn.sampling.sample_token(jax.random.key(0), np.zeros(())),
        "logits: expected [..., O] with O >= 1; got float64[]. The last axis is the classes.",
    ),
    "the state of an LSTM as states": (
        lambda: jrnn.readout(READOUT, jrnn.LSTMState(CASE.h0, CASE.h0)),
        "hs: expected a JAX or NumPy array; got LSTMState. "
        "It has the fields h, c: pass one of them, such as .h.",
    ),
    "a readout of an LSTM in both directions": (
        lambda: jrnn.readout(READOUT, (jrnn.LSTMState(CASE.h0, CASE.h0),) * 2),
        "hs: expected a JAX or NumPy array; got tuple. Of two directions pass "
        "jnp.concatenate([part.h for part in hs], -1), of two layers the last, [-1].h.",
    ),
    "a mean of all that a network returns": (
        lambda: jrnn.mean_over_time((CASE.h0, CASE.dhs)),
        "hs: expected a JAX or NumPy array; got tuple. "
        "Pass one of its parts, such as the last, [-1].",
    ),
    "the states of layers as predictions": (
        lambda: jrnn.squared_error((jrnn.LSTMState(CASE.h0, CASE.h0),), CASE.h0),
        "predictions: expected a JAX or NumPy array; got tuple. Pass one of its parts",
    ),
    "a tuple of numbers": (
        lambda: jrnn.readout(READOUT, (1.0,) * H),
        "hs: expected a JAX or NumPy array; got tuple. Convert it by jnp.asarray.",
    ),
    "sequences of several lengths": (
        lambda: jrnn.rnn(P, [CASE.xs[:, 0], CASE.xs[1:, 0]]),
        "xs: expected a JAX or NumPy array; got list. Its parts differ in length: pad each to "
        "T steps, join them by jnp.stack(..., axis=1), and pass their lengths.",
    ),
    "lists of ids of several lengths": (
        lambda: jrnn.rnn(P, [[1, 2], [3]]),
        "xs: expected a JAX or NumPy array; got list. Its parts differ in length: pad each to",
    ),
    "a batch without an axis of features": (
        lambda: jrnn.rnn(ONE, np.zeros((T, B)), None, np.full(B, T)),
        "xs: expected vectors [T, I] or [T, B, I] with I = 1; got float64[7, 3]. w_ih [1, 4] takes "
        "vectors of size I = 1. A single feature is an axis of size 1: xs[..., None].",
    ),
    "counts with lengths": (
        lambda: jrnn.rnn(ONE, np.ones((T, B, 1), int), None, np.full(B, T)),
        "xs: expected integer token ids [T] or [T, B]; got int64[7, 3, 1]. Integers are token ids; "
        'give inputs="features"; or cast',
    ),
    "lengths of a batch for one sequence": (
        lambda: jrnn.rnn(P, np.zeros((T, I)), None, np.full(B, T)),
        "lengths: expected shape []; got int64[3]. "
        "One length per sequence. The data is one sequence; a batch is [T, B, ...].",
    ),
    "batch first, with lengths": (
        lambda: jrnn.rnn(P, CASE.xs.swapaxes(0, 1), None, np.full(B, T)),
        "lengths: expected shape [] or [B] = [7]; got int64[3]. Is the data batch first? "
        "Time leads: swap the axes by .swapaxes(0, 1), or map over the batch by jax.vmap.",
    ),
    "ids that are batch first, with lengths": (
        lambda: jrnn.rnn(P, IDS.xs.swapaxes(0, 1), None, np.full(B, T)),
        "lengths: expected shape [] or [B] = [7]; got int64[3]. Is the data batch first?",
    ),
    "a mean over what is batch first": (
        lambda: jrnn.mean_over_time(CASE.dhs.swapaxes(0, 1), np.full(B, T)),
        "lengths: expected shape [] or [B] = [7]; got int64[3]. Is the data batch first?",
    ),
    "batch first, with a state": (
        lambda: jrnn.rnn(P, CASE.xs.swapaxes(0, 1), CASE.h0),
        "h0: expected [H] = [4] or [B, H] = [7, 4]; got float64[3, 4]. Is the data batch first?",
    ),
    "top_p above 1": (
        lambda: jrnn.sampling.generate(P, NEXT, jax.random.key(0), np.array([0]), 3, top_p=1.5),
        "top_p: expected a number in (0, 1] or None; got 1.5.",
    ),
}
test_refused = refused(REFUSED)


def test_the_switch_of_chex_lets_no_wrong_shape_pass():
    shapes = [name for name, (_, text) in REFUSED.items() if "expected shape" in text]
    chex.disable_asserts()
    try:
        for name in [*shapes, "a derivative of another shape"]:
            test_refused(name)
    finally:
        chex.enable_asserts()
    assert len(shapes) > 20


# Of each kind that JAX has not. (A long double is a float64 on some machines.)
KINDS = [">f8", ">i8", object, "U1", "S1", "M8[s]", "m8[s]", [("a", "<f8")]]
NOT_OF_JAX = {str(np.dtype(kind)): np.dtype(kind) for kind in [*KINDS, np.longdouble]}
NOT_OF_JAX.pop("float64", None)


@pytest.mark.parametrize("name", NOT_OF_JAX)
def test_dtypes_that_jax_has_not(name):
    """By name and shape: a message with the whole array in it would hide both."""
    x = np.zeros((T, B, I), NOT_OF_JAX[name])
    w_hh = np.zeros((H, H), NOT_OF_JAX[name])
    calls = {
        "xs": lambda: jrnn.rnn(P, x),
        "x_t": lambda: jrnn.rnn_cell(P, CASE.h0, x[0]),
        "w_hh": lambda: jrnn.rnn(P._replace(w_hh=w_hh), CASE.xs),
        "h0": lambda: jrnn.rnn(P, CASE.xs, x[0, :, :H]),
        "lengths": lambda: jrnn.rnn(P, CASE.xs, None, x[0, :, 0]),
        "resets": lambda: jrnn.rnn(P, CASE.xs, None, None, x[..., 0]),
        "labels": lambda: jrnn.rnn_cross_entropy(P, READOUT, CASE.xs, x[..., 0]),
        "weights": lambda: jrnn.softmax_cross_entropy(LOGITS, LABELS, x[..., 0]),
        "logits": lambda: jrnn.sampling.sample_token(jax.random.key(0), x),
        "hs": lambda: jrnn.mean_over_time(x),
        "prompt": lambda: jrnn.sampling.generate(P, NEXT, jax.random.key(0), x[:, 0, 0], 3),
    }
    for argument, call in calls.items():
        with pytest.raises(ValueError) as error:  # noqa: PT011
            call()
        shape = str(error.value).removeprefix(f"{argument}: expected a dtype that JAX has; got ")
        assert shape.startswith(f"{name}["), str(error.value)
        assert "Cast it by .astype: JAX has numbers of up to 64 bits in the machine's" in shape
        assert error.value.__context__ is None  # or the traceback shows it all the same


def test_weights_of_another_byte_order():
    with pytest.raises(ValueError, match=r"kernel: expected a dtype that JAX has; got >f8\[5, 4\]"):
        jrnn.interop.from_keras([P.w_ih.astype(">f8"), P.w_hh, P.b_h])


def test_float64_that_is_left_after_64_bit_mode():
    """JAX would compute a part of it in float32, or refuse in the words of an operation inside."""
    of_jax, readout = jax.tree.map(jnp.asarray, (P, READOUT))
    xs = jnp.asarray(CASE.xs)
    with jax.enable_x64(False):
        for call in (
            lambda: jrnn.rnn(of_jax, xs),
            lambda: jax.jit(jrnn.rnn)(of_jax, xs),
            lambda: jrnn.derivation.rnn_scan(of_jax, xs),
            lambda: jrnn.rnn_cell(of_jax, xs[0, :, :H], xs[0]),
            lambda: jrnn.readout(readout, xs[..., :H]),
        ):
            with pytest.raises(
                ValueError, match=r"w_h[ho]: expected at most float32; got"
            ) as error:
                call()
            assert "jax_enable_x64', True); or cast the parameters by .astype(jnp.float32)." in (
                str(error.value)
            )


def test_an_array_whose_buffer_was_given_away():
    """As those of the state that went into a training step."""
    gone = jnp.array(P.w_hh)
    jax.jit(lambda x: x + 1, donate_argnums=0)(gone)
    with pytest.raises(ValueError, match=r"w_hh: expected an array that was not donated; got one"):
        jrnn.rnn(P._replace(w_hh=gone), CASE.xs)


def test_refused_in_a_trace_too():
    with pytest.raises(ValueError, match=r"xs: expected vectors"):
        jax.jit(jrnn.rnn)(P, np.zeros((T, B, I + 1)))
    with pytest.raises(ValueError, match=r"xs: expected vectors"):
        jax.vmap(jrnn.rnn, (None, 1))(P, np.zeros((T, B, I + 1)))


def test_labels_outside_are_welcome_where_they_do_not_count():
    mask = np.zeros((T, B), bool)
    assert not jrnn.softmax_cross_entropy(LOGITS, LABELS - 100, mask).any()
    traced = jax.jit(lambda w: jrnn.softmax_cross_entropy(LOGITS, LABELS - 100, w))
    assert not traced(mask).any()


def test_the_repair_of_labels_of_sequences_is_code_that_works(monkeypatch):
    labels = np.arange(B) % O
    with pytest.raises(ValueError, match="labels: expected ids of shape") as error:
        jrnn.rnn_cross_entropy(P, READOUT, CASE.xs, labels)
    code = r"give labels=(.*) and weights=(.*); without padding lengths is (.*)\.$"
    give, counted, full = re.search(code, str(error.value)).groups()
    names = {"jnp": jnp, "labels": labels, "lengths": eval(full, {"jnp": jnp})}
    monkeypatch.undo()
    given = eval(give, names), None
    found, _ = jrnn.rnn_cross_entropy(P, READOUT, CASE.xs, *given, weights=eval(counted, names))
    logits = jrnn.readout(READOUT, jrnn.rnn(P, CASE.xs)[0])
    np.testing.assert_allclose(found, jrnn.softmax_cross_entropy(logits, labels).sum(), rtol=1e-9)


@pytest.mark.parametrize("xs", [CASE.xs, CASE.xs[:, 0]])
def test_the_repair_of_a_mask_of_a_stack_is_code_that_works(xs, monkeypatch):
    with pytest.raises(ValueError, match="recurrent_mask: expected None or") as error:
        jrnn.stack(STACK, xs, recurrent_mask=np.ones(8))
    masks = re.search(r"None masks nothing; (.*) has the form\.$", str(error.value)).group(1)
    names = {"jrnn": jrnn, "keys": jax.random.split(jax.random.key(0)), "rate": 0.5, "B": B}
    monkeypatch.undo()
    jrnn.stack(STACK, xs, recurrent_mask=eval(masks, names))


def test_an_activation_can_be_made_inside_a_jitted_function(monkeypatch):
    monkeypatch.undo()

    @jax.jit
    def f(xs):
        return jrnn.rnn(P, xs, activation=jrnn.Activation(jnp.tanh, lambda h: 1 - h * h))[0]

    np.testing.assert_allclose(f(CASE.xs), jrnn.rnn(P, CASE.xs)[0], rtol=1e-12)
