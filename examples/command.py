"""The command line of the other examples: settings, and the exit status."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:  # all packages of a run, before it begins
    from char_model.settings import Checked as Checked
    from char_model.settings import NotNegative as NotNegative
    from char_model.settings import NotNegativeFloat as NotNegativeFloat
    from char_model.settings import Positive as Positive
    from char_model.settings import PositiveFloat as PositiveFloat
    from char_model.streams import guarded

    from jrnn.files import write_whole
except ImportError as error:
    sys.exit(f"error: {error}")


def exit_status(work: Callable[[], str], interrupted: str) -> int:
    """Run a program and print the report that it returns.

    Results are in files, so text that cannot be written is dropped: a closed pipe, a full disk.

    Args:
        work: the program.
        interrupted: the state of its results after Ctrl-C.

    Returns:
        0, 1 after bad input or an OSError, or 130 after Ctrl-C.
    """
    with guarded("stderr", spare=True), guarded("stdout", spare=True):
        try:
            print(work())
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"interrupted: {interrupted}", file=sys.stderr)
            return 130
    return 0


def write_results(stem: Path, result: Any, table: str | None = None) -> None:
    """Write the results, and a table if there is one; a failure leaves the files of earlier runs.

    Args:
        stem: the path of both files, without a suffix.
        result: for the JSON; a value that it has no form for is written as text.
        table: in Markdown, or None.

    Raises:
        OSError: one of them cannot be written; the message names it.
    """
    text = json.dumps(result, indent=1, default=str)
    write_whole(stem.with_suffix(".json"), f"{text}\n".encode())
    if table is not None:
        write_whole(stem.with_suffix(".md"), f"{table}\n".encode())
