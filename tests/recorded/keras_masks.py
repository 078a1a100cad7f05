"""Records what Keras computes with a mask: python tests/recorded/keras_masks.py, with keras 3.

Gaps in the middle and padding on the left, in both directions, in float64; zero where a step does
not count (`zero_output_for_mask`), where Keras would else repeat the output before.
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np

T, B, I, H = 6, 3, 2, 4
GAPS = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 1], [1, 1, 0, 1, 1, 0]], bool)  # [B, T]
LEFT = np.arange(T) >= np.array([0, 2, 5])[:, None]


def record():
    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    rng = np.random.default_rng(0)
    xs, dhs = rng.normal(size=(B, T, I)), rng.normal(size=(B, T, H))
    weights = [rng.normal(size=shape) / 2 for shape in ((I, H), (H, H), (H,))]
    found = {"xs": xs, "dhs": dhs, **dict(zip(("w_ih", "w_hh", "b_h"), weights, strict=True))}
    for name, mask in (("gaps", GAPS), ("left", LEFT)):
        found[f"{name}.mask"] = mask
        for reverse in (False, True):
            layer = keras.layers.SimpleRNN(
                H,
                activation=jnp.tanh,  # that of Keras 3.15 rounds to float32
                return_sequences=True,
                return_state=True,
                zero_output_for_mask=True,
                go_backwards=reverse,
                dtype="float64",
            )
            layer.build((B, T, I))

            def run(weights, layer=layer, mask=mask, reverse=reverse):
                others = [v.value for v in layer.non_trainable_variables]
                (hs, last), _ = layer.stateless_call(weights, others, xs, mask=mask)
                hs = hs[:, ::-1] if reverse else hs
                return jnp.sum(hs * dhs), (hs, last)

            (_, (hs, last)), d = jax.value_and_grad(run, has_aux=True)(
                list(map(jnp.array, weights))
            )
            key = f"{name}.{'reverse' if reverse else 'forwards'}"
            found |= {f"{key}.hs": hs, f"{key}.h_last": last}
            found |= {f"{key}.d{n}": x for n, x in zip(("w_ih", "w_hh", "b_h"), d, strict=True)}
    return found


if __name__ == "__main__":
    np.savez(Path(__file__).with_suffix(".npz"), **{k: np.asarray(x) for k, x in record().items()})
