"""A model of the cost of splitting a recurrent network over devices: docs/scaling.md.

    python -m benchmarks.scaling_model

Equations (S1)-(S9) are in docs/scaling.md. Units are seconds, bytes and FLOP, in float32. Published
values have their source in `SOURCES`, assumed values are marked, and `MEASURED` holds runs of
`benchmarks.scaling_measured`.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.report import table

FLOAT32 = 4  # bytes
PAYS = 0.75  # the efficiency from which splitting pays
WIDTHS = (256, 1024, 4096)  # H
WIDEST = 32_768  # the largest H considered
INF = math.inf


# --- a training step on one device ---------------------------------------------------------------


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
        """(S2)."""
        return 2 * self.T * self.loop_flops() + self.other_flops()


class Device(NamedTuple):
    """A device."""

    name: str
    flops: float  # per second
    memory: float  # bytes per second
    cache: float  # bytes: weights that fit stay on the chip between time steps
    step: float  # seconds per time step, both passes, that no split reduces
    published: str


def loop_step(shape: Shape, device: Device, n: int = 1) -> float:
    """(S3): one product with 1/n of w_hh, limited by arithmetic or by reading the weights."""
    weights = FLOAT32 * shape.H**2 / n
    read = weights / device.memory if weights > device.cache else 0.0
    return max(shape.loop_flops() / n / device.flops, read)


def alone(shape: Shape, device: Device) -> float:
    """(S4): a training step on one device."""
    return split_compute(shape, device, 1)


def split_compute(shape: Shape, device: Device, n: int) -> float:
    """(S4) with the columns of every matrix split over n devices, without the exchange."""
    loops = 2 * shape.T * loop_step(shape, device, n)
    return shape.T * device.step + loops + shape.other_flops() / n / device.flops


# --- links ---------------------------------------------------------------------------------------


class Link(NamedTuple):
    """A link between devices."""

    name: str
    device: Device
    bandwidth: float  # bytes per second in each direction
    base: float  # seconds per collective, for any size and number of devices
    hop: float  # seconds from one device to the next
    most: int  # the largest number of devices
    published: str
    latency: str

    def all_reduce(self, n: int, size: float) -> float:
        """(S5), a ring: a reduce-scatter, then an all-gather."""
        return self.base + 2 * (n - 1) * self.hop + all_reduce_bytes(n, size) / self.bandwidth

    def all_gather(self, n: int, size: float) -> float:
        """(S6); a reduce-scatter takes the same time."""
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


# --- the ways to split ---------------------------------------------------------------------------


def batch(shape: Shape, link: Link, n: int) -> float:
    """(S7): `shape.B` sequences on each of n devices, and one all-reduce of the gradients."""
    return alone(shape, link.device) + link.all_reduce(n, shape.parameter_bytes())


def hidden(shape: Shape, link: Link, n: int) -> float:
    """(S8): columns of w_hh split over n devices; each step of each pass exchanges [B, H]."""
    exchange = link.all_gather(n, FLOAT32 * shape.B * shape.H)
    return split_compute(shape, link.device, n) + 2 * shape.T * exchange


def layers(layer: Shape, link: Link, L: int, K: int) -> float:
    """(S9): one layer on each of L devices, which pass on the states of K time steps at a time."""
    ticks = layer.T // K + L - 1
    handed_on = 2 * link.send(FLOAT32 * K * layer.B * layer.H)  # states up, cotangents down
    return ticks * (alone(layer, link.device) * K / layer.T + handed_on)


def best_chunk(layer: Shape, link: Link, L: int) -> tuple[int, float]:
    """The K (a power of two) with the highest efficiency, and this efficiency."""
    seconds = {K: layers(layer, link, L, K) for K in powers_of_two(1, layer.T)}
    K = min(seconds, key=lambda k: seconds[k])
    return K, alone(layer, link.device) / seconds[K]


def powers_of_two(first: int, last: int) -> Iterator[int]:
    """first, 2 * first, ... up to last."""
    while first <= last:
        yield first
        first *= 2


# --- published, assumed and measured values ------------------------------------------------------

# From `benchmarks.scaling_measured`: seconds, minima of five runs on one core and three on two.
MEASURED: dict[str, dict[str, float]] = {
    "one core": {
        "character model": 0.01558,
        "kernel row": 0.1229,
        "character model, half": 0.008688,
        "kernel row, half": 0.05552,
        "loop 256": 0.003331,
        "loop 256, half": 0.001531,
        "loop 1024": 0.1003,
        "loop 1024, half": 0.03184,
    },
    "two devices": {
        "character model": 0.009865,
        "kernel row": 0.06635,
        "loop 256": 0.005504,
        "loop 1024": 0.04607,
        "psum 4": 1.29e-05,
        "psum 476576": 0.0001513,
        "psum 394240": 0.0001228,
        "all_gather 256": 3.095e-05,
        "all_gather 1024": 7.788e-05,
    },
}
CHARACTER = Shape(64, 32, 104, 256, 104, inputs=0)
KERNEL = Shape(512, 32, 128, 256)
LOOPS = {H: Shape(64, 32, 0, H) for H in (256, 1024)}  # forward, only the loop


def measured_link() -> Link:
    """Two CPU devices: base and bandwidth of psums of 4 bytes and of the kernel row's gradients."""
    one, two = MEASURED["one core"], MEASURED["two devices"]
    size = KERNEL.parameter_bytes()
    bandwidth = all_reduce_bytes(2, size) / (two[f"psum {size}"] - two["psum 4"])
    flops = KERNEL.flops() / one["kernel row"]
    core = Device("one CPU core", flops, INF, INF, 0.0, "measured, kernel row")
    return Link("two CPU devices", core, bandwidth, two["psum 4"], 0.0, 2, "measured", "measured")


