"""The command of `docs/pictures/__init__.py`."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(argv: list[str] | None = None) -> int:
    """Draw the pictures that are named."""
    from pictures import FOLDER, PICTURES, write

    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PICTURES)}; or all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default: docs/pictures)")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(PICTURES):
        parser.error(f"NAME: expected {', '.join(PICTURES)}; got {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or PICTURES:
        print(write(name, args.out))
    return 0


if __name__ == "__main__":
    # Instead of this folder, which Python puts first: a picture and an example share a name.
    sys.path[:1] = [str(ROOT), str(ROOT / "examples"), str(ROOT / "docs")]
    sys.exit(main())
