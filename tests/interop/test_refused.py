"""Weights that are no network of jrnn: what each refusal says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refused
from test_both_ways import BOTH_WAYS, KINDS, Cell, H, I, Tensor, network
from test_both_ways import numbers as normal

import jrnn
from jrnn import interop

TORCH = "Give the state dict of an nn.RNN, nn.LSTM or nn.GRU alone: model.rnn.state_dict()."
SAME = "All layers and gates are of the same kind and have the same H."
READABLE = "Of a torch tensor take x.detach().cpu().float()."
FLAX = "Give those of a SimpleCell, LSTMCell, OptimizedLSTMCell or GRUCell alone: "
LINEN = f'{FLAX}variables["params"]["cell"] of an nn.RNN.'
NNX = f"{FLAX}nnx.state(rnn.cell, nnx.Param)."
HAIKU = "Give the parameters that hk.transform made, and the path of the network as module."
KERAS = (
    "Give layer.get_weights() of a SimpleRNN, LSTM or GRU; convert the two of a Bidirectional "
    "separately."
)
EQUINOX = "Give an eqx.nn.LSTMCell or eqx.nn.GRUCell alone, or its arrays by name."
ONNX = "Give the arrays of the node's inputs W, R and B, by onnx.numpy_helper.to_array."
PAIRS = (
    ": expected pairs (forward parameters, backward parameters or None), all RNNParams, all "
    "LSTMParams, all GRUParams; got "
)
RESET_BEFORE = (
    "It resets the state before the matmul, (r * h) w_hn; jrnn.gru resets after it, r * (h w_hn): "
    "the same weights are another network."
)


def params(I=I, H=H, bias=True):
    return network("rnn", bias, I, H)


def torch_weights(layers=1, directions=1, bias=True, rows=H):
    """As `nn.RNN(I, H, layers).state_dict()` has them."""
    weights = {}
    for n in range(layers):
        for suffix in ("", "_reverse")[:directions]:
            weights[f"weight_ih_l{n}{suffix}"] = normal(rows, directions * H if n else I)
            weights[f"weight_hh_l{n}{suffix}"] = normal(rows, H)
            for kind in ("ih", "hh") if bias else ():
                weights[f"bias_{kind}_l{n}{suffix}"] = normal(rows)
    return weights


def changed(weights, **entries):
    """With other entries; None takes one out."""
    return {name: x for name, x in {**weights, **entries}.items() if x is not None}


def linen(kind="rnn", **entries):
    return changed(interop.to_linen(network(kind)), **entries)


def onnx(kind, B=None, **options):
    W, R, own = interop.to_onnx((network(kind), None))
    return interop.from_onnx(W, R, own if B is None else B, **options)


TORCH_REFUSED = {
    "the module": (
        lambda: interop.from_torch(object()),
        f"state_dict: expected a mapping of names to arrays; got object. {TORCH}",
    ),
    "missing": (
        lambda: interop.from_torch(changed(torch_weights(), weight_hh_l0=None)),
        "weight_hh_l0: expected it in state_dict; got only weight_ih_l0, bias_ih_l0, bias_hh_l0. "
        + TORCH,
    ),
    "empty": (
        lambda: interop.from_torch({}),
        f"weight_ih_l0: expected it in state_dict; got an empty one. {TORCH}",
    ),
    "a direction missing": (
        lambda: interop.from_torch(changed(torch_weights(2, 2), weight_ih_l1_reverse=None)),
        "weight_ih_l1_reverse: expected it in state_dict; got only weight_ih_l0, ",
    ),
    "a layer missing": (
        lambda: interop.from_torch(
            {name: x for name, x in torch_weights(3).items() if "l1" not in name}
        ),
        "weight_ih_l1: expected it in state_dict; got only weight_ih_l0, ",
    ),
    "half of the bias": (
        lambda: interop.from_torch(changed(torch_weights(), bias_hh_l0=None)),
        "bias_hh_l0: expected it in state_dict; got only weight_ih_l0, weight_hh_l0, bias_ih_l0. ",
    ),
    "a layer without bias": (
        lambda: interop.from_torch(changed(torch_weights(2), bias_ih_l1=None, bias_hh_l1=None)),
        "bias_ih_l1: expected it in state_dict; got only weight_ih_l0, ",
    ),
    "a whole model": (
        lambda: interop.from_torch({**torch_weights(), "linear.weight": normal(2, H)}),
        "linear.weight: expected nothing in state_dict but weight_ih_l0, weight_hh_l0, bias_ih_l0, "
        f"bias_hh_l0; got one of shape [2, 5]. {TORCH}",
    ),
    "the rnn of a whole model": (
        lambda: interop.from_torch({f"rnn.{k}": x for k, x in torch_weights().items()}),
        "weight_ih_l0: expected it in state_dict; got only rnn.weight_ih_l0, rnn.weight_hh_l0, "
        "rnn.bias_ih_l0, rnn.bias_hh_l0. Of a whole model take {k.removeprefix('rnn.'): x for k, x "
        "in state_dict.items() if k.startswith('rnn.')}.",
    ),
    "proj_size": (
        lambda: interop.from_torch({**torch_weights(rows=4 * H), "weight_hr_l0": normal(2, H)}),
        "weight_hr_l0: expected an LSTM that does not project h; got one with proj_size. jrnn.lstm "
        "feeds h_{t-1} back as it is: build the nn.LSTM without proj_size.",
    ),
    "rows of no network": (
        lambda: interop.from_torch(torch_weights(rows=2 * H)),
        "weight_hh_l0: expected shape [H, H] (an Elman network), [3H, H] (a GRU) or [4H, H] (an "
        "LSTM); got float64[10, 5]. It maps a state to the gates.",
    ),
    "another kind above": (
        lambda: interop.from_torch({**torch_weights(2, rows=4 * H), "weight_hh_l1": normal(H, H)}),
        f"weight_hh_l1: expected shape [4H, H] = [20, 5]; got float64[5, 5]. {SAME}",
    ),
    "w_hh that is no matrix": (
        lambda: interop.from_torch({**torch_weights(), "weight_hh_l0": normal(H)}),
        "weight_hh_l0: expected shape [H, H] (an Elman network), [3H, H] (a GRU) or [4H, H] (an "
        "LSTM); got float64[5].",
    ),
    "transposed": (
        lambda: interop.from_torch({**torch_weights(), "weight_ih_l0": normal(I, H)}),
        "weight_ih_l0: expected shape [H, I] = [5, any]; got float64[3, 5]. "
        "H is that of weight_hh_l0; above the first layer, I is the size of the outputs below.",
    ),
    "bias misshapen": (
        lambda: interop.from_torch({**torch_weights(), "bias_hh_l0": normal(1, H)}),
        "bias_hh_l0: expected shape [H] = [5]; got float64[1, 5].",
    ),
    "bias of another kind": (
        lambda: interop.from_torch({**torch_weights(rows=3 * H), "bias_hh_l0": normal(4 * H)}),
        "bias_hh_l0: expected shape [3H] = [15]; got float64[20].",
    ),
    "one direction below two": (
        lambda: interop.from_torch({**torch_weights(2, 2), "weight_ih_l1": normal(H, H)}),
        "weight_ih_l1: expected shape [H, I] = [5, 10]; got float64[5, 5]. "
        "H is that of weight_hh_l1; above the first layer, I is the size of the outputs below.",
    ),
    "backwards of other inputs": (
        lambda: interop.from_torch({**torch_weights(1, 2), "weight_ih_l0_reverse": normal(H, 4)}),
        "weight_ih_l0_reverse: expected shape [H, I] = [5, 3]; got float64[5, 4].",
    ),
    "layers of other sizes": (
        lambda: interop.from_torch({**torch_weights(2), "weight_hh_l1": normal(4, 4)}),
        f"weight_hh_l1: expected shape [H, H] = [5, 5]; got float64[4, 4]. {SAME}",
    ),
    "mixed dtypes": (
        lambda: interop.from_torch({**torch_weights(), "bias_ih_l0": normal(H, dtype=np.float32)}),
        "bias_ih_l0: expected the dtype of weight_ih_l0, float64; got float32. "
        "One floating dtype runs through a call: take bias_ih_l0.astype(jnp.float64).",
    ),
    "mixed dtypes between layers": (
        lambda: interop.from_torch(
            {**torch_weights(2), "weight_hh_l1": normal(H, H, dtype=np.float16)}
        ),
        "weight_hh_l1: expected the dtype of weight_ih_l0, float64; got float16.",
    ),
    "integers": (
        lambda: interop.from_torch({name: x.astype(int) for name, x in torch_weights().items()}),
        "weight_ih_l0: expected a floating dtype; got int64[5, 3]. ",
    ),
    "a tensor in a graph": (
        lambda: interop.from_torch(
            {**torch_weights(), "bias_hh_l0": Tensor(normal(H), RuntimeError("detach it"))}
        ),
        f"bias_hh_l0: expected an array that NumPy can read; got detach it. {READABLE}",
    ),
    "bfloat16": (
        lambda: interop.from_torch(
            {**torch_weights(), "bias_hh_l0": Tensor(normal(H), TypeError("BFloat16"))}
        ),
        f"bias_hh_l0: expected an array that NumPy can read; got BFloat16. {READABLE}",
    ),
    "no array": (
        lambda: interop.from_torch({**torch_weights(), "bias_hh_l0": None}),
        f"bias_hh_l0: expected an array that NumPy can read; got NoneType. {READABLE}",
    ),
    "a text": (
        lambda: interop.from_torch({**torch_weights(), "bias_hh_l0": "zeros"}),
        f"bias_hh_l0: expected an array that NumPy can read; got str. {READABLE}",
    ),
    "no names": (
        lambda: interop.from_torch({0: normal(I, H)}),
        f"weight_ih_l0: expected it in state_dict; got only 0. {TORCH}",
    ),
    "those of haiku": (
        lambda: interop.from_torch(interop.to_haiku(network("lstm"))),
        "weight_ih_l0: expected it in state_dict; got only lstm/linear/w, lstm/linear/b. "
        "jrnn.interop.from_haiku reads such entries.",
    ),
    "stack as a text": (
        lambda: interop.from_torch(torch_weights(), stack="yes"),
        "stack: expected True or False; got 'yes'.",
    ),
    "to: parameters alone": (
        lambda: interop.to_torch(params()),
        f"layers{PAIRS}RNNParams. A layer in one direction is (params, None).",
    ),
    "to: a list of parameters": (
        lambda: interop.to_torch([params()]),
        f"layers{PAIRS}['RNNParams']. A layer in one direction is (params, None).",
    ),
    "to: no layer": (lambda: interop.to_torch([]), f"layers{PAIRS}[]."),
    "to: no list": (lambda: interop.to_torch(None), f"layers{PAIRS}NoneType."),
    "to: a norm": (
        lambda: interop.to_torch(jrnn.init_stack(jax.random.key(0), I, (H,), layer_norm=True)),
        "layers[0]: expected a layer without a norm; got one with a norm. Only the networks can be "
        "converted: layer._replace(norm=None).",
    ),
    "to: backward alone": (
        lambda: interop.to_torch([(None, params())]),
        f"layers{PAIRS}['(NoneType, RNNParams)'].",
    ),
    "to: two kinds": (
        lambda: interop.to_torch([(network("gru"), None), (network("lstm"), None)]),
        f"layers{PAIRS}['(GRUParams, NoneType)', '(LSTMParams, NoneType)'].",
    ),
    "to: a layer in one direction": (
        lambda: interop.to_torch([(params(), params()), (params(2 * H), None)]),
        "layers[1]: expected D = 2 directions, as in layers[0]; got 1. A module of torch has one "
        "direction in all layers, or two.",
    ),
    "to: a layer without bias": (
        lambda: interop.to_torch([(params(), None), (params(H, bias=False), None)]),
        "layers[1]: expected biases, as in the first network; got none. Where b_h is None, "
        "give zeros: params._replace(b_h=jnp.zeros_like(params.w_hh[0])).",
    ),
    "to: a direction with a bias": (
        lambda: interop.to_torch([(params(bias=False), params())]),
        "layers[0]: expected no biases, as in the first network; got some. Where b_h is None",
    ),
    "to: layers of other sizes": (
        lambda: interop.to_torch([(params(), None), (params(H, 4), None)]),
        "layers[1]: expected I = 5 and H = 5; got I = 5 and H = 4. torch has one H; above",
    ),
    "to: layers that do not fit": (
        lambda: interop.to_torch([(params(), params()), (params(), params())]),
        "layers[1]: expected I = 10 and H = 5; got I = 3 and H = 5. torch has one H; above the "
        "first layer, I is the size of outputs, D*H.",
    ),
    "to: layers of other dtypes": (
        lambda: interop.to_torch([(params(), None), (jax.tree.map(np.float32, params(H)), None)]),
        "layers[1]: expected float64, as in the first network; got float32. Cast it by jax.",
    ),
    "an nn.LSTMCell": (
        lambda: interop.from_torch(
            {name.removesuffix("_l0"): x for name, x in torch_weights(rows=4 * H).items()}
        ),
        "weight_ih_l0: expected it in state_dict; got only weight_ih, weight_hh, bias_ih, bias_hh. "
        'Of a cell take {f"{n}_l0": x for n, x in state_dict.items()}.',
    ),
}

FLAX_REFUSED = {
    "linen: the variables": (
        lambda: interop.from_linen({"params": {"cell": linen()}}),
        "i/kernel: expected it in params; got only params/cell/i/kernel, params/cell/i/bias, "
        f"params/cell/h/kernel. {LINEN}",
    ),
    "linen: missing": (
        lambda: interop.from_linen(linen(i={"kernel": normal(I, H)})),
        f"i/bias: expected it in params; got only i/kernel, h/kernel. {LINEN}",
    ),
    "linen: a gate missing": (
        lambda: interop.from_linen(linen("lstm", **{"if": None})),
        "if/kernel: expected it in params; got only ii/kernel, ",
    ),
    "linen: a gate misshapen": (
        lambda: interop.from_linen(linen("lstm", hg={"kernel": normal(H, I), "bias": normal(H)})),
        f"hg/kernel: expected shape [H, H] = [5, 5]; got float64[5, 3]. {SAME}",
    ),
    "linen: a gate of other inputs": (
        lambda: interop.from_linen(linen("gru", iz={"kernel": normal(4, H), "bias": normal(H)})),
        "iz/kernel: expected shape [I, H] = [3, 5]; got float64[4, 5].",
    ),
    "linen: b_hn missing": (
        lambda: interop.from_linen(linen("gru", hn={"kernel": normal(H, H)})),
        "hn/bias: expected it in params; got only ir/kernel, ",
    ),
    "linen: b_hn misshapen": (
        lambda: interop.from_linen(linen("gru", hn={"kernel": normal(H, H), "bias": normal(1)})),
        f"hn/bias: expected shape [H] = [5]; got float64[1]. {LINEN}",
    ),
    "linen: extra": (
        lambda: interop.from_linen(linen(h={"kernel": normal(H, H), "bias": normal(H)})),
        "h/bias: expected nothing in params but i/kernel, h/kernel, i/bias; "
        f"got one of shape [5]. {LINEN}",
    ),
    "linen: an array": (
        lambda: interop.from_linen(normal(2)),
        f"params: expected a mapping of names to arrays; got ndarray. {LINEN}",
    ),
    "linen: misshapen": (
        lambda: interop.from_linen(linen(h={"kernel": normal(H, 3 * H)})),
        f"h/kernel: expected shape [H, H] = [5, 5]; got float64[5, 15]. {SAME}",
    ),
    "linen: mixed dtypes": (
        lambda: interop.from_linen(linen(h={"kernel": normal(H, H, dtype=np.float32)})),
        "h/kernel: expected the dtype of i/kernel, float64; got float32.",
    ),
    "linen: an MGUCell": (
        lambda: interop.from_linen({name: {"kernel": normal(2, 2)} for name in ("if", "in", "hf")}),
        "params: expected those of a SimpleCell, LSTMCell, OptimizedLSTMCell or GRUCell; got those "
        "of an MGUCell. One gate forgets and resets there: write it as a jrnn.Cell, for "
        "jrnn.unroll.",
    ),
    "linen: those of nnx": (
        lambda: interop.from_linen(interop.to_nnx(params())),
        "i/kernel: expected it in params; got only dense_i/kernel, dense_i/bias, dense_h/kernel. "
        "jrnn.interop.from_nnx reads such entries.",
    ),
    "linen: the LSTMCell of nnx": (
        lambda: interop.from_linen(interop.to_nnx(network("lstm"))),
        "jrnn.interop.from_nnx reads such entries.",
    ),
    "nnx: the state of the whole": (
        lambda: interop.from_nnx({"cell": interop.to_nnx(params())}),
        "dense_i/kernel: expected it in state; got only cell/dense_i/kernel, "
        f"cell/dense_i/bias, cell/dense_h/kernel. {NNX}",
    ),
    "nnx: the state of a cell with its keys": (
        lambda: interop.from_nnx(interop.to_nnx(params()) | {"rngs": {"count": np.uint32(0)}}),
        "rngs/count: expected nothing in state but dense_i/kernel, dense_h/kernel, dense_i/bias; "
        f"got one of shape []. {NNX}",
    ),
    "nnx: the LSTMCell of linen": (
        lambda: interop.from_nnx(linen("lstm")),
        "jrnn.interop.from_linen reads such entries.",
    ),
    "nnx: the SimpleCell of linen": (
        lambda: interop.from_nnx(linen()),
        "dense_i/kernel: expected it in state; got only i/kernel, i/bias, h/kernel. "
        "jrnn.interop.from_linen reads such entries.",
    ),
    "nnx: the bias of an LSTM elsewhere": (
        lambda: interop.from_nnx(
            {
                "dense_i": {"kernel": normal(I, 4 * H), "bias": normal(4 * H)},
                "dense_h": {"kernel": normal(H, 4 * H)},
            }
        ),
        "dense_h/bias: expected it in state; got only dense_i/kernel, dense_i/bias, "
        f"dense_h/kernel. {NNX}",
    ),
    "nnx: misshapen": (
        lambda: interop.from_nnx({"dense_h": {"kernel": normal(H, 2 * H)}}),
        "dense_h/kernel: expected shape [H, H] (an Elman network), [H, 3H] (a GRU) or [H, 4H] (an "
        "LSTM); got float64[5, 10].",
    ),
    "to nnx: b_hn": (
        lambda: interop.to_nnx(network("gru")),
        "b_hn: expected None or zeros; got others. The GRUCell of nnx has no such bias: use "
        "linen's, or train with b_hn=None.",
    ),
    "to nnx: a traced b_hn": (
        lambda: jax.jit(interop.to_nnx)(network("gru")._replace(b_hn=jnp.zeros(H))),
        "b_hn: expected None or zeros; got one that is traced.",
    ),
    "to nnx: optimized": (
        lambda: interop.to_nnx(network("gru"), optimized=True),
        "optimized: expected False but for LSTMParams; got True for GRUParams. Leave it out.",
    ),
    "to nnx: no flag": (
        lambda: interop.to_nnx(network("lstm"), optimized="yes"),
        "optimized: expected True or False; got 'yes'.",
    ),
}

HAIKU_REFUSED = {
    "another module": (
        lambda: interop.from_haiku(interop.to_haiku(params(), "net/vanilla_rnn")),
        "module: expected the path of the network, or one of vanilla_rnn and lstm in params; got "
        "None, with net/vanilla_rnn/linear/w, net/vanilla_rnn/linear/b, "
        f"net/vanilla_rnn/linear_1/w, net/vanilla_rnn/linear_1/b. {HAIKU}",
    ),
    "two modules": (
        lambda: interop.from_haiku(interop.to_haiku(params()) | interop.to_haiku(network("lstm"))),
        "module: expected the path of the network, or one of vanilla_rnn and lstm in params; got "
        "None, with vanilla_rnn/linear/w, ",
    ),
    "empty": (
        lambda: interop.from_haiku({}),
        "module: expected the path of the network, or one of vanilla_rnn and lstm in params; got "
        f"None, with empty params. {HAIKU}",
    ),
    "no such module": (
        lambda: interop.from_haiku(interop.to_haiku(params()), "lstm"),
        f"lstm/linear/w: expected it in params; got an empty one. {HAIKU}",
    ),
    "half of a VanillaRNN": (
        lambda: interop.from_haiku(
            changed(interop.to_haiku(params()), **{"vanilla_rnn/linear_1": None})
        ),
        "vanilla_rnn/linear_1/w: expected it in params; got only vanilla_rnn/linear/w, ",
    ),
    "extra": (
        lambda: interop.from_haiku(
            interop.to_haiku(params()) | {"vanilla_rnn/x": {"w": normal(2)}}
        ),
        "vanilla_rnn/x/w: expected nothing in params but vanilla_rnn/linear/w, "
        "vanilla_rnn/linear_1/w, vanilla_rnn/linear/b, vanilla_rnn/linear_1/b; got one of shape "
        "[2].",
    ),
    "the list of keras": (
        lambda: interop.from_haiku(interop.to_keras(params())),
        "params: expected a mapping of names to arrays; got list.",
    ),
    "a GRU": (
        lambda: interop.from_haiku({"gru": {"w_i": normal(I, 3 * H), "w_h": normal(H, 3 * H)}}),
        f"gru: expected a VanillaRNN or an LSTM; got a GRU. {RESET_BEFORE}",
    ),
    "a GRU by its path": (
        lambda: interop.from_haiku({"net/~/core": {"w_h": normal(H, 3 * H)}}, "net/~/core"),
        f"net/~/core: expected a VanillaRNN or an LSTM; got a GRU. {RESET_BEFORE}",
    ),
    "to: a GRU": (
        lambda: interop.to_haiku(network("gru")),
        "params: expected RNNParams or LSTMParams; got GRUParams. haiku's GRU resets the state "
        "before the matmul, which is another network.",
    ),
    "an LSTM that is no matrix": (
        lambda: interop.from_haiku({"lstm/linear": {"w": normal(H), "b": normal(H)}}),
        f"lstm/linear/w: expected shape [I+H, 4H] = [any, any]; got float64[5]. {HAIKU}",
    ),
    "an LSTM with too few rows": (
        lambda: interop.from_haiku({"lstm/linear": {"w": normal(H - 1, 4 * H), "b": normal(4)}}),
        f"lstm/linear/w[-H:]: expected shape [H, 4H] = [5, 20]; got float64[4, 20]. {SAME}",
    ),
    "an LSTM with another bias": (
        lambda: interop.from_haiku(
            {"lstm/linear": {"w": normal(I + H, 4 * H), "b": normal(3 * H)}}
        ),
        "lstm/linear/b: expected shape [4H] = [20]; got float64[15].",
    ),
}

KERAS_REFUSED = {
    "columns of no network": (
        lambda: interop.from_keras([normal(I, 2 * H), normal(H, 2 * H)]),
        "recurrent_kernel: expected shape [H, H] (an Elman network), [H, 3H] (a GRU) or [H, 4H] "
        "(an LSTM); got float64[5, 10].",
    ),
    "a kernel of another kind": (
        lambda: interop.from_keras([normal(I, 3 * H), normal(H, 4 * H)]),
        "kernel: expected shape [I, 4H] = [any, 20]; got float64[3, 15].",
    ),
    "Bidirectional": (
        lambda: interop.from_keras([*interop.to_keras(params()), *interop.to_keras(params())]),
        "weights: expected [kernel, recurrent_kernel, bias], or the first two; got 6 arrays. "
        + KERAS,
    ),
    "an array": (
        lambda: interop.from_keras(normal(3, 4, 4)),
        "weights: expected a list of arrays; got ndarray.",
    ),
    "bias misshapen": (
        lambda: interop.from_keras([normal(I, H), normal(H, H), normal(H, 1)]),
        "bias: expected shape [H] = [5]; got float64[5, 1].",
    ),
    "a GRU with reset_after=False": (
        lambda: interop.from_keras([normal(I, 3 * H), normal(H, 3 * H), normal(3 * H)]),
        "bias: expected shape [2, 3H] = [2, 15]; got [3H], that of reset_after=False. "
        + RESET_BEFORE,
    ),
    "bias of a GRU misshapen": (
        lambda: interop.from_keras([normal(I, 3 * H), normal(H, 3 * H), normal(2, H)]),
        f"bias: expected shape [2, 3H] = [2, 15]; got float64[2, 5]. {KERAS}",
    ),
}

EQUINOX_REFUSED = {
    "no module": (
        lambda: interop.from_equinox(normal(2)),
        f"cell: expected a mapping of names to arrays; got ndarray. {EQUINOX}",
    ),
    "another module": (
        lambda: interop.from_equinox(Cell({"weight": normal(H, I)})),
        f"weight_ih: expected it in cell; got only weight. {EQUINOX}",
    ),
    "an Elman network": (
        lambda: interop.from_equinox({"weight_ih": normal(H, I), "weight_hh": normal(H, H)}),
        "weight_hh: expected shape [4H, H] (an LSTM) or [3H, H] (a GRU); got float64[5, 5].",
    ),
    "to: an Elman network": (
        lambda: interop.to_equinox(params()),
        "params: expected LSTMParams or GRUParams; got RNNParams. equinox has no Elman cell.",
    ),
    "without bias_n": (
        lambda: interop.from_equinox(changed(interop.to_equinox(network("gru")), bias_n=None)),
        f"bias_n: expected it in cell; got only weight_ih, weight_hh, bias. {EQUINOX}",
    ),
    "without bias": (
        lambda: interop.from_equinox(changed(interop.to_equinox(network("gru")), bias=None)),
        f"bias: expected it in cell; got only weight_ih, weight_hh, bias_n. {EQUINOX}",
    ),
    "an LSTM with bias_n": (
        lambda: interop.from_equinox(interop.to_equinox(network("lstm")) | {"bias_n": normal(H)}),
        "bias_n: expected nothing in cell but weight_ih, weight_hh, bias; got one of shape [5]. "
        + EQUINOX,
    ),
    "bias_n misshapen": (
        lambda: interop.from_equinox(interop.to_equinox(network("gru")) | {"bias_n": normal(2)}),
        f"bias_n: expected shape [H] = [5]; got float64[2]. {EQUINOX}",
    ),
}

ONNX_REFUSED = {
    "a GRU that resets before": (
        lambda: onnx("gru"),
        f"linear_before_reset: expected 1; got 0, ONNX's default. {RESET_BEFORE}",
    ),
    "a GRU that says so": (
        lambda: onnx("gru", linear_before_reset=0),
        f"linear_before_reset: expected 1; got 0. {RESET_BEFORE}",
    ),
    "peepholes": (
        lambda: onnx("lstm", P=np.eye(1, 3 * H)),
        "P: expected no peepholes: None or zeros; got peepholes. The gates of jrnn.lstm do not "
        "read c: train the network without peepholes.",
    ),
    "clip": (
        lambda: onnx("lstm", clip=3.0),
        "clip: expected None; got 3.0. jrnn does not clip pre-activations: export the network "
        "without clip.",
    ),
    "input_forget": (
        lambda: onnx("lstm", input_forget=1),
        "input_forget: expected 0; got 1. There i is 1 - f: write it as a jrnn.Cell, for "
        "jrnn.unroll.",
    ),
    "activations": (
        lambda: onnx("lstm", activations=[b"HardSigmoid", b"Tanh", b"Tanh"]),
        "activations: expected ['sigmoid', 'tanh', 'tanh'] for each direction; got ['HardSigmoid', "
        "'Tanh', 'Tanh']. The gates of jrnn have these; write others as a jrnn.Cell, for "
        "jrnn.unroll.",
    ),
    "activations of a GRU": (
        lambda: onnx("gru", linear_before_reset=1, activations=["Sigmoid", "Relu"]),
        "activations: expected ['sigmoid', 'tanh'] for each direction; got ['Sigmoid', 'Relu'].",
    ),
    "no attribute": (
        lambda: onnx("lstm", reset_after=True),
        "reset_after: expected an attribute of ONNX's RNN, LSTM or GRU; got another name. Those "
        "are activation_alpha, ",
    ),
    "without the axis of directions": (
        lambda: interop.from_onnx(normal(4 * H, I), normal(4 * H, H)),
        f"R: expected shape [D, G*H, H] = [any, any, any]; got float64[20, 5]. {ONNX}",
    ),
    "three directions": (
        lambda: interop.from_onnx(normal(3, 4 * H, I), normal(3, 4 * H, H)),
        f"R: expected D = 1 or 2 directions; got 3. {ONNX}",
    ),
    "rows of no network": (
        lambda: interop.from_onnx(normal(1, 2 * H, I), normal(1, 2 * H, H)),
        "R[0]: expected shape [H, H] (an Elman network), [3H, H] (a GRU) or [4H, H] (an LSTM); got "
        "float64[10, 5].",
    ),
    "W misshapen": (
        lambda: interop.from_onnx(normal(1, H, I), normal(1, 4 * H, H)),
        f"W: expected shape [D, 4H, I] = [1, 20, any]; got float64[1, 5, 3]. {ONNX}",
    ),
    "half of the bias": (
        lambda: onnx("lstm", B=normal(1, 4 * H)),
        f"B: expected shape [D, 8H] = [1, 40]; got float64[1, 20]. {ONNX}",
    ),
    "mixed dtypes": (
        lambda: onnx("rnn", B=normal(1, 2 * H, dtype=np.float32)),
        "B: expected the dtype of W, float64; got float32.",
    ),
    "to: parameters alone": (
        lambda: interop.to_onnx(params()),
        f"layer{PAIRS}['RNNParams']. A layer in one direction is (params, None).",
    ),
    "to: two kinds": (
        lambda: interop.to_onnx((network("gru"), network("lstm"))),
        f"layer{PAIRS}['(GRUParams, LSTMParams)'].",
    ),
    "to: a stack": (
        lambda: interop.to_onnx(jrnn.init_stack(jax.random.key(0), I, (H, H))),
        "layer: expected one layer; got a stack of 2. Its layers are nodes: "
        "[to_onnx(layer) for layer in params.layers].",
    ),
    "to: a layer with a norm": (
        lambda: interop.to_onnx(
            jrnn.init_stack(jax.random.key(0), I, (H,), layer_norm=True).layers[0]
        ),
        "layer: expected a layer without a norm; got one with a norm.",
    ),
    "to: directions of other inputs": (
        lambda: interop.to_onnx((network("gru"), network("gru", I=4))),
        "w_ih of the backward direction: expected shape of the forward direction = [3, 15]; got "
        "float64[4, 15]. The two directions of a node have the same I and H.",
    ),
}

TO_REFUSED = {
    f"{library} {kind}: {name}": (lambda there=there, change=change: there(change), text)
    for library, (there, _) in BOTH_WAYS.items()
    for kind in KINDS[library]
    for name, change, text in (
        (
            "no parameters",
            network(kind)._replace(w_ih=normal(H, I)),
            {
                "rnn": "w_ih: expected shape [I, H] = [any, 5]; got float64[5, 3].",
                "lstm": "w_ih: expected shape [I, 4H] = [any, 20]; got float64[5, 3].",
                "gru": "w_ih: expected shape [I, 3H] = [any, 15]; got float64[5, 3].",
            }[kind],
        ),
        (
            "without w_ih",
            network(kind)._replace(w_ih=None),
            f"params: expected {type(network(kind)).__name__} with w_ih; got w_ih = None.",
        ),
    )
} | {
    f"{library}: a leaky network": (
        lambda there=there: there(jrnn.init_leaky(jax.random.key(0), I, H, alpha=0.5)),
        "LeakyParams",
    )
    for library, (there, _) in BOTH_WAYS.items()
}

REFUSED = {
    f"{library}, {name}": refusal
    for library, refusals in {
        "torch": TORCH_REFUSED,
        "flax": FLAX_REFUSED,
        "haiku": HAIKU_REFUSED,
        "keras": KERAS_REFUSED,
        "equinox": EQUINOX_REFUSED,
        "onnx": ONNX_REFUSED,
        "to": TO_REFUSED,
    }.items()
    for name, refusal in refusals.items()
}
test_refused = refused(REFUSED)


def test_what_came_in_is_of_another_kind():
    """The function that is called says which function is the right one."""
    [(lstm, _)] = interop.from_torch(torch_weights(rows=4 * H))
    with pytest.raises(ValueError, match=r"got LSTMParams\. jrnn\.lstm runs"):
        jrnn.rnn(lstm, normal(2, I))
