"""Splitting a recurrent network over devices: a model of its cost, and measurements to check it.

    python -m docs.scaling                          # the tables of docs/scaling.md
    taskset -c 0 python -m docs.scaling --measure   # seconds on one core
    python -m docs.scaling --measure                # and on two devices

Equations (S1)-(S8) are in docs/scaling.md. Units are seconds, bytes and FLOP, in float32.
"""

import argparse
from pprint import pprint
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jrnn
from benchmarks import machine
from benchmarks.cases import CASES
from benchmarks.measuring import Program, compile_program, time_in_turn
from benchmarks.report import table
from jrnn import parallel

FLOAT32 = 4  # bytes
PAYS = 0.75  # the efficiency from which splitting pays
POWERS = [2**k for k in range(1, 21)]  # the numbers of devices, B and K that are tried
HIDDEN = "hidden"  # the axis of a mesh
COLUMNS = (P(None, HIDDEN), P(None, HIDDEN), P(HIDDEN))  # of w_ih, w_hh, b_h


# --- one device ----------------------------------------------------------------------------------


class Shape(NamedTuple):
    """A recurrence, with a readout if O is not 0."""

    T: int  # time
    B: int  # batch
    I: int  # input
    H: int  # hidden
    O: int = 0  # output
    inputs: int = 2  # products with w_ih: 2, 0 of token ids, 3 with the dx of a layer below

    def parameter_bytes(self) -> int:
        """(S1)."""
        I, H, O = self.I, self.H, self.O
        return FLOAT32 * (I * H + H * H + H + (H * O + O if O else 0))

    def loop_flops(self) -> int:
        """The product with w_hh in one time step of one pass, which is sequential."""
        return 2 * self.B * self.H**2

    def other_flops(self) -> int:
        """The products of a training step that handle many time steps at once."""
        T, B, I, H, O, inputs = self
        return 2 * T * B * (H * H + inputs * I * H + 3 * H * O)

    def flops(self) -> int:
        """All products of a training step."""
        return 2 * self.T * self.loop_flops() + self.other_flops()


class Device(NamedTuple):
    """A device."""

    name: str
    flops: float  # per second
    memory: float  # bytes per second
    cache: float  # bytes: weights that fit stay on the chip between time steps
    step: float  # seconds per time step, both passes, that no split reduces


def loop_step(shape: Shape, device: Device, n: int = 1) -> float:
    """(S2): one product with 1/n of w_hh, limited by arithmetic or by reading the weights."""
    weights = FLOAT32 * shape.H**2 / n
    read = weights / device.memory if weights > device.cache else 0.0
    return max(shape.loop_flops() / n / device.flops, read)


def alone(shape: Shape, device: Device, n: int = 1) -> float:
    """(S3): a training step on one device; or on each of n, with 1/n of every matrix's columns."""
    loops = 2 * shape.T * loop_step(shape, device, n)
    return shape.T * device.step + loops + shape.other_flops() / n / device.flops


# --- several devices -----------------------------------------------------------------------------


class Link(NamedTuple):
    """A link between devices."""

    name: str
    device: Device
    bandwidth: float  # bytes per second in each direction
    base: float  # seconds per collective, for any size and number of devices
    hop: float  # seconds from one device to the next
    most: int  # the largest number of devices

    def all_reduce(self, n: int, size: float) -> float:
        """(S4), a ring: a reduce-scatter, then an all-gather."""
        return self.base + 2 * (n - 1) * self.hop + all_reduce_bytes(n, size) / self.bandwidth

    def all_gather(self, n: int, size: float) -> float:
        """(S5); a reduce-scatter takes the same time."""
        return self.base + (n - 1) * self.hop + all_gather_bytes(n, size) / self.bandwidth

    def send(self, size: float) -> float:
        """Seconds to send `size` bytes to the next device."""
        return self.base + self.hop + size / self.bandwidth


def all_reduce_bytes(n: int, size: float) -> float:
    """Bytes that each device sends to sum an array of `size` bytes."""
    return 2 * all_gather_bytes(n, size)


def all_gather_bytes(n: int, size: float) -> float:
    """Bytes that each device sends to gather an array of `size` bytes from parts of 1/n."""
    return (n - 1) / n * size


