"""Compute the claimed ratios from the records of a run, including those where jrnn loses.

In a ratio "rival / jrnn" above 1, jrnn is faster. Times are minima. haiku's ReLU is compared with
jrnn's ReLU, every other rival with jrnn's tanh. Where jrnn was measured with several backends,
"jrnn" is the first of them.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import backends

SCANS = ["naive", "hoisted", "hoisted x4"]
JAX_LIBRARIES = ["flax", "flax LSTMCell", "haiku", "haiku relu", "haiku own tanh", "keras"]
USERS = "jrnn, a user's cell"
ENDS = ", lengths and resets"


class Claim(NamedTuple):
    """One ratio at several rows."""

    text: str
    ratios: dict[Any, float]  # by row
    lost: list[Any]  # rows where a rival is ahead

    @property
    def geometric_mean(self) -> float:
        """The geometric mean over the rows."""
        return float(np.exp(np.mean(np.log(list(self.ratios.values())))))

    def __str__(self) -> str:
        rows = ", ".join(f"{ratio:.3f} (row {row})" for row, ratio in self.ratios.items())
        mean = f"; geometric mean {self.geometric_mean:.3f}" if len(self.ratios) > 1 else ""
        lost = f"; behind at {', '.join(map(str, self.lost))}" if self.lost else ""
        return f"{self.text}: {rows}{mean}{lost}"

    def as_dict(self) -> dict[str, Any]:
        """The claim as a dict for JSON."""
        mean = self.geometric_mean
        return {
            "claim": self.text,
            "by_row": self.ratios,
            "geometric_mean": mean,
            "lost": self.lost,
        }


class Group:
    """The records of one route, dtype and pass, by row and program, of jrnn's first backend."""

    def __init__(self, records: Iterable[dict[str, Any]], **key: Any) -> None:
        self.rows: dict[Any, dict[str, dict[str, Any]]] = {}
        for r in records:
            if all(r.get(k) == v for k, v in key.items()):
                self.rows.setdefault(r["row"], {}).setdefault(r["program"], r)

    def best(self, row: Any, names: Iterable[str], quantity: str = "minimum_ms") -> float | None:
        """The smallest value of a quantity among these programs; None if none has it."""
        programs = self.rows.get(row, {})
        there = [programs[name][quantity] for name in names if name in programs]
        there = [value for value in there if value is not None]
        return min(there) if there else None

    def over_jrnn(self, row: Any, names: Iterable[str]) -> float | None:
        """The smallest ratio of a rival's time to jrnn's with the same activation."""
        programs = self.rows[row]
        ratios = []
        for name in names:
            if name in programs:
                base = programs[backends.own(programs[name]["activation"])]
                ratios.append(programs[name]["minimum_ms"] / base["minimum_ms"])
        return min(ratios) if ratios else None


def _claim(
    text: str, group: Group, ratio: Callable[[Any], float | None], wins: bool = True
) -> list[Claim]:
    """A list with the claim, or an empty list if nothing was measured."""
    found = {row: ratio(row) for row in group.rows}
    ratios = {row: r for row, r in found.items() if r is not None and r > 0}
    lost = [row for row, r in ratios.items() if wins and r < 1]
    return [Claim(text, ratios, lost)] if ratios else []


