"""References of the kernels: XLA scans on states `[H, B]`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def _rounded(a: Any, b: Any) -> Any:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def forward(xw: jax.Array, w: jax.Array, h0: jax.Array) -> Any:
    """Like `one_block.forward`: operands in bfloat16, products and the state in float32."""

    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(x + _rounded(w.T, h))
        return h, h.astype(jnp.bfloat16)

    return lax.scan(step, h0, xw)[::-1]


def forward_float32(xw: jax.Array, w: jax.Array, h0: jax.Array) -> Any:
    """Like `split.forward`."""

    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(x + jnp.dot(w.T, h, precision="highest"))
        return h, h

    return lax.scan(step, h0, xw)[::-1]


def backward(dhs: jax.Array, hs: jax.Array, w: jax.Array, dh_last: jax.Array) -> Any:
    """Like `one_block.backward`."""

    def step(c: Any, given: Any) -> Any:
        dh, h = (x.astype(jnp.float32) for x in given)
        delta = (1 - h * h) * (dh + c)
        return _rounded(w, delta), delta.astype(jnp.bfloat16)

    return lax.scan(step, dh_last, (dhs, hs), reverse=True)[::-1]
