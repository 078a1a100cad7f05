"""A stack of networks as a module of flax nnx; the extra `nnx` installs flax.

    model = jrnn.nnx.Stack(input_size, [256, 256], cell="lstm", dropout=0.3, rngs=nnx.Rngs(0))
    states, hs = model(xs, lengths=lengths)

The parameters are `nnx.Param`s: `nnx.Optimizer`, `nnx.jit`, `nnx.value_and_grad`, `nnx.split` and
checkpoints treat it as a module of flax. The arrays stay time-major, `[T, B, I]`.
"""

from collections.abc import Sequence
from typing import Any

import jax

from jrnn import checks
from jrnn._stack import init_stack, options_of_calls, stack
from jrnn.extras import install
from jrnn.types import StackParams

try:
    from flax import nnx
    from flax.core import FrozenDict
except ImportError as error:
    raise ImportError(f"jrnn.nnx needs flax: {install('nnx')}") from error


def _is_param(node: Any) -> bool:
    return isinstance(node, nnx.Param)


def _array_of(node: Any) -> jax.Array:
    if not _is_param(node):
        repair = "Set jax.tree.map(nnx.Param, params)."
        checks.refuse("params", "an nnx.Param for each array", type(node).__name__, repair)
    return node[...]


class Stack(nnx.Module):
    """Layers of networks of one kind: `jrnn.stack` with its parameters.

    Attributes:
        params: the `jrnn.StackParams`, each array in an `nnx.Param`.
        dropout: p of (21), as in `jrnn.stack`.
        deterministic: True is evaluation, without dropout; `model.eval()` sets it.
        options: further options of `jrnn.stack` for every call, such as `residual=True`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int],
        *,
        rngs: nnx.Rngs,
        dropout: float = 0.0,
        options: dict[str, Any] | None = None,
        **init: Any,
    ) -> None:
        """Draw the parameters.

        Args:
            input_size: as in `jrnn.init_stack`.
            hidden_sizes: as in `jrnn.init_stack`.
            rngs: the keys, of the streams `params` and `dropout`; every call draws its dropout.
            dropout: p of (21), as in `jrnn.stack`.
            options: further options of `jrnn.stack` for every call; "leaky" layers need its cell.
            init: further options of `jrnn.init_stack`, such as `cell` and `bidirectional`. A
                `jrnn.Cell` also runs the layers.

        Raises:
            ValueError: no `nnx.Rngs`, what `jrnn.init_stack` refuses, leaky layers without a cell
                in options, or options or a dropout that `jrnn.stack` would refuse in training.
        """
        if not isinstance(rngs, nnx.Rngs):
            came = type(rngs).__name__
            checks.refuse("rngs", "the keys of flax", came, "nnx.Rngs(0) makes them.")
        key = rngs.params()
        params = init_stack(key, input_size, hidden_sizes, **init)
        every_call = options_of_calls(params, init, options, dropout, key)
        self.params = nnx.data(jax.tree.map(nnx.Param, params))
        self.rngs: Any = rngs.dropout.fork() if dropout else None
        self.dropout, self.deterministic = dropout, False
        # Static attributes must have a hash, for `jax.jit`; a dict and a list have none.
        self.options = nnx.static(
            FrozenDict({k: tuple(x) if type(x) is list else x for k, x in every_call.items()})
        )

    def __call__(
        self, xs: Any, states: Any = None, **given: Any
    ) -> tuple[tuple[Any, ...], jax.Array]:
        """Run the stack.

        Args:
            xs: `[T, B, I]` or `[T, I]` inputs, or `[T, B]` or `[T]` ids, as in `jrnn.stack`.
            states: the states before the first step, `h0` of `jrnn.stack`; None is zeros.
            given: further arguments of `jrnn.stack`, such as `lengths`.

        Returns:
            `(states, hs)` as `jrnn.stack`.

        Raises:
            ValueError: what `jrnn.stack` refuses, or dropout that was set afterwards.
        """
        drops = self.dropout and not self.deterministic
        if drops and self.rngs is None:
            repair = "Give it to the constructor, which takes its random numbers from rngs."
            checks.refuse("dropout", "0, as at the beginning", self.dropout, repair)
        key = self.rngs() if drops else None
        given = {**self.options, **given}
        return stack(self.pure(), xs, states, key=key, dropout=self.dropout, **given)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Called by `nnx.view`, for its copy of the module.

        Args:
          deterministic: True is evaluation, without dropout; None changes nothing.
        """  # nnx.view_info reads this indentation only
        if deterministic is not None:
            self.deterministic = deterministic

    def pure(self) -> StackParams:
        """The parameters for functions of jrnn.

        Returns:
            `jrnn.StackParams` of arrays.

        Raises:
            ValueError: arrays that are no `nnx.Param`, which no optimiser would see.
        """
        return jax.tree.map(_array_of, self.params, is_leaf=_is_param)
