"""Measurements to check `benchmarks.scaling_model`, on the cores of this process.

    taskset -c 0 python -m benchmarks.scaling_measured
    python -m benchmarks.scaling_measured

It prints a dict of seconds. On one core: the gradient of two shapes with the whole batch and half
of it, and a loop of time steps with all columns of w_hh and half of them. On two devices: the same
work split, and the exchanges only.
"""

import argparse
from collections.abc import Callable
from pprint import pprint
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jrnn
from benchmarks import machine
from benchmarks.measuring import Program, compile_program, time_in_turn
from benchmarks.scaling_model import CHARACTER, KERNEL, LOOPS, Shape
from jrnn import parallel

HIDDEN = "hidden"
COLUMNS = (P(None, HIDDEN), P(None, HIDDEN), P(HIDDEN))  # of w_ih, w_hh, b_h
EXCHANGES = 100  # per program, to reduce the overhead of a call to a hundredth


def hidden_split(params: jrnn.RNNParams, xs: jax.Array, mesh: Mesh) -> jax.Array:
    """The states of a tanh RNN whose hidden units are split over a mesh with one axis, "hidden".

    Each device has the columns of w_ih, w_hh and b_h of its units. It needs all units of the
    previous step: an all-gather of [B, H] in every forward time step, a reduce-scatter in every
    backward one.

    Args:
        params: from `init_rnn`.
        xs: `[T, B, I]`.
        mesh: from `hidden_mesh`; its devices divide H.

    Returns:
        `[T, B, H]`, split along H.
    """

    def on_one_device(columns: Any, xs: jax.Array) -> jax.Array:
        w_ih, w_hh, b_h = columns

        def step(h: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
            part = jnp.tanh(u + h @ w_hh)  # [B, H / n]
            return lax.all_gather(part, HIDDEN, axis=1, tiled=True), part

        h0 = lax.pcast(jnp.zeros((xs.shape[1], len(w_hh)), xs.dtype), HIDDEN, to="varying")
        return lax.scan(step, h0, xs @ w_ih + b_h)[1]

    split = jax.shard_map(
        on_one_device, mesh=mesh, in_specs=(COLUMNS, P()), out_specs=P(None, None, HIDDEN)
    )
    return split(tuple(params), xs)


def hidden_mesh(n: int) -> Mesh:
    """A mesh of the first n devices."""
    return jax.make_mesh((n,), (HIDDEN,), (AxisType.Auto,), devices=jax.devices()[:n])


def gradient(name: str, shape: Shape) -> Program:
    """Cost and gradient, with the batch split over all devices."""
    T, B, I, H, O, inputs = shape
    keys = jax.random.split(jax.random.key(0), 4)
    params = jrnn.init_rnn(keys[0], I, H), jrnn.init_readout(keys[1], H, O) if O else None
    ids = jax.random.randint(keys[2], (T, B), 0, O or 2)
    xs = jax.random.normal(keys[3], (T, B, I)) if inputs else ids

    def cost(params: Any, h0: Any, batch: Any, key: Any) -> Any:
        h_last, hs = jrnn.rnn(params[0], batch[0], h0)
        if O:
            logits = jrnn.readout(params[1], hs)
            losses = jrnn.softmax_cross_entropy(logits, batch[1])
        else:
            losses = hs * hs
        return parallel.mean(losses.sum(), losses.size), h_last

    mesh, of_time_and_batch = parallel.batch_mesh(), P(None, parallel.BATCH)
    split = parallel.split_value_and_grad(
        jax.value_and_grad(cost, has_aux=True), mesh, of_time_and_batch
    )
    params, key = put(mesh, (params, keys[0]), P())
    h0 = put(mesh, jnp.zeros((B, H)), P(parallel.BATCH))
    return compiled(name, split, params, h0, put(mesh, (xs, ids), of_time_and_batch), key)


def put(mesh: Mesh, arrays: Any, spec: Any) -> Any:
    """Put arrays where a call needs them; otherwise every call would move them."""
    return jax.device_put(arrays, NamedSharding(mesh, spec))


def loop(name: str, shape: Shape, columns: int) -> Program:
    """A forward loop on one device with some columns of w_hh, such as the part of one device."""
    T, B, _, H, *_ = shape
    w_hh = 0.5 * jax.random.orthogonal(jax.random.key(0), H)[:, :columns]

    def states(w_hh: jax.Array, us: jax.Array) -> jax.Array:
        def step(h: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
            part = jnp.tanh(u + h @ w_hh)
            return jnp.concatenate([part] * (H // columns), 1), part

        return lax.scan(step, jnp.zeros((B, H)), us)[1]

    return compiled(name, states, w_hh, jnp.ones((T, B, columns)))


def split_loop(name: str, shape: Shape, mesh: Mesh) -> Program:
    """The same loop on all devices; I = 1, because w_ih is not measured."""
    params = jrnn.init_rnn(jax.random.key(0), 1, shape.H)
    columns = jrnn.RNNParams(*(put(mesh, p, spec) for p, spec in zip(params, COLUMNS, strict=True)))
    xs = put(mesh, jnp.ones((shape.T, shape.B, 1)), P())
    return compiled(name, lambda p, xs: hidden_split(p, xs, mesh), columns, xs)


def exchange(name: str, mesh: Mesh, step: Callable[[jax.Array], jax.Array], x: Any) -> Program:
    """Repeat `step` on every device."""

    def on_one_device(x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, EXCHANGES, lambda _, x: step(x), x)

    split = jax.shard_map(on_one_device, mesh=mesh, in_specs=P(HIDDEN), out_specs=P(HIDDEN))
    return compiled(name, split, put(mesh, x, P(HIDDEN)))


def exchanges(mesh: Mesh) -> list[Program]:
    """The sums of gradients, and the all-gathers of states."""
    n = jax.device_count()

    def psum(x: jax.Array) -> jax.Array:
        return lax.pcast(lax.psum(x, HIDDEN) / n, HIDDEN, to="varying")

    def all_gather(x: jax.Array) -> jax.Array:  # and take this device's part again
        whole = lax.all_gather(x, HIDDEN, axis=1, tiled=True)
        return lax.dynamic_slice_in_dim(whole, 0, x.shape[1], 1)

    sizes = [4, CHARACTER.parameter_bytes(), KERNEL.parameter_bytes()]
    found = [exchange(f"psum {s}", mesh, psum, jnp.ones((n, s // 4))) for s in sizes]
    for H, shape in LOOPS.items():
        parts = jnp.ones((n * shape.B, H // n))
        found.append(exchange(f"all_gather {H}", mesh, all_gather, parts))
    return found


def compiled(name: str, function: Callable[..., Any], *args: Any) -> Program:
    """A compiled program; the tests compare its results."""
    return compile_program(name, function, args, lambda result: {"result": result})


def programs() -> list[Program]:
    """The programs for one core, or for several devices."""
    shapes = {"character model": CHARACTER, "kernel row": KERNEL}
    found = [gradient(name, shape) for name, shape in shapes.items()]
    if jax.device_count() > 1:
        mesh = hidden_mesh(jax.device_count())
        found += [split_loop(f"loop {H}", shape, mesh) for H, shape in LOOPS.items()]
        return found + exchanges(mesh)
    for name, shape in shapes.items():
        found.append(gradient(f"{name}, half", shape._replace(B=shape.B // 2)))
    for H, shape in LOOPS.items():
        found += [loop(f"loop {H}", shape, H), loop(f"loop {H}, half", shape, H // 2)]
    return found


def main(argv: list[str] | None = None) -> None:
    """Print the minima."""
    parser = argparse.ArgumentParser(description="Seconds, to be copied into scaling_model.py.")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every program")
    rounds = parser.parse_args(argv).rounds
    parallel.use_cpu_cores()
    seconds = {name: times.minimum for name, times in time_in_turn(programs(), rounds).items()}
    for name in seconds:
        if name.startswith(("psum", "all_gather")):
            seconds[name] /= EXCHANGES
    print(machine.sentence(machine.description()))
    pprint({name: float(f"{s:.4g}") for name, s in seconds.items()}, sort_dicts=False)


if __name__ == "__main__":
    main()