def batch(shape: Shape, link: Link, n: int) -> float:
    """(S6): `shape.B` sequences on each of n devices, and one all-reduce of the gradients."""
    return alone(shape, link.device) + link.all_reduce(n, shape.parameter_bytes())


def hidden(shape: Shape, link: Link, n: int) -> float:
    """(S7): columns of w_hh split over n devices; each step of each pass exchanges [B, H]."""
    exchange = link.all_gather(n, FLOAT32 * shape.B * shape.H)
    return alone(shape, link.device, n) + 2 * shape.T * exchange


def layers(layer: Shape, link: Link, L: int, K: int) -> float:
    """(S8): one layer on each of L devices, which pass on the states of K time steps at a time."""
    ticks = layer.T // K + L - 1
    handed_on = 2 * link.send(FLOAT32 * K * layer.B * layer.H)  # states up, cotangents down
    return ticks * (alone(layer, link.device) * K / layer.T + handed_on)


# --- values, with their sources ------------------------------------------------------------------

# matmul of 8192^3 and row 5: benchmarks/results/h100_2026-11-26; memory, L2: NVIDIA's white paper
H100 = Device("H100", 405e12, 3.35e12, 50e6, 5.8e-6)
# docs.cloud.google.com/tpu/docs/v5e, not measured; 1 us per operation of a time step is assumed
V5E = Device("TPU v5e", 197e12, 819e9, 128e6, 4e-6)
# base and hop of the H100: NVIDIA/nccl at b6475625, src/graph/tuning.cc, ring, LL
LINKS = [
    Link("NVLink 4", H100, 370e9, 6.6e-6, 0.6e-6, 8),  # NVIDIA/nccl issue 1442
    Link("PCIe 5.0 x16", H100, 64e9, 6.6e-6, 1e-6, 8),  # the white paper
    Link("InfiniBand NDR", H100, 47e9, 6.6e-6, 2.7e-6, 1024),  # NVIDIA/nccl-tests issue 290
    Link("100 Gb Ethernet", H100, 12.5e9, 6.6e-6, 20e-6, 1024),  # TCP, 10 to 30 us (Kentino)
    Link("ICI, one axis", V5E, 50e9, 0.0, 1e-6, 16),  # jax-ml/scaling-book; base unknown
]
KERNEL = Shape(*CASES[2])
CHARACTER = Shape(64, 32, 104, 256, 104, inputs=0)
WIDTHS = (256, 1024)  # H of the measured hidden splits

# the gradient in float32 by row, in ms: benchmarks/results/h100_2026-11-26
ON_H100 = {1: 0.959, 2: 3.35, 3: 5.37, 4: 1.47, 5: 5.94, 6: 2.93}


# --- tables --------------------------------------------------------------------------------------


def answers_table() -> str:
    """From which size each split has an efficiency of `PAYS`, for each link."""
    shape = KERNEL._replace(H=1024)
    rows = []
    for link in LINKS:
        t = alone(shape, link.device)
        most = [n for n in POWERS if n <= link.most and t / batch(shape, link, n) >= PAYS]
        B = next(B for B in POWERS if halved_batch(shape._replace(B=B), link) >= PAYS)
        H = next(H for H in range(64, 2**16, 64) if halved_units(shape._replace(H=H), link) >= PAYS)
        efficiency, K = best_chunk(shape._replace(I=shape.H, inputs=3), link)
        found = [f"{max(most)}", f"{B:,}", f"{H:,}", f"{efficiency:.2f} (K = {K})"]
        rows.append([f"{link.name}, {link.device.name}", *found])
    header = ["growing batch: devices", "fixed batch: B from", "hidden units: H from", "4 layers"]
    return table(["link", *header], rows)