H100 = Device("H100 SXM, TF32", 495e12, 3.35e12, 50e6, 10e-6, "[1]; 5.0 kernels of 2 us: assumed")
V5E = Device("TPU v5e, bf16 products", 197e12, 819e9, 128e6, 4e-6, "[2] [3]; 1 us each: assumed")
LINKS = [
    Link("NVLink 4", H100, 370e9, 6.6e-6, 0.6e-6, 8, "900 GB/s both ways [1]; used: [4]", "[5]"),
    Link("PCIe 5.0 x16", H100, 64e9, 6.6e-6, 1e-6, 8, "128 GB/s both ways [1]", "[5]"),
    Link("InfiniBand NDR", H100, 47e9, 6.6e-6, 2.7e-6, 1024, "400 Gb/s; used: [6]", "[5]"),
    Link("100 Gb Ethernet, TCP", H100, 12.5e9, 6.6e-6, 20e-6, 1024, "its name", "10 to 30 us [7]"),
    Link("ICI, one axis", V5E, 50e9, 0.0, 1e-6, 16, "1,600 Gb/s a chip, 4 ports [2] [3]", "[3]"),
]


# --- tables --------------------------------------------------------------------------------------


def number(value: float, unit: float = 1) -> str:
    """Format a number with three digits."""
    return f"{float(f'{value / unit:.3g}'):,g}"


def devices_table() -> str:
    """The table of devices."""
    found = [measured_link().device, H100, V5E]
    rows = [
        [
            d.name,
            number(d.flops, 1e12),
            "" if d.memory == INF else number(d.memory, 1e9),
            "" if d.cache == INF else number(d.cache, 1e6),
            number(d.step, 1e-6),
            d.published,
        ]
        for d in found
    ]
    header = ["device", "TFLOP/s", "memory GB/s", "on chip MB", "us per time step", "source"]
    return table(header, rows)


def links_table() -> str:
    """The table of links."""
    rows = [
        [
            link.name,
            number(link.bandwidth, 1e9),
            number(link.base, 1e-6),
            number(link.hop, 1e-6),
            link.published,
            link.latency,
        ]
        for link in [measured_link(), *LINKS]
    ]
    return table(["link", "GB/s used", "base us", "hop us", "bandwidth", "latency"], rows)


def moved_table() -> str:
    """The table of bytes that a device sends."""
    n, L, K = 8, 4, 32
    shapes = [KERNEL._replace(H=H) for H in WIDTHS]
    state = [FLOAT32 * s.B * s.H for s in shapes]
    T = KERNEL.T
    sent: dict[str, tuple[str, list[float]]] = {
        "batch": ("1", [all_reduce_bytes(n, s.parameter_bytes()) for s in shapes]),
        "hidden": (f"2T = {2 * T:,}", [2 * T * all_gather_bytes(n, size) for size in state]),
        f"layers, K = {K}": (f"2T / K = {2 * T // K}", [2 * T * size for size in state]),
    }
    rows = []
    for way, (meetings, sizes) in sent.items():
        cells = [f"{number(size / T, 1e3)} kB, {number(size, 1e6)} MB" for size in sizes]
        rows.append([way, n if way in ("batch", "hidden") else L, meetings, *cells])
    return table(["split", "devices", "meetings", *(f"H = {H:,}" for H in WIDTHS)], rows)


