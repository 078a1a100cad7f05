"""Shared options of the programs, and their results as Markdown, JSON and charts."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import charts, machine
from benchmarks.backends import label, own

# --- options -------------------------------------------------------------------------------------


def parser(doc: str | None, name: str, rivals: list[str], rounds: int) -> argparse.ArgumentParser:
    """The options of every program; `name` is the program and its default folder."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=(doc or "").split("\n\n")[0],  # None with python -OO
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--rows", nargs="+", metavar="ROW", help="rows of the table (None: all)")
    if rivals:
        made.add_argument("--rivals", nargs="+", choices=rivals, default=rivals)
    made.add_argument("--rounds", type=positive, default=rounds, help="turns of every program")
    made.add_argument("--out", type=Path, default=Path(f"out/{name}"), help="directory")
    made.add_argument(
        "--devices", type=positive, help="CPU cores that become devices (None: all of them)"
    )
    made.add_argument("--toy", action="store_true", help="tiny sizes: does everything run?")
    return made


def positive(text: str) -> int:
    """An integer above 0, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def parse(
    parser: argparse.ArgumentParser, argv: list[str] | None, rows: list[Any], toy_rows: list[Any]
) -> argparse.Namespace:
    """Parse the options; `rows` become the keys of existing rows."""
    args = parser.parse_args(argv)
    there = {str(row): row for row in (toy_rows if args.toy else rows)}
    unknown = [row for row in args.rows or [] if row not in there]
    if unknown:
        parser.error(f"argument --rows: {', '.join(unknown)} (choose from {', '.join(there)})")
    args.rows = [there[row] for row in args.rows or there]
    words = sys.argv[1:] if argv is None else argv
    args.command = shlex.join(["python", "-m", parser.prog.split()[-1], *words])
    return args


# --- tables --------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Make a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def number(value: float | None, unit: float = 1) -> str:
    """Format a number with three digits; None is empty."""
    return "" if value is None else f"{value / unit:.3g}"


def kernel_tables(records: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    """(title, table) per dtype, route and pass: ms, with the ratio to jrnn in brackets."""
    for key, group in grouped(records, ("dtype", "route", "gradient")).items():
        dtype, route, gradient = key
        programs = list(dict.fromkeys(labelled(group)))
        rows = []
        for (row,), found in grouped(group, ("row",)).items():
            by_name = labelled(found)
            cells = [time_and_ratio(by_name.get(name), by_name) for name in programs]
            case = ", ".join(map(str, found[0]["case"]))
            rows.append([row, case, *cells, number(found[0]["floor_ms"])])
        title = f"{route}, {dtype}, {'forward + backward' if gradient else 'forward'}"
        yield title, table(["row", "T, B, I, H", *programs, "matmul floor"], rows)


def labelled(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Records by the labels of their programs."""
    return {label(r["program"], r.get("backend")): r for r in records}


def time_and_ratio(record: dict[str, Any] | None, row: dict[str, dict[str, Any]]) -> str:
    """The minimum in ms, and its ratio to jrnn's first backend with the same activation."""
    if record is None:
        return ""
    name, time = own(record["activation"]), number(record["minimum_ms"])
    base = next((r for r in row.values() if r["program"] == name), record)
    return time if base is record else f"{time} ({record['minimum_ms'] / base['minimum_ms']:.2f})"


