"""Build the site.

python -m website    # from the root, with the extra docs; the site is in out/site
"""

import shutil
import sys
from importlib.metadata import PackageNotFoundError


def main() -> int:
    """Build the site; return 1 if a page, a link or an equation is wrong."""
    try:
        from zensical.main import cli

        from website.pages import ROOT, write_pages

        write_pages(ROOT / "out/pages")
        shutil.rmtree(ROOT / "out/site", ignore_errors=True)
        cli(["build", "--strict", "--clean"], standalone_mode=False)
    except (ModuleNotFoundError, PackageNotFoundError) as error:
        print(f"error: {error}: pip install -e '.[docs]' brings it", file=sys.stderr)
        return 1
    except (FileNotFoundError, RuntimeError) as error:  # a link; what the builder found
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
