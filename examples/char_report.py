"""Results of a training run of the character model: a table, a plot, a few lines."""

import csv
import io
from pathlib import Path

from char_data import Data

from jrnn.files import write_whole


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """Write the rows as CSV."""
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, table.getvalue().encode())


def write_curve(path: Path, rows: list[dict[str, float]], counts: dict[str, float]) -> None:
    """Plot the learning curve as PNG, with horizontal lines for the n-gram models."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    million = [row["characters"] / 1e6 for row in rows]
    axes.plot(million, [row["train_bits"] for row in rows], label="network, training part")
    axes.plot(million, [row["validation_bits"] for row in rows], label="network, validation part")
    best = min(counts, key=counts.__getitem__)
    for name, style in {"2-gram": ":", "3-gram": "--", best: "-."}.items():
        label = f"{name}, validation part"
        axes.axhline(counts[name], color="gray", linestyle=style, label=label)
    last = rows[-1]["validation_bits"]
    axes.set(
        xlabel="characters read (millions)",
        ylabel="cross-entropy (bits per character)",
        title=f"Character model: {last:.3f} bits per character on held-out text",
    )
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    plt.close(figure)
    write_whole(path, picture.getvalue())


def report(rows: list[dict[str, float]], counts: dict[str, float], data: Data) -> None:
    """Print the result of the network and of the n-gram models."""
    network = rows[-1]["validation_bits"]
    best = min(counts, key=counts.__getitem__)
    print(f"\nvalidation, bits per character (text {data.sha256[:16]})")
    for name, bits in [*counts.items(), ("network", network)]:
        print(f"  {name:8s} {bits:6.3f}")
    for name in ("3-gram", best):
        difference = network - counts[name]
        side = "above" if difference > 0 else "below"
        print(f"  the network is {abs(difference):.3f} {side} the {name}")
    print(f"  trained at {rows[-1]['characters_per_second']:,.0f} characters/s")
