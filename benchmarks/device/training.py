"""The character model's training step on this device, in characters per second.

Programs, data and turns are those of `benchmarks.train_step`, on one device.
"""

import time
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks.device.runner import Context, LeftOutError, words
from benchmarks.rivals import available, load

try:
    from benchmarks import train_step
    from benchmarks.train_step import TOLERANCES, check_losses, one_round, record, training_chunks
except ImportError as error:  # from examples/char_model, which needs an extra
    raise LeftOutError(str(error)) from None

ROUNDS = 60
ROW_SECONDS = 15  # for the turns of one row


def training(context: Context) -> Iterator[dict[str, Any] | str]:
    """Yield a record per row and program."""
    wanted = [r for r in context.options["rivals"] if r in train_step.RIVALS]
    rivals, lines = available(wanted)
    yield from lines
    for row in [1] if context.options["toy"] else list(train_step.LENGTHS):
        if context.left() <= 0:
            yield f"Left out for lack of time: row {row}."
            continue
        yield from of_row(context, row, rivals)


def of_row(context: Context, row: int, rivals: list[str]) -> Iterator[dict[str, Any] | str]:
    """Run the first step of each program, which compiles it; then time them in turn."""
    args = train_step.recipe(context.options["toy"], row)
    model, data = train_step.model_and_chunks(args)
    source = training_chunks(data.streams, args.length)
    batch, first = next(source)
    running: dict[str, Any] = {}
    losses: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}
    for rival in ["", *rivals]:
        if context.left() <= 0:
            yield f"row {row}: {rival or 'jrnn'} is left out for lack of time."
            continue
        try:
            device = load("torch").device_like_jax() if rival == "torch" else "cpu"
            found = train_step.programs(model, args, [rival] if rival else [], device)
            for name in [name for name in found if name not in running]:
                seconds[name] = []
                losses |= one_round({name: found[name]}, batch, first, 0, seconds)
                check_losses({"jrnn": losses["jrnn"], name: losses[name]}, 0, exact())
                running[name] = found[name]
        except Exception as error:
            yield f"row {row}: {rival or 'jrnn'} is left out: {words(error)}"
            if not running:
                return
    start = time.monotonic()
    for n in range(1, 1 + len(TOLERANCES) if context.options["toy"] else ROUNDS):
        if n > len(TOLERANCES) and (context.left() <= 0 or time.monotonic() - start > ROW_SECONDS):
            break
        batch, first = next(source)
        losses = one_round(running, batch, first, n, seconds)
        for name in list(running) if n < len(TOLERANCES) else []:
            try:
                check_losses({"jrnn": losses["jrnn"], name: losses[name]}, n, exact())
            except ValueError as error:
                yield f"row {row}: {name} is left out: {error}"
                del running[name]
    for name in running:
        yield record(row, args, name, seconds[name])


def exact() -> bool:
    """Whether a float32 matmul has full precision here by default."""
    return jax.default_backend() == "cpu"
