"""Measure one device, such as a GPU, in ten minutes and write one page.

    python -m benchmarks.device                               # all, on the device JAX prefers
    python -m benchmarks.device --parts gradients             # are the gradients right?
    python -m benchmarks.device --out benchmarks/results/h100 # a page to keep

The most important part runs first. Each part runs in a separate process, and the page is written
after every result, so Ctrl-C or a crash loses no result. A missing library costs one line of the
page. By default the rivals are those that take little time to compile.
"""

import argparse
import datetime
import os
import signal
import sys
from typing import Any

from benchmarks import report
from benchmarks.device import page
from benchmarks.device.runner import BAD, End, Part, Result, run
from benchmarks.rivals import PACKAGES

PARTS = [  # the weights are roughly seconds, for ten minutes in total
    Part("device", "The device", "benchmarks.device.measured:facts", 20),
    Part("gradients", "Gradients", "benchmarks.device.gradients:gradients", 160),
    Part("recurrences", "Recurrences", "benchmarks.device.measured:recurrences", 260),
    Part("training", "The training step", "benchmarks.device.measured:training", 60),
    Part("growth", "Growth", "benchmarks.device.measured:growth", 60),
]
RIVALS = ["autodiff", "flax", "keras", "torch"]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = report.parser("device", __doc__)
    names, add = [part.name for part in PARTS], parser.add_argument
    add("--parts", nargs="+", choices=names, default=names)
    add("--rivals", nargs="+", choices=list(PACKAGES), default=RIVALS)
    add("--minutes", type=report.positive, default=10, help="for all parts together")
    add("--name", help="of the machine, for the page (default: the device's)")
    return report.parse(parser, argv)


class Writer:
    """Writes the page after every new result, and prints it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.page: dict[str, Any] = {
            "name": args.name or "an unknown device",
            "command": args.command,
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            "chart": "No chart yet.",
            "parts": [],
        }

    def write(self) -> None:
        report.write(self.args.out, "device", self.page, page.markdown(self.page))

    def __call__(self, results: list[Result], changed: Result, found: Any) -> None:
        self.page["parts"] = results
        for one in page.machines(self.page):
            name = one["processor"] if one["backend"] == "cpu" else one["device"]
            self.page["name"] = self.args.name or name
        self.write()
        said = page.state(changed) if isinstance(found, End) else found
        if line := sentence(found) if isinstance(found, dict) else said:
            tell(f"{changed['title']}: {line}")


def sentence(record: dict[str, Any]) -> str:
    """A record for the screen, of jrnn or of a comparison."""
    if "passed" in record:
        return f"{page.name_of(record)}: {'pass' if record['passed'] else 'FAIL'}"
    if record.get("program") != "jrnn":
        return ""
    what = "" if record.get("gradient", True) else ", forward"
    return f"{record['table']}, {record['place']}{what}: {record['minimum_ms']:.3g} ms"


def tell(line: str) -> None:
    """Print a line; a lost terminal is not an error."""
    try:
        print(line, flush=True)
    except OSError:  # Python would try again at exit, and fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: list[str] | None = None) -> int:
    """Run all parts; return 0, 1 if a part failed or a result is wrong, or 130 after Ctrl-C."""
    args = parse(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C
        signal.signal(number, signal.default_int_handler)
    parts = [part for part in PARTS if part.name in ("device", *args.parts)]
    writer = Writer(args)
    try:
        results = run(parts, {"toy": args.toy, "rivals": args.rivals}, 60 * args.minutes, writer)
        writer.page["chart"] = page.chart(args.out, writer.page)
        writer.write()
    except OSError as error:
        tell(page.markdown(writer.page))
        print(f"error: {error}; the page is above", file=sys.stderr)
        return 1
    tell(f"\ndevice.md, device.json and device.png are in {args.out}")
    if any(result["state"] == "interrupted" for result in results):
        return 130
    bad = [r for result in results for r in result["records"] if not r.get("passed", True)]
    return 1 if bad or any(result["state"] in BAD for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
