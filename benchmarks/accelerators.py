"""Compile the programs for an H100 and a TPU v5e, on a machine without either.

    python -m benchmarks.accelerators              # T, B, I, H = 512, 32, 128, 256
    python -m benchmarks.accelerators --rows 1 4   # other rows of `cases.py`
    python -m benchmarks.accelerators --cells lstm # of rnn, lstm and gru

Install first, in a separate environment (the compilers need one version of jax):

    pip install -e '.[examples]' -r benchmarks/requirements-accelerators.txt

On a GPU every operation in a loop is a kernel launch, which takes most of the time of a small
recurrence. On a TPU it is a step of the schedule, not a launch, and says less. This program counts
the operations of the loops per time step, and the bytes of temporaries (without inputs and
results). It does not measure speed: see `hlo.py` for the counting rules, `compilers.py` for the
compilers, and `python -m benchmarks.device` for measurements on a device.

batch        sum(hs * y) and its gradient in the parameters, for a batch [T, B, I]
vmap         the same for one sequence [T, I], under `vmap` over [B, T, I]
train step   the character model of `examples/char_lm.py`: ids, loss, clipping, Adam
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import cases, compilers, machine, report, train_step
from benchmarks.hlo import loop_operations
from benchmarks.rivals import jrnn_itself, load

RIVALS = ["autodiff", "flax", "haiku"]


class Job(NamedTuple):
    """One program to compile."""

    program: str  # batch, vmap, train step
    cell: str  # rnn, lstm, gru
    case: tuple[int, ...]  # T, B, I, H
    library: str
    jitted: Any
    args: tuple[Any, ...]


def gradient_jobs(case: cases.Case, cell: str) -> Iterator[Job]:
    """Jobs `batch` and `vmap` of every library."""
    T, B, _, H = case
    params, xs, _ = cases.data(case, cell)
    y = jax.ShapeDtypeStruct((T, B, H), jnp.float32)
    batch_first = (xs.swapaxes(0, 1), jax.ShapeDtypeStruct((B, T, H), jnp.float32))
    recurrences = jrnn_itself.recurrences(case, cell)
    for name in RIVALS:
        recurrences += load(name).recurrences(case, cell)
    for one in recurrences:
        own = one.own(params)
        yield Job("batch", cell, case, one.name, _gradient(one.states), (own, xs, y))
        mapped = jax.vmap(one.states, (None, 0))
        yield Job("vmap", cell, case, one.name, _gradient(mapped), (own, *batch_first))


def _gradient(states: Any) -> Any:
    return jax.jit(jax.value_and_grad(lambda params, xs, y: jnp.sum(states(params, xs) * y)))


def train_jobs() -> Iterator[Job]:
    """Jobs `train step` of every library."""
    args = train_step.Settings(**train_step.RECIPE)
    T, B = args.length, args.batch_size
    characters = train_step.load_data(None, B, T, tempfile.gettempdir()).alphabet.characters
    model = train_step.init_model(jax.random.key(0), args, len(characters))
    case = (T, B, len(characters), args.hidden_size)
    ids = jax.ShapeDtypeStruct((T, B), jnp.int32)
    for name, program in train_step.programs(model, args, RIVALS).items():
        batch = ((ids, ids),) if name == "jrnn" else (ids, ids)
        yield Job("train step", "rnn", case, name, program.train_step, (program.state, *batch))


def measure(job: Job) -> dict[str, Any]:
    """Record counts per time step and bytes of a job, for each device."""
    record: dict[str, Any] = job._asdict()
    del record["jitted"], record["args"]
    for device in compilers.TARGETS:
        program = compilers.compile_for(device, job.jitted, *job.args)
        forward, backward = (n / job.case[0] for n in loop_operations(program.hlo))
        record[device] = {
            "forward": forward,
            "backward": backward,
            "both": forward + backward,
            "temporary_bytes": program.temporary_bytes,
        }
    return record


def tables(records: list[dict[str, Any]]) -> Iterator[str]:
    """Make one Markdown table per program and case."""
    header = ["", *(f"{device}: forward + backward" for device in compilers.TARGETS)]
    header.append("H100: temporary MB (over naive)")
    for key, group in report.grouped(records, ("program", "cell", "case")).items():
        program, cell, case = key
        naive = next(r["H100"]["temporary_bytes"] for r in group if r["library"] == "naive")
        rows = []
        for record in group:
            counts = [_sum(record[device]) for device in compilers.TARGETS]
            temporary = record["H100"]["temporary_bytes"]
            size = f"{report.number(temporary, 1e6)} ({temporary / naive:.2f})"
            rows.append([record["library"], *counts, size])
        sizes = ", ".join(map(str, case))
        yield f"## {program}, {cell}, T, B, I, H = {sizes}\n\n{report.table(header, rows)}"


def _sum(counts: dict[str, Any]) -> str:
    return f"{counts['forward']:.2f} + {counts['backward']:.2f} = {counts['both']:.2f}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerators", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--rows", nargs="+", type=int, choices=cases.CASES, default=[2])
    parser.add_argument("--cells", nargs="+", choices=cases.CELLS, default=list(cases.CELLS))
    parser.add_argument("--out", type=Path, default=Path("out/accelerators"), help="directory")
    args = parser.parse_args(argv)
    args.command = shlex.join([*parser.prog.split(), *(sys.argv[1:] if argv is None else argv)])
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 if a compiler or a library is missing."""
    args = parse(argv)
    try:
        compilers.prepare()
        each = [(cases.CASES[row], cell) for cell in args.cells for row in args.rows]
        jobs = [job for case, cell in each for job in gradient_jobs(case, cell)]
        records = [measure(job) for job in (*jobs, *train_jobs())]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    versions = machine.description()["versions"]
    legend = (
        "Operations that the loops run per time step, and temporary bytes. Compiled by "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "; nothing was run."
    )
    text = "\n\n".join(["# accelerators", f"    {args.command}", legend, *tables(records)])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "accelerators.md").write_text(text + "\n")
    result = {"command": args.command, "versions": versions, "records": records}
    (args.out / "accelerators.json").write_text(json.dumps(result, indent=1) + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
