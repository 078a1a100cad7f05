"""Compare the accuracy of `examples/japanese_vowels.py` with torch's networks, same recipe.

    python -m benchmarks.japanese_vowels                        # the options are the example's
    python -m benchmarks.japanese_vowels --cell lstm            # nn.LSTM; gru, nn.GRU

Both train every model with the same seeds, batches, optimiser and number of epochs. Each library
uses its default initialisation (torch with two biases), and stops after the last epoch.
"""

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, report
from benchmarks.rivals import load

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import japanese_vowels as example
from ts_data import Sequences


def torch_accuracies(
    name: str, args: example.Settings, train: Sequences, test: Sequences
) -> list[float]:
    """The accuracy of torch's network for each seed."""
    rival = load("torch")
    sizes = train.xs.shape[2], args.hidden_size, len(train.classes)
    accuracies = []
    for seed in range(args.seeds):
        orders = example.epoch_orders(seed, args.epochs, len(train.labels), args.batch_size)
        both, last = name.endswith("-both"), name.startswith("last-")
        model = rival.Classifier(args.cell, sizes, both, last, seed)
        accuracies.append(rival.accuracy_of_classifier(model, orders, args, train, test))
    return accuracies


def measure(name: str, args: example.Settings, train: Sequences, test: Sequences) -> Any:
    """Train a model with both libraries; return the record."""
    own = example.run(name, args, train, test)
    began = time.perf_counter()
    other = torch_accuracies(name, args, train, test)
    return {
        "cell": args.cell,
        "model": name,
        "jrnn": own["accuracies"][-1],
        "torch": other,
        "jrnn_seconds": own["seconds"],
        "torch_seconds": time.perf_counter() - began,
    }


def table(records: list[dict[str, Any]]) -> str:
    """A table of means with standard errors, and the difference in units of its error."""
    rows = []
    for r in records:
        (own, own_error), (other, other_error) = (
            example.mean_and_error(r[program]) for program in ("jrnn", "torch")
        )
        ratio = (own - other) / np.hypot(own_error, other_error)
        accuracies = [f"{100 * own:.1f} ({100 * own_error:.1f})"]
        accuracies += [f"{100 * other:.1f} ({100 * other_error:.1f})"]
        seconds = [report.number(r["jrnn_seconds"]), report.number(r["torch_seconds"])]
        rows.append([r["cell"], r["model"], *accuracies, f"{ratio:+.1f}", *seconds])
    header = ["cell", "model", "jrnn, % (standard error)", "torch, % (standard error)"]
    return report.table([*header, "difference / its error", "jrnn s", "torch s"], rows)


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, or 1 after bad input."""
    args = example.Settings.parse(argv)
    try:
        load("torch")
        args.out.mkdir(parents=True, exist_ok=True)
        train, test = example.load_data(args)
        records = [measure(name, args, train, test) for name in args.models]
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "benchmarks.japanese_vowels", *words])
    described = machine.description()
    result = {"command": command, "machine": described, "records": records}
    text = f"{machine.sentence(described)}\n\n{table(records)}\n"
    (args.out / "beside_torch.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "beside_torch.md").write_text(f"# japanese_vowels\n\n    {command}\n\n{text}")
    print(f"\n{text}\nbeside_torch.md and .json are in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
