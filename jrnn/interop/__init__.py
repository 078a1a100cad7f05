"""Convert weights from and to other libraries, as plain arrays, without importing them.

                 w_ih                 w_hh                   b_h
    torch        weight_ih_l0^T       weight_hh_l0^T         bias_ih_l0 + bias_hh_l0
    flax linen   i/kernel             h/kernel               i/bias
    flax nnx     dense_i/kernel       dense_h/kernel         dense_i/bias
    haiku        linear/w             linear_1/w             linear/b + linear_1/b
    keras        kernel               recurrent_kernel       bias
    equinox      weight_ih^T          weight_hh^T            bias
    ONNX         W^T                  R^T                    the halves of B, added

The kind of network is found by the entries and their shapes. These are the gates in each library's
order, in jrnn's letters, and where the bias of an LSTM and b_hn of a GRU stand:

                 LSTM                                  GRU, b_hn
    jrnn         i f g o                               r z n, b_hn
    torch        i f g o                               r z n, in bias_hh_l0
    flax linen   one entry each; bias in h             one entry each, hn/bias
    flax nnx     as linen, or i f g o; bias in dense_h r z n, none
    haiku        i g f o; 1 is added to f              another network
    keras        i f g o                               z r n, in bias[1]; reset_after=True
    equinox      i f g o                               r z n, bias_n
    ONNX         i o f g                               z r n, in B; linear_before_reset=1

A GRU that resets before the matmul is another network and is refused, as are projections,
peepholes and clipping.

The activation is not part of the weights: haiku's `VanillaRNN` uses relu, the others tanh by
default; an LSTM or GRU must have tanh and sigmoid. flax's `residual=True` is a different network.
`from_` functions accept JAX, NumPy or torch arrays and keep their dtype (float64 in JAX's 64-bit
mode only); a gradient through them has the entries of the other library. `to_` functions return one
bias; if the other library has two, the second is 0, except b_hn. Freeze the zeros there: otherwise
both learn, and their sum changes twice as fast.
"""

from jrnn.interop._equinox import from_equinox as from_equinox
from jrnn.interop._equinox import to_equinox as to_equinox
from jrnn.interop._flax import from_linen as from_linen
from jrnn.interop._flax import from_nnx as from_nnx
from jrnn.interop._flax import to_linen as to_linen
from jrnn.interop._flax import to_nnx as to_nnx
from jrnn.interop._haiku import from_haiku as from_haiku
from jrnn.interop._haiku import to_haiku as to_haiku
from jrnn.interop._keras import from_keras as from_keras
from jrnn.interop._keras import to_keras as to_keras
from jrnn.interop._onnx import from_onnx as from_onnx
from jrnn.interop._onnx import to_onnx as to_onnx
from jrnn.interop._torch import from_torch as from_torch
from jrnn.interop._torch import to_torch as to_torch
from jrnn.interop._weights import Layer as Layer
from jrnn.interop._weights import Params as Params