def grouped(records: list[dict[str, Any]], keys: Sequence[str]) -> dict[Any, list[dict[str, Any]]]:
    """Group records by the values of some keys, in order of appearance."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


def kernel_details(records: list[dict[str, Any]], operations: str = "") -> str:
    """A table of all other measurements; with `operations` also operations per step."""
    header = ["row", "route", "dtype", "pass", "program", "min ms", "median ms", "compile s"]
    header += ["temporary MB", "error", *([operations] if operations else [])]
    rows = []
    for r in records:
        direction = "forward + backward" if r["gradient"] else "forward"
        temporary = number(r["temporary_bytes"], 1e6)
        times = [number(r["minimum_ms"]), number(r["median_ms"]), number(r["compile_seconds"])]
        program = label(r["program"], r.get("backend"))
        start = [r["row"], r["route"], r["dtype"], direction, program]
        counts = [number(r["operations_per_step"])] if operations else []
        rows.append([*start, *times, temporary, f"{r['error']:.1e}", *counts])
    return table(header, rows)


def train_step_table(records: list[dict[str, Any]]) -> str:
    """A table of times, characters per second and, if measured, the final loss."""
    learned = any(r.get("validation_bits") is not None for r in records)
    rows = []
    for r in records:
        size = f"{r['length']}, {r['batch_size']}, {r['hidden_size']}"
        times = [number(r["minimum_ms"]), number(r["median_ms"]), number(r["first_step_seconds"])]
        bits = [f"{r['validation_bits']:.3f}"] if learned else []
        rate = f"{r['characters_per_second']:,.0f}"
        rows.append([r["row"], size, r["program"], *times, rate, *bits])
    header = ["row", "T, B, H", "program", "min ms", "median ms", "first step s"]
    header += ["characters/s (median)", *(["validation bits"] if learned else [])]
    return table(header, rows)


def scaling_tables(records: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    """(title, table) per axis and line: ms, with the ratio to jrnn in brackets, and bytes."""
    for (axis, row), found in grouped(records, ("axis", "row")).items():
        programs = list(dict.fromkeys(r["program"] for r in found))
        lines = []
        for (at,), point in grouped(found, ("at",)).items():
            by_name = {r["program"]: r for r in point}
            cells = [time_and_ratio(by_name.get(name), by_name) for name in programs]
            memory = [
                number(by_name[name]["temporary_bytes"], 1e6) if name in by_name else ""
                for name in programs
            ]
            lines.append([f"{at:,}", *cells, *memory])
        header = ["T" if axis == "remat" else axis, *programs, *(f"{p} MB" for p in programs)]
        yield f"{axis}: {row}", table(header, lines)


# --- files ---------------------------------------------------------------------------------------


def write(args: argparse.Namespace, name: str, result: dict[str, Any], parts: list[str]) -> None:
    """Write `name`.json and `name`.md, and print the machine."""
    described = machine.description()
    measured_on = f"{machine.sentence(described)} {args.rounds} rounds."
    result = {"command": args.command, "machine": described, "rounds": args.rounds} | result
    head = f"# {name}\n\n    {args.command}\n\n{measured_on}"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / f"{name}.md").write_text("\n\n".join([head, *parts]) + "\n")
    print(f"\n{measured_on}")


def write_kernel(args: argparse.Namespace, records: list[dict[str, Any]], claims: Any) -> None:
    """Write the results of `kernel`."""
    said = "\n".join(f"- {claim}" for claim in claims)
    tables = [f"## {title}\n\n{text}" for title, text in kernel_tables(records)]
    legend = (
        "Milliseconds, minimum over all calls; in brackets over jrnn's (ReLU: over its ReLU), of "
        f"the first of its backends that computes the row: {', '.join(args.backends)}. So are the "
        "claims."
    )
    result = {"records": records, "claims": [claim.as_dict() for claim in claims]}
    parts = [legend, *tables, f"## Claims\n\n{said}", f"## Details\n\n{kernel_details(records)}"]
    write(args, "kernel", result, parts)
    for key, group in grouped(records, ("route", "dtype")).items():
        charts.kernel(args.out / f"kernel_{'_'.join(key)}.png", group, " ".join(key))
    print("\n" + "\n\n".join([*tables, said]))
    print(f"\nkernel.md, kernel.json and the charts are in {args.out}")


def write_train_step(args: argparse.Namespace, records: list[dict[str, Any]], claims: Any) -> None:
    """Write the results of `train_step`."""
    text = train_step_table(records)
    said = "\n".join(f"- {claim}" for claim in claims)
    result = {"records": records, "claims": [claim.as_dict() for claim in claims]}
    write(args, "train_step", result, [text, f"## Claims\n\n{said}"])
    charts.train_step(args.out / "train_step.png", records)
    print(f"\n{text}\n\n{said}\n\ntrain_step.md, .json and .png are in {args.out}")


def write_scaling(args: argparse.Namespace, records: list[dict[str, Any]], claims: Any) -> None:
    """Write the results of `scaling`."""
    parts = [f"## {title}\n\n{text}" for title, text in scaling_tables(records)]
    said = "\n".join(f"- {claim}" for claim in claims)
    result = {"records": records, "claims": [claim.as_dict() for claim in claims]}
    legend = "Milliseconds, minimum over all calls, in brackets over jrnn's; MB: temporary bytes."
    write(args, "scaling", result, [legend, *parts, f"## Claims\n\n{said}"])
    charts.scaling(args.out / "scaling.png", records)
    print("\n" + "\n\n".join([*parts, said]))
    print(f"\nscaling.md, .json and .png are in {args.out}")