def batch_table() -> str:
    """The largest number of devices at which a growing batch pays, with 32 sequences on each."""
    shapes = [KERNEL._replace(T=T, H=H) for T in (64, 512) for H in WIDTHS]
    rows = [[link.name, *(most_devices(s, link) for s in shapes)] for link in LINKS]
    return table(["link", *(f"T = {s.T}, H = {s.H:,}" for s in shapes)], rows)


def most_devices(shape: Shape, link: Link) -> str:
    """The largest number of devices, a power of two up to `link.most`."""
    t = alone(shape, link.device)
    found = [n for n in powers_of_two(2, link.most) if t / batch(shape, link, n) >= PAYS]
    return f"{max(found):,}" if found else "-"


def whole_batch_table() -> str:
    """The smallest batch for which n devices take less than 1 / (PAYS n) of the time of one."""
    points = [(H, n) for H in WIDTHS for n in (2, 8)]
    rows = [[link.name, *(least_batch(link, H, n) for H, n in points)] for link in LINKS]
    return table(["link", *(f"H = {H:,}, n = {n}" for H, n in points)], rows)


def least_batch(link: Link, H: int, n: int) -> str:
    """The smallest batch, a power of two."""
    for B in powers_of_two(n, 2**20):
        whole, part = (KERNEL._replace(B=b, H=H) for b in (B, B // n))
        if alone(whole, link.device) / (n * batch(part, link, n)) >= PAYS:
            return f"{B:,}"
    return "-"


def hidden_table() -> str:
    """The H from which the hidden split is faster than one device, and from which it pays."""
    points = [(32, 2), (32, 8), (256, 2), (256, 8)]
    rows = []
    for link in [measured_link(), *LINKS]:
        cells = []
        for B, n in points:
            least = [least_width(link, B, n, goal) for goal in (1 / n, PAYS)]
            cells.append(" / ".join(least) if n <= link.most else "")
        rows.append([link.name, *cells])
    return table(["link", *(f"B = {B}, n = {n}" for B, n in points)], rows)


def least_width(link: Link, B: int, n: int, goal: float) -> str:
    """The smallest H, a multiple of 64, at which the efficiency exceeds `goal`."""
    for H in range(64, WIDEST + 1, 64):
        shape = KERNEL._replace(B=B, H=H)
        if alone(shape, link.device) / (n * hidden(shape, link, n)) > goal:
            return f"{H:,}"
    return "-"


def layers_table() -> str:
    """The best chunk of a wavefront over 4 layers, and its efficiency."""
    rows = []
    for link in LINKS:
        cells = []
        for H in WIDTHS:
            K, efficiency = best_chunk(KERNEL._replace(I=H, H=H, inputs=3), link, 4)
            cells.append(f"K = {K}: {efficiency:.2f}")
        rows.append([link.name, *cells])
    return table(["link", *(f"H = {H:,}" for H in WIDTHS)], rows)


def measured_table() -> str:
    """One core, and two devices as predicted and as measured."""
    one, two = MEASURED["one core"], MEASURED["two devices"]
    rows = []
    for name, shape in (("character model", CHARACTER), ("kernel row", KERNEL)):
        met = two[f"psum {shape.parameter_bytes()}"]
        rows.append(_row(f"batch: {name}", one[name], one[f"{name}, half"], met, two[name]))
    for H, shape in LOOPS.items():
        name, met = f"loop {H}", shape.T * two[f"all_gather {H}"]
        rows.append(_row(f"hidden: H = {H}", one[name], one[f"{name}, half"], met, two[name]))
    header = ["split", "one core", "half of it", "exchange", "by t / 2", "by the half", "measured"]
    return table([*header, "speed-up", "errors"], rows)


def _row(name: str, one: float, half: float, met: float, two: float) -> list[str]:
    predicted = [one / 2 + met, half + met]
    milliseconds = [number(t, 1e-3) for t in (one, half, met, *predicted, two)]
    errors = ", ".join(f"{100 * (p / two - 1):+.0f} %" for p in predicted)
    return [name, *milliseconds, f"{one / two:.2f}", errors]


TABLES = [
    moved_table,
    devices_table,
    links_table,
    batch_table,
    whole_batch_table,
    hidden_table,
    layers_table,
    measured_table,
]


def main() -> None:
    """Print every table."""
    print("\n\n".join(make() for make in TABLES))


if __name__ == "__main__":
    main()