def _quotient(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def of_kernel(records: list[dict[str, Any]]) -> list[Claim]:
    """The claims of `kernel`."""
    found: list[Claim] = []
    for gradient, what in ((True, "forward + backward"), (False, "forward")):
        batch = Group(records, route="batch", dtype="float32", gradient=gradient)
        found += _batch(batch, what)
        found += _vmap(Group(records, route="vmap", dtype="float32", gradient=gradient), what)
        found += _ends_of_sequences(Group(records, route="ends", gradient=gradient), what)
        mesh = Group(records, route="mesh", dtype="float32", gradient=gradient)
        found += _autodiff(mesh, f"{what}, mesh") + _floor(mesh, f"{what}, mesh")
        for route in ("batch", "vmap", "mesh"):
            half = Group(records, route=route, dtype="bfloat16", gradient=gradient)
            found += _bfloat16(half, f"{what}, {route}, bfloat16")
        for route, where in (("batch", ""), ("vmap", ", vmap"), ("mesh", ", mesh"), ("ends", ENDS)):
            key = {"route": route, "dtype": "float32", "gradient": gradient}
            found += _backends(records, f"{what}{where}", key)
    return found


def _backends(records: list[dict[str, Any]], what: str, key: dict[str, Any]) -> list[Claim]:
    """XLA's time over the native kernel's, and the bytes the other way round."""
    native, xla = (Group(records, backend=name, **key) for name in ("native", "xla"))

    def ratio(row: Any, a: Group, b: Group, quantity: str) -> float | None:
        return _quotient(a.best(row, ["jrnn"], quantity), b.best(row, ["jrnn"], quantity))

    time = partial(ratio, a=xla, b=native, quantity="minimum_ms")
    memory = partial(ratio, a=native, b=xla, quantity="temporary_bytes")
    text = f"{what}: temporary bytes of jrnn, native / of jrnn, xla"
    return [
        *_claim(f"{what}: jrnn, xla / jrnn, native", native, time),
        *_claim(text, native, memory, wins=False),
    ]


def _autodiff(group: Group, what: str) -> list[Claim]:
    return _claim(f"{what}: best autodiff / jrnn", group, lambda row: group.over_jrnn(row, SCANS))


def _floor(group: Group, what: str) -> list[Claim]:
    def share(row: Any) -> float | None:
        jrnn = group.rows[row]["jrnn"]
        return jrnn["floor_ms"] / jrnn["minimum_ms"]

    return _claim(f"{what}: matmul floor / jrnn", group, share, wins=False)


def _batch(group: Group, what: str) -> list[Claim]:
    everyone = SCANS + JAX_LIBRARIES
    found = _autodiff(group, what)
    for name in [*JAX_LIBRARIES, "torch"]:
        found += _claim(f"{what}: {name} / jrnn", group, partial(group.over_jrnn, names=[name]))
    found += _claim(
        f"{what}: best JAX library / jrnn", group, lambda row: group.over_jrnn(row, JAX_LIBRARIES)
    )
    found += _claim(
        f"{what}: best of autodiff and JAX libraries / jrnn",
        group,
        lambda row: group.over_jrnn(row, everyone),
    )
    found += _floor(group, what)
    for quantity, text in (
        ("temporary_bytes", "jrnn's temporary bytes / the smallest autodiff's"),
        ("compile_seconds", "jrnn's compile time / the shortest autodiff's"),
    ):
        found += _claim(
            f"{what}: {text}",
            group,
            partial(_share_of_autodiff, group, quantity=quantity),
            wins=False,
        )
    for quantity, text in (("minimum_ms", "time"), ("temporary_bytes", "temporary bytes")):
        share = partial(_share_of_a_user, group, quantity=quantity)
        found += _claim(f"{what}: {USERS}, {text} / jrnn's", group, share, wins=False)
    return found


def _share_of_a_user(group: Group, row: Any, quantity: str) -> float | None:
    return _quotient(group.best(row, [USERS], quantity), group.best(row, ["jrnn"], quantity))


def _share_of_autodiff(group: Group, row: Any, quantity: str) -> float | None:
    return _quotient(group.best(row, ["jrnn"], quantity), group.best(row, SCANS, quantity))


def _vmap(group: Group, what: str) -> list[Claim]:
    text = f"{what}: jrnn under vmap / jrnn's batch of the same arrays"
    return _over_itself(group, text, "jrnn batch") + _autodiff(group, f"{what}, vmap")


def _ends_of_sequences(group: Group, what: str) -> list[Claim]:
    text = f"{what}: jrnn with lengths and resets / without"
    others = _autodiff(group, f"{what}{ENDS}")
    return _over_itself(group, text, "jrnn without") + others


def _over_itself(group: Group, text: str, other: str) -> list[Claim]:
    """Claim jrnn's time divided by that of another variant of jrnn."""

    def ratio(row: Any) -> float | None:
        return _quotient(group.best(row, ["jrnn"]), group.best(row, [other]))

    return _claim(text, group, ratio, wins=False)


def _bfloat16(group: Group, what: str) -> list[Claim]:
    found = []
    for kind in ("bfloat16", "mixed"):
        names = [f"{scan} {kind}" for scan in SCANS]
        text = f"{what}: best autodiff, {kind} / jrnn"
        found += _claim(text, group, partial(group.over_jrnn, names=names))
    return found + _claim(
        f"{what}: jrnn in float32 / jrnn",
        group,
        lambda row: group.over_jrnn(row, ["jrnn float32"]),
        wins=False,
    )


def of_train_step(records: list[dict[str, Any]]) -> list[Claim]:
    """The claims of `train_step`; times are medians, like characters per second.

    On one device, which uses every core, every rival is compared with jrnn. On several devices, as
    `examples/char_lm.py` trains, the scans and torch are compared with jrnn.
    """
    group = Group(records)
    programs = dict.fromkeys(r["program"] for r in records)
    found: list[Claim] = []

    def add(name: str, names: list[str], own: str) -> None:
        def ratio(row: Any) -> float | None:
            return _quotient(
                group.best(row, names, "median_ms"), group.best(row, [own], "median_ms")
            )

        found.extend(_claim(f"{name} / {own}", group, ratio))

    alone = [name for name in programs if "devices" not in name]
    for name in alone[1:]:
        add(name, [name], "jrnn")
    add("best autodiff", SCANS, "jrnn")
    add("best JAX library", [n for n in alone if n not in ("jrnn", "torch", *SCANS)], "jrnn")
    for own in [name for name in programs if name.startswith("jrnn, ")]:
        suffix = own.removeprefix("jrnn")
        add(f"best autodiff{suffix}", [scan + suffix for scan in SCANS], own)
        add("torch", ["torch"], own)
        add("jrnn", ["jrnn"], own)
    return found


def of_scaling(records: list[dict[str, Any]]) -> list[Claim]:
    """The claims of `scaling`: growth of time, and results at the end of each sweep."""
    found: list[Claim] = []
    for axis in dict.fromkeys(r["axis"] for r in records):
        of_axis = [r for r in records if r["axis"] == axis]
        if axis in ("remat", "O"):
            found += _memory(of_axis, axis)
        else:
            found += [*_growth(of_axis, axis), *_autodiff_at_points(of_axis, axis)]
    return found


def _ends(records: list[dict[str, Any]], first: bool) -> Group:
    """The records at one end of each line."""
    ends: dict[Any, int] = {}
    for r in records:
        ends[r["row"]] = (min if first else max)(ends.get(r["row"], r["at"]), r["at"])
    return Group(r for r in records if r["at"] == ends[r["row"]])


def _growth(records: list[dict[str, Any]], axis: str) -> list[Claim]:
    start, end = _ends(records, True), _ends(records, False)

    def ratio(row: Any) -> float | None:
        return _quotient(end.best(row, ["jrnn"]), start.best(row, ["jrnn"]))

    points = sorted({r["at"] for r in records})
    text = f"{axis}: jrnn's time at {points[-1]:,} / at {points[0]:,}"
    return _claim(text, end, ratio, wins=False)


def _autodiff_at_points(records: list[dict[str, Any]], axis: str) -> list[Claim]:
    names = [*SCANS, *(f"{scan} bfloat16" for scan in SCANS)]
    found: list[Claim] = []
    for at in sorted({r["at"] for r in records}):
        group = Group(records, at=at)
        text = f"{axis} = {at:,}: best autodiff / jrnn"
        found += _claim(text, group, partial(group.over_jrnn, names=names))
    return found


def _memory(records: list[dict[str, Any]], axis: str) -> list[Claim]:
    end = _ends(records, False)
    at = max(r["at"] for r in records)
    own, other, kept = {
        "remat": ("jrnn remat", "jrnn", "hs"),
        "O": ("jrnn", "readout + softmax", "the logits"),
    }[axis]
    what = f"remat, T = {at:,}" if axis == "remat" else f"readout_cross_entropy, O = {at:,}"

    def share(row: Any) -> float | None:
        return _quotient(end.best(row, [own], "temporary_bytes"), end.rows[row][own]["kept_bytes"])

    def time(row: Any) -> float | None:
        return _quotient(end.best(row, [own]), end.best(row, [other]))

    return [
        *_claim(f"{what}: temporary bytes / those of {kept}", end, share, wins=False),
        *_claim(f"{what}: time / that of {other}", end, time, wins=False),
    ]
