"""A stack of networks as a module of equinox; the extra `equinox` installs it.

    model = jrnn.equinox.Stack(input_size, [256, 256], cell="lstm", dropout=0.3, key=key)
    states, hs = model(xs, lengths=lengths, key=key)

Its arrays are leaves of the module, so `eqx.filter_jit`, `eqx.filter_grad`, `eqx.partition` and
`eqx.tree_serialise_leaves` treat it as equinox's own modules. Unlike these it takes a batch,
time-major, `[T, B, I]`; `[T, I]` and `jax.vmap` work, too, at the same speed.
"""

from collections.abc import Sequence
from typing import Any

import jax

from jrnn._stack import init_stack, options_of_calls, stack
from jrnn.checks import refuse
from jrnn.extras import install
from jrnn.types import StackParams

try:
    import equinox as eqx
except ImportError as error:
    raise ImportError(f"jrnn.equinox needs equinox: {install('equinox')}") from error


class Stack(eqx.Module):
    """Layers of networks of one kind: `jrnn.stack` with its parameters.

    Attributes:
        params: the `jrnn.StackParams`, for functions of jrnn.
        dropout: p of (21), as in `jrnn.stack`.
        inference: True is evaluation, without dropout; `eqx.nn.inference_mode(model)` sets it.
        options: further options of `jrnn.stack` for every call, such as `residual=True`.
    """

    params: StackParams
    dropout: float = eqx.field(static=True)
    inference: bool
    options: dict[str, Any] = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int],
        *,
        key: jax.Array,
        dropout: float = 0.0,
        options: dict[str, Any] | None = None,
        **init: Any,
    ) -> None:
        """Draw the parameters.

        Args:
            input_size: as in `jrnn.init_stack`.
            hidden_sizes: as in `jrnn.init_stack`.
            key: a JAX random key.
            dropout: p of (21), as in `jrnn.stack`.
            options: further options of `jrnn.stack` for every call; "leaky" layers need its cell.
            init: further options of `jrnn.init_stack`, such as `cell` and `bidirectional`. A
                `jrnn.Cell` also runs the layers.

        Raises:
            ValueError: what `jrnn.init_stack` refuses, leaky layers without a cell in options, or
                options or a dropout that `jrnn.stack` would refuse in training.
        """
        self.params = init_stack(key, input_size, hidden_sizes, **init)
        self.dropout, self.inference = dropout, False
        self.options = options_of_calls(self.params, init, options, dropout, key)

    def __call__(
        self, xs: Any, states: Any = None, *, key: jax.Array | None = None, **given: Any
    ) -> tuple[tuple[Any, ...], jax.Array]:
        """Run the stack.

        Args:
            xs: `[T, B, I]` or `[T, I]` inputs, or `[T, B]` or `[T]` ids, as in `jrnn.stack`.
            states: the states before the first step, `h0` of `jrnn.stack`; None is zeros.
            key: a JAX random key for dropout; it must be there where dropout is.
            given: further arguments of `jrnn.stack`, such as `lengths`.

        Returns:
            `(states, hs)` as `jrnn.stack`.

        Raises:
            ValueError: what `jrnn.stack` refuses, or dropout without a key.
        """
        drops = self.dropout and not self.inference
        if drops and key is None:
            repair = "Pass one, or evaluate `eqx.nn.inference_mode(model)`."
            refuse("key", "a JAX random key, for dropout", "None", repair)
        options = self.options | given
        return stack(
            self.params, xs, states, key=key if drops else None, dropout=self.dropout, **options
        )