def halved_batch(shape: Shape, link: Link) -> float:
    """The efficiency of two devices with half of the batch each."""
    half = shape._replace(B=shape.B // 2)
    return alone(shape, link.device) / (2 * batch(half, link, 2))


def halved_units(shape: Shape, link: Link) -> float:
    """The efficiency of two devices with half of the hidden units each."""
    return alone(shape, link.device) / (2 * hidden(shape, link, 2))


def best_chunk(layer: Shape, link: Link) -> tuple[float, int]:
    """The highest efficiency of a wavefront over 4 layers, and its K."""
    t = alone(layer, link.device)
    return max((t / layers(layer, link, 4, K), K) for K in POWERS if K <= layer.T)


def h100_table() -> str:
    """One H100: (S3) against the measurement."""
    times = [alone(Shape(*CASES[row]), H100) * 1e3 for row in ON_H100]
    model = ["model", *(f"{t:.2f}" for t in times)]
    measured = ["measured", *(f"{t:.2f}" for t in ON_H100.values())]
    return table(["row", *map(str, ON_H100)], [model, measured])


# --- measurements --------------------------------------------------------------------------------


def hidden_split(params: jrnn.RNNParams, xs: jax.Array, mesh: Mesh) -> jax.Array:
    """The states of a tanh RNN whose hidden units are split over a mesh with one axis, "hidden".

    Each device has the columns of w_ih, w_hh and b_h of its units. It needs all units of the
    previous step: an all-gather of [B, H] in every forward time step, a reduce-scatter in every
    backward one.
    """

    def on_one_device(columns: Any, xs: jax.Array) -> jax.Array:
        w_ih, w_hh, b_h = columns

        def step(h: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
            part = jnp.tanh(u + h @ w_hh)  # [B, H / n]
            return lax.all_gather(part, HIDDEN, axis=1, tiled=True), part

        h0 = lax.pcast(jnp.zeros((xs.shape[1], len(w_hh)), xs.dtype), HIDDEN, to="varying")
        return lax.scan(step, h0, xs @ w_ih + b_h)[1]

    out = P(None, None, HIDDEN)
    split = jax.shard_map(on_one_device, mesh=mesh, in_specs=(COLUMNS, P()), out_specs=out)
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
        losses = hs * hs
        if O:
            losses = jrnn.softmax_cross_entropy(jrnn.readout(params[1], hs), batch[1])
        return parallel.mean(losses, losses.size), h_last

    mesh, along = parallel.batch_mesh(), P(None, parallel.BATCH)
    split = parallel.split_value_and_grad(jax.value_and_grad(cost, has_aux=True), mesh, along)
    params, key = put(mesh, (params, keys[0]), P())
    h0 = put(mesh, jnp.zeros((B, H)), P(parallel.BATCH))
    return compile_program(name, split, (params, h0, put(mesh, (xs, ids), along), key), tuple)


def put(mesh: Mesh, arrays: Any, spec: Any) -> Any:
    """Put arrays where a call needs them; otherwise every call would move them."""
    return jax.device_put(arrays, NamedSharding(mesh, spec))


def split_loop(name: str, shape: Shape) -> Program:
    """A forward loop, with its hidden units split over all devices; w_ih is not measured: I = 1."""
    mesh = hidden_mesh(jax.device_count())
    params = jrnn.init_rnn(jax.random.key(0), 1, shape.H)
    columns = jrnn.RNNParams(*(put(mesh, p, spec) for p, spec in zip(params, COLUMNS, strict=True)))
    xs = put(mesh, jnp.ones((shape.T, shape.B, 1)), P())
    return compile_program(name, lambda p, xs: hidden_split(p, xs, mesh), (columns, xs), tuple)


def programs() -> list[Program]:
    """The programs, over all devices of this process."""
    return [
        gradient("batch: character model", CHARACTER),
        gradient("batch: row 2", KERNEL),
        *(split_loop(f"hidden: H = {H:,}", KERNEL._replace(T=64, H=H)) for H in WIDTHS),
    ]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.scaling", description="Tables of the model, or times to check it."
    )
    parser.add_argument("--measure", action="store_true", help="on the cores of this process")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print every table, or measure."""
    if not parse(argv).measure:
        print(answers_table(), h100_table(), sep="\n\n")
        return
    parallel.use_cpu_cores()
    times = time_in_turn(programs(), rounds=9)
    print(machine.description())
    pprint({name: f"{1e3 * min(t):.3g} ms" for name, t in times.items()}, sort_dicts=False)


if __name__ == "__main__":
    main()
